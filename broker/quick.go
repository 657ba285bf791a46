package broker

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// inboxBytes is what is read from a socket at a time.
const inboxBytes = 4 << 10

// An inbox is what was read from a client and not yet handed to mochi. mochi gets
// one packet at a time, so that it has done with all before when it asks for the
// next. Those that it would only pass on to OnPublish it does not get, see quick:
// they are nearly all, and its way takes half of the time of a message.
type inbox struct {
	buffer  []byte // of which from..to is not handed over
	from    int
	to      int
	passing int64 // bytes of the packet at hand that mochi has yet to get
	open    bool  // packets may be taken here: CONNECT is answered
	raw     bool  // the length of a packet is none: mochi answers, with all that follows
}

// Read reads for mochi and looks at the sizes of packets.
func (c *connection) Read(p []byte) (int, error) {
	for in := &c.in; ; {
		if in.passing > 0 || in.raw {
			return c.handOver(p)
		}
		length, ok := in.length()
		switch {
		case in.raw:
		case ok && in.open && in.buffer[in.from]>>4 == packets.Publish && c.mayBeQuick(length):
			if in.to-in.from < length {
				if err := c.fill(); err != nil {
					return 0, err
				}
				continue
			}
			taken, err := c.quick(in.buffer[in.from : in.from+length])
			if err != nil {
				return 0, err
			}
			if !taken {
				in.passing = int64(length)
				continue
			}
			in.from += length
		case ok:
			in.passing = int64(length)
		default:
			if err := c.fill(); err != nil {
				return 0, err
			}
		}
	}
}

// handOver gives mochi a part of the packet at hand.
func (c *connection) handOver(p []byte) (int, error) {
	in := &c.in
	if in.from == in.to {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	have := in.buffer[in.from:in.to]
	if !in.raw {
		have = have[:min(int64(len(have)), in.passing)]
	}
	n := copy(p, have)
	in.from += n
	in.passing -= int64(n)
	if n > 0 && c.frames.read(p[:n], int64(c.broker.cfg.Limits.PacketBytes)) {
		c.broker.metrics.limited(limitPacket)
		return 0, c.end5(packets.ErrPacketTooLarge)
	}
	if c.frames.doubled {
		return 0, c.end5(packets.ErrProtocolViolation) // MQTT 5, 2.2.2.2
	}
	return n, nil
}

// length is that of the packet that comes next, its header included; false when
// the header is not there yet.
func (in *inbox) length() (int, bool) {
	have := in.buffer[in.from:in.to]
	for i, length := 1, 0; i < len(have); i++ {
		length |= int(have[i]&0x7f) << (7 * (i - 1))
		if have[i]&0x80 == 0 {
			return i + 1 + length, true
		}
		if i == 4 {
			in.raw = true
			return 0, false
		}
	}
	return 0, false
}

// fill reads more from the socket. Whoever is heard is alive [MQTT-3.1.2-22].
func (c *connection) fill() error {
	in := &c.in
	switch {
	case in.from == in.to:
		in.from, in.to = 0, 0
	case in.from > 0 && in.to == len(in.buffer):
		in.to = copy(in.buffer, in.buffer[in.from:in.to])
		in.from = 0
	}
	if in.buffer == nil {
		in.buffer = make([]byte, inboxBytes)
	}
	if in.open && c.client.State.Keepalive > 0 {
		keepalive := time.Duration(c.client.State.Keepalive) * time.Second
		_ = c.SetReadDeadline(time.Now().Add(keepalive + keepalive/2)) // one that is closed is found by the read
	}
	n, err := c.Conn.Read(in.buffer[in.to:])
	in.to += n
	if n > 0 {
		return nil
	}
	return err
}

// mayBeQuick reports whether a PUBLISH of this length fits.
func (c *connection) mayBeQuick(length int) bool {
	return length <= len(c.in.buffer) && length <= int(c.broker.cfg.Limits.PacketBytes)
}

// quick takes a telemetry message in that nothing is special about: QoS 0 or 1,
// not retained, without properties, on a topic that the connection has published
// on before. false is for all others, which mochi gets; an error ends the
// connection.
func (c *connection) quick(packet []byte) (bool, error) {
	first, body := packet[0], packet[1:]
	for body[0]&0x80 != 0 {
		body = body[1:]
	}
	body = body[1:]
	qos := first >> 1 & 3
	if qos > 1 || first&1 != 0 || len(body) < 2 {
		return false, nil
	}
	size := int(binary.BigEndian.Uint16(body))
	if body = body[2:]; len(body) < size {
		return false, nil
	}
	r := c.known(body[:size])
	body = body[size:]
	if r == nil || !r.quick {
		return false, nil
	}
	id := uint16(0)
	if qos == 1 {
		if len(body) < 2 {
			return false, nil
		}
		if id, body = binary.BigEndian.Uint16(body), body[2:]; id == 0 {
			return false, nil
		}
	}
	if c.version5() {
		if len(body) == 0 || body[0] != 0 {
			return false, nil
		}
		body = body[1:]
	}
	if len(body) == 0 || c.tooLarge(size+len(body)) {
		return false, nil
	}
	info := c.broker.server.Info
	atomic.AddInt64(&info.PacketsReceived, 1)
	atomic.AddInt64(&info.MessagesReceived, 1)
	atomic.AddInt64(&info.BytesReceived, int64(len(packet)))
	if err := c.throttle(size + len(body)); err != nil {
		return true, err
	}
	c.qos, c.packetID = qos, id
	pk := packets.Packet{TopicName: r.topic, Payload: bytes.Clone(body), Origin: c.client.ID}
	if c.broker.stopping.Load() {
		<-c.open.Done()
		return true, net.ErrClosed
	}
	if c.broker.takeIn(c, r, &pk, false) != nil || c.open.Err() != nil {
		return true, net.ErrClosed
	}
	return true, nil
}

// known returns the route of a topic that the connection has published on, or nil.
func (c *connection) known(topic []byte) *route {
	c.checkRoutes()
	if c.last != nil && c.topic == string(topic) {
		return c.last
	}
	r := c.routes[string(topic)]
	if r != nil {
		c.topic, c.last = r.topic, r
	}
	return r
}
