package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// checkpointEvery is how often the engine's state is kept. After a crash the
// frames since then are evaluated again, and the steps they give are known.
const checkpointEvery = 10 * time.Second

// checkpointFrames is after how many frames it is kept earlier: a box that loses
// its power every few seconds must come further in each of its lives, or it would
// never be done with what it has missed.
const checkpointFrames = 5000

// A checkpoint is the position, 8 bytes, big-endian, and the engine's state. While
// the engine learns, the first bit of the position is set, and before the state
// there is what is learned: its length, 4 bytes, and JSON.
const (
	checkpointHead = 8
	learningBit    = 1 << 63
)

// learning is what a checkpoint has of an engine that learns.
type learning struct {
	Until uint64          `json:"until"`
	Held  map[string]bool `json:"held"`
}

// An evaluator feeds the engine from the log and its steps to the centre. The
// engine's position in the log lives inside its checkpoint.
type evaluator struct {
	spool  *spool.Spool // nil where the engine only knows the rules; see openReader
	engine *rules.Engine
	logger *slog.Logger
	every  time.Duration // between checkpoints
	far    uint64        // frames after which one is kept earlier
	ticks  bool          // the log has a record at least every few seconds; see refused

	// append writes documents to the log, step hands on what the engine gives, and
	// orphan ends the warnings that last and of which the engine knows nothing; see
	// centre.
	append func(context.Context, []telemetry.Reading) error
	step   func(context.Context, []telemetry.Transition) error
	orphan func(ctx context.Context, at time.Time, held map[string]bool) error

	mu       sync.Mutex // guards the engine between a frame and a checkpoint
	position uint64     // last frame that was evaluated and whose steps are written
	ahead    bool       // the engine has evaluated one more
	kept     uint64     // position of the last checkpoint
	before   uint64     // of the one before it: frames behind that are not given free

	// Without a checkpoint the engine learns what it can from the log up to
	// relearn; held are the warnings that it has raised meanwhile. Those that it
	// does not know then are cleared: nothing else would ever clear them.
	relearn uint64
	held    map[string]bool

	done atomic.Uint64 // position, for other goroutines
}

// openEvaluator opens the evaluator of a gateway that has its centre beside it.
func openEvaluator(ctx context.Context, s *spool.Spool, c *centre, known *rules.Set, reg prometheus.Registerer, logger *slog.Logger) (*evaluator, error) {
	e, err := restoreEvaluator(ctx, s, known, reg, logger)
	if err != nil {
		return nil, err
	}
	e.step, e.orphan = c.Step, c.orphan
	return e, nil
}

