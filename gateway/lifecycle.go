package main

import (
	"context"
	"fmt"

	"haidang/gateway/console"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// lifecycle is what the console tells of warnings beyond how they stand.
func (g *instance) lifecycle() console.Lifecycle {
	return console.Lifecycle{
		Orders:     func() any { return g.centre.Orders() },
		Withheld:   g.withheld,
		Order:      g.order,
		Route:      g.explainRoute,
		Deliveries: g.deliveries,
		Reports:    newReporter(&g.annals, g.now).of,
		Drill:      func() any { return g.drill.status() },
		ActOnDrill: g.actOnDrill,
		Audit:      g.audited,
		Try:        g.try,
		Scenarios:  func() any { return g.scenarios() },
		Accepted:   g.proof.Accepted,
	}
}

// withheld is what holds and is not raised; null where the engines are on other
// machines.
func (g *instance) withheld() any {
	if g.machine != nil {
		return nil
	}
	return g.evaluator.engine.Withheld()
}

// ruleCounts are the rules in force and what they did. Where the engines are on other
// machines it is only known what is raised now: the metrics of those machines have
// the rest.
func (g *instance) ruleCounts() any {
	counts := g.evaluator.engine.Rules()
	if g.machine == nil {
		return counts
	}
	active := map[string]int{}
	for _, w := range g.centre.Warnings(false) {
		if w.State != telemetry.Pending && !w.Exercise {
			active[w.Rule]++
		}
	}
	for i := range counts {
		counts[i].Active = active[counts[i].Rule]
	}
	return counts
}

// order takes something out of service that there is, or puts it back.
func (g *instance) order(ctx context.Context, o telemetry.Order) (telemetry.Order, error) {
	if o.Out && o.Device != "" && !g.isDevice(o.Device) {
		return o, fmt.Errorf("device: device %q is not registered and was not heard since the start", o.Device)
	}
	if o.Out && o.Rule != "" && g.ruleCalled(o.Rule) == nil {
		return o, fmt.Errorf("rule: there is no rule %q", o.Rule)
	}
	return g.centre.Order(ctx, o)
}

func (g *instance) isDevice(id string) bool {
	if g.intake.Known().Devices.Device(id) != nil {
		return true
	}
	_, heard := g.intake.HeardOf(id)
	return heard
}

// ruleCalled returns a rule in force, or nil.
func (g *instance) ruleCalled(name string) *rules.Rule {
	document, _ := g.evaluator.engine.Document()
	for i := range document.Rules {
		if document.Rules[i].Name == name {
			return &document.Rules[i]
		}
	}
	return nil
}

// deliveries returns the attempts to tell recipients of a warning.
func (g *instance) deliveries(ctx context.Context, id string) (any, error) {
	list, err := g.proof.Of(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	if _, known := g.centre.Warning(id); !known && len(list) == 0 {
		// It may be one of long ago, of which nobody was told.
		past, err := newHistorian(&g.annals).of(ctx, id)
		if err == nil && len(past) == 0 {
			err = fmt.Errorf("warning %q: %w", id, telemetry.ErrUnknown)
		}
		return list, err
	}
	return list, nil
}
