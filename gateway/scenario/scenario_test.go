package scenario

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

func texts(l *list) string {
	var out []string
	for _, s := range l.slots {
		word := fmt.Sprintf("%g", s.value.Number)
		switch {
		case s.silent:
			word = "silent"
		case !s.present:
			word = "_"
		case s.value.Text != "":
			word = s.value.Text
		}
		if s.value.Quality != telemetry.Good {
			word += "!" + s.value.Quality.String()
		}
		out = append(out, word)
	}
	if l.forever {
		out = append(out, "...")
	}
	return strings.Join(out, " ")
}

func TestNotation(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"0.8", "0.8"},
		{"-2 =x3", "-2 -2 -2 -2"},
		{"1x3 _x2 silent 30m 5", "1 1 1 _ _ silent silent silent 5"},
		{"0.8 +0.1x3 -0.2x2", "0.8 0.9 1 1.1 0.9 0.7"},
		{"1 ..2x4 = ..0x1", "1 1.25 1.5 1.75 2 2 0"},
		{"1 _ +1x2", "1 _ 2 3"},
		{"3.5!bad =x2 4x2!suspect =!good", "3.5!bad 3.5!bad 3.5!bad 4!suspect 4!suspect 4"},
		{"'SART ACTIVE' 'x2'x2 'a!b'!suspect", "SART ACTIVE x2 x2 a!b!suspect"},
		{"12.6x*", "12.6 ..."},
		{"1 _x*", "1 _ ..."},
		{"1e3 -1.5e-1", "1000 -0.15"},
		{"0 -0.1x2", "0 -0.1 -0.2"},
	} {
		l, err := parseList("v", c.text, 10*time.Minute, false)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got := texts(l); got != c.want {
			t.Errorf("%q gives %s\nwant %s", c.text, got, c.want)
		}
	}
}

func TestNotationFaults(t *testing.T) {
	for text, want := range map[string]string{
		"":               "no value is there",
		"   ":            "no value is there",
		"+0.1x2":         "no value before",
		"=":              "no value before",
		"1 +2":           "for one step up",
		"1 silent":       "needs a time",
		"1 silent 25m":   "not a multiple",
		"1 silent soon":  "duration",
		"abc":            "not a number",
		"1!broken":       "quality",
		"!bad":           "a value is missing",
		"'open":          "not closed",
		"1x* 2":          "has no end",
		"1x0":            "count",
		"1x2000000":      "count",
		"1x199999 2x2":   "more than",
		"1 ..zx3":        "not a way",
		"1 +ax3":         "not a step",
		"'w' +1x2":       "cannot follow the word",
		"1e308 +1e308x9": "range of numbers",
		"NaN":            "not a number",
	} {
		if l, err := parseList("v", text, 10*time.Minute, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, %v; want an error with %q", text, l, err, want)
		}
	}
}

// FuzzNotation: whatever is written, the list is bounded and its numbers finite.
func FuzzNotation(f *testing.F) {
	for _, seed := range []string{"0.8 +0.1x20 _x5 silent 30m 3.5", "3.5!bad ..5x6 =x* ", "'a b'x2 -1x4", "1x99999 =x999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseList("v", text, 10*time.Minute, false)
		if err != nil {
			return
		}
		if len(l.slots) == 0 || len(l.slots) > MaxSlots {
			t.Fatalf("%q has %d slots", text, len(l.slots))
		}
		for _, s := range l.slots {
			if !telemetry.Finite(s.value.Number) {
				t.Fatalf("%q gives %v", text, s.value.Number)
			}
		}
	})
}

func TestMoments(t *testing.T) {
	start := time.Date(2025, 10, 27, 0, 0, 0, 0, vietnam)
	for text, want := range map[string]time.Time{
		"2h10m": start.Add(130 * time.Minute), "1d": start.Add(24 * time.Hour), "0s": start,
		"2025-10-27T20:00:00+07:00": start.Add(20 * time.Hour), "2025-10-27 20:00": start.Add(20 * time.Hour),
	} {
		var m Moment
		if err := m.UnmarshalText([]byte(text)); err != nil || !m.From(start).Equal(want) {
			t.Errorf("%q is %v, %v; want %v", text, m.From(start), err, want)
		}
	}
	for _, text := range []string{"", "-1h", "soon", "20:00"} {
		if err := new(Moment).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is a moment", text)
		}
	}
}

// A threshold is an engine of a few lines: it raises above 1 and clears below.
type threshold struct {
	frames  []string
	step    int
	raised  bool
	refuses bool
}