// restoreEvaluator restores the engine from its checkpoint. Without one, or with
// one that cannot be read, it begins at the start of the log. Known are the rules of
// the configuration, which the checkpoint has as well unless they were changed.
func restoreEvaluator(ctx context.Context, s *spool.Spool, known *rules.Set, reg prometheus.Registerer, logger *slog.Logger) (*evaluator, error) {
	e := &evaluator{spool: s, append: s.Readings().Append, logger: logger, every: checkpointEvery, far: checkpointFrames}
	e.engine = rules.NewEngine(rules.Options{Registerer: reg, Logger: logger})
	e.engine.Know(known)
	last := s.Readings().Last()
	blob, err := s.LoadCheckpoint(ctx, followRules)
	if err == nil && len(blob) > 0 {
		if err = e.restore(blob); err == nil {
			if e.position > last { // the end of the log was lost: its numbers are given again
				logger.Error("the log ends before the rules' position", "position", e.position, "last", last)
				e.position = last
			}
			e.kept, e.before = e.position, s.Readings().Position(followRules)
			e.done.Store(e.position)
			return e, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		logger.Error("the rules' checkpoint cannot be read; the log is evaluated from its start", "error", err)
	}
	e.relearn, e.held = last, map[string]bool{}
	return e, nil
}

// restore reads a checkpoint; one that cannot be read changes nothing.
func (e *evaluator) restore(blob []byte) error {
	cut := fmt.Errorf("it has %d bytes and is cut short", len(blob))
	if len(blob) < checkpointHead {
		return cut
	}
	position, state := binary.BigEndian.Uint64(blob), blob[checkpointHead:]
	var l learning
	if position&learningBit != 0 {
		if len(state) < 4 || uint64(len(state)-4) < uint64(binary.BigEndian.Uint32(state)) {
			return cut
		}
		n := 4 + binary.BigEndian.Uint32(state)
		if err := json.Unmarshal(state[4:n], &l); err != nil {
			return err
		}
		state = state[n:]
		if l.Held == nil {
			l.Held = map[string]bool{}
		}
	}
	if err := e.engine.Restore(state); err != nil {
		return err
	}
	e.position = position &^ learningBit
	e.relearn, e.held = l.Until, l.Held
	return nil
}

// checkpoint makes one.
func (e *evaluator) checkpoint() ([]byte, error) {
	if e.held == nil {
		return e.engine.AppendCheckpoint(binary.BigEndian.AppendUint64(nil, e.position))
	}
	learned, err := json.Marshal(learning{Until: e.relearn, Held: e.held})
	if err != nil {
		return nil, err
	}
	blob := binary.BigEndian.AppendUint64(nil, e.position|learningBit)
	blob = binary.BigEndian.AppendUint32(blob, uint32(len(learned)))
	return e.engine.AppendCheckpoint(append(blob, learned...))
}

// announce writes a document to the log; the engine changes to it when it comes
// there, and passes over one that it has already.
func (e *evaluator) announce(ctx context.Context, gateway string, at time.Time, set *rules.Set) error {
	e.engine.Know(set)
	records, err := set.ControlReadings(gateway)
	if err != nil {
		return fmt.Errorf("write the rules to the log: %w", err)
	}
	for i := range records {
		records[i].Time = at.Add(time.Duration(i)) // parts of one document are points of their own
	}
	if err := e.append(ctx, records); err != nil {
		return fmt.Errorf("write the rules to the log: %w", err)
	}
	return nil
}

// Run evaluates the log until ctx ends and keeps a last checkpoint.
func (e *evaluator) Run(ctx context.Context) error {
	options := spool.FollowOptions{Name: followRules, From: e.position + 1, Manual: true}
	var keeping sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	keeping.Go(func() { e.keepNowAndThen(ctx) })
	err := e.spool.Readings().Follow(ctx, options, e.accept)
	err = ended(ctx, err)
	stop()
	keeping.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, e.keep(last))
}

// keepNowAndThen keeps checkpoints, also while no frame comes: a log that is
// full gets none until the rules' position gives its frames free, so that is not
// waited for.
func (e *evaluator) keepNowAndThen(ctx context.Context) {
	failing := false
	var took time.Duration // of the last one; the engine waits for it
	for last, at := time.Now(), e.done.Load(); wait(ctx, min(time.Second, e.every)); {
		far := e.done.Load() > at+e.far && time.Since(last) > 20*took
		if !far && time.Since(last) < e.every && !errors.Is(e.spool.Health(), spool.ErrFull) {
			continue
		}
		e.mu.Lock()
		last, at = time.Now(), e.position
		err := e.keep(ctx)
		e.mu.Unlock()
		took = time.Since(last)
		if err != nil && ctx.Err() == nil && !failing {
			// Evaluation goes on without: after a crash more frames are evaluated again.
			e.logger.Error("the rules' checkpoint cannot be kept, trying again", "error", err)
		}
		failing = err != nil
	}
}

