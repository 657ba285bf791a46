package modbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	goburrow "github.com/goburrow/modbus"

	"haidang/gateway/telemetry"
)

// ErrNotAllowed is wrapped by the error of a write that the configuration does
// not allow.
var ErrNotAllowed = errors.New("not allowed by the configuration")

// errNoUnit is wrapped by the error of a name that is no unit of the line.
var errNoUnit = errors.New("no such unit")

// maxGuests bounds the units of a bus that are read by hand only.
const maxGuests = 256

// Name returns the line's name.
func (l *Line) Name() string { return l.config.Name }

// unit finds a unit by its id, its device, or modem/id; configured reports
// whether the configuration knows it. Two units that fit are an error.
func (l *Line) unit(name string) (b *bus, u *unit, configured bool, err error) {
	only, rest, qualified := strings.Cut(name, "/")
	if !qualified {
		only, rest = "", name
	}
	id, idErr := strconv.Atoi(rest)
	isID := idErr == nil
	var fits []string
	for _, bus := range l.buses {
		if qualified && bus.name != only {
			continue
		}
		for _, each := range bus.units {
			if isID && each.config.ID == id || each.config.Device == rest {
				b, u = bus, each
				fits = append(fits, fmt.Sprintf("%s/%d (%s)", bus.name, each.config.ID, each.config.Device))
			}
		}
		if isID && len(fits) == 0 && (qualified || len(l.buses) == 1) && id >= 0 && id <= 255 {
			return bus, bus.guest(id), false, nil
		}
	}
	switch len(fits) {
	case 0:
		return nil, nil, false, fmt.Errorf("%w: line %q has no unit %q; expected the id or the device of one, as in %s", errNoUnit, l.config.Name, name, l.examples())
	case 1:
		return b, u, true, nil
	}
	return nil, nil, false, fmt.Errorf("%w: %q of line %q may be %s", errNoUnit, name, l.config.Name, strings.Join(fits, " or "))
}

func (l *Line) examples() string {
	var names []string
	for _, b := range l.buses {
		for _, u := range b.units {
			if len(l.buses) > 1 {
				names = append(names, fmt.Sprintf("%s/%d (%s)", b.name, u.config.ID, u.config.Device))
			} else {
				names = append(names, fmt.Sprintf("%d (%s)", u.config.ID, u.config.Device))
			}
		}
	}
	return named(names)
}

// guest is a unit without a configuration. It is remembered, because a late
// answer to one request by hand must not be taken for that to the next.
func (b *bus) guest(id int) *unit {
	b.turn <- struct{}{}
	defer b.give()
	u := b.guests[id]
	if u == nil {
		if len(b.guests) >= maxGuests {
			clear(b.guests)
		}
		u = &unit{config: &Unit{ID: id}, provable: true}
		b.guests[id] = u
	}
	return u
}

// byHand does something between two polls.
func (b *bus) byHand(ctx context.Context, act func() error) error {
	if err := b.take(ctx); err != nil {
		return fmt.Errorf("wait for the line: %w", err)
	}
	err := act()
	b.give()
	select {
	case b.nudge <- struct{}{}: // the connection is watched again
	default:
	}
	return err
}

// readByHand reads between two polls. Where the answer could be mixed up with a
// late one, it waits until that has come or never will.
func (b *bus) readByHand(ctx context.Context, u *unit, s span) (answer []byte, err error) {
	read := func() (err error) {
		answer, err = b.request(context.WithoutCancel(ctx), u, s)
		return err
	}
	err = b.byHand(ctx, read)
	if !errors.Is(err, errUncertain) {
		return answer, err
	}
	timer := time.NewTimer(sortedOut(b.config.Timeout.Std()) + time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return answer, b.byHand(ctx, read)
	case <-ctx.Done():
		return nil, err
	}
}

// A Query asks for registers, or bits, as they stand.
type Query struct {
	Unit  string `json:"unit"`  // id, device, or modem/id
	Table string `json:"table"` // holding, input, coil or discrete
	First int    `json:"first"` // address as on the wire
	Count int    `json:"count"` // 1..125 registers or 1..2000 bits
}

