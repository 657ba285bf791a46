package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"haidang/gateway/backtest"
	"haidang/gateway/config"
	"haidang/gateway/console"
	"haidang/gateway/influx"
	"haidang/gateway/rulebook"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// A draftFinding is what is wrong or odd in a draft, at its letters. Of another file
// the lines are 0.
type draftFinding struct {
	Level string `json:"level"` // error or warning
	File  string `json:"file"`
	config.Span
	Path       string `json:"path,omitempty"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"` // the word that was probably meant, for the letters of the span
}

// maxFindings bounds what is told of one draft: who has corrected that many is told
// the rest.
const maxFindings = 200

var meant = regexp.MustCompile(`[:;,] did you mean "?([^"?]+)"?\?`)

// tell makes findings of faults; doc is the draft, nil when there is none.
func tell(doc *config.Document, level string, faults config.Faults) []draftFinding {
	out := make([]draftFinding, 0, min(len(faults), maxFindings))
	for _, f := range faults[:min(len(faults), maxFindings)] {
		message, _, _ := strings.Cut(f.Want, "\n")
		if f.To > 0 { // expr tells the place within the expression as well
			message = expressionPlace.ReplaceAllString(message, "")
		}
		of := draftFinding{Level: level, File: f.File, Path: f.Path, Message: message}
		if m := meant.FindStringSubmatch(message); m != nil {
			of.Suggestion = m[1]
		}
		if doc != nil && f.File == doc.Name {
			of.Span = doc.Span(f)
		} else if f.Line > 0 {
			of.Message = fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Path, message)
		}
		out = append(out, of)
	}
	return out
}

var expressionPlace = regexp.MustCompile(` \(\d+:\d+\)$`)

// refusedText is the error of a text that cannot be in force.
func refusedText(doc *config.Document, faults config.Faults) error {
	return &console.RuleFaults{First: faults[0].String(), Faults: tell(doc, "error", faults)}
}

// readDraft puts a draft in the place of its file; without faults the world is
// compiled.
func (s *ruleState) readDraft(d console.RuleDraft) (*world, ruleSource, config.Faults, error) {
	if len(d.Text) > rulebook.MaxText {
		return nil, ruleSource{}, nil, fmt.Errorf("text: %d bytes are more than the %d that a rule file may have", len(d.Text), rulebook.MaxText)
	}
	source, faults := parseRules(d.File, d.Text)
	w, more := s.world.withRule(source)
	if faults = append(faults, unsaid(faults, more)...); len(faults) == 0 {
		faults = s.cfg.outOfReach(w)
	}
	return w, source, faults, nil
}

// checkDraft compiles a draft as `haidang rules check` does.
func (g *instance) checkDraft(_ context.Context, d console.RuleDraft) (any, error) {
	w, source, faults, err := g.edits.state.Load().readDraft(d)
	if err != nil {
		return nil, err
	}
	findings := tell(source.doc, "error", faults)
	if len(faults) == 0 {
		findings = append(findings, tell(source.doc, "warning", w.oddIn(source))...)
	}
	names := []string{}
	for _, r := range source.file.Rules {
		names = append(names, r.Name)
	}
	return struct {
		Findings []draftFinding `json:"findings"`
		Rules    []string       `json:"rules"`
	}{findings, names}, nil
}

// oddIn returns what is odd in one file.
func (w *world) oddIn(source ruleSource) (in config.Faults) {
	for _, o := range w.oddities() {
		if o.File == source.doc.Name {
			in = append(in, o.Fault)
		}
	}
	return in
}

// A trialRule is the rule of a draft with those that inhibit it, on its own.
type trialRule struct {
	rules.Document
	rule *rules.Rule
}

// alone cuts a document down to a rule and what may inhibit it. It is judged even
// where it is disabled.
func alone(document rules.Document, name string) (trialRule, error) {
	byName := map[string]*rules.Rule{}
	for i := range document.Rules {
		byName[document.Rules[i].Name] = &document.Rules[i]
	}
	if byName[name] == nil {
		return trialRule{}, fmt.Errorf("%w: there is no rule %q in the draft", console.ErrNoRuleFile, name)
	}
	needed := []string{name}
	for i := 0; i < len(needed); i++ {
		for _, other := range byName[needed[i]].InhibitedBy {
			if !slices.Contains(needed, other) && byName[other] != nil {
				needed = append(needed, other)
			}
		}
	}
	t := trialRule{Document: document}
	t.Rules = nil
	for _, n := range needed {
		r := *byName[n]
		r.Disabled = r.Disabled && n != name
		t.Rules = append(t.Rules, r)
	}
	t.rule = &t.Rules[0]
	return t, nil
}

