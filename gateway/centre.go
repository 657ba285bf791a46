package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"haidang/gateway/console"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// A centre is the only writer of the warnings log: it numbers what the engine's
// steps and the operators' acts do to each warning, writes it down and only
// then counts it as having happened.
type centre struct {
	log *spool.Log[telemetry.Transition]
	now func() time.Time // log time; nil: acts keep their own time

	writing   sync.Mutex // held over the disk; guards unsure
	unsure    []telemetry.Transition
	observers []func(telemetry.Warning)

	mu    sync.Mutex // never held over the disk
	board *telemetry.Board
}

// openCentre folds the warnings log.
func openCentre(ctx context.Context, log *spool.Log[telemetry.Transition], now func() time.Time) (*centre, error) {
	c := &centre{log: log, now: now, board: telemetry.NewBoard()}
	err := log.Replay(ctx, func(t telemetry.Transition) { c.board.Apply(t) })
	if err != nil {
		return nil, fmt.Errorf("read the warnings log: %w", err)
	}
	return c, nil
}

// observe has f called after each transition, in order; f must not block.
func (c *centre) observe(f func(telemetry.Warning)) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.observers = append(c.observers, f)
}

// Step writes the steps of the engine. Steps that the log has already, as
// after a crash, are passed over.
func (c *centre) Step(ctx context.Context, steps []telemetry.Transition) error {
	if len(steps) == 0 {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.settle(ctx); err != nil {
		return err
	}
	var batch []telemetry.Transition
	for _, s := range steps {
		// The next step of a warning depends on the one before it.
		if slices.ContainsFunc(batch, func(t telemetry.Transition) bool { return t.ID == s.ID }) {
			if err := c.write(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
		c.mu.Lock()
		next, isNew := c.board.Step(s)
		c.mu.Unlock()
		if isNew {
			batch = append(batch, next)
		}
	}
	return c.write(ctx, batch)
}

// Act writes what an operator does with a warning.
func (c *centre) Act(ctx context.Context, act telemetry.Act) (telemetry.Warning, error) {
	if c.now != nil {
		act.At = c.now() // log time, as every transition has
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.settle(ctx)
	if err == nil {
		c.mu.Lock()
		next, refused := c.board.Act(act)
		c.mu.Unlock()
		if refused != nil {
			return telemetry.Warning{}, refused
		}
		if err = c.write(ctx, []telemetry.Transition{next}); err == nil {
			return next.Warning, nil
		}
	}
	return telemetry.Warning{}, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
}

// settle makes good a write of which nobody knows whether it reached the disk:
// the same transitions are written again, and readers drop the second ones.
// Anything else could give one number to two transitions.
func (c *centre) settle(ctx context.Context) error {
	batch := c.unsure
	c.unsure = nil
	err := c.write(ctx, batch)
	if err != nil {
		c.unsure = batch // whatever this try failed of, the first one may be on disk
	}
	return err
}

// writePatienceOfCentre bounds one write, whoever asked for it and left.
const writePatienceOfCentre = time.Minute

func (c *centre) write(ctx context.Context, batch []telemetry.Transition) error {
	if len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writePatienceOfCentre)
	defer cancel()
	if err := c.log.Append(ctx, batch); err != nil {
		var unwritable *telemetry.Rejection
		if !errors.As(err, &unwritable) && !errors.Is(err, spool.ErrFull) {
			c.unsure = slices.Clone(batch)
		}
		return fmt.Errorf("write transition %s: %w", batch[0].Key(), err)
	}
	for _, t := range batch {
		c.mu.Lock()
		c.board.Apply(t)
		c.mu.Unlock()
		for _, f := range c.observers {
			f(t.Warning)
		}
	}
	return nil
}

// Run ends shelving when its time is over, until ctx ends.
func (c *centre) Run(ctx context.Context) {
	for wait(ctx, time.Second) {
		now := time.Now().UTC()
		for _, w := range c.Warnings(false) {
			if w.State != telemetry.Shelved || w.Expires == nil || w.Expires.After(now) {
				continue
			}
			act := telemetry.Act{ID: w.ID, N: w.N, Do: telemetry.Unshelve, By: "haidang", At: now, Text: "the time of shelving is over"}
			if _, err := c.Act(ctx, act); err != nil && !errors.Is(err, telemetry.ErrConflict) && ctx.Err() == nil {
				break // the log says why; the next second tries again
			}
		}
	}
}

// orphan clears the warnings of which the engine knows nothing after it has lost
// its state; held are those that it knows.
func (c *centre) orphan(ctx context.Context, at time.Time, held map[string]bool) error {
	var steps []telemetry.Transition
	c.mu.Lock()
	for _, w := range c.board.Warnings(false) {
		if t, ok := c.board.End(w.ID, at); ok && !held[w.ID] {
			steps = append(steps, t)
		}
	}
	c.mu.Unlock()
	return c.Step(ctx, steps)
}

// lasting returns the warnings that are not cleared, as transitions.
func (c *centre) lasting() []telemetry.Transition {
	var out []telemetry.Transition
	for _, w := range c.Warnings(false) {
		out = append(out, telemetry.Transition{Warning: w})
	}
	return out
}

// Warnings returns the warnings as they stand; the cleared ones too if all.
func (c *centre) Warnings(all bool) []telemetry.Warning {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board.Warnings(all)
}

// Warning returns one warning as it stands.
func (c *centre) Warning(id string) (telemetry.Warning, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board.Warning(id)
}
