package rules

import (
	"container/heap"
	"time"

	"haidang/gateway/telemetry"
)

// maxLevels is how many levels a rule can have: one per severity.
const maxLevels = 4

// A binding is the state of one rule for one device.
type binding struct {
	rule   *rule
	stream *stream
	tally  *tally

	levels  uint8 // bits of the levels that apply to the device
	latched uint8
	waiting uint8            // levels whose for or clear_for is running
	quiet   uint8            // how many of the rule's silent durations have passed
	due     [maxLevels]int64 // when the waiting levels change

	queued int64 // key in the timer queue; never: not in it
	place  int   // in the timer queue

	warning   *raised // nil when none is active
	lastStart int64   // log time of the last one
	again     uint32  // how many of the same start came before it
}

// raised is an active warning.
type raised struct {
	id       string
	start    int64
	step     int
	severity telemetry.Severity
}

// judge evaluates the rule's levels and reports whether the latches changed and
// whether timers did.
func (b *binding) judge(f *frame) (latches, timers bool) {
	b.tally.evaluations++
	latched, waiting := b.latched, b.waiting
	for i := range b.rule.levels {
		bit := uint8(1) << i
		if b.levels&bit == 0 {
			continue
		}
		l := &b.rule.levels[i]
		hold, v := l.hold, unknown
		if b.latched&bit == 0 {
			v = l.when.judge(f)
		} else {
			hold, v = l.release, l.over(f)
		}
		if v == unknown && f.notFinite {
			b.tally.errors++
			f.failures++
		}
		switch {
		case v == no:
			b.waiting &^= bit
		case v == yes && hold == 0:
			b.latched ^= bit
			b.waiting &^= bit
		case v == yes && b.waiting&bit == 0:
			b.waiting |= bit
			b.due[i] = f.now + hold
		}
	}
	return b.latched != latched, b.waiting != waiting
}

// over judges whether a latched level may end: clear holds and when does not, so
// that a level whose conditions overlap stays.
func (l *level) over(f *frame) verdict {
	if l.clear == nil {
		switch l.when.judge(f) {
		case yes:
			return no
		case no:
			return yes
		}
		return unknown
	}
	v := l.clear.judge(f)
	if v == yes && l.when.judge(f) == yes {
		return no
	}
	return v
}

// severity returns the highest that is latched.
func (b *binding) severity() telemetry.Severity {
	s := telemetry.NoSeverity
	for i := range b.rule.levels {
		if b.latched&(1<<i) != 0 {
			s = max(s, b.rule.levels[i].severity)
		}
	}
	return s
}

// wake returns when the binding has to be looked at without a reading, or never.
func (b *binding) wake() int64 {
	at := int64(never)
	earlier := func(t int64) {
		if at == never || t < at {
			at = t
		}
	}
	for i := range b.rule.levels {
		if b.waiting&(1<<i) != 0 {
			earlier(b.due[i])
		}
	}
	if int(b.quiet) < len(b.rule.silents) {
		earlier(b.stream.heard + b.rule.silents[b.quiet])
	}
	return at
}

// fire does what is due at f.now.
func (b *binding) fire(f *frame) (latches bool) {
	for i := range b.rule.levels {
		if bit := uint8(1) << i; b.waiting&bit != 0 && b.due[i] <= f.now {
			b.waiting &^= bit
			b.latched ^= bit
			latches = true
		}
	}
	silence := false
	for int(b.quiet) < len(b.rule.silents) && b.stream.heard+b.rule.silents[b.quiet] <= f.now {
		b.quiet++
		silence = true
	}
	if silence {
		changed, _ := b.judge(f)
		latches = latches || changed
	}
	return latches
}