// draftRule reads a draft for a trial of its rule.
func (g *instance) draftRule(d console.RuleDraft) (trialRule, *world, error) {
	w, source, faults, err := g.edits.state.Load().readDraft(d)
	if err != nil {
		return trialRule{}, nil, err
	}
	if len(faults) > 0 {
		return trialRule{}, nil, refusedText(source.doc, faults)
	}
	if !slices.ContainsFunc(source.file.Rules, func(r rules.Rule) bool { return r.Name == d.Rule }) {
		return trialRule{}, nil, fmt.Errorf("%w: there is no rule %q in the draft", console.ErrNoRuleFile, d.Rule)
	}
	t, err := alone(w.document, d.Rule)
	return t, w, err
}

// Bounds of a try by the newest readings.
const (
	maxTryBack    = 24 * time.Hour // of the past that fills windows
	maxTryFresh   = time.Hour      // after a start in which the past is looked at anyway
	maxTryDevices = 500            // that are told
	tryStore      = 6 * time.Second
)

// tryDraft judges the rule of a draft by the newest readings of each device, and
// where it has windows by the readings that fill them.
func (g *instance) tryDraft(ctx context.Context, d console.RuleDraft) (any, error) {
	t, w, err := g.draftRule(d)
	if err != nil {
		return nil, err
	}
	set, faults := rules.Compile(t.Document)
	if len(faults) > 0 {
		return nil, refusedText(nil, placeAll(faults, nil, w.doc))
	}
	answer := tried{Rule: t.rule.Name, On: t.rule.On, Counts: map[string]int{}}
	readings := g.newest()
	back := set.Lookback()
	if time.Since(g.since) < maxTryFresh { // what was heard before the start is in the store only
		back = max(back, maxTryFresh)
	}
	if back > 0 {
		past, cut := g.past(ctx, &t, min(back+2*time.Minute, maxTryBack))
		readings, answer.Cut = append(past, readings...), cut || back > maxTryBack
	}
	engine := rules.NewEngine(rules.Options{Shards: 1})
	control, err := rules.ControlReadings(g.cfg.Gateway, t.Document)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(readings, func(a, b telemetry.Reading) int { return a.Time.Add(a.Delay).Compare(b.Time.Add(b.Delay)) })
	now := g.now()
	begin := now
	if len(readings) > 0 {
		begin = readings[0].Time.Add(readings[0].Delay)
	}
	engine.Evaluate(begin, control)
	for i := range readings {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		engine.Evaluate(readings[i].Time.Add(readings[i].Delay), readings[i:i+1])
	}
	engine.Evaluate(now, nil)
	answer.Devices = engine.Look(t.rule.Name)
	answer.sort()
	answer.Value = chartValue(w, t.rule)
	return answer, nil
}

// tried is the answer of a try.
type tried struct {
	Rule    string         `json:"rule"`
	On      string         `json:"on"`
	Value   string         `json:"value,omitempty"` // of the rule's kind, to be drawn
	Counts  map[string]int `json:"counts"`          // of devices: true, false, missing, not_applied
	Devices []rules.Look   `json:"devices"`         // true ones first; at most maxTryDevices
	More    int            `json:"more,omitempty"`
	Cut     bool           `json:"cut,omitempty"` // its windows could not be filled as far as they go
}

func (t *tried) sort() {
	rank := func(l *rules.Look) int {
		switch {
		case !l.Applies:
			return 3
		case l.Verdict == "true":
			return 0
		case l.Verdict == "false":
			return 1
		}
		return 2
	}
	for i := range t.Devices {
		t.Counts[[]string{"true", "false", "missing", "not_applied"}[rank(&t.Devices[i])]]++
	}
	slices.SortStableFunc(t.Devices, func(a, b rules.Look) int { return rank(&a) - rank(&b) })
	if len(t.Devices) > maxTryDevices {
		t.More = len(t.Devices) - maxTryDevices
		t.Devices = t.Devices[:maxTryDevices]
	}
}

// newest returns the newest reading of each device and kind.
func (g *instance) newest() []telemetry.Reading {
	var out []telemetry.Reading
	known := g.intake.Known()
	for _, h := range g.intake.Heard() {
		site := h.Device
		if d := known.Devices.Device(h.Device); d != nil && d.Site != "" {
			site = d.Site
		}
		for _, l := range h.Latest {
			out = append(out, telemetry.Reading{Device: h.Device, Kind: l.Kind, Site: site, Time: l.Time, Values: l.Values, Quality: worst(l.Values), Source: h.Source})
		}
	}
	return out
}

func worst(values []telemetry.Value) telemetry.Quality {
	q := telemetry.Good
	for i := range values {
		q = max(q, values[i].Quality)
	}
	return q
}

// maxPastReadings bounds what a try reads of the past.
const maxPastReadings = 200_000

