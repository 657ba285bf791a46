package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"haidang/gateway/config"
	"haidang/gateway/console"
	"haidang/gateway/scenario"
	"haidang/gateway/telemetry"
)

// A drill is an exercise: a scenario that is played on an engine of its own with
// the rules in force, and whose warnings go the way of real ones, marked. It is
// in memory only: a gateway that starts ends what a drill has left.
type drill struct {
	mu      sync.Mutex
	now     *exercise      // nil: none runs
	stop    func()         // ends the one that runs, and waits for that
	pending chan *exercise // to runDrills; nil: nothing runs yet
}

// An exercise is one run of a drill.
type exercise struct {
	Scenario string    `json:"scenario"`
	By       string    `json:"by"`
	Why      string    `json:"why"`
	Speed    float64   `json:"speed"` // of the scenario's time
	Began    time.Time `json:"began"`
	Ends     time.Time `json:"ends"` // of its last step
	Steps    int       `json:"steps"`
	Done     int       `json:"done"` // steps that were played

	course []telemetry.Transition
	from   time.Time     // log time of the scenario's start
	last   time.Duration // how long it is to take, instead of a speed; 0: by its speed
}

// Bounds of a drill.
const (
	maxDrill      = 24 * time.Hour
	maxDrillSteps = 10_000
	maxDrillSpeed = 1e6
	maxDrillBy    = 128 // letters
	maxDrillWhy   = 1000
)

// status returns the exercise that runs, or nil.
func (d *drill) status() any {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now == nil {
		return nil
	}
	now := *d.now
	return &now
}

