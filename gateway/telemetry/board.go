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
// Step, Act, Order and Due compute the next transition without changing the
// board; once the transition is in the log, Apply changes it.
type Board struct {
	warnings map[string]*Transition
	steps    map[string]int // last step of the engine by warning
	news     map[string]int // last transition of a warning that is no telling again; see tells
	cleared  []string       // ids in the order of clearing
	orders   map[scope]*Order
}

// NewBoard returns an empty board.
func NewBoard() *Board {
	return &Board{warnings: map[string]*Transition{}, steps: map[string]int{}, news: map[string]int{}, orders: map[scope]*Order{}}
}

// A Conflict says what happened to a warning, or to an order, since an operator
// looked. It is an ErrConflict.
type Conflict struct {
	What   string // as in: warning "kim-long-flood-1"
	Saw, N int    // the transition that the operator saw, and the newest
	State  State  // how the warning stands; "" for an order
	By     string // who brought that about; "" for the rules
	Did    string // what he did
	At     time.Time
}

// Error names who did what meanwhile.
func (c *Conflict) Error() string {
	who := c.By
	if who == "" {
		who = "the rules"
	}
	return fmt.Sprintf("%s is at transition %d, not %d: %s by %s at %s", c.What, c.N, c.Saw, c.Did, who,
		c.At.In(time.FixedZone("+07", 7*3600)).Format("15:04:05 02/01/2006"))
}

// Is reports that a Conflict is an ErrConflict.
func (c *Conflict) Is(target error) bool { return target == ErrConflict }

func (t *Transition) conflict(saw int) *Conflict {
	c := &Conflict{What: fmt.Sprintf("warning %q", t.ID), Saw: saw, N: t.N, State: t.State, At: t.At, Did: fmt.Sprintf("%s, %s", t.State, t.Severity)}
	if t.Act != nil {
		c.By, c.Did = t.Act.By, string(t.Act.Do)
	}
	return c
}

// Step returns the transition that a step of the engine makes, and false when
// the log has that step already.
//
// What an operator did outlives a step: an acknowledged warning stays
// acknowledged while its severity does not rise, a shelved one stays shelved,
// and one that was handed over or marked stays so until it is raised again after
// it was cleared. A rise in severity is news and makes an acknowledged warning
// active again; one that is shelved meanwhile stays shelved, and is active when
// shelving ends. A warning that latches and that nobody has acknowledged is not
// cleared but returned, until somebody does. What is raised while its device or
// rule is out of service stands as that, and nobody is told.
func (b *Board) Step(step Transition) (Transition, bool) {
	if step.Step <= b.steps[step.ID] {
		return Transition{}, false
	}
	next := step
	next.Act, next.Order, next.Chase, next.Only = nil, nil, nil, nil
	next.N = step.Step
	before := b.warnings[step.ID]
	if before != nil {
		next.N, next.At = before.N+1, before.after(step.At)
		next.follow(before)
	}
	if next.State != Cleared && next.State != Returned {
		if order := b.outBy(&next.Warning, step.At); order != nil {
			next.Quiet = before == nil || before.State == Cleared || before.Quiet
			next.State, next.Expires = OutOfService, order.Until
		} else {
			next.Quiet = false
		}
	}
	next.chase(before)
	return next, true
}

// follow carries over what outlives a step of the engine.
func (t *Transition) follow(before *Transition) {
	if t.State == Cleared {
		t.AckedBy, t.AssignedTo, t.FalseAlarm, t.Quiet = before.AckedBy, before.AssignedTo, before.FalseAlarm, before.Quiet
		if t.Latch && before.State != Cleared && before.State != OutOfService && !before.taken() {
			t.State = Returned // ISA-18.2: returned to normal, unacknowledged
		}
		return
	}
	if before.State == Cleared {
		return // it begins anew
	}
	t.AssignedTo, t.FalseAlarm, t.Quiet = before.AssignedTo, before.FalseAlarm, before.Quiet
	rises := t.Severity > before.Severity
	switch {
	case before.State == Shelved && before.Expires != nil && t.At.Before(*before.Expires):
		t.State, t.Expires = Shelved, before.Expires
		if !rises { // else it comes back from the shelf as one that nobody has taken
			t.AckedBy = before.AckedBy
		}
	case before.State != Active && !rises && before.AckedBy != "": // also when shelving is over
		t.State, t.AckedBy = Acknowledged, before.AckedBy
	}
}

// chase notes since when nobody has acknowledged a warning that is active, and
// what was done about that.
func (t *Transition) chase(before *Transition) {
	switch {
	case t.State != Active:
		t.Chase = nil
	case before == nil || before.State != Active || before.Chase == nil:
		t.Chase = &Chase{N: t.N, At: t.At, Since: t.At}
	case t.Severity > before.Severity:
		news := *before.Chase
		news.N, news.At = t.N, t.At
		t.Chase = &news
	default:
		t.Chase = before.Chase
	}
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
	if !ok || before.State == Cleared || before.State == Returned && !before.Exercise {
		return Transition{}, false
	}
	end := Transition{Warning: before.Warning, Step: b.steps[id] + 1}
	end.State, end.At, end.Expires = Cleared, at, nil
	if end.Exercise {
		end.Latch = false // what was played waits for nobody
	}
	return end, true
}

