package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"haidang/broker"
	"haidang/drivers/ais"
	"haidang/gateway/influx"
	"haidang/gateway/intake"
	"haidang/gateway/ioc"
	"haidang/gateway/replay"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// replayOptions are the flags of the verb.
type replayOptions struct {
	config, data, columns, format, start string
	speed, rate                          float64
	keep, deliver                        bool
	console, influx                      string
	files                                []string
}

func replayVerb() verb {
	var o replayOptions
	return verb{
		name: "replay", args: "[--speed N] [--map FILE] [--keep] FILE...",
		short: "feed recorded NMEA, CSV or line protocol through the whole path, in an instance of its own",
		example: `haidang replay --config gateway.yaml recording.nmea.gz
haidang replay --config flood.yaml --map gauge.map.yaml --keep gauge.csv`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&o.config, "config", "", "configuration whose kinds, devices, zones and rules hold; its sources, store and recipients are left out")
			f.StringVar(&o.columns, "map", "", "what the columns of CSV files mean (YAML: device, time, columns)")
			f.StringVar(&o.format, "format", "", "nmea, csv or influx; default: seen from the file")
			f.Float64Var(&o.speed, "speed", 0, "1: as it happened, 100: a hundred times faster, 0: as fast as it goes")
			f.StringVar(&o.start, "start", "2025-01-01T00:00:00+07:00", "time of the first line of a file without times")
			f.Float64Var(&o.rate, "rate", 100, "lines a second in a file without times")
			f.BoolVar(&o.keep, "keep", false, "serve the API until Ctrl-C when the files are read")
			f.BoolVar(&o.deliver, "deliver", false, "send the warnings to the recipients of the configuration, too: people may be paged")
			f.StringVar(&o.data, "data", "", "folder to keep the result in (default: a temporary one)")
			f.StringVar(&o.console, "console", "127.0.0.1:8080", "where the API is served")
			f.StringVar(&o.influx, "influx", "127.0.0.1:8086", "where InfluxDB's API is served")
		},
		run: func(ctx context.Context, env environment, args []string) error {
			o.files = args
			return o.run(ctx, env)
		},
	}
}

func (o *replayOptions) timing() (replay.Timing, error) {
	start, ok := telemetry.ParseTime(o.start)
	if !ok {
		return replay.Timing{}, usagef("--start %q is not a time like 2025-10-27T00:00:00+07:00", o.start)
	}
	if !(o.rate > 0) || !telemetry.Finite(o.rate) {
		return replay.Timing{}, usagef("--rate %v is not above 0", o.rate)
	}
	if !(o.speed >= 0) {
		return replay.Timing{}, usagef("--speed %v is negative", o.speed)
	}
	return replay.Timing{Start: start, Rate: o.rate}, nil
}

