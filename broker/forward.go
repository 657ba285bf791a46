package broker

import (
	"context"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

const (
	forwardBytes = 512                   // what a message on its way takes besides topic and payload
	writerTime   = 20 * time.Millisecond // for the goroutine that writes to a subscriber to get a turn
	ackTime      = 5 * time.Millisecond  // for a subscriber to acknowledge
	ackPatience  = 250_000               // us in each second that subscribers may be waited for in all
)

// A forward is a telemetry message on its way to subscribers.
type forward struct {
	origin string // client id of the publisher, for No Local [MQTT-3.8.3-3]
	bytes  int64  // of the forwarder's room
	packet packets.Packet
}

func newForward(origin string, pk packets.Packet, qos byte) *forward {
	f := &forward{origin: origin, bytes: min(int64(len(pk.TopicName)+len(pk.Payload))+forwardBytes, maxForwardBytes), packet: packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
		TopicName:   pk.TopicName,
		Payload:     pk.Payload,
		PacketID:    uint16(qos), // only has to be there
		Properties:  pk.Properties,
	}}
	f.packet.Properties.TopicAlias, f.packet.Properties.TopicAliasFlag = 0, false
	return f
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
	local := b.server.NewClient(nil, mqtt.LocalListener, "", true)
	for {
		select {
		case <-stop:
			return
		case f := <-b.forwarder.queue:
			b.inject(local, f)
		}
	}
}

func (b *Broker) inject(local *mqtt.Client, f *forward) {
	defer func() {
		if p := recover(); p != nil {
			b.panicked(nil, "forward telemetry", p)
		}
	}()
	defer b.forwarder.forget(f)
	local.ID = f.origin
	if err := b.server.InjectPacket(local, f.packet); err != nil {
		b.complain("telemetry not forwarded to subscribers", "topic", f.packet.TopicName, "error", err)
	}
}

// awaitTurn is called before a message is queued for a subscriber. It waits while
// much is queued that only needs a turn on a core: with many publishers the one
// goroutine that writes would get too few, and a subscriber that keeps up would
// lose messages. For clients that read or acknowledge slowly it waits a quarter of
// the time at most, of all together, and for one that does neither not again.
func (c *connection) awaitTurn() {
	c.unwritten.Add(1)
	for idle := 0; c.crowded() && !c.deaf.Load(); {
		begun, turn := time.Now(), writerTime
		slow := c.held.Load() > 0 || c.unwritten.Load() < int64(c.broker.cfg.Limits.Queue)*3/4
		if slow {
			if turn = ackTime; c.broker.forwarder.patience.TokensAt(begun) < float64(turn.Microseconds()) {
				return
			}
		}
		timer := time.NewTimer(turn)
		moved := false
		select {
		case <-c.eased:
			moved = true
		case <-c.open.Done():
		case <-timer.C:
			idle++
		}
		timer.Stop()
		if slow {
			now := time.Now()
			c.broker.forwarder.patience.ReserveN(now, min(int(now.Sub(begun).Microseconds()), ackPatience))
			c.deaf.Store(!moved)
		}
		if idle == 5 || c.open.Err() != nil {
			c.unwritten.Store(0) // what was dropped on the way here was counted as well
			return
		}
	}
}

// crowded reports whether a subscriber has little room left.
func (c *connection) crowded() bool {
	limits := &c.broker.cfg.Limits
	return c.unwritten.Load() >= int64(limits.Queue)*3/4 || c.client.State.Inflight.Len() >= limits.Inflight*3/4
}

// ease notes that a message was written, or acknowledged, or dropped.
func (c *connection) ease() {
	c.deaf.Store(false)
	select {
	case c.eased <- struct{}{}:
	default:
	}
}

// written notes that a message has left the queue of the subscriber.
func (c *connection) written() {
	if c.unwritten.Add(-1) < 0 {
		c.unwritten.Store(0)
	}
	c.ease()
}
