package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"haidang/drivers/link"
)

// A wire is a serial line with instruments on it, in the time of a bubble: a
// Write is answered by bytes that arrive when they would. It survives its
// connections, as the line behind a serial server does.
type wire struct {
	server server                           // what the registers hold
	fault  func() fault                     // for the next answer; nil: right
	late   func() time.Duration             // how late a late answer is
	dead   func(unit byte) bool             // nil: none
	trace  func(request []byte, what fault) // nil: none
	char   time.Duration                    // one character; 0: no time
	think  time.Duration                    // of an instrument, before it answers
	inTurn bool                             // no answer overtakes another one
	echoes bool                             // the adapter gives back what it sends
	random *rand.Rand

	mu    sync.Mutex
	conn  *wireConn // the newest connection: it gets what arrives
	last  time.Time // when the newest byte arrives
	queue []arrival // in the order of arrival
	past  [][]byte  // answers sent
}

type arrival struct {
	at    time.Time
	bytes []byte
}

// wireConn is one connection to a wire.
type wireConn struct {
	wire     *wire
	changed  chan struct{}
	deadline time.Time
	ended    error
}

func (w *wire) dial(context.Context) (link.Stream, error) {
	c := &wireConn{wire: w, changed: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = c
	return c, nil
}

// on puts a line's bus on the wire.
func (w *wire) on(b *bus) {
	r := b.medium.(*rtu)
	if r.dial = w.dial; r.char == 0 {
		r.char = w.char
	}
	w.char = r.char
}

func (c *wireConn) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *wireConn) end(err error) {
	if c.ended == nil {
		c.ended = err
	}
	c.wake()
}

func (c *wireConn) Close() error {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.end(os.ErrClosed)
	return nil
}

func (c *wireConn) SetReadDeadline(t time.Time) error {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.deadline = t
	c.wake()
	return nil
}

func (c *wireConn) SetWriteDeadline(time.Time) error { return nil }

func (c *wireConn) Read(b []byte) (int, error) {
	for {
		n, wait, err := c.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		var timer *time.Timer
		var expired <-chan time.Time
		if wait > 0 {
			timer = time.NewTimer(wait)
			expired = timer.C
		}
		select {
		case <-c.changed:
		case <-expired:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// take returns the bytes that have arrived, or how long to wait for a change; 0
// is for ever.
func (c *wireConn) take(b []byte) (n int, wait time.Duration, err error) {
	w := c.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	switch {
	case c.ended != nil:
		return 0, 0, c.ended
	case !c.deadline.IsZero() && !now.Before(c.deadline):
		return 0, 0, os.ErrDeadlineExceeded
	}
	if w.conn == c {
		for len(w.queue) > 0 && !w.queue[0].at.After(now) && n < len(b) {
			copied := copy(b[n:], w.queue[0].bytes)
			n += copied
			if w.queue[0].bytes = w.queue[0].bytes[copied:]; len(w.queue[0].bytes) == 0 {
				w.queue = w.queue[1:]
			}
		}
		if n > 0 {
			return n, 0, nil
		}
		if len(w.queue) > 0 {
			wait = w.queue[0].at.Sub(now)
		}
	}
	if !c.deadline.IsZero() {
		if left := c.deadline.Sub(now); wait == 0 || left < wait {
			wait = left
		}
	}
	return 0, wait, nil
}

// Write has the request answered.
func (c *wireConn) Write(request []byte) (int, error) {
	w := c.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.ended != nil {
		return 0, c.ended
	}
	if len(request) < 8 || crc16(request) != 0 {
		return 0, errors.New("a request that no instrument would understand")
	}
	if w.echoes {
		w.arrive(time.Now().Add(time.Millisecond), slices.Clone(request))
		c.wake()
	}
	if w.dead != nil && w.dead(request[0]) {
		return len(request), nil
	}
	frame := append([]byte{0, 0, 0, 0, 0, byte(len(request) - 2)}, request[:len(request)-2]...)
	answer := withCRC(w.server.answer(frame)[6:])
	what := right
	if w.fault != nil {
		what = w.fault()
	}
	if w.trace != nil {
		w.trace(request, what)
	}
	at := time.Now().Add(w.char*time.Duration(len(request)+len(answer)) + w.think)
	w.reply(c, what, at, request, answer)
	w.past = append(w.past[max(0, len(w.past)-40):], answer)
	c.wake()
	return len(request), nil
}

func withCRC(frame []byte) []byte {
	return binary.LittleEndian.AppendUint16(slices.Clone(frame), crc16(frame))
}

// arrive queues bytes.
func (w *wire) arrive(at time.Time, bytes []byte) {
	if w.inTurn && at.Before(w.last) {
		at = w.last
	}
	if at.After(w.last) {
		w.last = at
	}
	i, _ := slices.BinarySearchFunc(w.queue, at, func(a arrival, t time.Time) int {
		if a.at.After(t) {
			return 1
		}
		return -1 // after those of the same time
	})
	w.queue = slices.Insert(w.queue, i, arrival{at, bytes})
}

// reply sends the answer with a fault.
func (w *wire) reply(c *wireConn, what fault, at time.Time, request, answer []byte) {
	body := slices.Clone(answer[:len(answer)-2])
	switch what {
	case right:
		w.arrive(at, answer)
	case byteByByte:
		for i := range answer {
			w.arrive(at.Add(time.Duration(i)*50*time.Millisecond), answer[i:i+1])
		}
	case twice:
		w.arrive(at, answer)
		w.arrive(at, answer)
	case twiceLater:
		w.arrive(at, answer)
		if answer[1] < 0x80 { // see doubts: of an exception the repetition must come at once
			w.arrive(at.Add(time.Duration(w.random.Int64N(int64(2*time.Second)))), answer)
		}
	case staleFirst: // of another unit
		w.arrive(at, withCRC([]byte{request[0] ^ 0x40, request[1], 2, 0xAB, 0xCD}))
		w.arrive(at, answer)
	// What is forged is never what another request may ask for: that could not be
	// known, and lines do not forge.
	case wrongUnit:
		body[0] ^= 0x40
		w.arrive(at, withCRC(body))
	case wrongFunction:
		body[1] ^= 0x40
		w.arrive(at, withCRC(body))
	case shortCount:
		body[2]--
		w.arrive(at, withCRC(body[:len(body)-1]))
	case longCount:
		body[2] += 8
		w.arrive(at, withCRC(append(body, make([]byte, 8)...)))
	case lyingCount:
		body[2] ^= 3
		w.arrive(at, withCRC(body))
	case corrupt:
		changed := slices.Clone(answer)
		changed[w.random.IntN(len(changed))] ^= 1 << w.random.IntN(8)
		w.arrive(at, changed)
	case truncated: // anywhere: the next one's beginning, or a late one's, may seem to complete it
		w.arrive(at, answer[:1+w.random.IntN(len(answer)-1)])
	case garbageBefore:
		w.arrive(at, []byte{0xDE, 0xAD, request[0], request[1], 0x00})
		w.arrive(at, answer)
	case late:
		w.arrive(at.Add(w.late()), answer)
	case flood:
		for i := range 40 {
			w.arrive(at.Add(time.Duration(i)*20*time.Millisecond), []byte{byte(i), 0xFF, 0, request[0], request[1], 7})
		}
	case reset, closed:
		c.end(io.EOF)
	case truncatedClose:
		w.arrive(at, answer[:len(answer)/2])
		time.AfterFunc(time.Until(at)+time.Millisecond, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			c.end(io.EOF)
		})
	}
}
