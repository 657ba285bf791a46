package spool

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"
)

// A core is one log without the type of its records: the queue, the committer
// and what is known of its stream.
type core struct {
	place
	spool   *Spool
	metrics logMetrics

	capacity *semaphore.Weighted // MaxQueueBytes
	queued   atomic.Int64        // bytes taken of it

	mu     sync.Mutex
	queue  []*pending // frames that are filled or wait for the committer
	closed bool
	wake   chan struct{} // capacity 1: the queue has something, or closed

	// The committer's own.
	clock    logClock
	instance string // of message ids, in a cluster
	sent     uint64 // message ids given
	acked    uint64 // sequence of our newest frame, in a cluster; of the warnings the one behind which we write

	finished     chan settled
	last         atomic.Uint64 // newest frame on disk
	lastReceived atomic.Int64  // its receipt time, Unix ns
	newestAt     atomic.Int64  // when the cluster got the newest frame of anybody, Unix ns; set by room for a part
	broken       atomic.Bool   // the last frame could not be written
	full         atomic.Bool   // the last frame was refused for want of room
	lowDisk      atomic.Bool   // set by room: refuse before the disk is full
	storedBytes  atomic.Int64  // set by room
}

// A pending is a frame on its way to the disk.
type pending struct {
	lines    []byte
	count    int // lines
	controls int // lines of the log's own kinds
	runs     []run
	tickets  []ticket
	born     time.Time // when its first record came
	at       time.Time // receipt time that AppendAt gave; zero: the clock's
	once     string    // the id that AppendOnce gave: nothing else is in the frame

	seq      uint64 // its place; a guess until it is on disk
	received time.Time
	header   string
	sources  string // header
	id       string // in a cluster
}

// A ticket is what is owed to one caller of AppendAsync.
type ticket struct {
	done   func(error)
	err    error  // known from the start
	weight int64  // of the queue's capacity
	whole  *whole // when it was split over frames
}

// A whole is a call whose records were split over frames: its last piece
// carries done.
type whole struct{ err error }

type settled struct {
	frame *pending
	err   error
}

func newCore(s *Spool, at place) *core {
	return &core{
		place: at, spool: s,
		metrics:  s.metrics.of(at.name),
		capacity: semaphore.NewWeighted(MaxQueueBytes),
		instance: rand.Text(),
		wake:     make(chan struct{}, 1),
		finished: make(chan settled, 16),
	}
}

// enqueue puts lines behind those that are queued, in frames of that receipt
// time (zero: the clock's); with once in a frame of their own of that id. It copies
// them.
func (c *core) enqueue(ctx context.Context, at time.Time, once string, lines []byte, runs []run, count, controls int, done func(error)) {
	if c.lowDisk.Load() {
		c.metrics.refusedDisk.Add(float64(count))
		c.refuse(c.diskFull(), done)
		return
	}
	weight := int64(min(len(lines), MaxQueueBytes))
	if err := c.capacity.Acquire(ctx, weight); err != nil {
		c.refuse(fmt.Errorf("append to the %s: %w", c.name, err), done)
		return
	}
	c.queued.Add(weight)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.queued.Add(-weight)
		c.capacity.Release(weight)
		go done(ErrClosed)
		return
	}
	last := ticket{done: done, weight: weight}
	if len(lines) > MaxFrameBytes {
		last.whole = &whole{}
	}
	for {
		head, tail, n := lines, lines[len(lines):], count
		if last.whole != nil {
			head, tail, n = cutLines(lines, MaxFrameBytes)
		}
		f := c.tail(len(head), at, once)
		f.lines = append(f.lines, head...)
		f.count += n
		f.runs, runs = takeRuns(f.runs, runs, n)
		if len(tail) == 0 {
			f.controls += controls
			f.tickets = append(f.tickets, last)
			break
		}
		// Which piece holds the control lines is not known: counting them in
		// each only costs a look at its lines.
		f.controls += min(controls, n)
		f.tickets = append(f.tickets, ticket{whole: last.whole})
		lines, count = tail, count-n
	}
	c.mu.Unlock()
	c.kick()
}

func (c *core) diskFull() error {
	return fmt.Errorf("append to the %s: %w: the disk of %s is nearly full", c.name, ErrFull, c.spool.options.Dir)
}

