package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

// asideEvery is the least time between two refused lines of one verdict that
// are set aside; all are counted.
const asideEvery = time.Minute

// A Driver reads the instruments of one line.
type Driver struct {
	cfg     Config
	target  link.Target
	source  string
	intake  telemetry.Intake
	logger  *slog.Logger
	metrics *metrics
	dial    func(context.Context, link.Target, link.Options) (link.Stream, error)
	asides  [verdicts]time.Time
	told    map[string]bool // the link that was last told, by device
}

// New makes a driver and registers its metrics, labelled with its source. The
// error lists what is wrong in the configuration. A nil reg or logger is silent.
func New(cfg Config, intake telemetry.Intake, reg prometheus.Registerer, logger *slog.Logger) (*Driver, error) {
	var errs []error
	for _, f := range cfg.Validate() {
		errs = append(errs, errors.New(f.String()))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("serial %q: %w", cfg.Name, errors.Join(errs...))
	}
	target, err := link.Parse(cfg.Connect)
	if err != nil {
		return nil, fmt.Errorf("serial %q: %w", cfg.Name, err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	source := "serial." + cfg.Name
	return &Driver{
		cfg: cfg.withDefaults(), target: target, source: source, intake: intake,
		logger: logger.With("source", source), metrics: newMetrics(source, reg),
		dial: link.Dial, told: map[string]bool{},
	}, nil
}

// Source is the name under which the readings are handed over: serial.<name>.
func (d *Driver) Source() string { return d.source }

// Run opens the line and reads until the context ends (nil) or the line breaks
// (an error that names it). It does not try again: run it again after a pause.
//
// The line's link reading is up while it is open. An instrument's is up from its
// first right line, and down when it is silent for too long, gives no answer, or
// the line breaks. A shutdown is no change.
func (d *Driver) Run(ctx context.Context) error {
	// Only a run that did not come to its end leaves something up.
	for device, up := range d.told {
		if up {
			delete(d.told, device)
		}
	}
	stream, err := d.dial(ctx, d.target, link.Options{})
	if err == nil {
		err = d.talk(ctx, stream)
	}
	if ctx.Err() != nil {
		return nil
	}
	d.lost(err)
	return fmt.Errorf("serial %q: %w", d.cfg.Name, err)
}

func (d *Driver) talk(ctx context.Context, stream link.Stream) error {
	// Closing is what ends a blocked read when the context ends.
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	defer stream.Close()
	d.state(d.cfg.Name, true, nil)
	reader := link.NewLineReader(stream, 0)
	reader.End, reader.Whole = d.cfg.end(), true
	if d.cfg.Format == SDI12 {
		return newBridge(d, stream, reader).run(ctx)
	}
	return newListener(d, stream, reader).run(ctx)
}

// broken names the line in the error of a read; others than the end of a
// connection name it themselves.
func (d *Driver) broken(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("read from %s: the other side closed the connection", d.target)
	}
	return err
}

// lost tells that the line and what is behind it are gone.
func (d *Driver) lost(cause error) {
	d.state(d.cfg.Name, false, cause)
	for _, device := range d.devices() {
		if d.told[device] {
			d.state(device, false, cause)
		}
	}
}

// devices are those behind the line.
func (d *Driver) devices() []string {
	if d.cfg.Format != SDI12 {
		return []string{d.cfg.Device}
	}
	var out []string
	for i := range d.cfg.Sensors {
		out = append(out, d.cfg.Sensors[i].Device)
	}
	return out
}

// state tells a link when it has changed.
func (d *Driver) state(device string, up bool, cause error) {
	if before, said := d.told[device]; said && before == up {
		return
	}
	d.told[device] = up
	d.intake.Accept(d.source, []telemetry.Reading{telemetry.Link(device, up, cause)}, nil)
}

// deliver hands readings over. It blocks while the intake's queue is full.
func (d *Driver) deliver(readings []telemetry.Reading) {
	n := len(readings)
	if n == 0 {
		return
	}
	d.metrics.readings.Add(float64(n))
	d.intake.Accept(d.source, readings, func(err error) {
		if err != nil {
			d.metrics.unkept.Add(float64(n))
		}
	})
}

// refuse counts a line that is of no use, and keeps it where it was a fault.
func (d *Driver) refuse(v verdict, device string, line []byte, now time.Time) {
	d.metrics.lines[v].Inc()
	if v.heard() || now.Sub(d.asides[v]) < asideEvery {
		return
	}
	d.asides[v] = now
	d.intake.SetAside(telemetry.DeadLetter{
		At: now, Source: d.source, Device: device, Place: d.target.String(),
		Reason: verdictNames[v], Detail: d.expected(v), Bytes: line,
	}.Trim(), nil)
}

// expected tells people what was expected of a line that is set aside.
func (d *Driver) expected(v verdict) string {
	switch v {
	case tooLong:
		return fmt.Sprintf("the line is longer than %d bytes; its beginning is kept. Is the speed or the terminator wrong?", link.DefaultMaxLine)
	case badChecksum:
		if d.cfg.Format == NMEA {
			return "the XOR of the bytes between $ and * is not the number after *, or there is none: checksum: optional takes such sentences"
		}
		return "the three characters at the end are not the CRC (polynomial 0xA001) of the rest"
	}
	switch d.cfg.Format {
	case NMEA:
		return "want a sentence like $WIMWV,214.8,R,1.7,N,A*2B with the fields of its type. Is the speed of the line right?"
	case VaisalaWXT:
		return "want a message like 0R0,Dm=106D,Sm=4.0M,Ta=16.0C with a unit after each number. Is the speed of the line right?"
	case SDI12:
		return "want a response that begins with the sensor's address, as in 0+3.14-2.7"
	}
	if d.cfg.Match != "" {
		return fmt.Sprintf("the line does not match %s", d.cfg.Match)
	}
	return fmt.Sprintf("no column of the line, separated by %q, holds a number that is wanted", d.cfg.Separator)
}
