package demo

import (
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/drivers/ais"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// demoDocument is what the rules run on in the demo.
func demoDocument(t *testing.T) rules.Document {
	t.Helper()
	text, err := os.ReadFile("../builtin/kinds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var kinds struct{ Kinds []telemetry.Kind }
	decodeStrict(t, "kinds.yaml", text, &kinds)
	list, err := devices()
	if err != nil {
		t.Fatal(err)
	}
	doc := rules.Document{Kinds: kinds.Kinds, Devices: list, Zones: embedded(t, "zones.geojson")}
	names, err := fs.Glob(Files, "rules/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".test.yaml") {
			continue // scenarios: haidang rules test plays them
		}
		var file rules.File
		decodeStrict(t, name, embedded(t, name), &file)
		doc.Rules = append(doc.Rules, file.Rules...)
	}
	return doc
}

func TestRulesCompile(t *testing.T) {
	doc := demoDocument(t)
	if len(doc.Rules) != 6 {
		t.Errorf("%d rules, want 6", len(doc.Rules))
	}
	_, faults := rules.Compile(doc)
	for _, f := range faults {
		t.Error(f)
	}
}

// reading makes a reading of numbers.
func reading(device, kind string, at time.Time, values map[string]any) telemetry.Reading {
	r := telemetry.Reading{Device: device, Kind: kind, Site: device, Time: at}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		r.Values = append(r.Values, telemetry.Value{Name: name, Number: values[name].(float64)})
	}
	return r
}

// play feeds the field's own measurements and sentences to the real engine for
// some time, tenth of a second by tenth, and returns what it warned of.
func play(t *testing.T, seed uint64, lasting time.Duration) []telemetry.Transition {
	t.Helper()
	doc := demoDocument(t)
	control, err := rules.ControlReadings("demo", doc)
	if err != nil {
		t.Fatal(err)
	}
	s := storm{seed: seed, speed: 1}
	fleet, err := newFleet(doc.Devices, s)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	fd := newFeeder("", s, fleet, start, nil)
	decoder := ais.NewDecoder()
	engine := rules.NewEngine(rules.Options{})
	out := engine.Evaluate(start, control)
	for since := time.Duration(0); since < lasting; since += feederStep {
		at := start.Add(since)
		var batch []telemetry.Reading
		if since%stationEvery == 0 {
			for _, st := range stations("", s, start, nil) {
				batch = append(batch, reading(st.id, strings.Split(st.topic, "/")[2], at, st.measure(since)))
			}
		}
		if since%time.Second == 0 {
			windMS := float64(s.weatherRegisters(since)[0]) / 10
			batch = append(batch, reading("demo-weather", "weather", at, map[string]any{"wind_speed_ms": windMS}))
		}
		sentences, err := fd.due(nil, since, at)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.FieldsSeq(string(sentences)) {
			if reason := decoder.Feed([]byte(line), at, func(r telemetry.Reading) {
				r.Site, r.Time = r.Device, at
				batch = append(batch, r)
			}); reason != ais.None {
				t.Fatalf("%s: refused: %v", line, reason)
			}
		}
		if len(batch) > 0 {
			out = append(out, engine.Evaluate(at, batch)...)
		}
	}
	return out
}

// TestStoryOfTwoCycles: what a person sees in two cycles is what was
// promised, and nothing else.
func TestStoryOfTwoCycles(t *testing.T) {
	for seed := range uint64(2) {
		got := map[string]string{} // rule and device: the severities in order
		for _, tr := range play(t, seed, 180*time.Second) {
			word := tr.Severity.String()
			if tr.State == telemetry.Cleared {
				word = "cleared"
			}
			key := tr.Rule + " " + tr.Device
			got[key] = strings.TrimSpace(got[key] + " " + word)
			if tr.Message.VI == "" || tr.Message.EN == "" || strings.ContainsAny(tr.Message.VI+tr.Message.EN, "{}?") {
				t.Errorf("message %+v of %s", tr.Message, key)
			}
		}
		want := map[string]string{
			"flood-level " + kimLong:       "moderate severe extreme severe moderate cleared",
			"flood-level " + phuOc:         "moderate severe extreme severe moderate cleared",
			"heavy-rain " + namDong:        "moderate severe moderate cleared",
			"heavy-rain " + aLuoi:          "moderate severe moderate cleared",
			"strong-wind demo-weather":     "moderate cleared",
			"boat-left-zone " + leaverBoat: "moderate cleared",
			"boat-silent " + silentBoat:    "severe cleared",
		}
		for key, cycle := range want {
			if twice := cycle + " " + cycle; got[key] != twice {
				t.Errorf("seed %d: %s: %q, want %q", seed, key, got[key], twice)
			}
		}
		for key := range got {
			if want[key] == "" {
				t.Errorf("seed %d: nobody expects %s: %s", seed, key, got[key])
			}
		}
	}
}
