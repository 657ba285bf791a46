package serial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"haidang/drivers/link"
)

const (
	// sdiTries is how often a measurement is tried before its sensor counts as
	// dead (SDI-12 V1.4, 7.2: at least three).
	sdiTries = 3
	// sdiQuiet is how long the line must be silent before a command. After an
	// answer that did not come or was none it is the timeout: what still comes
	// belongs to nobody, and a D command does not show in its answer.
	sdiQuiet = 50 * time.Millisecond
	// sdiPages is how many D commands there are: aD0! to aD9!.
	sdiPages = 10
	// sdiSlack is added to the time that a sensor asks for.
	sdiSlack = 500 * time.Millisecond
)

// A bridge asks the sensors of an SDI-12 line, one after the other; those with
// concurrent commands measure at the same time.
type bridge struct {
	d       *Driver
	stream  link.Stream
	reader  *link.LineReader
	sensors []*sensor
	queue   [][]byte // lines that were read and not yet looked at
	uneasy  bool     // an answer may still be under way
}

// A sensor is one measurement.
type sensor struct {
	*Sensor
	address    byte
	concurrent bool
	continuous bool // R: measured all the time, no start
	withCRC    bool
	fields     []field

	ready time.Time // of a concurrent measurement under way
	n     int       // values that it will have
	fails bool      // it gave nothing the last time
}

func newBridge(d *Driver, stream link.Stream, reader *link.LineReader) *bridge {
	b := &bridge{d: d, stream: stream, reader: reader}
	for i := range d.cfg.Sensors {
		s := &d.cfg.Sensors[i]
		c := s.command()
		b.sensors = append(b.sensors, &sensor{
			Sensor: s, address: s.Address[0],
			concurrent: c[0] == 'C', continuous: c[0] == 'R', withCRC: len(c) > 1 && c[1] == 'C',
			fields: newFields(s.Values),
		})
	}
	return b
}

// An sdiError says why a measurement gave nothing; the line itself works.
type sdiError struct {
	reason string // for counting
	text   string
}

func (e *sdiError) Error() string { return e.text }

// run measures at every interval. Measurements whose time went by are left out.
func (b *bridge) run(ctx context.Context) error {
	due := time.Now()
	interval := b.d.cfg.Interval.Std()
	for {
		if err := b.idle(due); err != nil {
			return err
		}
		if err := b.cycle(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		due = due.Add(time.Since(due)/interval*interval + interval)
	}
}

// cycle measures once with every sensor. Its error is the line's.
func (b *bridge) cycle() error {
	var later []*sensor
	for _, s := range b.sensors {
		if !s.concurrent {
			continue
		}
		err := b.try(s, func() error { return b.start(s) })
		if err := b.told(s, err); err != nil {
			return err
		}
		if err == nil {
			later = append(later, s)
		}
	}
	for _, s := range b.sensors {
		if s.concurrent {
			continue
		}
		if err := b.measure(s, true); err != nil {
			return err
		}
	}
	slices.SortStableFunc(later, func(x, y *sensor) int { return x.ready.Compare(y.ready) })
	for _, s := range later {
		if err := b.idle(s.ready); err != nil {
			return err
		}
		if err := b.measure(s, false); err != nil {
			return err
		}
	}
	return nil
}

// measure collects the values of one measurement, which it starts first where
// anew, and again after a failure.
func (b *bridge) measure(s *sensor, anew bool) error {
	var numbers []string
	err := b.try(s, func() (err error) {
		if anew && !s.continuous {
			if err := b.start(s); err != nil {
				return err
			}
			if err := b.await(s); err != nil {
				return err
			}
		}
		anew = true
		numbers, err = b.collect(s)
		return err
	})
	if err == nil {
		out := &batch{device: s.Device, metrics: b.d.metrics}
		b.d.deliver(sensorReadings(s.fields, numbers, out))
	}
	return b.told(s, err)
}

// try calls attempt until it succeeds or the sensor has failed often enough. An
// error that is not the sensor's is returned at once.
func (b *bridge) try(s *sensor, attempt func() error) error {
	for tries := 1; ; tries++ {
		err := attempt()
		var failed *sdiError
		if !errors.As(err, &failed) {
			return err
		}
		b.d.metrics.failures[failed.reason].Inc()
		if tries == sdiTries {
			return err
		}
	}
}

// told tells the link of the sensor's device, which is up while none of its
// sensors fails. It returns the error where it is the line's.
func (b *bridge) told(s *sensor, err error) error {
	var failed *sdiError
	switch {
	case errors.As(err, &failed):
		s.fails = true
		b.d.state(s.Device, false, err)
		return nil
	case err != nil:
		return err
	case s.concurrent && !s.ready.IsZero():
		return nil // it has only been started
	}
	s.fails = false
	for _, other := range b.sensors {
		if other.Device == s.Device && other.fails {
			return nil
		}
	}
	b.d.state(s.Device, true, nil)
	return nil
}

// start starts a measurement.
func (b *bridge) start(s *sensor) error {
	command := string(s.address) + s.command() + "!"
	if err := b.send(command); err != nil {
		return err
	}
	s.ready, s.n = time.Time{}, 0
	for deadline := b.deadline(); ; {
		line, err := b.next(deadline)
		if err != nil {
			return b.silent(err, command)
		}
		wait, n, ok := sdiStart(sdiClean(line, command), s.address, s.concurrent)
		if !ok {
			b.other(s, line, command)
			continue
		}
		if n == 0 {
			return &sdiError{failAnswer, fmt.Sprintf("sensor %c answers %s with no values", s.address, command)}
		}
		b.d.metrics.lines[used].Inc()
		s.ready, s.n = time.Now().Add(wait), n
		return nil
	}
}

// await waits for the service request, at most for the time that the sensor
// asked for.
func (b *bridge) await(s *sensor) error {
	if time.Until(s.ready) <= 0 {
		return nil
	}
	if s.concurrent {
		return b.idle(s.ready)
	}
	for {
		line, err := b.next(s.ready.Add(sdiSlack))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil // it sent none; its values are asked for all the same
		}
		if err != nil {
			return err
		}
		if _, v := sdiRead(sdiClean(line, ""), s.address, false, nil); v == sdiBare {
			b.d.metrics.lines[used].Inc()
			return nil
		}
		b.other(s, line, "")
	}
}

