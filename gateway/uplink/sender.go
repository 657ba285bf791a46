package uplink

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// A Frame is what a log has written at once.
type Frame struct {
	Seq      uint64
	Received time.Time
	Lines    []byte // not to be changed
}

// A Log is one of the gateway's logs, with the place of the uplink in it.
type Log struct {
	// Follow delivers the frames from a sequence on until ctx ends. A batch is
	// delivered again while accept fails.
	Follow func(ctx context.Context, from uint64, accept func(context.Context, []Frame) error) error
	// Last is the sequence of the newest frame.
	Last func() uint64
	// Position is up to where the centre has everything, as Commit was told.
	Position func() uint64
	Commit   func(ctx context.Context, seq uint64) error
}

// Options are what a Sender needs.
type Options struct {
	Config  Config
	Gateway string // its name
	// Readings and Warnings are the logs.
	Readings, Warnings Log
	// Lasting returns the warnings that are not cleared.
	Lasting func() []telemetry.Transition
	// Load and Save keep a small text with the logs: what has a new log has none.
	Load func(ctx context.Context) ([]byte, error)
	Save func(ctx context.Context, text []byte) error
	// State is how the gateway is; the Sender fills in what it knows itself.
	State func() State

	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// A Sender pushes to the centre. There is one for a gateway.
type Sender struct {
	o       Options
	line    *line
	press   *press
	metrics *sending

	mu    sync.Mutex
	epoch epoch
	total float64   // readings at the hello before
	at    time.Time // of it

	opened uint64 // the last reading when the log was opened
	begun  bool   // the centre has said where it is since then; of the readings' goroutine

	acked atomic.Int64 // receipt time of the newest readings that the centre has, Unix ns
}

// An epoch names the log, and what it was called before its end was lost.
type epoch struct {
	Epoch string `json:"epoch"`
	Was   string `json:"was,omitempty"`
}

// NewSender makes a sender; Close gives back what it holds.
func NewSender(o Options) (*Sender, error) {
	s := &Sender{o: o, metrics: newSending(o.Registerer), opened: o.Readings.Last()}
	var err error
	if s.press, err = newPress(); err != nil {
		return nil, err
	}
	account := o.Config.Account
	if account == "" {
		account = o.Gateway
	}
	if s.line, err = newLine(o.Config, account, s.press, s.metrics, o.Logger); err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	s.line.hello = s.greeting
	return s, nil
}

// Close frees memory; it is called after Run.
func (s *Sender) Close() error {
	s.press.close()
	return nil
}

// Connected reports whether the centre answers, its name, and what was told last of
// why it does not.
func (s *Sender) Connected() (up bool, centre, why string) {
	s.line.mu.Lock()
	defer s.line.mu.Unlock()
	return s.line.period != nil, s.line.welcome.Gateway, s.line.why
}

// Run pushes until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		err := s.open(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		s.o.Logger.Error("the name of the log cannot be kept, nothing is pushed; trying again", "error", err)
		if !sleep(ctx, pause) {
			return nil
		}
	}
	s.acked.Store(time.Now().UnixNano())
	var parts sync.WaitGroup
	parts.Go(func() { s.line.keep(ctx) })
	parts.Go(func() { s.push(ctx, s.readings) })
	parts.Go(func() { s.push(ctx, s.warnings) })
	parts.Wait()
	return nil
}

// open reads the name of the log, or gives it one: when it is new, and when it ends
// before what the centre has.
func (s *Sender) open(ctx context.Context) error {
	text, err := s.o.Load(ctx)
	if err != nil {
		s.o.Logger.Error("the name of the log cannot be read; it gets another", "error", err)
		text = nil
	}
	var e epoch
	if json.Unmarshal(text, &e) != nil || e.Epoch == "" || s.o.Readings.Position() > s.o.Readings.Last() {
		return s.rename(ctx, e.Epoch)
	}
	s.mu.Lock()
	s.epoch = e
	s.mu.Unlock()
	return nil
}

