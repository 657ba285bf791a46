package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/intake"
	"haidang/gateway/ioc"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// A preview raises a rule with invented readings and shows what each recipient
// would be sent.
type preview struct {
	configuration string
	sets          []string
	only          string
	exercise      bool
}

// Of the invented readings: a day's worth, so that windows are full and times
// to wait are over.
const (
	previewSpan  = 25 * time.Hour
	previewEvery = 10 * time.Minute
)

func warningsPreviewVerb() verb {
	p := &preview{}
	return verb{
		name: "preview", args: "RULE DEVICE --set level_m=3.6 [--recipient NAME] [--exercise] [--config gateway.yaml]",
		short: "show what each recipient would be told when a rule is raised",
		example: `haidang warnings preview flood-level kim-long --set level_m=3.6
haidang warnings preview rising-fast kim-long --set level_m=1..4 --set rain_1h_mm=40`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&p.configuration, "config", "", "the configuration; without it the built-in one is used")
			f.StringArrayVar(&p.sets, "set", nil, "a value that the device reports for a day; level_m=1..4 rises evenly")
			f.StringVar(&p.only, "recipient", "", "this one only; without it all")
			f.BoolVar(&p.exercise, "exercise", false, "as in a drill")
		},
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) != 2 {
				return usagef("preview takes a rule and a device, not %q", args)
			}
			cfg, w, err := readConfiguration(p.configuration, nil)
			if err != nil {
				return err
			}
			return p.show(env, &cfg, w, args[0], args[1])
		},
	}
}

func (p *preview) show(env environment, cfg *Configuration, w *world, rule, device string) error {
	warnings, err := p.raise(w, rule, device)
	if err != nil {
		return err
	}
	out := previewRecipients(cfg, w)
	if p.only != "" {
		out = slices.DeleteFunc(out, func(r *ioc.Recipient) bool { return r.Name() != p.only })
	}
	if len(out) == 0 {
		return usagef("there is no recipient %q under ioc", p.only)
	}
	for i := range warnings {
		warning := &warnings[i]
		warning.Exercise = p.exercise
		fmt.Fprintf(env.stdout, "%s %s: %s\n  %s\n  %s\n", warning.Severity, warning.State, warning.ID, warning.Message.VI, warning.Message.EN)
		for _, r := range out {
			text, sent := r.Preview(*warning)
			if !sent {
				fmt.Fprintf(env.stdout, "\n== %s (%s): nothing\n", r.Name(), r.Via())
				continue
			}
			fmt.Fprintf(env.stdout, "\n== %s (%s)\n%s", r.Name(), r.Via(), text)
		}
	}
	return nil
}

// previewRecipients makes the recipients; where there are none, one that shows
// the texts as they are by default.
func previewRecipients(cfg *Configuration, w *world) []*ioc.Recipient {
	at := &places{known: func() intake.Known { return w.Known }}
	at.setZones(w.document.Zones)
	from := ioc.Bulletins{Chronicle: cap.NewChronicle(), Composer: cap.NewComposer(cfg.CAP, at, cfg.Gateway), Now: time.Now}
	list := cfg.IOC
	if len(list) == 0 {
		list = []ioc.Config{
			{Name: "webhook", Webhook: &ioc.WebhookConfig{}}, {Name: "cap", CAP: &ioc.CAPConfig{}},
			{Name: "mail", SMTP: &ioc.SMTPConfig{From: "a@b", To: []string{"a@b"}}}, {Name: "sms", SMS: &ioc.SMSConfig{To: []string{"112"}}},
		}
	}
	var out []*ioc.Recipient
	for _, c := range list {
		out = append(out, ioc.Open(c, ioc.Outside{Version: version, Gateway: cfg.Gateway, Bulletins: from}, ioc.Options{}))
	}
	return out
}

// raise lets the device report for a day, then be silent for one, and returns
// the gravest transition of the rule that the values bring about.
func (p *preview) raise(w *world, rule, device string) ([]telemetry.Warning, error) {
	document := w.document
	if fault := keepOnly(&document, []string{rule}); fault != nil {
		return nil, usagef("%s", fault.Want)
	}
	ramps, err := p.ramps(w.Kinds)
	if err != nil {
		return nil, err
	}
	control, err := rules.ControlReadings("preview", document)
	if err != nil {
		return nil, err
	}
	site := device
	if d := w.Devices.Device(device); d != nil {
		site = d.Site
	}
	engine := newTrialEngine()
	at := time.Now().UTC()
	engine.Evaluate(at, control)
	var worst *telemetry.Warning
	look := func(list []telemetry.Transition) {
		for i := range list {
			t := &list[i]
			if t.Device == device && t.State == telemetry.Active && (worst == nil || t.Severity > worst.Severity) {
				worst = &t.Warning
			}
		}
	}
	for t := time.Duration(0); t <= previewSpan; t += previewEvery {
		now := at.Add(t)
		var readings []telemetry.Reading
		for _, kind := range sortedNames(ramps) {
			r := telemetry.Reading{Device: device, Site: site, Kind: kind, Time: now}
			for _, v := range ramps[kind] {
				r.Values = append(r.Values, telemetry.Value{Name: v.name, Number: v.from + (v.to-v.from)*float64(t)/float64(previewSpan)})
			}
			readings = append(readings, r)
		}
		look(engine.Evaluate(now, readings))
	}
	if worst == nil {
		look(engine.Evaluate(at.Add(2*previewSpan), nil)) // rules about silence
	}
	if worst == nil {
		return nil, fmt.Errorf("%s is not raised for %s by %s: give the values that it compares with --set", rule, device, p.told())
	}
	worst.N, worst.Shadow = 1, false
	return []telemetry.Warning{*worst}, nil
}

func (p *preview) told() string {
	if len(p.sets) == 0 {
		return "silence"
	}
	return strings.Join(p.sets, ", ")
}

// A ramp is a value that goes evenly from one number to another.
type ramp struct {
	name     string
	from, to float64
}

// ramps reads the values, by kind: of kind.value, or of every kind that has it.
func (p *preview) ramps(kinds *telemetry.Catalogue) (map[string][]ramp, error) {
	out := map[string][]ramp{}
	for _, set := range p.sets {
		name, number, ok := strings.Cut(set, "=")
		first, last, rises := strings.Cut(number, "..")
		if !rises {
			last = first
		}
		from, err := strconv.ParseFloat(first, 64)
		to, errTo := strconv.ParseFloat(last, 64)
		if !ok || err != nil || errTo != nil {
			return nil, usagef("--set %s is not like level_m=3.6 or level_m=1..4", set)
		}
		kind, value, full := strings.Cut(name, ".")
		if !full {
			kind, value = "", name
		}
		found := false
		for _, k := range kinds.Owners(value) {
			if kind == "" || k.Name == kind {
				out[k.Name] = append(out[k.Name], ramp{value, from, to})
				found = true
			}
		}
		if !found {
			return nil, usagef("--set %s: there is no value %q in the catalogue", set, name)
		}
	}
	return out, nil
}
