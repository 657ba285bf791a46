package rules

import (
	"log/slog"
	"math"
	"slices"

	"haidang/gateway/telemetry"
)

// A shard evaluates the rules for a part of the devices. What rules of one
// device may see of others, the values at its site and the warnings that inhibit
// its own, lies in the same shard: shards have nothing to say to each other, and
// may work at the same time.
type shard struct {
	meters *meters
	logger *slog.Logger

	now     int64
	set     *Set
	queue   timers
	tallies []tally // by rule

	inhibitors map[string]*inhibitor // by rule
	withheld   map[*binding]struct{} // that hold and may not raise
	loose      bool                  // some warning that inhibits others has ended

	frame       frame
	levels      []uint8 // room for those of a stream's rules
	evaluations uint64
	tasks       []task
	cost        int // of the tasks
	found       found

	until int64  // when there are no tasks: fire the timers up to this time
	run   func() // does the work in a goroutine of its own
}

// A task is a reading that triggers rules.
type task struct {
	reading     *telemetry.Reading
	index       int // in the frame
	device      *device
	plan, whole *plan // of its kind, and of rules without on; nil: there is nothing to do
}

func newShard(m *meters, logger *slog.Logger) *shard {
	s := &shard{meters: m, logger: logger, now: never}
	s.clear()
	return s
}

// clear forgets what follows from devices.
func (h *shard) clear() {
	h.queue = nil
	h.inhibitors, h.withheld = map[string]*inhibitor{}, map[*binding]struct{}{}
	h.loose = true // as far as is known
}

// work does what the engine has left for the shard.
func (h *shard) work() {
	if len(h.tasks) == 0 {
		h.fire(h.until, math.MaxInt)
		return
	}
	for i := range h.tasks {
		h.take(&h.tasks[i])
	}
	clear(h.tasks) // they hold on to the frame
	h.tasks, h.cost = h.tasks[:0], 0
}

// fire fires the timers up to t, each at its deadline, but no more than so many;
// more says that some are left. What was withheld is raised at the end of the
// instant in which that became possible: at the same instant it may have ended.
func (h *shard) fire(t int64, most int) (more bool) {
	for {
		b := h.queue.due(t)
		if h.loose && (b == nil && t > h.now || b != nil && b.queued > h.now) {
			h.release()
			continue // it may have brought an earlier timer
		}
		if b == nil {
			h.now = max(h.now, t)
			return false
		}
		if most--; most < 0 {
			return true
		}
		h.now = max(h.now, b.queued)
		h.found.at = order{at: b.queued, by: b}
		f := h.aim(b.stream, true)
		b.fire(f)
		b.stream.watched(b)
		h.settle(b, f)
		h.queue.remove(b)
		h.queue.arm(b)
	}
}

// aim points the shard's frame at a stream.
func (h *shard) aim(s *stream, timed bool) *frame {
	f := &h.frame
	f.now, f.stream, f.device, f.cells, f.gen, f.timed = h.now, s, s.device, s.cells, s.gen, timed
	return f
}

// take evaluates one reading.
func (h *shard) take(k *task) {
	h.found.at = order{at: math.MaxInt64, index: k.index}
	d, r := k.device, k.reading
	t := h.now
	if !r.Time.IsZero() {
		t = r.Time.UnixNano()
	}
	late := r.Delay > d.limit()
	if k.plan != nil {
		s := h.stream(d, k.plan)
		late = late || t < s.newest
		for _, spec := range s.take(r, t, h.now, late) {
			h.meters.cut.Inc()
			h.logger.Warn("a window has more samples than are kept and was cut: it is no more exact", slog.String("device", d.id),
				slog.String("kind", k.plan.name()), slog.String("value", k.plan.cells[spec.cell]), slog.String("window", telemetry.Duration(spec.width).String()))
		}
		if !late {
			s.newest = min(t, h.now)
			h.judge(s)
		}
	}
	if late {
		h.meters.late.Inc()
		return
	}
	if k.whole != nil {
		s := h.stream(d, k.whole)
		s.gen++
		s.quality, s.ever, s.source = r.Quality, true, r.Source
		h.judge(s)
	}
}

// judge evaluates the rules of a stream for the reading that it has just taken.
func (h *shard) judge(s *stream) {
	s.judged++
	s.heard = h.now
	h.evaluations += uint64(len(s.bindings))
	f := h.aim(s, false)
	for i := range s.bindings {
		if s.watches[i].rests(f, s.have) {
			continue
		}
		b := &s.bindings[i]
		latches, timers := b.judge(f)
		s.watched(b)
		if len(b.rule.clocks) > 0 {
			b.looked, timers = h.now, true
		}
		if latches {
			h.settle(b, f)
		}
		if timers || latches {
			h.queue.arm(b)
		}
	}
}

// stream returns the stream of a device's kind, which it gets when it has none.
func (h *shard) stream(d *device, p *plan) *stream {
	if s := d.streams[p.index]; s != nil {
		return s
	}
	s := &stream{
		plan: p, device: d, heard: h.now, newest: never, gen: 1, // the cells have 0: no reading
		cells: make([]cell, len(p.cells)), windows: make([]*window, len(p.windows)), hours: make([]*hours, len(p.hourly)),
		prevs: make([]prev, len(p.prevs)), places: make([]placeState, len(p.places)),
	}
	for i := range s.cells {
		s.cells[i].at, s.cells[i].heard = never, never
	}
	for i := range s.places {
		s.places[i] = placeState{entered: never, gen: neverGen, farGen: neverGen}
	}
	d.streams[p.index] = s
	s.join(h.set)
	count := 0
	h.levels = slices.Grow(h.levels[:0], len(p.rules))[:len(p.rules)]
	levels := h.levels
	for i, r := range p.rules {
		if levels[i] = r.applies(&h.frame, d); levels[i] != 0 {
			count++
		}
	}
	s.bindings, s.watches = make([]binding, 0, count), make([]watch, count)
	f := frame{device: d}
	for i, r := range p.rules {
		if levels[i] == 0 {
			continue
		}
		t := &h.tallies[r.index]
		t.devices++
		s.bindings = append(s.bindings, binding{
			rule: r, stream: s, tally: t, index: int32(len(s.bindings)), levels: levels[i],
			queued: never, lastStart: never, looked: never, unmute: never,
		})
		b := &s.bindings[len(s.bindings)-1]
		if r.fixed == nil && len(r.clocks) > 0 {
			own := r.lengths(&f)
			b.own = &own
		}
		s.watched(b)
		h.queue.arm(b)
	}
	return s
}

// tell adds the evaluations of a stream's bindings to the tallies of their rules.
// Counting them one by one would cost a miss of the cache each.
func (s *stream) tell() {
	for i := range s.bindings {
		s.bindings[i].tally.evaluations += s.judged
	}
	s.judged = 0
}
