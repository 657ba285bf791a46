package modbus

import (
	"errors"
	"time"
)

// An answer to a read holds no address: what it answers is known only from its
// order. So after a request whose answer did not come, an answer of the same
// unit, table and length may be that late one, and hold other registers than
// those that were asked for. Modbus TCP has transaction numbers for this, but a
// gateway between it and a serial line may mix answers up all the same.
//
// Doubts remember the reads of one unit that may still be answered. A read
// whose answer could be mixed up with one of them is not sent. A doubt ends
//
//   - when the unit has answered a later read whose answer could not be mixed
//     up, because answers come in the order of the requests, and some time has
//     passed, in case they do not;
//   - or after lastDoubt; or, for a unit all of whose reads look alike, after
//     some time only.
//
// What is left: an answer that is later than that time and overtakes another
// one, or comes from a unit all of whose reads look alike.
//
// An answer that comes twice is known by its bytes: when a read brings the very
// bytes that another one that looks alike has just brought, it is asked again,
// until it brings bytes that no other has, or the same as before. When the bytes
// differed, one of them was a repetition, and an answer is still to come: a doubt.
type doubts struct {
	open []doubt
	same map[span]seen
}

// A span is what a read asks for.
type span struct {
	table        string
	first, count int
}

func (b *block) span() span { return span{b.table, b.first, b.count} }

// alike reports whether the answers to two different reads cannot be told apart.
func (s span) alike(other span) bool {
	return s != other && s.table == other.table && s.bytes() == other.bytes()
}

func (s span) bytes() int {
	if bits(s.table) {
		return answerBytes(readCoils, s.count)
	}
	return answerBytes(readHolding, s.count)
}

type doubt struct {
	span
	first  time.Time // it was sent
	last   time.Time // it was sent last
	proved bool      // a later read was answered for certain
}

// Seen is what a read brought last.
type seen struct {
	hash uint64
	at   time.Time
}

const (
	lastDoubt = 10 * time.Minute
	maxDoubts = 256 // per unit; the oldest is forgotten
)

// sortedOut is how long an answer may be late and overtake others.
func sortedOut(timeout time.Duration) time.Duration { return 3*timeout + time.Second }

// errUncertain says that a read was not sent because its answer could be mixed
// up with a late one.
var errUncertain = errors.New("a late answer to another read could be taken for its answer")

// expire ends doubts. With proof the unit has reads that do not look alike.
func (d *doubts) expire(now time.Time, timeout time.Duration, proof bool) {
	kept := d.open[:0]
	for _, o := range d.open {
		age := now.Sub(o.last)
		if age > lastDoubt || age > sortedOut(timeout) && (o.proved || !proof) {
			continue
		}
		kept = append(kept, o)
	}
	d.open = kept
}

// ambiguous reports whether the answer to a read could be a late one of another.
func (d *doubts) ambiguous(s span) bool {
	for i := range d.open {
		if d.open[i].alike(s) {
			return true
		}
	}
	return false
}

// add notes a read that may still be answered.
func (d *doubts) add(s span, sent time.Time) {
	for i := range d.open {
		if o := &d.open[i]; o.span == s {
			o.last, o.proved = sent, false
			return
		}
	}
	if len(d.open) >= maxDoubts {
		d.open = append(d.open[:0], d.open[1:]...)
	}
	d.open = append(d.open, doubt{span: s, first: sent, last: sent})
}

// answered notes that a read, sent at the given time, was answered. When the
// same read is in doubt as well, the answer may be the one to its first sending,
// and another one may come within the given time.
func (d *doubts) answered(s span, sent time.Time, within time.Duration) {
	surely := sent
	for i := range d.open {
		o := &d.open[i]
		if o.span != s {
			continue
		}
		surely = o.first
		if sent.Sub(o.last) <= within {
			o.last, o.proved = sent, false
		}
	}
	for i := range d.open {
		if o := &d.open[i]; o.span != s && o.last.Before(surely) {
			o.proved = true
		}
	}
}

// repeats reports whether an answer may be a repetition of the answer to another
// read that looks alike, and came within the given time. It is not when the read
// brought the same the last time.
func (d *doubts) repeats(s span, hash uint64, now time.Time, within time.Duration) bool {
	if d.same[s].hash == hash {
		return false
	}
	for other, o := range d.same {
		if other.alike(s) && o.hash == hash && now.Sub(o.at) < within {
			return true
		}
	}
	return false
}

// keep remembers what a read brought.
func (d *doubts) keep(s span, hash uint64, now time.Time) {
	if d.same == nil {
		d.same = map[span]seen{}
	}
	if _, known := d.same[s]; !known && len(d.same) >= maxDoubts {
		clear(d.same)
	}
	d.same[s] = seen{hash, now}
}
