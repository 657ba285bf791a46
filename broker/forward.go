package broker

import (
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// A forward is a telemetry message on its way to subscribers.
type forward struct {
	origin string // client id of the publisher, for No Local [MQTT-3.8.3-3]
	packet packets.Packet
}

func newForward(origin string, pk packets.Packet, qos byte) *forward {
	f := &forward{origin: origin, packet: packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
		TopicName:   pk.TopicName,
		Payload:     pk.Payload,
		PacketID:    uint16(qos), // only has to be there
		Properties:  pk.Properties,
	}}
	f.packet.Properties.TopicAlias, f.packet.Properties.TopicAliasFlag = 0, false
	return f
}

// forwarder hands telemetry to subscribers, apart from acknowledging it: mochi
// makes a publisher wait for a subscriber that does not read.
type forwarder struct {
	queue chan *forward
	bytes atomic.Int64
}

// forward queues a message for subscribers, or drops and counts it when too
// much is on the way already.
func (b *Broker) forward(f *forward) {
	n := int64(len(f.packet.Payload))
	if b.forwarder.bytes.Add(n) <= maxForwardBytes {
		select {
		case b.forwarder.queue <- f:
			return
		default:
		}
	}
	b.forwarder.bytes.Add(-n)
	b.metrics.drops.WithLabelValues(dropForward).Inc()
}

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
	b.forwarder.bytes.Add(-int64(len(f.packet.Payload)))
	local.ID = f.origin
	if err := b.server.InjectPacket(local, f.packet); err != nil {
		b.complain("telemetry not forwarded to subscribers", "topic", f.packet.TopicName, "error", err)
	}
}
