package spool

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

const (
	roomPause  = 2 * time.Second // between two looks at the disk
	emptyPause = 5 * time.Second // between two emptyings of the readings

	smallestHeadroom = 32 << 20
	largestHeadroom  = 512 << 20
)

// A room watches over the space that the logs take. JetStream does not come
// back by itself from a disk that is full, so readings are refused before it
// is; what the headroom holds is left to warnings and dead letters.
type room struct {
	spool    *Spool
	headroom int64 // bytes of the disk that readings leave free
	wake     chan struct{}
	emptied  time.Time
	upTo     uint64 // what was emptied last

	since time.Time // of the first of the looks that fail now; zero: the last one did not
	told  bool      // that they fail
}

func newRoom(s *Spool) *room {
	r := &room{spool: s, headroom: smallestHeadroom, wake: make(chan struct{}, 1)}
	var st unix.Statfs_t
	if s.config.URL == "" && unix.Statfs(s.options.Dir, &st) == nil {
		total := int64(st.Blocks) * int64(st.Bsize)
		r.headroom = max(smallestHeadroom, min(total/50, largestHeadroom))
	}
	return r
}

// kick asks for emptying now: a log is full.
func (r *room) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *room) watch() {
	tick := time.NewTicker(roomPause)
	defer tick.Stop()
	for {
		now := false
		select {
		case <-r.spool.idle:
			return
		case <-r.wake:
			now = true
		case <-tick.C:
		}
		if r.spool.config.URL == "" {
			if free, err := freeBytes(r.spool.options.Dir); err == nil {
				r.judge(free)
			}
		}
		if r.spool.ends != nil {
			r.spool.ends.sync()
		}
		if err := r.empty(r.spool.life, now); r.spool.deposed.Err() == nil {
			r.tell(err, time.Now())
		}
	}
}

// roomGrace is how long looks at logs in a cluster may fail before that is told. While
// a server is away, and leaders are elected anew, they fail on every machine; it means
// nothing, since they are made again every few seconds.
const roomGrace = time.Minute

// tell says once that looks at the logs fail, and that they do no more. What is wrong
// with the cluster itself is told where it is found.
func (r *room) tell(err error, now time.Time) {
	s := r.spool
	switch {
	case err == nil:
		if r.told {
			s.logger.Info("it is known again how full the logs are")
		}
		r.since, r.told = time.Time{}, false
		return
	case r.since.IsZero():
		r.since = now
	}
	if r.told || s.config.URL != "" && now.Sub(r.since) < roomGrace {
		return
	}
	if s.cluster != nil && s.cluster.health() != nil {
		return
	}
	r.told = true
	if s.empties() {
		s.logger.Warn("what all followers have cannot be dropped from the logs, which grow meanwhile; trying again", "error", err)
	} else {
		s.logger.Warn("it is not known how full the logs are; trying again", "error", err)
	}
}

// judge decides from the free disk which logs refuse.
func (r *room) judge(free int64) {
	s := r.spool
	readings := free < r.headroom
	if readings && s.config.Full == DropOldest {
		r.thin()
		readings = free < r.headroom/4
	}
	if readings != s.readings.core.lowDisk.Swap(readings) {
		if readings {
			s.logger.Error("the disk is nearly full: readings are refused", "folder", s.options.Dir, "free_bytes", free, "needed_bytes", r.headroom)
		} else {
			s.logger.Info("the disk has room again: readings are accepted", "folder", s.options.Dir, "free_bytes", free)
		}
	}
	s.letters.core.lowDisk.Store(free < r.headroom/2)
	s.warnings.core.lowDisk.Store(free < r.headroom/8)
}

// thin drops the oldest tenth of the readings: the disk is full of something
// else.
func (r *room) thin() {
	ctx, cancel := context.WithTimeout(r.spool.life, askPatience)
	defer cancel()
	stream, err := r.spool.current().append.Stream(ctx, streamReadings)
	if err != nil {
		return // seen again in two seconds
	}
	state := stream.CachedInfo().State
	if state.Msgs < 2 {
		return
	}
	upTo := state.FirstSeq + (state.LastSeq-state.FirstSeq)/10
	r.spool.readings.core.noteState(jetstream.StreamState{FirstSeq: upTo + 1})
	r.spool.writing.RLock()
	defer r.spool.writing.RUnlock()
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err == nil {
		r.spool.logger.Warn("the disk is nearly full: the oldest readings are dropped", "frames", upTo-state.FirstSeq+1)
	}
}

// empty drops the readings that all followers have, but for the last frame,
// from which log time goes on after a restart. The centre of several machines drops
// the steps that it has.
func (r *room) empty(ctx context.Context, now bool) error {
	full := r.spool.options.Part != (Part{}) && r.spool.anyFull() // others give it free, and do not tell
	if !now && !full && time.Since(r.emptied) < emptyPause {
		return nil
	}
	r.emptied = time.Now()
	if r.spool.options.Part.Role == RoleRules {
		if err := r.spool.positions.look(ctx); err != nil {
			return err
		}
	}
	var first error
	for _, c := range r.spool.cores() { // one partition may be without a leader, and the others well
		select {
		case <-r.spool.idle:
			return first
		default:
			first = cmp.Or(first, r.visit(ctx, c))
		}
	}
	return first
}

// visit looks at a log, and empties it if that is ours to do.
func (r *room) visit(ctx context.Context, c *core) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	stream, err := r.spool.current().append.Stream(ctx, c.stream)
	if err != nil {
		return fmt.Errorf("look at the log of %s: %w", c.name, err)
	}
	state := stream.CachedInfo().State
	if err := r.spool.trust(ctx, r.spool.current()); err != nil {
		return fmt.Errorf("look at the log of %s: %w", c.name, err)
	}
	if slowest, does := r.spool.positions.emptied(c); does && state.LastSeq > 0 {
		upTo := min(slowest, state.LastSeq-1)
		if upTo >= state.FirstSeq && upTo > r.upTo {
			c.noteState(jetstream.StreamState{FirstSeq: upTo + 1}) // first: what is gone then is not lost
			r.spool.writing.RLock()
			err := stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1))
			r.spool.writing.RUnlock()
			if err != nil {
				return fmt.Errorf("drop the %s up to %d: %w", c.name, upTo, err)
			}
			r.upTo = upTo
			if info, err := stream.Info(ctx); err == nil {
				state = info.State
			}
		}
	}
	c.learn(state)
	c.storedBytes.Store(int64(state.Bytes))
	c.noteState(jetstream.StreamState{FirstSeq: state.FirstSeq})
	return nil
}

// Room returns how many bytes the readings have on disk, as it was some seconds ago,
// and how many they may have.
func (s *Spool) Room() (stored, bound int64) {
	return s.readings.core.storedBytes.Load(), int64(s.bound(s.readings.core))
}
