package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"haidang/gateway/backtest"
	"haidang/gateway/influx"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// backtestOptions are the flags of the verb.
type backtestOptions struct {
	config, data, influx, token string
	from, to, warmUp, gap       string
	rules, only, devices        []string
	compare, json, all          bool
	columns, format, start      string
	rate                        float64
	files                       []string
	begin, end                  time.Time // of what is reported
	warm, down                  time.Duration
	document, live              rules.Document
	against                     string // where live comes from
	rejected                    map[string]uint64
	catalogue                   *telemetry.Catalogue
	registry                    *telemetry.Registry
}

// listedEpisodes is how many warnings of a rule and device are printed.
const listedEpisodes = 10

func rulesBacktestVerb() verb {
	var o backtestOptions
	return verb{
		name: "backtest", args: "--from TIME [--to TIME] [--config gateway.yaml] [--rules FILES [--compare]] [FILE...]",
		short: "tell what rules would have raised in the past, from InfluxDB or from files",
		example: `haidang rules backtest --config gateway.yaml --from 2025-10-25 --to 2025-11-05
haidang rules backtest --config gateway.yaml --rules new/flood.yaml --compare --from 2025-01-01 --device kim-long
haidang rules backtest --config gateway.yaml --map gauge.map.yaml --rule flood-level gauge.csv
haidang rules backtest --influx http://influx:8086 --from '2025-10-27 00:00' --json

Without files the readings come from the embedded InfluxDB of the configuration's
data folder, from the gateway that runs on it, or from the server of influx.url.
InfluxDB does not know when the gateway was down: --gap 30m takes half an hour
without any reading for such a time, else the rules of silence raise then.`,
		flags: o.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			o.files = args
			return o.run(ctx, env)
		},
	}
}

func (o *backtestOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.config, "config", "", "configuration with kinds, devices, zones, rules and the store (default: the built-in one)")
	f.StringSliceVar(&o.rules, "rules", nil, "rule files to try instead of the configuration's; patterns, comma-separated or repeated")
	f.BoolVar(&o.compare, "compare", false, "compare --rules with what is live now: in the gateway that runs, else in its data folder, else the configuration's")
	f.StringVar(&o.from, "from", "", "begin: 2025-10-25, '2025-10-25 06:00' (Vietnam) or RFC 3339")
	f.StringVar(&o.to, "to", "", "end (default: now, or the end of the files)")
	f.StringSliceVar(&o.only, "rule", nil, "report only these rules")
	f.StringSliceVar(&o.devices, "device", nil, "report only these devices; only their sites are read")
	f.StringVar(&o.warmUp, "warm-up", "24h", "how long before --from readings begin to fill windows")
	f.StringVar(&o.gap, "gap", "0s", "a time without any reading that counts as the gateway having been down (0s: none)")
	f.StringVar(&o.data, "data", "", "data folder with the embedded InfluxDB (default: that of the configuration)")
	f.StringVar(&o.influx, "influx", "", "URL of an InfluxDB to read instead, or of a running gateway's port")
	f.StringVar(&o.token, "token", "", "token for --influx (default: that of the configuration)")
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	f.BoolVar(&o.all, "all", false, fmt.Sprintf("list every warning, not the first %d of a rule and device", listedEpisodes))
	f.StringVar(&o.columns, "map", "", "what the columns of CSV files mean (YAML: device, time, columns)")
	f.StringVar(&o.format, "format", "", "nmea, csv or influx; default: seen from the file")
	f.StringVar(&o.start, "start", "2025-01-01T00:00:00+07:00", "time of the first line of a file without times")
	f.Float64Var(&o.rate, "rate", 100, "lines a second in a file without times")
}

