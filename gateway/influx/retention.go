package influx

import (
	"context"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/influxdata/influxdb/services/meta"
)

const (
	// diskEvery is how often the free space is looked at.
	diskEvery = time.Minute
	// retentionEvery is how often old readings are deleted.
	retentionEvery = time.Hour
	// healEvery is how often an engine that cannot write is opened again.
	healEvery = 5 * time.Second
	// healBytes is how much must be free for that to help.
	healBytes = 16 << 20
	// smallDisk is the part of a disk that is kept free when it is less than
	// defaultMinFree.
	smallDisk      = 20
	defaultMinFree = 1 << 30
)

// patrolUntil keeps the promises of Config.Retention and Config.MinFree until
// ctx is done. What fails is logged and tried again on the next round.
func (s *Store) patrolUntil(ctx context.Context) {
	disk := time.NewTicker(diskEvery)
	defer disk.Stop()
	retention := time.NewTicker(retentionEvery)
	defer retention.Stop()
	heal := time.NewTicker(healEvery)
	defer heal.Stop()
	round := func(what string, do func(context.Context, time.Time) error) {
		s.inflight.RLock()
		defer s.inflight.RUnlock()
		if s.usable() != nil {
			return
		}
		if err := do(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.Error(what, "err", err)
		}
	}
	watch := func() { round("the disk of InfluxDB is not watched", s.watchDisk) }
	expire := func() { round("old readings are not deleted", s.expire) }
	watch()
	expire()
	for {
		select {
		case <-ctx.Done():
			return
		case <-disk.C:
			watch()
		case <-retention.C:
			expire()
		case <-heal.C:
			if s.sick.Load() {
				watch()
				s.restart()
			}
		}
	}
}

// expire deletes what is older than its retention: shard groups that lie
// entirely beyond the longest one, and of the others the kinds that are kept
// for less.
func (s *Store) expire(ctx context.Context, now time.Time) error {
	longest := s.cfg.Retention.longest()
	if longest > 0 {
		s.engine.expiry.DeletionCheck()
	}
	kinds, err := s.shorterKept(ctx, longest)
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		// Whole hours: a deletion leaves a tombstone in each file that it touches.
		before := now.Add(-s.cfg.Retention.Of(kind)).Truncate(time.Hour)
		if !before.After(s.deleted[kind]) {
			continue
		}
		statement := fmt.Sprintf(`DELETE FROM "%s" WHERE time < %d`, escapeIdentifier(kind), before.UnixNano())
		done := s.engine.shards.deleting()
		err := s.each(ctx, http.MethodPost, statement, func(*Series) error { return nil })
		done()
		if err != nil {
			return fmt.Errorf("delete %s before %s: %w", kind, before.UTC().Format(time.RFC3339), err)
		}
		s.deleted[kind] = before
		s.metrics.deleted.Inc()
	}
	return nil
}

