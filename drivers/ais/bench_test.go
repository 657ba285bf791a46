package ais

import (
	"path/filepath"
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
