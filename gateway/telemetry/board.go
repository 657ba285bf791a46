package telemetry

import (
	"errors"
	"fmt"
	"sort"
	"time"
)

// KeepCleared is how many cleared warnings a Board remembers: they serve the
// list of past warnings, and a repeated step of the engine is known by them.
const KeepCleared = 10_000

// ErrConflict says that a warning has changed since the operator looked.
var ErrConflict = errors.New("the warning has changed since it was looked at")

// ErrUnknown says that there is no such warning.
var ErrUnknown = errors.New("no such warning")

// A Board is the fold of the warnings log: each warning as it stands. It is
// the only place that knows how the steps of the engine and the acts of the
// operators join into one numbered life of a warning. It is not safe for
// concurrent use.
//
// Step and Act compute the next transition without changing the board; once
// the transition is in the log, Apply changes it.
type Board struct {
	warnings map[string]*Transition
	steps    map[string]int // last step of the engine by warning
	cleared  []string       // ids in the order of clearing
}

// NewBoard returns an empty board.
func NewBoard() *Board {
	return &Board{warnings: map[string]*Transition{}, steps: map[string]int{}}
}

// Step returns the transition that a step of the engine makes, and false when
// the log has that step already.
//
// What an operator did outlives a step: an acknowledged warning stays
// acknowledged while its severity does not rise, a shelved one stays shelved.
// A rise in severity is news and makes an acknowledged warning active again. A
// warning that latches and that nobody has acknowledged is not cleared but
// returned, until somebody does.
func (b *Board) Step(step Transition) (Transition, bool) {
	if step.Step <= b.steps[step.ID] {
		return Transition{}, false
	}
	next := step
	next.Act = nil
	next.N = step.Step
	before, ok := b.warnings[step.ID]
	if !ok {
		return next, true
	}
	next.N, next.At = before.N+1, before.after(step.At)
	if step.State == Cleared {
		next.AckedBy = before.AckedBy
		if step.Latch && before.State != Cleared && !before.taken() {
			next.State = Returned // ISA-18.2: returned to normal, unacknowledged
		}
		return next, true
	}
	rises := step.Severity > before.Severity
	switch before.State {
	case Acknowledged:
		if !rises {
			next.State, next.AckedBy = Acknowledged, before.AckedBy
		}
	case Shelved:
		if before.Expires != nil && step.At.Before(*before.Expires) {
			next.State, next.Expires, next.AckedBy = Shelved, before.Expires, before.AckedBy
		}
	}
	return next, true
}

// taken reports whether somebody has acknowledged the warning as it stands: it
// has not risen since.
func (t *Transition) taken() bool { return t.AckedBy != "" }

// after is at, or just after the transition where that is later: what has the
// higher number happened later, whatever clocks said.
func (t *Transition) after(at time.Time) time.Time {
	if least := t.At.Add(1); at.Before(least) {
		return least
	}
	return at
}

// End returns the step that clears a warning of which the engine has lost its
// knowledge, and false when there is nothing to clear.
func (b *Board) End(id string, at time.Time) (Transition, bool) {
	before, ok := b.warnings[id]
	if !ok || before.State == Cleared || before.State == Returned {
		return Transition{}, false
	}
	end := Transition{Warning: before.Warning, Step: b.steps[id] + 1}
	end.State, end.At, end.Expires = Cleared, at, nil
	return end, true
}

// Act returns the transition that an operator's act makes. The error is
// ErrUnknown, ErrConflict when the warning has moved on since the operator saw
// it, or says what the act lacks.
func (b *Board) Act(act Act) (Transition, error) {
	before, ok := b.warnings[act.ID]
	if !ok {
		return Transition{}, fmt.Errorf("warning %q: %w", act.ID, ErrUnknown)
	}
	if act.N != before.N {
		return Transition{}, fmt.Errorf("warning %q is at transition %d, not %d: %w", act.ID, before.N, act.N, ErrConflict)
	}
	if act.By == "" {
		return Transition{}, errors.New("by: who acts is missing")
	}
	next := *before
	next.N++
	next.At = before.after(act.At)
	next.Act = &act
	if before.State == Cleared && act.Do != Comment {
		return Transition{}, fmt.Errorf("warning %q is cleared: only a comment can be added", act.ID)
	}
	if before.State == Returned && act.Do != Ack && act.Do != Comment {
		return Transition{}, fmt.Errorf("warning %q is over and waits to be acknowledged: only ack and comment are possible", act.ID)
	}
	switch act.Do {
	case Ack:
		next.State, next.AckedBy, next.Expires = Acknowledged, act.By, nil
		if before.State == Returned {
			next.State = Cleared
		}
	case Shelve:
		if act.Until == nil || !act.Until.After(act.At) {
			return Transition{}, errors.New("until: the end of shelving, a time to come, is missing")
		}
		next.State, next.Expires = Shelved, act.Until
	case Unshelve:
		if before.State != Shelved {
			return Transition{}, fmt.Errorf("warning %q is not shelved", act.ID)
		}
		next.State, next.Expires = Active, nil
		if before.AckedBy != "" {
			next.State = Acknowledged
		}
	case Comment:
		if act.Text == "" {
			return Transition{}, errors.New("text: the comment is missing")
		}
	default:
		return Transition{}, fmt.Errorf("do: %q is not one of ack, shelve, unshelve, comment", act.Do)
	}
	return next, nil
}

// Apply puts a transition of the log on the board. It reports false for one
// that the board has already, and changes nothing then.
func (b *Board) Apply(t Transition) bool {
	before, ok := b.warnings[t.ID]
	if ok && t.N <= before.N {
		return false
	}
	if t.Step > b.steps[t.ID] {
		b.steps[t.ID] = t.Step
	}
	wasCleared := ok && before.State == Cleared
	b.warnings[t.ID] = &t
	if t.State == Cleared && !wasCleared {
		b.cleared = append(b.cleared, t.ID)
		b.forget()
	}
	return true
}

func (b *Board) forget() {
	for len(b.cleared) > KeepCleared {
		delete(b.warnings, b.cleared[0])
		delete(b.steps, b.cleared[0])
		b.cleared = b.cleared[1:]
	}
}

// Warning returns the warning with this id as it stands.
func (b *Board) Warning(id string) (Warning, bool) {
	t, ok := b.warnings[id]
	if !ok {
		return Warning{}, false
	}
	return t.Warning, true
}

// Warnings returns the warnings as they stand, the gravest first, then the
// newest; those that are cleared only when all is true.
func (b *Board) Warnings(all bool) []Warning {
	out := make([]Warning, 0, len(b.warnings))
	for _, t := range b.warnings {
		if all || t.State != Cleared {
			out = append(out, t.Warning)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, c := &out[i], &out[j]
		if (a.State == Cleared) != (c.State == Cleared) {
			return c.State == Cleared
		}
		if a.Severity != c.Severity {
			return a.Severity > c.Severity
		}
		if !a.At.Equal(c.At) {
			return a.At.After(c.At)
		}
		return a.ID < c.ID
	})
	return out
}
