package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

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
			n := tellOdd(env.stdout, w.oddities())
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
	if wrong := w.compile(); len(wrong) > 0 {
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
func (w *world) oddities() []oddity {
	reach := w.set.Reach()
	said := byRule(w.set.Warnings(), len(w.document.Rules))
	var odd []telemetry.Fault
	for i := range w.document.Rules {
		r := &w.document.Rules[i]
		at := fmt.Sprintf("rules[%d]", i)
		to, reaches := reach[r.Name]
		switch {
		case reaches:
			odd = append(odd, said[i]...)
			odd = append(odd, telemetry.Under(at, short(r, to.Slowest))...)
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
	return out
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

var (
	windowCall = regexp.MustCompile(`\b(avg|min|max|sum|count|delta|rate|stddev|percentile|first|last)\s*\([^()"']*,\s*["']([0-9][0-9a-zµ.]*)["']\s*\)`)
	silentCall = regexp.MustCompile(`\b(silent)\s*\((?:[^()"']*,\s*)?["']([0-9][0-9a-zµ.]*)["']\s*\)`)
)

// short returns the windows and silences of a rule that are shorter than the
// interval of the slowest device that it applies to.
func short(r *rules.Rule, slowest *telemetry.Device) []telemetry.Fault {
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
