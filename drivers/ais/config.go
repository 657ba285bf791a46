package ais

import (
	"fmt"
	"time"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

// A Config is one receiver of AIS sentences.
type Config struct {
	Name    string             `yaml:"name"`    // of the source, ais.<name>, and of its link device
	Connect string             `yaml:"connect"` // see package link
	Idle    telemetry.Duration `yaml:"idle"`    // a connection that says nothing for so long is closed; 0: never
	// MaxConnections bounds the talkers of listen:// and the senders of udp://;
	// default 64.
	MaxConnections int `yaml:"max_connections"`
}

// DefaultConnect is where a receiver listens when nothing is configured.
const DefaultConnect = "listen://127.0.0.1:10110"

// maxConnections is the highest bound: each talker costs two goroutines and
// some 40 KiB.
const maxConnections = 4096

// Validate returns what is wrong in the configuration.
func (c *Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if !telemetry.ValidName(c.Name) {
		faults = append(faults, telemetry.Faultf("name", "name %q is not a name of at most %d letters, digits and ._:- that begins with a letter or digit", c.Name, telemetry.MaxNameRunes))
	}
	if _, err := link.Parse(c.connect()); err != nil {
		faults = append(faults, telemetry.Faultf("connect", "%v", err))
	}
	if c.Idle < 0 || c.Idle > 0 && c.Idle.Std() < time.Second {
		faults = append(faults, telemetry.Faultf("idle", "idle %s is shorter than 1s; 0 means never", c.Idle))
	}
	if c.MaxConnections < 0 || c.MaxConnections > maxConnections {
		faults = append(faults, telemetry.Faultf("max_connections", "max_connections %d is not in 0..%d; 0 means 64", c.MaxConnections, maxConnections))
	}
	return faults
}

// ValidateAll returns what is wrong in the list; paths begin with [i].
func ValidateAll(configs []Config) []telemetry.Fault {
	var faults []telemetry.Fault
	seen := map[string]bool{}
	for i := range configs {
		at := fmt.Sprintf("[%d]", i)
		faults = append(faults, telemetry.Under(at, configs[i].Validate())...)
		if seen[configs[i].Name] {
			faults = append(faults, telemetry.Faultf(at+".name", "name %q is there twice", configs[i].Name))
		}
		seen[configs[i].Name] = true
	}
	return faults
}

func (c *Config) connect() string {
	if c.Connect == "" {
		return DefaultConnect
	}
	return c.Connect
}
