package broker

import (
	"bytes"
	"encoding/binary"

	"github.com/mochi-mqtt/server/v2/packets"
)

// appendPublish appends PUBLISH. now is a Unix time in s, from which what is left
// of the life of the message is told [MQTT-3.3.2-6].
func appendPublish(out []byte, d *delivery, id uint16, version byte, dup bool, now int64) []byte {
	first := byte(packets.Publish<<4) | d.qos<<1
	if dup && d.qos > 0 {
		first |= 8
	}
	if d.retain {
		first |= 1
	}
	var properties []byte
	size := 2 + len(d.topic) + len(d.payload)
	if d.qos > 0 {
		size += 2
	}
	if version == 5 {
		properties = d.encoded(now)
		size += max(len(properties), 1)
	}
	out = append(out, first)
	out = binary.AppendUvarint(out, uint64(size)) // as in MQTT 5, 1.5.5
	out = binary.BigEndian.AppendUint16(out, uint16(len(d.topic)))
	out = append(out, d.topic...)
	if d.qos > 0 {
		out = binary.BigEndian.AppendUint16(out, id)
	}
	if version == 5 && len(properties) == 0 {
		out = append(out, 0)
	}
	out = append(out, properties...)
	return append(out, d.payload...)
}

// encoded returns the properties with their length, or nothing when there are none.
func (d *delivery) encoded(now int64) []byte {
	if d.properties == nil && len(d.ids) == 0 && d.expires == 0 {
		return nil
	}
	var p packets.Properties
	if d.properties != nil {
		p = *d.properties
	}
	p.SubscriptionIdentifier = d.ids
	if d.expires > 0 {
		p.MessageExpiryInterval = uint32(max(d.expires-now, 1))
	}
	var b bytes.Buffer
	p.Encode(packets.Publish, packets.Mods{AllowResponseInfo: true}, &b, 0)
	return b.Bytes()
}
