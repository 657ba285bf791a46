package rules

import (
	"math"
	"time"

	"haidang/gateway/telemetry"
)

// never is the time of what has not happened yet.
const never = math.MinInt64

// A device is what the engine keeps of one device.
type device struct {
	id         string
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
	word   string
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
	quality telemetry.Quality

	gen      uint64 // counts readings; see cell.gen
	cells    []cell // by plan.cells
	windows  []*window
	bindings []binding // by rule name
}

// A cell is the last usable value of one name.
type cell struct {
	number float64
	word   string
	at     int64  // log time of its receipt, or never
	gen    uint64 // the reading that it came with
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

// A windowRef is one function over one window, of the device at hand (mate -1)
// or of another kind at its site.
type windowRef struct {
	mate   int // plan of the other kind, or -1
	index  int // in the plan's windows
	answer string
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

// function returns the closure of the window's answer. Where the window has no
// answer yet the frame is marked unknown.
func (w *windowRef) function() numberFn {
	answer := map[string]func(*window) (float64, bool){
		"sum":    func(w *window) (float64, bool) { return w.total().sum, true },
		"count":  func(w *window) (float64, bool) { return float64(w.count()), true },
		"min":    func(w *window) (float64, bool) { return w.total().min, true },
		"max":    func(w *window) (float64, bool) { return w.total().max, true },
		"avg":    func(w *window) (float64, bool) { t := w.total(); return t.sum / float64(t.n), true },
		"stddev": stddev,
		"delta":  delta,
		"rate":   rate,
	}[w.answer]
	atOnce := w.answer == "sum" || w.answer == "count" || w.answer == "min" || w.answer == "max"
	return func(f *frame) float64 {
		win, device := w.window(f)
		if win == nil || !atOnce && !win.covered(device.interval) {
			f.unknown = true
			return 0
		}
		v, ok := answer(win)
		if !ok {
			f.unknown = true
			return 0
		}
		return finite(f, v)
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
// event time. It returns how many windows had to be cut to panes.
func (s *stream) take(r *telemetry.Reading, t, now int64, late bool) (cut int) {
	usable := r.Quality.Usable() || !wholly(r)
	if !late {
		s.gen++
		s.quality = r.Quality
	}
	for i := range r.Values {
		v := &r.Values[i]
		c, ok := s.plan.byName[v.Name]
		if !ok || !usable || !v.Quality.Usable() || !telemetry.Finite(v.Number) {
			continue
		}
		if !late {
			s.cells[c] = cell{number: v.Number, word: v.Text, at: now, gen: s.gen}
		}
		if v.Text != "" {
			continue
		}
		for _, w := range s.plan.byCell[c] {
			if s.windows[w] == nil {
				s.windows[w] = newWindow(s.plan.windows[w].width, s.plan.windows[w].totals)
			}
			if s.windows[w].add(t, v.Number, late) {
				cut++
			}
		}
	}
	return cut
}

// wholly reports whether a reading's quality is that of the reading as a whole,
// as when a station is in maintenance: no single value accounts for it.
func wholly(r *telemetry.Reading) bool {
	for i := range r.Values {
		if !r.Values[i].Quality.Usable() {
			return false
		}
	}
	return true
}