func (q *Query) validate() error {
	if !knownTable(q.Table) {
		return fmt.Errorf("table %q is not one of holding, input, coil, discrete", q.Table)
	}
	longest := maxWords
	if bits(q.Table) {
		longest = maxBits
	}
	if q.Count < 1 || q.Count > longest {
		return fmt.Errorf("count %d is not in 1..%d", q.Count, longest)
	}
	if q.First < 0 || q.First+q.Count > 1<<16 {
		return fmt.Errorf("addresses %d..%d are not in 0..65535", q.First, q.First+q.Count-1)
	}
	return nil
}

// Registers reads what the query asks for, between two polls when the line runs
// and on a connection of its own when it does not. It returns the bytes of the
// answer: two for each register, or a bit for each coil, the first one lowest.
func (l *Line) Registers(ctx context.Context, q Query) (answer []byte, err error) {
	if err := q.validate(); err != nil {
		return nil, &requestError{err}
	}
	b, u, _, err := l.unit(q.Unit)
	if err != nil {
		return nil, &requestError{err}
	}
	answer, err = b.readByHand(ctx, u, span{q.Table, q.First, q.Count})
	if err != nil {
		return nil, fmt.Errorf("read unit %d, %s %d..%d: %w", u.config.ID, q.Table, q.First, q.First+q.Count-1, err)
	}
	return answer, nil
}

// Read reads the values of a unit by its profile, as Registers does. They are
// returned and not delivered to the log.
func (l *Line) Read(ctx context.Context, name string) (readings []telemetry.Reading, err error) {
	b, u, configured, err := l.unit(name)
	if err == nil && !configured {
		err = fmt.Errorf("%w: unit %s of line %q has no profile", errNoUnit, name, l.config.Name)
	}
	if err != nil {
		return nil, &requestError{err}
	}
	err = b.byHand(ctx, func() (err error) {
		readings, err = b.readBlocks(context.WithoutCancel(ctx), u)
		return err
	})
	return readings, err
}

// Writing is what came of a write.
type Writing struct {
	Unit     int     `json:"unit"`
	Device   string  `json:"device"`
	Name     string  `json:"name"`
	Number   float64 `json:"number"`
	Bytes    []byte  `json:"bytes"`     // what was sent: two for each register, or one of a coil
	ReadBack bool    `json:"read_back"` // it was read back and is the same
}

// Write changes a setting that the profile describes and the unit's
// configuration allows, and reads it back. It is asked for once: an error other
// than a refusal leaves open whether it was written, and says so. by is who
// asked, for the log.
func (l *Line) Write(ctx context.Context, name, setting string, number float64, by string) (Writing, error) {
	done, result, err := l.write(ctx, name, setting, number)
	l.metrics.writes[result].Inc()
	level, outcome := l.logger.Info, "written by hand"
	if err != nil {
		level, outcome = l.logger.Warn, "write by hand failed"
	}
	attrs := []any{"unit", name, "name", setting, "number", number, "by", by, "result", result}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	level(outcome, attrs...)
	return done, err
}

func (l *Line) write(ctx context.Context, name, setting string, number float64) (Writing, string, error) {
	var none Writing
	b, u, configured, err := l.unit(name)
	if err != nil {
		return none, writeRefused, &requestError{err}
	}
	var w *Write
	if configured && slices.Contains(u.config.Writes, setting) {
		w = l.profiles.Profile(u.config.Profile).write(setting)
	}
	if w == nil {
		return none, writeRefused, &requestError{fmt.Errorf("write %s of unit %s: %w; writes of that unit are: %s", setting, name, ErrNotAllowed, allowed(u))}
	}
	payload, err := w.words(number)
	if err != nil {
		return none, writeRefused, &requestError{fmt.Errorf("write unit %d: %w", u.config.ID, err)}
	}
	done := Writing{Unit: u.config.ID, Device: u.config.Device, Name: setting, Number: number, Bytes: payload}
	// The outcome of a write on a connection that has gone stale meanwhile could
	// not be told, so it gets one that has just answered.
	result, r := writeFailed, w.register()
	back := span{r.Table, r.Address, r.length()}
	if !w.WriteOnly {
		if _, err = b.readByHand(ctx, u, back); err != nil {
			err = fmt.Errorf("nothing was written, because it could not be read before: %w", err)
		}
	}
	if err == nil {
		err = b.byHand(ctx, func() (err error) {
			result, err = b.write(context.WithoutCancel(ctx), u, w, payload)
			return err
		})
	}
	if err != nil {
		return done, result, fmt.Errorf("write unit %d, %s: %w", u.config.ID, setting, err)
	}
	done.ReadBack = !w.WriteOnly
	return done, result, nil
}

