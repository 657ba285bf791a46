package ais

import "time"

// Bounds of the messages that wait for parts.
const (
	maxWaiting      = 256
	maxPayloadChars = 384 // over twice the longest message of ITU-R M.1371-5 (1064 bits)

	// Parts of a message follow each other at once; the sequence id is used
	// again after ten messages. What waits for longer is given up, so that an
	// orphan is not joined to another vessel's message.
	partTimeout = 10 * time.Second
)

// A partial is a message of which the first parts are there.
type partial struct {
	talker  [2]byte
	own     bool
	total   uint8
	have    uint8
	seq     byte
	channel byte
	group   uint32
	source  uint64
	station uint64    // source when its tag block is right
	time    time.Time // as the first part that has one says
	fed     time.Time // when the newest part was fed
	payload []byte
}

// An assembly joins the parts of messages. Parts must come in order; other
// sentences may stand between them.
type assembly struct {
	waiting []*partial // oldest first
	free    []*partial
}

// add takes a part. It returns the message when it is complete (release it
// after use), how many partial messages were given up, and why the part was
// refused.
func (a *assembly) add(s *sentence, at time.Time) (done *partial, lost int, refused Reason) {
	lost = a.expire(at)
	i := a.find(s)
	if s.part == 1 {
		if i >= 0 { // its id is used again: what was waiting never came
			a.drop(i)
			lost++
		}
		if len(a.waiting) == maxWaiting {
			a.drop(0)
			lost++
		}
		if len(s.payload) == 0 {
			return nil, lost, EmptyPayload
		}
		if len(s.payload) > maxPayloadChars {
			return nil, lost, BadPayload
		}
		a.waiting = append(a.waiting, a.begin(s, at))
		return nil, lost, None
	}
	if i < 0 {
		return nil, lost, OrphanPart
	}
	p := a.waiting[i]
	if s.part != p.have+1 {
		if s.part <= p.have { // heard twice, by two receivers
			return nil, lost, OrphanPart
		}
		a.drop(i)
		return nil, lost, Incomplete
	}
	if len(p.payload)+len(s.payload) > maxPayloadChars {
		a.drop(i)
		return nil, lost, BadPayload
	}
	p.payload = append(p.payload, s.payload...)
	p.have, p.fed = s.part, at
	if p.time.IsZero() {
		p.time = s.time
	}
	if p.have < p.total {
		return nil, lost, None
	}
	a.waiting = append(a.waiting[:i], a.waiting[i+1:]...)
	return p, lost, None
}

// find returns the newest partial message that the part belongs to, or -1. A
// tag block's group and source, and the channel, tell apart what the sequence
// id does not, where both parts carry them: stations number on their own, and
// some write the same group id into every block.
func (a *assembly) find(s *sentence) int {
	for i := len(a.waiting) - 1; i >= 0; i-- {
		p := a.waiting[i]
		if p.seq == s.seq && p.total == s.total && p.talker == s.talker && p.own == s.own &&
			(p.channel == s.channel || p.channel == 0 || s.channel == 0) &&
			(p.group == s.tag.group || p.group == 0 || s.tag.group == 0) &&
			(p.source == s.tag.source || p.source == 0 || s.tag.source == 0) {
			return i
		}
	}
	return -1
}

func (a *assembly) begin(s *sentence, at time.Time) *partial {
	p := &partial{}
	if n := len(a.free); n > 0 {
		p, a.free = a.free[n-1], a.free[:n-1]
	}
	*p = partial{
		talker: s.talker, own: s.own, total: s.total, have: 1, seq: s.seq, channel: s.channel,
		group: s.tag.group, source: s.tag.source, station: s.tag.station(), time: s.time, fed: at,
		payload: append(p.payload[:0], s.payload...),
	}
	return p
}

// expire gives up what has waited too long. The oldest stand first; a part
// that came later keeps its place, so the loop stops a little early at worst.
func (a *assembly) expire(at time.Time) (lost int) {
	for len(a.waiting) > 0 && at.Sub(a.waiting[0].fed) > partTimeout {
		a.drop(0)
		lost++
	}
	return lost
}

func (a *assembly) drop(i int) {
	p := a.waiting[i]
	a.waiting = append(a.waiting[:i], a.waiting[i+1:]...)
	a.release(p)
}

// release gives a partial message back for use by another.
func (a *assembly) release(p *partial) { a.free = append(a.free, p) }

func (a *assembly) clear() int {
	n := len(a.waiting)
	for len(a.waiting) > 0 {
		a.drop(0)
	}
	return n
}
