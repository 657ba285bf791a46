package rules

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// TestParts: sites are evaluated apart unless the warnings of one inhibit those
// of another.
func TestParts(t *testing.T) {
	const devices = `
devices:
  - {id: a, site: s, kinds: [river]}
  - {id: b, site: s, kinds: [rain]}
  - {id: c, kinds: [river], facts: {line: line-1}}
  - {id: d, site: d-site, kinds: [river], facts: {line: line-1, gateway: boat}}
  - {id: line-1, site: lines, kinds: [link]}
  - {id: e, kinds: [river], facts: {gateway: d}}
  - {id: f, kinds: [river]}
rules:
  - {name: down, on: link, when: up == 0}
  - {name: high, on: river, when: level_m > 2%s}`
	for _, c := range []struct{ inhibited, want string }{
		{"", "c | d-site | e | f | lines | s"},
		{", inhibited_by: [down]", "boat c d-site e lines | f | s"},
	} {
		set := compile(t, readDocument(t, fmt.Sprintf(devices, c.inhibited)))
		parts := make([]string, len(set.weights))
		for _, site := range sortedKeys(set.parts) {
			parts[set.parts[site]] += " " + site
		}
		got := ""
		for _, p := range parts {
			got += " |" + p
		}
		if got = strings.TrimPrefix(got, " | "); got != c.want {
			t.Errorf("inhibited %q: parts %s, want %s", c.inhibited, got, c.want)
		}
	}
}

// TestPlaces: the parts are dealt out evenly by their weight.
func TestPlaces(t *testing.T) {
	s := &Set{weights: []int{1, 9, 2, 3, 3}}
	load := make([]int, 2)
	for part, place := range s.place(2) {
		load[place] += s.weights[part]
	}
	if load[0] != 9 || load[1] != 9 {
		t.Errorf("load %v", load)
	}
}

// TestOrderOfAnInstant: what an instant has released comes after the timers of
// that instant, also after those of other shards.
func TestOrderOfAnInstant(t *testing.T) {
	doc := readDocument(t, `
devices:
  - {id: line-1, site: one, kinds: [link]}
  - {id: a, site: one, kinds: [river]}
  - {id: b, site: two, kinds: [river]}
rules:
  - {name: down, on: link, when: up == 0, clear_for: 3m}
  - {name: a-released, on: river, when: level_m > 2, inhibited_by: [down]}
  - {name: z-timer, on: river, when: level_m > 1, for: 3m, inhibited_by: [down], where: device.site == "two"}`)
	reading := func(device, kind, name string, v float64) telemetry.Reading {
		return telemetry.Reading{Device: device, Kind: kind, Values: []telemetry.Value{{Name: name, Number: v}}}
	}
	for _, shards := range []int{1, 2} {
		engine := NewEngine(Options{Shards: shards})
		engine.Evaluate(epoch, control(t, doc))
		engine.Evaluate(epoch, []telemetry.Reading{reading("line-1", "link", "up", 0), reading("a", "river", "level_m", 3)})
		engine.Evaluate(epoch.Add(time.Minute), []telemetry.Reading{reading("line-1", "link", "up", 1), reading("b", "river", "level_m", 2)})
		got := ""
		for _, x := range engine.Evaluate(epoch.Add(time.Hour), nil) {
			got += fmt.Sprintf("%s %s %s; ", x.Rule, x.State, x.At.Sub(epoch))
		}
		if want := "down cleared 4m0s; z-timer active 4m0s; a-released active 4m0s; "; got != want {
			t.Errorf("%d shards: %s", shards, got)
		}
	}
}

// TestForks: a large frame is evaluated by several goroutines, of which none is
// left, with the same outcome.
func TestForks(t *testing.T) {
	doc := readDocument(t, `
rules:
  - {name: high, on: river, when: level_m > 4}
  - {name: mean, on: river, when: 'avg(level_m, "1m") > 4', message: {en: '{len(device.name)} letters'}}
  - {name: silent, on: river, when: 'silent("10m")'}`)
	frame := stream1(2000)
	for i := range frame {
		frame[i].Device = fmt.Sprintf("device-%d", i%500)
		frame[i].Time = epoch.Add(time.Duration(i) * time.Millisecond)
		frame[i].Values[0].Number = float64(i % 7)
	}
	for i := range 500 {
		doc.Devices = append(doc.Devices, telemetry.Device{ID: fmt.Sprintf("device-%d", i), Kinds: []string{"river"}})
	}
	var want []telemetry.Transition
	for _, shards := range []int{1, 2, 8, 100} {
		engine := NewEngine(Options{Shards: shards})
		if len(engine.shards) != min(shards, MaxShards) {
			t.Fatalf("%d shards, asked for %d", len(engine.shards), shards)
		}
		engine.Evaluate(epoch, control(t, doc))
		before := runtime.NumGoroutine()
		out := engine.Evaluate(epoch.Add(time.Second), frame)
		out = append(out, engine.Evaluate(epoch.Add(time.Hour), nil)...) // 500 timers, over all shards
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines, before %d", n, before)
		}
		if want == nil {
			want = out
		}
		if len(out) < 1400 || !reflect.DeepEqual(out, want) {
			t.Errorf("%d shards: %d transitions, or others than the %d of one shard", shards, len(out), len(want))
		}
	}
}

// TestCountsAreTheSame: metrics and counts of rules do not depend on the shards.
func TestCountsAreTheSame(t *testing.T) {
	log := randomLog(t, rand.New(rand.NewPCG(5, 5)), 800)
	var want string
	for _, shards := range []int{1, 2, 3, 8} {
		registry := prometheus.NewRegistry()
		engine := tight(NewEngine(Options{Shards: shards, Registerer: registry}))
		for i := 0; i < len(log); {
			now := log[i].received
			var frame []telemetry.Reading
			for ; i < len(log) && log[i].received.Equal(now); i++ {
				frame = append(frame, log[i].reading)
			}
			engine.Evaluate(now, frame)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%+v\n%+v\n", engine.Rules(), engine.Pending())
		for _, f := range families {
			for _, m := range f.GetMetric() {
				got += fmt.Sprintln(f.GetName(), m.GetLabel(), m.GetCounter().GetValue(), m.GetGauge().GetValue())
			}
		}
		if want == "" {
			want = got
		}
		diffLines(t, want, got)
		for _, name := range []string{"late", "tagged", "too_many_devices"} {
			if !strings.Contains(got, `value:"`+name+`"`) {
				t.Errorf("no metric of %s", name)
			}
		}
	}
}
