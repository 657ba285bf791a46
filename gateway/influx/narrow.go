package influx

import (
	"reflect"
	"sync"

	"github.com/influxdata/influxdb/coordinator"
	"github.com/influxdata/influxdb/models"
	"github.com/influxdata/influxdb/tsdb"
)

// An uncounted store is written to without the counters of tsdb.Store. On a machine
// of 32 bits they cannot be used: they lie at an odd multiple of four within a
// struct that must begin at a multiple of eight, and sync/atomic ends the program
// at the first write (sync/atomic, Bugs). Nobody reads these counters; those of
// each shard are well.
//
// Counting is tied to what keeps writes and deletions apart, so an uncounted store
// has that too: nothing is written while something is deleted.
type uncounted struct {
	store    *tsdb.Store
	deletion sync.RWMutex
}

// countsAlign reports whether this machine can use the counters of tsdb.Store.
func countsAlign() bool {
	counters, ok := reflect.TypeFor[tsdb.Store]().FieldByName("stats")
	return !ok || counters.Offset%8 == 0
}

// writeTo makes the writer write to the engine's store.
func (e *engine) writeTo(w *coordinator.PointsWriter, aligned bool) {
	w.TSDBStore = e.store
	if !aligned {
		e.uncounted = &uncounted{store: e.store}
		w.TSDBStore = e.uncounted
	}
}

// deleting keeps writes away where the engine itself does not; what it returns lets
// them come again.
func (e *engine) deleting() (done func()) {
	if e.uncounted == nil {
		return func() {}
	}
	e.uncounted.deletion.Lock()
	return e.uncounted.deletion.Unlock
}

// CreateShard is tsdb.Store's.
func (u *uncounted) CreateShard(database, policy string, shard uint64, enabled bool) error {
	return u.store.CreateShard(database, policy, shard, enabled)
}

// WriteToShard is tsdb.Store's without the counting.
func (u *uncounted) WriteToShard(_ tsdb.WriteContext, shard uint64, points []models.Point) error {
	u.deletion.RLock()
	defer u.deletion.RUnlock()
	to := u.store.Shard(shard)
	if to == nil {
		return tsdb.ErrShardNotFound
	}
	// The monitor stops the compactions of a shard that nothing is written to.
	if idle, _ := to.IsIdle(); idle {
		to.SetCompactionsEnabled(true)
	}
	return to.WritePoints(points, tsdb.NoopStatsTracker())
}
