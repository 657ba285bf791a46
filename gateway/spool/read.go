package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What a follower has read ahead at most. The bytes bound what JetStream sends
// for one request; they must hold a frame.
const (
	aheadFrames = 64
	aheadBytes  = 1 << 20

	cursorLife  = time.Minute // of a cursor that nobody reads from
	heartbeat   = time.Second // a cursor that says nothing for two of them is opened again
	parkAfter   = 20 * time.Second
	restAtFirst = 50 * time.Millisecond
	restAtMost  = 2 * time.Second
)

// A raw is a frame as it was read.
type raw struct {
	frameHead
	seq   uint64
	lines []byte
	err   error // the header cannot be read
	gone  bool  // there is no frame up to seq, though there was one
}

// read sends the frames from the sequence from on, in order, until ctx ends.
// Whatever happens to the connection, it goes on where it was.
func (c *core) read(ctx context.Context, from uint64, to chan<- raw) {
	rest := restAtFirst
	for failures := 0; ctx.Err() == nil; {
		link := c.spool.current()
		next, err := c.readThrough(ctx, link, from, to)
		if next > from || err == nil {
			from, rest, failures = next, restAtFirst, 0
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		c.metrics.rereads.Inc()
		if failures++; failures >= 3 && isBroken(err) {
			c.spool.heal(ctx, link)
		}
		if !sleep(ctx, rest) {
			return
		}
		rest = min(2*rest, restAtMost)
	}
}

// readThrough reads with one cursor until something goes wrong and returns the
// sequence to go on from. The cursor is JetStream's: without acknowledgements,
// in memory, so it costs no writes; the position is ours.
//
// What a damaged disk has taken off the end of the log is told by a raw that is
// gone: otherwise its reader would wait for it until something else comes.
func (c *core) readThrough(ctx context.Context, link *link, from uint64, to chan<- raw) (uint64, error) {
	end := c.last.Load() // before the cursor, so that what it has not pending is not there
	cursor, err := c.cursor(ctx, link, from)
	if err != nil {
		return from, err
	}
	if cursor.CachedInfo().NumPending == 0 && from <= end {
		defer c.drop(link, cursor)
		return c.endGone(ctx, link, from, end, to)
	}
	it, err := cursor.Messages(c.pulls()...)
	if err != nil {
		return from, fmt.Errorf("read the %s from %d: %w", c.name, from, err)
	}
	defer c.drop(link, cursor)
	defer it.Stop()
	for n := uint64(1); ; n++ {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return from, fmt.Errorf("read the %s from %d: %w", c.name, from, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return from, fmt.Errorf("read the %s from %d: %w", c.name, from, err)
		}
		if meta.Sequence.Consumer != n {
			return from, fmt.Errorf("read the %s from %d: delivery %d came for %d", c.name, from, meta.Sequence.Consumer, n)
		}
		r := raw{seq: meta.Sequence.Stream, lines: m.Data()}
		if r.frameHead, r.err = parseHead(m.Headers()); r.err != nil {
			r.received = meta.Timestamp
		}
		if c.spool.cluster != nil && r.seq > from {
			if from, err = c.refill(ctx, link, from, r.seq, to); err != nil {
				return from, err
			}
		}
		c.saw(&r, meta.NumPending)
		parked, err := hand(ctx, r, to)
		if err != nil {
			return from, err
		}
		from = r.seq + 1
		if meta.NumPending == 0 && from <= end {
			return c.endGone(ctx, link, from, end, to)
		}
		if parked {
			return from, nil // JetStream may have forgotten the cursor meanwhile
		}
	}
}

func (c *core) tellGone(ctx context.Context, from, end uint64, to chan<- raw) (uint64, error) {
	if _, err := hand(ctx, raw{seq: end, gone: true}, to); err != nil {
		return from, err
	}
	return end + 1, nil
}

// hand sends the frame and tells whether that took long.
func hand(ctx context.Context, r raw, to chan<- raw) (parked bool, err error) {
	select {
	case to <- r:
		return false, nil
	default:
	}
	begin := time.Now()
	select {
	case to <- r:
		return time.Since(begin) > parkAfter, nil
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

func (c *core) cursor(ctx context.Context, link *link, from uint64) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	if err := c.spool.sameLog(ctx, link, c.stream); err != nil {
		return nil, fmt.Errorf("open a cursor on the %s at %d: %w", c.name, from, err)
	}
	cursor, err := link.follow.CreateConsumer(ctx, c.stream, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       from,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: cursorLife,
	})
	if err != nil {
		return nil, fmt.Errorf("open a cursor on the %s at %d: %w", c.name, from, err)
	}
	return cursor, nil
}

// drop removes a cursor; JetStream does it by itself after a while.
func (c *core) drop(link *link, cursor jetstream.Consumer) {
	if link.reading.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := link.follow.DeleteConsumer(ctx, c.stream, cursor.CachedInfo().Name)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		c.metrics.rereads.Inc()
	}
}
