package broker

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

const (
	forwardBytes = 512                   // what a message on its way takes at least
	writerTime   = 20 * time.Millisecond // for the goroutine that writes to a subscriber to get a turn
	ackTime      = 5 * time.Millisecond  // for a subscriber to acknowledge
	ackPatience  = 250_000               // us in each second that subscribers may be waited for in all
)

// A forward is a telemetry message on its way to subscribers.
type forward struct {
	*publication
	bytes int64 // of the forwarder's room
}

func newForward(p *publication) *forward {
	return &forward{publication: p, bytes: min(max(p.bytes, forwardBytes), maxForwardBytes)}
}

// forwarder hands telemetry to subscribers, apart from acknowledging it. A
// publisher is not read on while there is no room on the way to subscribers;
// what takes the room is never a subscriber that does not read, for its own
// queue fills and the rest is dropped.
type forwarder struct {
	queue    chan *forward // never full: room bounds it
	room     *semaphore.Weighted
	patience *rate.Limiter // with subscribers that read or acknowledge slowly, in us
}

func newForwarder() forwarder {
	return forwarder{
		queue:    make(chan *forward, maxForwardBytes/forwardBytes),
		room:     semaphore.NewWeighted(maxForwardBytes),
		patience: rate.NewLimiter(ackPatience, ackPatience),
	}
}

// reserve takes the room that a message needs on its way to subscribers, before
// it is taken in: nothing that is acknowledged is dropped for want of it. false
// means that the connection is closed.
func (f *forwarder) reserve(open context.Context, message *forward) bool {
	return message == nil || f.room.Acquire(open, message.bytes) == nil
}

// forget gives back the room of a message that does not go to subscribers; nil
// has none.
func (f *forwarder) forget(message *forward) {
	if message != nil {
		f.room.Release(message.bytes)
	}
}

// forward queues a message, for which there is room, for subscribers.
func (b *Broker) forward(f *forward) { b.forwarder.queue <- f }

// runForwards hands messages to subscribers until stop is closed.
func (b *Broker) runForwards(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case f := <-b.forwarder.queue:
			b.pass(f)
		}
	}
}

func (b *Broker) pass(f *forward) {
	defer func() {
		if p := recover(); p != nil {
			b.panicked(nil, "forward telemetry", p)
		}
	}()
	defer b.forwarder.forget(f)
	b.broadcast(f.publication)
}

// awaitTurn is called before a message is queued for a subscriber. It waits while
// much is queued that only needs a turn on a core: with many publishers the one
// goroutine that writes would get too few, and a subscriber that keeps up would
// lose messages. For clients that read or acknowledge slowly it waits a quarter of
// the time at most, of all together, and for one that does neither not again.
func (b *Broker) awaitTurn(q *queue) {
	for idle := 0; idle < 5; {
		c, slow := q.crowded()
		if c == nil || c.deaf.Load() {
			return
		}
		slow = slow || c.out.stuck()
		begun, turn := time.Now(), writerTime
		if slow {
			if turn = ackTime; b.forwarder.patience.TokensAt(begun) < float64(turn.Microseconds()) {
				return
			}
		}
		timer := time.NewTimer(turn)
		moved := false
		select {
		case <-c.eased:
			moved = true
		case <-c.open.Done():
			idle = 5
		case <-timer.C:
			idle++
		}
		timer.Stop()
		if slow {
			now := time.Now()
			b.forwarder.patience.ReserveN(now, min(int(now.Sub(begun).Microseconds()), ackPatience))
			c.deaf.Store(!moved)
		}
	}
}

// ease notes that messages were written or acknowledged.
func (c *connection) ease() {
	c.deaf.Store(false)
	select {
	case c.eased <- struct{}{}:
	default:
	}
}
