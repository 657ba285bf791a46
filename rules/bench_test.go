package rules

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// manyRules makes n rules on river that differ in their thresholds; most of
// them never hold.
func manyRules(t testing.TB, n int, form string) Document {
	doc := readDocument(t, `devices: [{id: a, kinds: [river], interval: 10m, facts: {alarm1_m: 9}}]`)
	for i := range n {
		doc.Rules = append(doc.Rules, Rule{Name: fmt.Sprintf("rule-%d", i), On: "river", When: fmt.Sprintf(form, 5+i)})
	}
	return doc
}

func stream1(n int) []telemetry.Reading {
	readings := make([]telemetry.Reading, n)
	for i := range readings {
		readings[i] = telemetry.Reading{Device: "a", Site: "a", Kind: "river", Values: []telemetry.Value{
			{Name: "level_m", Number: 1 + float64(i%40)/10}, {Name: "flow_m3s", Number: 40}, {Name: "battery_v", Number: 12.5},
		}}
	}
	return readings
}

// BenchmarkEvaluate runs rules with alarm state over one stream.
func BenchmarkEvaluate(b *testing.B) {
	for _, form := range []struct{ name, when string }{
		{"threshold", "level_m > %d"},
		{"fact", "level_m > device.alarm1_m + %d"},
		{"and", "level_m > %d && flow_m3s > 100"},
		{"window", `level_m > 2 && avg(level_m, "1h") > %d`},
	} {
		for _, n := range []int{1, 300, 10_000} {
			if n == 10_000 && form.name != "threshold" {
				continue
			}
			b.Run(fmt.Sprintf("%s/rules=%d", form.name, n), func(b *testing.B) {
				engine := NewEngine(Options{})
				engine.Evaluate(epoch, control(b, manyRules(b, n, form.when)))
				frame := stream1(64)
				now := epoch
				transitions := 0
				b.ReportAllocs()
				for b.Loop() {
					for i := range frame {
						now = now.Add(time.Second)
						frame[i].Time = now
					}
					transitions += len(engine.Evaluate(now, frame))
				}
				evaluations := float64(b.N) * float64(n) * float64(len(frame))
				b.ReportMetric(evaluations/b.Elapsed().Seconds()/1e6, "Mevals/s")
				b.ReportMetric(float64(b.N*len(frame))/b.Elapsed().Seconds()/1e3, "kreadings/s")
				b.ReportMetric(float64(transitions), "transitions")
			})
		}
	}
}

// BenchmarkShards runs rules over the readings of eight devices, on one core and
// on two. What is not parallel is the routing and the log.
func BenchmarkShards(b *testing.B) {
	const devices = 8
	for _, shape := range []struct {
		name, when string
		rules      int
	}{
		{"threshold", "level_m > %d", 300},
		{"threshold", "level_m > %d", 10_000},
		{"window", `level_m > 2 && avg(level_m, "1h") > %d`, 300},
	} {
		for _, shards := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/rules=%d/shards=%d", shape.name, shape.rules, shards), func(b *testing.B) {
				engine := NewEngine(Options{Shards: shards})
				doc := manyRules(b, shape.rules, shape.when)
				frame := stream1(64 * devices)
				for i := range devices {
					doc.Devices = append(doc.Devices, telemetry.Device{ID: fmt.Sprintf("device-%d", i), Kinds: []string{"river"}})
				}
				for i := range frame {
					frame[i].Device = fmt.Sprintf("device-%d", i%devices)
				}
				engine.Evaluate(epoch, control(b, doc))
				now := epoch
				b.ReportAllocs()
				for b.Loop() {
					for i := range frame {
						now = now.Add(time.Second / devices)
						frame[i].Time = now
					}
					engine.Evaluate(now, frame)
				}
				readings := float64(b.N) * float64(len(frame))
				b.ReportMetric(readings*float64(shape.rules)/b.Elapsed().Seconds()/1e6, "Mevals/s")
				b.ReportMetric(readings/b.Elapsed().Seconds()/1e3, "kreadings/s")
			})
		}
	}
}