// rename gives the log another name: its numbers do not mean any more what they did.
func (s *Sender) rename(ctx context.Context, was string) error {
	e := epoch{Epoch: strings.ToLower(rand.Text())[:16], Was: was}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := s.o.Save(ctx, text); err != nil {
		return fmt.Errorf("keep the name of the log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = e
	return nil
}

func (s *Sender) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch.Epoch
}

// greeting is the next hello.
func (s *Sender) greeting(_ context.Context, beat bool) (Hello, error) {
	now := time.Now()
	state := s.o.State()
	lag := func(l *Log) uint64 { last := l.Last(); return last - min(last, l.Position()) }
	state.LagFrames, state.WarningsLag = float64(lag(&s.o.Readings)), float64(lag(&s.o.Warnings))
	if state.LagFrames > 0 {
		state.LagSeconds = max(0, now.Sub(time.Unix(0, s.acked.Load())).Seconds())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if passed := now.Sub(s.at).Seconds(); !s.at.IsZero() && passed > 0 {
		state.ReadingsPerS = max(0, state.Accepted-s.total) / passed
	}
	if beat {
		s.total, s.at = state.Accepted, now
	}
	return Hello{Gateway: s.o.Gateway, Epoch: s.epoch.Epoch, Was: s.epoch.Was, Now: now.UTC(), Beat: beat, State: state}, nil
}

// push does one log's work whenever the line is up, until ctx ends.
func (s *Sender) push(ctx context.Context, work func(context.Context, Welcome) error) {
	for ctx.Err() == nil {
		up, done, welcome, err := s.line.await(ctx)
		if err != nil {
			return
		}
		err = work(up, welcome)
		gone := up.Err() != nil
		done()
		if err != nil && !gone {
			s.line.complain(err)
			if !sleep(ctx, shortest) {
				return
			}
			s.line.refresh(ctx)
		}
	}
}

// Pauses before a request is tried again.
const (
	shortest = 200 * time.Millisecond
	longest  = 5 * time.Second
)

// deliver sends a parcel until it is taken, the line is down, or the place is wrong.
func (s *Sender) deliver(ctx context.Context, log string, head *parcel, rest []byte) error {
	for pause := shortest; ; pause = min(2*pause, longest) {
		err := s.line.send(ctx, log, head, rest)
		if err == nil {
			s.line.content()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var refused *refusal
		if errors.As(err, &refused) && refused.status == http.StatusConflict {
			return err
		}
		if refused == nil || refused.passes() {
			s.line.ask() // is it still there? That is asked each second
		} else {
			s.line.complain(err)
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// follow follows a log until ctx ends or accept fails, and returns why it did.
func follow(ctx context.Context, l *Log, from uint64, accept func(context.Context, []Frame) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	err := l.Follow(ctx, from, func(ctx context.Context, frames []Frame) error {
		if failed != nil {
			return failed
		}
		if failed = accept(ctx, frames); failed != nil {
			cancel()
		}
		return failed
	})
	if failed != nil {
		return failed
	}
	return err
}

// readings pushes the readings from where the centre is.
func (s *Sender) readings(ctx context.Context, w Welcome) error {
	log := &s.o.Readings
	b := &batcher{s: s, limit: s.parcelBytes()}
	from, end := log.Position()+1, log.Last()
	if !s.begun {
		end = s.opened // what came since may have the numbers of what was lost
	}
	switch {
	case w.Readings == nil:
		if w.Was != nil {
			b.after = w.Was.Received
		}
	case w.Readings.Seq > end:
		s.o.Logger.Error("the log ends before what the centre has of it, as one that was restored; it is pushed under another name", "last", end, "centre", w.Readings.Seq)
		if err := s.rename(ctx, s.name()); err != nil {
			return err
		}
		s.line.refresh(ctx)
		return nil
	default:
		b.at = *w.Readings
		s.acked.Store(b.at.Received)
		from = max(from, b.at.next())
		// Its answer may have been lost: no frame need come after it.
		if done := b.at.next() - 1; done > log.Position() {
			if err := log.Commit(ctx, done); err != nil {
				return err
			}
		}
	}
	s.begun = true
	b.expected = from
	return follow(ctx, log, from, b.take)
}

// parcelBytes is how many lines go into one request: some seconds of the rate.
func (s *Sender) parcelBytes() int {
	if s.o.Config.MaxRate == 0 {
		return maxParcel
	}
	const seconds, ratio = 4, 5 // packed lines are smaller than that
	return min(maxParcel, max(16<<10, int(s.o.Config.MaxRate)*seconds*ratio))
}

// A batcher makes parcels of the frames of the readings log.
type batcher struct {
	s        *Sender
	limit    int
	at       Position // that the centre has
	expected uint64   // next frame
	after    int64    // frames that were received up to here it has under another name

	body    []byte
	to      Position
	lost    uint64
	records int
}

// take pushes a batch of frames.
func (b *batcher) take(ctx context.Context, frames []Frame) error {
	for i := range frames {
		f := &frames[i]
		if f.Seq < b.expected {
			continue // pushed before the rest of the batch failed
		}
		if gone := f.Seq - b.expected; gone > 0 {
			b.lost += gone
			b.s.metrics.lost[logReadings].Add(float64(gone))
		}
		b.expected = f.Seq + 1
		received := f.Received.UnixNano()
		if received > b.after {
			if err := b.add(ctx, f, received); err != nil {
				return err
			}
		}
		b.to = Position{Seq: f.Seq, Received: received}
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	last := &frames[len(frames)-1]
	b.s.acked.Store(last.Received.UnixNano())
	return b.s.o.Readings.Commit(ctx, last.Seq)
}

// add puts the lines of a frame into the parcel, those of the log itself left out.
func (b *batcher) add(ctx context.Context, f *Frame, received int64) error {
	n, begun := 0, false
	for line := range bytes.Lines(f.Lines) {
		if line[0] == '_' {
			continue
		}
		if n++; f.Seq == b.at.Seq && n <= b.at.Line {
			continue
		}
		if len(b.body) > 0 && len(b.body)+len(line) > b.limit {
			if err := b.flush(ctx); err != nil {
				return err
			}
			begun = false
		}
		if !begun {
			b.body = part{seq: f.Seq, from: n - 1, received: received}.appendHead(b.body)
			begun = true
		}
		b.body = append(b.body, line...)
		b.records++
		b.to = Position{Seq: f.Seq, Line: n, Received: received}
	}
	return nil
}

// flush sends the parcel.
func (b *batcher) flush(ctx context.Context) error {
	if len(b.body) == 0 {
		return nil
	}
	head := &parcel{Gateway: b.s.o.Gateway, Epoch: b.s.name(), After: b.at, To: b.to, Lost: b.lost}
	if err := b.s.deliver(ctx, logReadings, head, b.body); err != nil {
		return err
	}
	b.s.metrics.lines.Add(float64(len(b.body)))
	b.s.metrics.records[logReadings].Add(float64(b.records))
	b.at, b.lost, b.records, b.body = b.to, 0, 0, b.body[:0]
	return nil
}
