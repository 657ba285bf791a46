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
rules: [{name: high, on: river, when: level_m > 2, message: {vi: "Mực nước {device.name} {level_m} m", en: "{device.name} at {level_m} m"}}]`)))
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
