package ais

import (
	"fmt"
	"net"
	"strings"
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

	Thin Thin `yaml:"thin"` // which positions of a vessel are handed on; default all
	// Clock is whose time a reading has: line (default), the line's own where it is
	// within MaxSkew of receipt; receipt, always that of receipt.
	Clock   string             `yaml:"clock"`
	MaxSkew telemetry.Duration `yaml:"max_skew"` // default 2m; of file:// any time is believed
	// Refresh is how often facts of a vessel that do not change are handed on;
	// default 1h.
	Refresh telemetry.Duration `yaml:"refresh"`
	// Forward are other programs, udp://host:port, that get every sentence whose
	// checksum is right, one in a datagram.
	Forward []string `yaml:"forward"`
}

// The clocks of Config.
const (
	ClockLine    = "line"
	ClockReceipt = "receipt"
)

// maxForwards bounds the programs that sentences are forwarded to.
const maxForwards = 16

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
	if c.Clock != "" && c.Clock != ClockLine && c.Clock != ClockReceipt {
		faults = append(faults, telemetry.Faultf("clock", "clock %q is not line or receipt", c.Clock))
	}
	if c.MaxSkew < 0 || c.MaxSkew.Std() > 30*24*time.Hour {
		faults = append(faults, telemetry.Faultf("max_skew", "max_skew %s is not in 0s..30d; 0 means 2m", c.MaxSkew))
	}
	if c.Refresh < 0 || c.Refresh > 0 && c.Refresh.Std() < time.Second {
		faults = append(faults, telemetry.Faultf("refresh", "refresh %s is shorter than 1s; 0 means 1h", c.Refresh))
	}
	faults = append(faults, telemetry.Under("thin", c.Thin.validate())...)
	return append(faults, c.validateForward()...)
}

func (c *Config) validateForward() []telemetry.Fault {
	var faults []telemetry.Fault
	if len(c.Forward) > maxForwards {
		faults = append(faults, telemetry.Faultf("forward", "%d addresses to forward to: at most %d", len(c.Forward), maxForwards))
	}
	from, err := link.Parse(c.connect())
	for i, to := range c.Forward {
		at := fmt.Sprintf("forward[%d]", i)
		switch t, bad := link.Parse(to); {
		case bad != nil || t.Scheme != link.UDP || strings.HasSuffix(t.Address, ":0"):
			faults = append(faults, telemetry.Faultf(at, "forward %q is not like udp://127.0.0.1:10111", to))
		case err == nil && t.String() == from.String():
			faults = append(faults, telemetry.Faultf(at, "forward %q is where this receiver listens: it would hear itself", to))
		}
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
	return append(faults, circles(configs)...)
}

// circles reports receivers that forward to each other: a sentence would go
// round for as long as it has no error.
func circles(configs []Config) []telemetry.Fault {
	at := map[string]int{} // receiver by the address where it listens
	for i := range configs {
		if t, err := link.Parse(configs[i].connect()); err == nil && t.Scheme == link.UDP {
			at[here(t.Address)] = i
		}
	}
	var reaches func(i, aim int, seen map[int]bool) bool
	reaches = func(i, aim int, seen map[int]bool) bool {
		for _, to := range configs[i].Forward {
			t, err := link.Parse(to)
			next, known := at[here(t.Address)]
			if err != nil || !known || seen[next] {
				continue
			}
			seen[next] = true
			if next == aim || reaches(next, aim, seen) {
				return true
			}
		}
		return false
	}
	var faults []telemetry.Fault
	for i := range configs {
		for j, to := range configs[i].Forward {
			t, err := link.Parse(to)
			next, known := at[here(t.Address)]
			if err == nil && known && next != i && reaches(next, i, map[int]bool{}) {
				faults = append(faults, telemetry.Faultf(fmt.Sprintf("[%d].forward[%d]", i, j),
					"forward %q goes to receiver %q, which forwards back to this one: sentences would go round", to, configs[next].Name))
			}
		}
	}
	return faults
}

// here makes the ways to write a port of this machine one.
func here(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	switch host {
	case "", "0.0.0.0", "::", "127.0.0.1", "::1", "localhost":
		return ":" + port
	}
	return address
}

func (c *Config) connect() string {
	if c.Connect == "" {
		return DefaultConnect
	}
	return c.Connect
}
