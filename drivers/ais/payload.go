package ais

import (
	"encoding/binary"
	"strings"

	goais "github.com/BertoldVdb/go-ais"
)

// bits is a payload without its armour: packed, most significant bit first.
type bits struct {
	n    int // bits
	data [maxPayloadChars*6/8 + 8]byte
}

// armour gives the six bits of a payload character, or 0xFF (IEC 61162-1,
// table of the six-bit encapsulation: "0" to "W" and "`" to "w").
var armour = func() (t [256]byte) {
	for i := range t {
		switch {
		case i >= '0' && i <= 'W':
			t[i] = byte(i - '0')
		case i >= '`' && i <= 'w':
			t[i] = byte(i - '`' + 40)
		default:
			t[i] = 0xFF
		}
	}
	return t
}()

// set unpacks the payload; fill bits at its end are dropped. It reports false
// for a character that is no armour and for a payload that is too long.
func (b *bits) set(payload []byte, fill uint8) bool {
	if len(payload) > maxPayloadChars {
		return false
	}
	var bad byte
	j := 0
	p := payload
	for len(p) >= 4 {
		c0, c1, c2, c3 := armour[p[0]], armour[p[1]], armour[p[2]], armour[p[3]]
		bad |= c0 | c1 | c2 | c3
		b.data[j] = c0<<2 | c1>>4
		b.data[j+1] = c1<<4 | c2>>2
		b.data[j+2] = c2<<6 | c3
		p, j = p[4:], j+3
	}
	var last [4]byte
	for i, c := range p {
		last[i] = armour[c]
		bad |= last[i]
	}
	b.data[j] = last[0]<<2 | last[1]>>4
	b.data[j+1] = last[1]<<4 | last[2]>>2
	b.data[j+2] = last[2] << 6
	clear(b.data[j+3 : min(j+11, len(b.data))]) // what get may read beyond the end
	if bad&0xC0 != 0 {
		return false
	}
	b.n = max(0, len(payload)*6-int(fill))
	// Fill bits are zero by the standard; what get returns must not depend on it.
	if r := b.n & 7; r != 0 {
		b.data[b.n>>3] &= 0xFF << (8 - r)
		b.data[b.n>>3+1] = 0
	} else {
		b.data[b.n>>3] = 0
	}
	return true
}

// get returns width bits, at most 56, from the bit at on. Bits beyond the end
// are 0 for at least 56 bits.
func (b *bits) get(at, width int) uint64 {
	return binary.BigEndian.Uint64(b.data[at>>3:]) << (at & 7) >> (64 - width)
}

// signed is get in two's complement.
func (b *bits) signed(at, width int) int64 {
	return int64(binary.BigEndian.Uint64(b.data[at>>3:])<<(at&7)) >> (64 - width)
}

func (b *bits) flag(at int) bool { return b.data[at>>3]>>(7-at&7)&1 == 1 }

// spread writes one byte 0 or 1 for each bit, as go-ais wants them.
func (b *bits) spread(into []byte) []byte {
	into = into[:0]
	for _, c := range b.data[:(b.n+7)/8] {
		into = append(into, c>>7, c>>6&1, c>>5&1, c>>4&1, c>>3&1, c>>2&1, c>>1&1, c&1)
	}
	return into[:b.n]
}

// A span is a range of lengths in bits, both included.
type span struct{ least, most int }

// lengths holds what a message of a type can take, in bits. The fixed lengths
// are of ITU-R M.1371-5, Annex 8. Reports that become readings get one
// armoured character of slack for wrong fill bits, and the truncated forms that
// are on the air: 163 bits of types 1 to 3, 420 of type 5. The bounds of the
// others are those of gpsd, which has seen most of what there is. Noise that
// passed a receiver's CRC shows mostly in its length.
var lengths = [28]span{
	1: {163, 174}, 2: {163, 174}, 3: {163, 174},
	4: {168, 174}, 11: {168, 174},
	5: {420, 432},
	6: {88, 1008}, 8: {56, 1008},
	7: {72, 168}, 13: {72, 168},
	9:  {168, 174},
	10: {72, 1104},
	12: {72, 1008}, 14: {40, 1008},
	15: {88, 168}, 16: {96, 168}, 17: {80, 816},
	18: {168, 174}, 19: {312, 318},
	20: {72, 186}, 21: {272, 368},
	22: {168, 1104}, 23: {160, 1104},
	24: {160, 174},
	25: {40, 168}, 26: {60, 1064},
	27: {96, 168},
}

// lengthFits reports whether the message's type exists and its length can be
// right for it.
func lengthFits(m *message) bool {
	if m.kind == 0 || m.kind > 27 || m.bits.n < lengths[m.kind].least || m.bits.n > lengths[m.kind].most {
		return false
	}
	switch m.kind {
	case 24:
		// Part numbers 2 and 3 are not defined (ITU-R M.1371-5, 3.22).
		part := m.bits.get(38, 2)
		return part == 0 && m.bits.n <= 168 || part == 1 && m.bits.n >= 168
	case 25, 26:
		// The flags say what is there before the bytes (M.1371-5, 3.23, 3.24).
		need := 40
		if m.bits.flag(38) {
			need += 32
		}
		if m.bits.flag(39) {
			need += 16
		}
		if m.kind == 26 {
			need += 24 // spare and communication state at the end
		}
		return m.bits.n >= need
	case 27:
		return m.bits.n <= 102 || m.bits.n == 168 // in one slot, or padded to it
	}
	return true
}

// An unpacker reads the rarer types with go-ais.
type unpacker struct {
	codec *goais.Codec
	bits  []byte // reused
}

func newUnpacker() *unpacker {
	c := goais.CodecNewFast(false, false, true)
	c.FloatWithoutConversion = true // whole numbers, as sent
	return &unpacker{codec: c, bits: make([]byte, 0, maxPayloadChars*6)}
}

// packet returns go-ais's form of the message, or nil. Its byte slices are
// valid until the next call.
func (u *unpacker) packet(m *message) goais.Packet {
	u.bits = m.bits.spread(u.bits)
	for m.kind == 5 && len(u.bits) < 424 { // some transmitters leave out the end
		u.bits = append(u.bits, 0)
	}
	return u.codec.DecodePacket(u.bits)
}

// text ends a six-bit text at its first "@" and drops the spaces at its end
// (ITU-R M.1371-5, 3.3.7); go-ais keeps what follows the "@".
func text(s string) string {
	s, _, _ = strings.Cut(s, "@")
	return strings.TrimRight(s, " ")
}

// aidName joins an aid's name and its extension, which is used only when the
// name is full.
func aidName(name, extension string) string {
	if name = text(name); len(name) == 20 {
		return name + text(extension)
	}
	return name
}