func (o *replayOptions) run(ctx context.Context, env environment) (err error) {
	if len(o.files) == 0 {
		return usagef("which file?")
	}
	timing, err := o.timing()
	if err != nil {
		return err
	}
	columns, err := o.readMap()
	if err != nil {
		return err
	}
	files, err := openFiles(o.files)
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	if err != nil {
		return err
	}
	if o.data == "" {
		if o.data, err = os.MkdirTemp("", "haidang-replay-"); err != nil {
			return fmt.Errorf("make a temporary folder: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.data)) }()
	} else if names, err := os.ReadDir(o.data); err == nil && len(names) > 0 {
		return usagef("--data %s is not empty: what lies there would change the result", o.data)
	}
	cfg, w, err := readConfiguration(o.config, o.change)
	if err != nil {
		return err
	}
	p := &player{options: o, timing: timing, columns: columns, files: files, env: env, clock: &recordingClock{}, fleet: ais.NewFleet(nil), pace: replay.Pace{Speed: o.speed}}
	if p.g, err = open(ctx, cfg, w, mode{recording: p.clock}, newLogger(env.stderr, cfg.Log)); err != nil {
		return ended(ctx, err)
	}
	return p.run(ctx)
}

// change makes the configuration that of an instance of its own: nothing is
// read from the field and nothing is thrown away.
func (o *replayOptions) change(c *Configuration) {
	c.Data = o.data
	c.Modbus, c.AIS = nil, nil
	c.Console.Listen = o.console
	c.Influx = influx.DefaultConfig() // never the server where the real readings are
	c.Influx.Listen = o.influx
	c.Spool = spool.Config{MaxAge: telemetry.Duration(100 * 365 * 24 * time.Hour)}
	if !o.deliver {
		c.IOC = nil // last year's flood pages nobody
	}
}

func (o *replayOptions) readMap() (*replay.Map, error) {
	if o.columns == "" {
		return nil, nil
	}
	doc, err := folder{dir: filepath.Dir(o.columns)}.open(filepath.Base(o.columns))
	if err != nil {
		return nil, err
	}
	var m replay.Map
	faults := doc.Decode(&m)
	if faults = append(faults, unsaid(faults, doc.Locate(m.Validate()))...); len(faults) > 0 {
		return nil, faults
	}
	return &m, nil
}

func openFiles(names []string) (files []*replay.File, err error) {
	for _, name := range names {
		f, err := replay.Open(name)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

// A player feeds files into an instance.
type player struct {
	options *replayOptions
	timing  replay.Timing
	columns *replay.Map
	files   []*replay.File
	env     environment
	g       *instance
	clock   *recordingClock
	pace    replay.Pace
	fleet   *ais.Fleet // what all AIS recordings know together, as receivers do

	ctx      context.Context // of the sink's calls
	begun    bool
	finished bool               // everything was read and done
	finish   context.CancelFunc // ends the instance

	mu       sync.Mutex
	warnings []telemetry.Warning // in order
	source   string
	read     int // records of the files that became readings or were rejected
	heard    heard
	reasons  map[string]uint64
	failed   chan error           // the first failed append
	latest   time.Time            // a record after it has a wrong clock
	newest   map[string]time.Time // by device and kind
	older    int                  // readings older than the newest before them
	progress *meter
}

func (p *player) run(ctx context.Context) error {
	p.reasons, p.newest = map[string]uint64{}, map[string]time.Time{}
	p.failed = make(chan error, 1)
	p.latest = time.Now().Add(intake.MaxAhead)
	p.g.centre.observe(func(w telemetry.Warning) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.warnings = append(p.warnings, w)
	})
	fmt.Fprintf(p.env.stderr, "console http://%s/  InfluxDB http://%s/\n", p.g.console.Addr(), p.g.store.Addr())
	ctx, p.finish = context.WithCancel(ctx)
	defer p.finish()
	err := p.g.run(ctx, func(ctx context.Context, group *errgroup.Group) {
		close(p.g.ready)
		group.Go(func() error { return p.play(ctx) })
	})
	if err != nil {
		return err
	}
	switch {
	case !p.finished:
		p.summary(p.seen())
		return errors.New("interrupted before everything was read")
	case p.g.intake.Total() == 0:
		return errors.New("no reading was accepted")
	}
	return nil
}

// seen returns the transitions so far.
func (p *player) seen() []telemetry.Warning {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.warnings)
}

func (p *player) play(ctx context.Context) error {
	p.ctx = ctx
	p.progress = newMeter(p.env.stderr, func() float64 { return shareOf(p.files) })
	for _, f := range p.files {
		decoder, name, err := p.decoder(f)
		if err != nil {
			return err
		}
		p.source = "replay." + name
		if err := f.Lines(ctx, decoder, p.timing, p); err != nil {
			return ended(ctx, err)
		}
	}
	if err := p.settle(ctx); err != nil {
		return ended(ctx, err)
	}
	p.progress.done()
	p.finished = true
	p.summary(p.seen())
	if !p.options.keep {
		p.finish()
		return nil
	}
	fmt.Fprintln(p.env.stderr, "all is read; serving until Ctrl-C")
	<-ctx.Done()
	return nil
}

// decoder chooses what a file is read with.
func (p *player) decoder(f *replay.File) (replay.Decoder, string, error) {
	format := p.options.format
	if format == "" {
		format = guess(f.Head(4<<10), p.columns != nil)
	}
	switch format {
	case "nmea":
		return &sentences{decoder: p.fleet.Decoder(f.Name, ais.Recorded()), heard: &p.heard}, format, nil
	case "influx":
		return replay.LineProtocol(parseLine), format, nil
	case "csv":
		if p.columns == nil {
			return nil, "", usagef("%s is neither AIS sentences nor line protocol; for CSV, --map FILE says what its columns mean", f.Name)
		}
		d, err := replay.CSV(*p.columns)
		return d, format, err
	}
	return nil, "", usagef("--format %q is not one of nmea, csv, influx", format)
}

// guess tells the format from the first lines of a file.
func guess(head []byte, mapped bool) string {
	if bytes.Contains(head, []byte("!AI")) || bytes.Contains(head, []byte("VDM,")) || bytes.Contains(head, []byte("VDO,")) {
		return "nmea"
	}
	for line := range bytes.Lines(head) {
		line = bytes.TrimSpace(line)
		if mapped || len(line) == 0 || line[0] == '#' {
			continue
		}
		if _, err := parseLine(line); err == nil {
			return "influx"
		}
		break
	}
	return "csv"
}

func parseLine(line []byte) (telemetry.Reading, error) { return broker.ParseLine(line, 0) }

// Take implements replay.Sink.
func (p *player) Take(readings []telemetry.Reading) error {
	at := readings[0].Time.Add(readings[0].Delay)
	if at.After(p.latest) || at.Before(earliestRecord) {
		// Receipt is at the reading's own time here: one wrong clock would make
		// everything after it late.
		return p.Reject(telemetry.DeadLetter{Device: readings[0].Device, Reason: "wrong_time", Detail: fmt.Sprintf("%s is not a time from 2000 until now", at.UTC().Format(time.RFC3339))})
	}
	if err := p.throttle(); err != nil {
		return err
	}
	if err := p.pace.Wait(p.ctx, at); err != nil {
		return err
	}
	for i := range readings {
		series := readings[i].Device + " " + readings[i].Kind
		if newest, ok := p.newest[series]; ok && readings[i].Time.Before(newest) {
			p.older++
			continue
		}
		p.newest[series] = readings[i].Time
	}
	p.clock.advance(at)
	if !p.begun {
		p.begun = true
		if err := p.g.evaluator.announce(p.ctx, p.g.cfg.Gateway, at, p.g.world.set); err != nil {
			return err
		}
	}
	p.read++
	p.progress.show(p.read, "records", at)
	p.g.intake.Accept(p.source, readings, p.appended)
	return p.failure()
}

// earliestRecord is the first time that a recording is believed.
var earliestRecord = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// maxBehind is how many frames the store and the rules may be behind a replay,
// so that one that goes as fast as it can does not fill the log.
const maxBehind = 20_000

func (p *player) throttle() error {
	readings := p.g.spool.Readings()
	for readings.Lag(followStore) > maxBehind || readings.Last() > p.g.evaluator.done.Load()+maxBehind {
		if !wait(p.ctx, 5*time.Millisecond) {
			return p.ctx.Err()
		}
	}
	return nil
}

// Reject implements replay.Sink.
func (p *player) Reject(letter telemetry.DeadLetter) error {
	p.read++
	p.reasons[letter.Reason]++
	letter.Source = p.source
	letter.At = p.clock.Now()
	p.g.intake.SetAside(letter, p.appended)
	return p.failure()
}

func (p *player) appended(err error) {
	if err != nil {
		select {
		case p.failed <- err:
		default:
		}
	}
}

func (p *player) failure() error {
	select {
	case err := <-p.failed:
		return err
	default:
		return nil
	}
}

// settle returns when every follower has done what was read.
func (p *player) settle(ctx context.Context) error {
	readings, warnings := p.g.spool.Readings(), p.g.spool.Warnings()
	if err := p.g.spool.Flush(ctx); err != nil {
		return err
	}
	if err := p.failure(); err != nil {
		return err
	}
	behind := func() bool {
		if readings.Lag(followStore) > 0 || p.g.evaluator.done.Load() < readings.Last() || warnings.Lag("influx") > 0 {
			return true
		}
		for _, c := range p.g.cfg.IOC {
			if warnings.Lag("ioc."+c.Name+"."+ioc.Grave.String()) > 0 || warnings.Lag("ioc."+c.Name+"."+ioc.Rest.String()) > 0 {
				return true
			}
		}
		return false
	}
	for behind() {
		if !wait(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// sentences reads NMEA lines for a replay.
type sentences struct {
	decoder *ais.Decoder
	heard   *heard // of all files
}

// heard counts AIS messages.
type heard struct{ messages, again, unchanged uint64 }

// Line implements replay.Decoder.
func (s *sentences) Line(line []byte, at time.Time, sink replay.Sink) error {
	var readings []telemetry.Reading
	reason := s.decoder.Feed(line, at, func(r telemetry.Reading) {
		if r.Time.IsZero() {
			r.Time = at
		}
		readings = append(readings, r)
	})
	switch reason {
	case ais.None, ais.OtherSentence:
	default:
		return sink.Reject(telemetry.DeadLetter{Reason: reason.String(), Detail: "not a whole AIS sentence: " + reason.String(), Bytes: line})
	}
	for i := range readings {
		if err := sink.Take(readings[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// End implements replay.Decoder.
func (s *sentences) End(replay.Sink) error {
	s.decoder.End()
	counts := s.decoder.Counts()
	s.heard.messages += counts.Messages
	s.heard.again += counts.Duplicates
	s.heard.unchanged += counts.Unchanged
	return nil
}

// summary prints what became of the files.
func (p *player) summary(warnings []telemetry.Warning) {
	out := p.env.stdout
	lines := 0
	for _, f := range p.files {
		lines += f.Seen()
	}
	fmt.Fprintf(out, "read      %s", count(lines, "line"))
	if p.heard.messages > 0 {
		fmt.Fprintf(out, ", %s", count(int(p.heard.messages), "message"))
	}
	fmt.Fprintf(out, " of %s\n", strings.Join(p.options.files, ", "))
	fmt.Fprintf(out, "accepted  %d readings\n", p.g.intake.Total())
	if again, same := p.heard.again, p.heard.unchanged; again+same > 0 {
		fmt.Fprintf(out, "merged    %d messages heard again, %d of facts that did not change\n", again, same)
	}
	if p.older > 0 {
		fmt.Fprintf(out, "late      %d readings older than one before them: stored, and judged by no rule\n", p.older)
	}
	rejected := uint64(0)
	for _, n := range p.reasons {
		rejected += n
	}
	fmt.Fprintf(out, "rejected  %d%s\n", rejected, reasonsOf(p.reasons))
	raised := 0
	for _, w := range warnings {
		if w.N == 1 {
			raised++
		}
	}
	fmt.Fprintf(out, "warnings  %d raised, %s (times are +07:00)\n", raised, count(len(warnings), "transition"))
	for i, w := range warnings {
		if i == maxListed {
			fmt.Fprintf(out, "  and %d more\n", len(warnings)-i)
			break
		}
		fmt.Fprintf(out, "  %s  %-8s  %-12s  %s  %s\n", w.At.In(vietnam).Format("2006-01-02 15:04:05"), w.Severity, w.State, w.Device, w.Message.EN)
	}
}

// maxListed bounds the transitions that a summary lists.
const maxListed = 40
