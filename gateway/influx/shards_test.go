package influx

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/influxdata/influxdb/models"
	"github.com/influxdata/influxdb/tsdb"
)

// TestFirstWrites writes from several sides at once to shards that are new and, while
// they are empty, put to rest again and again: each point is there afterwards. By the
// engine's own means 450 to 490 of 800 were lost.
func TestFirstWrites(t *testing.T) {
	for _, counts := range []bool{true, false} {
		t.Run(fmt.Sprintf("counted %v", counts), func(t *testing.T) {
			e := open(t, t.TempDir(), quiet(), nil).engine
			e.shards.count = counts
			firstWrites(t, e)
		})
	}
}

func firstWrites(t *testing.T, e *engine) {
	const sides, made = 4, 200
	lost := 0
	for id := uint64(1000); id < 1000+made; id++ {
		if err := e.shards.CreateShard(Database, policy, id, true); err != nil {
			t.Fatal(err)
		}
		var resting, writers sync.WaitGroup
		var ended atomic.Bool
		resting.Go(func() {
			for !ended.Load() {
				if err := e.shards.rest(); err != nil {
					t.Error(err)
				}
			}
		})
		for side := range sides {
			point, err := models.ParsePointsString(fmt.Sprintf("river,device=d%d n=1 %d", side, time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			writers.Go(func() {
				<-time.After(time.Millisecond)
				if err := e.shards.WriteToShard(tsdb.WriteContext{}, id, point); err != nil {
					t.Error(err)
				}
			})
		}
		writers.Wait()
		ended.Store(true)
		resting.Wait()
		for side := range sides {
			if len(cacheOf(e.store.Shard(id)).Values([]byte(fmt.Sprintf("river,device=d%d#!~#n", side)))) != 1 {
				lost++
			}
		}
		if err := e.store.DeleteShard(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.shards.rest(); err != nil {
		t.Error(err)
	}
	e.shards.upkeep.Lock() // the engine's own turn may come just now
	defer e.shards.upkeep.Unlock()
	for id, g := range e.shards.gates {
		if g.ready != nil && e.store.Shard(id) == nil {
			t.Errorf("the cache of shard %d, which is gone, is kept", id)
		}
	}
	if lost > 0 {
		t.Errorf("of %d points that were written %d are lost", sides*made, lost)
	}
}

// TestCounters finds a version of the engine whose counters are elsewhere.
func TestCounters(t *testing.T) {
	counters, ok := reflect.TypeFor[tsdb.Store]().FieldByName("stats")
	if !ok || counters.Type.NumField() != 3 || counters.Type.Field(0).Type.Kind() != reflect.Int64 {
		t.Errorf("the counters of the engine's store are %v: look whether they lie well on 32 bits", counters)
	}
}

// TestUncounted writes as a machine of 32 bits does, deletes what is too old, and
// finds the rest after a restart.
func TestUncounted(t *testing.T) {
	dir, cfg := t.TempDir(), quiet()
	cfg.Retention = Retention{"river": MinRetention}
	now := time.Now()
	for i, want := range []int{2, 4} {
		s := open(t, dir, cfg, nil)
		s.engine.shards.count = false
		for _, at := range []time.Time{now.Add(-72 * time.Hour), now} {
			at = at.Add(time.Duration(i) * time.Second)
			write(t, s, fmt.Sprintf("river,device=a,site=a level_m=1 %d\nrain,device=a,site=a rain_1h_mm=1 %d\n", at.UnixNano(), at.UnixNano()))
		}
		if err := s.expire(t.Context(), now.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if got := count(t, s, "rain", "rain_1h_mm"); got != want {
			t.Errorf("%d points of rain, want %d", got, want)
		}
		if got := count(t, s, "river", "level_m"); got != want/2 {
			t.Errorf("%d points of river, want %d: those within a day", got, want/2)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUncountedShardIsGone is the answer that makes the engine's writer make it.
func TestUncountedShardIsGone(t *testing.T) {
	store := tsdb.NewStore(t.TempDir())
	u := newShards(store)
	u.count = false
	if err := u.WriteToShard(tsdb.WriteContext{}, 7, nil); err == nil || !strings.Contains(err.Error(), "shard not found") {
		t.Errorf("a shard that is not there: %v", err)
	}
}
