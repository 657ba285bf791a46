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

	failing bool // the log did not take the last record; said once
}

// An appender appends readings without the intake: the log's own records are
// no device's.
type appender interface {
	Append(ctx context.Context, records []telemetry.Reading) error
}

// Run watches clock and log until ctx ends.
func (p *pulse) Run(ctx context.Context) error {
	seen, since := p.last(), time.Now()
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		p.watchClock(ctx)
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
// full or cannot write is no reason to end: the next second tries again, and
// the followers go on meanwhile.
func (p *pulse) write(ctx context.Context, record telemetry.Reading) bool {
	err := p.log.Append(ctx, []telemetry.Reading{record})
	if err != nil && ctx.Err() == nil && !p.failing {
		p.logger.Error("the log does not take the gateway's own records", "kind", record.Kind, "error", err)
	}
	p.failing = err != nil
	return err == nil
}

func (p *pulse) watchClock(ctx context.Context) {
	jump, jumped := p.clock.Check()
	if !jumped {
		return
	}
	record := p.record(telemetry.KindClock,
		telemetry.Value{Name: "jump_s", Number: jump.Log.Seconds()},
		telemetry.Value{Name: "wall_jump_s", Number: jump.Wall.Seconds()})
	if p.write(ctx, record) {
		p.logger.Warn("the clock jumped", "by", jump.Wall)
		p.clock.Adopt(jump)
	}
}

// begin writes that the gateway starts after having been down, as soon as the
// log takes it. It returns false when ctx ends before.
func (p *pulse) begin(ctx context.Context, down time.Duration) bool {
	record := p.record(telemetry.KindStart,
		telemetry.Value{Name: "down_s", Number: max(down, 0).Seconds()},
		telemetry.Value{Name: "wall_jump_s", Number: -p.clock.Ahead().Seconds()})
	for !p.write(ctx, record) {
		if !wait(ctx, time.Second) {
			return false
		}
	}
	return true
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
