package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"haidang/gateway/scenario"
	"haidang/gateway/telemetry"
)

// A scenarioFile is a file of scenarios beside the rule files.
type scenarioFile struct {
	in   folder
	name string
}

// A playable scenario can be an exercise: the devices that it plays are those of
// this gateway.
type playableScenario struct {
	File    string   `json:"file"`
	Name    string   `json:"name"`
	Devices []string `json:"devices"`
}

// maxPlayable bounds the scenarios that are listed.
const maxPlayable = 500

// scenarios returns what can be played as an exercise, by file. A file with a
// fault is left out: haidang rules test says what is wrong with it.
func (g *instance) scenarios() []playableScenario {
	out := []playableScenario{}
	known := g.intake.Known().Devices
	for _, f := range g.scenarioFiles() {
		file, err := f.open()
		if err != nil {
			continue
		}
		for i := range file.Scenarios {
			s := &file.Scenarios[i]
			played := playedBy(s)
			unknown := slices.ContainsFunc(played, func(id string) bool { return known.Device(id) == nil })
			if !unknown && len(played) > 0 && len(out) < maxPlayable {
				out = append(out, playableScenario{f.name, s.Name, played})
			}
		}
	}
	return out
}

// scenarioFiles returns the files that the configuration in force names.
func (g *instance) scenarioFiles() []scenarioFile {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	return g.files.scenarios
}

func (f *scenarioFile) open() (scenario.File, error) {
	var file scenario.File
	doc, err := f.in.open(f.name)
	if err != nil {
		return file, err
	}
	if faults := append(doc.Decode(&file), doc.Locate(file.Validate())...); len(faults) > 0 {
		return file, faults
	}
	return file, nil
}

// playedBy returns the devices that a scenario has report, each once.
func playedBy(s *scenario.Scenario) []string {
	var out []string
	for i := range s.Series {
		out = append(out, s.Series[i].Device)
	}
	for i := range s.Readings {
		out = append(out, s.Readings[i].Device)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// scenarioText reads one of the files of scenarios.
func (g *instance) scenarioText(name string) (string, error) {
	for _, f := range g.scenarioFiles() {
		if f.name != name {
			continue
		}
		text, err := f.in.read(name)
		if err != nil {
			return "", fmt.Errorf("file: %w", pathless(err))
		}
		return string(text), nil
	}
	return "", fmt.Errorf("file: %q is not one of the scenario files of this gateway", name)
}

// A plainExercise is one without a scenario: one warning about a device.
type plainExercise struct {
	Device   string             `json:"device"`
	Severity telemetry.Severity `json:"severity"` // default extreme
	Text     string             `json:"text"`     // what the warning says beside that it is an exercise
	Last     telemetry.Duration `json:"last"`     // default 1h; of a scenario: default by its speed
}

// plainRule is the rule that a plain exercise names.
const plainRule = "exercise"

// maxExerciseText bounds what the warning of a plain exercise says, in letters.
const maxExerciseText = 500

// plain makes the course of a plain exercise: raised at once, cleared at its end.
func (g *instance) plain(x *exercise, p plainExercise) error {
	d := g.intake.Known().Devices.Device(p.Device)
	switch {
	case d == nil:
		return fmt.Errorf("device: %q is not registered", p.Device)
	case utf8.RuneCountInString(p.Text) > maxExerciseText:
		return fmt.Errorf("text: it has %d letters; expected at most %d", utf8.RuneCountInString(p.Text), maxExerciseText)
	}
	if p.Severity == telemetry.NoSeverity {
		p.Severity = telemetry.Extreme
	}
	if p.Last == 0 {
		p.Last = telemetry.Duration(time.Hour)
	}
	if p.Last < telemetry.Duration(time.Second) || p.Last.Std() > maxDrill {
		return fmt.Errorf("last: %s is not in 1s..%s", p.Last, telemetry.Duration(maxDrill))
	}
	kind := plainRule
	if len(d.Kinds) > 0 {
		kind = d.Kinds[0]
	}
	text := strings.TrimSpace(p.Text)
	x.Scenario = text
	if text == "" {
		x.Scenario = d.Name
	}
	w := telemetry.Warning{
		ID: d.ID, N: 1, Rule: plainRule, Device: d.ID, Site: d.Site, Kind: kind, Severity: p.Severity, State: telemetry.Active,
		Message: telemetry.Text{VI: said(text, d.Name+": cảnh báo diễn tập"), EN: said(text, d.Name+": a warning of an exercise")},
	}
	x.from, x.Speed = time.Unix(0, 0).UTC(), 1
	w.Start, w.At = x.from, x.from
	over := w
	over.N, over.State, over.At = 2, telemetry.Cleared, x.from.Add(p.Last.Std())
	x.course = []telemetry.Transition{{Warning: w, Step: 1}, {Warning: over, Step: 2}}
	x.Steps = len(x.course)
	return nil
}

func said(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
