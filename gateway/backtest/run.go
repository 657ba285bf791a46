package backtest

import (
	"context"
	"fmt"
	"iter"
	"time"

	"haidang/gateway/telemetry"
)

// An Engine evaluates the log frame by frame; see package rules.
type Engine interface {
	Evaluate(received time.Time, readings []telemetry.Reading) []telemetry.Transition
}

// Options say what is tried.
type Options struct {
	// From and To bound what is reported. A zero To is the last receipt, a zero
	// From the first.
	From, To time.Time
	// Gap is the time without any reading that counts as the gateway having been
	// down; 0: never.
	Gap time.Duration
	// Wanted says which rules and devices are reported; nil: all.
	Wanted func(rule, device string) bool
	// Progress is called now and then.
	Progress func(readings int, at time.Time)
}

// A Trial is one set of rules on the past.
type Trial struct {
	Engine  Engine
	Control []telemetry.Reading // puts the rules into force
	Report  Report              // filled by Run
	fold    fold
}

// progressEvery is how many readings lie between two calls of Progress.
const progressEvery = 1000

// Run plays the readings, which come in the order of their receipt, to all
// trials. Receipt never goes back: a reading that is out of order counts as
// received with the one before it.
func Run(ctx context.Context, readings iter.Seq2[telemetry.Reading, error], o Options, trials ...*Trial) error {
	p := &play{options: o, trials: trials, heard: map[string]int{}}
	for r, err := range readings {
		if err != nil {
			return err
		}
		if err := p.take(ctx, &r); err != nil {
			return err
		}
	}
	if p.count == 0 {
		return fmt.Errorf("no readings from %s to %s", stamp(o.From), stamp(o.To))
	}
	p.flush()
	end := p.now
	if !o.To.IsZero() && o.To.After(end) {
		end = o.To
	}
	for _, t := range trials {
		t.fold.take(t.Engine.Evaluate(end, nil))
		t.Report = t.fold.report(p.from, end, p.count, p.heard)
	}
	return nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "the beginning"
	}
	return t.UTC().Format(time.RFC3339)
}

// A play is one run.
type play struct {
	options Options
	trials  []*Trial
	from    time.Time
	now     time.Time
	frame   []telemetry.Reading // received now
	count   int
	heard   map[string]int // readings by device
}

func (p *play) take(ctx context.Context, r *telemetry.Reading) error {
	at := r.Time.Add(r.Delay)
	if p.count == 0 {
		p.begin(at)
	}
	if at.Before(p.now) {
		at = p.now
	}
	if !at.Equal(p.now) {
		p.flush()
		if gap := at.Sub(p.now); p.options.Gap > 0 && gap >= p.options.Gap {
			p.down(at, gap)
		}
		p.now = at
	}
	p.frame = append(p.frame, *r)
	p.count++
	p.heard[r.Device]++
	if p.count%progressEvery == 0 {
		if p.options.Progress != nil {
			p.options.Progress(p.count, at)
		}
		return ctx.Err()
	}
	return nil
}

// begin puts the rules into force at the first receipt.
func (p *play) begin(at time.Time) {
	p.now, p.from = at, p.options.From
	if p.from.IsZero() {
		p.from = at
	}
	for _, t := range p.trials {
		t.fold = fold{wanted: p.options.Wanted, rows: map[key]*Row{}, active: map[string]*Episode{}}
		t.fold.take(t.Engine.Evaluate(at, t.Control))
	}
}

func (p *play) flush() {
	if len(p.frame) == 0 {
		return
	}
	for _, t := range p.trials {
		t.fold.take(t.Engine.Evaluate(p.now, p.frame))
	}
	p.frame = p.frame[:0]
}

// down tells the engines that there was no gateway for so long before at.
func (p *play) down(at time.Time, length time.Duration) {
	start := []telemetry.Reading{{Device: "gateway", Kind: telemetry.KindStart, Site: "gateway", Values: []telemetry.Value{{Name: "down_s", Number: length.Seconds()}}}}
	for _, t := range p.trials {
		t.fold.take(t.Engine.Evaluate(at, start))
	}
}
