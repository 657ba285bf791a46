package scenario

import (
	"fmt"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// An Engine evaluates the log frame by frame; see package rules.
type Engine interface {
	Evaluate(received time.Time, readings []telemetry.Reading) []telemetry.Transition
}

// A Ground is what a scenario is played on.
type Ground struct {
	Kinds   *telemetry.Catalogue
	Devices *telemetry.Registry
	On      map[string]string // the kind that each rule looks at
	Control []telemetry.Reading
	// Changes are the control records of events that bring other rules, by the
	// index of the event.
	Changes map[int][]telemetry.Reading
	// New makes an engine; Restart stops one and restores it from its state.
	New     func() Engine
	Restart func(Engine) (Engine, error)
}

// An Outcome is what came of a scenario.
type Outcome struct {
	Start, End  time.Time // log time
	Readings    int
	Transitions []telemetry.Transition
	Differences []Difference // none: it passed
}

// gatewayName is the device of the log's own records.
const gatewayName = "gateway"

// Run plays the scenario. Faults are of the scenario itself, with paths from
// its top; an error is of the engine.
func Run(s *Scenario, g *Ground) (*Outcome, []telemetry.Fault, error) {
	c, faults := lay(s, g)
	if len(faults) > 0 {
		return nil, faults, nil
	}
	p := &player{ground: g, engine: g.New(), board: telemetry.NewBoard()}
	p.outcome.Start, p.outcome.End = c.start, c.end
	p.evaluate(c.start, g.Control)
	for i := 0; i < len(c.steps); {
		if e := c.steps[i].event; e != nil {
			if err := p.event(c, &c.steps[i]); err != nil {
				return nil, nil, fmt.Errorf("event %d at %s: %w", c.steps[i].index+1, c.steps[i].at.Sub(c.start), err)
			}
			i++
			continue
		}
		var frame []telemetry.Reading
		at := c.steps[i].at
		for ; i < len(c.steps) && c.steps[i].event == nil && c.steps[i].at.Equal(at); i++ {
			frame = append(frame, *c.steps[i].reading)
		}
		p.outcome.Readings += len(frame)
		p.evaluate(at, frame)
	}
	p.evaluate(c.end, nil)
	p.outcome.Differences = append(p.outcome.Differences, compare(s, c, g, p.outcome.Transitions)...)
	sortDifferences(p.outcome.Differences)
	return &p.outcome, nil, nil
}

// A player plays one scenario.
type player struct {
	ground  *Ground
	engine  Engine
	board   *telemetry.Board
	outcome Outcome
}

func (p *player) evaluate(at time.Time, frame []telemetry.Reading) {
	for _, t := range p.engine.Evaluate(at, frame) {
		if next, isNew := p.board.Step(t); isNew {
			p.apply(next)
		}
	}
}

func (p *player) apply(t telemetry.Transition) {
	p.board.Apply(t)
	p.outcome.Transitions = append(p.outcome.Transitions, t)
}

func (p *player) event(c *course, st *step) (err error) {
	e := st.event
	switch {
	case e.Down > 0:
		// The tick is what the gateway wrote last: timers up to there went off.
		p.evaluate(e.At.From(c.start), []telemetry.Reading{record(telemetry.KindTick, "n", 1)})
		p.evaluate(st.at, []telemetry.Reading{record(telemetry.KindStart, "down_s", e.Down.Std().Seconds())})
	case e.Clock > 0:
		p.evaluate(e.At.From(c.start), []telemetry.Reading{record(telemetry.KindTick, "n", 1)})
		p.evaluate(st.at, []telemetry.Reading{record(telemetry.KindClock, "jump_s", e.Clock.Std().Seconds())})
	case e.Restart:
		p.evaluate(st.at, nil)
		p.engine, err = p.ground.Restart(p.engine)
	case len(e.Rules) > 0:
		p.evaluate(st.at, p.ground.Changes[st.index])
	case e.Do != "":
		p.evaluate(st.at, nil)
		p.act(c, st)
	}
	return err
}

func record(kind, name string, number float64) telemetry.Reading {
	return telemetry.Reading{Device: gatewayName, Kind: kind, Site: gatewayName, Values: []telemetry.Value{{Name: name, Number: number}}}
}

// act does what an operator does with the newest warning of a rule and device.
// An act that the gateway would refuse is a difference.
func (p *player) act(c *course, st *step) {
	e := st.event
	act := telemetry.Act{Do: e.Do, By: e.By, At: st.at, Text: e.Text}
	if e.Until != nil {
		until := e.Until.From(c.start)
		act.Until = &until
	}
	for i := len(p.outcome.Transitions) - 1; i >= 0 && act.ID == ""; i-- {
		if t := &p.outcome.Transitions[i]; t.Rule == e.Rule && t.Device == e.Device {
			act.ID, act.N = t.ID, t.N
		}
	}
	d := Difference{At: st.at, Expect: -1, Event: st.index, Want: fmt.Sprintf("%s by %s of %s %s", e.Do, e.By, e.Rule, e.Device)}
	if act.ID == "" {
		d.Got = "no such warning was raised until then"
		p.outcome.Differences = append(p.outcome.Differences, d)
		return
	}
	next, err := p.board.Act(act)
	if err != nil {
		d.Got = "refused: " + err.Error()
		p.outcome.Differences = append(p.outcome.Differences, d)
		return
	}
	p.apply(next)
}

// Check returns the faults of a scenario that Run would return, and those of
// names that its ground does not know.
func Check(s *Scenario, g *Ground) []telemetry.Fault {
	c, faults := lay(s, g)
	if len(faults) > 0 {
		return faults
	}
	sends := map[string]bool{}
	for _, st := range c.steps {
		if st.reading != nil {
			sends[st.reading.Device] = true
		}
	}
	check := func(at, rule, device string) {
		if _, ok := g.On[rule]; !ok && rule != "" {
			faults = append(faults, telemetry.Faultf(at+".rule", "rule %q is not in force here; there are %s", rule, strings.Join(sortedKeys(g.On), ", ")))
		}
		if device != "" && !sends[device] && g.Devices.Device(device) == nil {
			faults = append(faults, telemetry.Faultf(at+".device", "device %q neither sends anything here nor is registered", device))
		}
	}
	for i := range s.Expect {
		check(fmt.Sprintf("expect[%d]", i), s.Expect[i].Rule, s.Expect[i].Device)
	}
	for i := range s.Never {
		check(fmt.Sprintf("never[%d]", i), s.Never[i].Rule, s.Never[i].Device)
	}
	for i := range s.Events {
		check(fmt.Sprintf("events[%d]", i), s.Events[i].Rule, s.Events[i].Device)
	}
	return faults
}
