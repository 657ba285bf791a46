package modbus

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"time"

	goburrow "github.com/goburrow/modbus"

	"haidang/gateway/telemetry"
)

// poll reads a unit once and delivers what it read. The error is that of a unit
// that did not answer; what was read before it is delivered all the same.
func (b *bus) poll(ctx context.Context, u *unit) error {
	values, err := b.readBlocks(ctx, u)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var out []telemetry.Reading
	if err == nil {
		if u.link == down {
			b.logger.Info("unit answers again", "unit", u.config.ID, "device", u.config.Device)
		}
		out = u.device.change(u, up, nil)
	}
	out = append(out, values...)
	if err != nil {
		before := u.link
		out = append(out, u.device.change(u, down, err)...)
		if before != down && !b.isLost(err) {
			b.logger.Warn("unit does not answer", "unit", u.config.ID, "device", u.config.Device, "error", err)
		}
	}
	b.tell(out)
	return err
}

func (b *bus) readBlocks(ctx context.Context, u *unit) ([]telemetry.Reading, error) {
	h := u.harvest()
	var fresh news
	defer func() { b.report(u, &fresh) }()
	u.widen(time.Now())
	for i := 0; i < len(u.blocks); i++ {
		blk := &u.blocks[i]
		answer, err := b.read(ctx, u, blk)
		var exception *goburrow.ModbusError
		switch {
		case err == nil:
			b.decode(blk, answer, h)
			u.answer(blk, &fresh)
		case errors.Is(err, errUncertain):
			// counted; the next poll has it
		case !errors.As(err, &exception) || gatewayCode(exception.ExceptionCode):
			return h.judged(u), err
		case splits(exception.ExceptionCode) && len(blk.fields) > 1:
			u.halve(i, time.Now())
			i--
		default:
			u.refuse(blk, err, time.Now(), &fresh)
		}
	}
	if !u.split {
		u.pause = 0
	}
	return h.judged(u), nil
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

func (b *bus) decode(blk *block, answer []byte, h *harvest) {
	count := 0
	for i := range blk.fields {
		f := &blk.fields[i]
		v, why := f.value(blk, answer)
		if f.status != nil {
			h.verdicts[f.verdict] = f.status.quality(v.Number)
			continue
		}
		if why != none {
			b.metrics.absent[why].Inc()
			continue
		}
		h.readings[f.reading].Values = append(h.readings[f.reading].Values, v)
		count++
	}
	b.metrics.values.Add(float64(count))
}

// read reads a block. A unit that answered until now has a second try, because
// one lost answer on a radio or serial line is no news.
func (b *bus) read(ctx context.Context, u *unit, blk *block) ([]byte, error) {
	answer, err := b.request(ctx, u, blk.span())
	if err != nil && ctx.Err() == nil && u.link == up && again(err) {
		answer, err = b.request(ctx, u, blk.span())
	}
	if err != nil {
		return nil, fmt.Errorf("read unit %d, %s %d..%d: %w", u.config.ID, blk.table, blk.first, blk.first+blk.count-1, err)
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
	case errors.Is(err, errUncertain):
		return reasonUncertain
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

// request reads registers, or bits, of a unit. When the answer could be mixed up
// with that to an earlier read, it is not sent.
func (b *bus) request(ctx context.Context, u *unit, s span) ([]byte, error) {
	sent := time.Now()
	timeout := b.config.Timeout.Std()
	u.doubts.expire(sent, timeout, u.provable)
	if u.doubts.ambiguous(s) {
		b.metrics.failures[reasonUncertain].Inc()
		return nil, errUncertain
	}
	answer, err := b.ask(ctx, u, s)
	var exception *goburrow.ModbusError
	switch {
	case err == nil:
	case !errors.As(err, &exception):
		u.doubts.add(s, sent)
		return nil, err
	default:
		if len(u.doubts.open) > 0 {
			// It may be the exception to a read in doubt, and this one's answer is
			// still to come.
			u.doubts.add(s, sent)
		}
		return nil, err
	}
	if b.counts { // an answer cannot come twice
		u.doubts.answered(s, sent, sortedOut(timeout))
		return answer, nil
	}
	hash := maphash.Bytes(b.seed, answer)
	if u.doubts.repeats(s, hash, sent, sortedOut(timeout)) {
		if answer, hash, err = b.confirm(ctx, u, s, hash); err != nil {
			u.doubts.add(s, time.Now())
			return nil, err
		}
	}
	u.doubts.keep(s, hash, time.Now())
	u.doubts.answered(s, sent, sortedOut(timeout))
	return answer, nil
}

// maxConfirm is how often a read is asked again whose answer may be a repetition.
const maxConfirm = 3

// confirm asks a read again whose answer has the bytes of another one that looks
// alike. It believes an answer that is no repetition of any, or that came before.
func (b *bus) confirm(ctx context.Context, u *unit, s span, first uint64) (answer []byte, hash uint64, err error) {
	b.metrics.confirmed.Inc()
	within := sortedOut(b.config.Timeout.Std())
	before := []uint64{first}
	for range maxConfirm {
		if answer, err = b.ask(ctx, u, s); err != nil {
			return nil, 0, err
		}
		hash = maphash.Bytes(b.seed, answer)
		if hash != first {
			u.doubts.add(s, time.Now()) // one answer belongs to somebody else, and one is still to come
		}
		if slices.Contains(before, hash) || !u.doubts.repeats(s, hash, time.Now(), within) {
			return answer, hash, nil
		}
		before = append(before, hash)
	}
	b.metrics.failures[reasonAnswer].Inc()
	return nil, 0, fmt.Errorf("%w: %d answers that other reads have just brought", errBadAnswer, len(before))
}

func (b *bus) ask(ctx context.Context, u *unit, s span) ([]byte, error) {
	return b.transact(ctx, u, func(client goburrow.Client) ([]byte, error) {
		read := client.ReadHoldingRegisters
		switch s.table {
		case Input:
			read = client.ReadInputRegisters
		case Coil:
			read = client.ReadCoils
		case Discrete:
			read = client.ReadDiscreteInputs
		}
		return read(uint16(s.first), uint16(s.count))
	})
}

// transact has one request sent to a unit, counts it, and decides whether the
// connection is worth keeping after a failure.
func (b *bus) transact(ctx context.Context, u *unit, ask func(goburrow.Client) ([]byte, error)) ([]byte, error) {
	b.framing.address(byte(u.config.ID))
	b.metrics.requests.Inc()
	start := time.Now()
	answer, err := ask(goburrow.NewClient2(b.framing, exchange{ctx, b.medium}))
	var exception *goburrow.ModbusError
	switch {
	case err == nil:
		b.metrics.seconds.Observe(time.Since(start).Seconds())
		b.heard = true
		return answer, nil
	case errors.As(err, &exception):
		b.metrics.seconds.Observe(time.Since(start).Seconds())
		b.metrics.exception(exception.ExceptionCode)
		b.heard = b.heard || !gatewayCode(exception.ExceptionCode)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	reason := reasonOf(err)
	if reason != "" {
		b.metrics.failures[reason].Inc()
	}
	// A connection whose other side is gone looks like a unit that does not
	// answer. It is made anew, but not for each try of a unit that is known to be
	// down while others answer.
	if b.remakes && (reason == reasonTimeout || reason == reasonAnswer) && (u.link != down || !b.heard) {
		b.reset()
	}
	return nil, err
}
