package modbus

import (
	"context"
	"fmt"
	"sync"
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
				defer lines[i].medium.Close()
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wait sync.WaitGroup
			for i, line := range lines {
				wait.Go(func() {
					for range (b.N + i) / len(lines) {
						if err := line.poll(context.Background(), line.units[0]); err != nil {
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
	u := line.units[0]
	answer := make([]byte, 2*u.blocks[0].count)
	for i := range answer {
		answer[i] = byte(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		line.decode(&u.blocks[0], answer, u.readings())
	}
	b.ReportMetric(float64(b.N*13)/b.Elapsed().Seconds(), "values/s")
}
