package rules

import (
	"container/heap"
	"slices"
	"time"

	"haidang/gateway/telemetry"
)

// maxLevels is how many levels a rule can have: one per severity.
const maxLevels = 4

// A binding is the state of one rule for one device. There are a million of them where
// a hundred thousand devices are registered: what few of them need is elsewhere.
type binding struct {
	rule   *rule
	stream *stream
	tally  *tally
	index  int32 // in the stream's bindings
	place  int32 // in the timer queue

	levels   uint8 // bits of the levels that apply to the device
	latched  uint8
	waiting  uint8              // levels whose for or clear_for is running
	level    telemetry.Severity // what is latched, as of the last settling
	withheld bool               // it is more than may be raised now
	again    uint32             // how many warnings of the same start came before the last one

	due    *[maxLevels]int64 // when the waiting levels change; nil until the first waits
	looked int64             // log time at which the rule's clocks were last seen; never: not yet
	own    *[]int64          // lengths of the rule's clocks, where they are this device's own
	queued int64             // key in the timer queue; never: not in it
	unmute int64             // when the rule's schedule lets go of what is withheld; never: it does not hold it
	flap   *flapping         // nil until the first rise

	warning   *raised // nil when none is active
	lastStart int64   // log time of the last one
}

// lengths are those of the rule's clocks for the device.
func (b *binding) lengths() []int64 {
	if b.own != nil {
		return *b.own
	}
	return b.rule.fixed
}

// wait has a level change at a time.
func (b *binding) wait(level int, due int64) {
	if b.due == nil {
		b.due = new([maxLevels]int64)
	}
	b.waiting |= 1 << level
	b.due[level] = due
}

// dues are the times at which the waiting levels change; of the others they mean
// nothing.
func (b *binding) dues() (due [maxLevels]int64) {
	if b.due != nil {
		due = *b.due
	}
	return due
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
			b.wait(i, f.now+hold)
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
	lengths := b.lengths()
	for i := range lengths {
		if t := b.strikes(i, lengths[i]); t != never && t > b.looked {
			earlier(t)
		}
	}
	if b.unmute != never {
		earlier(b.unmute)
	}
	if b.flap != nil && b.flap.on {
		earlier(b.flap.until)
	}
	return at
}

// strikes returns when a clock of the rule strikes, or never.
func (b *binding) strikes(i int, length int64) int64 {
	base := b.rule.clocks[i].base(b.stream)
	if base == never || length == never {
		return never
	}
	return base + length
}

// fire does what is due at f.now.
func (b *binding) fire(f *frame) {
	for i := range b.rule.levels {
		if bit := uint8(1) << i; b.waiting&bit != 0 && b.due[i] <= f.now {
			b.waiting &^= bit
			b.latched ^= bit
		}
	}
	struck := false
	for i, length := range b.lengths() {
		t := b.strikes(i, length)
		struck = struck || t != never && t > b.looked && t <= f.now
	}
	b.looked = f.now
	if struck {
		b.tally.evaluations++
		b.judge(f)
	}
}

// settle makes the transition that follows from the latches, if there is one.
func (h *shard) settle(b *binding, f *frame) {
	level := b.severity()
	shown := telemetry.NoSeverity
	if b.warning != nil {
		shown = b.warning.severity
	}
	target, calmed := b.steady(level, shown, f.now)
	b.level = level
	b.unmute = never
	withheld := target > shown && h.withholds(b)
	if withheld != b.withheld {
		b.withheld = withheld
		if withheld {
			h.withheld[b] = struct{}{}
		} else {
			delete(h.withheld, b)
		}
	}
	if withheld {
		target = shown
	}
	if target == shown && !calmed {
		return
	}
	if target > shown {
		b.rise(target, f.now)
	}
	h.change(b, f, target)
}

