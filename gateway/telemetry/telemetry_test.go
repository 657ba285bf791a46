package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"kim-long": true, "mmsi-574001234": true, "Trạm.Kim_Long:1": true, "9": true, "Hương": true,
		strings.Repeat("a", 128): true, strings.Repeat("ư", 128): true,
		"": false, strings.Repeat("a", 129): false, "-a": false, "_tick": false, ".a": false,
		"a b": false, "a,b": false, `a"b`: false, "a=b": false, "a/b": false, "a+": false, "a#": false,
		"a\x00": false, "a\n": false, "\xff": false, "a\xff": false, "a\u200b": false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestUnixTimeBySize(t *testing.T) {
	want := time.Unix(1761570000, 0)
	for _, text := range []string{"1761570000", "1761570000000", "1761570000000000", "1761570000000000000", "1761570000.0", "2025-10-27T13:00:00Z", "2025-10-27T20:00:00+07:00"} {
		got, ok := ParseTime(text)
		if !ok || !got.Equal(want) {
			t.Errorf("ParseTime(%s) = %v, %v; want %v", text, got.UTC(), ok, want.UTC())
		}
	}
	if got, ok := ParseTime("1761570000.25"); !ok || got.Sub(want) != 250*time.Millisecond {
		t.Errorf("decimals: %v", got.Sub(want))
	}
	for _, text := range []string{"", "now", "27/10/2025", "NaN", "1e400"} {
		if got, ok := ParseTime(text); ok {
			t.Errorf("ParseTime(%q) = %v, want none", text, got)
		}
	}
}

func TestDurationAndSize(t *testing.T) {
	for text, want := range map[string]time.Duration{"60d": 60 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0, "1.5d": 36 * time.Hour} {
		got, err := ParseDuration(text)
		if err != nil || got.Std() != want {
			t.Errorf("%s = %v, %v", text, got, err)
		}
		if back, err := ParseDuration(got.String()); err != nil || back != got {
			t.Errorf("%s writes as %s, which reads as %v, %v", text, got, back, err)
		}
	}
	for text, want := range map[string]Size{"8GiB": 8 << 30, "512 KiB": 512 << 10, "1000": 1000, "1MB": 1e6, "0": 0} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s = %d, %v", text, got, err)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("%s writes as %s", text, got)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1y", "NaNd", "5 apples"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("duration %q = %v, want an error", text, got)
		}
		if got, err := ParseSize(text + "B"); err == nil && text != "" {
			t.Errorf("size %q = %v, want an error", text+"B", got)
		}
	}
}

func TestRegistryTellsEveryFault(t *testing.T) {
	kinds, faults := NewCatalogue([]Kind{{Name: "river"}, {Name: "ri ver"}, {Name: "river"}, {Name: "x", Values: []Quantity{{Name: "time"}, {Name: "a"}, {Name: "a"}}}})
	if len(faults) != 4 {
		t.Errorf("catalogue faults %v, want 4", faults)
	}
	wrong := 91.0
	_, faults = NewRegistry([]Device{
		{ID: "a", Kinds: []string{"river", "volcano"}},
		{ID: "a,b", Lat: &wrong, Interval: -1, Facts: map[string]any{"list": []any{1}}},
		{ID: "a"},
	}, kinds)
	var got []string
	for _, f := range faults {
		got = append(got, f.Path)
	}
	if fmt.Sprint(got) != "[devices[0].kinds[1] devices[1].id devices[1].interval devices[1].lat devices[1].facts.list devices[2].id]" {
		t.Errorf("faults at %v", got)
	}
}

func TestFact(t *testing.T) {
	d := Device{ID: "kim-long", Facts: map[string]any{"alarm1_m": 1, "tidal": true, "river": "Hương", "odd": math.NaN()}}
	for name, want := range map[string]any{"id": "kim-long", "alarm1_m": 1.0, "tidal": 1.0, "river": "Hương"} {
		if got, ok := d.Fact(name); !ok || got != want {
			t.Errorf("%s = %v, %v", name, got, ok)
		}
	}
	for _, name := range []string{"lat", "interval_s", "owner", "none", "odd"} {
		if got, ok := d.Fact(name); ok {
			t.Errorf("%s = %v, want none", name, got)
		}
	}
}