func allowed(u *unit) string {
	if len(u.config.Writes) == 0 {
		return "none"
	}
	return strings.Join(u.config.Writes, ", ")
}

// write sends a write once and reads it back.
func (b *bus) write(ctx context.Context, u *unit, w *Write, payload []byte) (result string, err error) {
	r := w.register()
	back := span{r.Table, r.Address, r.length()}
	_, err = b.transact(ctx, u, func(client goburrow.Client) ([]byte, error) {
		return send(client, r, payload, w.Multiple)
	})
	var exception *goburrow.ModbusError
	if errors.As(err, &exception) && !gatewayCode(exception.ExceptionCode) {
		return writeRefused, err
	}
	if w.WriteOnly {
		if err != nil {
			return writeFailed, fmt.Errorf("it is not known whether it was written: %w", err)
		}
		return writeDone, nil
	}
	answer, backErr := b.readBack(ctx, u, back)
	switch {
	case backErr != nil && err == nil:
		return writeFailed, fmt.Errorf("it was confirmed, but could not be read back: %w", backErr)
	case backErr != nil:
		return writeFailed, fmt.Errorf("it is not known whether it was written: %w", errors.Join(err, backErr))
	case !bytes.Equal(masked(r, answer), payload):
		return writeMismatch, fmt.Errorf("% x was sent and % x is read back (%v)", payload, answer, confirmed(err))
	}
	return writeDone, nil // also when the confirmation was lost
}

func confirmed(err error) string {
	if err != nil {
		return err.Error()
	}
	return "the unit confirmed the write"
}

// masked leaves the one bit of a coil.
func masked(r *Register, answer []byte) []byte {
	if bits(r.Table) {
		return []byte{answer[0] & 1}
	}
	return answer
}

// readBack reads what was written; a second time when it has no answer.
func (b *bus) readBack(ctx context.Context, u *unit, s span) ([]byte, error) {
	answer, err := b.request(ctx, u, s)
	if err != nil && again(err) {
		answer, err = b.request(ctx, u, s)
	}
	return answer, err
}

// send uses the function that fits: 5, 6, 15 or 16.
func send(client goburrow.Client, r *Register, payload []byte, multiple bool) ([]byte, error) {
	address := uint16(r.Address)
	switch {
	case bits(r.Table) && multiple:
		return client.WriteMultipleCoils(address, 1, payload)
	case bits(r.Table):
		return client.WriteSingleCoil(address, uint16(payload[0])*0xFF00)
	case len(payload) == 2 && !multiple:
		return client.WriteSingleRegister(address, uint16(payload[0])<<8|uint16(payload[1]))
	}
	return client.WriteMultipleRegisters(address, uint16(len(payload)/2), payload)
}

// Close ends connections that reading by hand has left open on a line that does
// not run.
func (l *Line) Close() {
	for _, b := range l.buses {
		b.close()
	}
}

// Listens reports whether modems dial in to the line.
func (l *Line) Listens() bool { return l.endpoint.listens() }

// A requestError is about what was asked for, before anything was sent.
type requestError struct{ cause error }

func (e *requestError) Error() string { return e.cause.Error() }
func (e *requestError) Unwrap() error { return e.cause }

// IsRequest reports whether an error of Registers, Read or Write is about what
// was asked for: nothing was sent.
func IsRequest(err error) bool {
	var request *requestError
	return errors.As(err, &request)
}
