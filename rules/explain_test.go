package rules

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// raise runs a document until its first transition.
func raise(t *testing.T, document string) telemetry.Transition {
	t.Helper()
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(t, readDocument(t, document)))
	out := engine.Evaluate(epoch, []telemetry.Reading{{Device: "a", Kind: "river", Time: epoch, Quality: telemetry.Suspect, Values: []telemetry.Value{
		{Name: "level_m", Number: 3, Quality: telemetry.Suspect}, {Name: "flow_m3s", Number: 40},
	}}})
	if len(out) != 1 {
		t.Fatalf("%d transitions", len(out))
	}
	return out[0]
}

// TestExplained: a warning carries its rule's version, the condition of its level
// and the quality of what it saw, and the version follows the rule's meaning.
func TestExplained(t *testing.T) {
	const document = `
devices: [{id: a, kinds: [river], facts: {alarm_m: 2}}]
limits: [{name: flow, value: 30}, {name: other, value: 30}]
rules:
  - name: high
    on: river
    levels: [{severity: minor, when: level_m > 1}, {severity: severe, when: 'level_m > device.alarm_m && flow_m3s > limit("flow")'}]
    message: {en: high}`
	first := raise(t, document)
	if first.Expression != `level_m > device.alarm_m && flow_m3s > limit("flow")` || len(first.RuleVersion) != 8 {
		t.Errorf("expression %q, version %q", first.Expression, first.RuleVersion)
	}
	if len(first.Quality) != 1 || first.Quality["level_m"] != telemetry.Suspect {
		t.Errorf("quality %v", first.Quality)
	}
	for change, same := range map[string]bool{
		"en: high -> en: higher":                          true,
		"alarm_m: 2 -> alarm_m: 1":                        true,
		"name: other, value: 30 -> name: other, value: 3": true,
		"name: flow, value: 30 -> name: flow, value: 3":   false,
		"level_m > 1 -> level_m > 1.5":                    false,
		"on: river -> latch: true, on: river":             false,
		"on: river -> inhibited_by: [], on: river":        true,
		"on: river -> flap: {raises: 7}, on: river":       false,
	} {
		before, after, _ := strings.Cut(change, " -> ")
		changed := strings.Replace(document, before, strings.ReplaceAll(after, ", on:", "\n    on:"), 1)
		if changed == document {
			t.Fatalf("%q is not there", before)
		}
		if next := raise(t, changed); (next.RuleVersion == first.RuleVersion) != same {
			t.Errorf("%s: version %s, before %s", change, next.RuleVersion, first.RuleVersion)
		}
	}
}

// TestSources: a warning tells who delivered what it saw, also when it is raised
// by time alone after a restart.
func TestSources(t *testing.T) {
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(t, readDocument(t, `
devices: [{id: a, site: s, kinds: [river]}, {id: b, site: s, kinds: [rain]}]
rules:
  - {name: both, on: river, when: 'level_m > 1 && (rain_1h_mm > 100 || max(rain_1h_mm, "1h") > 5)', for: 10m}
  - {name: own, on: river, when: level_m > 1}
  - {name: any, when: 'silent("5m")'}`)))
	late := telemetry.Reading{Device: "a", Kind: "river", Delay: time.Hour, Time: epoch.Add(-time.Hour), Source: "other", Values: []telemetry.Value{{Name: "level_m", Number: 2}}}
	engine.Evaluate(epoch, []telemetry.Reading{
		{Device: "b", Kind: "rain", Source: "broker", Values: []telemetry.Value{{Name: "rain_1h_mm", Number: 9}}},
		{Device: "a", Kind: "river", Source: "modbus.line-1", Values: []telemetry.Value{{Name: "level_m", Number: 2}}}, late,
	})
	engine = restart(t, engine)
	got := ""
	for _, x := range engine.Evaluate(epoch.Add(time.Hour), nil) {
		got += fmt.Sprintf("%s %s %s %v; ", x.Rule, x.Device, x.Source, x.Sources)
	}
	want := "any a modbus.line-1 map[]; any b broker map[]; both a modbus.line-1 map[rain:broker]; "
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestWindowsSayThatTheyWereCut: a device that sends without end stays within its
// bound, and that is told once and counted.
func TestWindowsSayThatTheyWereCut(t *testing.T) {
	var text bytes.Buffer
	registry := prometheus.NewRegistry()
	engine := NewEngine(Options{Registerer: registry, Logger: slog.New(slog.NewTextHandler(&text, nil))})
	engine.Evaluate(epoch, control(t, readDocument(t, `
devices: [{id: a, kinds: [river], interval: 1s}]
rules:
  - {name: mean, on: river, when: 'avg(level_m, "1h") > 2'}
  - {name: rank, on: river, when: 'percentile(level_m, 90, "1h") > 2'}`)))
	frame := make([]telemetry.Reading, 1000)
	now := epoch
	for range 40 {
		for i := range frame {
			now = now.Add(50 * time.Millisecond)
			frame[i] = telemetry.Reading{Device: "a", Kind: "river", Time: now, Values: []telemetry.Value{{Name: "level_m", Number: 1}}}
		}
		engine.Evaluate(now, frame)
	}
	for _, w := range engine.devices["a"].streams[engine.set.byKind["river"].index].windows {
		if len(w.samples) > 2*MaxRanked || w.panes == nil && !w.ranked {
			t.Errorf("a window has room for %d samples", len(w.samples))
		}
	}
	if n := strings.Count(text.String(), "was cut"); n != 2 || !strings.Contains(text.String(), "device=a kind=river value=level_m window=1h") {
		t.Errorf("%d times told:\n%s", n, text.String())
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "haidang_rules_windows_cut_total" && f.GetMetric()[0].GetCounter().GetValue() != 2 {
			t.Errorf("%v", f)
		}
	}
}

// TestWithheldIsCounted: what may not be raised is seen all the same.
func TestWithheldIsCounted(t *testing.T) {
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(t, readDocument(t, `
rules:
  - {name: high, on: river, when: level_m > 2, mute: [{days: [mon]}]}
  - {name: off, on: river, when: level_m > 2, disabled: true}
  - {name: trial, on: river, when: level_m > 2, shadow: true}`)))
	engine.Evaluate(epoch, []telemetry.Reading{{Device: "a", Kind: "river", Values: []telemetry.Value{{Name: "level_m", Number: 3}}}})
	counts := engine.Rules()
	if len(counts) != 3 || counts[0].Withheld != 1 || counts[0].Raised != 0 || counts[0].Active != 0 {
		t.Errorf("%+v", counts)
	}
	if held := engine.Withheld(); len(held) != 1 || held[0].Rule != "high" || held[0].Device != "a" || held[0].Severity != telemetry.Moderate || held[0].Muted == nil || held[0].By != nil {
		t.Errorf("withheld are %+v", held)
	}
	if !counts[1].Disabled || counts[1].Evaluations != 0 || !counts[2].Shadow || counts[2].Active != 1 || counts[2].Raised != 1 {
		t.Errorf("%+v", counts)
	}
}
