package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	outboxHigh  = 64 << 10             // bytes of answers that wait for the socket before whoever answers waits
	pullBytes   = 32 << 10             // of messages that are written at a time
	outboxKept  = 4 << 10              // bytes of a buffer that a quiet connection keeps
	stuckAfter  = 5 * time.Millisecond // a write that takes longer waits for the client
	closeLinger = 2 * time.Second      // for what was written before the connection was closed
)

// An outbox is what is to be written to a client: answers, which are queued here,
// and what is taken from the queue of its session, as much as fits one write.
// mochi writes while it holds the client's lock, so one that does not read would
// hold up others; therefore Write never waits for the socket. Who answers waits
// in OnPacketEncode, before the lock, while much is queued.
type outbox struct {
	mu      sync.Mutex
	queue   []byte
	spare   []byte        // of the last write, to use again
	busy    bool          // somebody writes to the socket
	more    bool          // there is something in the queue of the session
	since   atomic.Int64  // Unix time in ns when the write at hand began; 0: there is none
	closing bool          // nothing is read any more
	closed  bool          // the socket is to be closed once everything is written
	full    chan struct{} // closed when the queue is taken; nil: nobody waits
}

// Write queues p, a packet, and ends the connection when the socket fails. Before
// MQTT 5 a server sends no DISCONNECT; mochi does.
func (c *connection) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0] == packets.Disconnect<<4 {
		c.parted.Store(true)
		if !c.version5() {
			return len(p), nil
		}
	}
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, net.ErrClosed
	}
	o.queue = append(o.queue, p...)
	if !o.busy {
		o.busy = true
		c.broker.goroutines.Add(1) // not from zero: the serving goroutine is counted until the connection is closed
		go c.pump()
	}
	return len(p), nil
}

// kick makes the connection write what is in the queue of its session.
func (c *connection) kick() {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.more = true
	if !o.busy {
		o.busy = true
		c.broker.goroutines.Add(1) // as in Write: who serves the connection closes this before it ends
		go c.pump()
	}
}

// stuck reports whether the socket takes nothing at the moment.
func (o *outbox) stuck() bool {
	since := o.since.Load()
	return since > 0 && time.Now().UnixNano()-since > int64(stuckAfter)
}

// writeNow writes p behind what is queued; it waits for the socket.
func (c *connection) writeNow(p []byte) error {
	c.awaitQuiet()
	o := &c.out
	o.mu.Lock()
	if o.closed || o.busy {
		closed := o.closed
		if !closed {
			o.queue = append(o.queue, p...)
		}
		o.mu.Unlock()
		if closed {
			return net.ErrClosed
		}
		return nil
	}
	o.busy = true
	c.writeBy(writeTimeout)
	o.mu.Unlock()
	err := c.push(p)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && (len(o.queue) > 0 || o.more) {
		c.broker.goroutines.Add(1) // as in Write; whoever is here is counted
		go c.pump()
		return nil
	}
	c.rest(err)
	return err
}

// pump writes what is queued until there is no more.
func (c *connection) pump() {
	defer c.broker.goroutines.Done()
	o := &c.out
	for {
		o.mu.Lock()
		if len(o.queue) == 0 && !o.more {
			c.rest(nil)
			o.mu.Unlock()
			return
		}
		out, pulls := o.queue, o.more && !o.closed
		o.queue, o.spare, o.more = o.spare[:0], nil, false
		c.release()
		if !o.closed {
			c.writeBy(writeTimeout)
		}
		o.mu.Unlock()
		if pulls {
			out = c.draw(out)
		}
		err := c.push(out)
		o.mu.Lock()
		o.spare = out[:0]
		if err != nil {
			c.rest(err)
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
	}
}

// lastWords queues what waits for the client, as much as fits one write: DISCONNECT
// would overtake it.
func (c *connection) lastWords() {
	if s := c.session.Load(); s != nil {
		out, _ := s.queue.pull(c, nil, pullBytes)
		_, _ = c.Write(out) // it may be closed
	}
}

// draw appends messages of the session; those that remain keep more set.
func (c *connection) draw(out []byte) []byte {
	s := c.session.Load()
	if s == nil {
		return out
	}
	out, p := s.queue.pull(c, out, pullBytes)
	if p.sent > 0 {
		c.broker.metrics.deliveries.Add(float64(p.sent))
		c.ease()
	}
	for range p.oversize {
		c.broker.dropped(&s.queue, dropOversize)
	}
	if len(out) >= pullBytes {
		c.out.mu.Lock()
		c.out.more = true
		c.out.mu.Unlock()
	}
	return out
}

// rest ends the turn of who writes, under the lock.
func (c *connection) rest(err error) {
	o := &c.out
	o.busy = false
	if err != nil {
		// What follows a part of a packet is no MQTT any more.
		o.closed, o.queue = true, nil
		c.end()
		c.release()
	}
	if cap(o.spare) > outboxKept {
		o.spare = nil
	}
	if cap(o.queue) > outboxKept {
		o.queue = nil
	}
	if o.closed {
		_ = c.Conn.Close()
	}
}

// release lets those who wait go on, under the lock.
func (c *connection) release() {
	if c.out.full != nil {
		close(c.out.full)
		c.out.full = nil
	}
}

// writeBy gives the next write its own deadline, under the lock.
func (c *connection) writeBy(patience time.Duration) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(patience))
}