func (o *backtestOptions) run(ctx context.Context, env environment) (err error) {
	if err := o.times(time.Now()); err != nil {
		return err
	}
	if o.compare && o.rules == nil {
		return usagef("--compare needs --rules FILES: the rules that are tried")
	}
	cfg, err := o.world()
	if err != nil {
		return err
	}
	bar := newMeter(env.stderr, func() float64 { return 0 })
	readings, done, err := o.open(ctx, cfg, bar)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	trial, err := newTrial(o.document)
	if err != nil {
		return err
	}
	trials := []*backtest.Trial{trial}
	if o.compare {
		if err := o.findLive(ctx, cfg); err != nil {
			return err
		}
		before, err := newTrial(o.live)
		if err != nil {
			return err
		}
		trials = append(trials, before)
	}
	err = backtest.Run(ctx, readings, backtest.Options{
		From: o.begin, To: o.end, Gap: o.down, Wanted: o.wanted,
		Progress: func(n int, at time.Time) { bar.show(n, "readings", at) },
	}, trials...)
	bar.done()
	tellRejected(env.stderr, o.rejected)
	if err != nil {
		return ended(ctx, err)
	}
	return o.print(env, trials)
}

// times reads the flags that are times.
func (o *backtestOptions) times(now time.Time) error {
	for _, t := range []struct {
		flag, text string
		to         *time.Time
	}{{"--from", o.from, &o.begin}, {"--to", o.to, &o.end}} {
		at, err := dateFlag(t.flag, t.text)
		if err != nil {
			return err
		}
		*t.to = at
	}
	if len(o.files) == 0 {
		if o.begin.IsZero() {
			return usagef("--from is missing: from when on, as in --from 2025-10-25")
		}
		if o.end.IsZero() {
			o.end = now
		}
	}
	if !o.end.IsZero() && !o.begin.Before(o.end) {
		return usagef("--from %s is not before --to %s", o.from, o.to)
	}
	for _, d := range []struct {
		flag, text string
		to         *time.Duration
	}{{"--warm-up", o.warmUp, &o.warm}, {"--gap", o.gap, &o.down}} {
		length, err := telemetry.ParseDuration(d.text)
		if err != nil || length < 0 {
			return usagef("%s: %q is not a duration like 30m, 24h or 7d", d.flag, d.text)
		}
		*d.to = length.Std()
	}
	return nil
}

// dateFlag reads a time as people write it; without a zone it is Vietnam's.
func dateFlag(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02T15:04:05"} {
		if at, err := time.ParseInLocation(form, text, vietnam); err == nil {
			return at, nil
		}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usagef("%s: %q is not a time like 2025-10-25, '2025-10-25 06:00' or 2025-10-25T06:00:00+07:00", flag, text)
	}
	return at, nil
}

// world loads the configuration and the rules on trial.
func (o *backtestOptions) world() (Configuration, error) {
	cfg, w, err := readConfiguration(o.config, func(c *Configuration) {
		if o.data != "" {
			c.Data = o.data
		}
		if o.influx != "" {
			c.Influx.URL, c.Influx.Retention = o.influx, nil
		}
		if o.token != "" {
			c.Influx.Token = o.token
		}
	})
	if err != nil {
		return cfg, err
	}
	o.catalogue, o.registry = w.Kinds, w.Devices
	o.live, o.document = w.document, w.document
	if o.rules != nil {
		if err := w.replaceRules(o.rules); err != nil {
			return cfg, err
		}
		o.document = w.document
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(o.document.Rules, func(r rules.Rule) bool { return r.Name == name }) {
			return cfg, usagef("--rule: no rule %q is there", name)
		}
	}
	return cfg, nil
}

func newTrial(document rules.Document) (*backtest.Trial, error) {
	control, err := rules.ControlReadings("gateway", document)
	if err != nil {
		return nil, err
	}
	return &backtest.Trial{Engine: newTrialEngine(), Control: control}, nil
}

func (o *backtestOptions) wanted(rule, device string) bool {
	return (o.only == nil || slices.Contains(o.only, rule)) && (o.devices == nil || slices.Contains(o.devices, device))
}