// refuse calls done with err after the callbacks of what is queued already.
func (c *core) refuse(err error, done func(error)) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		f := c.tail(0, time.Time{}, "")
		f.tickets = append(f.tickets, ticket{done: done, err: err})
	}
	c.mu.Unlock()
	if closed {
		go done(err)
		return
	}
	c.kick()
}

// tail returns the frame of the queue that takes n more bytes of that receipt
// time; any frame takes none, and one with an id no others. c.mu is held.
func (c *core) tail(n int, at time.Time, once string) *pending {
	if len(c.queue) > 0 {
		f := c.queue[len(c.queue)-1]
		if n == 0 || once == "" && f.once == "" && len(f.lines)+n <= MaxFrameBytes && f.at.Equal(at) {
			return f
		}
	}
	f := &pending{born: time.Now(), at: at, once: once}
	c.queue = append(c.queue, f)
	return f
}

func (c *core) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *core) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.kick()
}

// pop takes the first frame of the queue; ended says that none will come.
func (c *core) pop() (f *pending, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return nil, c.closed
	}
	f = c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	return f, false
}

// commit is the committer: it writes one frame after the other, in order, until
// the log is closed and the queue is empty. What comes while a frame is written
// goes into the next one. A second frame on its way at the same time was
// measured: it halves the frames of producers that wait for each record, which
// costs them up to 40 %, and brings nothing to those that do not wait.
func (c *core) commit() {
	defer close(c.finished)
	for {
		c.pace()
		f, ended := c.pop()
		switch {
		case f != nil:
			c.finish(f, c.write(f))
		case ended:
			return
		default:
			<-c.wake
		}
	}
}

// stamp closes the frame.
func (c *core) stamp(f *pending) {
	f.seq = c.last.Load() + 1
	if c.exclusive() {
		f.seq = c.acked + 1 // a follower may have seen what somebody else has written
	}
	if f.at.IsZero() {
		now := c.spool.options.Now()
		if c.spool.options.Part != (Part{}) {
			c.clock.behind(time.Unix(0, c.lastReceived.Load()), now)
		}
		f.received = c.clock.now(now)
	} else {
		f.received = c.clock.given(f.at)
	}
	f.sources = writeRuns(f.runs)
	f.header = fmt.Sprintf("%d %d %d %d", frameVersion, f.received.UnixNano(), f.count, f.controls)
	if c.spool.config.URL != "" {
		c.sent++
		f.id = cmp.Or(f.once, fmt.Sprintf("%s.%d", c.instance, c.sent))
	}
}

func (c *core) message(f *pending) *nats.Msg {
	m := &nats.Msg{Subject: c.subject, Data: f.lines, Header: nats.Header{frameHeader: []string{f.header}}}
	if f.sources != "" {
		m.Header[sourcesHeader] = []string{f.sources}
	}
	return m
}

// Patience of write.
const (
	writePatience = 30 * time.Second
	firstPause    = 50 * time.Millisecond
	longestPause  = 2 * time.Second
)

// write writes one frame, and tries again until it is on disk, refused, or
// patience ends.
func (c *core) write(f *pending) error {
	if f.count == 0 {
		return nil
	}
	c.stamp(f)
	patience := writePatience
	if c.broken.Load() {
		patience = askPatience
	}
	give := time.Now().Add(patience)
	pause := firstPause
	for tries := 0; ; tries++ {
		err := c.try(f, tries)
		if isWrongSequence(err) {
			err = c.align(f)
		}
		if err == nil {
			c.broken.Store(false)
			return nil
		}
		if there := (*ThereError)(nil); errors.As(err, &there) {
			c.broken.Store(false)
			return fmt.Errorf("append to the %s: %w", c.name, err)
		}
		if c.lowDisk.Load() {
			c.metrics.refusedDisk.Add(float64(f.count))
			return c.diskFull()
		}
		if isFull(err) {
			c.metrics.refusedFull.Add(float64(f.count))
			c.full.Store(true)
			c.spool.room.kick()
			return fmt.Errorf("append to the %s: %w: %s on disk", c.name, ErrFull, c.spool.bound(c))
		}
		if c.spool.deposed.Err() != nil {
			give = time.Time{} // another gateway has the log: there is nothing to wait for
		}
		if err != errWrongSequence && !sleep(c.spool.life, pause) || time.Now().After(give) {
			c.broken.Store(true)
			c.metrics.refusedUnavailable.Add(float64(f.count))
			return fmt.Errorf("append to the %s: %w: %w", c.name, ErrUnavailable, err)
		}
		if err != errWrongSequence {
			pause = min(2*pause, longestPause)
		}
	}
}