// BenchmarkSharedStream is the shape that eKuiper is measured with: 300 rules
// share one stream and let 90 % of its messages pass by. It goes as fast as it
// can; the share of one core that 500 messages/s take is told beside.
func BenchmarkSharedStream(b *testing.B) {
	engine := NewEngine(Options{})
	doc := readDocument(b, `devices: [{id: a, kinds: [river], interval: 2ms}]`)
	for i := range 300 {
		doc.Rules = append(doc.Rules, Rule{Name: fmt.Sprintf("rule-%d", i), On: "river", When: fmt.Sprintf("level_m > %g", 9+float64(i)/10000)})
	}
	engine.Evaluate(epoch, control(b, doc))
	frame := stream1(100)
	for i := range frame {
		frame[i].Values[0].Number = float64(i%10) + 0.5
	}
	now, transitions := epoch, 0
	b.ReportAllocs()
	for b.Loop() {
		for i := range frame {
			now = now.Add(2 * time.Millisecond)
			frame[i].Time = now
		}
		transitions += len(engine.Evaluate(now, frame))
	}
	messages := float64(b.N) * float64(len(frame))
	b.ReportMetric(messages/b.Elapsed().Seconds()/1e3, "kmessages/s")
	b.ReportMetric(messages*300/b.Elapsed().Seconds()/1e6, "Mevals/s")
	b.ReportMetric(float64(transitions), "transitions")
	b.ReportMetric(100*500*b.Elapsed().Seconds()/messages, "%core-at-500/s")
}

const everyFunction = `
devices: [{id: a, kinds: [air], interval: 1s, facts: {zone: z, limit_s: 1e6}}]
kinds:
  - {name: air, values: [{name: pm25_ugm3}, {name: pm10_ugm3}, {name: o3_ugm3}, {name: lat}, {name: lon}]}
limits: [{name: x, value: 1e6}, {name: x, value: 1e5, from: 2025-01-01}]
zones: |
  {"type": "FeatureCollection", "features": [
    {"properties": {"name": "z"}, "geometry": {"type": "Polygon", "coordinates": [[[0,0],[1,0],[1,1],[0.5,0.4],[0,1],[0,0]]]}},
    {"properties": {"name": "l"}, "geometry": {"type": "LineString", "coordinates": [[5,5],[6,6],[6,7]]}}]}
rules:
  - {name: windows, on: air, when: 'avg(pm25_ugm3, "1m") > 1e6 || stddev(pm25_ugm3, "6h") > 1e6 || delta(pm25_ugm3, "1m") > 1e6 || rate(pm25_ugm3, "1m") > 1e9'}
  - {name: ranks, on: air, when: 'percentile(pm25_ugm3, 95, "2m") > 1e6 || first(pm25_ugm3, "1m") > 1e6 || last(pm25_ugm3, "1m") > 1e6'}
  - {name: before, on: air, when: 'pm25_ugm3 - prev(pm25_ugm3) > 1e6 || age(pm10_ugm3) > device.limit_s || not heard()'}
  - {name: silent, on: air, when: 'silent("10m") || silent(pm10_ugm3, "1h")', inhibited_by: [windows], mute: [{days: [sun]}]}
  - {name: index, on: air, when: 'vn_aqi() > 600 || nowcast(pm25_ugm3) > limit("x")'}
  - {name: places, on: air, when: 'inside(device.zone) && dwell("z") > 1e6 || distance_m("l") < 1 || crossed("l") || dwell(device.zone) > 2e6'}
  - {name: waits, on: air, when: pm25_ugm3 > 1e6, for: 1m}`

// placeStream makes readings every second, for everyFunction.
func placeStream(n int) []telemetry.Reading {
	readings := make([]telemetry.Reading, n)
	for i := range readings {
		readings[i] = telemetry.Reading{Device: "a", Kind: "air", Values: []telemetry.Value{
			{Name: "pm25_ugm3", Number: 20 + float64(i%17)}, {Name: "pm10_ugm3", Number: 30}, {Name: "o3_ugm3", Number: 50},
			{Name: "lat", Number: 0.1 + float64(i%7)/100}, {Name: "lon", Number: 0.5},
		}}
	}
	return readings
}