// change brings a binding's warning to another severity: it raises, alters or
// ends it.
func (h *shard) change(b *binding, f *frame, severity telemetry.Severity) {
	if b.warning == nil {
		if b.lastStart == f.now {
			b.again++
		} else {
			b.lastStart, b.again = f.now, 0
		}
		b.warning = &raised{id: warningID(b.rule.Name, b.stream.device.id, f.now, b.again), start: f.now}
		b.tally.raised++
		h.note(b, 1)
	}
	state := telemetry.Cleared
	if severity != telemetry.NoSeverity {
		state, b.warning.severity = telemetry.Active, severity
	}
	b.warning.step++
	h.emit(b, f, state)
	if state == telemetry.Cleared {
		b.warning = nil
		h.note(b, -1)
	}
}

// emit gives out the warning as it stands.
func (h *shard) emit(b *binding, f *frame, state telemetry.State) {
	h.found.add(telemetry.Transition{Warning: b.describe(f, state, b.warning), Step: b.warning.step})
}

// describe writes the warning as it stands.
func (b *binding) describe(f *frame, state telemetry.State, w *raised) telemetry.Warning {
	timed := f.timed
	f.timed = true // the values that the reading at hand does not have are told as last known
	defer func() { f.timed = timed }()
	r := b.rule
	threshold := b.threshold(f, w.severity)
	vi, en := r.vi, r.en
	if state == telemetry.Cleared {
		vi, en = r.ended, r.end
	}
	return telemetry.Warning{
		ID: w.id, N: w.step,
		Rule: r.Name, Device: b.stream.device.id, Site: b.stream.device.siteName, Kind: r.On,
		State: state, Severity: w.severity,
		Start: unixTime(w.start), At: unixTime(f.now),
		Values: r.values(f), Threshold: threshold,
		Message: telemetry.Text{
			VI: vi.render(f, r, w.severity, threshold, true) + b.remark(true),
			EN: en.render(f, r, w.severity, threshold, false) + b.remark(false),
		},
		To: r.To,

		RuleVersion: r.version, Expression: r.source(w.severity), Quality: r.quality(f),
		Source: b.stream.source, Sources: r.sources(f),
		Flapping: b.flapping(), Latch: r.Latch, Shadow: r.Shadow,
	}
}

// sources returns who delivered the values of other kinds that the rule's
// conditions name.
func (r *rule) sources(f *frame) map[string]string {
	var sources map[string]string
	for _, m := range r.mates {
		s := m.stream(f)
		if s == nil || s.source == "" {
			continue
		}
		if sources == nil {
			sources = map[string]string{}
		}
		sources[s.plan.name()] = s.source
	}
	return sources
}

// source returns the condition of the level of this severity.
func (r *rule) source(s telemetry.Severity) string {
	for i := range r.levels {
		if r.levels[i].severity == s {
			return r.levels[i].source
		}
	}
	return ""
}

// quality returns that of the values that the rule's conditions name, as far as
// it is not good.
func (r *rule) quality(f *frame) map[string]telemetry.Quality {
	var qualities map[string]telemetry.Quality
	for _, o := range r.shown {
		c := (*cell)(nil)
		switch {
		case o.cell >= 0:
			c = &f.cells[o.cell]
		case o.mate != nil && o.mate.fresh(f):
			c = o.mate.read(f)
		}
		if c == nil || c.at == never || c.quality == telemetry.Good {
			continue
		}
		if qualities == nil {
			qualities = map[string]telemetry.Quality{}
		}
		qualities[o.label] = c.quality
	}
	return qualities
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
		case slices.ContainsFunc(o.facts, func(i int) bool { return !f.device.facts[i].known }):
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
	return a.compare(b) < 0
}

func (q timers) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = int32(i), int32(j)
}

func (q *timers) Push(x any) {
	b := x.(*binding)
	b.place = int32(len(*q))
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
		heap.Fix(q, int(b.place))
	}
}

func (q *timers) remove(b *binding) {
	if b.queued != never {
		heap.Remove(q, int(b.place))
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
