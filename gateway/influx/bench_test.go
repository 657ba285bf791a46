package influx

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// batchOf makes line protocol as the log holds it: n lines of 4 values, quality
// and 2 tags, of 500 devices, from the given second on.
func batchOf(n, second int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "weather,device=station-%d,site=site-%d temp_c=%d.5,humidity_pct=%d,wind_ms=%d.25,pressure_hpa=1008.%d,quality=\"good\" %d\n",
			i%500, i%500, 20+i%15, 60+i%40, i%20, i%10, 1_761_500_000_000_000_000+int64(second+i/500)*1_000_000_000)
	}
	return b.Bytes()
}

func benchWrite(b *testing.B, s *Store, lines int) {
	b.ReportAllocs()
	batches := make([][]byte, 64)
	for i := range batches {
		batches[i] = batchOf(lines, i*max(1, lines/500))
	}
	b.SetBytes(int64(len(batches[0])))
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		if err := s.Write(b.Context(), batches[i%len(batches)]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(lines)*float64(b.N)/b.Elapsed().Seconds(), "points/s")
}

// BenchmarkWrite writes points of 4 values and 2 tags, each write synced to the
// disk: into the engine inside, and over HTTP into one behind a socket in the
// same process.
func BenchmarkWrite(b *testing.B) {
	for _, lines := range []int{1, 100, 5000} {
		b.Run(fmt.Sprintf("embedded/batch=%d", lines), func(b *testing.B) {
			benchWrite(b, open(b, b.TempDir(), quiet(), nil), lines)
		})
	}
	b.Run("http/batch=5000", func(b *testing.B) {
		benchWrite(b, startElsewhere(b).client(b), 5000)
	})
}

func BenchmarkSplitLines(b *testing.B) {
	text := batchOf(5000, 0)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if n := len(splitLines(text)); n != 5000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkQuery asks what a dashboard asks: one device over an hour.
func BenchmarkQuery(b *testing.B) {
	s := open(b, b.TempDir(), quiet(), nil)
	for i := range 64 {
		if err := s.Write(b.Context(), batchOf(5000, i*10)); err != nil {
			b.Fatal(err)
		}
	}
	const q = "SELECT mean(temp_c) FROM weather WHERE device = 'station-7' AND time >= 1761500000s AND time < 1761503600s GROUP BY time(1m)"
	for b.Loop() {
		if _, err := s.Query(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen reports the time to open an empty store and the memory that the
// process holds afterwards.
func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		s, err := Open(b.TempDir(), quiet(), prometheus.NewRegistry(), nil)
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		b.ReportMetric(residentMiB(), "RSS-MiB")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// residentMiB is the process's resident memory, 0 where /proc does not tell.
func residentMiB() float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	var kib float64
	fmt.Sscan(after, &kib)
	return kib / 1024
}

// TestWriteWithinMemory is about the budget of a box of 512 MB; see the memory
// limits in Config. It runs where HAIDANG_HEAVY is set.
func TestWriteWithinMemory(t *testing.T) {
	if os.Getenv("HAIDANG_HEAVY") == "" {
		t.Skip("writes for 20 seconds: set HAIDANG_HEAVY=1")
	}
	s := open(t, t.TempDir(), quiet(), nil)
	points, began := 0, time.Now()
	peak := 0.0
	for i := 0; time.Since(began) < 20*time.Second; i++ {
		write(t, s, string(batchOf(5000, i*10)))
		points += 5000
		peak = max(peak, residentMiB())
	}
	t.Logf("%.0f points/s, peak RSS %.0f MiB", float64(points)/time.Since(began).Seconds(), peak)
}
