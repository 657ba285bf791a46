package spool

import (
	"time"

	"haidang/gateway/telemetry"
)

// What happens when the readings have reached their bound.
const (
	Refuse     = "refuse"      // new readings are refused; sources get no acknowledgement
	DropOldest = "drop_oldest" // the oldest go; followers that had not read them count a gap
)

// Bounds that are not configured.
const (
	MaxFrameBytes = 512 << 10 // lines of one frame; so also the longest line
	MaxQueueBytes = 1 << 20   // queued in each log before AppendAsync blocks: who comes last waits for it all

	defaultMaxBytes  = 8 << 30
	smallestMaxBytes = 4 << 20
	defaultMaxAge    = 60 * 24 * time.Hour
	smallestMaxAge   = time.Second

	warningsMaxBytes = 1 << 30
	warningsMaxAge   = 3 * 366 * 24 * time.Hour
	lettersMaxBytes  = 64 << 20
	attemptsMaxBytes = 256 << 20 // what recipients were told, of machines with roles
	lettersMaxAge    = 90 * 24 * time.Hour
)

// Config is the part "spool" of the configuration: how much of the log is kept, and
// where.
type Config struct {
	// MaxBytes bounds the readings on disk, of all partitions together. Default: the
	// smaller of 8 GiB and half the free disk. At least 4 MiB, for each partition.
	MaxBytes telemetry.Size `yaml:"max_bytes"`
	// MaxAge bounds how long readings wait for a follower. Default 60d.
	MaxAge telemetry.Duration `yaml:"max_age"`
	// Full says what happens at the bound: refuse (default) or drop_oldest.
	Full string `yaml:"full"`
	// URL is that of an external NATS JetStream cluster, such as
	// nats://a:4222,nats://b:4222. Empty: embedded.
	URL string `yaml:"url"`
	// Partitions is in how many parts the readings of a cluster are split, by site,
	// so that several machines with roles work on them: 1 to 64, default 1. It is
	// set once: the cluster remembers it. It means nothing without URL.
	Partitions int `yaml:"partitions"`
	// Replicas is how many servers of the cluster keep each frame: 1 to 5,
	// default 3. It means nothing without URL.
	Replicas int `yaml:"replicas"`
	// Credentials is a file with the credentials for the cluster (JWT and seed).
	Credentials string `yaml:"credentials"`
	// User is whom the cluster knows, instead of Credentials.
	User string `yaml:"user"`
	// Password is that of User, such as ${NATS_PASSWORD}.
	Password string `yaml:"password"`
	// TLS is for a cluster that is spoken to over TLS.
	TLS TLS `yaml:"tls"`
}

// Validate returns everything that is wrong with the configuration.
func (c Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if c.MaxBytes != 0 && c.MaxBytes < smallestMaxBytes {
		faults = append(faults, telemetry.Faultf("max_bytes", "max_bytes %s is below 4MiB", c.MaxBytes))
	}
	if c.MaxAge != 0 && c.MaxAge.Std() < smallestMaxAge {
		faults = append(faults, telemetry.Faultf("max_age", "max_age %s is below 1s", c.MaxAge))
	}
	switch c.Full {
	case "", Refuse, DropOldest:
	default:
		faults = append(faults, telemetry.Faultf("full", "full %q is not one of refuse, drop_oldest", c.Full))
	}
	switch {
	case c.Partitions < 0 || c.Partitions > MaxPartitions:
		faults = append(faults, telemetry.Faultf("partitions", "partitions %d is not in 1..%d", c.Partitions, MaxPartitions))
	case c.Partitions > 1 && c.URL == "":
		faults = append(faults, telemetry.Faultf("partitions", "partitions %d is given without url: an embedded log has one", c.Partitions))
	case c.MaxBytes >= smallestMaxBytes && int64(c.MaxBytes) < int64(c.Partitions)*smallestMaxBytes:
		faults = append(faults, telemetry.Faultf("max_bytes", "max_bytes %s is below 4MiB for each of %d partitions", c.MaxBytes, c.Partitions))
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		faults = append(faults, telemetry.Faultf("replicas", "replicas %d is not in 1..5", c.Replicas))
	}
	return append(faults, c.validateAccess()...)
}

// withDefaults fills in what was left out; freeBytes is what the readings may
// count on: the free disk and what they occupy already. Of a cluster it is not
// known, and means nothing.
func (c Config) withDefaults(freeBytes int64) Config {
	if c.MaxBytes == 0 && c.URL != "" {
		c.MaxBytes = defaultMaxBytes
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = max(min(defaultMaxBytes, telemetry.Size(freeBytes/2)), smallestMaxBytes)
	}
	if c.MaxAge == 0 {
		c.MaxAge = telemetry.Duration(defaultMaxAge)
	}
	if c.Full == "" {
		c.Full = Refuse
	}
	if c.Replicas == 0 {
		c.Replicas = 3
	}
	c.Partitions = max(c.Partitions, 1)
	if c.URL == "" {
		c.Replicas, c.Partitions = 1, 1
	}
	return c
}