// try writes the frame and waits. A connection that fails is replaced; a log
// that does not answer is given a second chance first: a slow disk is no fault.
func (c *core) try(f *pending, tries int) error {
	ctx, cancel := context.WithTimeout(c.spool.life, askPatience)
	defer cancel()
	link := c.spool.current()
	if link.sound.Err() != nil {
		c.spool.heal(c.spool.life, link)
		if link = c.spool.current(); link.sound.Err() != nil {
			return errUnsound
		}
	}
	defer context.AfterFunc(link.sound, cancel)()
	if c.spool.cluster != nil {
		return c.tryShared(ctx, link, f)
	}
	c.spool.writing.RLock()
	// The sequence that it must get keeps it from being stored twice or out of order.
	ack, err := link.append.PublishMsg(ctx, c.message(f), jetstream.WithExpectLastSequence(f.seq-1))
	c.spool.writing.RUnlock()
	if err == nil {
		f.seq = ack.Sequence
		return nil
	}
	if isBroken(err) && (tries > 0 || link.sound.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
		c.spool.heal(c.spool.life, link)
	}
	return err
}

// align is called when JetStream expects another sequence than the frame's. It
// returns nil when the frame is on disk already; else it gives the frame the
// sequence that is next and returns errWrongSequence, or why it cannot.
func (c *core) align(f *pending) error {
	ctx, cancel := context.WithTimeout(c.spool.life, askPatience)
	defer cancel()
	link := c.spool.current()
	if c.spool.cluster != nil {
		return c.alignShared(ctx, link, f)
	}
	stream, err := link.append.Stream(ctx, c.stream)
	if err != nil {
		return err
	}
	last := stream.CachedInfo().State.LastSeq
	if last >= f.seq {
		m, err := stream.GetMsg(ctx, f.seq)
		switch {
		case err == nil && m.Header.Get(frameHeader) == f.header && bytes.Equal(m.Data, f.lines):
			return nil
		case err != nil && !errors.Is(err, jetstream.ErrMsgNotFound):
			return err
		}
	}
	f.seq = last + 1
	return errWrongSequence
}

// errUnsound says that a write failed and the log must be opened again.
var errUnsound = errors.New("a write to the disk failed")

var errWrongSequence = errors.New("the log expects another sequence")

func isWrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, errWrongSequence) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// isFull tells the refusals for want of room: "maximum bytes exceeded" of the
// stream (10077), and the limits of an account in a cluster (10002, 10023, 10047).
func isFull(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case 10077:
		return strings.HasPrefix(api.Description, "maximum ")
	case 10002, 10023, 10047:
		return true
	}
	return false
}

// isBroken tells the errors after which JetStream may have to be restarted.
func isBroken(err error) bool {
	var api *jetstream.APIError
	return !errors.As(err, &api)
}

// finish hands the frame's outcome to the completer.
func (c *core) finish(f *pending, err error) {
	if err == nil && f.count > 0 {
		c.noteEnd(f)
		c.moveLast(f.seq)
		c.moveReceived(f.received)
		c.full.Store(false)
		c.metrics.frames.Inc()
		c.metrics.records.Add(float64(f.count))
		c.metrics.bytes.Add(float64(len(f.lines)))
		c.metrics.seconds.Observe(time.Since(f.born).Seconds())
	}
	c.finished <- settled{frame: f, err: err}
}

// noteEnd notes that the frame is on disk; see ends.
func (c *core) noteEnd(f *pending) {
	if c.spool.ends == nil {
		return
	}
	c.spool.ends.note(c.name, func(e end) end {
		e.last, e.received = f.seq, f.received.UnixNano()
		if e.first == 0 {
			e.first = f.seq
		}
		return e
	})
}

// complete calls the producers back, so that the committer can go on.
func (c *core) complete() {
	for s := range c.finished {
		for i := range s.frame.tickets {
			t := &s.frame.tickets[i]
			err := t.err
			if err == nil {
				err = s.err
			}
			if t.whole != nil {
				if t.whole.err == nil {
					t.whole.err = err
				}
				err = t.whole.err
			}
			if t.weight > 0 {
				c.queued.Add(-t.weight)
				c.capacity.Release(t.weight)
			}
			if t.done != nil {
				t.done(err)
			}
		}
	}
}

// sleep waits; it returns false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
