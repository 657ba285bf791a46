package rules

import (
	"cmp"
	"errors"
	"log/slog"
	"math"
	"slices"

	"haidang/gateway/telemetry"
)

// document takes in one control record and, with the last part of a document,
// puts it into force. What cannot be used changes nothing.
func (e *Engine) document(r *telemetry.Reading) {
	text, err := e.pending.add(r)
	if err != nil {
		e.meters.broken.Inc()
		e.logger.Error("a rules document in the log is broken and was not applied", slog.Any("error", err))
		return
	}
	if text == nil || e.set != nil && hashOf(text) == e.set.hash {
		return
	}
	set, err := setOf(text, e.known)
	if _, refused := errors.AsType[*refusedError](err); refused {
		e.meters.refused.Inc()
		e.logger.Error("a rules document in the log does not compile and was not applied; the one before stays in force",
			slog.String("hash", hashOf(text)), slog.Any("error", err))
		return
	}
	if err != nil {
		e.meters.broken.Inc()
		e.logger.Error("a rules document in the log is broken and was not applied", slog.Any("error", err))
		return
	}
	e.apply(set)
	e.meters.applied.Inc()
}

// apply puts a set into force. Windows and values stay; a rule whose condition
// is unchanged keeps its state. The warnings of rules that are gone, changed, or
// apply to the device no more are cleared; a changed rule raises anew with the
// next reading.
func (e *Engine) apply(set *Set) {
	var active []*binding
	for _, d := range e.devices {
		for _, s := range d.streams {
			for i := range s.all() {
				if b := &s.bindings[i]; b.warning != nil {
					active = append(active, b)
				}
			}
		}
	}
	slices.SortFunc(active, (*binding).compare)
	before := e.states()
	e.load(set, before)
	for i, old := range active {
		at := order{at: math.MaxInt64, index: i}
		if b := e.binding(old); b != nil && b.warning != nil {
			h := b.stream.device.shard
			h.found.at = at
			h.settle(b, h.aim(b.stream, true))
			h.queue.arm(b)
			continue
		}
		// The rule's own starts anew, or is gone. What it inhibited is not counted
		// in the new set.
		if old.flap != nil {
			old.flap.on = false
		}
		old.warning.step++
		h := old.stream.device.shard
		h.found.at = at
		h.emit(old, h.aim(old.stream, true), telemetry.Cleared)
	}
	e.gather()
}

// all returns the stream's bindings; there are none of a stream that is nil.
func (s *stream) all() []binding {
	if s == nil {
		return nil
	}
	return s.bindings
}

// binding finds the state that follows on an old one, or nil.
func (e *Engine) binding(old *binding) *binding {
	d := e.devices[old.stream.device.id]
	p := e.set.byKind[old.stream.plan.name()]
	if d == nil || p == nil || d.streams[p.index] == nil {
		return nil
	}
	return d.streams[p.index].find(old.rule.Name)
}

func (s *stream) find(rule string) *binding {
	for i := range s.bindings {
		if s.bindings[i].rule.Name == rule {
			return &s.bindings[i]
		}
	}
	return nil
}

// A deviceState is what is kept of a device from one set to the next, and in
// checkpoints: all names in full, so that it does not depend on a set.
type deviceState struct {
	id      string
	streams []streamState
}

type streamState struct {
	kind          string
	heard, newest int64
	ever          bool
	quality       telemetry.Quality
	source        string
	cells         []cellState
	windows       []windowState
	hours         []hoursState
	prevs         []prevState
	places        []placeSince
	spot, before  position
	bindings      []bindingState
}

type hoursState struct {
	name  string
	hours *hours
}

type prevState struct {
	name string
	prev prev
}

type placeSince struct {
	name    string
	entered int64
}

type cellState struct {
	name string
	cell cell
}

type windowState struct {
	name   string
	width  int64
	ranked bool
	window *window
}

type bindingState struct {
	rule, condition  string
	latched, waiting uint8
	due              [maxLevels]int64
	flap             *flapping
	warning          *raised
	lastStart        int64
	again            uint32
}

// states returns the state of all devices, sorted by id, and of each by kind,
// name and rule. Windows are shared with the engine, not copied.
func (e *Engine) states() []deviceState {
	states := make([]deviceState, 0, len(e.devices))
	for _, id := range sortedKeys(e.devices) {
		states = append(states, e.devices[id].state())
	}
	return states
}

func (d *device) state() deviceState {
	state := deviceState{id: d.id}
	for _, s := range d.streams {
		if s != nil {
			state.streams = append(state.streams, s.state())
		}
	}
	slices.SortFunc(state.streams, func(a, b streamState) int { return cmp.Compare(a.kind, b.kind) })
	return state
}

