package broker

import (
	"fmt"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"haidang/gateway/telemetry"
)

// sourceName is what the broker calls itself at the intake.
const sourceName = "broker"

// A message is what a publish on a telemetry topic became.
type message struct {
	readings []telemetry.Reading
	letters  []telemetry.DeadLetter
}

// bytes is the memory that the message takes while it is pending.
func (m *message) bytes(payload []byte) int64 {
	return min(512+int64(len(payload))+cost(m.readings), maxPendingBytes)
}

// decode reads a payload. A message without readings and letters is one that
// means nothing.
func (b *Broker) decode(r *route, host sparkplugHost, topic string, payload []byte, retain bool) message {
	var readings []telemetry.Reading
	var faults []*fault
	switch {
	case len(payload) == 0 && retain:
		// The way to clear a retained message [MQTT-3.3.1-6]; none is kept.
		return message{}
	case r.fault != nil:
		faults = []*fault{r.fault}
	case len(payload) > maxPayloadBytes:
		faults = []*fault{faultf("too_large", "the payload has %d bytes, at most %d are read", len(payload), maxPayloadBytes)}
	default:
		readings, payload, faults = b.read(r, host, payload)
	}
	m := message{readings: readings}
	if len(readings)+len(faults) == 0 {
		b.metrics.passedOver.Inc()
	}
	if len(faults) > 0 {
		m.letters = b.letters(r, topic, payload, faults)
	}
	return m
}

// letters makes dead letters of the faults, at most maxLetters; the last one
// then says how many more there are.
func (b *Broker) letters(r *route, topic string, payload []byte, faults []*fault) []telemetry.DeadLetter {
	now := time.Now()
	letters := make([]telemetry.DeadLetter, 0, min(len(faults), maxLetters))
	for i, f := range faults {
		b.metrics.deadLetters.WithLabelValues(f.reason).Inc()
		if i >= maxLetters {
			continue
		}
		part := f.bytes
		if part == nil {
			part = payload
		}
		device := r.device
		if f.device != "" {
			device = f.device
		}
		l := telemetry.DeadLetter{At: now, Source: sourceName, Device: device, Place: topic, Reason: f.reason, Detail: f.detail, Bytes: part}
		letters = append(letters, l.Trim())
	}
	if more := len(faults) - maxLetters; more > 0 {
		last := &letters[maxLetters-1]
		last.Detail = last.Detail + "; " + faultf("", "%d more of this message are not kept", more).detail
	}
	return letters
}

// hand gives the message to the intake; done is called once all of it is
// settled.
func (b *Broker) hand(m message, done func(error)) {
	parts := len(m.letters)
	if len(m.readings) > 0 {
		parts++
	}
	if parts == 0 && done != nil {
		done(nil)
	}
	if parts > 1 && done != nil {
		done = join(parts, done)
	}
	if len(m.readings) > 0 {
		b.intake.Accept(sourceName, m.readings, done)
	}
	for _, l := range m.letters {
		b.intake.SetAside(l, done)
	}
}

// join calls done when it was called n times, with the first error.
func join(n int, done func(error)) func(error) {
	var left atomic.Int32
	var first atomic.Pointer[error]
	left.Store(int32(n))
	return func(err error) {
		if err != nil {
			first.CompareAndSwap(nil, &err)
		}
		if left.Add(-1) > 0 {
			return
		}
		if e := first.Load(); e != nil {
			done(*e)
			return
		}
		done(nil)
	}
}

// publishTelemetry takes in a publish on a telemetry topic. What it returns
// makes mochi do nothing more for QoS 0 and 1, and only the exchange of
// acknowledgements for QoS 2.
func (b *Broker) publishTelemetry(c *connection, r *route, pk packets.Packet) (packets.Packet, error) {
	if b.stopping.Load() {
		<-c.open.Done()
		return pk, packets.ErrRejectPacket
	}
	retain := pk.FixedHeader.Retain
	pk.FixedHeader.Retain, pk.Ignore = false, true
	if c.qos == 2 {
		pk.FixedHeader.Qos = 2
		s := c.session.Load()
		if !s.awaitTaken(c.open, c.packetID) {
			return pk, packets.ErrRejectPacket
		}
		if s.knows(c.packetID) {
			return pk, nil // sent again before PUBREL: taken in already [MQTT-4.3.3-10]
		}
	}
	return pk, b.takeIn(c, r, &pk, retain)
}

