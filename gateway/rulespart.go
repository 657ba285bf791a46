package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"haidang/gateway/console"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// evaluate is the part rules: the engine follows one partition, and its steps are
// written to where the centre takes them up. They are a function of the partition,
// so that two machines who both believe for a moment to have it write the same
// ones, and the centre passes over the second ones.
func (m *machine) evaluate(ctx context.Context, s *spool.Spool, reg console.Registry) error {
	cfg, w := m.current()
	e, err := restoreEvaluator(ctx, s, w.set, reg, m.logger)
	if err != nil {
		return err
	}
	e.ticks = true
	e.step = func(ctx context.Context, steps []telemetry.Transition) error {
		if len(steps) == 0 {
			return nil
		}
		return s.Steps().Append(ctx, steps)
	}
	partition := partitionHeld(s)
	e.orphan = func(ctx context.Context, at time.Time, held map[string]bool) error {
		return endOrphans(ctx, s, partition, at, held)
	}
	m.follows(spool.Part{Role: roleRules, Partition: partition}, func() uint64 { return s.Readings().Lag(followRules) })
	beat := &pulse{name: cfg.Gateway, clock: m.clock, log: s.Readings(), last: s.Readings().Last, logger: m.logger, isShared: true}
	down := time.Duration(0)
	if last := s.Readings().LastReceived(); !last.IsZero() {
		down = m.clock.Now().Sub(last)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.Run(ctx) })
	group.Go(func() error {
		if !beat.begin(ctx, down) {
			return nil
		}
		return beat.Run(ctx)
	})
	return group.Wait()
}

// partitionHeld is the partition of a part that has one.
func partitionHeld(s *spool.Spool) int {
	for n := range s.Partitions() {
		if s.ReadingsOf(n) == s.Readings() {
			return n
		}
	}
	return 0
}

// endOrphans writes the end of each warning of a partition that lasts and that the
// engine does not hold after it has lost its state: nothing else would ever clear
// it. How the warnings stand is folded from their log and from the steps that the
// centre has not taken up yet, so that an end has the number that is next.
func endOrphans(ctx context.Context, s *spool.Spool, partition int, at time.Time, held map[string]bool) error {
	board := telemetry.NewBoard()
	if err := s.Warnings().Replay(ctx, func(t telemetry.Transition) { board.Apply(t) }); err != nil {
		return fmt.Errorf("read the warnings: %w", err)
	}
	err := s.Steps().Replay(ctx, func(t telemetry.Transition) {
		if next, isNew := board.Step(t); isNew {
			board.Apply(next)
		}
	})
	if err != nil {
		return fmt.Errorf("read the steps: %w", err)
	}
	var ends []telemetry.Transition
	for _, w := range board.Warnings(false) {
		if spool.PartitionOf(cmp.Or(w.Site, w.Device), s.Partitions()) != partition || held[w.ID] || w.Exercise || w.Gateway != "" {
			continue
		}
		if end, ok := board.End(w.ID, at); ok {
			ends = append(ends, end)
		}
	}
	if len(ends) == 0 {
		return nil
	}
	return s.Steps().Append(ctx, ends)
}
