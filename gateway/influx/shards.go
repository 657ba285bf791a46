package influx

import (
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/influxdata/influxdb/models"
	"github.com/influxdata/influxdb/tsdb"
	"github.com/influxdata/influxdb/tsdb/engine/tsm1"
)

// restEvery is how often shards that nothing is written to are put to rest.
const restEvery = 10 * time.Second

// shards stand between the engine's writer and its store.
//
// A shard keeps what is written in a cache, whose room is made by the first write and
// given back when the shard has been quiet. Both race with writes in the engine
// (tsm1.Cache.init and Free, 1.13.2 and before): of two first writes at once the second
// can find the cache without its room, and what is written just as the room is given
// back goes with it. Either is acknowledged, is in the write-ahead log alone, where no
// query sees it, and is gone with the log's segment at the next snapshot. So the first
// write to a shard is alone here, and shards are put to rest here and not by the
// engine's monitor, while nobody writes to them.
//
// On a machine of 32 bits the counters of tsdb.Store cannot be used: they lie at an odd
// multiple of four within a struct that must begin at a multiple of eight, and
// sync/atomic ends the program at the first write (sync/atomic, Bugs). Nobody reads
// these counters; those of each shard are well. Counting is tied to what keeps writes
// and deletions apart, so there that is done here too.
type shards struct {
	store *tsdb.Store
	count bool // in tsdb.Store

	stop chan struct{}
	done sync.WaitGroup

	upkeep   sync.Mutex   // one at a time makes a shard, puts shards to rest, or deletes
	deletion sync.RWMutex // without count: held while something is deleted

	mu    sync.Mutex
	gates map[uint64]*gate
}

// A gate lets writes through to a shard; it is locked while the shard is made ready for
// them, or put to rest.
type gate struct {
	sync.RWMutex
	ready *tsm1.Cache // that has its room
}

// countsAlign reports whether this machine can use the counters of tsdb.Store.
func countsAlign() bool {
	counters, ok := reflect.TypeFor[tsdb.Store]().FieldByName("stats")
	return !ok || counters.Offset%8 == 0
}

// newShards is for a store whose own monitor is off.
func newShards(store *tsdb.Store) *shards {
	return &shards{store: store, count: countsAlign(), gates: map[uint64]*gate{}, stop: make(chan struct{})}
}

// keep puts shards to rest now and then, until close.
func (s *shards) keep() {
	s.done.Go(func() {
		ticker := time.NewTicker(restEvery)
		defer ticker.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-ticker.C:
				_ = s.rest() // tried again in ten seconds; memory is all it costs
			}
		}
	})
}

// close ends keep. It is called once.
func (s *shards) close() {
	close(s.stop)
	s.done.Wait()
}

// gate returns that of a shard.
func (s *shards) gate(id uint64) *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[id]
	if g == nil {
		g = &gate{}
		s.gates[id] = g
	}
	return g
}

// cacheOf returns the cache of a shard, nil of one that is closed.
func cacheOf(shard *tsdb.Shard) *tsm1.Cache {
	if shard == nil {
		return nil
	}
	engine, err := shard.Engine()
	if err != nil {
		return nil
	}
	if e, ok := engine.(*tsm1.Engine); ok {
		return e.Cache
	}
	return nil
}

// enter waits until the shard is ready for writes and keeps it so until leave is called.
func (s *shards) enter(id uint64) (leave func()) {
	for g := s.gate(id); ; {
		g.RLock()
		cache := cacheOf(s.store.Shard(id))
		if cache == nil || cache == g.ready {
			return g.RUnlock // one without a cache answers for itself
		}
		g.RUnlock()
		s.prepare(g, id)
	}
}

// prepare has the cache of a shard make its room, while nobody else writes to it.
func (s *shards) prepare(g *gate, id uint64) {
	g.Lock()
	defer g.Unlock()
	cache := cacheOf(s.store.Shard(id))
	if cache == nil || cache == g.ready {
		return
	}
	_ = cache.WriteMulti(nil) // nothing: a cache that takes no more has its room
	g.ready = cache
}

// rest frees what shards hold that nothing is written to, and lets the others compact.
func (s *shards) rest() error {
	if !s.upkeep.TryLock() {
		return nil // something is being deleted
	}
	defer s.upkeep.Unlock()
	var errs []error
	for _, id := range s.store.ShardIDs() {
		shard := s.store.Shard(id)
		if shard == nil {
			continue
		}
		if idle, _ := shard.IsIdle(); !idle {
			shard.SetCompactionsEnabled(true)
			continue
		}
		g := s.gate(id)
		g.Lock()
		if idle, _ := shard.IsIdle(); idle { // still
			g.ready = nil
			errs = append(errs, shard.Free())
		}
		g.Unlock()
	}
	s.forget()
	return errors.Join(errs...)
}

// forget lets go of what shards held that are gone.
func (s *shards) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, g := range s.gates {
		if s.store.Shard(id) == nil && g.TryLock() { // else the next time
			g.ready = nil
			g.Unlock()
		}
	}
}

// CreateShard is tsdb.Store's.
func (s *shards) CreateShard(database, policy string, shard uint64, enabled bool) error {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	return s.store.CreateShard(database, policy, shard, enabled)
}

// WriteToShard is tsdb.Store's.
func (s *shards) WriteToShard(by tsdb.WriteContext, id uint64, points []models.Point) error {
	if !s.count {
		s.deletion.RLock()
		defer s.deletion.RUnlock()
	}
	defer s.enter(id)()
	if s.count {
		return s.store.WriteToShard(by, id, points)
	}
	to := s.store.Shard(id)
	if to == nil {
		return tsdb.ErrShardNotFound
	}
	// What rests does not compact.
	if idle, _ := to.IsIdle(); idle {
		to.SetCompactionsEnabled(true)
	}
	return to.WritePoints(points, tsdb.NoopStatsTracker())
}

// deleting is called before something is deleted, and what it returns afterwards: a
// deletion makes room in caches too, and where the engine does not keep writes away
// meanwhile, this does.
func (s *shards) deleting() (done func()) {
	s.upkeep.Lock()
	for _, id := range s.store.ShardIDs() {
		s.prepare(s.gate(id), id)
	}
	if s.count {
		return s.upkeep.Unlock
	}
	s.deletion.Lock()
	return func() { s.deletion.Unlock(); s.upkeep.Unlock() }
}
