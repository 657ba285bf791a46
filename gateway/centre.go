package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"haidang/gateway/console"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// A centre is the only writer of the warnings log: it numbers what the engine's
// steps and the operators' acts do to each warning, writes it down and only
// then counts it as having happened.
type centre struct {
	log *spool.Log[telemetry.Transition]

	mu        sync.Mutex
	board     *telemetry.Board
	observers []func(telemetry.Warning)
}

// openCentre folds the warnings log.
func openCentre(ctx context.Context, log *spool.Log[telemetry.Transition]) (*centre, error) {
	c := &centre{log: log, board: telemetry.NewBoard()}
	err := log.Replay(ctx, func(t telemetry.Transition) { c.board.Apply(t) })
	if err != nil {
		return nil, fmt.Errorf("read the warnings log: %w", err)
	}
	return c, nil
}

// observe has f called after each transition, in order; f must not block.
func (c *centre) observe(f func(telemetry.Warning)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observers = append(c.observers, f)
}

// Step writes the steps of the engine. Steps that the log has already, as
// after a crash, are passed over.
func (c *centre) Step(ctx context.Context, steps []telemetry.Transition) error {
	if len(steps) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []telemetry.Transition
	for _, s := range steps {
		// The next step of a warning depends on the one before it.
		if slices.ContainsFunc(batch, func(t telemetry.Transition) bool { return t.ID == s.ID }) {
			if err := c.write(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
		if next, isNew := c.board.Step(s); isNew {
			batch = append(batch, next)
		}
	}
	return c.write(ctx, batch)
}

// Act writes what an operator does with a warning.
func (c *centre) Act(ctx context.Context, act telemetry.Act) (telemetry.Warning, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, err := c.board.Act(act)
	if err != nil {
		return telemetry.Warning{}, err
	}
	if err := c.write(ctx, []telemetry.Transition{next}); err != nil {
		return telemetry.Warning{}, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	return next.Warning, nil
}

func (c *centre) write(ctx context.Context, batch []telemetry.Transition) error {
	if len(batch) == 0 {
		return nil
	}
	if err := c.log.Append(ctx, batch); err != nil {
		return fmt.Errorf("write transition %s: %w", batch[0].Key(), err)
	}
	for _, t := range batch {
		c.board.Apply(t)
		for _, f := range c.observers {
			f(t.Warning)
		}
	}
	return nil
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
