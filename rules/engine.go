package rules

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

const (
	// MinGap is the shortest gap after which silence is counted anew. A gateway
	// that restarts in a few seconds every night would hide silent devices.
	MinGap = time.Minute

	// MaxDevices is how many devices the engine keeps a state of. Beyond it
	// readings of devices that are not registered trigger no rule.
	MaxDevices = 200_000

	day = int64(24 * time.Hour)
)

// Options are what an Engine needs of the program around it.
type Options struct {
	Registerer prometheus.Registerer // nil: metrics are not registered
	Logger     *slog.Logger          // nil: nothing is logged

	// Shadow, where it is not nil, is called within Evaluate with each transition
	// of a rule in shadow, in order. Evaluate does not return them.
	Shadow func(telemetry.Transition)
}

// An Engine evaluates rules over the readings log. Evaluate, Checkpoint and
// Restore are for one goroutine; the other methods are safe for concurrent use
// with them.
type Engine struct {
	meters *meters
	logger *slog.Logger
	shadow func(telemetry.Transition)

	mu      sync.Mutex
	now     int64  // log time, Unix ns; never: nothing was read yet
	swept   int64  // the last day boundary at which old devices were dropped, in days
	set     *Set   // nil: no document yet
	packed  []byte // the set's document for checkpoints; nil until the first one
	pending assembly
	devices map[string]*device
	sites   map[string]*site
	queue   timers
	tallies map[string]*tally // by rule

	inhibitors map[string]*inhibitor // by rule
	withheld   map[*binding]struct{} // that hold and may not raise
	loose      bool                  // some warning that inhibits others has ended

	frame frame
	out   []telemetry.Transition
}

// A tally counts what a rule did since the program started.
type tally struct {
	evaluations, raised, errors uint64
	active, devices             int
}

// NewEngine returns an engine without a document.
func NewEngine(o Options) *Engine {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Engine{
		meters: newMeters(o.Registerer), logger: o.Logger, shadow: o.Shadow, now: never,
		inhibitors: map[string]*inhibitor{}, withheld: map[*binding]struct{}{},
		devices: map[string]*device{}, sites: map[string]*site{}, tallies: map[string]*tally{},
	}
}

// Evaluate takes in one frame of the log, received at one time, and returns the
// transitions that it brings about, in order.
func (e *Engine) Evaluate(received time.Time, readings []telemetry.Reading) []telemetry.Transition {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.out = nil
	t := max(e.now, received.UnixNano())
	if e.now == never {
		e.swept = t / day
	}
	evaluations := uint64(0)
	for i := range readings {
		r := &readings[i]
		if r.Control() {
			e.control(t, r)
			continue
		}
		e.advance(t)
		evaluations += e.take(r)
	}
	e.advance(t)
	e.meters.evaluations.Add(float64(evaluations))
	e.meters.notFinite.Add(float64(e.frame.failures))
	e.frame.failures = 0
	e.meters.devices.Set(float64(len(e.devices)))
	out := e.out
	e.out = nil
	return out
}

func (e *Engine) control(t int64, r *telemetry.Reading) {
	switch r.Kind {
	case telemetry.KindStart:
		down, _ := r.Number("down_s")
		e.gap(t, down)
		e.setBack(r)
	case telemetry.KindClock:
		jump, _ := r.Number("jump_s")
		e.gap(t, jump)
		e.setBack(r)
	case telemetry.KindControl:
		e.advance(t)
		e.document(r)
		e.advance(t) // silence that is new to the rules may have lasted long enough
	default:
		e.advance(t)
	}
}

// advance brings log time to t: fires what is due and, at each day's boundary,
// forgets devices of long ago.
func (e *Engine) advance(t int64) {
	for e.swept < t/day {
		boundary := (e.swept + 1) * day
		e.fire(boundary)
		e.now = max(e.now, boundary)
		e.sweep(boundary)
		e.swept++
	}
	e.fire(t)
	e.now = t
}

// fire fires the timers up to t, each at its deadline.
func (e *Engine) fire(t int64) {
	for b := e.queue.due(t); b != nil; b = e.queue.due(t) {
		e.now = max(e.now, b.queued)
		f := e.aim(b.stream, true)
		b.fire(f)
		e.settle(b, f)
		e.queue.remove(b)
		e.queue.arm(b)
		e.release()
	}
}

// aim points the engine's frame at a stream.
func (e *Engine) aim(s *stream, timed bool) *frame {
	f := &e.frame
	f.now, f.stream, f.device, f.cells, f.gen, f.timed = e.now, s, s.device, s.cells, s.gen, timed
	return f
}

