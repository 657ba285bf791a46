package rules

import (
	"math"
	"math/bits"
	"time"

	"haidang/gateway/telemetry"
)

// never is the time of what has not happened yet.
const never = math.MinInt64

// A device is what the engine keeps of one device.
type device struct {
	id         string
	shard      *shard
	registered bool
	interval   int64 // expected, ns; 0: not known
	site       *site // nil when no rule looks at other kinds
	siteName   string
	facts      []factCell // by Set.facts
	streams    []*stream  // by plan; nil when nothing was heard
}

type factCell struct {
	known  bool
	number float64
	word   *factWord // nil: it is none
}

type factWord struct {
	text string
	zone *zone // that it names
}

// zone returns the zone that a fact names, or nil.
func (c *factCell) zone() *zone {
	if c.word == nil {
		return nil
	}
	return c.word.zone
}

// text returns a fact that is a word, or "".
func (c *factCell) text() string {
	if c.word == nil {
		return ""
	}
	return c.word.text
}

// A site joins the devices whose values rules see together.
type site struct {
	streams []*stream // by plan
}

// A stream is the readings of one kind from one device.
type stream struct {
	plan   *plan
	device *device

	heard   int64 // log time of the last reading that was not late, or from which silence counts
	newest  int64 // event time of the newest, not after its receipt; never: none yet
	ever    bool  // a reading that was not late has come
	quality telemetry.Quality
	source  string // of the newest

	gen      uint64 // counts readings; see cell.gen
	have     uint64 // bits of the cells that have this generation; of the first 64
	judged   uint64 // evaluations of each binding that its tally does not have yet
	cells    []cell // by plan.cells
	windows  []*window
	hours    []*hours // by plan.hourly
	prevs    []prev   // by plan.prevs
	places   []placeState
	spot     position // where the device is, and was before; for crossed
	before   position
	bindings []binding // by rule
	watches  []watch   // of each binding
}

// A watch is what a reading has to look at of a binding that is at rest: that has
// one level, which is not latched, and nothing that runs by time. It lies apart
// from the binding, so that thousands of rules do not drag their whole state
// through the caches with each reading.
type watch struct {
	when truthFn // nil: the binding is not at rest
	need uint64  // bits of the cells that the condition names
}

// watched brings the watch of a binding up to date.
func (s *stream) watched(b *binding) {
	w := watch{}
	if b.latched == 0 && b.waiting == 0 && len(b.rule.clocks) == 0 && b.levels&(b.levels-1) == 0 {
		p := b.rule.levels[bits.TrailingZeros8(b.levels)].when
		if len(p.mates) == 0 && len(s.cells) <= 64 {
			w.when = p.truth
			for _, i := range p.cells {
				w.need |= 1 << i
			}
		}
	}
	s.watches[b.index] = w
}

// rests reports whether a reading leaves the binding of the watch at rest: its
// condition is false, or not known for want of a value.
func (w *watch) rests(f *frame, have uint64) bool {
	if w.when == nil {
		return false
	}
	if w.need&^have != 0 {
		return true
	}
	f.unknown, f.notFinite = false, false
	holds := w.when(f)
	if f.unknown {
		return !f.notFinite // that is counted
	}
	return !holds
}

// A prev is the sample before the last usable one.
type prev struct {
	before, last float64
	t            int64 // event time of last
	has, any     bool  // before, last
}

func (p *prev) add(t int64, v float64) {
	if p.any && p.t != t { // the same time again is a correction
		p.before, p.has = p.last, true
	}
	p.last, p.t, p.any = v, t, true
}

// A cell is the last usable value of one name.
type cell struct {
	number  float64
	word    string
	at      int64  // log time of its receipt, or never
	heard   int64  // the same, but for gaps: from when age and silence count
	gen     uint64 // the reading that it came with
	quality telemetry.Quality
}

// limit returns how much older than its receipt a reading may be that is not
// late.
func (d *device) limit() time.Duration {
	return max(2*time.Duration(d.interval), 5*time.Minute)
}

// mateLimit is how old a value of another kind may be when its device's
// interval is not known.
const mateLimit = int64(time.Hour)

// A mate is a value of another kind at the same site.
type mate struct{ plan, cell int }

func (m *mate) stream(f *frame) *stream {
	if f.device.site == nil {
		return nil
	}
	return f.device.site.streams[m.plan]
}

// fresh reports whether the value may be used.
func (m *mate) fresh(f *frame) bool {
	s := m.stream(f)
	if s == nil || s.cells[m.cell].at == never {
		return false
	}
	limit := 2 * s.device.interval
	if limit == 0 {
		limit = mateLimit
	}
	return f.now-s.cells[m.cell].at <= limit
}

// read returns the value; it must be fresh.
func (m *mate) read(f *frame) *cell { return &m.stream(f).cells[m.cell] }

// A windowRef is one window, of the device at hand (mate -1) or of another kind
// at its site.
type windowRef struct {
	mate  int // plan of the other kind, or -1
	index int // in the plan's windows

	answer int // in the window's answers
}

