package serial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"haidang/drivers/link"
)

// openQuiet is how long a line has to be silent when it is opened so that what comes
// first is the beginning of a line.
const openQuiet = 200 * time.Millisecond

// A listener reads the lines of one instrument, which sends of its own or is
// polled. An answer is a line like any other: it says itself what it is.
type listener struct {
	d       *Driver
	stream  link.Stream
	reader  *link.LineReader
	decoder decoder
	batch   batch

	fragment bool      // the line at hand may have begun before this one was opened, and show by nothing that it did
	quietBy  time.Time // when it did not if nothing has come; zero: something has

	silentAt time.Time // when the instrument will have been silent for too long
	emitAt   time.Time // when what was gathered is due; zero: nothing is
	emitted  time.Time // when it was the last time
	pollAt   time.Time // when the next poll is due; zero: none
	answerBy time.Time // when the answer to the last poll is late; zero: it came
}

func newListener(d *Driver, stream link.Stream, reader *link.LineReader) *listener {
	return &listener{
		d: d, stream: stream, reader: reader, decoder: newDecoder(&d.cfg),
		fragment: d.cfg.Format == Pattern && d.cfg.Poll == "", quietBy: time.Now().Add(openQuiet),
		batch: batch{device: d.cfg.Device, metrics: d.metrics, gather: d.cfg.Poll == "" && d.cfg.Interval > 0},
	}
}

func (l *listener) run(ctx context.Context) error {
	now := time.Now()
	l.silentAt = now.Add(l.d.cfg.Silence.Std())
	if l.d.cfg.Poll != "" {
		l.pollAt = now
	}
	for ctx.Err() == nil {
		if err := l.onTime(time.Now()); err != nil {
			return err
		}
		if err := l.stream.SetReadDeadline(l.next()); err != nil {
			return err
		}
		err := l.reader.Burst(l.line, l.tooLong)
		if !l.quietBy.IsZero() {
			l.fragment = l.fragment && !errors.Is(err, os.ErrDeadlineExceeded)
			l.quietBy = time.Time{}
		}
		if !l.batch.gather {
			l.d.deliver(l.batch.take())
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			l.d.deliver(l.batch.take())
			if l.reader.Forget() > 0 {
				l.d.metrics.lines[malformed].Inc() // the last line was cut
			}
			return l.d.broken(err)
		}
	}
	return ctx.Err()
}

// next is when something is to be done even if no line comes.
func (l *listener) next() time.Time {
	first := l.silentAt
	for _, t := range []time.Time{l.emitAt, l.pollAt, l.answerBy, l.quietBy} {
		if !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// onTime does what is due.
func (l *listener) onTime(now time.Time) error {
	if !l.emitAt.IsZero() && !now.Before(l.emitAt) {
		l.emitted, l.emitAt = l.emitAt, time.Time{}
		l.d.deliver(l.batch.take())
	}
	if !l.answerBy.IsZero() && !now.Before(l.answerBy) {
		l.answerBy = time.Time{}
		l.d.metrics.failures[failTimeout].Inc()
	}
	if !now.Before(l.silentAt) {
		silence := l.d.cfg.Silence.Std()
		l.silentAt = now.Add(silence)
		l.d.state(l.d.cfg.Device, false, fmt.Errorf("no right line for %s", silence))
	}
	if l.pollAt.IsZero() || now.Before(l.pollAt) {
		return nil
	}
	return l.poll(now)
}

// poll asks for an answer. Polls stay on the grid of the first one; those whose
// time went by while the line was busy are left out.
func (l *listener) poll(now time.Time) error {
	interval := l.d.cfg.Interval.Std()
	l.pollAt = l.pollAt.Add(now.Sub(l.pollAt)/interval*interval + interval)
	if l.reader.Forget() > 0 {
		l.d.metrics.lines[malformed].Inc() // the last answer was cut
	}
	if !l.answerBy.IsZero() {
		l.d.metrics.failures[failTimeout].Inc() // a timeout longer than the interval
	}
	l.d.metrics.requests.Inc()
	if err := l.stream.SetWriteDeadline(now.Add(l.d.cfg.Timeout.Std())); err != nil {
		return err
	}
	if _, err := l.stream.Write([]byte(l.d.cfg.Poll)); err != nil {
		l.d.metrics.failures[failClosed].Inc()
		return fmt.Errorf("poll: %w", err)
	}
	l.answerBy = now.Add(l.d.cfg.Timeout.Std())
	return nil
}

func (l *listener) line(line []byte) {
	if l.fragment {
		l.fragment = false
		l.d.metrics.lines[unused].Inc()
		return
	}
	if len(line) == 0 {
		return // between CR and LF, and between messages
	}
	now := time.Now()
	l.batch.line()
	v := l.decoder.decode(line, now, &l.batch)
	if !v.heard() {
		l.d.refuse(v, l.d.cfg.Device, line, now)
		return
	}
	l.d.metrics.lines[v].Inc()
	l.silentAt = now.Add(l.d.cfg.Silence.Std())
	l.answerBy = time.Time{}
	l.d.state(l.d.cfg.Device, true, nil)
	if l.batch.gather && l.emitAt.IsZero() && len(l.batch.readings) > 0 {
		interval := l.d.cfg.Interval.Std()
		if l.emitAt = l.emitted.Add(interval); l.emitAt.Before(now) {
			l.emitAt = now.Add(interval) // the first lines, or after a silence
		}
	}
}

func (l *listener) tooLong(beginning []byte) {
	l.fragment = false
	l.d.refuse(tooLong, l.d.cfg.Device, beginning, time.Now())
}
