package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"
)

// gcPercent lets the heap grow to four times what lives before it is collected:
// at 100 a sixth of the work under load was collecting. boundMemory keeps small
// machines safe from it.
const gcPercent = 300

// Without a bound of its own the heap would grow by three times ten thousand
// connections before it is collected: more than a gigabyte.
const (
	maxGrowth     = 192 << 20 // bytes by which the heap may grow between two collections
	leastPercent  = 50        // however much lives
	growthPause   = 250 * time.Millisecond
	growthChanges = 20 // percent: smaller changes are not worth stopping the program for
)

// memoryShare is the part of the machine's or the control group's memory up to
// which the heap may grow before collecting becomes eager; the rest is for the
// files that the log and the store have mapped.
const memoryShare = 0.6

// boundMemory tunes the collector to the memory that there is. The environment
// variables GOGC and GOMEMLIMIT are obeyed instead where they are set.
func boundMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if bytes := memoryBytes(os.ReadFile); bytes > 0 {
		debug.SetMemoryLimit(int64(float64(bytes) * memoryShare))
	}
}

// growthPercent is how far the heap may grow, in percent of what lives.
func growthPercent(live uint64) int {
	if live == 0 {
		return gcPercent
	}
	return int(max(leastPercent, min(gcPercent, 100*maxGrowth/live)))
}

// keepGrowth adapts the collector to what lives until it is ended, unless GOGC says
// how it is to be. It begins before a large registry is read.
func keepGrowth() (end func() error) {
	ctx, stop := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	if os.Getenv("GOGC") == "" {
		keeping.Go(func() { adaptGrowth(ctx) })
	}
	return func() error { stop(); keeping.Wait(); return nil }
}

func adaptGrowth(ctx context.Context) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}}
	percent := gcPercent
	for wait(ctx, growthPause) {
		metrics.Read(samples)
		live := uint64(0)
		for _, s := range samples {
			if s.Value.Kind() == metrics.KindUint64 {
				live += s.Value.Uint64()
			}
		}
		if want := growthPercent(live); want*100 > percent*(100+growthChanges) || want*100 < percent*(100-growthChanges) || want == gcPercent && percent != gcPercent {
			percent = want
			debug.SetGCPercent(percent)
		}
	}
}

// memoryBytes is the memory of the control group (v2, then v1) or of the
// machine, whichever is less; 0 when neither can be read.
func memoryBytes(read func(string) ([]byte, error)) int64 {
	least := int64(0)
	consider := func(n int64) {
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := read(file); err == nil {
			n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no number: no limit
			consider(n)
		}
	}
	if text, err := read("/proc/meminfo"); err == nil {
		var kib int64
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kib); err == nil {
			consider(kib << 10)
		}
	}
	return least
}