// gap takes in that the gateway was down, or its clock jumped, for so many
// seconds before t: that time did not pass for the timers. A clock set back is
// no gap, because log time never decreases.
func (e *Engine) gap(t int64, seconds float64) {
	if e.now == never || !(seconds > 0) {
		e.advance(t)
		return
	}
	length := t - e.now
	if ns := seconds * float64(time.Second); ns < float64(length) {
		length = int64(ns)
	}
	e.advance(t - length)
	e.now = t
	e.queue = nil
	for _, d := range e.devices {
		for _, s := range d.streams {
			if s == nil {
				continue
			}
			s.gap(t, length)
			for i := range s.bindings {
				b := &s.bindings[i]
				b.gap(length)
				b.queued = never
				e.queue.arm(b)
			}
		}
	}
	e.advance(t)
}

// gap moves on by a gap what the stream counts from. After one of more than
// MinGap silence begins anew, with one expected interval of grace.
func (s *stream) gap(t, length int64) {
	after := func(heard int64) int64 {
		if length > int64(MinGap) {
			return t + s.device.interval
		}
		return heard + length
	}
	s.heard = after(s.heard)
	for i := range s.cells {
		if s.cells[i].at != never {
			s.cells[i].heard = after(s.cells[i].heard)
		}
	}
	for i := range s.places {
		if s.places[i].entered != never {
			s.places[i].entered += length
		}
	}
}

// gap shifts the timers of a binding.
func (b *binding) gap(length int64) {
	for l := range b.due {
		b.due[l] += length
	}
	if b.flap != nil {
		b.flap.until += length
	}
}

// setBack takes in that the wall clock was set back: what is stamped from now on
// is older than what was stamped before, and not late for that.
func (e *Engine) setBack(r *telemetry.Reading) {
	jump, _ := r.Number("wall_jump_s")
	if !(jump < 0) || jump < -maxSetBack.Seconds() {
		return
	}
	by := int64(jump * float64(time.Second))
	for _, d := range e.devices {
		for _, s := range d.streams {
			if s != nil && s.newest != never {
				s.newest += by
			}
		}
	}
}

// maxSetBack is more than any clock was ever wrong by; beyond it the newest
// times would leave the range of time.
const maxSetBack = 100 * 365 * 24 * time.Hour

// take evaluates one reading and returns how many rules it evaluated.
func (e *Engine) take(r *telemetry.Reading) (evaluations uint64) {
	if e.set == nil {
		return 0
	}
	plan, whole := e.set.byKind[r.Kind], e.set.plans[0]
	if plan != nil && len(plan.rules) == 0 && len(plan.cells) == 0 {
		plan = nil
	}
	if r.Kind == telemetry.KindLink || len(whole.rules) == 0 {
		whole = nil
	}
	if plan == nil && whole == nil {
		return 0
	}
	if len(r.Tags) > 0 {
		e.meters.tagged.Inc()
		return 0
	}
	d := e.device(r.Device)
	if d == nil {
		e.meters.crowded.Inc()
		return 0
	}
	t := e.now
	if !r.Time.IsZero() {
		t = r.Time.UnixNano()
	}
	late := r.Delay > d.limit()
	if plan != nil {
		s := e.stream(d, plan)
		late = late || t < s.newest
		for _, spec := range s.take(r, t, e.now, late) {
			e.meters.cut.Inc()
			e.logger.Warn("a window has more samples than are kept and was cut: it is no more exact", slog.String("device", d.id),
				slog.String("kind", plan.name()), slog.String("value", plan.cells[spec.cell]), slog.String("window", telemetry.Duration(spec.width).String()))
		}
		if !late {
			s.newest = min(t, e.now)
			e.judge(s)
			evaluations += uint64(len(s.bindings))
		}
	}
	if late {
		e.meters.late.Inc()
		return evaluations
	}
	if whole != nil {
		s := e.stream(d, whole)
		s.gen++
		s.quality, s.ever = r.Quality, true
		e.judge(s)
		evaluations += uint64(len(s.bindings))
	}
	return evaluations
}

// judge evaluates the rules of a stream for the reading that it has just taken.
func (e *Engine) judge(s *stream) {
	s.judged++
	s.heard = e.now
	f := e.aim(s, false)
	for i := range s.bindings {
		b := &s.bindings[i]
		latches, timers := b.judge(f)
		if len(b.rule.clocks) > 0 {
			b.looked, timers = e.now, true
		}
		if latches {
			e.settle(b, f)
		}
		if timers || latches {
			e.queue.arm(b)
		}
	}
	e.release()
}

// tell adds the evaluations of a stream's bindings to the tallies of their rules.
// Counting them one by one would cost a miss of the cache each.
func (s *stream) tell() {
	for i := range s.bindings {
		s.bindings[i].tally.evaluations += s.judged
	}
	s.judged = 0
}

