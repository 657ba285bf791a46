package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A cursor reads from one replica. Just after a server came back, that one may
// lie behind the others, or have lost what they have. So what a cursor in a
// cluster does not show is asked for from the stream's leader, before anybody is
// told that it is gone.

// pulls are the options of reading with a cursor.
func (c *core) pulls() []jetstream.PullMessagesOpt {
	return []jetstream.PullMessagesOpt{
		jetstream.PullMaxMessagesWithBytesLimit(aheadFrames, aheadBytes),
		jetstream.PullHeartbeat(heartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true),
	}
}

var errBehind = errors.New("the replica that is read from lies behind")

// refill hands over the frames from the sequence from on and before end, as the
// leader has them, and returns the sequence to go on from.
func (c *core) refill(ctx context.Context, link *link, from, end uint64, to chan<- raw) (uint64, error) {
	for from < end {
		m, err := c.ask(ctx, link, from)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return from, nil
		}
		if err != nil {
			return from, fmt.Errorf("read the %s from %d: %w", c.name, from, err)
		}
		if m.Sequence >= end {
			return from, nil
		}
		r := raw{seq: m.Sequence, lines: m.Data}
		if r.frameHead, r.err = parseHead(m.Header); r.err != nil {
			r.received = m.Time
		}
		if _, err := hand(ctx, r, to); err != nil {
			return from, err
		}
		from = m.Sequence + 1
	}
	return from, nil
}

// ask returns the first frame from a sequence on.
func (c *core) ask(ctx context.Context, link *link, from uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	stream, err := link.follow.Stream(ctx, c.stream)
	if err != nil {
		return nil, err
	}
	return stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(c.subject))
}

// endGone is called when a cursor has nothing from the sequence from on, though
// there was a frame end. In a cluster it looks whether that is true.
func (c *core) endGone(ctx context.Context, link *link, from, end uint64, to chan<- raw) (uint64, error) {
	if c.spool.cluster == nil {
		return c.tellGone(ctx, from, end, to)
	}
	from, err := c.refill(ctx, link, from, end+1, to)
	if err != nil || from > end {
		return from, err
	}
	last, err := c.lastSeq(ctx, link)
	if err != nil {
		return from, err
	}
	if last < end {
		return from, fmt.Errorf("read the %s from %d: %w", c.name, from, errBehind)
	}
	return c.tellGone(ctx, from, end, to)
}

