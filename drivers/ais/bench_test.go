package ais

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// fleet makes n position reports, types 1 and 18 in turn, of boats at sea.
func fleet(n int) (out [][]byte) {
	for i := range int64(n) {
		payload := armoured(168, 1, field{8, 30, 574_000_000 + i}, field{38, 4, 7}, field{42, 8, i % 100}, field{50, 10, i % 400},
			field{61, 28, 64_800_000 + i}, field{89, 27, 9_900_000 - i}, field{116, 12, i % 3600}, field{128, 9, i % 360}, field{137, 6, i % 60})
		if i%2 == 1 {
			payload = armoured(168, 18, field{8, 30, 574_000_000 + i}, field{46, 10, i % 400},
				field{57, 28, 64_800_000 + i}, field{85, 27, 9_900_000 - i}, field{112, 12, i % 3600}, field{124, 9, i % 360}, field{133, 6, i % 60})
		}
		out = append(out, []byte(wrap("AIVDM,1,1,,A,"+payload)))
	}
	return out
}

func benchmarkFeed(b *testing.B, all [][]byte) {
	d := NewDecoder()
	now := time.Unix(1_761_523_200, 0)
	readings := 0
	emit := func(telemetry.Reading) { readings++ }
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		d.Feed(all[i%len(all)], now, emit)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(float64(readings)/float64(b.N), "readings/line")
}

func BenchmarkFeed(b *testing.B) { benchmarkFeed(b, fleet(1000)) }

// BenchmarkFleet is the work of a gateway: 10,000 vessels that report every ten
// seconds, merged and told apart; thinned and not; and heard twice. It prints
// what the fleet keeps of a vessel.
func BenchmarkFleet(b *testing.B) {
	for _, c := range []struct {
		name      string
		thin      Thin
		receivers int
	}{
		{"alone", Thin{}, 0}, // without a fleet, for comparison
		{"all", Thin{}, 1},
		{"thinned", Thin{Every: telemetry.Duration(time.Minute), Distance: "50m"}, 1},
		{"two-receivers", Thin{}, 2},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkFleet(b, c.thin, c.receivers) })
	}
}

func benchmarkFleet(b *testing.B, thin Thin, receivers int) {
	const vessels = 10_000
	all := fleet(vessels)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := NewFleet(nil)
	var decoders []*Decoder
	for i := range receivers {
		decoders = append(decoders, f.Decoder(fmt.Sprint("receiver ", i), Policy{Thin: thin, Refresh: DefaultRefresh}))
	}
	if receivers == 0 {
		receivers, decoders = 1, []*Decoder{NewDecoder()}
	}
	start := time.Unix(1_761_523_200, 0)
	for i := range int64(vessels) { // a name and a call sign are kept of each
		mmsi := field{8, 30, 574_000_000 + i}
		for _, payload := range []string{armoured(160, 24, append(sixBit(40, fmt.Sprintf("TTH %05d TS", i)), mmsi)...),
			armoured(168, 24, append(sixBit(90, fmt.Sprintf("XV%05d", i)), mmsi, field{38, 2, 1}, field{40, 8, 30})...)} {
			decoders[0].Feed([]byte(wrap("AIVDM,1,1,,A,"+payload)), start, func(telemetry.Reading) {})
		}
	}
	readings := 0
	emit := func(telemetry.Reading) { readings++ }
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		n := i / receivers
		at := start.Add(time.Duration(n) * 10 * time.Second / vessels)
		if n%vessels == 0 && i%receivers == 0 { // the next round: 11 s on, that the payloads are no duplicates
			start = start.Add(time.Second)
		}
		decoders[i%receivers].Feed(all[n%vessels], at, emit)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(float64(readings)/float64(b.N), "readings/line")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/vessels, "B/vessel")
	runtime.KeepAlive(f)
	runtime.KeepAlive(all)
}

// BenchmarkFeedCoast is a real stream of a base station network, with foreign
// sentences between.
func BenchmarkFeedCoast(b *testing.B) {
	benchmarkFeed(b, lines(b, filepath.Join(testdata(b), "ais/amsa/ais.txt.gz")))
}

func BenchmarkJSON(b *testing.B) {
	all := fleet(1000)
	p, j := newParser(), newJSONWriter(true)
	b.ReportAllocs()
	for i := range b.N {
		p.feed(all[i%len(all)], time.Time{}, func(m *message) { j.message(m) })
	}
}

// BenchmarkGpsdecode is gpsdecode -c on the sentences of BenchmarkFeed, with the
// time of its own CPU.
func BenchmarkGpsdecode(b *testing.B) {
	gpsdecode, err := exec.LookPath("gpsdecode")
	if err != nil {
		b.Skip("gpsdecode (package gpsd-clients) is not installed")
	}
	all := bytes.Join(fleet(1000), []byte("\n"))
	in := append(bytes.Repeat(append(all, '\n'), b.N/1000), all...)
	cmd := exec.Command(gpsdecode, "-c")
	cmd.Stdin = bytes.NewReader(append(in, '\n'))
	b.ResetTimer()
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	b.ReportMetric(float64(b.N/1000*1000+1000)/used.Seconds(), "lines/s-of-CPU")
}