func (e *Engine) tell() {
	for _, d := range e.devices {
		for _, s := range d.streams {
			if s != nil && s.judged > 0 {
				s.tell()
			}
		}
	}
}

// device returns the state of a device, which it gets when it has none; nil when
// there are too many.
func (e *Engine) device(id string) *device {
	if d := e.devices[id]; d != nil {
		return d
	}
	facts := e.set.registry.Device(id)
	d := &device{id: id, registered: facts != nil, streams: make([]*stream, len(e.set.plans))}
	if facts == nil {
		if len(e.devices) >= MaxDevices {
			return nil
		}
		facts = &telemetry.Device{ID: id, Name: id, Site: id}
	}
	d.siteName, d.interval = facts.Site, int64(facts.Interval)
	d.facts = make([]factCell, len(e.set.facts))
	for i, name := range e.set.facts {
		v, known := facts.Fact(name)
		d.facts[i].known = known
		switch v := v.(type) {
		case float64:
			d.facts[i].number = v
		case string:
			d.facts[i].word, d.facts[i].zone = v, e.set.zones[v]
		}
	}
	if e.set.mates {
		d.site = e.sites[d.siteName]
		if d.site == nil {
			d.site = &site{streams: make([]*stream, len(e.set.plans))}
			e.sites[d.siteName] = d.site
		}
	}
	e.devices[id] = d
	return d
}

// stream returns the stream of a device's kind, which it gets when it has none.
func (e *Engine) stream(d *device, p *plan) *stream {
	if s := d.streams[p.index]; s != nil {
		return s
	}
	s := &stream{
		plan: p, device: d, heard: e.now, newest: never, gen: 1, // the cells have 0: no reading
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
	e.join(s)
	count := 0
	levels := make([]uint8, len(p.rules))
	for i, r := range p.rules {
		if levels[i] = r.applies(&e.frame, d); levels[i] != 0 {
			count++
		}
	}
	s.bindings = make([]binding, 0, count)
	f := frame{device: d}
	for i, r := range p.rules {
		if levels[i] == 0 {
			continue
		}
		t := e.tallies[r.Name]
		t.devices++
		s.bindings = append(s.bindings, binding{
			rule: r, stream: s, tally: t, levels: levels[i], lengths: r.lengths(&f),
			queued: never, lastStart: never, looked: never, unmute: never,
		})
		e.queue.arm(&s.bindings[len(s.bindings)-1])
	}
	return s
}

// join offers a stream to the other kinds of its site. Where several devices of
// a site report a kind, one that is registered with it goes first, then the one
// whose id is first.
func (e *Engine) join(s *stream) {
	if s.device.site == nil {
		return
	}
	place := &s.device.site.streams[s.plan.index]
	if *place == nil || e.before(s, *place) {
		*place = s
	}
}

func (e *Engine) before(a, b *stream) bool {
	if x, y := e.lists(a), e.lists(b); x != y {
		return x
	}
	return a.device.id < b.device.id
}

func (e *Engine) lists(s *stream) bool {
	d := e.set.registry.Device(s.device.id)
	return d != nil && slices.Contains(d.Kinds, s.plan.name())
}

// sweep forgets devices that are not registered, were not heard of for the
// set's retention, and have no warning active or pending.
func (e *Engine) sweep(t int64) {
	if e.set == nil {
		return
	}
	dropped := false
	for id, d := range e.devices {
		if d.registered || !d.idle(t-e.set.retention) {
			continue
		}
		for _, s := range d.streams {
			if s == nil {
				continue
			}
			s.tell()
			for i := range s.bindings {
				e.queue.remove(&s.bindings[i])
				s.bindings[i].tally.devices--
			}
		}
		delete(e.devices, id)
		dropped = true
	}
	if dropped && e.set.mates {
		e.rejoin()
	}
}

func (e *Engine) rejoin() {
	clear(e.sites)
	for _, d := range e.devices {
		if e.sites[d.siteName] == nil {
			e.sites[d.siteName] = &site{streams: make([]*stream, len(e.set.plans))}
		}
		d.site = e.sites[d.siteName]
		for _, s := range d.streams {
			if s != nil {
				e.join(s)
			}
		}
	}
}

func (d *device) idle(since int64) bool {
	for _, s := range d.streams {
		if s == nil {
			continue
		}
		if s.heard >= since {
			return false
		}
		for i := range s.bindings {
			if s.bindings[i].latched != 0 || s.bindings[i].warning != nil || s.bindings[i].waiting != 0 {
				return false
			}
		}
	}
	return true
}
