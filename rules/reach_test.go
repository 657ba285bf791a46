package rules

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestReach compares what rules apply to with what an engine finds that is shown
// every device, one after the other, with a reading that says nothing.
func TestReach(t *testing.T) {
	doc := readDocument(t, propertyDocument)
	doc.Devices = append(doc.Devices, telemetry.Device{ID: "any-kind", Interval: telemetry.Duration(time.Hour), Facts: map[string]any{"alarm_m": 3.0, "zone": "west"}})
	set := compile(t, doc)
	got := set.Reach()

	want := map[string]Reach{}
	// Without kinds, or an engine has the rules of silence for all from the start.
	shown := doc
	shown.Devices = slices.Clone(doc.Devices)
	for i := range shown.Devices {
		shown.Devices[i].Kinds = nil
	}
	shown.Rules = slices.Clone(doc.Rules)
	for i := range shown.Rules {
		if shown.Rules[i].On == "" { // about a device as a whole: all have them from the start
			shown.Rules[i].On = "whole"
		}
	}
	shown.Kinds = append(slices.Clone(shown.Kinds), telemetry.Kind{Name: "whole"})
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(t, shown))
	before := map[string]int{}
	show := func(d telemetry.Device, note func(*Reach)) {
		kinds := append(slices.Clone(d.Kinds), "whole")
		if len(d.Kinds) == 0 {
			kinds = ruleKinds(shown)
		}
		for _, kind := range kinds {
			engine.Evaluate(epoch, []telemetry.Reading{{Device: d.ID, Site: d.ID, Kind: kind, Quality: telemetry.Bad,
				Values: []telemetry.Value{{Name: "nothing", Quality: telemetry.Bad}}}})
		}
		for _, c := range engine.Rules() {
			if c.Devices > before[c.Rule] {
				before[c.Rule] = c.Devices
				r := want[c.Rule]
				note(&r)
				want[c.Rule] = r
			}
		}
	}
	for i := range doc.Devices {
		show(doc.Devices[i], func(r *Reach) {
			if r.Slowest == nil || doc.Devices[i].Interval > r.Slowest.Interval {
				r.Slowest = &doc.Devices[i]
			}
			r.Registered++
		})
	}
	show(telemetry.Device{ID: "nobody"}, func(r *Reach) { r.Others = true })

	for _, name := range ruleNames(doc) {
		g, w := got[name], want[name]
		if g.Registered != w.Registered || g.Others != w.Others || slowest(g) != slowest(w) {
			t.Errorf("%s: got %d, slowest %s, others %v; the engine finds %d, %s, %v", name, g.Registered, slowest(g), g.Others, w.Registered, slowest(w), w.Others)
		}
	}
	if len(got) != len(want) || len(want) < 20 {
		t.Errorf("got %d rules, the engine finds %d: %v", len(got), len(want), slices.Sorted(maps.Keys(want)))
	}
}

func slowest(r Reach) string {
	if r.Slowest == nil {
		return "none"
	}
	return r.Slowest.ID
}

func ruleKinds(doc Document) (kinds []string) {
	for i := range doc.Kinds {
		kinds = append(kinds, doc.Kinds[i].Name)
	}
	return kinds
}

// manyDevices are so many devices with rules of the shipped packs.
func manyDevices(t testing.TB, n int) Document {
	doc := readDocument(t, `packs: [flood.yaml, station.yaml]`)
	for i := range n {
		lat, lon := 16+float64(i%1000)/1000, 107+float64(i/1000)/1000
		doc.Devices = append(doc.Devices, telemetry.Device{
			ID: fmt.Sprintf("station-%06d", i), Name: fmt.Sprintf("Trạm %d", i), Site: fmt.Sprintf("site-%05d", i/2), Kinds: []string{[]string{"river", "rain", "air"}[i%3]},
			Interval: telemetry.Duration(10 * time.Minute), Lat: &lat, Lon: &lon,
			Facts: map[string]any{"alarm1_m": 2.0, "alarm2_m": 3.0, "alarm3_m": 4.5},
		})
	}
	return doc
}

// BenchmarkRegistry compiles a document with many devices, and starts engines on it.
func BenchmarkRegistry(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		doc := manyDevices(b, n)
		set := compile(b, doc)
		records := control(b, doc)
		run := func(name string, f func()) {
			b.Run(fmt.Sprintf("%s/devices=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
			})
		}
		run("compile", func() { compile(b, doc) })
		run("reach", func() { set.Reach() })
		run("write", func() { control(b, doc) })
		run("engine", func() { NewEngine(Options{}).Evaluate(epoch, records) })
		run("engine-knows", func() {
			engine := NewEngine(Options{})
			engine.Know(set)
			engine.Evaluate(epoch, records)
		})
	}
}
