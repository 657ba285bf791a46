package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// LastReceived returns the receipt time of the newest frame on disk, zero
// before the first.
func (l *Log[T]) LastReceived() time.Time {
	ns := l.core.lastReceived.Load()
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// Replay calls each with every record that is on disk now, in order. Frames
// that cannot be decoded are passed over and counted as Follow counts them.
func (l *Log[T]) Replay(ctx context.Context, each func(T)) error {
	last, err := l.core.newest(ctx)
	if err != nil || last == 0 {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	read := uint64(0)
	err = l.Follow(ctx, FollowOptions{From: 1}, func(_ context.Context, b *Batch[T]) error {
		for i := range b.Frames {
			if b.Frames[i].Seq <= read || b.Frames[i].Seq > last {
				continue
			}
			records, err := b.Frames[i].Records()
			read = b.Frames[i].Seq
			if err != nil && read == last {
				stop() // nothing comes behind it
			}
			if err != nil {
				return err
			}
			for _, r := range records {
				each(r)
			}
		}
		if b.Last() >= last {
			stop()
		}
		return nil
	})
	if read < last && err == nil {
		err = fmt.Errorf("read the %s: ended at frame %d of %d: %w", l.core.name, read, last, context.Cause(ctx))
	}
	return err
}

// End returns the sequence of the newest frame that is there, 0 when there is none. It
// asks: Last may be some seconds old where other machines append.
func (l *Log[T]) End(ctx context.Context) (uint64, error) { return l.core.newest(ctx) }

// newest returns the sequence of the newest frame that is there, 0 when there
// is none: all may have gone by their age.
func (c *core) newest(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	stream, err := c.spool.current().append.Stream(ctx, c.stream)
	if err != nil {
		return 0, fmt.Errorf("ask for the newest of the %s: %w", c.name, err)
	}
	state := stream.CachedInfo().State
	last, err := c.lastThere(ctx, stream)
	if err != nil || last == 0 {
		return 0, err
	}
	// After a torn tail JetStream counts frames that it cannot read any more.
	for seq := last; seq >= max(state.FirstSeq, 1); seq-- {
		m, err := stream.GetMsg(ctx, seq)
		if err == nil {
			if _, err := parseHead(m.Header); err == nil {
				return seq, nil
			}
			continue // Follow passes over it
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return 0, fmt.Errorf("read frame %d of the %s: %w", seq, c.name, err)
		}
	}
	return 0, nil
}

// lastThere returns the sequence of the newest frame that the stream has, 0 when it
// has none. Its last sequence may be that of a frame that is lost, and so may be
// thousands before it.
func (c *core) lastThere(ctx context.Context, stream jetstream.Stream) (uint64, error) {
	m, err := stream.GetLastMsgForSubject(ctx, c.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the newest of the %s: %w", c.name, err)
	}
	return m.Sequence, nil
}

// Newest returns up to limit records, the newest first. It is for people: it
// asks for frame by frame.
func (l *Log[T]) Newest(ctx context.Context, limit int) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	stream, err := l.core.spool.current().append.Stream(ctx, l.core.stream)
	if err != nil {
		return nil, fmt.Errorf("ask for the newest of the %s: %w", l.core.name, err)
	}
	state := stream.CachedInfo().State
	last, err := l.core.lastThere(ctx, stream)
	if err != nil {
		return nil, err
	}
	decode := l.codec.decoder()
	var out []T
	for seq := last; seq >= max(state.FirstSeq, 1) && len(out) < limit; seq-- {
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read frame %d of the %s: %w", seq, l.core.name, err)
		}
		records, err := decode(nil, m.Data)
		if err != nil {
			continue // Follow sets it aside
		}
		for i := len(records) - 1; i >= 0 && len(out) < limit; i-- {
			out = append(out, records[i])
		}
	}
	return out, nil
}

// Flush returns when everything that was appended before the call is on disk or
// was refused, or with ctx's error.
func (s *Spool) Flush(ctx context.Context) error {
	for _, c := range s.cores() {
		settled := make(chan struct{})
		c.refuse(nil, func(error) { close(settled) })
		select {
		case <-settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
