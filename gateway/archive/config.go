package archive

import (
	"time"

	"haidang/gateway/telemetry"
)

// Bounds.
const (
	// DefaultKeep is three years and a month: a year's report can be made late.
	DefaultKeep     = 1127 * 24 * time.Hour
	DefaultMaxBytes = 4 << 30
	MaxFile         = 32 << 20 // bytes of lines of one file

	leastKeep     = 31 * 24 * time.Hour
	mostKeep      = 100 * 366 * 24 * time.Hour
	leastMaxBytes = 2 * MaxFile
)

// Config is for how long what has happened is kept: every transition of every
// warning, and every change that somebody made.
type Config struct {
	Keep     telemetry.Duration `yaml:"keep"`      // 31d to 36600d; default 1127d, three years
	MaxBytes telemetry.Size     `yaml:"max_bytes"` // on disk, of the warnings; from 64MiB; default 4GiB, some 60 million transitions
}

// Validate reports what is wrong.
func (c Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if k := c.Keep.Std(); k != 0 && (k < leastKeep || k > mostKeep) {
		faults = append(faults, telemetry.Faultf("keep", "%s is not in %s..%s", c.Keep, telemetry.Duration(leastKeep), telemetry.Duration(mostKeep)))
	}
	if c.MaxBytes != 0 && c.MaxBytes < leastMaxBytes {
		faults = append(faults, telemetry.Faultf("max_bytes", "%s is below %s", c.MaxBytes, telemetry.Size(leastMaxBytes)))
	}
	return faults
}

func (c Config) withDefaults() Config {
	if c.Keep == 0 {
		c.Keep = telemetry.Duration(DefaultKeep)
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	return c
}