func (w *windowRef) window(f *frame) (*window, *device) {
	s := f.stream
	if w.mate >= 0 {
		s = nil
		if f.device.site != nil {
			s = f.device.site.streams[w.mate]
		}
	}
	if s == nil || s.windows[w.index] == nil {
		return nil, nil
	}
	return s.windows[w.index], s.device
}

// windowAnswer returns what a function makes of a window, and whether it answers
// before the window is half covered.
func windowAnswer(name string) (answer func(*window) (float64, bool), atOnce bool) {
	switch name {
	case "sum":
		return func(w *window) (float64, bool) { return w.total().sum, true }, true
	case "count":
		return func(w *window) (float64, bool) { return float64(w.count()), true }, true
	case "min":
		return func(w *window) (float64, bool) { return w.total().min, true }, true
	case "max":
		return func(w *window) (float64, bool) { return w.total().max, true }, true
	case "last":
		return func(w *window) (float64, bool) { _, last := w.ends(); return last.v, true }, true
	case "first":
		return func(w *window) (float64, bool) { first, _ := w.ends(); return first.v, true }, false
	case "avg":
		return func(w *window) (float64, bool) { t := w.total(); return t.sum / float64(t.n), true }, false
	case "stddev":
		return stddev, false
	case "delta":
		return delta, false
	}
	return rate, false
}

// function returns the closure of an answer. Where the window has none yet the
// frame is marked unknown.
func (w *windowRef) function(compute func(*window) (float64, bool), atOnce bool) numberFn {
	return func(f *frame) float64 {
		win, device := w.window(f)
		if win == nil {
			f.unknown = true
			return 0
		}
		a := &win.answers[w.answer]
		if a.version != win.version {
			a.v, a.known = 0, false
			if atOnce || win.covered(device.interval) {
				a.v, a.known = compute(win)
			}
			a.version = win.version
		}
		if !a.known {
			f.unknown = true
			return 0
		}
		return finite(f, a.v)
	}
}

// stddev is the standard deviation of the sample (n-1).
func stddev(w *window) (float64, bool) {
	t := w.total()
	if t.n < 2 {
		return 0, false
	}
	return math.Sqrt(t.m2 / float64(t.n-1)), true
}

func delta(w *window) (float64, bool) {
	first, last := w.ends()
	return last.v - first.v, last.t > first.t
}

// rate is the change per hour between the oldest and the newest sample.
func rate(w *window) (float64, bool) {
	first, last := w.ends()
	if last.t <= first.t {
		return 0, false
	}
	return (last.v - first.v) / (float64(last.t-first.t) / float64(time.Hour)), true
}

// take enters the values of a reading that the plan's expressions use; t is its
// event time. It returns the windows that had to be cut.
func (s *stream) take(r *telemetry.Reading, t, now int64, late bool) (cut []windowSpec) {
	whole := telemetry.Good
	if r.Quality != telemetry.Good && wholly(r) {
		whole = r.Quality
	}
	if !late {
		s.gen++
		s.have = 0
		s.quality, s.ever, s.source = r.Quality, true, r.Source
	}
	for i := range r.Values {
		v := &r.Values[i]
		quality := max(v.Quality, whole)
		c, ok := s.plan.byName[v.Name]
		if !ok || !quality.Usable() || !telemetry.Finite(v.Number) || (v.Text != "") != s.plan.words[c] {
			continue // also a word where the kind has a number: it is missing, not 0
		}
		if !late {
			s.cells[c] = cell{number: v.Number, word: v.Text, at: now, heard: now, gen: s.gen, quality: quality}
			s.have |= 1 << c // nothing beyond 63
		}
		if v.Text != "" {
			continue
		}
		if !late && s.plan.prevOf[c] >= 0 {
			s.prevs[s.plan.prevOf[c]].add(t, v.Number)
		}
		if h := s.plan.hoursOf[c]; h >= 0 {
			if s.hours[h] == nil {
				s.hours[h] = &hours{}
			}
			s.hours[h].add(min(t, now), v.Number)
		}
		for _, w := range s.plan.byCell[c] {
			if s.windows[w] == nil {
				s.windows[w] = newWindow(s.plan.windows[w])
			}
			if s.windows[w].add(t, v.Number, late) {
				cut = append(cut, s.plan.windows[w])
			}
		}
	}
	if !late && len(s.places) > 0 && s.cells[s.plan.lat].gen == s.gen && s.cells[s.plan.lon].gen == s.gen {
		s.move(t, now)
	}
	return cut
}

// wholly reports whether a reading's quality is that of the reading as a whole,
// as when a station is in maintenance: no single value accounts for it.
func wholly(r *telemetry.Reading) bool {
	for i := range r.Values {
		if r.Values[i].Quality >= min(r.Quality, telemetry.Maintenance) {
			return false
		}
	}
	return true
}