func step(n int, state State, severity Severity) Transition {
	at := time.Unix(int64(1000+n), 0).UTC()
	return Transition{Step: n, Warning: Warning{ID: "w", N: n, State: state, Severity: severity, Start: time.Unix(1001, 0).UTC(), At: at}}
}

// TestBoard follows one warning through steps of the engine and acts of people.
func TestBoard(t *testing.T) {
	b := NewBoard()
	apply := func(next Transition, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if !b.Apply(next) {
			t.Fatalf("transition %s was not new", next.Key())
		}
	}
	engine := func(s Transition) {
		t.Helper()
		next, isNew := b.Step(s)
		if !isNew {
			t.Fatalf("step %d was not new", s.Step)
		}
		apply(next, nil)
	}
	expect := func(n int, state State, severity Severity, by string) {
		t.Helper()
		w, ok := b.Warning("w")
		if !ok || w.N != n || w.State != state || w.Severity != severity || w.AckedBy != by {
			t.Fatalf("warning stands at %+v, want n %d, %s, %s, acked by %q", w, n, state, severity, by)
		}
	}
	act := func(a Act) error {
		a.ID, a.At = "w", time.Unix(1100, 0)
		next, err := b.Act(a)
		if err == nil {
			apply(next, nil)
		}
		return err
	}

	engine(step(1, Active, Moderate))
	expect(1, Active, Moderate, "")
	if err := act(Act{N: 1, Do: Ack, By: "lan"}); err != nil {
		t.Fatal(err)
	}
	expect(2, Acknowledged, Moderate, "lan")
	if err := act(Act{N: 1, Do: Ack, By: "minh"}); !errors.Is(err, ErrConflict) {
		t.Fatalf("a second operator who saw n 1: %v, want a conflict", err)
	}
	engine(step(2, Active, Severe)) // it rises: news, to be acknowledged again
	expect(3, Active, Severe, "")
	if _, isNew := b.Step(step(2, Active, Severe)); isNew {
		t.Fatal("the same step is taken twice")
	}
	if err := act(Act{N: 3, Do: Ack, By: "minh"}); err != nil {
		t.Fatal(err)
	}
	engine(step(3, Active, Moderate)) // it falls: still acknowledged
	expect(5, Acknowledged, Moderate, "minh")
	if err := act(Act{N: 5, Do: Shelve, By: "lan"}); err == nil {
		t.Fatal("shelved without an end")
	}
	until := time.Unix(2000, 0)
	if err := act(Act{N: 5, Do: Shelve, By: "lan", Until: &until}); err != nil {
		t.Fatal(err)
	}
	engine(step(4, Active, Minor)) // it falls: still acknowledged when shelving ends
	expect(7, Shelved, Minor, "minh")
	engine(step(5, Active, Extreme)) // it rises: nobody has acknowledged that
	expect(8, Shelved, Extreme, "")
	if err := act(Act{N: 8, Do: Unshelve, By: "lan"}); err != nil {
		t.Fatal(err)
	}
	expect(9, Active, Extreme, "")
	if err := act(Act{N: 9, Do: Ack, By: "minh"}); err != nil {
		t.Fatal(err)
	}
	if err := act(Act{N: 10, Do: Shelve, By: "lan", Until: &until}); err != nil {
		t.Fatal(err)
	}
	if err := act(Act{N: 11, Do: Unshelve, By: "lan"}); err != nil {
		t.Fatal(err)
	}
	expect(12, Acknowledged, Extreme, "minh")
	engine(step(6, Cleared, Extreme))
	expect(13, Cleared, Extreme, "minh")
	if len(b.Warnings(false)) != 0 || len(b.Warnings(true)) != 1 {
		t.Fatal("a cleared warning is listed as open, or not at all")
	}
	if err := act(Act{N: 13, Do: Ack, By: "lan"}); err == nil {
		t.Fatal("a cleared warning was acknowledged")
	}
	if err := act(Act{N: 13, Do: Comment, By: "lan", Text: "đã xử lý"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Act(Act{ID: "none", N: 1, Do: Ack, By: "lan"}); !errors.Is(err, ErrUnknown) {
		t.Fatalf("an unknown warning: %v", err)
	}
}

// TestLatchedWarning: what latches stands until somebody has acknowledged it, as
// it stands.
func TestLatchedWarning(t *testing.T) {
	type board = *Board
	latched := func(n int, state State, severity Severity) Transition {
		s := step(n, state, severity)
		s.Latch = true
		return s
	}
	engine := func(s Transition) func(board) error {
		return func(b board) error {
			next, _ := b.Step(s)
			b.Apply(next)
			return nil
		}
	}
	act := func(a Act) func(board) error {
		return func(b board) error {
			w, _ := b.Warning("w")
			a.ID, a.N, a.By, a.At = "w", w.N, "lan", time.Unix(1100, 0)
			next, err := b.Act(a)
			if err == nil {
				b.Apply(next)
			}
			return err
		}
	}
	until := time.Unix(9000, 0)
	for name, test := range map[string]struct {
		steps []func(board) error
		want  State
		by    string
		fails bool // the last of them
	}{
		"nobody saw it":           {[]func(board) error{engine(latched(1, Active, Severe)), engine(latched(2, Cleared, Severe))}, Returned, "", false},
		"acknowledged afterwards": {[]func(board) error{engine(latched(1, Active, Severe)), engine(latched(2, Cleared, Severe)), act(Act{Do: Ack})}, Cleared, "lan", false},
		"acknowledged before":     {[]func(board) error{engine(latched(1, Active, Severe)), act(Act{Do: Ack}), engine(latched(2, Cleared, Severe))}, Cleared, "lan", false},
		"rose after it was acknowledged": {[]func(board) error{engine(latched(1, Active, Minor)), act(Act{Do: Ack}), engine(latched(2, Active, Severe)),
			engine(latched(3, Cleared, Severe))}, Returned, "", false},
		"shelved by nobody":     {[]func(board) error{engine(latched(1, Active, Severe)), act(Act{Do: Shelve, Until: &until}), engine(latched(2, Cleared, Severe))}, Returned, "", false},
		"shelving what is over": {[]func(board) error{engine(latched(1, Active, Severe)), engine(latched(2, Cleared, Severe)), act(Act{Do: Shelve, Until: &until})}, Returned, "", true},
		"a comment on it":       {[]func(board) error{engine(latched(1, Active, Severe)), engine(latched(2, Cleared, Severe)), act(Act{Do: Comment, Text: "x"})}, Returned, "", false},
		"without latch":         {[]func(board) error{engine(step(1, Active, Severe)), engine(step(2, Cleared, Severe))}, Cleared, "", false},
	} {
		b := NewBoard()
		for i, do := range test.steps {
			if err := do(b); (err != nil) != (test.fails && i == len(test.steps)-1) {
				t.Errorf("%s: %v", name, err)
			}
		}
		w, _ := b.Warning("w")
		if w.State != test.want || w.AckedBy != test.by || w.N != len(b.Warnings(true))*len(test.steps)-map[bool]int{true: 1}[test.fails] {
			t.Errorf("%s: %+v", name, w)
		}
		if open := len(b.Warnings(false)); (open == 1) != (test.want == Returned) {
			t.Errorf("%s: %d open", name, open)
		}
	}
}

// TestBoardIsAFold applies the same log twice and partly, as after a crash.
func TestBoardIsAFold(t *testing.T) {
	var log []Transition
	b := NewBoard()
	for i, s := range []Transition{step(1, Active, Minor), step(2, Active, Severe), step(3, Cleared, Severe)} {
		next, _ := b.Step(s)
		b.Apply(next)
		log = append(log, next)
		if i == 0 {
			next, err := b.Act(Act{ID: "w", N: 1, Do: Ack, By: "lan", At: time.Unix(1, 0)})
			if err != nil {
				t.Fatal(err)
			}
			b.Apply(next)
			log = append(log, next)
		}
	}
	again := NewBoard()
	for _, t := range append(append([]Transition{}, log...), log...) {
		again.Apply(t)
	}
	want, _ := json.Marshal(b.Warnings(true))
	got, _ := json.Marshal(again.Warnings(true))
	if string(got) != string(want) {
		t.Errorf("folded %s\nwant   %s", got, want)
	}
	if _, isNew := again.Step(step(3, Cleared, Severe)); isNew {
		t.Error("a step that the log has is new again after a restart")
	}
}

func TestBoardForgetsTheOldest(t *testing.T) {
	b := NewBoard()
	for i := range KeepCleared + 10 {
		s := step(1, Active, Minor)
		s.ID = fmt.Sprint("w", i)
		b.Apply(s)
		s.Step, s.N, s.State = 2, 2, Cleared
		b.Apply(s)
	}
	if got := len(b.Warnings(true)); got != KeepCleared || len(b.steps) != KeepCleared {
		t.Errorf("%d warnings and %d steps are kept, want %d", got, len(b.steps), KeepCleared)
	}
}

func TestWarningJSON(t *testing.T) {
	threshold := 3.5
	w := Warning{ID: "kim-long-flood-1", N: 3, Rule: "flood", Device: "kim-long", Site: "kim-long", Kind: "river", State: Active, Severity: Extreme,
		Start: time.Unix(1761570000, 0).UTC(), At: time.Unix(1761570060, 0).UTC(), Values: map[string]float64{"level_m": 3.62}, Threshold: &threshold, Message: Text{"báo động III", "alarm III"}}
	got, err := json.Marshal(&w)
	want := `{"id":"kim-long-flood-1","n":3,"rule":"flood","device":"kim-long","site":"kim-long","kind":"river","state":"active","severity":"extreme","start":"2025-10-27T13:00:00Z","at":"2025-10-27T13:01:00Z","values":{"level_m":3.62},"threshold":3.5,"message":{"vi":"báo động III","en":"alarm III"}}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
}

// TestToldAgain: who acknowledges what he saw is not refused because others were
// told of it meanwhile, and is when it has changed.
func TestToldAgain(t *testing.T) {
	at := time.Date(2025, 10, 27, 9, 0, 0, 0, time.UTC)
	board := NewBoard()
	step := func(n int, severity Severity) {
		t.Helper()
		next, ok := board.Step(Transition{Step: n, Warning: Warning{ID: "w", Rule: "r", Device: "d", State: Active, Severity: severity, Start: at, At: at}})
		if !ok || !board.Apply(next) {
			t.Fatalf("step %d is known", n)
		}
	}
	tell := func(do Deed, done string) {
		t.Helper()
		at = at.Add(time.Minute)
		next, ok := board.Tell("w", do, done, []string{"chief"}, "", at)
		if !ok || !board.Apply(next) {
			t.Fatalf("%s is not told", do)
		}
	}
	comment := func(n int) error {
		next, err := board.Act(Act{ID: "w", N: n, Do: Comment, By: "Lan", Text: "x", At: at})
		if err == nil {
			board.Apply(next)
		}
		return err
	}
	step(1, Severe)
	tell(Escalate, "night/0")
	tell(Remind, "")
	if err := comment(0); !errors.Is(err, ErrConflict) {
		t.Errorf("who saw nothing: %v", err)
	}
	if err := comment(4); !errors.Is(err, ErrConflict) {
		t.Errorf("who saw what is to come: %v", err)
	}
	if err := comment(1); err != nil { // makes 4
		t.Errorf("who saw it before others were told: %v", err)
	}
	for n := 1; n <= 3; n++ {
		if err := comment(n); !errors.Is(err, ErrConflict) {
			t.Errorf("who saw %d before the other's comment: %v", n, err)
		}
	}
	tell(Failover, "night/else")
	step(2, Extreme) // makes 6
	if err := comment(5); !errors.Is(err, ErrConflict) {
		t.Errorf("who did not see that it rises: %v", err)
	}
	if err := comment(6); err != nil {
		t.Error(err)
	}
}

// TestStepAfterShelving: a step that comes when the time of shelving is over, and
// before that is written, finds the warning as shelving has left it.
func TestStepAfterShelving(t *testing.T) {
	until := time.Unix(1002, 0)
	for severity, want := range map[Severity]State{Moderate: Acknowledged, Extreme: Active} {
		b := NewBoard()
		raise, _ := b.Step(step(1, Active, Severe))
		b.Apply(raise)
		for n, act := range []Act{{Do: Ack}, {Do: Shelve, Until: &until}} {
			act.ID, act.N, act.By, act.At = "w", n+1, "lan", time.Unix(1001, 0)
			next, err := b.Act(act)
			if err != nil {
				t.Fatal(err)
			}
			b.Apply(next)
		}
		next, _ := b.Step(step(2, Active, severity)) // at 1002 s
		if by := map[State]string{Acknowledged: "lan"}[want]; next.State != want || next.AckedBy != by || next.Expires != nil {
			t.Errorf("%s: %s by %q until %v, want %s by %q", severity, next.State, next.AckedBy, next.Expires, want, by)
		}
	}
}
