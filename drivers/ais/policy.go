package ais

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A Policy says what a decoder hands on of what it hears.
type Policy struct {
	Thin Thin
	// MaxSkew is how far a line's own time may be from that of receipt to be
	// believed; 0: it is always believed (a recording), below 0: never.
	MaxSkew time.Duration
	// Refresh is how often facts that do not change are handed on.
	Refresh time.Duration
}

// Defaults. DefaultMaxSkew is below the five minutes after which the gateway
// takes a reading for late and judges it by no rule: a receiver whose clock is
// wrong would otherwise silence every warning.
const (
	DefaultMaxSkew = 2 * time.Minute
	DefaultRefresh = time.Hour
)

// Recorded is the policy for recordings: their times are what they say, and
// nothing is thinned.
func Recorded() Policy { return Policy{Refresh: DefaultRefresh} }

// policy is the receiver's; recorded says that its lines come from a file.
func (c *Config) policy(recorded bool) Policy {
	p := Policy{Thin: c.Thin, MaxSkew: c.MaxSkew.Std(), Refresh: c.Refresh.Std()}
	if p.Refresh == 0 {
		p.Refresh = DefaultRefresh
	}
	switch {
	case c.Clock == ClockReceipt:
		p.MaxSkew = -1
	case recorded:
		p.MaxSkew = 0
	case p.MaxSkew == 0:
		p.MaxSkew = DefaultMaxSkew
	}
	return p
}

func (t *Thin) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if t.Every < 0 || t.Every.Std() > time.Hour {
		faults = append(faults, telemetry.Faultf("every", "every %s is not in 0s..1h", t.Every))
	}
	if _, err := parseDistance(t.Distance); err != nil {
		faults = append(faults, telemetry.Faultf("distance", "%v", err))
	}
	if t.Heartbeat < 0 || t.Heartbeat > 0 && t.Heartbeat < t.Every || t.Heartbeat.Std() > time.Hour {
		faults = append(faults, telemetry.Faultf("heartbeat", "heartbeat %s is not from every (%s) to 1h; left out means 1m", t.Heartbeat, t.Every))
	}
	return faults
}

var distanceUnits = [...]struct {
	suffix string
	metres float64
}{{"nmi", 1852}, {"km", 1000}, {"m", 1}}

// parseDistance reads 50m, 0.5km or 1nmi as metres; "" is 0.
func parseDistance(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	for _, u := range distanceUnits {
		if digits, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
			if err == nil && n >= 0 && n*u.metres <= 100_000 {
				return n * u.metres, nil
			}
			break
		}
	}
	return 0, fmt.Errorf("distance %q is not like 50m, 0.5km or 1nmi, at most 100km", s)
}
