package rules

import (
	"log/slog"
	"runtime"
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

	// MaxShards is the most parts into which an engine divides its devices.
	MaxShards = 8

	day = int64(24 * time.Hour)
)

// Options are what an Engine needs of the program around it.
type Options struct {
	Registerer prometheus.Registerer // nil: metrics are not registered
	Logger     *slog.Logger          // nil: nothing is logged

	// Shards is the number of parts into which the devices are divided, so that a
	// frame of many readings is evaluated on as many cores; 1..MaxShards, 0: one
	// for each core that the program may use. What comes out does not depend on it.
	Shards int

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
	now     int64 // log time, Unix ns; never: nothing was read yet
	swept   int64 // the last day boundary at which old devices were dropped, in days
	set     *Set  // nil: no document yet
	known   *Set  // that the log may bring; see Know
	pending assembly
	devices map[string]*device
	sites   map[string]*site

	shards []*shard
	places []int // shard of each of the set's parts
	forked sync.WaitGroup
	bounds bounds

	stateBytes int // of the last checkpoint

	out []telemetry.Transition
}

// bounds are constants that tests make small.
type bounds struct {
	devices int // MaxDevices
	work    int // worthFork
	timers  int // fewTimers
}

// A tally counts what a rule did since the program started.
type tally struct {
	evaluations, raised, errors uint64
	active, devices             int
}

func (t *tally) add(u *tally) {
	t.evaluations += u.evaluations
	t.raised += u.raised
	t.errors += u.errors
	t.active += u.active
	t.devices += u.devices
}

// NewEngine returns an engine without a document.
func NewEngine(o Options) *Engine {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Shards <= 0 {
		o.Shards = runtime.GOMAXPROCS(0)
	}
	e := &Engine{
		meters: newMeters(o.Registerer), logger: o.Logger, shadow: o.Shadow, now: never,
		devices: map[string]*device{}, sites: map[string]*site{},
		bounds: bounds{devices: MaxDevices, work: worthFork, timers: fewTimers},
	}
	for range min(o.Shards, MaxShards) {
		s := newShard(e.meters, o.Logger)
		s.run = func() {
			s.work()
			e.forked.Done()
		}
		e.shards = append(e.shards, s)
	}
	return e
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
	for i := 0; i < len(readings); {
		if readings[i].Control() {
			e.control(t, &readings[i])
			i++
			continue
		}
		begin := i
		for i < len(readings) && !readings[i].Control() {
			i++
		}
		e.advance(t)
		e.take(readings[begin:i])
	}
	e.advance(t)
	e.count()
	out := e.out
	e.out = nil
	return out
}

// count brings the metrics up to date.
func (e *Engine) count() {
	evaluations, failures := uint64(0), 0
	for _, s := range e.shards {
		evaluations += s.evaluations
		failures += s.frame.failures
		s.evaluations, s.frame.failures = 0, 0
	}
	e.meters.evaluations.Add(float64(evaluations))
	e.meters.notFinite.Add(float64(failures))
	e.meters.devices.Set(float64(len(e.devices)))
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
		e.fire(max(e.now, boundary))
		e.sweep(boundary)
		e.swept++
	}
	e.fire(t)
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
	if length > 0 {
		for _, s := range e.shards {
			s.release() // the instant before the gap is over
		}
		e.gather()
	}
	e.setNow(t)
	for _, s := range e.shards {
		s.queue = nil
	}
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
				d.shard.queue.arm(b)
			}
		}
	}
	e.advance(t)
}

// setNow sets log time without firing what is due.
func (e *Engine) setNow(t int64) {
	e.now = t
	for _, s := range e.shards {
		s.now = t
	}
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
	if b.due != nil {
		for l := range b.due {
			b.due[l] += length
		}
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
