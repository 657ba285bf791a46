package ioc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// Times of a siren.
const (
	DefaultLongest = 10 * time.Minute

	sirenEvery  = 5 * time.Second // between looks whether it should sound
	sirenAgain  = time.Minute     // after which it is switched on again while it should sound: its relay may have lost power
	sirenSwitch = 10 * time.Second
	sirenPulse  = time.Second     // of a test
	sirenLast   = 3 * time.Second // to switch it off at the end
	minLongest  = time.Second
	maxLongest  = 24 * time.Hour
)

// SirenConfig is a siren, a lamp or a barrier on a coil or a register of Modbus.
// It is on while a warning that goes to it is active and as grave as At, and off
// as soon as all of those are over, acknowledged, shelved or less grave; and
// after Longest in any case, until the next one is raised or rises. Longest counts
// from when it sounds: a warning that was raised while nothing could be switched
// sounds when that is possible again.
//
// Who switches it on may lose power before he switches it off: choose a relay
// with a timer of its own, and let On be its time where it takes one.
type SirenConfig struct {
	Line    string `yaml:"line"`    // name of the Modbus line
	Unit    string `yaml:"unit"`    // id, device, or modem/id, as for haidang modbus write
	Setting string `yaml:"setting"` // a write of the unit's profile, which its configuration has to allow

	At       telemetry.Severity `yaml:"at"`       // default extreme
	Longest  telemetry.Duration `yaml:"longest"`  // 1s to 1d; default DefaultLongest
	On       *float64           `yaml:"on"`       // what is written; default 1
	Off      *float64           `yaml:"off"`      // default 0
	Exercise bool               `yaml:"exercise"` // it sounds in a drill, too
}

// Validate reports what is wrong; whether the setting can be written is not
// looked at.
func (c SirenConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	for _, f := range [...]struct{ path, value string }{{"line", c.Line}, {"unit", c.Unit}, {"setting", c.Setting}} {
		if f.value == "" {
			faults = append(faults, telemetry.Faultf(f.path, "%s is missing; expected line, unit and setting, as for haidang modbus write", f.path))
		}
	}
	if t := c.Longest.Std(); t != 0 && (t < minLongest || t > maxLongest) {
		faults = append(faults, telemetry.Faultf("longest", "%s is not in %s..%s", c.Longest, telemetry.Duration(minLongest), telemetry.Duration(maxLongest)))
	}
	for _, f := range [...]struct {
		path  string
		value *float64
	}{{"on", c.On}, {"off", c.Off}} {
		if f.value != nil && !telemetry.Finite(*f.value) {
			faults = append(faults, telemetry.Faultf(f.path, "%v is not a number", *f.value))
		}
	}
	if c.number(true) == c.number(false) {
		faults = append(faults, telemetry.Faultf("on", "on and off are both %v", c.number(true)))
	}
	return faults
}

func (c *SirenConfig) number(on bool) float64 {
	switch {
	case on && c.On != nil:
		return *c.On
	case !on && c.Off != nil:
		return *c.Off
	case on:
		return 1
	}
	return 0
}

// A Switch writes a number to a setting of a Modbus unit.
type Switch func(ctx context.Context, line, unit, setting string, number float64) error

// A Past says what has become of a warning: news is the transition with which it
// became active or rose last, at the log time of that, and told the newest transition
// that the recipient has accepted, also before this start. What is not known is 0.
type Past func(id string) (news int, at time.Time, told int)

// A Siren switches a siren. It is safe for concurrent use.
type Siren struct {
	cfg   SirenConfig
	write Switch
	past  Past // nil: nothing is known

	mu      sync.Mutex
	held    map[string]hold // warnings for which it sounds, or has sounded for too long
	on      bool
	known   bool      // on is what the relay was told
	written time.Time // when
}

// A hold is one warning's claim on the siren.
type hold struct {
	n       int       // the newest transition
	news    int       // with which it became active or rose
	begun   time.Time // when it was first heard of that; zero: it is not yet
	offered bool      // the warning came to be delivered, not only among those that last
}

// NewSiren makes a siren of a valid configuration.
func NewSiren(c SirenConfig, write Switch, past Past) *Siren {
	if c.At == telemetry.NoSeverity {
		c.At = telemetry.Extreme
	}
	if c.Longest == 0 {
		c.Longest = telemetry.Duration(DefaultLongest)
	}
	return &Siren{cfg: c, write: write, past: past, held: map[string]hold{}}
}

func (s *Siren) claims(w *telemetry.Warning) bool {
	return w.State == telemetry.Active && !w.FalseAlarm && w.Severity >= s.cfg.At && (s.cfg.Exercise || !w.Exercise)
}