func (e *threshold) Evaluate(at time.Time, readings []telemetry.Reading) []telemetry.Transition {
	var out []telemetry.Transition
	for i := range readings {
		r := &readings[i]
		e.frames = append(e.frames, fmt.Sprintf("%s %s %s %v delay=%s q=%s", at.Sub(defaultStart), r.Device, r.Kind, r.Values, r.Delay, r.Quality))
		v, ok := r.Number("level_m")
		if !ok || r.Control() || !r.Quality.Usable() || (v > 1) == e.raised {
			continue
		}
		e.raised = v > 1
		e.step++
		state := telemetry.Active
		if !e.raised {
			state = telemetry.Cleared
		}
		limit := 1.0
		out = append(out, telemetry.Transition{Step: e.step, Warning: telemetry.Warning{
			ID: fmt.Sprint("w", (e.step+1)/2), Rule: "high", Device: r.Device, Kind: r.Kind, State: state, Severity: telemetry.Severe,
			At: at, Values: map[string]float64{"level_m": v}, Threshold: &limit, Message: telemetry.Text{VI: "cao", EN: "high"},
		}})
	}
	return out
}

func number64(f float64) *float64 { return &f }

func ground(t *testing.T) (*Ground, *threshold) {
	t.Helper()
	most := 100.0
	kinds, faults := telemetry.NewCatalogue([]telemetry.Kind{{Name: "river", Values: []telemetry.Quantity{{Name: "level_m", Max: &most}}}})
	devices, more := telemetry.NewRegistry([]telemetry.Device{{ID: "a", Site: "s", Kinds: []string{"river"}, Interval: telemetry.Duration(10 * time.Minute)}}, kinds)
	if len(faults)+len(more) > 0 {
		t.Fatal(faults, more)
	}
	e := &threshold{}
	return &Ground{
		Kinds: kinds, Devices: devices, On: map[string]string{"high": "river"},
		New: func() Engine { return e },
		Restart: func(e Engine) (Engine, error) {
			if e.(*threshold).refuses {
				return nil, errors.New("no state")
			}
			return e, nil
		},
	}, e
}

func at(text string) Moment {
	var m Moment
	if err := m.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return m
}

func play(t *testing.T, s *Scenario, g *Ground) *Outcome {
	t.Helper()
	o, faults, err := Run(s, g)
	if err != nil || len(faults) > 0 {
		t.Fatal(err, faults)
	}
	return o
}

