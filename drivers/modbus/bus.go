package modbus

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"time"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

const (
	maxBackoff      = 5 * time.Minute        // of a unit that does not answer
	maxBackoffSlots = 10                     // the same, in its intervals
	maxStagger      = 100 * time.Millisecond // between the first polls of two units
	idleClose       = 30 * time.Second       // a longer pause is not worth a connection
)

// A bus is one medium and the units on it: the whole of a line, or one modem of
// a line that modems dial in to. One request is under way on it at a time.
type bus struct {
	name    string // the device of its own link readings
	source  string
	config  *Config
	intake  telemetry.Intake
	logger  *slog.Logger
	metrics *metrics
	medium  medium
	framing framing
	counts  bool // its answers have transaction numbers
	remakes bool // its connection is made anew when nobody answers
	resting bool // a long pause closes the connection
	units   []*unit
	devices []*device
	guests  map[int]*unit // read by hand, and not configured
	seed    maphash.Seed

	turn  chan struct{} // held by who uses the medium or what follows
	nudge chan struct{} // something was done by hand
	heard bool          // a unit has answered on this connection
	told  state         // what was last told of the bus itself
}

func (l *Line) newBus(name string, e endpoint, units []Unit, profiles *Profiles) *bus {
	b := &bus{
		name: name, source: l.source, config: &l.config, intake: l.intake, logger: l.logger, metrics: l.metrics,
		remakes: e.target.Scheme == link.TCP, resting: e.target.Scheme == link.TCP,
		counts: !e.rtu, guests: map[int]*unit{}, seed: maphash.MakeSeed(),
		turn: make(chan struct{}, 1), nudge: make(chan struct{}, 1),
	}
	if e.rtu {
		b.medium, b.framing = newRTU(e, &l.config, l.metrics), rtuFraming()
	} else {
		b.medium, b.framing = newTCP(e, l.config.Timeout.Std(), l.metrics), tcpFraming()
	}
	byName := map[string]*device{}
	for i := range units {
		u := newUnit(&units[i], l.config.Interval.Std(), profiles.Profile(units[i].Profile))
		b.units = append(b.units, u)
		d := byName[u.config.Device]
		if d == nil {
			d = &device{id: u.config.Device}
			byName[d.id] = d
			b.devices = append(b.devices, d)
		}
		d.units = append(d.units, u)
		u.device = d
	}
	return b
}

// take waits for the bus; give lets the next one in.
func (b *bus) take(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bus) give() { <-b.turn }

// run polls until the context ends and then returns nil. It returns an error
// when the bus is lost; before that, the bus and its devices are told as not
// connected.
func (b *bus) run(ctx context.Context) error {
	defer b.close()
	if err := b.open(ctx); err != nil {
		return b.lost(ctx, err)
	}
	b.begin(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		u := b.next()
		if err := b.pause(ctx, timer, time.Until(u.due)); err != nil {
			return b.lost(ctx, err)
		}
		if ctx.Err() != nil || b.take(ctx) != nil {
			return nil
		}
		err := b.poll(ctx, u)
		b.give()
		if ctx.Err() != nil {
			return nil
		}
		if b.isLost(err) {
			return b.lost(ctx, err)
		}
		b.metrics.missed.Add(float64(u.reschedule(time.Now(), err != nil)))
	}
}

func (b *bus) open(ctx context.Context) error {
	if err := b.take(ctx); err != nil {
		return err
	}
	defer b.give()
	if err := b.medium.Open(ctx); err != nil {
		b.metrics.failures[reasonConnect].Inc()
		return err
	}
	b.tell(b.toldUp())
	return nil
}

func (b *bus) close() {
	b.turn <- struct{}{} // who reads by hand has bounded time
	b.reset()
	b.give()
}

// pause waits until the next poll is due. Its error is that of a connection
// that ended meanwhile; nil is returned when the context ends, too.
func (b *bus) pause(ctx context.Context, timer *time.Timer, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	timer.Reset(wait)
	for {
		var ended <-chan error
		if b.take(ctx) != nil {
			return nil
		}
		if wait := time.Until(deadline); wait > idleClose && b.resting {
			b.reset() // devices of few connections, and gateways that drop idle ones
		} else if wait > 0 {
			ended = b.medium.Watch()
		}
		b.give()
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return nil
		case <-b.nudge: // the watch was ended
		case err := <-ended:
			if err := b.reopen(ctx, err); err != nil {
				return err
			}
		}
	}
}

// reopen follows the end of a connection that nobody used: a modem may have
// dialled in again already.
func (b *bus) reopen(ctx context.Context, cause error) error {
	if b.take(ctx) != nil {
		return nil
	}
	defer b.give()
	b.metrics.failures[reasonClosed].Inc()
	b.reset()
	if b.medium.Open(ctx) != nil {
		return cause
	}
	return nil
}

// reset ends the connection.
func (b *bus) reset() {
	b.medium.Close()
	b.heard = false
}

// begin makes every unit due, staggered a little.
func (b *bus) begin(now time.Time) {
	stagger := min(maxStagger, b.config.Interval.Std()/time.Duration(len(b.units)))
	for i, u := range b.units {
		u.link, u.failures = unknown, 0
		u.due = now.Add(time.Duration(i) * stagger)
	}
}

// next returns the unit that is due first.
func (b *bus) next() *unit {
	first := b.units[0]
	for _, u := range b.units[1:] {
		if u.due.Before(first.due) {
			first = u
		}
	}
	return first
}

// isLost tells a lost bus from a unit that failed.
func (b *bus) isLost(err error) bool {
	var connect *connectError
	if errors.As(err, &connect) {
		return true
	}
	if err == nil || reasonOf(err) != reasonClosed {
		return false
	}
	for _, u := range b.units {
		if u.link != down {
			return false
		}
	}
	return true
}

func (b *bus) lost(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return nil
	}
	var readings []telemetry.Reading
	for _, d := range b.devices {
		if d.told != down {
			d.told = down
			readings = append(readings, telemetry.Link(d.id, false, cause))
		}
	}
	if b.told != down {
		b.told = down
		readings = append(readings, telemetry.Link(b.name, false, cause))
	}
	b.tell(readings)
	return fmt.Errorf("modbus line %q: %w", b.name, cause)
}

func (b *bus) toldUp() []telemetry.Reading {
	if b.told == up {
		return nil
	}
	b.told = up
	return []telemetry.Reading{telemetry.Link(b.name, true, nil)}
}

func (b *bus) tell(readings []telemetry.Reading) {
	if len(readings) > 0 {
		b.intake.Accept(b.source, readings, nil)
	}
}
