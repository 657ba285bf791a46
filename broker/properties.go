package broker

import "github.com/mochi-mqtt/server/v2/packets"

// A propertyScan looks for a property of MQTT 5 that is there twice in a packet, which
// is a protocol error (MQTT 5, 2.2.2.2) that mochi passes over. It takes the bytes
// of a packet as they come and keeps none.
//
// What comes is a plan of steps: b a byte, t a text or binary behind its length, n
// a variable byte integer, p properties behind their length, w the properties of a
// will if there is one, v the version and f the flags of CONNECT. What follows a
// plan is not looked at.
type propertyScan struct {
	plan   string // of the packet
	value  string // of the property at hand
	inside bool   // the properties
	left   int    // bytes of the properties
	skip   int    // bytes of a text
	size   int    // of a length at hand
	have   int    // bytes of it, or bits
	flags  byte
	before bool // the client speaks a version before 5
	seen   uint64
}

// begin starts a packet of the kind that its first byte tells.
func (s *propertyScan) begin(first byte) {
	*s = propertyScan{flags: s.flags, before: s.before}
	if s.before {
		return
	}
	switch first >> 4 {
	case packets.Connect:
		s.plan = "tvfbbptw"
	case packets.Publish:
		s.plan = "tbbp"
		if first&6 == 0 {
			s.plan = "tp"
		}
	case packets.Subscribe, packets.Unsubscribe:
		s.plan = "bbp"
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		s.plan = "bbbp"
	case packets.Disconnect, packets.Auth:
		s.plan = "bp"
	}
}

// valueOf is the plan of a property's value (MQTT 5, table 2-4); empty: there is
// no such property, which mochi answers.
func valueOf(id byte) string {
	switch id {
	case 0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2a:
		return "b"
	case 0x13, 0x21, 0x22, 0x23:
		return "bb"
	case 0x02, 0x11, 0x18, 0x27:
		return "bbbb"
	case 0x0b:
		return "n"
	case 0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1a, 0x1c, 0x1f:
		return "t"
	case userProperty:
		return "tt"
	}
	return ""
}

const userProperty = 0x26 // may be there many times

// take looks at bytes of the packet and reports whether a property came again.
func (s *propertyScan) take(p []byte) bool {
	for len(p) > 0 && s.plan != "" {
		if s.skip > 0 {
			n := min(s.skip, len(p))
			s.skip, s.left, p = s.skip-n, s.left-n, p[n:]
			continue
		}
		if s.inside && s.value == "" && s.left <= 0 {
			s.inside, s.plan = false, s.plan[1:]
			continue
		}
		if s.plan[0] == 'w' && s.flags&4 == 0 {
			s.plan = ""
			return false
		}
		c := p[0]
		p = p[1:]
		s.left--
		if s.inside && s.value == "" {
			if s.property(c) {
				return true
			}
			continue
		}
		s.step(c)
	}
	return false
}

// property begins one and reports whether it was there before.
func (s *propertyScan) property(id byte) bool {
	if s.value = valueOf(id); s.value == "" {
		s.plan = ""
		return false
	}
	bit := uint64(1) << id
	again := s.seen&bit != 0 && id != userProperty
	s.seen |= bit
	return again
}

func (s *propertyScan) step(c byte) {
	at := &s.plan
	if s.inside {
		at = &s.value
	}
	done := true
	switch (*at)[0] {
	case 'v':
		if s.before = c != 5; s.before {
			s.plan = ""
			return
		}
	case 'f':
		s.flags = c
	case 't':
		s.size, s.have = s.size<<8|int(c), s.have+1
		if done = s.have == 2; done {
			s.skip, s.size, s.have = s.size, 0, 0
		}
	case 'n':
		done = c < 0x80
	case 'p', 'w':
		s.size |= int(c&0x7f) << s.have
		s.have += 7
		if c < 0x80 {
			s.inside, s.left, s.seen, s.size, s.have = true, s.size, 0, 0, 0
		} else if s.have > 21 {
			s.plan = "" // no length: mochi answers
		}
		return
	}
	if done {
		*at = (*at)[1:]
	}
}
