// Package route says who is told of a warning.
//
// # Contract
//
// A warning goes to the recipients that its rule names and to those of every
// route that matches it. When neither names anybody it goes to all: a gap in the
// routes must not silence a warning. Who was told once is told of what follows,
// whether a route still matches or not: who heard of the rise hears of the end.
//
// The answer for each transition is written into the warnings log with it. So a
// restart, or another configuration, changes nothing of what was.
//
// While a warning is active and nobody has acknowledged it, the routes that match
// it (at the time at which it became active) give
//
//   - escalations: after a time more recipients are told;
//   - reminders: those who were told are told again;
//   - failovers: others are told instead of a recipient that has not accepted the
//     warning after a time.
//
// Each of them is a transition of its own, with a number n of its own, and so an
// idempotency key id/n of its own; what was done is part of the warning's newest
// transition (telemetry.Chase). After an outage of the gateway what is due is done
// at once, each once. When somebody acknowledges, or shelves, nothing more is due;
// when the severity rises afterwards it begins anew.
package route

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Places says what is known of devices and where they are. It must be safe for
// concurrent use.
type Places interface {
	// Device returns a registered device, or nil.
	Device(id string) *telemetry.Device
	// Inside reports whether a place, WGS 84 in degrees, lies in the zone.
	Inside(zone string, lat, lon float64) bool
}

// A Table is the routes in force. It does not change and is safe for concurrent
// use.
type Table struct {
	routes []Config
	places Places
	all    []string // recipients
}

// New makes a table of valid routes; all are the names of the recipients.
func New(routes []Config, places Places, all []string) *Table {
	return &Table{routes: routes, places: places, all: all}
}

// A Line says whether one route matches, and why.
type Line struct {
	Route   string   `json:"route"` // "rule": what the rule itself names
	Matches bool     `json:"matches"`
	Why     []string `json:"why"` // each condition of the route that was looked at, the first that fails last
	To      []string `json:"to,omitempty"`
	// What follows while nobody acknowledges, when it matches.
	Next []string `json:"next,omitempty"`
}

// An Explanation says who is told of a warning, and why.
type Explanation struct {
	At    time.Time `json:"at"` // the time at which the routes were asked
	To    []string  `json:"to"`
	Lines []Line    `json:"routes"`
}

// To returns who is told of a transition; before is the warning as it stood, nil
// when it is raised. None means all. rule are the recipients that the rule names.
func (t *Table) To(w *telemetry.Warning, before *telemetry.Warning) []string {
	to := w.To
	for i := range t.routes {
		if ok, _ := t.matches(&t.routes[i].Match, w, w.At); ok {
			to = telemetry.Union(to, t.routes[i].To)
		}
	}
	if before == nil || before.State == telemetry.Cleared || before.Quiet {
		return to
	}
	if len(before.To) == 0 {
		return nil // all were told of it
	}
	return telemetry.Union(before.To, to)
}

// Explain says who would be told of a warning at a time, given what the rule
// names in its To.
func (t *Table) Explain(w telemetry.Warning, rule []string, at time.Time) Explanation {
	e := Explanation{At: at, To: slices.Clone(rule), Lines: []Line{}}
	if len(rule) > 0 {
		e.Lines = append(e.Lines, Line{Route: "rule", Matches: true, Why: []string{fmt.Sprintf("the rule %s names them", w.Rule)}, To: rule})
	}
	for i := range t.routes {
		r := &t.routes[i]
		ok, why := t.matches(&r.Match, &w, at)
		line := Line{Route: r.Name, Matches: ok, Why: why}
		if ok {
			line.To, line.Next = r.To, r.next()
			e.To = telemetry.Union(e.To, r.To)
		}
		e.Lines = append(e.Lines, line)
	}
	if len(e.To) == 0 {
		e.To = t.all
		e.Lines = append(e.Lines, Line{Route: "all", Matches: true, Why: []string{"neither the rule nor a route names anybody"}, To: t.all})
	}
	return e
}

func (r *Config) next() []string {
	var out []string
	for _, s := range r.Escalate {
		out = append(out, fmt.Sprintf("after %s without acknowledgement: %s", s.After, strings.Join(s.To, ", ")))
	}
	if r.Remind > 0 {
		out = append(out, fmt.Sprintf("every %s without acknowledgement: those who were told, again", r.Remind))
	}
	if r.Else != nil {
		out = append(out, fmt.Sprintf("%s after one of them did not take it: %s", r.Else.After, strings.Join(r.Else.To, ", ")))
	}
	return out
}

// A Due is one thing to do about a warning that nobody has acknowledged; see
// telemetry.Board.Tell.
type Due struct {
	Do   telemetry.Deed
	Done string // name of an escalation or a failover; "" of a reminder
	To   []string
	Text string
}

// Due returns what is due at a time. missed reports whether a recipient has not
// accepted the news of the warning, w.Chase.N, although it is to get it.
func (t *Table) Due(w *telemetry.Transition, now time.Time, missed func(recipient string) bool) []Due {
	if w.State != telemetry.Active || w.Chase == nil {
		return nil
	}
	var out []Due
	told := w.To
	for i := range t.routes {
		r := &t.routes[i]
		if ok, _ := t.matches(&r.Match, &w.Warning, w.Chase.Since); !ok {
			continue
		}
		for j, s := range r.Escalate {
			done := fmt.Sprintf("%s/%d", r.Name, j)
			if slices.Contains(w.Chase.Done, done) || now.Sub(w.Chase.Since) < s.After.Std() {
				continue
			}
			out = append(out, Due{telemetry.Escalate, done, s.To, fmt.Sprintf("route %s: not acknowledged for %s", r.Name, s.After)})
			told = telemetry.Union(told, s.To)
		}
		out = append(out, r.failovers(w, now, missed)...)
	}
	if r := t.reminds(w, now); r != nil {
		to := told
		if len(w.To) == 0 {
			to = nil // all were told
		}
		out = append(out, Due{telemetry.Remind, "", to, fmt.Sprintf("route %s: not acknowledged since %s", r.Name, w.Chase.Since.In(zone()).Format("15:04 02/01"))})
	}
	return out
}

// reminds returns the route that asks for a reminder now, or nil. Several that
// match remind as often as the most frequent of them.
func (t *Table) reminds(w *telemetry.Transition, now time.Time) *Config {
	last := w.Chase.Since
	if w.Chase.Reminded.After(last) {
		last = w.Chase.Reminded
	}
	for i := range t.routes {
		r := &t.routes[i]
		if r.Remind == 0 || now.Sub(last) < r.Remind.Std() {
			continue
		}
		if ok, _ := t.matches(&r.Match, &w.Warning, w.Chase.Since); ok {
			return r
		}
	}
	return nil
}

func (r *Config) failovers(w *telemetry.Transition, now time.Time, missed func(string) bool) []Due {
	if r.Else == nil || missed == nil || now.Sub(w.Chase.At) < r.Else.After.Std() {
		return nil
	}
	var out []Due
	for _, name := range r.To {
		done := fmt.Sprintf("%s/else/%s/%d", r.Name, name, w.Chase.N)
		if slices.Contains(w.Chase.Done, done) || !missed(name) {
			continue
		}
		out = append(out, Due{telemetry.Failover, done, r.Else.To, fmt.Sprintf("route %s: %s has not accepted it for %s", r.Name, name, r.Else.After)})
	}
	return out
}

// Interested reports whether any route has something to do while nobody
// acknowledges.
func (t *Table) Interested() bool {
	return slices.ContainsFunc(t.routes, func(r Config) bool { return len(r.Escalate) > 0 || r.Remind > 0 || r.Else != nil })
}
