package backtest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

var begin = time.Date(2025, 10, 27, 0, 0, 0, 0, vietnam)

// An above raises above 1, severe above 2, and notes what it is shown.
type above struct {
	frames []string
	state  map[string]*telemetry.Transition
}

func newAbove() *above { return &above{state: map[string]*telemetry.Transition{}} }

func (e *above) Evaluate(at time.Time, readings []telemetry.Reading) []telemetry.Transition {
	e.frames = append(e.frames, fmt.Sprintf("%s %d", at.Sub(begin), len(readings)))
	var out []telemetry.Transition
	for i := range readings {
		r := &readings[i]
		v, _ := r.Number("level_m")
		severity := telemetry.NoSeverity
		if v > 1 {
			severity = telemetry.Moderate
		}
		if v > 2 {
			severity = telemetry.Severe
		}
		t := e.state[r.Device]
		switch {
		case r.Control() || t == nil && severity == telemetry.NoSeverity || t != nil && t.Severity == severity:
			continue
		case t == nil:
			t = &telemetry.Transition{Warning: telemetry.Warning{ID: fmt.Sprint(r.Device, at.Unix()), Rule: "high", Device: r.Device, State: telemetry.Active, Start: at}}
			e.state[r.Device] = t
		case severity == telemetry.NoSeverity:
			t.State = telemetry.Cleared
			delete(e.state, r.Device)
		}
		if severity != telemetry.NoSeverity {
			t.Severity = severity
		}
		t.At, t.Values = at, map[string]float64{"level_m": v}
		out = append(out, *t)
	}
	return out
}

func level(device string, after time.Duration, v float64) telemetry.Reading {
	return telemetry.Reading{Device: device, Kind: "river", Time: begin.Add(after), Values: []telemetry.Value{{Name: "level_m", Number: v}}}
}

