package ais

import (
	"bytes"
	"hash/maphash"
	"time"
)

// A Reason says why a line, a sentence or a message made no message or no
// reading. It is the label of the counters.
type Reason uint8

// The reasons.
const (
	None          Reason = iota
	BadChecksum          // the sentence's checksum is wrong
	BadSentence          // no checksum, fields missing or out of range
	BadTalker            // the talker is not two capital letters: "!=IVDM", "!--VDM"
	EmptyPayload         // the payload is empty
	BadPayload           // a character that is no six-bit armour, a type or a length that no message has
	Incomplete           // a part of a message never came
	OrphanPart           // a part without the ones before it
	BadMMSI              // the station's number is 0 or has ten digits
	OtherSentence        // not VDM or VDO: another sentence, a comment, noise
	LineTooLong          // over the bound of a line
	reasonCount   int    = iota
)

var reasonNames = [reasonCount]string{
	"none", "bad_checksum", "bad_sentence", "bad_talker", "empty_payload", "bad_payload",
	"incomplete_multipart", "orphan_part", "bad_mmsi", "other_sentence", "line_too_long",
}

// String returns the reason's word for counting.
func (r Reason) String() string { return reasonNames[r] }

// A message is one complete AIS message.
type message struct {
	kind  uint8 // message type, 1 to 27
	own   bool
	mmsi  uint32
	time  time.Time // as the line says; zero when it does not
	bits  bits
	parts uint8

	sum     uint64 // of its bits; the fleet's
	station uint64 // a hash of the station that heard it, as a right tag block says; 0: unknown
}

// Counts is what a Decoder has seen. Every line ends in exactly one of
// Sentences and Rejected, but a line with several sentences in several.
type Counts struct {
	Lines     uint64              // with LineTooLong
	Sentences uint64              // VDM and VDO with a right checksum
	Messages  uint64              // complete, of a known type and length
	Readings  uint64              // made of them
	Types     [28]uint64          // messages by type
	Unread    [28]uint64          // messages of types and contents that make no reading, by type
	Rejected  [reasonCount]uint64 // by Reason

	// Of a decoder with a fleet: what was held back, and what was doubted.
	Duplicates  uint64 // messages that were heard already
	Thinned     uint64 // positions
	Unchanged   uint64 // messages whose facts are known
	Implausible uint64 // positions that fit no vessel on their MMSI, marked bad
	WrongClock  uint64 // messages whose line has a time too far from that of receipt
}

// Reasons returns the counts of what was refused, by word, without zeros.
func (c *Counts) Reasons() map[string]uint64 {
	m := map[string]uint64{}
	for r, n := range c.Rejected {
		if n > 0 {
			m[Reason(r).String()] = n
		}
	}
	return m
}

// A parser turns lines into messages.
type parser struct {
	counts   Counts
	assembly assembly
	sentence sentence // reused
	message  message  // reused

	seed maphash.Seed

	gateTime time.Time // of the $PGHP sentence just before
	gateSum  byte

	heard func(sentence []byte) // takes every sentence whose checksum is right; nil: nobody does
}

func newParser() *parser {
	return &parser{seed: maphash.MakeSeed()}
}

func (p *parser) reject(r Reason) Reason {
	p.counts.Rejected[r]++
	return r
}

// feed takes one line, received at, and calls each for every message that it
// completes. at drives only the time limit of partial messages; zero switches
// that off. It returns the last reason for which something was refused.
func (p *parser) feed(line []byte, at time.Time, each func(*message)) (refused Reason) {
	p.counts.Lines++
	start, next := scan(line, 0)
	if start < 0 || line[0] == '#' { // a comment may show a sentence
		return p.other(line)
	}
	before := line[:start]
	for start >= 0 {
		size, reason := p.sentence.parse(line[start:])
		if reason != None {
			refused = p.reject(reason)
			// The sentence may have been cut short by another one.
			start, next = scan(line, next)
			before = nil
			continue
		}
		end := start + size
		p.counts.Sentences++
		if p.heard != nil {
			p.heard(line[start:end])
		}
		p.stamp(before, line[start:end], line[end:])
		if reason := p.join(at, each); reason != None {
			refused = p.reject(reason)
		}
		start, next = scan(line, end)
		before = nil
	}
	return refused
}

// other takes a line without VDM or VDO.
func (p *parser) other(line []byte) Reason {
	if bytes.HasPrefix(line, []byte("$PGHP,1,")) {
		if at, sum, ok := gatehouse(line); ok {
			p.gateTime, p.gateSum = at, sum
		}
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return None
	}
	return p.reject(OtherSentence)
}

// stamp finds the sentence's tag block and time in what surrounds it.
func (p *parser) stamp(before, own, after []byte) {
	s := &p.sentence
	s.tag, s.time = tagBlock{}, time.Time{}
	if len(before) > 0 {
		s.tag, s.time = p.leading(before)
	}
	if !p.gateTime.IsZero() {
		sum, _ := hexByte(own[len(own)-2], own[len(own)-1])
		if s.time.IsZero() && sum == p.gateSum {
			s.time = p.gateTime
		}
		p.gateTime = time.Time{}
	}
	if s.time.IsZero() && len(after) > 0 {
		s.time = suffixTime(after)
	}
}

// join completes a message with the sentence and hands it over.
func (p *parser) join(at time.Time, each func(*message)) Reason {
	s, m := &p.sentence, &p.message
	if s.total == 1 {
		if len(s.payload) == 0 {
			return EmptyPayload
		}
		m.time, m.parts, m.station = s.time, 1, s.tag.station()
		if !m.bits.set(s.payload, s.fill) {
			return BadPayload
		}
	} else {
		slot, lost, reason := p.assembly.add(s, at)
		p.counts.Rejected[Incomplete] += uint64(lost)
		if slot == nil {
			return reason
		}
		m.time, m.parts, m.station = slot.time, s.total, slot.station
		ok := m.bits.set(slot.payload, s.fill)
		p.assembly.release(slot)
		if !ok {
			return BadPayload
		}
	}
	m.own = s.own
	m.kind = uint8(m.bits.get(0, 6))
	if !lengthFits(m) {
		return BadPayload
	}
	m.mmsi = uint32(m.bits.get(8, 30))
	p.counts.Messages++
	p.counts.Types[m.kind]++
	each(m)
	return None
}

// end counts the messages that are still waiting for parts as incomplete.
func (p *parser) end() { p.counts.Rejected[Incomplete] += uint64(p.assembly.clear()) }