// past returns the readings that fill the windows of a rule; cut says that there
// was no time or room for all.
func (g *instance) past(ctx context.Context, t *trialRule, back time.Duration) (out []telemetry.Reading, cut bool) {
	ctx, cancel := context.WithTimeout(ctx, tryStore)
	defer cancel()
	now := g.now()
	o := backtestOptions{document: t.Document, catalogue: g.intake.Known().Kinds}
	for r, err := range g.store.Readings(ctx, influx.Range{From: now.Add(-back), To: now, Kinds: o.kinds()}) {
		if err != nil {
			return out, true
		}
		if out = append(out, r); len(out) == maxPastReadings {
			return out, true
		}
	}
	return out, false
}

var identifier = regexp.MustCompile(`[\p{L}_][\p{L}\p{N}_]*`)

// chartValue is the first value of its own kind that a rule names.
func chartValue(w *world, r *rules.Rule) string {
	kind := w.Kinds.Kind(r.On)
	if kind == nil {
		return ""
	}
	text := r.When
	for i := range r.Levels {
		text += " " + r.Levels[i].When
	}
	for _, word := range identifier.FindAllString(text, -1) {
		if q := kind.Quantity(word); q != nil && !q.Words {
			return word
		}
	}
	return ""
}

// Bounds of the answer of a backtest.
const (
	maxTrialRows     = 200
	maxTrialEpisodes = 2000
	trialWarmUp      = 24 * time.Hour
)

// backtestDraft tells what the rule of a draft would have raised, beside what the
// one in force would have.
func (g *instance) backtestDraft(ctx context.Context, d console.RuleTrial, progress func(share float64)) (any, error) {
	t, w, err := g.draftRule(d.RuleDraft)
	if err != nil {
		return nil, err
	}
	o := backtestOptions{
		document: t.Document, catalogue: w.Kinds, registry: w.Devices, only: []string{t.rule.Name},
		begin: d.From, end: d.To,
	}
	if d.Device != "" {
		o.devices = []string{d.Device}
	}
	trial, err := newTrial(t.Document)
	if err != nil {
		return nil, err
	}
	trials := []*backtest.Trial{trial}
	if document, ok := g.evaluator.engine.Document(); ok {
		if live, err := alone(document, t.rule.Name); err == nil {
			o.compare, o.live = true, live.Document
			before, err := newTrial(live.Document)
			if err != nil {
				return nil, err
			}
			trials = append(trials, before)
		}
	}
	from := o.begin.Add(-trialWarmUp)
	span := o.end.Sub(from)
	readings := g.store.Readings(ctx, influx.Range{From: from, To: o.end, Kinds: o.kinds(), Devices: o.mates()})
	err = backtest.Run(ctx, readings, backtest.Options{
		From: o.begin, To: o.end, Wanted: o.wanted,
		Progress: func(_ int, at time.Time) { progress(float64(at.Sub(from)) / float64(span)) },
	}, trials...)
	if err != nil {
		return nil, err
	}
	answer := trialAnswer{Rule: t.rule.Name, On: t.rule.On, Value: chartValue(w, t.rule), New: bounded(&trials[0].Report)}
	if len(trials) > 1 {
		c := backtest.Compare(&trials[1].Report, &trials[0].Report)
		live := bounded(&trials[1].Report)
		answer.Live = &live
		answer.Compared = map[string]int{"same": c.Same, "changed": len(c.Changed), "only_live": len(c.OnlyOld), "only_new": len(c.OnlyNew)}
	}
	return answer, nil
}

// trialAnswer is the answer of a backtest.
type trialAnswer struct {
	Rule     string         `json:"rule"`
	On       string         `json:"on"`
	Value    string         `json:"value,omitempty"` // of the rule's kind, to be drawn
	New      trialReport    `json:"new"`
	Live     *trialReport   `json:"live,omitempty"` // of the rule of this name that is in force
	Compared map[string]int `json:"compared,omitempty"`
}

type trialReport struct {
	*backtest.Report
	Raised int  `json:"raised"`
	Cut    bool `json:"cut,omitempty"` // rows or warnings are left out
}

// bounded leaves out what is too much for a page: the devices that raised least,
// and warnings beyond the first.
func bounded(r *backtest.Report) trialReport {
	out := trialReport{Report: r, Raised: r.Raised()}
	short := *r
	short.Rows = slices.Clone(r.Rows)
	slices.SortStableFunc(short.Rows, func(a, b *backtest.Row) int { return b.Raised - a.Raised })
	if len(short.Rows) > maxTrialRows {
		short.Rows, out.Cut = short.Rows[:maxTrialRows], true
	}
	left := maxTrialEpisodes
	for i, row := range short.Rows {
		cut := *row
		if len(cut.Episodes) > left {
			cut.Episodes, out.Cut = cut.Episodes[:left], true
		}
		left -= len(cut.Episodes)
		short.Rows[i] = &cut
	}
	if short.Rows == nil {
		short.Rows = []*backtest.Row{}
	}
	out.Report = &short
	return out
}
