package rules

import (
	"math"
	"sort"
	"time"

	"haidang/gateway/telemetry"
)

// Hash returns the hash of the document in force, "" when there is none.
func (e *Engine) Hash() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil {
		return ""
	}
	return e.set.hash
}

// Document returns the document in force; ok is false when there is none. It is
// not to be changed.
func (e *Engine) Document() (doc Document, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil {
		return Document{}, false
	}
	return e.set.doc, true
}

// LogTime returns how far the engine has come in the log; zero at its beginning.
func (e *Engine) LogTime() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now == never {
		return time.Time{}
	}
	return unixTime(e.now)
}

// Pending returns the warnings that are about to be raised: their conditions
// hold, but not yet for long enough. Start is when the conditions began to hold;
// N is 0. Sorted by the time at which they will be raised.
func (e *Engine) Pending() []telemetry.Warning {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []telemetry.Warning{}
	var queue timers
	for _, s := range e.shards {
		queue = append(queue, s.queue...)
	}
	sort.Slice(queue, func(i, j int) bool { return queue.Less(i, j) })
	for _, b := range queue {
		if b.warning != nil || b.waiting == 0 {
			continue
		}
		first, w := int64(math.MaxInt64), raised{}
		for i := range b.rule.levels {
			if b.waiting&(1<<i) == 0 {
				continue
			}
			l := &b.rule.levels[i]
			w.severity = max(w.severity, l.severity)
			w.start = b.due[i] - l.hold
			first = min(first, b.due[i])
		}
		w.id = warningID(b.rule.Name, b.stream.device.id, first, 0)
		warning := b.describe(b.stream.device.shard.aim(b.stream, true), telemetry.Pending, &w)
		out = append(out, warning)
	}
	return out
}

// RuleCount is what a rule did since the program started.
type RuleCount struct {
	Rule        string `json:"rule"`
	On          string `json:"on"`
	Devices     int    `json:"devices"` // to which it applies
	Active      int    `json:"active"`  // warnings that are raised now
	Evaluations uint64 `json:"evaluations"`
	Raised      uint64 `json:"raised"`
	Errors      uint64 `json:"errors"`   // evaluations whose result was not finite
	Withheld    int    `json:"withheld"` // warnings that hold and are not raised: inhibited or muted
	Disabled    bool   `json:"disabled,omitempty"`
	Shadow      bool   `json:"shadow,omitempty"`
}

// tallies returns what the rules in force did, by name.
func (e *Engine) tallies() map[string]*tally {
	tallies := map[string]*tally{}
	if e.set == nil {
		return tallies
	}
	for _, d := range e.devices {
		for _, s := range d.streams {
			if s != nil && s.judged > 0 {
				s.tell()
			}
		}
	}
	for _, r := range e.set.rules {
		t := &tally{}
		for _, s := range e.shards {
			t.add(&s.tallies[r.index])
		}
		tallies[r.Name] = t
	}
	return tallies
}

// Rules returns the rules in force, sorted by name.
func (e *Engine) Rules() []RuleCount {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []RuleCount{}
	if e.set == nil {
		return out
	}
	tallies := e.tallies()
	withheld := map[string]int{}
	for _, s := range e.shards {
		for b := range s.withheld {
			withheld[b.rule.Name]++
		}
	}
	for _, r := range e.set.rules {
		t := tallies[r.Name]
		out = append(out, RuleCount{
			Rule: r.Name, On: r.On, Devices: t.devices, Active: t.active,
			Evaluations: t.evaluations, Raised: t.raised, Errors: t.errors,
			Withheld: withheld[r.Name], Disabled: r.Disabled, Shadow: r.Shadow,
		})
	}
	return out
}
