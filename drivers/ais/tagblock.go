package ais

import (
	"bytes"
	"hash/maphash"
	"strconv"
	"time"

	"haidang/gateway/telemetry"
)

// A tagBlock is what stands between backslashes before a sentence (IEC
// 61162-450, 7.2; NMEA 0183 4.x): \g:1-2-1234,s:rMT5858,c:1454976000*hh\
type tagBlock struct {
	group  uint32 // g: the group's id; 0: none
	source uint64 // s: a hash of the station's name; 0: none
	time   time.Time
	valid  bool // its checksum is right
}

// station is the source of a block that can be trusted.
func (t *tagBlock) station() uint64 {
	if !t.valid {
		return 0
	}
	return t.source
}

// leading reads what stands before the "!": a tag block or a time.
func (p *parser) leading(s []byte) (tag tagBlock, at time.Time) {
	s = bytes.TrimRight(s, " \t,;")
	if len(s) == 0 {
		return tag, at
	}
	if s[len(s)-1] == '\\' {
		if open := bytes.LastIndexByte(s[:len(s)-1], '\\'); open >= 0 {
			tag = p.parseTag(s[open+1 : len(s)-1])
			if at = tag.time; !at.IsZero() {
				return tag, at
			}
			s = s[:open]
		}
	}
	return tag, prefixTime(s)
}

func (p *parser) parseTag(s []byte) (tag tagBlock) {
	if star := bytes.LastIndexByte(s, '*'); star >= 0 && len(s) == star+3 {
		sum, ok := hexByte(s[star+1], s[star+2])
		tag.valid = ok && sum == xor(s[:star])
		s = s[:star]
	}
	for len(s) > 0 {
		field, rest, _ := bytes.Cut(s, []byte{','})
		s = rest
		if len(field) < 3 || field[1] != ':' {
			continue
		}
		switch value := field[2:]; field[0] {
		case 'g':
			tag.group = groupID(value)
		case 's':
			tag.source = maphash.Bytes(p.seed, value) | 1
		case 'c':
			if n, ok := digits(value); ok {
				tag.time = telemetry.UnixTime(n).UTC()
			}
		}
	}
	// A block whose checksum is wrong, or that has none, may have any digit wrong.
	// Its group and source still keep parts together: real coast stations send
	// such blocks all day (every second part of some Norwegian ones).
	if !tag.valid {
		tag.time = time.Time{}
	}
	return tag
}

// groupID returns the id of "1-2-1234" plus one, or 0.
func groupID(s []byte) uint32 {
	i := bytes.LastIndexByte(s, '-')
	n, ok := digits(s[i+1:])
	if i < 0 || !ok || n >= 1<<32-1 {
		return 0
	}
	return uint32(n) + 1
}

// digits reads a decimal number of at most 18 digits and nothing else.
func digits(s []byte) (n int64, ok bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// prefixTime reads a time that some loggers write before the sentence: a Unix
// time, RFC 3339 or "2012-03-14 01:02:03.4"; without a zone it is UTC.
func prefixTime(s []byte) time.Time {
	s = bytes.Trim(s, " \t,;[]\"")
	if len(s) < 10 || len(s) > 40 {
		return time.Time{}
	}
	text := string(s)
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		if n < 1e8 || n > 1e19 { // before 1973, or no time at all
			return time.Time{}
		}
		return telemetry.UnixFloat(n).UTC()
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006/01/02 15:04:05.999999999"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// suffixTime reads the receiver's Unix time that the US Coast Guard's format
// puts after the checksum, behind the station: ",r003669987,1133137684".
func suffixTime(s []byte) time.Time {
	station := false
	for len(s) > 0 {
		field, rest, _ := bytes.Cut(s, []byte{','})
		s = rest
		if n, ok := digits(field); ok && station && len(field) == 10 {
			return time.Unix(n, 0).UTC()
		}
		station = len(field) > 1 && (field[0] == 'r' || field[0] == 'b')
	}
	return time.Time{}
}

// gatehouse reads the time that a Gatehouse receiver puts before a sentence,
// and the checksum of that sentence:
//
//	$PGHP,1,2010,6,11,11,46,11,390,231,45,992190934,1,2B*5B
func gatehouse(s []byte) (at time.Time, sum byte, ok bool) {
	star := bytes.LastIndexByte(s, '*')
	if star < 0 || len(s) < star+3 {
		return at, 0, false
	}
	if want, ok := hexByte(s[star+1], s[star+2]); !ok || want != xor(s[1:star]) {
		return at, 0, false
	}
	var n [7]int // year, month, day, hour, minute, second, millisecond
	rest := s[len("$PGHP,1,"):star]
	for i := range n {
		var field []byte
		field, rest, _ = bytes.Cut(rest, []byte{','})
		v, ok := digits(field)
		if !ok || v > 9999 {
			return at, 0, false
		}
		n[i] = int(v)
	}
	last := bytes.LastIndexByte(rest, ',')
	if len(rest) != last+3 {
		return at, 0, false
	}
	sum, ok = hexByte(rest[last+1], rest[last+2])
	return time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], n[6]*1e6, time.UTC), sum, ok
}
