package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// Bounds of a batch that FollowOptions leaves out, and of the pauses between
// two tries.
const (
	batchFrames   = 64
	batchBytes    = 1 << 20
	shortestRetry = 100 * time.Millisecond
	longestRetry  = 30 * time.Second
)

// FollowOptions say who follows, and from where.
type FollowOptions struct {
	// Name is under which the position is stored. Without a name there is no
	// position: the follower begins at From each time.
	Name string
	// From is the sequence of the first frame to deliver, whatever the stored
	// position: for followers that keep their position elsewhere. 0: after the
	// stored position, else the first frame there is.
	From uint64
	// Manual leaves the position to Log.Commit.
	Manual bool
	// MaxFrames and MaxBytes bound a batch; defaults 64 and 1 MiB. A batch has
	// at least one frame, whatever its size.
	MaxFrames int
	MaxBytes  int
}

// Follow delivers the log to accept, in order and without end, and returns nil
// when ctx ends. It is an error to follow twice under one name, and ErrClosed
// when the spool is closed.
//
// accept answers nil when it has taken the batch, and the position moves on;
// a *telemetry.Rejection when it has taken it but for the named records, which
// are kept as dead letters; a *DamagedFrame when a frame cannot be decoded,
// which is kept as a dead letter, and the rest of the batch is delivered again.
// After any other error the same batch is delivered again, after 0.1 s at first
// and 30 s at most. Its ctx ends with that of Follow. The batch is the
// follower's until it returns.
//
// Frames that are gone before they were read (bounds, a damaged disk) are
// counted, and a dead letter tells a follower with a name which.
func (l *Log[T]) Follow(ctx context.Context, o FollowOptions, accept func(context.Context, *Batch[T]) error) error {
	if part := l.core.spool.options.Part; o.Name != "" && part.shared() {
		return fmt.Errorf("follow the %s as %q: %s has no positions, any number may have it", l.core.name, o.Name, part)
	}
	ctx, cancel, err := l.core.spool.join(ctx, l.core.name, o.Name)
	if err != nil {
		return err
	}
	defer l.core.spool.leave(l.core.name, o.Name)
	f := &follower[T]{log: l, options: o, decode: l.codec.decoder(), metrics: l.core.metrics.follower(o.label())}
	if f.options.MaxFrames <= 0 {
		f.options.MaxFrames = batchFrames
	}
	if f.options.MaxBytes <= 0 {
		f.options.MaxBytes = batchBytes
	}
	from := f.begin()
	if o.Manual && o.Name != "" {
		l.core.spool.positions.begin(followerKey{l.core.name, o.Name}, from-1)
	}
	raws := make(chan raw, 16)
	var reader sync.WaitGroup
	reader.Go(func() { l.core.read(ctx, from, raws) })
	defer reader.Wait()
	defer cancel()
	if err := f.run(ctx, raws, accept); err != nil {
		return err
	}
	if taken := context.Cause(l.core.spool.deposed); errors.Is(taken, ErrTaken) {
		return fmt.Errorf("follow the %s: %w", l.core.name, taken)
	}
	return nil
}

func (o FollowOptions) label() string {
	if o.Name == "" {
		return "unnamed"
	}
	return o.Name
}

// join enters a follower; its context ends with the spool.
func (s *Spool) join(ctx context.Context, log, name string) (context.Context, context.CancelFunc, error) {
	s.followMu.Lock()
	defer s.followMu.Unlock()
	if s.serving.Err() != nil {
		return nil, nil, fmt.Errorf("follow the %s: %w", log, ErrClosed)
	}
	key := followerKey{log, name}
	if name != "" {
		if s.following[key] {
			return nil, nil, fmt.Errorf("follow the %s: %q follows them already", log, name)
		}
		s.following[key] = true
	}
	s.followers.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop, spare := context.AfterFunc(s.serving, cancel), context.AfterFunc(s.deposed, cancel)
	return ctx, func() { stop(); spare(); cancel() }, nil
}

func (s *Spool) leave(log, name string) {
	s.followMu.Lock()
	delete(s.following, followerKey{log, name})
	s.followMu.Unlock()
	s.followers.Done()
}

type follower[T any] struct {
	log     *Log[T]
	options FollowOptions
	decode  func(dst []T, lines []byte) ([]T, error)
	metrics followerMetrics

	expected uint64    // the next sequence when nothing is lost; 0: not known
	held     *raw      // read, but too much for the batch before
	failing  bool      // the last try failed
	since    time.Time // when it began to fail
}

