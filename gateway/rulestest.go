package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/config"
	"haidang/gateway/scenario"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// scenarioSuffix ends the name of a scenario file; before it stands the name of
// the rule file that it tests.
const scenarioSuffix = ".test.yaml"

type rulesTestOptions struct {
	pattern, junit string
	verbose        bool
}

func rulesTestVerb() verb {
	var o rulesTestOptions
	return verb{
		name: "test", args: "[--run PATTERN] [--junit FILE] [-v] FILE|FOLDER...",
		short: "play scenarios (*" + scenarioSuffix + ") and compare the warnings with what they expect",
		example: `haidang rules test rules/
haidang rules test -v --run 'flood of 27 October' rules/flood.test.yaml
haidang rules test --junit report.xml rules/`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&o.pattern, "run", "", "play only the scenarios of which file and name match this regular expression")
			f.StringVar(&o.junit, "junit", "", "also write the results as JUnit XML to this file")
			f.BoolVarP(&o.verbose, "verbose", "v", false, "print every scenario and the transitions that it brought")
		},
		run: func(_ context.Context, env environment, args []string) error { return o.run(env, args) },
	}
}

func (o *rulesTestOptions) run(env environment, args []string) error {
	wanted, err := regexp.Compile(o.pattern)
	if err != nil {
		return usagef("--run: %v", err)
	}
	if len(args) == 0 {
		args = []string{"."}
	}
	names, err := scenarioFiles(args)
	if err != nil {
		return err
	}
	var bundles []*scenarioBundle
	var faults config.Faults
	for _, name := range names {
		b, more := loadScenarios(name, wanted)
		b.faults = more
		faults = append(faults, more...)
		bundles = append(bundles, b)
	}
	if len(faults) > 0 {
		return errors.Join(faults, o.report(brokenSuites(bundles)))
	}
	var suites []scenario.Suite
	played, failed := 0, 0
	for _, b := range bundles {
		suite, n, err := b.play(env.stdout, o.verbose)
		if err != nil {
			return err
		}
		played, failed = played+len(suite.Cases), failed+n
		suites = append(suites, suite)
	}
	if err := o.report(suites); err != nil {
		return err
	}
	switch {
	case played == 0:
		return fmt.Errorf("no scenario matches %q", o.pattern)
	case failed > 0:
		return fmt.Errorf("%d of %s failed", failed, count(played, "scenario"))
	}
	_, err = fmt.Fprintf(env.stdout, "well: %s\n", count(played, "scenario"))
	return err
}

// report writes the JUnit file if one is asked for.
func (o *rulesTestOptions) report(suites []scenario.Suite) error {
	if o.junit == "" {
		return nil
	}
	file, err := os.Create(o.junit)
	if err != nil {
		return err
	}
	return errors.Join(scenario.WriteJUnit(file, suites), file.Close())
}

// brokenSuites tells a continuous build of files that could not be read.
func brokenSuites(bundles []*scenarioBundle) []scenario.Suite {
	var suites []scenario.Suite
	for _, b := range bundles {
		if len(b.faults) > 0 {
			suites = append(suites, scenario.Suite{Name: b.name, Cases: []scenario.Case{{Name: "read", Error: b.faults.Error()}}})
		}
	}
	return suites
}

