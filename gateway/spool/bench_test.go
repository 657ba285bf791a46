package spool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// BenchmarkAppend appends readings of four values, one a call. Pipelined
// producers have 64 outstanding.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ producers, outstanding int }{{1, 1}, {16, 1}, {64, 1}, {1, 64}, {16, 64}, {50, 20}} {
		b.Run(fmt.Sprintf("producers=%d/outstanding=%d", c.producers, c.outstanding), func(b *testing.B) {
			benchmarkAppend(b, open(b, b.TempDir()), c.producers, c.outstanding)
		})
	}
}

// BenchmarkAppendInCluster is BenchmarkAppend with the log in servers of its own,
// in this process but over TCP, each frame on the disks of all of them.
func BenchmarkAppendInCluster(b *testing.B) {
	log := 0
	for _, servers := range []int{0, 1, 3} {
		var cluster *natsCluster
		if servers > 0 {
			cluster = startCluster(b, fmt.Sprint("bench", servers), servers)
		}
		for _, c := range []struct{ producers, outstanding int }{{1, 1}, {16, 64}, {50, 20}} {
			b.Run(fmt.Sprintf("servers=%d/producers=%d/outstanding=%d", servers, c.producers, c.outstanding), func(b *testing.B) {
				s := open(b, b.TempDir(), func(o *Options) {
					if cluster != nil {
						o.Config = cluster.config(log)
						o.Config.MaxBytes, o.Waiting = 1<<30, func(error) {}
						log++
					}
				})
				benchmarkAppend(b, s, c.producers, c.outstanding)
			})
		}
	}
}

func benchmarkAppend(b *testing.B, s *Spool, producers, outstanding int) {
	var failed atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	begin := cpu(b)
	for p := range producers {
		wg.Go(func() {
			tokens := make(chan struct{}, outstanding)
			one := []telemetry.Reading{fourValues()}
			for range b.N / producers {
				tokens <- struct{}{}
				one[0].Values[0].Number = float64(p)
				s.Readings().AppendAsync(one, func(err error) {
					if err != nil {
						failed.Add(1)
					}
					<-tokens
				})
			}
			for range outstanding {
				tokens <- struct{}{}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	if failed.Load() > 0 {
		b.Fatalf("%d refused", failed.Load())
	}
	b.ReportMetric(float64((cpu(b)-begin).Nanoseconds())/float64(b.N), "cpu-ns/record")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(b.N)/float64(s.Readings().Last()), "records/frame")
}

// BenchmarkFollow reads a backlog, as lines and decoded.
func BenchmarkFollow(b *testing.B) {
	s := open(b, b.TempDir())
	batch := make([]telemetry.Reading, 1000)
	for i := range batch {
		batch[i] = fourValues()
	}
	const batches = 400
	for range batches {
		s.Readings().AppendAsync(batch, nil)
	}
	put(b, s, fourValues())
	for _, decode := range []bool{false, true} {
		b.Run(fmt.Sprintf("decode=%t", decode), func(b *testing.B) {
			records, size := 0, 0
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				err := s.Readings().Follow(ctx, FollowOptions{}, func(_ context.Context, batch *Batch[telemetry.Reading]) error {
					records += batch.Count()
					size += len(batch.Lines())
					if batch.Last() == s.Readings().Last() {
						cancel()
					}
					if decode {
						_, err := batch.Records()
						return err
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(size)/b.Elapsed().Seconds()/1e6, "MB/s")
		})
	}
}

// BenchmarkLatency is from AppendAsync to the follower, one reading at a time.
func BenchmarkLatency(b *testing.B) {
	s := open(b, b.TempDir())
	came := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go s.Readings().Follow(ctx, FollowOptions{Name: "rules"}, func(context.Context, *Batch[telemetry.Reading]) error {
		came <- struct{}{}
		return nil
	})
	one := []telemetry.Reading{fourValues()}
	for b.Loop() {
		s.Readings().AppendAsync(one, nil)
		<-came
	}
}

// BenchmarkOpen opens a log that was closed, and reports what an idle one takes.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	for range 20_000 {
		s.Readings().AppendAsync([]telemetry.Reading{fourValues()}, nil)
	}
	put(b, s, fourValues())
	shut(b, s)
	for b.Loop() {
		s := open(b, dir)
		shut(b, s)
	}
	s = open(b, dir)
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
	b.ReportMetric(residentMiB(b), "MiB")
	_ = s
}

// BenchmarkCheckpoint saves 1 MiB.
func BenchmarkCheckpoint(b *testing.B) {
	s := open(b, b.TempDir())
	blob := make([]byte, 1<<20)
	for b.Loop() {
		if err := s.SaveCheckpoint(b.Context(), "rules", blob); err != nil {
			b.Fatal(err)
		}
	}
}

// cpu returns the time that this process had a processor: on a machine that is
// shared it says more than the clock.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentMiB is the memory of this process after a collection.
func residentMiB(b *testing.B) float64 {
	runtime.GC()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("no /proc/self/status")
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return float64(kib) / 1024
		}
	}
	return 0
}

// BenchmarkScan reads the blocks of a log as each start does, from the page cache.
func BenchmarkScan(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	word := strings.Repeat("word ", 200)
	var some []telemetry.Reading
	for i := range 100 {
		r := river("a", float64(i))
		r.Values = append(r.Values, telemetry.Value{Name: "pad", Text: word})
		some = append(some, r)
	}
	for range 500 {
		put(b, s, some...)
	}
	shut(b, s)
	folder := filepath.Join(dir, streamsFolder, streamReadings, blockFolder)
	for b.Loop() {
		blocks, err := scan(streamReadings, folder)
		if err != nil {
			b.Fatal(err)
		}
		size := 0
		for _, one := range blocks {
			size += one.size
		}
		b.SetBytes(int64(size))
	}
}