// begin returns the sequence to begin at. A position behind the end of the log
// is that of frames a damaged disk has lost: the numbers are given again.
func (f *follower[T]) begin() uint64 {
	last := f.log.Last()
	if f.options.From > 0 {
		f.expected = min(f.options.From, last+1)
		return f.expected
	}
	if f.options.Name != "" {
		if at := f.log.core.spool.positions.get(followerKey{f.log.core.name, f.options.Name}); at.seq > 0 {
			f.expected = min(at.seq, last) + 1
			return f.expected
		}
	}
	return 1
}

func (f *follower[T]) run(ctx context.Context, raws <-chan raw, accept func(context.Context, *Batch[T]) error) error {
	for {
		batch, err := f.take(ctx, raws)
		if err != nil {
			return quiet(ctx, err)
		}
		last, received := batch.Last(), batch.Frames[len(batch.Frames)-1].Received
		if err := f.deliver(ctx, batch, accept); err != nil {
			return quiet(ctx, err)
		}
		key := followerKey{f.log.core.name, f.options.Name}
		switch {
		case f.options.Name == "":
		case f.options.Manual:
			f.log.core.spool.positions.take(key, last, received.UnixNano())
		default:
			f.log.core.spool.positions.move(key, last, received.UnixNano())
		}
	}
}

// quiet makes the end of ctx no error.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// take waits for a frame and adds what has come with it, within the bounds.
func (f *follower[T]) take(ctx context.Context, raws <-chan raw) (*Batch[T], error) {
	batch := &Batch[T]{}
	size := 0
	for {
		r, ok, err := f.next(ctx, raws, len(batch.Frames) == 0)
		if err != nil {
			return nil, err
		}
		if !ok {
			return batch, nil
		}
		if len(batch.Frames) > 0 && size+len(r.lines) > f.options.MaxBytes {
			f.held = &r
			return batch, nil
		}
		if r.gone && len(batch.Frames) > 0 {
			f.held = &r // the position may not pass the batch
			return batch, nil
		}
		if err := f.notice(ctx, &r); err != nil {
			return nil, err
		}
		if r.gone {
			f.pass(r.seq)
			continue
		}
		if r.err != nil {
			if err := f.setFrameAside(ctx, r.seq, r.lines, r.err); err != nil {
				return nil, err
			}
			continue
		}
		size += len(r.lines)
		batch.Frames = append(batch.Frames, Frame[T]{
			Seq: r.seq, Received: r.received, Lines: r.lines, Count: r.count, controls: r.controls, decode: f.decode,
			sources: r.sources, name: f.log.codec.sources,
		})
		if len(batch.Frames) >= f.options.MaxFrames {
			return batch, nil
		}
	}
}

func (f *follower[T]) next(ctx context.Context, raws <-chan raw, wait bool) (raw, bool, error) {
	if f.held != nil {
		r := *f.held
		f.held = nil
		return r, true, nil
	}
	if !wait {
		select {
		case r := <-raws:
			return r, true, nil
		default:
			return raw{}, false, nil
		}
	}
	select {
	case r := <-raws:
		return r, true, nil
	case <-ctx.Done():
		return raw{}, false, ctx.Err()
	}
}

// notice looks for a gap before the frame.
func (f *follower[T]) notice(ctx context.Context, r *raw) error {
	first, behind := f.expected, r.seq // behind the gap
	if r.gone {
		behind++
	}
	f.expected = r.seq + 1
	if first == 0 || behind <= first {
		return nil
	}
	n := behind - first
	f.metrics.dropped.Add(float64(n))
	if f.options.Name == "" {
		return nil // it reads again what others have been told of
	}
	return f.mention(ctx, telemetry.DeadLetter{
		Place:  fmt.Sprintf("%s %d-%d", f.log.core.name, first, behind-1),
		Reason: "gap",
		Detail: fmt.Sprintf("%d frames were gone before %s had read them", n, f.options.label()),
	})
}

// pass moves the position over frames that are gone.
func (f *follower[T]) pass(seq uint64) {
	key := followerKey{f.log.core.name, f.options.Name}
	switch {
	case f.options.Name == "":
	case f.options.Manual:
		f.log.core.spool.positions.take(key, seq, 0)
	default:
		f.log.core.spool.positions.move(key, seq, 0)
	}
}

