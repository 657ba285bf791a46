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
		if err := p.watchClock(ctx); err != nil {
			return err
		}
		if now := p.last(); now != seen {
			seen, since = now, time.Now()
			continue
		}
		if time.Since(since) < silence {
			continue
		}
		if err := p.log.Append(ctx, []telemetry.Reading{p.record(telemetry.KindTick)}); err != nil {
			return ended(ctx, err)
		}
		seen, since = p.last(), time.Now()
	}
}

func (p *pulse) watchClock(ctx context.Context) error {
	jump, jumped := p.clock.Check()
	if !jumped {
		return nil
	}
	p.logger.Warn("the clock jumped", "by", jump.Wall)
	record := p.record(telemetry.KindClock,
		telemetry.Value{Name: "jump_s", Number: jump.Log.Seconds()},
		telemetry.Value{Name: "wall_jump_s", Number: jump.Wall.Seconds()})
	if err := p.log.Append(ctx, []telemetry.Reading{record}); err != nil {
		return ended(ctx, err)
	}
	p.clock.Adopt(jump)
	return nil
}

// started writes that the gateway starts after having been down.
func (p *pulse) started(ctx context.Context, down time.Duration) error {
	return p.log.Append(ctx, []telemetry.Reading{p.record(telemetry.KindStart,
		telemetry.Value{Name: "down_s", Number: max(down, 0).Seconds()})})
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