// settle makes the transition that follows from the latches, if there is one.
func (e *Engine) settle(b *binding, f *frame) {
	severity := b.severity()
	switch w := b.warning; {
	case w == nil && severity == telemetry.NoSeverity:
		return
	case w == nil:
		if b.lastStart == f.now {
			b.again++
		} else {
			b.lastStart, b.again = f.now, 0
		}
		b.warning = &raised{
			id: warningID(b.rule.Name, b.stream.device.id, f.now, b.again), start: f.now, severity: severity,
		}
		b.tally.raised++
		b.tally.active++
	case severity == w.severity:
		return
	case severity != telemetry.NoSeverity:
		w.severity = severity
	}
	b.warning.step++
	state := telemetry.Active
	if severity == telemetry.NoSeverity {
		state = telemetry.Cleared
	}
	e.out = append(e.out, telemetry.Transition{
		Warning: b.describe(f, state, b.warning), Step: b.warning.step,
	})
	e.meters.transitions[state].Inc()
	if state == telemetry.Cleared {
		b.warning = nil
		b.tally.active--
	}
}

// describe writes the warning as it stands.
func (b *binding) describe(f *frame, state telemetry.State, w *raised) telemetry.Warning {
	timed := f.timed
	f.timed = true // the values that the reading at hand does not have are told as last known
	defer func() { f.timed = timed }()
	r := b.rule
	threshold := b.threshold(f, w.severity)
	return telemetry.Warning{
		ID: w.id, N: w.step,
		Rule: r.Name, Device: b.stream.device.id, Site: b.stream.device.siteName, Kind: r.On,
		State: state, Severity: w.severity,
		Start: unixTime(w.start), At: unixTime(f.now),
		Values: r.values(f), Threshold: threshold,
		Message: telemetry.Text{
			VI: r.vi.render(f, r, w.severity, threshold, true),
			EN: r.en.render(f, r, w.severity, threshold, false),
		},
		To: r.To,
	}
}

func unixTime(t int64) time.Time { return time.Unix(0, t).UTC() }

// threshold returns what the level of this severity compares with.
func (b *binding) threshold(f *frame, s telemetry.Severity) *float64 {
	for i := range b.rule.levels {
		l := &b.rule.levels[i]
		if l.severity != s || l.when.threshold == nil || b.levels&(1<<i) == 0 {
			continue
		}
		f.unknown = false
		if v := l.when.threshold.number(f); !f.unknown {
			return &v
		}
	}
	return nil
}

// values returns the numbers that the rule's conditions name, as far as they
// are known.
func (r *rule) values(f *frame) map[string]float64 {
	values := map[string]float64{}
	for _, o := range r.shown {
		switch {
		case o.cell >= 0 && f.cells[o.cell].at == never:
			continue
		case o.mate != nil && !o.mate.fresh(f):
			continue
		}
		f.unknown = false
		if v := o.number(f); !f.unknown {
			values[o.label] = v
		}
	}
	return values
}

// timers is the queue of bindings that wake by themselves, the earliest first.
// A key is never later than the binding's wake: a reading that moves silence on
// leaves it as it is, and the queue finds that out when the key comes up.
type timers []*binding

func (q timers) Len() int { return len(q) }

func (q timers) Less(i, j int) bool {
	a, b := q[i], q[j]
	if a.queued != b.queued {
		return a.queued < b.queued
	}
	if a.rule != b.rule {
		return a.rule.Name < b.rule.Name
	}
	return a.stream.device.id < b.stream.device.id
}

func (q timers) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *timers) Push(x any) {
	b := x.(*binding)
	b.place = len(*q)
	*q = append(*q, b)
}

func (q *timers) Pop() any {
	last := len(*q) - 1
	b := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return b
}

// arm sees to it that the queue wakes the binding in time.
func (q *timers) arm(b *binding) {
	at := b.wake()
	switch {
	case at == never:
	case b.queued == never:
		b.queued = at
		heap.Push(q, b)
	case at < b.queued:
		b.queued = at
		heap.Fix(q, b.place)
	}
}

func (q *timers) remove(b *binding) {
	if b.queued != never {
		heap.Remove(q, b.place)
		b.queued = never
	}
}

// due returns the binding that wakes first, if that is at or before t.
func (q *timers) due(t int64) *binding {
	for len(*q) > 0 && (*q)[0].queued <= t {
		b := (*q)[0]
		switch at := b.wake(); {
		case at == never:
			q.remove(b)
		case at > b.queued:
			b.queued = at
			heap.Fix(q, 0)
		default:
			return b
		}
	}
	return nil
}
