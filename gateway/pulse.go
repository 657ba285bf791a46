package main

import (
	"context"
	"log/slog"
	"time"

	"haidang/gateway/intake"
	"haidang/gateway/telemetry"
)

// silence is how long the log may be silent before a tick is written, so that
// timers of rules go off though nothing is received.
const silence = 5 * time.Second

// A pulse writes the log's own records: ticks in silence and jumps of the clock.
type pulse struct {
	name   string // the gateway's
	clock  *intake.Clock
	log    appender
	last   func() uint64 // newest sequence of the log
	logger *slog.Logger

	// isShared says that other machines write the log as well: the jump of one clock
	// is none of its time then, and is looked after elsewhere.
	isShared bool
	failing  bool // the log did not take the last record; said once
}

// An appender appends readings without the intake: the log's own records are
// no device's.
type appender interface {
	Append(ctx context.Context, records []telemetry.Reading) error
	AppendAt(received time.Time, records []telemetry.Reading, done func(error))
}

// lookEvery is how often the clock is looked at. What is received between a step
// back and the look is stamped behind what was received before it, and is late.
const lookEvery = 200 * time.Millisecond

// Run watches clock and log until ctx ends.
func (p *pulse) Run(ctx context.Context) error {
	seen, since := p.last(), time.Now()
	every := time.NewTicker(lookEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		if !p.isShared {
			p.watchClock(ctx)
		}
		if now := p.last(); now != seen {
			seen, since = now, time.Now()
			continue
		}
		if time.Since(since) < silence {
			continue
		}
		if p.write(ctx, p.record(telemetry.KindTick)) {
			seen, since = p.last(), time.Now()
		}
	}
}

// write appends one record and reports whether it is in the log. A log that is
// full or cannot write is no reason to end: the next look tries again, and the
// followers go on meanwhile.
func (p *pulse) write(ctx context.Context, record telemetry.Reading) bool {
	return p.wrote(ctx, record, p.log.Append(ctx, []telemetry.Reading{record}))
}

func (p *pulse) wrote(ctx context.Context, record telemetry.Reading, err error) bool {
	if err != nil && ctx.Err() == nil && !p.failing {
		p.logger.Error("the log does not take the gateway's own records", "kind", record.Kind, "error", err)
	}
	p.failing = err != nil
	return err == nil
}

// watchClock writes a jump to the log, received at the time to which log time
// jumps: it is by the frame's distance from the one before that the engine knows
// which time did not pass for its timers. What is received meanwhile is not
// before it, since log time never decreases.
func (p *pulse) watchClock(ctx context.Context) {
	jump, jumped := p.clock.Check()
	if !jumped {
		return
	}
	now := p.clock.Now().Add(jump.Log)
	record := p.record(telemetry.KindClock,
		telemetry.Value{Name: "jump_s", Number: jump.Log.Seconds()},
		telemetry.Value{Name: "wall_jump_s", Number: p.stampJump(jump, now).Seconds()})
	record.Time = now
	written := make(chan error, 1)
	p.log.AppendAt(now, []telemetry.Reading{record}, func(err error) { written <- err })
	if p.wrote(ctx, record, <-written) {
		p.logger.Warn("the clock jumped", "by", jump.Wall)
		p.clock.Adopt(jump)
	}
}

// neverSet: a clock that shows an earlier time was not set yet; see intake.Clock.
var neverSet = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// stampJump is by how much the stamps of readings without a time jump: as the
// wall clock, but for one that was not set before, when they had log time.
func (p *pulse) stampJump(jump intake.Jump, now time.Time) time.Duration {
	wall, set := p.clock.Wall()
	if set && !wall.Add(-jump.Wall).After(neverSet) {
		return wall.Sub(now)
	}
	return jump.Wall
}

// begin writes that the gateway starts after having been down, as soon as the
// log takes it. It returns false when ctx ends before.
func (p *pulse) begin(ctx context.Context, down time.Duration) bool {
	back := -p.clock.Ahead()
	if _, set := p.clock.Wall(); !set {
		back = 0 // stamps have log time until the clock is set
	}
	for began := p.clock.Now(); ; {
		// While the log takes nothing, nothing is received: that is part of the gap.
		gone := max(down, 0) + p.clock.Now().Sub(began)
		if p.write(ctx, p.record(telemetry.KindStart,
			telemetry.Value{Name: "down_s", Number: gone.Seconds()},
			telemetry.Value{Name: "wall_jump_s", Number: back.Seconds()})) {
			return true
		}
		if !wait(ctx, time.Second) {
			return false
		}
	}
}

func (p *pulse) record(kind string, values ...telemetry.Value) telemetry.Reading {
	if len(values) == 0 {
		values = []telemetry.Value{{Name: "n", Number: 1}} // a line has at least one field
	}
	return telemetry.Reading{Device: p.name, Kind: kind, Site: p.name, Time: p.clock.Now(), Values: values}
}

// ended is err, or nil when it only says that ctx ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
