package main

import (
	"io/fs"
	"testing"
)

func TestMemoryBytes(t *testing.T) {
	const v2, v1, machine = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/proc/meminfo"
	for _, c := range []struct {
		files map[string]string
		want  int64
	}{
		{map[string]string{v2: "536870912\n", machine: "MemTotal:       2048 kB\nMemFree: 1 kB\n"}, 2 << 20},
		{map[string]string{v2: "536870912\n", machine: "MemTotal:       4194304 kB\n"}, 512 << 20},
		{map[string]string{v2: "max\n", machine: "MemTotal:       4194304 kB\n"}, 4 << 30},
		{map[string]string{v1: "9223372036854771712\n", machine: "MemTotal: 4194304 kB\n"}, 4 << 30},
		{map[string]string{machine: "nonsense"}, 0},
	} {
		got := memoryBytes(func(name string) ([]byte, error) {
			if text, ok := c.files[name]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		})
		if got != c.want {
			t.Errorf("%v: %d bytes, want %d", c.files, got, c.want)
		}
	}
}

func TestGrowthPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 300, 10 << 20: 300, 64 << 20: 300, 96 << 20: 200, 192 << 20: 100, 400 << 20: 50, 4 << 30: 50} {
		if got := growthPercent(live); got != want {
			t.Errorf("%d MiB alive: %d percent, want %d", live>>20, got, want)
		}
	}
}
