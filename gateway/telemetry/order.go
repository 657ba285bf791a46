package telemetry

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"
)

// An Order takes what a device, a rule, or a rule at one device raises out of
// service, or puts it back (ISA-18.2, out of service: by a person, for as long as
// it takes, as during a repair). The rules go on and what they raise is kept, but
// nobody is told of it.
type Order struct {
	Device string `json:"device,omitempty"` // one of the two at least
	Rule   string `json:"rule,omitempty"`
	Out    bool   `json:"out"` // false: back in service

	// N numbers the orders of the same device and rule, from 1. Of an order that
	// is asked for: the one in force that was seen, 0 for none.
	N     int        `json:"n"`
	By    string     `json:"by"`              // who
	At    time.Time  `json:"at"`              // log time
	Why   string     `json:"why"`             // why; needed to take out of service
	Until *time.Time `json:"until,omitempty"` // end; none: until somebody puts it back
}

// A scope is what an order is about.
type scope struct{ device, rule string }

func (o *Order) scope() scope { return scope{o.Device, o.Rule} }

// String names what the order is about.
func (s scope) String() string {
	switch {
	case s.rule == "":
		return fmt.Sprintf("device %q", s.device)
	case s.device == "":
		return fmt.Sprintf("rule %q", s.rule)
	}
	return fmt.Sprintf("rule %q at device %q", s.rule, s.device)
}

// holds reports whether the order is in force.
func (o *Order) holds(at time.Time) bool {
	return o != nil && o.Out && (o.Until == nil || at.Before(*o.Until))
}

// outBy returns the order that keeps a warning out of service, or nil: the
// narrowest.
func (b *Board) outBy(w *Warning, at time.Time) *Order {
	if w.Exercise {
		return nil
	}
	for _, s := range []scope{{w.Device, w.Rule}, {w.Device, ""}, {"", w.Rule}} {
		if o := b.orders[s]; o.holds(at) {
			return o
		}
	}
	return nil
}

// Orders returns what is out of service, by device and rule.
func (b *Board) Orders() []Order {
	out := []Order{}
	for _, o := range b.orders {
		if o.Out {
			out = append(out, *o)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Device != out[j].Device {
			return out[i].Device < out[j].Device
		}
		return out[i].Rule < out[j].Rule
	})
	return out
}

// Order returns the record that an order makes. The error is ErrConflict when
// somebody else gave one since the operator looked, or says what it lacks.
func (b *Board) Order(o Order) (Transition, error) {
	switch {
	case o.Device == "" && o.Rule == "":
		return Transition{}, errors.New("device: neither a device nor a rule is named")
	case o.By == "":
		return Transition{}, errors.New("by: who acts is missing")
	case o.Out && o.Why == "":
		return Transition{}, errors.New("why: the reason is missing")
	case o.Out && o.Until != nil && !o.Until.After(o.At):
		return Transition{}, errors.New("until: the end is not a time to come")
	}
	before := b.orders[o.scope()]
	switch {
	case before != nil && before.Out && o.N != before.N:
		return Transition{}, &Conflict{What: "what is out of service of " + o.scope().String(), Saw: o.N, N: before.N, By: before.By,
			Did: fmt.Sprintf("taken out (%s)", before.Why), At: before.At}
	case !o.Out && (before == nil || !before.Out):
		return Transition{}, fmt.Errorf("%s is in service", o.scope())
	}
	o.N = 1
	if before != nil {
		o.N = before.N + 1
	}
	return Transition{Warning: Warning{Device: o.Device, Rule: o.Rule, N: o.N, At: o.At}, Order: &o}, nil
}

func (b *Board) applyOrder(o *Order) bool {
	if before := b.orders[o.scope()]; before != nil && o.N <= before.N {
		return false
	}
	b.orders[o.scope()] = o
	return true
}

// Due returns what the course of time, and orders that were given, do to the
// warnings: shelving and orders end, and warnings that last go out of service or
// come back. At most one transition for a warning is returned: when they are
// applied, there may be more.
func (b *Board) Due(now time.Time) []Transition {
	var out []Transition
	for _, o := range b.Orders() {
		if !o.holds(now) {
			end := Order{Device: o.Device, Rule: o.Rule, N: o.N, By: Gateway, At: now, Why: "the time is over"}
			if t, err := b.Order(end); err == nil {
				out = append(out, t)
			}
		}
	}
	for _, t := range b.Lasting() {
		if next, ok := b.due(&t, now); ok {
			out = append(out, next)
		}
	}
	return out
}

// due returns what is due for one warning.
func (b *Board) due(t *Transition, now time.Time) (Transition, bool) {
	next := *t
	next.N++
	next.At, next.Only = t.after(now), nil
	act := Act{ID: t.ID, N: t.N, By: Gateway, At: now}
	order := b.outBy(&t.Warning, now)
	switch {
	case order != nil && t.State != OutOfService && t.State != Returned && t.State != Pending:
		act.Do, act.By, act.Text, act.Until = TakeOut, order.By, order.Why, order.Until
		next.State, next.Expires = OutOfService, order.Until
	case order == nil && t.State == OutOfService:
		act.Do, act.Text = PutBack, "it is in service again and the warning lasts"
		next.Quiet = false
		next.standAgain()
	case t.State == Shelved && t.Expires != nil && !t.Expires.After(now):
		act.Do, act.Text = Unshelve, "the time of shelving is over"
		next.standAgain()
	default:
		return Transition{}, false
	}
	next.Act = &act
	next.chase(t)
	return next, true
}

// Tell returns the transition with which the gateway tells of a warning again
// because nobody has acknowledged it: done names an escalation or a failover, ""
// is a reminder; to are those who are told, none means all that were. ok is false
// when the warning is not active, or that was done before.
func (b *Board) Tell(id string, do Deed, done string, to []string, text string, now time.Time) (next Transition, ok bool) {
	t := b.warnings[id]
	if t == nil || t.State != Active || t.Chase == nil {
		return Transition{}, false
	}
	next = *t
	next.N++
	next.At = t.after(now)
	next.Act = &Act{ID: id, N: t.N, Do: do, By: Gateway, At: now, Text: text}
	next.Only = to
	chase := *t.Chase
	switch {
	case done == "":
		chase.Reminded = next.At
	case slices.Contains(chase.Done, done):
		return Transition{}, false
	default:
		chase.Done = append(slices.Clone(chase.Done), done)
	}
	next.Chase = &chase
	if len(t.To) > 0 {
		next.To = Union(t.To, to)
	}
	return next, true
}

// Union returns the names of both lists, each once, in their order.
func Union(a, b []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, list := range [][]string{a, b} {
		for _, name := range list {
			if !seen[name] {
				seen[name] = true
				out = append(out, name)
			}
		}
	}
	return out
}