// scenarioFiles returns the scenario files that the arguments name: themselves,
// those beside rule files, and those in folders.
func scenarioFiles(args []string) ([]string, error) {
	var names []string
	for _, arg := range args {
		stat, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !stat.IsDir() {
			beside := strings.TrimSuffix(arg, filepath.Ext(arg)) + scenarioSuffix
			if _, err := os.Stat(beside); err == nil && !strings.HasSuffix(arg, scenarioSuffix) {
				arg = beside
			}
			names = append(names, arg)
			continue
		}
		before := len(names)
		err = filepath.WalkDir(arg, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(path, scenarioSuffix) {
				names = append(names, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(names) == before {
			return nil, usagef("no *%s in %s", scenarioSuffix, arg)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// A scenarioBundle is a scenario file with what its scenarios are played on.
type scenarioBundle struct {
	name    string
	doc     *config.Document
	file    scenario.File
	grounds []*scenario.Ground // by scenario; nil when it was not asked for
	faults  config.Faults      // then it is not played
}

// loadScenarios reads a scenario file and everything that it names.
func loadScenarios(name string, wanted *regexp.Regexp) (*scenarioBundle, config.Faults) {
	b := &scenarioBundle{name: name, doc: &config.Document{Name: name}}
	in := folder{dir: filepath.Dir(name)}
	doc, err := in.open(filepath.Base(name))
	if err != nil {
		l := loader{}
		l.fail(err)
		return b, l.faults
	}
	b.doc = doc
	faults := doc.Decode(&b.file)
	faults = append(faults, unsaid(faults, doc.Locate(b.file.Validate()))...)
	if len(faults) > 0 {
		return b, faults
	}
	b.grounds = make([]*scenario.Ground, len(b.file.Scenarios))
	for i := range b.file.Scenarios {
		s := &b.file.Scenarios[i]
		if !wanted.MatchString(name + ": " + s.Name) {
			continue
		}
		at := fmt.Sprintf("scenarios[%d]", i)
		only := b.file.Only
		if s.Only != nil {
			only = s.Only
		}
		ground, more := b.ground(in, only, b.file.Rules)
		if len(more) > 0 {
			return b, more // of all scenarios alike
		}
		for j := range s.Events {
			if len(s.Events[j].Rules) == 0 {
				continue
			}
			other, more := b.ground(in, nil, s.Events[j].Rules)
			if len(more) > 0 {
				return b, more
			}
			ground.Changes[j] = other.Control
			for rule, on := range other.On {
				ground.On[rule] = cmp.Or(ground.On[rule], on)
			}
		}
		faults = append(faults, doc.Locate(telemetry.Under(at, scenario.Check(s, ground)))...)
		b.grounds[i] = ground
	}
	return b, faults
}

// ground compiles what a scenario is played on.
func (b *scenarioBundle) ground(in folder, only, patterns []string) (*scenario.Ground, config.Faults) {
	l := loader{in: in, own: folder{inside: builtin}, doc: b.doc}
	document, parts, faults := b.base(&l, in)
	if len(faults) > 0 {
		return nil, faults
	}
	if patterns == nil && b.file.Config == "" {
		patterns = []string{strings.TrimSuffix(filepath.Base(b.name), scenarioSuffix) + ".yaml"}
	}
	if patterns != nil {
		document.Rules, parts["rules"] = l.rules(patterns)
		document.Limits, parts["limits"] = l.limits, l.limitParts
	}
	if len(l.faults) > 0 {
		return nil, l.faults
	}
	if _, wrong := rules.Compile(document); len(wrong) > 0 {
		return nil, placeAll(wrong, parts, b.doc)
	}
	if wrong := keepOnly(&document, only); wrong != nil {
		return nil, b.doc.Locate([]telemetry.Fault{*wrong})
	}
	return newGround(document)
}

// base is the document without its rules, unless a configuration brings them.
func (b *scenarioBundle) base(l *loader, in folder) (rules.Document, map[string][]part, config.Faults) {
	var document rules.Document
	parts := map[string][]part{}
	if b.file.Config != "" {
		at := in.path(b.file.Config)
		_, w, err := loadConfiguration(folder{dir: filepath.Dir(at)}, filepath.Base(at), nil)
		if err != nil {
			l.fail(err)
			return document, parts, l.faults
		}
		document = w.document
	}
	if b.file.Kinds != "" || b.file.Config == "" {
		document.Kinds, parts["kinds"] = l.kinds(b.file.Kinds)
	}
	if b.file.Registry != "" {
		document.Devices, parts["devices"] = l.devices(b.file.Registry)
	}
	parts["devices"] = append(parts["devices"], part{b.doc, len(document.Devices)})
	document.Devices = append(slices.Clone(document.Devices), b.file.Devices...)
	if b.file.Zones != "" {
		document.Zones = l.zones(b.file.Zones)
	}
	if len(l.faults) == 0 {
		var err error
		if document.Zones, err = scenario.GeoJSON(document.Zones, b.file.Areas); err != nil {
			l.faults = b.doc.Locate([]telemetry.Fault{telemetry.Faultf("areas", "%v", err)})
		}
	}
	return document, parts, l.faults
}

// keepOnly leaves the named rules in the document.
func keepOnly(document *rules.Document, only []string) *telemetry.Fault {
	if only == nil {
		return nil
	}
	var names []string
	for _, r := range document.Rules {
		names = append(names, r.Name)
	}
	for _, name := range only {
		if !slices.Contains(names, name) {
			f := telemetry.Faultf("only", "no rule %q is there; there are %s", name, strings.Join(names, ", "))
			return &f
		}
	}
	gone := func(name string) bool { return !slices.Contains(only, name) }
	document.Rules = slices.DeleteFunc(slices.Clone(document.Rules), func(r rules.Rule) bool { return gone(r.Name) })
	for i := range document.Rules {
		r := &document.Rules[i] // what is not there inhibits nothing
		r.InhibitedBy = slices.DeleteFunc(slices.Clone(r.InhibitedBy), gone)
	}
	return nil
}

func newGround(document rules.Document) (*scenario.Ground, config.Faults) {
	control, err := rules.ControlReadings("gateway", document)
	if err != nil {
		return nil, config.Faults{{Fault: telemetry.Faultf("", "%v", err)}}
	}
	g := &scenario.Ground{
		Control: control, Changes: map[int][]telemetry.Reading{}, On: map[string]string{},
		New:     func() scenario.Engine { return newTrialEngine() },
		Restart: restartEngine,
	}
	g.Kinds, _ = telemetry.NewCatalogue(document.Kinds) // Compile has found no fault
	g.Devices, _ = telemetry.NewRegistry(document.Devices, g.Kinds)
	for _, r := range document.Rules {
		g.On[r.Name] = r.On
	}
	return g, nil
}

// A trialEngine is the engine of scenarios and backtests: it also gives the
// transitions of rules in shadow, which a gateway delivers to nobody.
type trialEngine struct {
	*rules.Engine
	shadow []telemetry.Transition
}

func newTrialEngine() *trialEngine {
	t := &trialEngine{}
	t.Engine = rules.NewEngine(rules.Options{Shadow: func(x telemetry.Transition) { t.shadow = append(t.shadow, x) }})
	return t
}

// Evaluate implements scenario.Engine and backtest.Engine.
func (t *trialEngine) Evaluate(received time.Time, readings []telemetry.Reading) []telemetry.Transition {
	out := t.Engine.Evaluate(received, readings)
	if len(t.shadow) == 0 {
		return out
	}
	out = append(out, t.shadow...)
	t.shadow = t.shadow[:0]
	slices.SortStableFunc(out, func(a, b telemetry.Transition) int { return a.At.Compare(b.At) })
	return out
}

// restartEngine does what a gateway does that is stopped and started.
func restartEngine(e scenario.Engine) (scenario.Engine, error) {
	state, err := e.(*trialEngine).Checkpoint()
	if err != nil {
		return nil, err
	}
	next := newTrialEngine()
	return next, next.Restore(state)
}

// play plays the scenarios of the file and prints what came of them.
func (b *scenarioBundle) play(out io.Writer, verbose bool) (suite scenario.Suite, failed int, err error) {
	suite.Name = b.name
	began := time.Now()
	for i := range b.file.Scenarios {
		if b.grounds[i] == nil {
			continue
		}
		s := &b.file.Scenarios[i]
		began := time.Now()
		outcome, faults, err := scenario.Run(s, b.grounds[i])
		if err == nil && len(faults) > 0 {
			err = b.doc.Locate(telemetry.Under(fmt.Sprintf("scenarios[%d]", i), faults))
		}
		if err != nil {
			return suite, failed, fmt.Errorf("%s: %s: %w", b.name, s.Name, err)
		}
		c := scenario.Case{Name: s.Name, Took: time.Since(began), Failure: b.tell(i, outcome)}
		suite.Cases = append(suite.Cases, c)
		if c.Failure != "" {
			failed++
			fmt.Fprintf(out, "FAIL  %s  %s\n%s", b.at(fmt.Sprintf("scenarios[%d]", i)), s.Name, c.Failure)
		} else if verbose {
			fmt.Fprintf(out, "ok    %s  (%s, %s)\n", s.Name, count(outcome.Readings, "reading"), count(len(outcome.Transitions), "transition"))
		}
		if verbose {
			for j := range outcome.Transitions {
				t := &outcome.Transitions[j]
				fmt.Fprintf(out, "        %-9s %s\n", scenario.Offset(outcome.Start, t.At), scenario.Tell(t))
			}
		}
	}
	if failed == 0 && len(suite.Cases) > 0 {
		fmt.Fprintf(out, "ok    %s  %s  (%d ms)\n", b.name, count(len(suite.Cases), "scenario"), time.Since(began).Milliseconds())
	}
	return suite, failed, nil
}

// at returns file and line of a path.
func (b *scenarioBundle) at(path string) string {
	f := b.doc.Locate([]telemetry.Fault{{Path: path}})[0]
	return fmt.Sprintf("%s:%d", f.File, f.Line)
}

// tell writes how an outcome differs from what was expected, "" when it does not.
func (b *scenarioBundle) tell(i int, o *scenario.Outcome) string {
	var text strings.Builder
	for _, d := range o.Differences {
		where, want, got := "", d.Want, "got       "+d.Got
		switch {
		case d.Expect >= 0:
			where = b.at(fmt.Sprintf("scenarios[%d].expect[%d]", i, d.Expect))
			want = "expected  " + want
		case d.Never > 0:
			where = b.at(fmt.Sprintf("scenarios[%d].never[%d]", i, d.Never-1))
			want = "expected  that this never happens"
		case want != "":
			where = b.at(fmt.Sprintf("scenarios[%d].events[%d]", i, d.Event))
			want = "expected  " + want
		default:
			want = "expected  nothing"
		}
		line := fmt.Sprintf("%-8s %s  %s", scenario.Offset(o.Start, d.At), d.At.In(vietnam).Format("2006-01-02 15:04:05"), where)
		fmt.Fprintf(&text, "      %s\n        %s\n        %s\n", strings.TrimSpace(line), want, got)
	}
	return text.String()
}

// jsonLine is used by verbs that print for programs.
func jsonLine(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