func (e *evaluator) accept(ctx context.Context, batch *spool.Batch[telemetry.Reading]) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range batch.Frames {
		frame := &batch.Frames[i]
		if frame.Seq <= e.position {
			continue // evaluated before the rest of the batch failed
		}
		readings, err := frame.Records()
		if err != nil {
			return err
		}
		if gap := e.refused(frame.Received, readings); gap > 0 {
			readings = append([]telemetry.Reading{{Kind: telemetry.KindStart, Time: frame.Received,
				Values: []telemetry.Value{{Name: "down_s", Number: gap.Seconds()}}}}, readings...)
		}
		e.ahead = true
		steps := e.engine.Evaluate(frame.Received, readings)
		if err := e.write(ctx, steps); err != nil {
			return err
		}
		e.position, e.ahead = frame.Seq, false
		e.done.Store(frame.Seq)
		if e.held != nil {
			e.learn(ctx, frame, steps)
		}
	}
	return nil
}

// refused is how long the log took nothing before a frame that does not say so
// itself: its disk was full, or hung. A running gateway writes a tick in every
// silence, so that there is no other reason; to the rules it is as if it had been
// down. It depends on the log alone, as all that is evaluated.
func (e *evaluator) refused(received time.Time, readings []telemetry.Reading) time.Duration {
	last := e.engine.LogTime()
	if gap := received.Sub(last); e.ticks && !last.IsZero() && gap > rules.MinGap &&
		!slices.ContainsFunc(readings, func(r telemetry.Reading) bool {
			return r.Kind == telemetry.KindStart || r.Kind == telemetry.KindClock
		}) {
		return gap
	}
	return 0
}

// learn notes what the engine holds while it goes through the log without a
// checkpoint, and clears the rest once it has its rules and has caught up. If
// that cannot be written, the next frame tries again: this one is evaluated, and
// must not be evaluated twice.
func (e *evaluator) learn(ctx context.Context, frame *spool.Frame[telemetry.Reading], steps []telemetry.Transition) {
	for _, s := range steps {
		if s.State == telemetry.Cleared {
			delete(e.held, s.ID)
		} else {
			e.held[s.ID] = true
		}
	}
	if frame.Seq <= e.relearn || e.engine.Hash() == "" {
		return
	}
	if err := e.orphan(ctx, frame.Received, e.held); err != nil {
		if ctx.Err() == nil {
			e.logger.Error("warnings that the engine has lost cannot be cleared, trying again", "error", err)
		}
		return
	}
	e.held = nil
}

// write hands the steps on. The engine has moved on and cannot give
// them again, so it is tried until it is done or the gateway stops: after that
// the frame is evaluated again from the checkpoint.
func (e *evaluator) write(ctx context.Context, steps []telemetry.Transition) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := e.step(ctx, steps)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var unwritable *telemetry.Rejection
		if errors.As(err, &unwritable) {
			e.logger.Error("a warning cannot be written and is lost", "error", err)
			return nil
		}
		e.logger.Error("warnings cannot be written, trying again", "error", err)
		if !wait(ctx, pause) {
			return ctx.Err()
		}
	}
}

// keep writes a checkpoint and gives the frames before the last one free: should
// the disk damage the newest, the engine goes on from that and misses nothing. Only
// a log that is full gets all of them back.
func (e *evaluator) keep(ctx context.Context) error {
	if e.ahead {
		return nil
	}
	if e.position == e.kept {
		if e.before < e.kept && errors.Is(e.spool.Health(), spool.ErrFull) {
			return e.free(ctx, e.kept)
		}
		return nil
	}
	blob, err := e.checkpoint()
	if err != nil {
		return fmt.Errorf("make the rules' checkpoint: %w", err)
	}
	if err := e.spool.SaveCheckpoint(ctx, followRules, blob); err != nil {
		return fmt.Errorf("keep the rules' checkpoint: %w", err)
	}
	before := e.kept
	e.kept = e.position
	if errors.Is(e.spool.Health(), spool.ErrFull) {
		before = e.kept
	}
	return e.free(ctx, before)
}

// free gives the frames up to a position free.
func (e *evaluator) free(ctx context.Context, position uint64) error {
	if err := e.spool.Readings().Commit(ctx, followRules, position); err != nil {
		return fmt.Errorf("move the rules' position: %w", err)
	}
	e.before = position
	return nil
}
