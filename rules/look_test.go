package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestFunctions wants every function told to authors, and none that is not there.
func TestFunctions(t *testing.T) {
	var names []string
	for _, f := range Functions() {
		names = append(names, f.Name)
		if f.Text.VI == "" || f.Text.EN == "" || !strings.HasPrefix(f.Form, f.Name+"(") {
			t.Errorf("%s is told as %+v", f.Name, f)
		}
	}
	want := slices.Clone(functionNames)
	slices.Sort(want)
	if !slices.Equal(names, slices.Compact(want)) {
		t.Errorf("told are %v\nthere are %v", names, want)
	}
}

func TestLook(t *testing.T) {
	doc := Document{
		Kinds: []telemetry.Kind{{Name: "river", Values: []telemetry.Quantity{{Name: "level_m"}, {Name: "flow_m3s"}}}, {Name: "rain", Values: []telemetry.Quantity{{Name: "rain_1h_mm"}}}},
		Devices: []telemetry.Device{
			{ID: "a", Name: "a", Site: "s", Kinds: []string{"river"}, Facts: map[string]any{"alarm1_m": 1.0, "alarm2_m": 2.0}},
			{ID: "b", Name: "b", Site: "b", Kinds: []string{"river"}, Facts: map[string]any{"alarm1_m": 1.0}},
			{ID: "c", Name: "c", Site: "c", Kinds: []string{"river"}},
			{ID: "d", Name: "d", Site: "d", Kinds: []string{"river"}, Facts: map[string]any{"alarm1_m": 1.0}},
			{ID: "r", Name: "r", Site: "s", Kinds: []string{"rain"}},
		},
		Rules: []Rule{
			{Name: "high", On: "river", Levels: []Level{
				{Severity: telemetry.Moderate, When: "level_m >= device.alarm1_m"},
				{Severity: telemetry.Severe, When: "level_m >= device.alarm2_m"},
			}, Message: telemetry.Text{EN: "{device.name} at {level_m}"}},
			{Name: "rising", On: "river", When: `rate(level_m, "1h") > 0.5 && rain_1h_mm > 30`},
			{Name: "of-b", On: "river", Where: `device.id == "b"`, When: "flow_m3s > 1"},
		},
	}
	e := NewEngine(Options{})
	control, err := ControlReadings("gateway", doc)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 0)
	e.Evaluate(at, control)
	reading := func(device, kind, value string, v float64) telemetry.Reading {
		return telemetry.Reading{Device: device, Kind: kind, Site: device, Time: at, Values: []telemetry.Value{{Name: value, Number: v}}}
	}
	for i := range 5 {
		at = at.Add(10 * time.Minute)
		e.Evaluate(at, []telemetry.Reading{reading("a", "river", "level_m", 1+0.3*float64(i)), reading("b", "river", "level_m", 0.5), reading("c", "river", "level_m", 9), reading("r", "rain", "rain_1h_mm", 40)})
	}
	// The reading at hand need not have every value: the newest stand in.
	e.Evaluate(at.Add(time.Minute), []telemetry.Reading{reading("a", "river", "flow_m3s", 3)})
	told := func(rule string) string {
		var b strings.Builder
		for _, l := range e.Look(rule) {
			fmt.Fprintf(&b, "%s %t %s %s %v %v %q\n", l.Device, l.Applies, l.Verdict, l.Severity, l.Values, l.Missing, l.Message.EN)
		}
		return b.String()
	}
	for rule, want := range map[string]string{
		"high": `a true true severe [{level_m 2.2  false} {alarm1_m 1  true} {alarm2_m 2  true}] [] "a at 2.2"
b true false none [{level_m 0.5  false} {alarm1_m 1  true}] [device.alarm2_m] ""
c false missing none [] [device.alarm1_m device.alarm2_m] ""
d true missing none [] [nothing was received] ""
`,
		"rising": `a true true moderate [{rate(level_m,1h) 1.8000000000000003  false} {level_m 2.2  false} {rain_1h_mm 40  false}] [] "rising: a"
b true missing none [{rate(level_m,1h) 0  false} {level_m 0.5  false}] [rain_1h_mm] ""
c true missing none [{rate(level_m,1h) 0  false} {level_m 9  false}] [rain_1h_mm] ""
d true missing none [] [nothing was received] ""
`,
		"of-b": `a false missing none [] [where: device.id == "b"] ""
b true missing none [] [flow_m3s] ""
c false missing none [] [where: device.id == "b"] ""
d true missing none [] [nothing was received] ""
`,
	} {
		if got := told(rule); got != want {
			t.Errorf("%s:\n%swant:\n%s", rule, got, want)
		}
	}
	if e.Look("none") != nil {
		t.Error("a rule that is not there is looked at")
	}
	set, _ := Compile(doc)
	if set.Lookback() != time.Hour {
		t.Errorf("looks back %s", set.Lookback())
	}
}

// TestFaultPlace wants the letters of the word that is wrong.
func TestFaultPlace(t *testing.T) {
	kinds := []telemetry.Kind{{Name: "river", Values: []telemetry.Quantity{{Name: "level_m"}}}}
	for when, want := range map[string]string{
		"levl_m > 2":                      "levl_m",
		"level_m > 2 and mứ_m > 3":        "mứ_m",
		"level_m > 1 and\nlevl_m > 2":     "levl_m",
		"level_m >= ":                     " ",
		`rate(level_m, "1x") > 2`:         `"1x"`,
		`level_m > "a"`:                   ">",
		`level_m > 1 and rte(level_m) >1`: "rte",
		"level_m":                         "level_m",
	} {
		_, faults := Compile(Document{Kinds: kinds, Rules: []Rule{{Name: "x", On: "river", When: when}}})
		if len(faults) != 1 {
			t.Errorf("%s: %v", when, faults)
			continue
		}
		if got := string([]rune(when)[faults[0].From:faults[0].To]); got != want {
			t.Errorf("%s: %q, want %q: %v", when, got, want, faults)
		}
	}
	message := "Mực {device.name}: { levl_m } m"
	_, faults := Compile(Document{Kinds: kinds, Rules: []Rule{{Name: "x", On: "river", When: "level_m > 1", Message: telemetry.Text{VI: message}}}})
	if len(faults) != 1 || string([]rune(message)[faults[0].From:faults[0].To]) != "levl_m" {
		t.Errorf("in a message: %+v", faults)
	}
}