// Act returns the transition that an operator's act makes. The error is
// ErrUnknown, ErrConflict when the warning has moved on since the operator saw
// it (by more than a reminder, an escalation or a failover), or says what the act
// lacks.
func (b *Board) Act(act Act) (Transition, error) {
	before, ok := b.warnings[act.ID]
	if !ok {
		return Transition{}, fmt.Errorf("warning %q: %w", act.ID, ErrUnknown)
	}
	// That somebody was told again meanwhile changes nothing that the operator saw.
	if act.N > before.N || act.N < b.news[act.ID] {
		return Transition{}, before.conflict(act.N)
	}
	if act.By == "" {
		return Transition{}, errors.New("by: who acts is missing")
	}
	if err := before.allows(&act); err != nil {
		return Transition{}, err
	}
	next := *before
	next.N++
	next.At = before.after(act.At)
	next.Act, next.Only = &act, nil
	if err := next.do(&act); err != nil {
		return Transition{}, err
	}
	next.chase(before)
	return next, nil
}

// allows returns why a deed is not possible as the warning stands.
func (t *Transition) allows(act *Act) error {
	switch act.Do {
	case Comment, False, Genuine:
		return nil // also when all is over
	case Ack, Shelve, Unshelve, Assign:
	default:
		return fmt.Errorf("do: %q is not one of ack, shelve, unshelve, comment, assign, false-alarm, genuine", act.Do)
	}
	switch {
	case t.State == Cleared:
		return fmt.Errorf("warning %q is cleared: only comment, false-alarm and genuine are possible", t.ID)
	case t.State == Returned && act.Do != Ack && act.Do != Assign:
		return fmt.Errorf("warning %q is over and waits to be acknowledged: %s is not possible", t.ID, act.Do)
	case t.State == OutOfService && act.Do != Assign:
		return fmt.Errorf("warning %q is out of service: %s is not possible until it is put back", t.ID, act.Do)
	case act.Do == Unshelve && t.State != Shelved:
		return fmt.Errorf("warning %q is not shelved", t.ID)
	}
	return nil
}

// do changes the warning as an operator asks.
func (t *Transition) do(act *Act) error {
	switch act.Do {
	case Ack:
		over := t.State == Returned
		t.State, t.AckedBy, t.Expires = Acknowledged, act.By, nil
		if over {
			t.State = Cleared
		}
	case Shelve:
		if act.Until == nil || !act.Until.After(act.At) {
			return errors.New("until: the end of shelving, a time to come, is missing")
		}
		t.State, t.Expires = Shelved, act.Until
	case Unshelve:
		t.standAgain()
	case Comment:
		if act.Text == "" {
			return errors.New("text: the comment is missing")
		}
	case Assign:
		if act.To == "" {
			return errors.New("to: the person or agency in charge is missing")
		}
		t.AssignedTo = act.To
	case False:
		if t.FalseAlarm {
			return fmt.Errorf("warning %q is marked as a false alarm already", t.ID)
		}
		t.FalseAlarm = true
	case Genuine:
		if !t.FalseAlarm {
			return fmt.Errorf("warning %q is not marked as a false alarm", t.ID)
		}
		t.FalseAlarm = false
	}
	return nil
}

// standAgain ends what kept a warning aside.
func (t *Transition) standAgain() {
	t.State, t.Expires = Active, nil
	if t.AckedBy != "" {
		t.State = Acknowledged
	}
}

// Apply puts a transition of the log on the board. It reports false for one
// that the board has already, and changes nothing then.
func (b *Board) Apply(t Transition) bool {
	if t.Order != nil {
		return b.applyOrder(t.Order)
	}
	before, ok := b.warnings[t.ID]
	if ok && t.N <= before.N {
		return false
	}
	if t.Step > b.steps[t.ID] {
		b.steps[t.ID] = t.Step
	}
	if !ok || !t.tellsAgain() {
		b.news[t.ID] = t.N
	}
	wasCleared := ok && before.State == Cleared
	b.warnings[t.ID] = &t
	if t.State == Cleared && !wasCleared {
		b.cleared = append(b.cleared, t.ID)
		b.forget()
	}
	return true
}

// tellsAgain reports whether a transition only tells of the warning again.
func (t *Transition) tellsAgain() bool {
	return t.Act != nil && (t.Act.Do == Escalate || t.Act.Do == Remind || t.Act.Do == Failover)
}

func (b *Board) forget() {
	for len(b.cleared) > KeepCleared {
		delete(b.warnings, b.cleared[0])
		delete(b.steps, b.cleared[0])
		delete(b.news, b.cleared[0])
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

// Transition returns the newest transition of a warning.
func (b *Board) Transition(id string) (Transition, bool) {
	t, ok := b.warnings[id]
	if !ok {
		return Transition{}, false
	}
	return *t, true
}

// Lasting returns the newest transitions of the warnings that are not cleared,
// by id.
func (b *Board) Lasting() []Transition {
	var out []Transition
	for _, t := range b.warnings {
		if t.State != Cleared {
			out = append(out, *t)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
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
