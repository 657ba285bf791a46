package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/config"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

func rulesCheckVerb() verb {
	var configuration string
	var strict bool
	return verb{
		name: "check", args: "[--config gateway.yaml] [FILE...]",
		short: "check rules as `haidang check` does, and warn of what is odd",
		example: `haidang rules check --config gateway.yaml
haidang rules check --config gateway.yaml rules/new.yaml
haidang rules check --strict rules/*.yaml

Files are checked instead of the configuration's own rules, against its kinds,
devices and zones. It warns of a rule that applies to no device, of a fact that
no device has, and of a window or a silence shorter than a device's interval.`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&configuration, "config", "", "configuration with kinds, devices, zones and rules (default: the built-in one)")
			f.BoolVar(&strict, "strict", false, "a warning is a failure: exit code 1")
		},
		run: func(_ context.Context, env environment, args []string) error {
			cfg, w, err := readConfiguration(configuration, nil)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				if err := w.replaceRules(args); err != nil {
					return err
				}
			}
			odd, err := w.oddities()
			if err != nil {
				return err
			}
			n := tellOdd(env.stdout, odd)
			if len(args) == 0 {
				more, err := tellEdits(env.stdout, cfg, w)
				if err != nil {
					return err
				}
				n += more
			}
			if strict && n > 0 {
				return fmt.Errorf("%s", count(n, "warning"))
			}
			_, err = fmt.Fprintf(env.stdout, "well: %s, %s\n", count(len(w.document.Rules), "rule"), count(n, "warning"))
			return err
		},
	}
}

// maxWaiting is how many rules of a file are told one by one when they apply to
// no device. The packs are files whose rules wait for devices with their facts.
const maxWaiting = 3

// tellOdd prints a line for each warning, and returns how many there are.
func tellOdd(out io.Writer, odd []oddity) int {
	waiting := map[string][]string{}
	for _, o := range odd {
		if o.waiting != "" {
			waiting[o.File] = append(waiting[o.File], o.waiting)
		}
	}
	n := 0
	for _, o := range odd {
		names := waiting[o.File]
		switch {
		case o.waiting == "" || len(names) <= maxWaiting:
			fmt.Fprintf(out, "warning: %s\n", o)
		case o.waiting == names[0]:
			fmt.Fprintf(out, "warning: %s: %s apply to no device: %s\n", o.File, count(len(names), "rule"), strings.Join(names, ", "))
		default:
			continue
		}
		n++
	}
	return n
}

// replaceRules puts the rules of these files in the place of the world's own.
func (w *world) replaceRules(patterns []string) error {
	doc := &config.Document{Name: strings.Join(patterns, " ")}
	l := loader{in: folder{dir: "."}, own: folder{inside: builtin}, doc: doc}
	list, parts := l.rules(patterns)
	if len(l.faults) > 0 {
		return l.faults
	}
	w.document.Rules, w.document.Limits, w.doc = list, l.limits, doc
	w.parts = map[string][]part{"rules": parts, "limits": l.limitParts}
	if _, wrong := rules.Compile(w.document); len(wrong) > 0 {
		return placeAll(wrong, w.parts, doc)
	}
	return nil
}

// An oddity is what is odd but not wrong with a rule.
type oddity struct {
	config.Fault
	waiting string // the rule, when it applies to no device
}

// oddities returns what is odd, in the order of the files, each thing once.
func (w *world) oddities() ([]oddity, error) {
	set, wrong := rules.Compile(w.document)
	if len(wrong) > 0 {
		return nil, placeAll(wrong, w.parts, w.doc)
	}
	reach, err := w.reach()
	if err != nil {
		return nil, err
	}
	said := byRule(set.Warnings(), len(w.document.Rules))
	var odd []telemetry.Fault
	for i := range w.document.Rules {
		r := &w.document.Rules[i]
		at := fmt.Sprintf("rules[%d]", i)
		to := reach[r.Name]
		switch {
		case to != nil:
			odd = append(odd, said[i]...)
			odd = append(odd, telemetry.Under(at, short(r, to.registered))...)
		case !byID(r):
			odd = append(odd, telemetry.Faultf(at, "rule %s applies to no device%s", r.Name, because(said[i])))
		}
	}
	placed := placeAll(odd, w.parts, w.doc)
	inOrder(placed)
	out := make([]oddity, len(placed))
	for i, f := range placed {
		out[i].Fault = f
		if name, ok := strings.CutPrefix(f.Want, "rule "); ok {
			out[i].waiting, _, _ = strings.Cut(name, " ")
		}
	}
	return out, nil
}

var rulePath = regexp.MustCompile(`^rules\[(\d+)\]`)

// byRule sorts warnings by rule; what is said of a rule more than once is kept
// with its first place.
func byRule(list []telemetry.Fault, n int) [][]telemetry.Fault {
	out := make([][]telemetry.Fault, n)
	for _, f := range list {
		m := rulePath.FindStringSubmatch(f.Path)
		if m == nil {
			continue
		}
		i, _ := strconv.Atoi(m[1])
		if !slices.ContainsFunc(out[i], func(g telemetry.Fault) bool { return g.Want == f.Want }) {
			out[i] = append(out[i], f)
		}
	}
	return out
}