func TestCourse(t *testing.T) {
	g, e := ground(t)
	s := &Scenario{
		Series: []Series{{Device: "a", Kind: "river", From: at("1h"), Delay: telemetry.Duration(2 * time.Second), Values: map[string]any{
			"level_m": "0.5 _ 900 900!suspect silent 20m 0.7", "battery_v": "12 =x2", "quality": "good x0"}}},
	}
	if faults := Check(s, g); len(faults) == 0 {
		t.Fatal("a count of 0 is taken")
	}
	s.Series[0].Values["quality"] = "good maintenance goodx*"
	s.Readings = []Single{
		{At: at("1h10m"), Device: "a", Kind: "river", Time: &Moment{}, Values: map[string]any{"level_m": "0.1!bad", "note": "two words"}, Tags: map[string]string{"sensor": "b"}},
		{At: at("3h10m"), Device: "a", Kind: "river", Values: map[string]any{"level_m": true}},
		{At: at("4h"), Device: "b", Kind: "river", Values: map[string]any{"level_m": 0.2}},
	}
	s.Events = []Event{{At: at("3h"), Down: telemetry.Duration(time.Hour)}, {At: at("5h"), Clock: telemetry.Duration(10 * time.Minute)}, {At: at("6h"), Restart: true}}
	play(t, s, g)
	want := []string{
		"1h0m0s a river [{battery_v 12  good} {level_m 0.5  good}] delay=2s q=good",
		"1h10m0s a river [{battery_v 12  good}] delay=2s q=maintenance",
		"1h10m0s a river [{level_m 0.1  bad} {note 0 two words good}] delay=1h10m0s q=bad",
		"1h20m0s a river [{battery_v 12  good} {level_m 900  bad}] delay=2s q=bad",
		"1h30m0s a river [{level_m 900  suspect}] delay=2s q=suspect",
		// silent at 1h40m and 1h50m
		"2h0m0s a river [{level_m 0.7  good}] delay=2s q=good",
		"3h0m0s gateway _tick [{n 1  good}] delay=0s q=good",
		"4h0m0s gateway _start [{down_s 3600  good}] delay=0s q=good",
		"4h0m0s b river [{level_m 0.2  good}] delay=0s q=good",
		"5h0m0s gateway _tick [{n 1  good}] delay=0s q=good",
		"5h10m0s gateway _clock [{jump_s 600  good}] delay=0s q=good",
	}
	if got := strings.Join(e.frames, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the log is\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	e.refuses = true
	if _, _, err := Run(s, g); err == nil || !strings.Contains(err.Error(), "event 3") {
		t.Errorf("an engine that cannot be restored: %v", err)
	}
}

func levels(text string) []Series {
	return []Series{{Device: "a", Kind: "river", Values: map[string]any{"level_m": text}}}
}

func differences(o *Outcome) string {
	var out []string
	for _, d := range o.Differences {
		out = append(out, fmt.Sprintf("%s #%d want %q got %q", Offset(o.Start, d.At), d.Expect, d.Want, d.Got))
	}
	return strings.Join(out, "\n")
}

func TestCompare(t *testing.T) {
	raise := Expectation{At: at("20m"), Rule: "high", Device: "a", Severity: telemetry.Severe, Values: map[string]float64{"level_m": 1.2}, Threshold: number64(1), Message: "cao"}
	clear := Expectation{At: at("40m"), Rule: "high", Device: "a", State: telemetry.Cleared}
	change := func(x Expectation, f func(*Expectation)) Expectation { f(&x); return x }
	for name, c := range map[string]struct {
		s    Scenario
		want string // part of the differences; "" for none
	}{
		"as expected":  {Scenario{Expect: []Expectation{raise, clear}}, ""},
		"any order":    {Scenario{Expect: []Expectation{clear, raise}}, ""},
		"unexpected":   {Scenario{Expect: []Expectation{raise}}, `40m #-1 want "" got "high a cleared severe level_m=0.8 threshold=1 \"high\""`},
		"partial":      {Scenario{Expect: []Expectation{raise}, Partial: true}, ""},
		"nothing":      {Scenario{Expect: []Expectation{}}, `20m #-1`},
		"never":        {Scenario{Partial: true, Never: []Never{{State: telemetry.Cleared}}}, `40m #-1 want "" got "high a cleared`},
		"later":        {Scenario{Expect: []Expectation{change(raise, func(x *Expectation) { x.At = at("10m"); x.Values = nil }), clear}}, "(10m later)"},
		"earlier":      {Scenario{Expect: []Expectation{raise, change(clear, func(x *Expectation) { x.At = at("1h") })}}, "(20m earlier)"},
		"severity":     {Scenario{Expect: []Expectation{change(raise, func(x *Expectation) { x.Severity = telemetry.Extreme }), clear}}, "(severity severe)"},
		"value":        {Scenario{Expect: []Expectation{change(raise, func(x *Expectation) { x.Values = map[string]float64{"level_m": 1.3, "flow_m3s": 1} }), clear}}, "(the rule names no flow_m3s; level_m is 1.2)"},
		"threshold":    {Scenario{Expect: []Expectation{change(raise, func(x *Expectation) { x.Threshold = number64(2) }), clear}}, "(threshold is 1)"},
		"message":      {Scenario{Expect: []Expectation{change(raise, func(x *Expectation) { x.Message = "low" }), clear}}, `(the message is \"high\")`},
		"state":        {Scenario{Expect: []Expectation{change(raise, func(x *Expectation) { x.State = telemetry.Cleared }), clear}}, "(state active)"},
		"missing":      {Scenario{Expect: []Expectation{raise, clear, change(raise, func(x *Expectation) { x.At = at("1h") })}}, "got \"nothing; the last reading of a was river at 40m: level_m=0.8\""},
		"never heard":  {Scenario{Expect: []Expectation{raise, clear, change(raise, func(x *Expectation) { x.Device = "b" })}}, "b had sent no river reading"},
		"acknowledged": {Scenario{Expect: []Expectation{raise, clear}, Events: []Event{{At: at("30m"), Do: telemetry.Ack, Device: "a", Rule: "high", By: "lan"}}}, `30m #-1 want "" got "high a acknowledged`},
		"act refused":  {Scenario{Expect: []Expectation{raise, clear}, Events: []Event{{At: at("50m"), Do: telemetry.Ack, Device: "a", Rule: "high", By: "lan"}}}, "refused: "},
		"act too soon": {Scenario{Expect: []Expectation{raise, clear}, Events: []Event{{At: at("10m"), Do: telemetry.Ack, Device: "a", Rule: "high", By: "lan"}}}, "no such warning was raised"},
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := ground(t)
			c.s.Series = levels("0.9 1 1.2 1.3 0.8")
			got := differences(play(t, &c.s, g))
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("differences:\n%s\nwant %s", got, c.want)
			}
			if strings.Count(got, "\n") > 0 && name != "nothing" {
				t.Errorf("more than one difference:\n%s", got)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	f := File{
		Areas: []Area{{}, {Name: "a", Line: [][]float64{{1, 2}}}, {Name: "b", Polygon: [][]float64{{1, 2}, {2, 3}, {1}}}},
		Scenarios: []Scenario{
			{Name: ""},
			{Name: "x", Interval: -1, Series: []Series{{}}, Readings: []Single{{Device: "a", Kind: "k", Values: map[string]any{"v": 1}, Time: &Moment{}, Delay: 1}}},
			{Name: "x", Events: []Event{{}, {Restart: true, Down: 1}, {Clock: -1}, {Do: telemetry.Ack}}, Expect: []Expectation{{State: "on"}}, Never: []Never{{}}},
		},
	}
	var got []string
	for _, fault := range f.Validate() {
		got = append(got, fault.Path)
	}
	want := "areas[0].name areas[1].polygon areas[2].polygon scenarios[0].name scenarios[1].interval scenarios[1].series[0].device scenarios[1].series[0].kind scenarios[1].series[0].values scenarios[1].readings[0].delay " +
		"scenarios[2].name scenarios[2].events[0] scenarios[2].events[1] scenarios[2].events[2] scenarios[2].events[3].do scenarios[2].expect[0].device scenarios[2].expect[0].rule scenarios[2].expect[0].state scenarios[2].never[0]"
	if strings.Join(got, " ") != want {
		t.Errorf("faults at\n%s\nwant\n%s", strings.Join(got, " "), want)
	}
	g, _ := ground(t)
	for want, s := range map[string]Scenario{
		"series[0].every":            {Series: []Series{{Device: "b", Kind: "river", Values: map[string]any{"level_m": 1.0}}}},
		"series[0].values.level_m":   {Series: levels("high")},
		"series[0].values.time":      {Series: []Series{{Device: "a", Kind: "river", Values: map[string]any{"time": 1.0}}}},
		"series[0].values.quality":   {Series: []Series{{Device: "a", Kind: "river", Values: map[string]any{"level_m": 1.0, "quality": "goodish"}}}},
		"readings[0].values.level_m": {Readings: []Single{{Device: "a", Kind: "river", Values: map[string]any{"level_m": []any{}}}}},
		"readings[0].tags.site":      {Readings: []Single{{Device: "a", Kind: "river", Values: map[string]any{"level_m": 1.0}, Tags: map[string]string{"site": "x"}}}},
		"start":                      {Readings: []Single{{At: at("2020-01-01"), Device: "a", Kind: "river", Values: map[string]any{"level_m": 1.0}}}},
		"expect[0].rule":             {Expect: []Expectation{{Rule: "hihg", Device: "a"}}},
		"expect[0].device":           {Expect: []Expectation{{Rule: "high", Device: "z"}}},
		"never[0].rule":              {Never: []Never{{Rule: "hihg"}}},
		"events[0].device":           {Events: []Event{{Do: telemetry.Ack, Rule: "high", Device: "z", By: "lan"}}},
	} {
		if faults := Check(&s, g); len(faults) != 1 || faults[0].Path != want {
			t.Errorf("faults %v, want one at %s", faults, want)
		}
	}
}

func TestGeoJSON(t *testing.T) {
	base := `{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"name":"z"},"geometry":{"type":"Polygon","coordinates":[]}}]}`
	got, err := GeoJSON([]byte(base), []Area{{Name: "p", Polygon: [][]float64{{1, 2}, {3, 4}, {5, 6}}}, {Name: "l", Line: [][]float64{{1, 2}, {3, 4}}}})
	if err != nil || !strings.Contains(string(got), `"coordinates":[[[1,2],[3,4],[5,6],[1,2]]]`) || !strings.Contains(string(got), `"LineString"`) || !strings.Contains(string(got), `"name":"z"`) {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := GeoJSON([]byte(base), nil); err != nil || string(got) != base {
		t.Errorf("without areas: %s, %v", got, err)
	}
	if _, err := GeoJSON([]byte("[]"), []Area{{Name: "l"}}); err == nil {
		t.Error("a list was taken for a FeatureCollection")
	}
}

func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	err := WriteJUnit(&b, []Suite{{Name: "f.test.yaml", Cases: []Case{{Name: "good <1>", Took: time.Second}, {Name: "bad", Failure: "want & got"}, {Name: "ugly", Error: "x"}}}})
	if err != nil {
		t.Fatal(err)
	}
	var back junitSuites
	if err := xml.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatalf("%v\n%s", err, &b)
	}
	if back.Tests != 3 || back.Failures != 1 || back.Errors != 1 || back.Suites[0].Cases[0].Name != "good <1>" || back.Suites[0].Cases[1].Failure.Text != "want & got" || back.Suites[0].Time != "1.000" {
		t.Errorf("%s", &b)
	}
}