// Picks reports whether the transition can switch the siren.
func (s *Siren) Picks(w telemetry.Warning) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, held := s.held[w.ID]
	return held || s.claims(&w)
}

// Deliver switches the siren as the transition wants it.
func (s *Siren) Deliver(ctx context.Context, w telemetry.Warning) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take(&w, true)
	return s.settle(ctx)
}

// take notes what a warning, as it stands, claims. One that is delivered and of which
// the siren has not told yet sounds for the whole time, however long ago it was raised:
// the relay was away, or the gateway. Of any other it counts from when it was raised, so
// that after a restart it sounds for as long as it would have, and a comment is no news.
func (s *Siren) take(w *telemetry.Warning, delivered bool) {
	h, held := s.held[w.ID]
	if (!held || w.N >= h.n) && !s.claims(w) {
		delete(s.held, w.ID)
		return
	}
	news, at, told := s.history(w)
	if !held || news > h.news {
		h = hold{news: news, begun: at}
	}
	h.n = max(h.n, w.N)
	if delivered && !h.offered {
		h.offered = true
		if told < news {
			h.begun = time.Time{}
		}
	}
	s.held[w.ID] = h
}

// history is the past of a warning; of one that is not known the transition itself is
// the news.
func (s *Siren) history(w *telemetry.Warning) (news int, at time.Time, told int) {
	if s.past != nil {
		news, at, told = s.past(w.ID)
	}
	if news == 0 {
		return w.N, w.At, told
	}
	return news, at, told
}

// settle switches the siren where it is not as it should be.
func (s *Siren) settle(ctx context.Context) error {
	now := time.Now()
	want := false
	for _, h := range s.held {
		want = want || h.begun.IsZero() || now.Sub(h.begun) < s.cfg.Longest.Std()
	}
	if s.known && s.on == want && (!want || now.Sub(s.written) < sirenAgain) {
		s.begin(now)
		return nil
	}
	attempt, cancel := context.WithTimeout(ctx, sirenSwitch)
	defer cancel()
	s.known = false
	if err := s.write(attempt, s.cfg.Line, s.cfg.Unit, s.cfg.Setting, s.cfg.number(want)); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f := &Failure{Reason: reasonOther, Detail: fmt.Sprintf("switch %s of unit %s on %s: %v", s.cfg.Setting, s.cfg.Unit, s.cfg.Line, err)}
		if attempt.Err() != nil {
			f.Reason = reasonTimeout
		}
		return f
	}
	s.on, s.known, s.written = want, true, now
	s.begin(now)
	return nil
}

// begin notes that the siren sounds for whatever it has not sounded for yet.
func (s *Siren) begin(now time.Time) {
	for id, h := range s.held {
		if s.on && h.begun.IsZero() {
			h.begun = now
			s.held[id] = h
		}
	}
}

// Close switches the siren off: nobody would do it later. It sounds again when the
// gateway is there again and what it sounded for lasts.
func (s *Siren) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known && !s.on {
		return
	}
	clear(s.held)
	ctx, cancel := context.WithTimeout(context.Background(), sirenLast)
	defer cancel()
	_ = s.settle(ctx) // the line may have ended before; the relay's own timer is what is left then
}

// Probe switches the siren on for a moment, then to what it should be.
func (s *Siren) Probe(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	attempt, cancel := context.WithTimeout(ctx, sirenSwitch)
	defer cancel()
	s.known = false
	err := s.write(attempt, s.cfg.Line, s.cfg.Unit, s.cfg.Setting, s.cfg.number(true))
	if err != nil {
		err = &Failure{Reason: reasonOther, Detail: fmt.Sprintf("switch %s of unit %s on %s: %v", s.cfg.Setting, s.cfg.Unit, s.cfg.Line, err)}
	} else {
		err = sleep(ctx, sirenPulse)
	}
	// Off in any case: the first write may have come through, and who asked may
	// have left.
	return errors.Join(err, s.settle(context.WithoutCancel(ctx)))
}

// Every is how often Keep looks.
func (s *Siren) Every() time.Duration { return sirenEvery }

// Keep holds the siren to the warnings that last: it forgets those that are
// over, sounds for those of before a restart, and stops in time.
func (s *Siren) Keep(ctx context.Context, lasting func() []telemetry.Warning) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := map[string]bool{}
	for _, w := range lasting() {
		last[w.ID] = true
		s.take(&w, false)
	}
	for id := range s.held {
		if !last[id] {
			delete(s.held, id)
		}
	}
	return s.settle(ctx)
}
