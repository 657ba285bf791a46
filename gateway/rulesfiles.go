package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/backtest"
	"haidang/gateway/intake"
	"haidang/gateway/replay"
	"haidang/gateway/telemetry"
)

// openFiles returns the readings of all files in the order of their receipt.
func (o *backtestOptions) openFiles(ctx context.Context, bar *meter) (iter.Seq2[telemetry.Reading, error], func() error, error) {
	r := replayOptions{columns: o.columns, format: o.format, start: o.start, rate: o.rate}
	timing, err := r.timing()
	if err != nil {
		return nil, nil, err
	}
	columns, err := r.readMap()
	if err != nil {
		return nil, nil, err
	}
	files, err := openFiles(o.files)
	done := func() error {
		var errs []error
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	bar.share = func() float64 { return shareOf(files) }
	p := &player{options: &r, columns: columns}
	o.rejected = map[string]uint64{}
	var sources []iter.Seq2[telemetry.Reading, error]
	for _, f := range files {
		decoder, _, err := p.decoder(f)
		if err != nil {
			return nil, nil, errors.Join(err, done())
		}
		sources = append(sources, backtest.Sorted(o.fileReadings(ctx, f, decoder, timing)))
	}
	return backtest.Merged(sources...), done, nil
}

// fileReadings returns the readings of a file that lie in the time of the
// backtest.
func (o *backtestOptions) fileReadings(ctx context.Context, f *replay.File, decoder replay.Decoder, timing replay.Timing) iter.Seq2[telemetry.Reading, error] {
	return func(yield func(telemetry.Reading, error) bool) {
		d := newDoor(o.catalogue, o.registry, o.rejected)
		if !o.begin.IsZero() {
			d.from = o.begin.Add(-o.warm)
		}
		d.to = o.end
		d.yield = func(r telemetry.Reading) bool { return yield(r, nil) }
		if err := f.Lines(ctx, decoder, timing, d); err != nil && !errors.Is(err, errReadEnough) {
			yield(telemetry.Reading{}, err)
		}
	}
}

// errReadEnough ends the reading of a file when nobody wants more.
var errReadEnough = errors.New("the reader wants no more")

// A door lets the readings of a file through the gateway's own intake, which
// checks names, stamps what has no time and judges quality, as in a replay.
type door struct {
	intake   *intake.Intake
	receipt  time.Time
	from, to time.Time // zero: no bound
	rejected map[string]uint64
	yield    func(telemetry.Reading) bool
	more     bool
}

func newDoor(kinds *telemetry.Catalogue, devices *telemetry.Registry, rejected map[string]uint64) *door {
	d := &door{rejected: rejected, more: true}
	d.intake = intake.New(intake.Options{
		Readings: d, Letters: lettersOf{d}, Clock: d, Known: intake.Known{Kinds: kinds, Devices: devices},
		Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	return d
}

// Take implements replay.Sink.
func (d *door) Take(readings []telemetry.Reading) error {
	d.receipt = readings[0].Time.Add(readings[0].Delay)
	d.intake.Accept("backtest", readings, nil)
	if !d.more {
		return errReadEnough
	}
	return nil
}

// Reject implements replay.Sink.
func (d *door) Reject(letter telemetry.DeadLetter) error {
	d.rejected[letter.Reason]++
	return nil
}

// Wall implements intake.Receipt.
func (d *door) Wall() (time.Time, bool) { return d.receipt, true }

// AppendAsync implements intake.ReadingLog: what would be appended goes on.
func (d *door) AppendAsync(records []telemetry.Reading, _ func(error)) {
	for _, r := range records {
		if d.more && !r.Time.Before(d.from) && (d.to.IsZero() || d.receipt.Before(d.to)) {
			d.more = d.yield(r)
		}
	}
}

// lettersOf counts what the intake sets aside.
type lettersOf struct{ *door }

// AppendAsync implements intake.LetterLog.
func (l lettersOf) AppendAsync(records []telemetry.DeadLetter, _ func(error)) {
	for _, r := range records {
		l.rejected[r.Reason]++
	}
}

// tellRejected says what of the files could not be read.
func tellRejected(out io.Writer, reasons map[string]uint64) {
	total := uint64(0)
	for _, n := range reasons {
		total += n
	}
	if total > 0 {
		fmt.Fprintf(out, "rejected %d records%s\n", total, reasonsOf(reasons))
	}
}