// takeIn takes in the telemetry message at hand. An error says that it cannot be
// acknowledged, which the connection does itself for QoS 1.
func (b *Broker) takeIn(c *connection, r *route, pk *packets.Packet, retain bool) error {
	qos, id := c.qos, c.packetID
	m := b.decode(r, b.sparkplug.Take, pk.TopicName, pk.Payload, retain)
	b.ownReadings(c.account, r, pk.TopicName, pk.Payload, &m)
	if len(m.readings) > 0 && !r.linked {
		b.link(c, r)
	}
	var f *forward
	if len(pk.Payload) > 0 && c.heard(r, pk.TopicName) {
		f = newForward(publicationOf(pk, qos))
	}
	if !b.forwarder.reserve(c.open, f) {
		return packets.ErrRejectPacket
	}
	switch qos {
	case 0:
		b.hand(m, b.settled0(r, f, len(m.letters) > 0))
	case 1:
		p := pendingAck{id: id, counts: r.counts, aside: len(m.letters) > 0, bytes: m.bytes(pk.Payload), forward: f}
		n, ok := c.expect(p)
		if !ok {
			return packets.ErrRejectPacket
		}
		b.hand(m, func(err error) { c.settle(n, err) })
	default:
		if b.exactlyOnce(c, r, m, pk, f) != nil {
			return packets.ErrRejectPacket
		}
	}
	return nil
}

// settled0 returns what is to happen when a QoS 0 message is settled.
func (b *Broker) settled0(r *route, f *forward, aside bool) func(error) {
	count := r.counts.settle
	if aside {
		count = r.counts.settleAside
	}
	if f == nil {
		return count
	}
	return func(err error) {
		count(err)
		if err != nil {
			b.forwarder.forget(f)
			return
		}
		b.forward(f)
	}
}

// exactlyOnce takes in a QoS 2 message and waits until it is on disk. mochi
// then sends PUBREC; until PUBREL comes, the packet id is known to the session,
// also when the connection ends before the message is on disk.
func (b *Broker) exactlyOnce(c *connection, r *route, m message, pk *packets.Packet, f *forward) error {
	if !c.drained() {
		b.forwarder.forget(f)
		return c.open.Err()
	}
	bytes := m.bytes(pk.Payload)
	if err := b.budget.Acquire(c.open, bytes); err != nil {
		b.forwarder.forget(f)
		return err
	}
	defer b.budget.Release(bytes)
	aside, id := len(m.letters) > 0, c.packetID
	taken := c.session.Load().taking(id)
	result := make(chan error, 1)
	b.hand(m, func(err error) {
		taken(err == nil)
		if err != nil {
			r.counts.refused.Inc()
			b.forwarder.forget(f)
		} else {
			r.counts.count(aside)
			if f != nil {
				b.forward(f)
			}
		}
		result <- err
	})
	select {
	case err := <-result:
		if err != nil {
			c.refuse(err)
			return err
		}
	case <-c.open.Done():
		return c.open.Err()
	}
	b.metrics.acks.Inc()
	return nil
}

// publishOrdinary passes a message on between clients.
func (b *Broker) publishOrdinary(c *connection, r *route, pk packets.Packet) (packets.Packet, error) {
	if c.qos > 0 && !c.drained() {
		return pk, packets.ErrRejectPacket
	}
	pk.FixedHeader.Qos = c.qos
	if c.qos == 2 {
		if c.session.Load().knows(c.packetID) {
			pk.Ignore = true
			return pk, nil
		}
	}
	if pk.FixedHeader.Retain {
		if over := b.retained.keep(pk.TopicName, len(pk.Payload), c.account); over != "" {
			b.metrics.limited(over)
			if c.version5() {
				return pk, b.refusePublish(c, pk, packets.ErrQuotaExceeded)
			}
			pk.FixedHeader.Retain = false
			b.metrics.drops.WithLabelValues(dropRetain).Inc()
		}
	}
	if c.qos == 2 {
		c.session.Load().know(c.packetID)
	}
	r.counts.accepted.Inc()
	b.spread(pk)
	pk.Ignore = true // mochi acknowledges and does no more
	return pk, nil
}