// open returns the readings in the order of their receipt and what closes them.
func (o *backtestOptions) open(ctx context.Context, cfg Configuration, bar *meter) (iter.Seq2[telemetry.Reading, error], func() error, error) {
	if len(o.files) > 0 {
		return o.openFiles(ctx, bar)
	}
	store, err := openStored(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	from := o.begin.Add(-o.warm)
	bar.share = func() float64 { return float64(bar.at.Sub(from)) / float64(o.end.Sub(from)) }
	return store.Readings(ctx, influx.Range{From: from, To: o.end, Kinds: o.kinds(), Devices: o.mates()}), store.Close, nil
}

// openStored opens the store of the configuration for reading: the server of
// influx.url, the embedded engine, or the gateway that has it open.
func openStored(ctx context.Context, cfg Configuration) (*influx.Store, error) {
	dir := filepath.Join(cfg.Data, "influx")
	if cfg.Influx.URL == "" {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("there is no store in %s: name its folder with --data, or a server with --influx", cfg.Data)
		}
	}
	listen := cfg.Influx.Listen
	cfg.Influx.Listen = influx.Off
	store, err := influx.Open(dir, cfg.Influx, prometheus.NewRegistry(), nil)
	if !errors.Is(err, influx.ErrInUse) {
		return store, err
	}
	if listen == influx.Off {
		return nil, fmt.Errorf("%w, and it answers no queries (influx.listen is off)", err)
	}
	elsewhere := influx.DefaultConfig()
	elsewhere.URL = "http://" + listen
	if store, err = influx.Open("", elsewhere, prometheus.NewRegistry(), nil); err != nil {
		return nil, err
	}
	if err := store.Ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("the gateway that runs on %s does not answer: %w", cfg.Data, err), store.Close())
	}
	return store, nil
}

// kinds returns the kinds that the rules on trial can need, nil for all: those
// they are on, and those of which a value is named anywhere.
func (o *backtestOptions) kinds() []string {
	documents := []rules.Document{o.document}
	if o.compare {
		documents = append(documents, o.live)
	}
	var text strings.Builder
	needed := map[string]bool{}
	for _, d := range documents {
		for _, r := range d.Rules {
			if r.On == "" {
				return nil
			}
			needed[r.On] = true
			text.WriteString(" " + r.When + " " + r.Clear + " " + r.Message.VI + " " + r.Message.EN)
			for _, l := range r.Levels {
				text.WriteString(" " + l.When + " " + l.Clear)
			}
		}
	}
	for _, k := range o.catalogue.Kinds() {
		needed[k.Name] = needed[k.Name] || strings.Contains(text.String(), k.Name)
		for _, q := range k.Values {
			needed[k.Name] = needed[k.Name] || strings.Contains(text.String(), q.Name)
		}
	}
	var kinds []string
	for name, is := range needed {
		if is {
			kinds = append(kinds, name)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// mates returns the devices that have a say in what the wanted ones raise, nil
// for all: those of their sites, and those that their facts line and gateway
// name.
func (o *backtestOptions) mates() []string {
	if o.devices == nil {
		return nil
	}
	mates := slices.Clone(o.devices)
	for _, id := range o.devices {
		d := o.registry.Device(id)
		if d == nil {
			continue
		}
		for _, fact := range []string{"line", "gateway"} {
			if name, _ := d.Fact(fact); name != nil {
				mates = append(mates, fmt.Sprint(name))
			}
		}
		devices := o.registry.Devices()
		for i := range devices {
			if devices[i].Site == d.Site {
				mates = append(mates, devices[i].ID)
			}
		}
	}
	slices.Sort(mates)
	return slices.Compact(mates)
}

func (o *backtestOptions) print(env environment, trials []*backtest.Trial) error {
	report := &trials[0].Report
	var comparison *backtest.Comparison
	if o.compare {
		c := backtest.Compare(&trials[1].Report, report)
		c.Against = o.against
		comparison = &c
	}
	if o.json {
		return jsonLine(env.stdout, struct {
			*backtest.Report
			Live       *backtest.Report     `json:"live,omitempty"`
			Comparison *backtest.Comparison `json:"comparison,omitempty"`
		}{report, liveOf(trials), comparison})
	}
	listed := listedEpisodes
	if o.all {
		listed = 0
	}
	if err := report.Write(env.stdout, listed); err != nil || comparison == nil {
		return err
	}
	return comparison.Write(env.stdout, listed)
}

func liveOf(trials []*backtest.Trial) *backtest.Report {
	if len(trials) < 2 {
		return nil
	}
	return &trials[1].Report
}
