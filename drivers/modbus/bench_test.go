package modbus

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"haidang/gateway/telemetry"
)

// discard is an intake that keeps nothing.
type discard struct{}

func (discard) Accept(_ string, _ []telemetry.Reading, done func(error)) {
	if done != nil {
		go done(nil)
	}
}
func (discard) SetAside(telemetry.DeadLetter, func(error)) {}

// wide is a profile of 125 registers of one word: the longest read.
func wide() string {
	text := "name: wide\nregisters:\n"
	for i := range maxWords {
		text += fmt.Sprintf("  - {value: wide.v%d, address: %d, type: int16, scale: 0.1}\n", i, i)
	}
	return text
}

// BenchmarkTenDevices polls ten simulated devices on ten connections of
// loopback as fast as they answer; client and devices share the processors.
func BenchmarkTenDevices(b *testing.B) {
	for _, profile := range []string{"wide", "weather-485"} {
		b.Run(profile, func(b *testing.B) {
			profiles := profilesOf(b, wide())
			lines := make([]*Line, 10)
			for i := range lines {
				s := &plain{}
				address, stop := s.listen(b)
				defer stop()
				cfg := Config{Name: fmt.Sprint("line-", i), Connect: "tcp://" + address, Units: []Unit{{ID: 1, Device: fmt.Sprint("device-", i), Profile: profile}}}
				lines[i], _ = newLine(b, cfg, profiles, discard{})
				defer lines[i].buses[0].medium.Close()
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wait sync.WaitGroup
			for i, line := range lines {
				wait.Go(func() {
					for range (b.N + i) / len(lines) {
						if err := line.buses[0].poll(context.Background(), line.buses[0].units[0]); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
			values := len(profiles.Profile(profile).Registers)
			b.ReportMetric(float64(b.N*values)/b.Elapsed().Seconds(), "values/s")
		})
	}
}

// BenchmarkDecode makes readings of answers that are there already.
func BenchmarkDecode(b *testing.B) {
	line := bareLine(b, DefaultTimeout, "127.0.0.1")
	u := line.buses[0].units[0]
	answer := make([]byte, 2*u.blocks[0].count)
	for i := range answer {
		answer[i] = byte(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		line.buses[0].decode(&u.blocks[0], answer, u.harvest())
	}
	b.ReportMetric(float64(b.N*13)/b.Elapsed().Seconds(), "values/s")
}

// BenchmarkMerging plans the reads of the built-in profiles, and tells how many
// requests they take beside one for each value.
func BenchmarkMerging(b *testing.B) {
	profiles := profilesOf(b)
	values, requests := 0, 0
	for b.Loop() {
		values, requests = 0, 0
		for _, name := range profiles.Names() {
			p := profiles.Profile(name)
			fields := (&Unit{}).fields(p)
			values += len(fields)
			requests += len(plan(fields, p))
		}
	}
	b.ReportMetric(float64(values), "values")
	b.ReportMetric(float64(requests), "requests")
}

// BenchmarkScanRTU finds an answer of 125 registers, clean and behind noise.
func BenchmarkScanRTU(b *testing.B) {
	answer := withCRC(append([]byte{1, 3, 250}, make([]byte, 250)...))
	request := withCRC([]byte{1, 3, 0, 0, 0, 125})
	noisy := append([]byte{1, 3, 0xFF, 0, 7}, answer...)
	for name, arrived := range map[string][]byte{"clean": answer, "noisy": noisy} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(arrived)))
			for b.Loop() {
				if scanRTU(arrived, request).answer == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkThousandUnits runs 125 lines of 8 weather stations each, and tells
// what a unit costs between its polls. The devices are in the same process:
// their goroutines are not counted, their buffers are.
func BenchmarkThousandUnits(b *testing.B) {
	for b.Loop() {
		thousandUnits(b)
	}
}

func thousandUnits(b *testing.B) {
	const lines, units = 125, 8
	profiles := profilesOf(b)
	tally := &tally{}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	servers := make([]*plain, lines)
	for i := range lines {
		servers[i] = &plain{}
		address, stop := servers[i].listen(b)
		defer stop()
		cfg := Config{Name: fmt.Sprint("line-", i), Connect: "tcp://" + address}
		for id := 1; id <= units; id++ {
			cfg.Units = append(cfg.Units, Unit{ID: id, Device: fmt.Sprintf("station-%d-%d", i, id), Profile: "weather-485"})
		}
		line, _ := newLine(b, cfg, profiles, tally)
		running.Go(func() { line.Run(ctx) })
	}
	for tally.readings.Load() < lines*units*3 { // two and the link for each unit
		runtime.Gosched()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(lines*units), "heap-B/unit")
	b.ReportMetric(float64(after.StackInuse-before.StackInuse)/(lines*units), "stack-B/unit")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines-lines)/(lines*units), "goroutines/unit")
	cancel()
	running.Wait()
	for _, s := range servers {
		s.wait.Wait()
	}
}

// tally is an intake that counts.
type tally struct{ readings atomic.Int64 }

func (t *tally) Accept(_ string, readings []telemetry.Reading, _ func(error)) {
	t.readings.Add(int64(len(readings)))
}
func (t *tally) SetAside(telemetry.DeadLetter, func(error)) {}