func (c *connection) push(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	c.out.since.Store(time.Now().UnixNano())
	n, err := c.Conn.Write(p)
	c.out.since.Store(0)
	c.broker.metrics.sent.Add(float64(n))
	return err
}

// awaitQuiet waits while much is queued, unless the connection is closed.
func (c *connection) awaitQuiet() {
	o := &c.out
	for {
		o.mu.Lock()
		if len(o.queue) < outboxHigh || o.closed {
			o.mu.Unlock()
			return
		}
		if o.full == nil {
			o.full = make(chan struct{})
		}
		full := o.full
		o.mu.Unlock()
		select {
		case <-full:
		case <-c.open.Done():
			return
		}
	}
}

// Close ends the connection: nothing more is read, and whoever waits on it is
// released. The socket is closed by part, once the goroutine that serves it has
// come back.
func (c *connection) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		c.end()
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		c.out.closing = true
		err = c.Conn.SetReadDeadline(longPast)
	})
	return err
}

// part closes the socket behind what is queued, for which there is a moment, and
// behind the reason that an MQTT 5 client has not been told yet.
func (c *connection) part(err error) {
	_ = c.Close()
	if code := c.reason(err); code != 0 && !c.parted.Load() && c.client != nil && c.version5() && c.session.Load() != nil {
		_, _ = c.Write([]byte{packets.Disconnect << 4, 1, code}) // it may be closed
	}
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	c.release()
	if o.busy {
		c.writeBy(closeLinger)
		return
	}
	_ = c.Conn.Close()
}

// reason is the reason code for a connection that ended with the error; 0 says
// nothing. mochi tells those of packets that it has understood.
func (c *connection) reason(err error) byte {
	if c.client != nil && c.client.StopCause() != nil {
		err = c.client.StopCause() // and not what reading from a closed connection gives
	}
	code := packets.Code{}
	network := net.Error(nil)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return packets.ErrKeepAliveTimeout.Code
	case errors.Is(err, packets.ErrProtocolViolationQosOutOfRange):
		return packets.ErrMalformedPacket.Code // [MQTT-3.3.1-4]
	case errors.As(err, &code):
		if code.Code >= packets.ErrUnspecifiedError.Code {
			return code.Code
		}
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &network):
		return packets.ErrMalformedPacket.Code // mochi's own words for a packet that is none
	}
	return 0
}

// SetReadDeadline leaves a connection that is closed as it is.
func (c *connection) SetReadDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closing || c.out.closed {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t)
}

// A framer finds the borders of packets in what a client sends, so that a packet
// that announces too much ends the connection before memory is set aside for
// it, with the reason that mochi does not give.
type framer struct {
	left   int64 // bytes of the packet at hand that are to come
	length int64 // of the header at hand
	shift  int   // 0: the next byte is the first of a packet; else bits of length that were read, and 1
	lost   bool  // the length is none: mochi answers
	past   bool  // the first packet is
	kind   byte  // the first byte of the packet at hand
	reason byte  // of a DISCONNECT that has nothing else; mochi passes over it

	properties propertyScan
	doubled    bool // a property is there twice in a packet
}

// read notes bytes and reports whether a packet is too large: the first for
// CONNECT, another for most.
func (f *framer) read(p []byte, most int64) bool {
	for len(p) > 0 && !f.lost {
		if f.left > 0 {
			if f.kind == packets.Disconnect<<4 && f.length == 1 {
				f.reason = p[0]
			}
			n := min(f.left, int64(len(p)))
			if f.properties.take(p[:n]) {
				f.doubled, f.lost = true, true
				return false
			}
			f.left -= n
			p = p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		if f.shift == 0 {
			f.shift, f.length, f.kind = 1, 0, b
			continue
		}
		f.length |= int64(b&0x7f) << (f.shift - 1)
		if f.shift += 7; b&0x80 != 0 {
			f.lost = f.shift > 4*7
			continue
		}
		f.left, f.shift = f.length, 0
		if f.left+1 > most || !f.past && f.left > maxConnectBytes {
			return true
		}
		f.past = true
		f.properties.begin(f.kind)
	}
	return false
}