func (c *core) lastSeq(ctx context.Context, link *link) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	stream, err := link.follow.Stream(ctx, c.stream)
	if err != nil {
		return 0, fmt.Errorf("ask where the %s end: %w", c.name, err)
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// sameLog reports whether a new cursor reads from the log that this gateway owns.
func (s *Spool) sameLog(ctx context.Context, link *link, stream string) error {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.known.matchesStream(ctx, link.follow, stream)
}

// saw notes a frame that was read, and how many come behind it. In a cluster
// others write as well, and one of ours may be there of which no answer came.
func (c *core) saw(r *raw, pending uint64) {
	if c.spool.cluster == nil {
		return
	}
	raise(&c.last, r.seq+pending)
	if r.err == nil {
		raise(&c.lastReceived, r.received.UnixNano())
	}
}

// learn notes what the others of a shared log have made of it: where it ends, and
// whether it is full for them. One that is led is not broken, even if nobody
// appends who would find that out.
func (c *core) learn(state jetstream.StreamState) {
	part := c.spool.options.Part
	if c.spool.cluster == nil || part == (Part{}) {
		return
	}
	raise(&c.last, state.LastSeq)
	if !state.LastTime.IsZero() {
		raise(&c.newestAt, state.LastTime.UnixNano())
	}
	config := c.streamConfig()
	full := config.Discard == jetstream.DiscardNew && int64(state.Bytes)+smallestPayload > config.MaxBytes
	if c.full.Swap(full) != full && full {
		c.spool.room.kick() // what is given free now is emptied at once
	}
	if part.Role == RoleIngest {
		c.broken.Store(false)
	}
}

// moveLast notes our newest frame. In a cluster a follower may have seen more.
func (c *core) moveLast(seq uint64) {
	if c.spool.cluster == nil {
		c.last.Store(seq)
		return
	}
	raise(&c.last, seq)
}

// moveReceived notes the receipt time of our newest frame, which in a cluster need
// not be the newest.
func (c *core) moveReceived(at time.Time) {
	if c.spool.cluster == nil {
		c.lastReceived.Store(at.UnixNano())
		return
	}
	raise(&c.lastReceived, at.UnixNano())
}

// An atomicNumber is an atomic.Uint64 or an atomic.Int64.
type atomicNumber[T uint64 | int64] interface {
	Load() T
	CompareAndSwap(old, new T) bool
}

// raise makes a number at least n.
func raise[T uint64 | int64](a atomicNumber[T], n T) {
	for {
		old := a.Load()
		if old >= n || a.CompareAndSwap(old, n) {
			return
		}
	}
}

// tryShared writes a frame to the cluster and waits until a majority has it. It
// may be asked for the same frame again: the frame's id keeps it from being
// stored twice. An answer counts only when it came from the log that this gateway
// owns, over a connection that was not lost since it looked.
func (c *core) tryShared(ctx context.Context, link *link, f *pending) error {
	if err := c.spool.trust(ctx, link); err != nil {
		return err
	}
	m := c.message(f)
	options := []jetstream.PublishOpt{jetstream.WithMsgID(f.id), jetstream.WithExpectStream(c.stream), jetstream.WithRetryAttempts(0)}
	if c.exclusive() {
		options = append(options, jetstream.WithExpectLastSequence(f.seq-1))
	}
	ack, err := link.append.PublishMsg(ctx, m, options...)
	if err != nil {
		return err
	}
	if err := c.spool.trust(ctx, link); err != nil {
		return err
	}
	if f.once != "" && ack.Duplicate {
		return &ThereError{Seq: ack.Sequence}
	}
	if ack.Sequence <= c.acked {
		c.spool.cluster.doubt()
		return fmt.Errorf("the log gave sequence %d after %d: it is not the one that it was", ack.Sequence, c.acked)
	}
	c.acked, f.seq = ack.Sequence, ack.Sequence
	return nil
}

// exclusive reports whether only the owner appends to a log, so that a frame of
// anybody else shows that we are the owner no more.
func (c *core) exclusive() bool { return c.spool.cluster != nil && c.kind == logWarnings }

// alignShared is align in a cluster: what has come behind our last frame is ours,
// of a write whose answer was lost, or of an earlier owner, who slept in the middle
// of a write. If it is the frame itself, it is written.
func (c *core) alignShared(ctx context.Context, link *link, f *pending) error {
	last, err := c.lastSeq(ctx, link)
	if err != nil {
		return err
	}
	for seq := c.acked + 1; seq <= last; seq++ {
		m, err := c.ask(ctx, link, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if m.Header.Get(jetstream.MsgIDHeader) == f.id && bytes.Equal(m.Data, f.lines) {
			c.acked, f.seq = m.Sequence, m.Sequence
			return nil
		}
		if !strings.HasPrefix(m.Header.Get(jetstream.MsgIDHeader), c.instance+".") {
			// Nobody but the owner writes here, and what an earlier one has written
			// since we read the log is not in what we made of it.
			owner := c.spool.cluster.owner
			if err := owner.renew(ctx); err != nil { // asks the cluster whether we are the owner
				return err
			}
			return owner.resign(fmt.Sprintf("frame %d of the %s is of an earlier one, written late; this one has to read them anew", m.Sequence, c.name))
		}
		seq = m.Sequence
	}
	f.seq = last + 1
	return errWrongSequence
}
