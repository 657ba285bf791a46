package modbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	goburrow "github.com/goburrow/modbus"

	"haidang/gateway/telemetry"
)

// poll reads a unit once and delivers what it read. The error is that of a unit
// that did not answer; what was read before it is delivered all the same.
func (l *Line) poll(ctx context.Context, u *unit) error {
	values, err := l.readBlocks(ctx, u)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var out []telemetry.Reading
	if err == nil {
		if u.link == down {
			l.logger.Info("unit answers again", "unit", u.config.ID, "device", u.config.Device)
		}
		out = u.device.change(u, up, nil)
	}
	for _, r := range values {
		if len(r.Values) > 0 {
			out = append(out, r)
		}
	}
	if err != nil {
		before := u.link
		out = append(out, u.device.change(u, down, err)...)
		if before != down && !l.isLost(err) {
			l.logger.Warn("unit does not answer", "unit", u.config.ID, "device", u.config.Device, "error", err)
		}
	}
	l.tell(out)
	return err
}

func (l *Line) readBlocks(ctx context.Context, u *unit) ([]telemetry.Reading, error) {
	readings := u.readings()
	var fresh news
	defer func() { l.report(u, &fresh) }()
	u.widen(time.Now())
	for i := 0; i < len(u.blocks); i++ {
		b := &u.blocks[i]
		answer, err := l.read(ctx, u, b)
		var exception *goburrow.ModbusError
		switch {
		case err == nil:
			l.decode(b, answer, readings)
			u.answer(b, &fresh)
		case !errors.As(err, &exception) || gatewayCode(exception.ExceptionCode):
			return readings, err
		case splits(exception.ExceptionCode) && len(b.fields) > 1:
			u.halve(i, time.Now())
			i--
		default:
			u.refuse(b, err, time.Now(), &fresh)
		}
	}
	if !u.split {
		u.pause = 0
	}
	return readings, nil
}

// gatewayCode: exceptions with which a gateway speaks for a unit that does not
// answer (MODBUS Application Protocol V1.1b3, 7).
func gatewayCode(code byte) bool {
	return code == goburrow.ExceptionCodeGatewayPathUnavailable || code == goburrow.ExceptionCodeGatewayTargetDeviceFailedToRespond
}

// splits: exceptions that say that a part of the block, or its length, is what
// the unit does not take.
func splits(code byte) bool {
	return code == goburrow.ExceptionCodeIllegalDataAddress || code == goburrow.ExceptionCodeIllegalDataValue
}

func (l *Line) decode(b *block, answer []byte, readings []telemetry.Reading) {
	count := 0
	for i := range b.fields {
		f := &b.fields[i]
		v, why := f.value(b, answer)
		if why != none {
			l.metrics.absent[why].Inc()
			continue
		}
		readings[f.reading].Values = append(readings[f.reading].Values, v)
		count++
	}
	l.metrics.values.Add(float64(count))
}

// read reads a block. A unit that answered until now has a second try, because
// one lost answer on a radio or serial line behind a gateway is no news.
func (l *Line) read(ctx context.Context, u *unit, b *block) ([]byte, error) {
	answer, err := l.request(ctx, u, b)
	if err != nil && u.link == up && ctx.Err() == nil && again(err) {
		answer, err = l.request(ctx, u, b)
	}
	if err != nil {
		return nil, fmt.Errorf("read unit %d, %s %d..%d: %w", u.config.ID, b.table, b.first, b.first+b.count-1, err)
	}
	return answer, nil
}

func again(err error) bool {
	switch reasonOf(err) {
	case reasonTimeout, reasonClosed, reasonAnswer, reasonGateway:
		return true
	}
	return false
}

// reasonOf names the failure for counting; "" is an exception of the unit
// itself, which is no failure of the line.
func reasonOf(err error) string {
	var connect *connectError
	var exception *goburrow.ModbusError
	switch {
	case errors.As(err, &connect):
		return reasonConnect
	case errors.As(err, &exception):
		if gatewayCode(exception.ExceptionCode) {
			return reasonGateway
		}
		return ""
	case errors.Is(err, errBadAnswer):
		return reasonAnswer
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reasonTimeout
	}
	return reasonClosed
}

// An exchange is a medium for the time of one request, in the form that the
// client wants.
type exchange struct {
	ctx    context.Context
	medium medium
}

func (e exchange) Send(request []byte) ([]byte, error) { return e.medium.Exchange(e.ctx, request) }

func (l *Line) request(ctx context.Context, u *unit, b *block) ([]byte, error) {
	l.framing.address(byte(u.config.ID))
	client := goburrow.NewClient2(l.framing, exchange{ctx, l.medium})
	read := client.ReadHoldingRegisters
	switch b.table {
	case Input:
		read = client.ReadInputRegisters
	case Coil:
		read = client.ReadCoils
	case Discrete:
		read = client.ReadDiscreteInputs
	}
	l.metrics.requests.Inc()
	start := time.Now()
	answer, err := read(uint16(b.first), uint16(b.count))
	var exception *goburrow.ModbusError
	switch {
	case err == nil:
		l.metrics.seconds.Observe(time.Since(start).Seconds())
		return answer, nil
	case errors.As(err, &exception):
		l.metrics.seconds.Observe(time.Since(start).Seconds())
		l.metrics.exception(exception.ExceptionCode)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if reason := reasonOf(err); reason != "" {
		l.metrics.failures[reason].Inc()
	}
	return nil, err
}