// byID reports whether a rule looks at the id of the device: then it may be
// meant for devices that are not registered, as the beacons of AIS.
func byID(r *rules.Rule) bool {
	return strings.Contains(r.Where, "device.id") || strings.Contains(r.When, "device.id")
}

func because(said []telemetry.Fault) string {
	if len(said) == 0 {
		return ": none reports its kind and has what where and its conditions ask for"
	}
	words := make([]string, len(said))
	for i, f := range said {
		words[i] = f.Want
	}
	return ": " + strings.Join(words, "; ")
}

// A reached is to what a rule applies.
type reached struct {
	registered []*telemetry.Device
	others     bool // devices that are not registered, as vessels may be
}

// reach finds out by the engine itself to which devices each rule applies: it
// is shown a reading that says nothing of each device and kind. Devices come
// without their kinds, or the rules of silence would apply to all at once; rules
// about a device as a whole look at a kind made for them.
func (w *world) reach() (map[string]*reached, error) {
	control, err := rules.ControlReadings("gateway", w.probe())
	if err != nil {
		return nil, err
	}
	engine := rules.NewEngine(rules.Options{})
	at := time.Unix(1_700_000_000, 0)
	engine.Evaluate(at, control)
	out, before := map[string]*reached{}, map[string]int{}
	show := func(id string, kinds []string, found func(*reached)) {
		engine.Evaluate(at, w.nothings(id, kinds))
		for _, c := range engine.Rules() {
			if c.Devices == before[c.Rule] {
				continue
			}
			before[c.Rule] = c.Devices
			if out[c.Rule] == nil {
				out[c.Rule] = &reached{}
			}
			found(out[c.Rule])
		}
	}
	devices := w.Devices.Devices()
	for i := range devices {
		d := &devices[i]
		show(d.ID, d.Kinds, func(r *reached) { r.registered = append(r.registered, d) })
	}
	show("not-registered-by-anyone", nil, func(r *reached) { r.others = true })
	return out, nil
}

// probeKind is the kind of the rules that are about a device as a whole.
const probeKind = "any-kind-at-all"

func (w *world) probe() rules.Document {
	p := w.document
	p.Kinds = append(slices.Clone(p.Kinds), telemetry.Kind{Name: probeKind})
	p.Devices, p.Rules = slices.Clone(p.Devices), slices.Clone(p.Rules)
	for i := range p.Devices {
		p.Devices[i].Kinds = nil
	}
	for i := range p.Rules {
		if p.Rules[i].On == "" {
			p.Rules[i].On = probeKind
		}
	}
	return p
}

// nothings are readings of the kinds (none named: of all) without any value that
// a rule could name.
func (w *world) nothings(device string, kinds []string) []telemetry.Reading {
	if len(kinds) == 0 {
		for _, k := range w.document.Kinds {
			kinds = append(kinds, k.Name)
		}
	}
	var out []telemetry.Reading
	for _, kind := range append(slices.Clone(kinds), probeKind) {
		out = append(out, telemetry.Reading{Device: device, Kind: kind, Site: device, Quality: telemetry.Bad, Values: []telemetry.Value{{Name: "nothing", Quality: telemetry.Bad}}})
	}
	return out
}

var (
	windowCall = regexp.MustCompile(`\b(avg|min|max|sum|count|delta|rate|stddev|percentile|first|last)\s*\([^()"']*,\s*["']([0-9][0-9a-zµ.]*)["']\s*\)`)
	silentCall = regexp.MustCompile(`\b(silent)\s*\((?:[^()"']*,\s*)?["']([0-9][0-9a-zµ.]*)["']\s*\)`)
)

// short returns the windows and silences of a rule that are shorter than the
// interval of a device that it applies to.
func short(r *rules.Rule, devices []*telemetry.Device) []telemetry.Fault {
	var slowest *telemetry.Device
	for _, d := range devices {
		if slowest == nil || d.Interval > slowest.Interval {
			slowest = d
		}
	}
	if slowest == nil || slowest.Interval == 0 {
		return nil
	}
	var odd []telemetry.Fault
	look := func(path, expression string) {
		for _, m := range windowCall.FindAllStringSubmatch(expression, -1) {
			width, err := telemetry.ParseDuration(m[2])
			needed, why := slowest.Interval, "holds one reading at most"
			if m[1] == "delta" || m[1] == "rate" {
				needed, why = 2*slowest.Interval, "never holds the two readings that "+m[1]+" needs"
			}
			if err == nil && width < needed {
				odd = append(odd, telemetry.Faultf(path, "the window %s(..., %q) is too short for %s, which reports every %s: it %s", m[1], m[2], slowest.ID, slowest.Interval, why))
			}
		}
		for _, m := range silentCall.FindAllStringSubmatch(expression, -1) {
			if long, err := telemetry.ParseDuration(m[2]); err == nil && long <= slowest.Interval {
				odd = append(odd, telemetry.Faultf(path, "silent(%q) is not longer than the interval %s of %s: it raises between two readings", m[2], slowest.Interval, slowest.ID))
			}
		}
	}
	look("when", r.When)
	look("clear", r.Clear)
	for i := range r.Levels {
		look(fmt.Sprintf("levels[%d].when", i), r.Levels[i].When)
		look(fmt.Sprintf("levels[%d].clear", i), r.Levels[i].Clear)
	}
	return odd
}