func sequence(list ...telemetry.Reading) iter.Seq2[telemetry.Reading, error] {
	return func(yield func(telemetry.Reading, error) bool) {
		for _, r := range list {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func run(t *testing.T, o Options, list ...telemetry.Reading) (*Trial, *above) {
	t.Helper()
	e := newAbove()
	trial := &Trial{Engine: e, Control: []telemetry.Reading{{Kind: telemetry.KindControl}}}
	if err := Run(context.Background(), sequence(list...), o, trial); err != nil {
		t.Fatal(err)
	}
	return trial, e
}

const hour = time.Hour

func TestReport(t *testing.T) {
	list := []telemetry.Reading{
		level("a", 0, 1.5), level("a", 2*hour, 0.5), // before From: over, not reported
		level("b", 3*hour, 1.2), // from before From on
		level("a", 6*hour, 2.5), level("b", 6*hour, 1.2),
		level("a", 7*hour, 0.5), level("a", 7*hour+20*time.Minute, 1.5), level("a", 8*hour, 0.5), // flaps
		level("b", 9*hour, 0.5), level("a", 10*hour, 3),
	}
	trial, e := run(t, Options{From: begin.Add(5 * hour), To: begin.Add(12 * hour)}, list...)
	var text strings.Builder
	if err := trial.Report.Write(&text, 2); err != nil {
		t.Fatal(err)
	}
	want := `2025-10-27 05:00 to 2025-10-27 12:00 (+07:00): 10 readings of 2 devices

rule  device  raised  flaps  in alarm  longest  severity
high  a       3       1      3h40m     2h       severe
high  b       1       0      4h        4h       moderate

high a
  2025-10-27 06:00  1h              severe    level_m=2.5
  2025-10-27 07:20  40m             moderate  level_m=1.5
  and 1 more

high b
  2025-10-27 03:00  4h              moderate  level_m=1.2
`
	if text.String() != want {
		t.Errorf("report:\n%s\nwant:\n%s", &text, want)
	}
	if last := trial.Report.Rows[0].Episodes[2]; last.End != nil || last.Minutes != 120 {
		t.Errorf("the one that lasts is %+v", last)
	}
	if got := strings.Join(e.frames[:4], ", "); got != "0s 1, 0s 1, 2h0m0s 1, 3h0m0s 1" {
		t.Errorf("frames %s", got)
	}
	if last := e.frames[len(e.frames)-1]; last != "12h0m0s 0" {
		t.Errorf("log time ends with %s", last)
	}
	trial, _ = run(t, Options{Wanted: func(rule, device string) bool { return device == "b" }}, list...)
	if len(trial.Report.Rows) != 1 || trial.Report.Rows[0].Device != "b" || trial.Report.Rows[0].Minutes != 360 {
		t.Errorf("of b alone: %+v", trial.Report.Rows)
	}
}

func TestReceiptAndGap(t *testing.T) {
	late := level("a", 0, 0.1)
	late.Delay = 3 * hour
	_, e := run(t, Options{Gap: 2 * hour}, level("a", hour, 0), late, level("a", 2*hour, 0))
	// The control record; 1h; the gap and what came at 3h, with it what claims 2h.
	want := "1h0m0s 1, 1h0m0s 1, 3h0m0s 1, 3h0m0s 2, 3h0m0s 0"
	if got := strings.Join(e.frames, ", "); got != want {
		t.Errorf("frames %s\nwant   %s", got, want)
	}
}

func TestUnheard(t *testing.T) {
	e := newAbove()
	e.state["ghost"] = nil
	trial := &Trial{Engine: raisesFor{e, "ghost"}, Control: []telemetry.Reading{{Kind: telemetry.KindControl}}}
	if err := Run(context.Background(), sequence(level("a", 0, 0)), Options{}, trial); err != nil {
		t.Fatal(err)
	}
	if len(trial.Report.Rows) != 0 || fmt.Sprint(trial.Report.Unheard) != "[ghost]" {
		t.Errorf("rows %v, unheard %v", trial.Report.Rows, trial.Report.Unheard)
	}
}

// raisesFor raises for a device of which nothing is heard.
type raisesFor struct {
	Engine
	device string
}

func (e raisesFor) Evaluate(at time.Time, readings []telemetry.Reading) []telemetry.Transition {
	e.Engine.Evaluate(at, nil)
	return []telemetry.Transition{{Warning: telemetry.Warning{ID: "g", Rule: "silent", Device: e.device, State: telemetry.Active, Severity: telemetry.Minor, Start: at, At: at}}}
}

func TestErrors(t *testing.T) {
	trial := &Trial{Engine: newAbove()}
	if err := Run(context.Background(), sequence(), Options{}, trial); err == nil || !strings.Contains(err.Error(), "no readings") {
		t.Errorf("of nothing: %v", err)
	}
	broken := errors.New("the disk is gone")
	fails := func(yield func(telemetry.Reading, error) bool) {
		_ = yield(level("a", 0, 1), nil) && yield(telemetry.Reading{}, broken)
	}
	if err := Run(context.Background(), Merged(Sorted(fails), sequence(level("b", hour, 1))), Options{}, trial); !errors.Is(err, broken) {
		t.Errorf("of a broken source: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	many := slices.Repeat([]telemetry.Reading{level("a", 0, 0)}, progressEvery)
	if err := Run(ctx, sequence(many...), Options{}, trial); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestOrder mixes readings and looks whether Sorted and Merged bring them back.
func TestOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var list []telemetry.Reading
	for i := range 3000 {
		r := level("a", time.Duration(i/3)*time.Minute, float64(i))
		r.Delay = time.Duration(random.IntN(100)) * time.Second
		list = append(list, r)
	}
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	n, last := 0, time.Time{}
	for r, err := range Merged(Sorted(sequence(list[:1000]...)), Sorted(sequence(list[1000:]...)), sequence()) {
		if err != nil || received(&r).Before(last) {
			t.Fatalf("reading %d was received %s, after one of %s; %v", n, received(&r), last, err)
		}
		last = received(&r)
		n++
	}
	if n != len(list) {
		t.Errorf("%d readings, want %d", n, len(list))
	}
	for range Merged(sequence(list...), sequence(list...)) {
		break // a reader may leave
	}
}

func TestCompare(t *testing.T) {
	episode := func(device string, from, to time.Duration, s telemetry.Severity) *Episode {
		e := &Episode{ID: fmt.Sprint(device, from), Rule: "high", Device: device, Start: begin.Add(from), Severity: s, Minutes: (to - from).Minutes()}
		if to > 0 {
			end := begin.Add(to)
			e.End = &end
		}
		return e
	}
	row := func(device string, list ...*Episode) *Row {
		return &Row{Rule: "high", Device: device, Raised: len(list), Episodes: list}
	}
	before := &Report{Rows: []*Row{
		row("a", episode("a", 1*hour, 2*hour, telemetry.Minor), episode("a", 3*hour, 4*hour, telemetry.Minor), episode("a", 6*hour, 9*hour, telemetry.Minor)),
		row("b", episode("b", hour, 0, telemetry.Severe)),
	}}
	after := &Report{Rows: []*Row{
		row("a", episode("a", 1*hour, 2*hour, telemetry.Minor), episode("a", 7*hour, 8*hour, telemetry.Minor), episode("a", 8*hour+time.Minute, 9*hour, telemetry.Minor)),
		row("b", episode("b", hour, 0, telemetry.Severe)),
		row("c", episode("c", hour, 2*hour, telemetry.Minor)),
	}}
	c := Compare(before, after)
	var text strings.Builder
	if err := c.Write(&text, 0); err != nil {
		t.Fatal(err)
	}
	want := `
against the rules that are live now: 2 the same, 1 changed, 1 only now, 2 only new
only with the rules that are live now:
  high a  2025-10-27 03:00  1h              minor
only with the new rules:
  high c  2025-10-27 01:00  1h              minor
  high a  2025-10-27 08:01  59m             minor
changed:
  high a  2025-10-27 07:00  1h              minor
    now: 2025-10-27 06:00  3h              minor
`
	if text.String() != want {
		t.Errorf("comparison:\n%s\nwant:\n%s", &text, want)
	}
}
