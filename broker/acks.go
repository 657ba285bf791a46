package broker

import (
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// acks are the QoS 1 messages of a connection that are not acknowledged yet,
// in the order of receipt: a ring of at most maxPending.
type acks struct {
	mu       sync.Mutex
	ring     []pendingAck
	head     uint64 // the oldest
	tail     uint64 // behind the newest
	flushing bool   // a goroutine writes acknowledgements
	refusal  error  // why the one at head may not be acknowledged

	room chan struct{} // holds a token when head has moved, or all is written

	// Of the goroutine that writes:
	out      []byte
	forwards []*forward
}

type pendingAck struct {
	id      uint16
	stored  bool // on disk
	aside   bool // a part of it was set aside
	counts  *familyCounts
	bytes   int64    // memory that it takes
	forward *forward // what goes to subscribers then; nil when there are none
}

// expect queues an acknowledgement and returns its number. It blocks while
// maxPending are queued or all connections together have maxPendingBytes
// pending; false means that the connection is closed.
func (c *connection) expect(p pendingAck) (uint64, bool) {
	if c.broker.budget.Acquire(c.open, p.bytes) != nil {
		c.broker.forwarder.forget(p.forward)
		return 0, false
	}
	a := &c.acks
	for {
		a.mu.Lock()
		if a.refusal == nil && a.tail-a.head < uint64(c.pending) {
			break
		}
		a.mu.Unlock()
		if !c.awaitRoom() {
			c.broker.budget.Release(p.bytes)
			c.broker.forwarder.forget(p.forward)
			return 0, false
		}
	}
	defer a.mu.Unlock()
	if a.ring == nil {
		a.ring = make([]pendingAck, maxPending)
	}
	n := a.tail
	a.ring[n%maxPending] = p
	a.tail++
	c.broker.metrics.pending.Add(1)
	c.broker.metrics.pendingBytes.Add(p.bytes)
	return n, true
}

// awaitRoom waits until head has moved; false means that the connection is closed.
func (c *connection) awaitRoom() bool {
	select {
	case <-c.acks.room:
		return true
	case <-c.open.Done():
		return false
	}
}

// drained waits until nothing is pending; false means that the connection is
// closed. MQTT wants acknowledgements in the order of receipt [MQTT-4.6.0-2].
func (c *connection) drained() bool {
	for {
		c.acks.mu.Lock()
		// What is settled may not be written yet: another answer would overtake it.
		empty := c.acks.head == c.acks.tail && c.acks.refusal == nil && !c.acks.flushing
		c.acks.mu.Unlock()
		if empty {
			return c.open.Err() == nil
		}
		if !c.awaitRoom() {
			return false
		}
	}
}

// settle notes what became of message n. It does not block: acknowledgements
// are written by a goroutine that lives as long as there are some to write.
func (c *connection) settle(n uint64, err error) {
	a := &c.acks
	a.mu.Lock()
	defer a.mu.Unlock()
	if n >= a.tail {
		return // cut off by a refusal, or abandoned
	}
	p := &a.ring[n%maxPending]
	if err != nil {
		// Nothing from here on is acknowledged, or the order would be lost.
		p.counts.refused.Inc()
		a.refusal = err
		a.tailOff(n, c.broker)
	} else {
		p.stored = true
	}
	if !a.flushing && a.ready() {
		a.flushing = true
		c.broker.goroutines.Add(1) // not from zero: the serving goroutine is counted until the connection is closed
		go c.flush()
	}
}

// ready reports whether there is something to write, or to refuse.
func (a *acks) ready() bool {
	if a.head == a.tail {
		return a.refusal != nil
	}
	return a.ring[a.head%maxPending].stored
}

// tailOff forgets the messages from n on.
func (a *acks) tailOff(n uint64, b *Broker) {
	for ; a.tail > n; a.tail-- {
		b.forget(&a.ring[(a.tail-1)%maxPending])
	}
}

// forget gives back what a pending message holds.
func (b *Broker) forget(p *pendingAck) {
	b.budget.Release(p.bytes)
	b.forwarder.forget(p.forward)
	b.metrics.pending.Add(-1)
	b.metrics.pendingBytes.Add(-p.bytes)
	*p = pendingAck{}
}

// flush writes acknowledgements, all that are ready in one write.
func (c *connection) flush() {
	defer c.broker.goroutines.Done()
	for {
		more, refusal := c.collect()
		if refusal != nil {
			c.refuse(refusal)
		}
		if !more {
			return
		}
		if err := c.writeNow(c.acks.out); err == nil {
			c.broker.metrics.acks.Add(float64(len(c.acks.out) / 4))
		}
		for i, f := range c.acks.forwards {
			c.broker.forward(f) // it is on disk, acknowledged or not
			c.acks.forwards[i] = nil
		}
	}
}

// collect takes the acknowledgements that are ready. Without any, the calling
// goroutine has nothing more to write; the error says that the connection is
// to end.
func (c *connection) collect() (more bool, refusal error) {
	a := &c.acks
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out, a.forwards = a.out[:0], a.forwards[:0]
	for a.head < a.tail && a.ring[a.head%maxPending].stored {
		p := &a.ring[a.head%maxPending]
		a.out = append(a.out, packets.Puback<<4, 2, byte(p.id>>8), byte(p.id))
		if p.forward != nil {
			a.forwards, p.forward = append(a.forwards, p.forward), nil
		}
		p.counts.count(p.aside)
		c.broker.forget(p)
		a.head++
	}
	if len(a.out) == 0 {
		if a.ready() {
			return false, a.refusal // still flushing, so this happens once
		}
		a.flushing = false
		a.wake()
		return false, nil
	}
	a.wake()
	return true, nil
}

// wake lets whoever waits look again.
func (a *acks) wake() {
	select {
	case a.room <- struct{}{}:
	default:
	}
}

// refuse ends the connection some time after the intake refused a message, so
// that the client sends it again. Until then the socket is not read.
func (c *connection) refuse(err error) {
	c.broker.complain("readings are refused, acknowledgements withheld", "client", c.client.ID, "error", err)
	pause := time.NewTimer(c.broker.refusePause)
	defer pause.Stop()
	select {
	case <-pause.C:
		c.drop(packets.ErrQuotaExceeded)
	case <-c.open.Done():
	}
}

// abandon forgets all that is pending: acknowledgements belong to the
// connection.
func (c *connection) abandon() {
	a := &c.acks
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tailOff(a.head, c.broker)
}
