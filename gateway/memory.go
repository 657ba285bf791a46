package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// gcPercent lets the heap grow to four times what lives before it is collected:
// at 100 a sixth of the work under load was collecting. boundMemory keeps small
// machines safe from it.
const gcPercent = 300

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