// actOnDrill starts or ends an exercise, as the body asks.
func (g *instance) actOnDrill(ctx context.Context, body []byte, by string) (any, error) {
	var in struct {
		Do    string  `json:"do"`
		File  string  `json:"scenario"` // text of a scenario file
		Name  string  `json:"name"`     // of one of its scenarios; default the only one
		Speed float64 `json:"speed"`    // default 1
		Path  string  `json:"file"`     // instead of the text: one of GET /api/v1/drill/scenarios
		plainExercise
		By  string `json:"by"`
		Why string `json:"why"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&in)
	if _, unknown, ok := strings.Cut(fmt.Sprint(err), `unknown field "`); ok {
		return nil, fmt.Errorf("%s: this field is not known; expected do, scenario, file, name, speed, last, device, severity, text, by, why", strings.TrimSuffix(unknown, `"`))
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return nil, fmt.Errorf("%s: a %s is no %s", wrong.Field, wrong.Value, wrong.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("the body is not an object of do, scenario, file, name, speed, last, device, severity, text, by, why (%w)", err)
	}
	if _, trailing := decoder.Token(); trailing != io.EOF {
		return nil, errors.New("something follows the object")
	}
	if by == "" {
		by = in.By
	}
	switch {
	case by == "":
		return nil, errors.New("by: who acts is missing")
	case utf8.RuneCountInString(by) > maxDrillBy:
		return nil, fmt.Errorf("by: the name has over %d letters", maxDrillBy)
	case strings.TrimSpace(in.Why) == "":
		return nil, errors.New("why: the reason is missing")
	case utf8.RuneCountInString(in.Why) > maxDrillWhy:
		return nil, fmt.Errorf("why: the reason has over %d letters", maxDrillWhy)
	case in.Do == "end":
		return g.endDrill(ctx, by, in.Why)
	case in.Do != "start":
		return nil, fmt.Errorf("do: %q is not one of start, end", in.Do)
	}
	if in.Speed == 0 {
		in.Speed = 1
	}
	if !(in.Speed > 0 && in.Speed <= maxDrillSpeed) {
		return nil, fmt.Errorf("speed: %v is not over 0 and up to %v", in.Speed, maxDrillSpeed)
	}
	x := &exercise{By: by, Why: in.Why, Speed: in.Speed, last: in.Last.Std()}
	if in.Device != "" {
		err = g.plain(x, in.plainExercise)
	} else {
		if in.Path != "" {
			in.File, err = g.scenarioText(in.Path)
		}
		if err == nil {
			err = g.rehearse(x, in.File, in.Name)
		}
	}
	if err != nil {
		return nil, err
	}
	return g.startDrill(x)
}

// rehearse plays a scenario in its own time and keeps its course.
func (g *instance) rehearse(x *exercise, text, name string) error {
	doc, err := config.Parse("scenario", []byte(text))
	if err != nil {
		return fmt.Errorf("scenario: %w", err)
	}
	var file scenario.File
	if faults := doc.Decode(&file); len(faults) > 0 {
		return fmt.Errorf("scenario: %w", faults)
	}
	if faults := doc.Locate(file.Validate()); len(faults) > 0 {
		return fmt.Errorf("scenario: %w", faults)
	}
	var names []string
	var played *scenario.Scenario
	for i := range file.Scenarios {
		names = append(names, file.Scenarios[i].Name)
		if s := &file.Scenarios[i]; s.Name == name || name == "" && len(file.Scenarios) == 1 {
			played = s
		}
	}
	if played == nil {
		return fmt.Errorf("name: %q is not one of the scenarios: %s", name, strings.Join(names, "; "))
	}
	document, ok := g.evaluator.engine.Document()
	if !ok {
		return fmt.Errorf("%w: no rules are in force yet", console.ErrUnavailable)
	}
	ground, faults := newGround(document)
	if len(faults) > 0 {
		return faults
	}
	played.Events = slices.DeleteFunc(played.Events, func(e scenario.Event) bool {
		return e.Do != "" || len(e.Rules) > 0 // those who take part act themselves, with the rules of today
	})
	outcome, wrong, err := scenario.Run(played, ground)
	if err != nil {
		return fmt.Errorf("scenario: %w", err)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("scenario: %w", config.Faults(doc.Locate(wrong)))
	}
	x.Scenario, x.from = played.Name, outcome.Start
	plays := map[string]bool{} // others are only silent because nobody plays them
	for i := range played.Series {
		plays[played.Series[i].Device] = true
	}
	for i := range played.Readings {
		plays[played.Readings[i].Device] = true
	}
	for _, t := range outcome.Transitions {
		if t.Act == nil && !t.Shadow && plays[t.Device] {
			x.course = append(x.course, t)
		}
	}
	x.Steps = len(x.course)
	if x.Steps == 0 {
		return fmt.Errorf("scenario: %q raises no warning with the rules in force", played.Name)
	}
	if length := x.course[x.Steps-1].At.Sub(x.from); x.last > 0 && length > 0 {
		x.Speed = min(length.Seconds()/x.last.Seconds(), maxDrillSpeed)
	}
	if last := x.after(x.Steps - 1); x.Steps > maxDrillSteps || last > maxDrill {
		return fmt.Errorf("speed: the drill would have %d steps in %s; expected at most %d in %s", x.Steps, last.Round(time.Second), maxDrillSteps, maxDrill)
	}
	return nil
}

// after is when a step is played, from the beginning.
func (x *exercise) after(i int) time.Duration {
	return time.Duration(float64(x.course[i].At.Sub(x.from)) / x.Speed)
}

func (g *instance) startDrill(x *exercise) (any, error) {
	d := &g.drill
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending == nil {
		return nil, fmt.Errorf("%w: the gateway is starting", console.ErrUnavailable)
	}
	if d.now != nil {
		return nil, fmt.Errorf("the exercise %q by %s runs since %s: %w", d.now.Scenario, d.now.By, clockTime(d.now.Began), telemetry.ErrConflict)
	}
	x.Began = g.now()
	x.Ends = x.Began.Add(x.after(x.Steps - 1))
	if err := g.first(auditEntry{At: x.Began, By: x.By, Do: "drill.start", On: x.Scenario, Why: x.Why, Changes: []string{
		fmt.Sprintf("%s, %g times as fast as written", tally(x.Steps, "step", "steps"), x.Speed)}}); err != nil {
		return nil, err
	}
	d.now = x
	select {
	case <-d.pending: // it was ended before it began
	default:
	}
	d.pending <- x
	g.logger.Info("an exercise begins", "scenario", x.Scenario, "by", x.By, "why", x.Why, "steps", x.Steps)
	shown := *x
	return &shown, nil
}

// endDrill ends the exercise that runs, and clears what drills have raised.
func (g *instance) endDrill(ctx context.Context, by, why string) (any, error) {
	d := &g.drill
	d.mu.Lock()
	if d.now != nil {
		if err := g.first(auditEntry{At: g.now(), By: by, Do: "drill.end", On: d.now.Scenario, Why: why, Changes: []string{
			fmt.Sprintf("%d of %s were played", d.now.Done, tally(d.now.Steps, "step", "steps"))}}); err != nil {
			d.mu.Unlock()
			return nil, err
		}
	}
	x, stop := d.now, d.stop
	d.now, d.stop = nil, nil
	d.mu.Unlock()
	if stop != nil {
		stop()
	}
	if err := g.centre.endExercises(ctx, g.now()); err != nil {
		return nil, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	if x == nil {
		return nil, errors.New("no exercise runs; what was left of one is cleared")
	}
	g.logger.Info("an exercise ends", "scenario", x.Scenario, "by", by, "why", why, "done", x.Done)
	return nil, nil
}

// runDrills plays exercises until ctx ends. It begins by clearing what one has
// left that ended with the program.
func (g *instance) runDrills(ctx context.Context) {
	if err := g.centre.endExercises(ctx, g.now()); err != nil && ctx.Err() == nil {
		g.logger.Error("the warnings of an exercise that was cut off cannot be cleared; haidang drill end tries again", "error", err)
	}
	d := &g.drill
	d.mu.Lock()
	d.pending = make(chan *exercise, 1)
	d.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-d.pending:
			within, stop := context.WithCancel(ctx)
			ended := make(chan struct{})
			d.mu.Lock()
			runs := d.now == x
			if runs {
				d.stop = func() { stop(); <-ended }
			}
			d.mu.Unlock()
			if runs {
				g.playDrill(within, x)
			}
			close(ended)
			stop()
		}
	}
}

// playDrill writes the course of an exercise at its pace. Its warnings last until
// the drill is ended, or the scenario clears them.
func (g *instance) playDrill(ctx context.Context, x *exercise) {
	for i := range x.course {
		if !wait(ctx, x.Began.Add(x.after(i)).Sub(g.now())) {
			return
		}
		step := x.course[i]
		step.At, step.Exercise = g.now(), true
		step.Start = x.Began.Add(time.Duration(float64(step.Start.Sub(x.from)) / x.Speed))
		step.ID = fmt.Sprintf("drill-%d-%s", x.Began.Unix(), step.ID)
		if err := g.centre.Step(ctx, []telemetry.Transition{step}); err != nil {
			if ctx.Err() == nil {
				g.logger.Error("a step of an exercise cannot be written and is left out", "warning", step.ID, "error", err)
			}
			continue
		}
		g.drill.mu.Lock()
		x.Done++
		g.drill.mu.Unlock()
	}
	g.drill.mu.Lock()
	defer g.drill.mu.Unlock()
	if g.drill.now == x {
		g.drill.now, g.drill.stop = nil, nil
		g.record(auditEntry{At: g.now(), Do: "drill.over", On: x.Scenario, Why: "its last step is played"})
	}
}
