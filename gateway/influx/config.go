package influx

import (
	"net"
	"net/netip"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Off as Config.Listen means that nothing is listened on.
const Off = "off"

// RetentionDefault is the key of Retention for kinds that are not named in it.
const RetentionDefault = "default"

// MinRetention is the shortest time for which readings can be kept.
const MinRetention = telemetry.Duration(24 * time.Hour)

// Bounds of the write cache of the embedded engine.
const (
	MinCache = telemetry.Size(16 << 20)
	MaxCache = telemetry.Size(64 << 30)
)

// Retention says for how long readings are kept, by kind; "default" is for all
// others. A kind without a time, or with 0, is kept for ever.
type Retention map[string]telemetry.Duration

// Config is the section influx of the configuration: the embedded engine, or a
// server elsewhere when url is set.
type Config struct {
	// Listen is where the embedded engine answers InfluxDB's HTTP API:
	// host:port, or "off". Nothing is listened on when URL is set.
	Listen string `yaml:"listen"`
	TLS    TLS    `yaml:"tls"` // certificate of that listener; empty: plain HTTP
	// Retention is for the embedded engine; a server elsewhere has its own.
	Retention Retention `yaml:"retention"`
	// MinFree is the free space of the disk below which the embedded engine
	// drops its oldest data, a shard group (seven days, or a day when nothing is
	// kept for half a year) at a time. 0: the smaller of 1 GiB and a twentieth
	// of the disk.
	MinFree telemetry.Size `yaml:"min_free"`
	// Cache bounds the memory for values that are not yet in a data file; a
	// quarter of it is the size at which one is written. While it is full,
	// writes are refused and wait in the log.
	Cache telemetry.Size `yaml:"cache"`

	URL    string `yaml:"url"`    // http(s)://host:8086 of a server elsewhere
	Token  string `yaml:"token"`  // of 2.x, or user:password of 1.x
	Org    string `yaml:"org"`    // of 2.x
	Bucket string `yaml:"bucket"` // bucket of 2.x, database or database/policy of 1.x

	// Timeout bounds one write request.
	Timeout telemetry.Duration `yaml:"timeout"`
}

// DefaultConfig returns the configuration that holds where keys are left out:
// the embedded engine on loopback, everything kept.
func DefaultConfig() Config {
	return Config{
		Listen:  "127.0.0.1:8086",
		Cache:   64 << 20,
		Bucket:  Database,
		Timeout: telemetry.Duration(30 * time.Second),
	}
}

// Validate returns what is wrong with the configuration, with paths from the
// section's own top.
func (c Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if c.URL != "" {
		faults = append(faults, c.validateURL()...)
	} else {
		faults = append(faults, c.validateListen()...)
		if c.Token != "" || c.Org != "" {
			faults = append(faults, telemetry.Faultf("url", "token and org are for a server elsewhere, whose url (http://host:8086) is missing"))
		}
		if c.Cache < MinCache || c.Cache > MaxCache {
			faults = append(faults, telemetry.Faultf("cache", "cache %s is not in %s..%s", c.Cache, MinCache, MaxCache))
		}
	}
	if c.Timeout < telemetry.Duration(time.Second) || c.Timeout > telemetry.Duration(10*time.Minute) {
		faults = append(faults, telemetry.Faultf("timeout", "timeout %s is not in 1s..10m", c.Timeout))
	}
	if c.MinFree < 0 {
		faults = append(faults, telemetry.Faultf("min_free", "min_free %s is negative", c.MinFree))
	}
	return append(faults, c.Retention.validate()...)
}

func (c Config) validateURL() []telemetry.Fault {
	var faults []telemetry.Fault
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		faults = append(faults, telemetry.Faultf("url", "url %q is not like http://influx:8086", c.URL))
	} else if u.User != nil || u.RawQuery != "" {
		faults = append(faults, telemetry.Faultf("url", "the url takes no user and no query: use token, org and bucket"))
	}
	if c.Bucket == "" {
		faults = append(faults, telemetry.Faultf("bucket", "bucket is missing: the bucket, or the database of InfluxDB 1.x"))
	}
	if len(c.Retention) > 0 {
		faults = append(faults, telemetry.Faultf("retention", "retention is for the embedded engine; set it in the server at %s", c.URL))
	}
	return faults
}

func (c Config) validateListen() []telemetry.Fault {
	if c.Listen == Off {
		return nil
	}
	_, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return []telemetry.Fault{telemetry.Faultf("listen", "listen %q is not host:port, as 127.0.0.1:8086, or off", c.Listen)}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return []telemetry.Fault{telemetry.Faultf("listen", "port %q is not in 0..65535", port)}
	}
	return nil
}

// Exposed returns a fault when the listener is beyond loopback: what is wrong
// while there are no accounts.
func (c Config) Exposed() []telemetry.Fault {
	host, port, err := net.SplitHostPort(c.Listen)
	if c.URL != "" || err != nil || loopback(host) {
		return nil
	}
	return []telemetry.Fault{telemetry.Faultf("listen", "address %q is not on loopback, and there are no accounts: anyone who reaches it could read and write every reading; make one with `haidang account add`, or use 127.0.0.1:%s", c.Listen, port)}
}

// InClear reports whether secrets cross a network unencrypted.
func (c Config) InClear() bool { return len(c.Exposed()) > 0 && c.TLS.Cert == "" }

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (r Retention) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	kinds := make([]string, 0, len(r))
	for kind := range r {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	for _, kind := range kinds {
		if !telemetry.ValidName(kind) {
			faults = append(faults, telemetry.Faultf("retention."+kind, "%q is not the name of a kind, nor %q", kind, RetentionDefault))
		}
		if d := r[kind]; d != 0 && d < MinRetention {
			faults = append(faults, telemetry.Faultf("retention."+kind, "retention %s is shorter than %s; 0 keeps for ever", d, MinRetention))
		}
	}
	return faults
}

// Of returns for how long readings of this kind are kept; 0 is for ever.
func (r Retention) Of(kind string) time.Duration {
	if d, ok := r[kind]; ok {
		return d.Std()
	}
	return r[RetentionDefault].Std()
}

// longest is the time that the retention policy of the database needs to have;
// 0 is for ever.
func (r Retention) longest() time.Duration {
	longest := r[RetentionDefault].Std()
	if longest == 0 {
		return 0
	}
	for _, d := range r {
		if d == 0 {
			return 0
		}
		longest = max(longest, d.Std())
	}
	return longest
}

// databaseOf splits a bucket of the form database/policy.
func databaseOf(bucket string) (database, policy string) {
	database, policy, _ = strings.Cut(bucket, "/")
	return database, policy
}