// deliver gives the batch to accept until it is taken.
func (f *follower[T]) deliver(ctx context.Context, batch *Batch[T], accept func(context.Context, *Batch[T]) error) error {
	for tries := 0; ; tries++ {
		err := accept(ctx, batch)
		var damaged *DamagedFrame
		var rejection *telemetry.Rejection
		switch {
		case err == nil:
		case errors.As(err, &damaged):
			rest, frame := batch.without(damaged.Seq)
			if frame == nil {
				break // not one of ours: as any other error
			}
			if err := f.setFrameAside(ctx, frame.Seq, frame.Lines, damaged.Err); err != nil {
				return err
			}
			if batch = rest; len(batch.Frames) == 0 {
				return nil
			}
			continue
		case errors.As(err, &rejection):
			err = f.setRecordsAside(ctx, batch, rejection)
		}
		if err == nil {
			f.recovered()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.metrics.retries.Inc()
		f.failed(err)
		if !sleep(ctx, backoff(tries)) {
			return ctx.Err()
		}
	}
}

// failed and recovered log the change and not each try.
func (f *follower[T]) failed(err error) {
	if f.failing {
		return
	}
	f.failing, f.since = true, time.Now()
	f.log.core.spool.logger.Warn("a follower does not accept; the log waits", "follower", f.options.label(), "log", f.log.core.name, "error", err)
}

func (f *follower[T]) recovered() {
	if !f.failing {
		return
	}
	f.failing = false
	f.log.core.spool.logger.Info("a follower accepts again", "follower", f.options.label(), "log", f.log.core.name, "after", time.Since(f.since).Round(time.Millisecond))
}

// backoff doubles from 0.1 s to 30 s, the last quarter by chance, so that
// followers that failed together do not come back together.
func backoff(tries int) time.Duration {
	d := min(shortestRetry<<min(tries, 20), longestRetry)
	return d - rand.N(d/4)
}

func (f *follower[T]) setRecordsAside(ctx context.Context, batch *Batch[T], r *telemetry.Rejection) error {
	letters := make([]telemetry.DeadLetter, 0, len(r.Records))
	for _, record := range r.Records {
		line, seq := batch.line(record.Index)
		d := telemetry.DeadLetter{
			Place:  fmt.Sprintf("%s %d", f.log.core.name, seq),
			Reason: record.Reason, Detail: record.Detail, Bytes: line,
		}
		if records, err := f.decode(nil, line); err == nil && len(records) == 1 {
			d.Device = f.log.codec.device(&records[0])
		}
		letters = append(letters, d)
	}
	return f.setAside(ctx, letters)
}

func (f *follower[T]) setFrameAside(ctx context.Context, seq uint64, lines []byte, why error) error {
	return f.mention(ctx, telemetry.DeadLetter{
		Place:  fmt.Sprintf("%s %d", f.log.core.name, seq),
		Reason: "undecodable", Detail: why.Error(), Bytes: lines,
	})
}

// mentionTries is how often a dead letter is tried before the follower goes on
// without it: when the disk is full is just when frames go unread, and readings
// that can be used must not wait for what cannot.
const mentionTries = 5

// mention sets aside what is lost already: if the letter cannot be kept, the log
// of the program says it.
func (f *follower[T]) mention(ctx context.Context, letter telemetry.DeadLetter) error {
	for tries := 0; ; tries++ {
		err := f.setAside(ctx, []telemetry.DeadLetter{letter})
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if tries == mentionTries {
			f.log.core.spool.logger.Error("a dead letter cannot be kept", "place", letter.Place, "reason", letter.Reason, "detail", letter.Detail, "error", err)
			return nil
		}
		if !sleep(ctx, backoff(tries)) {
			return ctx.Err()
		}
	}
}

// setAside keeps the letters before the position may move. Those of the dead
// letters themselves are only counted.
func (f *follower[T]) setAside(ctx context.Context, letters []telemetry.DeadLetter) error {
	s := f.log.core.spool
	for i := range letters {
		letters[i].At = s.options.Now()
		letters[i].Source = f.options.label()
		letters[i] = letters[i].Trim()
	}
	if f.log.core != s.letters.core {
		if err := s.letters.Append(ctx, letters); err != nil {
			return fmt.Errorf("set aside for %s: %w", f.options.label(), err)
		}
	}
	for i := range letters {
		s.metrics.deadLetter(f.log.core.name, f.options.label(), letters[i].Reason)
	}
	return nil
}