// spread retains a message if it is to be, and hands it to those who hear it,
// before it is acknowledged.
func (b *Broker) spread(pk packets.Packet) {
	if pk.FixedHeader.Retain {
		b.retain(pk)
	}
	b.broadcast(publicationOf(&pk, pk.FixedHeader.Qos))
}

// forbids says why a client may not publish on the topic of the route.
func (c *connection) forbids(r *route) packets.Code {
	switch {
	case r.own:
		return packets.ErrNotAuthorized
	case r.deep:
		c.broker.metrics.limited(limitLevels)
		return packets.ErrTopicNameInvalid
	case r.denied:
		c.broker.metrics.denied(deniedPublish)
		return packets.ErrNotAuthorized
	}
	return packets.CodeSuccess
}

// refusePublish answers a publish that is not taken. The only way to say no in
// MQTT 3.1.1 is to end the connection (3.3.5); a publish on $SYS there is
// acknowledged and does nothing.
func (b *Broker) refusePublish(c *connection, pk packets.Packet, code packets.Code) error {
	if c.qos > 0 && !c.drained() {
		return packets.ErrRejectPacket
	}
	b.metrics.families[familyOther].refused.Inc()
	topic, cut := pk.TopicName, !c.version5()
	if c.reserved != "" {
		topic, cut = c.reserved, false
	}
	b.complain("a client publishes where it may not", "client", c.client.ID, "topic", fmt.Sprintf("%.200s", topic), "disconnected", cut, "reason", code.Reason)
	switch {
	case cut:
		c.client.Stop(code)
	case c.qos > 0:
		// The reason is for MQTT 5 alone; mochi leaves it out before.
		ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ReasonCode: code.Code}
		if c.qos == 2 {
			ack.FixedHeader.Type = packets.Pubrec
		}
		_ = c.client.WritePacket(ack) // a failed write has closed the connection
	}
	return packets.ErrRejectPacket
}

// ownReadings sets aside what a payload says of devices that the account does
// not speak for. The device of the topic was asked about with the topic.
func (b *Broker) ownReadings(a *telemetry.Account, r *route, topic string, payload []byte, m *message) {
	if a.SpeaksForAll() {
		return
	}
	var faults []*fault
	kept := m.readings[:0]
	for i := range m.readings {
		device := m.readings[i].Device
		if device == r.device || a.Speaks(device) {
			kept = append(kept, m.readings[i])
			continue
		}
		b.metrics.denied(deniedDevice)
		faults = append(faults, faultf(deniedDevice, "account %q does not speak for device %q", a.Name, device))
	}
	if len(faults) == 0 {
		return
	}
	clear(m.readings[len(kept):])
	m.readings = kept
	m.letters = append(m.letters, b.letters(r, topic, payload, faults)...)
}

// takeWill takes in a will that was sent on a telemetry topic: mochi sends
// wills past OnPublish.
func (b *Broker) takeWill(cl *mqtt.Client, pk packets.Packet) {
	r := b.route(pk.TopicName)
	if r.format == "" {
		return
	}
	if !b.enter() {
		b.metrics.drops.WithLabelValues(dropWill).Inc()
		return
	}
	defer b.goroutines.Done()
	r.counts = b.metrics.families[r.family]
	m := b.decode(r, b.sparkplug.Take, pk.TopicName, pk.Payload, true)
	if c := connectionOf(cl); c != nil {
		b.ownReadings(c.account, r, pk.TopicName, pk.Payload, &m)
	}
	done := r.counts.settle
	if len(m.letters) > 0 {
		done = r.counts.settleAside
	}
	b.hand(m, done)
}