func (s *stream) state() streamState {
	state := streamState{
		kind: s.plan.name(), heard: s.heard, newest: s.newest, ever: s.ever, quality: s.quality, source: s.source, spot: s.spot, before: s.before,
	}
	for i, name := range s.plan.cells {
		if s.cells[i].at != never {
			state.cells = append(state.cells, cellState{name, s.cells[i]})
		}
	}
	for i, w := range s.plan.windows {
		if s.windows[i] != nil {
			state.windows = append(state.windows, windowState{s.plan.cells[w.cell], int64(w.width), w.ranked, s.windows[i]})
		}
	}
	for i, h := range s.hours {
		if h != nil {
			state.hours = append(state.hours, hoursState{s.plan.cells[s.plan.hourly[i]], h})
		}
	}
	for i, p := range s.prevs {
		if p.any {
			state.prevs = append(state.prevs, prevState{s.plan.cells[s.plan.prevs[i]], p})
		}
	}
	for i := range s.places {
		if s.places[i].entered != never {
			state.places = append(state.places, placeSince{s.plan.places[i].name, s.places[i].entered})
		}
	}
	slices.SortFunc(state.cells, func(a, b cellState) int { return cmp.Compare(a.name, b.name) })
	slices.SortFunc(state.windows, func(a, b windowState) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.width, b.width), cmp.Compare(rankOf(a.ranked), rankOf(b.ranked)))
	})
	slices.SortFunc(state.hours, func(a, b hoursState) int { return cmp.Compare(a.name, b.name) })
	slices.SortFunc(state.prevs, func(a, b prevState) int { return cmp.Compare(a.name, b.name) })
	slices.SortFunc(state.places, func(a, b placeSince) int { return cmp.Compare(a.name, b.name) })
	for i := range s.bindings {
		b := &s.bindings[i]
		if b.latched == 0 && b.waiting == 0 && b.lastStart == never && len(b.rule.clocks) == 0 {
			continue // as new
		}
		state.bindings = append(state.bindings, bindingState{
			rule: b.rule.Name, condition: b.rule.condition,
			latched: b.latched, waiting: b.waiting, due: b.dues(), flap: b.flap,
			warning: b.warning, lastStart: b.lastStart, again: b.again,
		})
	}
	slices.SortFunc(state.bindings, func(a, b bindingState) int { return cmp.Compare(a.rule, b.rule) })
	return state
}

func rankOf(ranked bool) int {
	if ranked {
		return 1
	}
	return 0
}

// load puts a set into force with the state that there was.
func (e *Engine) load(set *Set, states []deviceState) {
	tallies := e.tallies()
	e.set, e.places = set, set.place(len(e.shards))
	e.clear()
	for i, s := range e.shards {
		s.set, s.tallies = set, make([]tally, len(set.rules))
		for _, r := range set.rules {
			if t := tallies[r.Name]; t != nil && i == 0 {
				s.tallies[r.index] = tally{evaluations: t.evaluations, raised: t.raised, errors: t.errors}
			}
		}
	}
	for i := range states {
		d := e.device(states[i].id)
		if d == nil {
			continue
		}
		for j := range states[i].streams {
			if p := set.byKind[states[i].streams[j].kind]; p != nil && (len(p.rules) > 0 || len(p.cells) > 0) {
				d.shard.restore(d.shard.stream(d, p), &states[i].streams[j])
			}
		}
	}
	registered := set.registry.Devices()
	for i := range registered { // silence counts from the time at which a device was registered
		for _, p := range set.plans {
			if p.silent && (p.kind == nil || slices.Contains(registered[i].Kinds, p.kind.Name)) {
				d := e.device(registered[i].ID)
				d.shard.stream(d, p)
			}
		}
	}
}

// clear forgets the devices and what follows from them.
func (e *Engine) clear() {
	e.devices, e.sites = map[string]*device{}, map[string]*site{}
	for _, s := range e.shards {
		s.clear()
	}
}

func (h *shard) restore(s *stream, state *streamState) {
	s.heard, s.newest, s.quality, s.ever, s.source = state.heard, state.newest, state.quality, state.ever, state.source
	s.remember(state)
	for _, old := range state.bindings {
		b := s.find(old.rule)
		if b == nil || b.rule.condition != old.condition {
			continue
		}
		b.latched, b.waiting, b.looked = old.latched&b.levels, old.waiting&b.levels, h.now
		b.flap, b.warning, b.lastStart, b.again = old.flap, old.warning, old.lastStart, old.again
		if b.waiting != 0 {
			due := old.due
			b.due = &due
		}
		b.level = b.severity()
		s.watched(b)
		if b.warning != nil {
			h.note(b, 1)
		}
		if b.warning == nil && b.level > telemetry.NoSeverity || b.warning != nil && b.level > b.warning.severity {
			b.withheld = true
			h.withheld[b] = struct{}{}
			if until, muted := b.rule.mutes(h.now); muted {
				b.unmute = until
			}
		}
	}
	for i := range s.bindings {
		h.queue.remove(&s.bindings[i])
		h.queue.arm(&s.bindings[i])
	}
}

// remember takes over what is known of the values.
func (s *stream) remember(state *streamState) {
	p := s.plan
	for _, c := range state.cells {
		if i, ok := p.byName[c.name]; ok {
			s.cells[i] = c.cell
			s.cells[i].gen = 0
		}
	}
	for _, w := range state.windows {
		cell, ok := p.byName[w.name]
		if !ok {
			continue
		}
		for _, i := range p.byCell[cell] {
			if spec := p.windows[i]; int64(spec.width) == w.width && spec.ranked == w.ranked {
				s.windows[i] = w.window.under(spec)
			}
		}
	}
	for _, h := range state.hours {
		if i, ok := p.byName[h.name]; ok && p.hoursOf[i] >= 0 {
			s.hours[p.hoursOf[i]] = h.hours
		}
	}
	for _, v := range state.prevs {
		if i, ok := p.byName[v.name]; ok && p.prevOf[i] >= 0 {
			s.prevs[p.prevOf[i]] = v.prev
		}
	}
	for _, place := range state.places {
		for i := range p.places {
			if p.places[i].name == place.name && p.places[i].dwell {
				s.places[i].entered = place.entered
			}
		}
	}
	if p.track {
		s.spot, s.before = state.spot, state.before
	}
}
