package rules

import (
	"math"
	"slices"
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
	queue := slices.Clone(e.queue)
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
		warning := b.describe(e.aim(b.stream, true), telemetry.Pending, &w)
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

// Rules returns the rules in force, sorted by name.
func (e *Engine) Rules() []RuleCount {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []RuleCount{}
	if e.set == nil {
		return out
	}
	e.tell()
	withheld := map[string]int{}
	for b := range e.withheld {
		withheld[b.rule.Name]++
	}
	for _, r := range e.set.rules {
		t := e.tallies[r.Name]
		out = append(out, RuleCount{
			Rule: r.Name, On: r.On, Devices: t.devices, Active: t.active,
			Evaluations: t.evaluations, Raised: t.raised, Errors: t.errors,
			Withheld: withheld[r.Name], Disabled: r.Disabled, Shadow: r.Shadow,
		})
	}
	return out
}