func functionEngine(t testing.TB) (engine *Engine, step func() int) {
	engine = NewEngine(Options{})
	engine.Evaluate(epoch, control(t, readDocument(t, everyFunction)))
	frame, now := placeStream(64), epoch
	return engine, func() int {
		for i := range frame {
			now = now.Add(time.Second)
			frame[i].Time = now
		}
		return len(engine.Evaluate(now, frame))
	}
}

// TestNothingIsAllocated: while nothing changes the engine allocates nothing,
// whatever functions the rules use.
func TestNothingIsAllocated(t *testing.T) {
	_, step := functionEngine(t)
	for range 600 { // until windows and rings have their size
		if n := step(); n > 0 {
			t.Fatalf("%d transitions", n)
		}
	}
	if n := testing.AllocsPerRun(200, func() { step() }); n > 0 {
		t.Errorf("%v allocations per frame of 64 readings", n)
	}
}

// BenchmarkFunctions runs seven rules that use every function.
func BenchmarkFunctions(b *testing.B) {
	_, step := functionEngine(b)
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
	b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds()/1e3, "kreadings/s")
}

// BenchmarkDevices runs 20 rules over 2,000 devices.
func BenchmarkDevices(b *testing.B) {
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(b, manyRules(b, 20, "level_m > %d")))
	frame := stream1(2000)
	for i := range frame {
		frame[i].Device = fmt.Sprintf("device-%d", i)
	}
	now := epoch
	for b.Loop() {
		now = now.Add(time.Second)
		for i := range frame {
			frame[i].Time = now
		}
		engine.Evaluate(now, frame)
	}
	b.ReportMetric(float64(b.N)*20*float64(len(frame))/b.Elapsed().Seconds()/1e6, "Mevals/s")
	b.ReportMetric(float64(b.N*len(frame))/b.Elapsed().Seconds()/1e3, "kreadings/s")
}

// BenchmarkCompile loads rules with levels, windows and messages.
func BenchmarkCompile(b *testing.B) {
	doc := manyRules(b, 10_000, `level_m >= device.alarm1_m + %d && rate(level_m, "1h") > 0.5`)
	for i := range doc.Rules {
		doc.Rules[i].Clear = "level_m < device.alarm1_m - 0.05"
		doc.Rules[i].Message = telemetry.Text{VI: "{device.name}: {level_m} m", EN: "{device.name}: {level_m} m"}
	}
	for b.Loop() {
		if _, faults := Compile(doc); len(faults) > 0 {
			b.Fatal(faults[0])
		}
	}
	b.ReportMetric(float64(len(doc.Rules)*b.N)/b.Elapsed().Seconds(), "rules/s")
}

// BenchmarkState measures the memory of a rule's state for a device, and
// checkpoints of it.
func BenchmarkState(b *testing.B) {
	const rules, devices = 20, 5000
	doc := manyRules(b, rules, "level_m > %d")
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(b, doc))
	frame := stream1(devices)
	for i := range frame {
		frame[i].Device = fmt.Sprintf("device-%d", i)
		frame[i].Values[0].Number = float64(i % 30)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	engine.Evaluate(epoch, frame)
	runtime.GC()
	runtime.ReadMemStats(&after)
	var size int
	for b.Loop() {
		checkpoint, err := engine.Checkpoint()
		if err != nil {
			b.Fatal(err)
		}
		size = len(checkpoint)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/rules/devices, "B/rule-and-device")
	b.ReportMetric(float64(size)/devices, "checkpoint-B/device")
}

// BenchmarkRise raises and clears a warning with every reading.
func BenchmarkRise(b *testing.B) {
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(b, readDocument(b, `
rules: [{name: high, on: river, when: level_m > 2, flap: {raises: 0}, message: {vi: "Mực nước {device.name} {level_m} m", en: "{device.name} at {level_m} m"}}]`)))
	frame := stream1(2)
	frame[1].Values[0].Number = 9
	now := epoch
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		frame[0].Time, frame[1].Time = now, now
		engine.Evaluate(now, frame)
	}
}
