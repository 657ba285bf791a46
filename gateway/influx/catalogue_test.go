package influx

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/influxdata/influxdb/tsdb/engine/tsm1"
	"github.com/prometheus/client_golang/prometheus"
)

// TestDamagedCatalogue flips each bit of the catalogue in turn, and cuts it: what
// was stored is there all the same, and more can be written.
func TestDamagedCatalogue(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Listen = Off
	fill := func(from, n int) {
		s, err := Open(dir, cfg, prometheus.NewRegistry(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var lines []byte
		for i := range n { // five weeks
			at := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(from+i) * 6 * time.Hour)
			lines = fmt.Appendf(lines, "river,device=a level_m=%d %d\n", from+i, at.UnixNano())
		}
		if err := s.Write(context.Background(), lines); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	fill(0, 140)
	name := filepath.Join(dir, "meta", catalogueFile)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	shards, err := shardsIn(filepath.Join(dir, "data", Database, policy))
	if err != nil || len(shards) < 5 {
		t.Fatalf("%d shards: %v", len(shards), err)
	}
	if wrong := checkCatalogue(whole, shards); wrong != nil {
		t.Fatalf("the engine's own catalogue: %v", wrong)
	}
	missed := 0
	for bit := range 8 * len(whole) {
		damaged := append([]byte(nil), whole...)
		damaged[bit/8] ^= 1 << (bit % 8)
		if checkCatalogue(damaged, shards) == nil {
			missed++ // such as the owner of a shard: of no consequence
		}
	}
	t.Logf("%d of %d flipped bits are not seen", missed, 8*len(whole))
	for i, damaged := range [][]byte{nil, whole[:len(whole)/2], append([]byte{0xff}, whole[1:]...)} {
		if err := os.WriteFile(name, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		fill(140+i, 1)
		if got := countIn(t, dir, cfg); got != 141+i {
			t.Errorf("damage %d: %d readings are there, want %d", i, got, 141+i)
		}
	}
}

func countIn(t *testing.T, dir string, cfg Config) int {
	t.Helper()
	s, err := Open(dir, cfg, prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return count(t, s, "river", "level_m")
}

// TestDamagedDataFile: a data file that cannot be read costs what it held, and
// neither the other files of its shard nor new readings.
func TestDamagedDataFile(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Listen = Off
	s, err := Open(dir, cfg, prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3 {
		write(t, s, fmt.Sprintf("river,device=a level_m=%d %d\n", i, at.Add(time.Duration(i)*time.Minute).UnixNano()))
		if i == 2 {
			break // stays in the write-ahead log
		}
		for _, shard := range s.engine.store.Shards(s.engine.store.ShardIDs()) {
			engine, err := shard.Engine()
			if err != nil {
				t.Fatal(err)
			}
			if err := engine.(*tsm1.Engine).WriteSnapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "data", Database, policy, "*", "*."+tsm1.TSMFileExtension))
	if err != nil || len(files) != 2 {
		t.Fatalf("data files %v: %v", files, err)
	}
	if err := os.Truncate(files[0], 20); err != nil {
		t.Fatal(err)
	}
	if got := countIn(t, dir, cfg); got != 2 {
		t.Errorf("%d readings are there, want the 2 of the other files", got)
	}
}