// shorterKept returns the kinds in the store that are kept for less than the
// retention policy keeps everything.
func (s *Store) shorterKept(ctx context.Context, longest time.Duration) ([]string, error) {
	var kinds []string
	if len(s.cfg.Retention) == 0 {
		return nil, nil
	}
	err := s.each(ctx, http.MethodGet, "SHOW MEASUREMENTS", func(series *Series) error {
		for row := range series.Values {
			kind := series.Text(row, "name")
			if keep := s.cfg.Retention.Of(kind); keep > 0 && keep != longest {
				kinds = append(kinds, kind)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the kinds in InfluxDB: %w", err)
	}
	return kinds, nil
}

// escapeIdentifier escapes what stands between the quotes of an InfluxQL
// identifier.
func escapeIdentifier(name string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(name)
}

// watchDisk measures the disk and, while less than the watermark is free, drops
// the oldest shard group. The one that takes today's readings is never dropped.
func (s *Store) watchDisk(_ context.Context, now time.Time) error {
	size, err := s.engine.store.DiskSize()
	if err != nil {
		return fmt.Errorf("size of the InfluxDB engine: %w", err)
	}
	s.metrics.disk.Set(float64(size))
	for {
		s.removeDropped()
		free, total, err := s.space(s.dir)
		if err != nil {
			return err
		}
		s.metrics.free.Set(float64(free))
		mark := s.watermark(total)
		if free >= mark {
			s.short = false
			return nil
		}
		if s.droppedRemain() {
			return nil // a query still reads them: the next round
		}
		oldest, ok := s.oldestGroup(now)
		if !ok {
			if !s.short {
				s.log.Warn("the disk is nearly full and InfluxDB has nothing old to drop", "free_bytes", free, "min_free_bytes", mark)
			}
			s.short = true
			return nil
		}
		if err := s.engine.meta.DeleteShardGroup(Database, policy, oldest.ID); err != nil {
			return fmt.Errorf("drop the InfluxDB shard group %d: %w", oldest.ID, err)
		}
		s.metrics.dropped.Inc()
		s.log.Warn("dropped the oldest readings because the disk is nearly full",
			"from", oldest.StartTime.UTC(), "to", oldest.EndTime.UTC(), "free_bytes", free, "min_free_bytes", mark)
	}
}

// watermark is how many bytes are to be free on a disk of this size.
func (s *Store) watermark(total uint64) uint64 {
	if s.cfg.MinFree > 0 {
		return uint64(s.cfg.MinFree)
	}
	return min(defaultMinFree, total/smallDisk)
}

// oldestGroup returns the shard group to drop first: the oldest that lies in
// the past and is not the newest.
func (s *Store) oldestGroup(now time.Time) (meta.ShardGroupInfo, bool) {
	rp, err := s.engine.meta.RetentionPolicy(Database, policy)
	if err != nil || rp == nil {
		return meta.ShardGroupInfo{}, false
	}
	var groups []meta.ShardGroupInfo
	for _, g := range rp.ShardGroups {
		if !g.Deleted() {
			groups = append(groups, g)
		}
	}
	if len(groups) < 2 {
		return meta.ShardGroupInfo{}, false
	}
	sort.Slice(groups, func(i, j int) bool { return groups[i].EndTime.Before(groups[j].EndTime) })
	oldest := groups[0]
	return oldest, !oldest.EndTime.After(now)
}

// removeDropped removes the files of shard groups that were dropped.
func (s *Store) removeDropped() {
	if s.droppedRemain() {
		s.engine.expiry.DeletionCheck()
	}
}

// droppedRemain reports whether files of dropped shard groups are still there.
func (s *Store) droppedRemain() bool {
	rp, err := s.engine.meta.RetentionPolicy(Database, policy)
	if err != nil || rp == nil {
		return false
	}
	present := map[uint64]bool{}
	for _, id := range s.engine.store.ShardIDs() {
		present[id] = true
	}
	for _, g := range rp.ShardGroups {
		for _, shard := range g.Shards {
			if g.Deleted() && present[shard.ID] {
				return true
			}
		}
	}
	return false
}

// restart closes the engine and opens it again, after which it can write when
// there is room; see sickness. What was acknowledged is there again.
func (s *Store) restart() {
	if free, _, err := s.space(s.dir); err != nil || free < healBytes {
		return
	}
	s.stopQueries()
	s.inflight.Lock()
	defer s.inflight.Unlock()
	if s.closed {
		return
	}
	if s.down == nil {
		if err := s.engine.close(); err != nil {
			s.log.Warn("InfluxDB could not be closed in order", "err", err)
		}
	}
	engine, err := openEngine(s.dir, s.cfg, s.log)
	if err != nil {
		s.down = fmt.Errorf("InfluxDB in %s could not be opened again: %w", s.dir, err)
		s.log.Error("InfluxDB could not be opened again; the log keeps the readings until it can", "err", err)
		return
	}
	s.engine, s.down = engine, nil
	s.sick.Store(false)
	s.metrics.restarts.Inc()
	s.log.Warn("opened InfluxDB again after an error of its files")
}
