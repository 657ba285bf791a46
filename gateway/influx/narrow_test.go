package influx

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/influxdb/tsdb"
)

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
		s.engine.writeTo(s.engine.points, false)
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
	u := &uncounted{store: store}
	if err := u.WriteToShard(tsdb.WriteContext{}, 7, nil); err == nil || !strings.Contains(err.Error(), "shard not found") {
		t.Errorf("a shard that is not there: %v", err)
	}
}