// collect asks for the values until there are as many as were promised.
func (b *bridge) collect(s *sensor) ([]string, error) {
	if s.continuous {
		return b.page(s, string(s.address)+s.command()+"!", nil)
	}
	s.ready = time.Time{}
	var numbers []string
	for page := 0; page < sdiPages && len(numbers) < s.n; page++ {
		before := len(numbers)
		var err error
		if numbers, err = b.page(s, fmt.Sprintf("%cD%d!", s.address, page), numbers); err != nil {
			return nil, err
		}
		if len(numbers) == before {
			break
		}
	}
	if len(numbers) != s.n {
		return nil, &sdiError{failAnswer, fmt.Sprintf("sensor %c gave %d of %d values", s.address, len(numbers), s.n)}
	}
	return numbers, nil
}

// page asks for values and appends them. It asks again when the CRC is wrong.
func (b *bridge) page(s *sensor, command string, numbers []string) ([]string, error) {
	for tries := 1; ; tries++ {
		if err := b.send(command); err != nil {
			return nil, err
		}
		more, v, err := b.values(s, command, numbers)
		if err != nil {
			return nil, err
		}
		if v == sdiValues {
			return more, nil
		}
		if tries == sdiTries {
			return nil, &sdiError{failCRC, fmt.Sprintf("sensor %c answers %s with a wrong CRC", s.address, command)}
		}
		b.d.metrics.failures[failCRC].Inc()
	}
}

// values waits for a response with values.
func (b *bridge) values(s *sensor, command string, numbers []string) ([]string, sdiVerdict, error) {
	for deadline := b.deadline(); ; {
		line, err := b.next(deadline)
		if err != nil {
			return nil, sdiOther, b.silent(err, command)
		}
		more, v := sdiRead(sdiClean(line, command), s.address, s.withCRC, numbers)
		switch v {
		case sdiValues:
			b.d.metrics.lines[used].Inc()
			return more, v, nil
		case sdiWrongCRC:
			b.uneasy = true
			b.d.refuse(badChecksum, s.Device, line, time.Now())
			return nil, v, nil
		case sdiBare: // a service request that comes late
			b.d.metrics.lines[unused].Inc()
		default:
			b.other(s, line, command)
		}
	}
}

// other counts a line that was not waited for. An echo of the command on a line
// of its own is no fault.
func (b *bridge) other(s *sensor, line []byte, command string) {
	if len(sdiClean(line, command)) == 0 {
		b.d.metrics.lines[unused].Inc()
		return
	}
	b.uneasy = true
	b.d.refuse(malformed, s.Device, line, time.Now())
}

// silent makes the end of the wait for an answer the sensor's error.
func (b *bridge) silent(err error, command string) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		b.uneasy = true
		return &sdiError{failTimeout, fmt.Sprintf("no answer to %s within %s", command, b.d.cfg.Timeout)}
	}
	return err
}

func (b *bridge) deadline() time.Time { return time.Now().Add(b.d.cfg.Timeout.Std()) }

// send sends a command over a line that is quiet.
func (b *bridge) send(command string) error {
	if err := b.quiet(); err != nil {
		return err
	}
	b.d.metrics.requests.Inc()
	if err := b.stream.SetWriteDeadline(b.deadline()); err != nil {
		return err
	}
	if _, err := b.stream.Write([]byte(command + b.d.cfg.Suffix)); err != nil {
		return fmt.Errorf("send %s: %w", command, err)
	}
	return nil
}

// quiet drops what still comes until the line has come to rest, or for two
// timeouts when it does not.
func (b *bridge) quiet() error {
	rest := sdiQuiet
	if b.uneasy {
		rest, b.uneasy = max(sdiQuiet, b.d.cfg.Timeout.Std()), false
	}
	for end := b.deadline().Add(b.d.cfg.Timeout.Std()); time.Now().Before(end); {
		line, err := b.next(time.Now().Add(rest))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return err
		}
		if len(line) > 0 {
			b.d.metrics.lines[unused].Inc()
		}
	}
	if b.reader.Forget() > 0 {
		b.d.metrics.lines[malformed].Inc()
	}
	return nil
}

// idle reads until the time has come, so that a line that breaks is noticed.
func (b *bridge) idle(until time.Time) error {
	for {
		line, err := b.next(until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(line) > 0 {
			b.d.metrics.lines[unused].Inc()
		}
	}
}

// next returns the next line, or an error for which errors.Is(err,
// os.ErrDeadlineExceeded) when the time has come. Empty lines may be returned.
func (b *bridge) next(deadline time.Time) ([]byte, error) {
	for len(b.queue) == 0 {
		if err := b.stream.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
		err := b.reader.Burst(
			func(line []byte) { b.queue = append(b.queue, slices.Clone(line)) },
			func(beginning []byte) { b.d.refuse(tooLong, "", beginning, time.Now()) },
		)
		if errors.Is(err, os.ErrDeadlineExceeded) && len(b.queue) == 0 {
			return nil, err
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, b.d.broken(err)
		}
	}
	line := b.queue[0]
	b.queue = b.queue[1:]
	return line, nil
}
