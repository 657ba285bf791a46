package telemetry

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A desk does what is asked of a board, at once.
type desk struct {
	*Board
	t   *testing.T
	now time.Time
}

func newDesk(t *testing.T) *desk {
	return &desk{Board: NewBoard(), t: t, now: time.Unix(1000, 0).UTC()}
}

func (d *desk) later(by time.Duration) {
	d.now = d.now.Add(by)
	for range 2 {
		for _, t := range d.Due(d.now) {
			d.Apply(t)
		}
	}
}

func (d *desk) step(n int, state State, severity Severity, latch bool) {
	d.t.Helper()
	s := step(n, state, severity)
	s.Device, s.Rule, s.At, s.Latch = "kim-long", "flood", d.now, latch
	next, ok := d.Step(s)
	if !ok {
		d.t.Fatalf("step %d was not new", n)
	}
	d.Apply(next)
}

func (d *desk) act(a Act) error {
	w, _ := d.Warning("w")
	a.ID, a.N, a.By, a.At = "w", w.N, "lan", d.now
	next, err := d.Act(a)
	if err == nil {
		d.Apply(next)
	}
	return err
}

func (d *desk) order(o Order) error {
	o.By, o.At = "lan", d.now
	next, err := d.Order(o)
	if err == nil {
		d.Apply(next)
		d.later(0)
	}
	return err
}

func (d *desk) stands(want State, quiet bool) {
	d.t.Helper()
	if w, _ := d.Warning("w"); w.State != want || w.Quiet != quiet {
		d.t.Fatalf("the warning is %s, quiet %v; want %s, %v", w.State, w.Quiet, want, quiet)
	}
}

// TestOutOfService: what is raised out of service is known to nobody until it is
// put back; what lasted before goes and comes back.
func TestOutOfService(t *testing.T) {
	d := newDesk(t)
	until := d.now.Add(time.Hour)
	if err := d.order(Order{Device: "kim-long", Out: true, Why: "lau đầu đo", Until: &until}); err != nil {
		t.Fatal(err)
	}
	d.step(1, Active, Severe, true)
	d.stands(OutOfService, true)
	if err := d.act(Act{Do: Ack}); err == nil {
		t.Error("what is out of service was acknowledged")
	}
	d.step(2, Cleared, Severe, true)
	d.stands(Cleared, true) // nobody knew of it: nobody acknowledges it
	d.step(3, Active, Severe, false)
	d.stands(OutOfService, true)
	d.later(2 * time.Hour)
	d.stands(Active, false)
	if w, _ := d.Transition("w"); w.Act.Do != PutBack || w.Act.By != Gateway || w.Chase == nil || !w.Chase.Since.Equal(w.At) {
		t.Errorf("put back by %+v, chase %+v", w.Act, w.Chase)
	}
	if len(d.Orders()) != 0 {
		t.Error("the order lasts beyond its end")
	}

	if err := d.act(Act{Do: Ack}); err != nil {
		t.Fatal(err)
	}
	if err := d.order(Order{Rule: "flood", Device: "kim-long", Out: true, Why: "x"}); err != nil {
		t.Fatal(err)
	}
	d.stands(OutOfService, false)
	d.step(4, Active, Moderate, false)
	d.stands(OutOfService, false)
	if err := d.order(Order{Rule: "flood", Device: "kim-long", N: 1}); err != nil {
		t.Fatal(err)
	}
	d.stands(Acknowledged, false) // as it was
}

// TestOrders: of two who order at once the second is told who was first.
func TestOrders(t *testing.T) {
	d := newDesk(t)
	if err := d.order(Order{Rule: "flood", Out: true, Why: "thử"}); err != nil {
		t.Fatal(err)
	}
	err := d.order(Order{Rule: "flood", Out: true, Why: "x"})
	conflict, ok := errors.AsType[*Conflict](err)
	if !ok || !errors.Is(err, ErrConflict) || conflict.N != 1 || !strings.Contains(err.Error(), "taken out (thử) by lan at 07:16:40 01/01/1970") {
		t.Errorf("a second order: %v", err)
	}
	if err := d.order(Order{Rule: "flood", N: 1}); err != nil {
		t.Error(err)
	}
	past := d.now
	for want, o := range map[string]Order{
		"device:":       {Out: true, Why: "x"},
		"why:":          {Device: "a", Out: true},
		"until:":        {Device: "a", Out: true, Why: "x", Until: &past},
		"is in service": {Device: "a"},
	} {
		if err := d.order(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", o, err, want)
		}
	}
}

// TestHandedOverAndMarked: both outlive the steps of the engine, and a mark can
// be made when all is over.
func TestHandedOverAndMarked(t *testing.T) {
	d := newDesk(t)
	d.step(1, Active, Severe, false)
	if err := d.act(Act{Do: Assign}); err == nil {
		t.Error("handed over to nobody")
	}
	if err := d.act(Act{Do: Assign, To: "Chi cục Thủy lợi"}); err != nil {
		t.Fatal(err)
	}
	d.step(2, Active, Extreme, false)
	d.step(3, Cleared, Extreme, false)
	if err := d.act(Act{Do: False, Text: "cá chạm đầu đo"}); err != nil {
		t.Fatal(err)
	}
	if err := d.act(Act{Do: False}); err == nil {
		t.Error("marked twice")
	}
	if w, _ := d.Warning("w"); !w.FalseAlarm || w.AssignedTo != "Chi cục Thủy lợi" || w.State != Cleared {
		t.Errorf("%+v", w)
	}
	if err := d.act(Act{Do: Assign, To: "x"}); err == nil {
		t.Error("handed over when it was cleared")
	}
	d.step(4, Active, Minor, false) // it begins anew
	if w, _ := d.Warning("w"); w.FalseAlarm || w.AssignedTo != "" {
		t.Errorf("raised again: %+v", w)
	}
}

// TestTell: an escalation is told once, and its chase ends with acknowledgement.
func TestTell(t *testing.T) {
	d := newDesk(t)
	d.step(1, Active, Severe, false)
	next, ok := d.Tell("w", Escalate, "night/0", []string{"chief"}, "15m", d.now)
	if !ok || next.N != 2 || next.Only[0] != "chief" || len(next.To) != 0 {
		t.Fatalf("%+v", next)
	}
	d.Apply(next)
	if _, ok := d.Tell("w", Escalate, "night/0", []string{"chief"}, "15m", d.now); ok {
		t.Error("escalated twice")
	}
	next, _ = d.Tell("w", Remind, "", nil, "", d.now)
	d.Apply(next)
	if w, _ := d.Transition("w"); len(w.Chase.Done) != 1 || !w.Chase.Reminded.Equal(w.At) {
		t.Errorf("%+v", w.Chase)
	}
	if err := d.act(Act{Do: Ack}); err != nil {
		t.Fatal(err)
	}
	if w, _ := d.Transition("w"); w.Chase != nil || w.Only != nil {
		t.Errorf("acknowledged: %+v", w)
	}
	if _, ok := d.Tell("w", Remind, "", nil, "", d.now); ok {
		t.Error("reminded of what is acknowledged")
	}
}

// TestConflictNamesWho: the second of two operators learns what the first did.
func TestConflictNamesWho(t *testing.T) {
	d := newDesk(t)
	d.step(1, Active, Severe, false)
	if err := d.act(Act{Do: Ack}); err != nil {
		t.Fatal(err)
	}
	_, err := d.Act(Act{ID: "w", N: 1, Do: Ack, By: "minh", At: d.now})
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "is at transition 2, not 1: ack by lan at ") {
		t.Error(err)
	}
}
