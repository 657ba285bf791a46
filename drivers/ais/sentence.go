package ais

import (
	"bytes"
	"time"
)

// A sentence is one VDM or VDO sentence whose checksum is right
// (IEC 61162-1; NMEA 0183 "!--VDM").
type sentence struct {
	talker  [2]byte // who sent it: AI, AB, BS, ...
	own     bool    // VDO: of the receiving station itself
	total   uint8   // parts of the message, 1 to 9
	part    uint8   // number of this part, from 1
	seq     byte    // sequence id '0' to '9', 0 when missing
	channel byte    // 'A', 'B', '1', '2', 0 when missing
	fill    uint8   // bits to drop from the payload's end, 0 to 5
	payload []byte  // armoured six-bit characters, a part of the line
	tag     tagBlock
	time    time.Time // when it was received, as the line says; zero when not
}

// scan finds the next VDM or VDO sentence in line from offset on. It returns
// the offset after it, to go on from, or -1 when there is none. start is where
// the sentence begins.
func scan(line []byte, from int) (start, next int) {
	for from < len(line) {
		i := bytes.IndexByte(line[from:], '!')
		if i < 0 {
			return -1, -1
		}
		start = from + i
		if s := line[start:]; len(s) > 7 && s[3] == 'V' && s[4] == 'D' && (s[5] == 'M' || s[5] == 'O') && s[6] == ',' {
			return start, start + 7
		}
		from = start + 1
	}
	return -1, -1
}

// parse reads the sentence that begins with the "!" at the start of s. It
// returns how many bytes it takes, with the checksum, and why it is refused.
func (m *sentence) parse(s []byte) (size int, reason Reason) {
	star := bytes.IndexByte(s, '*')
	if star < 0 || len(s) < star+3 {
		return len(s), BadSentence
	}
	size = star + 3
	sum, ok := hexByte(s[star+1], s[star+2])
	if !ok {
		return size, BadSentence
	}
	if xor(s[1:star]) != sum {
		return size, BadChecksum
	}
	if !upper(s[1]) || !upper(s[2]) {
		return size, BadTalker
	}
	m.talker = [2]byte{s[1], s[2]}
	m.own = s[5] == 'O'
	if !m.fields(s[7:star]) {
		return size, BadSentence
	}
	return size, None
}

// fields reads what follows the address: total, part, sequence id, channel,
// payload and fill bits. Some receivers write one field more; it is ignored.
func (m *sentence) fields(s []byte) bool {
	// total and part are one digit each: "2,1,"
	if len(s) < 7 || s[1] != ',' || s[3] != ',' {
		return false
	}
	m.total, m.part = s[0]-'0', s[2]-'0'
	if m.total < 1 || m.total > 9 || m.part < 1 || m.part > m.total {
		return false
	}
	s = s[4:]
	m.seq, m.channel = 0, 0
	if s[0] != ',' {
		if m.seq = s[0]; m.seq < '0' || m.seq > '9' {
			return false
		}
		s = s[1:]
	}
	if len(s) < 2 || s[0] != ',' {
		return false
	}
	if s = s[1:]; s[0] != ',' {
		m.channel, s = s[0], s[1:]
	}
	if len(s) < 2 || s[0] != ',' {
		return false
	}
	s = s[1:]
	comma := bytes.IndexByte(s, ',')
	if comma < 0 || len(s) < comma+2 {
		return false
	}
	m.payload, s = s[:comma], s[comma+1:]
	m.fill = s[0] - '0'
	return m.fill <= 5 && (len(s) == 1 || s[1] == ',')
}

// xor is the checksum of NMEA 0183: all bytes between "!" and "*".
func xor(s []byte) (sum byte) {
	for _, c := range s {
		sum ^= c
	}
	return sum
}

func hexByte(hi, lo byte) (byte, bool) {
	h, ok1 := hexDigit(hi)
	l, ok2 := hexDigit(lo)
	return h<<4 | l, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

func upper(c byte) bool { return c >= 'A' && c <= 'Z' }
