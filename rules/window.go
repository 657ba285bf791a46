package rules

import "time"

// Sizes of windows.
const (
	ExactWidth = time.Hour // the widest window that keeps every sample
	MaxSamples = 4096      // samples that an exact window keeps; with more it becomes one of panes
	Panes      = 60

	// Windows of percentiles keep every sample. With more than MaxRanked they
	// are thinned to one sample in 2/MaxRanked of their width.
	RankedWidth = 24 * time.Hour
	MaxRanked   = 16384
)

// A total sums up consecutive samples. Two totals of neighbouring samples add
// up to the total of both; nothing is ever subtracted, so that a large value
// leaves no rounding behind when it goes.
type total struct {
	n        int64
	sum      float64
	min, max float64
	mean, m2 float64 // Welford: m2 is the sum of squared distances from the mean
}

func (a *total) add(v float64) {
	a.n++
	if a.n == 1 {
		*a = total{n: 1, sum: v, min: v, max: v, mean: v}
		return
	}
	a.sum += v
	a.min = min(a.min, v)
	a.max = max(a.max, v)
	d := v - a.mean
	a.mean += d / float64(a.n)
	a.m2 += d * (v - a.mean)
}

// join returns the total of a and b (Chan, Golub and LeVeque 1979).
func (a total) join(b total) total {
	if a.n == 0 {
		return b
	}
	if b.n == 0 {
		return a
	}
	n := a.n + b.n
	d := b.mean - a.mean
	return total{
		n:    n,
		sum:  a.sum + b.sum,
		min:  min(a.min, b.min),
		max:  max(a.max, b.max),
		mean: a.mean + d*float64(b.n)/float64(n),
		m2:   a.m2 + b.m2 + d*d*float64(a.n)*float64(b.n)/float64(n),
	}
}

// A sample is a number and its event time in Unix nanoseconds.
type sample struct {
	t int64
	v float64
}

// A window holds what one value of one device was during (t-width, t], t being
// its newest sample. Adding is O(1) amortised.
//
// Exact windows are a queue of two stacks: the first mid samples carry the total
// from each of them to the mid-th, the total of the others is kept in back. A
// window whose rules ask for no totals keeps the samples only.
type window struct {
	width  int64
	totals bool // whether a rule asks for more than first, last and count

	ranked  bool      // keeps every sample up to MaxRanked, for percentiles
	sorted  []float64 // of a ranked window: the values in ascending order
	spacing int64     // of a ranked window that was cut: least time between samples, ns

	samples []sample // a ring: length is its capacity, a power of two
	head, n int
	mid     int
	suffix  []total // beside samples, valid for the first mid
	back    total

	// What was computed of the samples at hand is kept, for the rules that share
	// the window.
	sum     total
	summed  bool
	version uint64   // counts changes
	answers []answer // by windowRef.answer

	panes *panes // not nil once the window consists of panes
}

// An answer is what a function makes of a window.
type answer struct {
	version uint64 // of the window
	known   bool
	v       float64
}

func newWindow(spec windowSpec) *window {
	w := &window{width: int64(spec.width), totals: spec.totals, ranked: spec.ranked, answers: make([]answer, spec.answers)}
	if spec.width > ExactWidth && !spec.ranked {
		w.panes = newPanes(w.width)
	}
	return w
}

func (w *window) at(i int) *sample { return &w.samples[(w.head+i)&(len(w.samples)-1)] }

// add enters a sample. Of a sample that is not late, its time is the window's
// new end: what lies after it came from a clock that ran ahead and is dropped.
// cut reports that the window had to give up its samples for panes.
func (w *window) add(t int64, v float64, late bool) (cut bool) {
	w.changed()
	if w.panes != nil {
		w.panes.add(t, v, late)
		return false
	}
	switch {
	case w.n > 0 && t <= w.at(w.n-1).t:
		if !w.amend(t, v, late) {
			return false
		}
	case w.n > 0 && t-w.at(w.n-1).t < w.spacing:
		return false
	default:
		w.push(t, v)
		w.rank(v)
	}
	w.evict()
	if w.ranked {
		return w.thin()
	}
	if w.n <= MaxSamples {
		return false
	}
	p := newPanes(w.width)
	for i := range w.n {
		s := w.at(i)
		p.add(s.t, s.v, false)
	}
	*w = window{width: w.width, totals: w.totals, panes: p, version: w.version, answers: w.answers}
	return true
}

// changed makes what was computed invalid.
func (w *window) changed() {
	w.summed = false
	w.version++
}

// under returns the window for the rules of another set. The old one must not be
// added to any more, but may be asked.
func (w *window) under(spec windowSpec) *window {
	next := *w
	next.changed()
	next.want(spec.totals)
	next.answers = make([]answer, spec.answers)
	return &next
}

func (w *window) push(t int64, v float64) {
	if w.n == len(w.samples) {
		w.grow()
	}
	w.n++
	*w.at(w.n - 1) = sample{t, v}
	if w.totals {
		w.back.add(v)
	}
}

func (w *window) grow() {
	samples := make([]sample, max(8, 2*len(w.samples)))
	for i := range w.n {
		samples[i] = *w.at(i)
	}
	var suffix []total
	if w.totals {
		suffix = make([]total, len(samples))
		for i := range w.mid {
			suffix[i] = w.suffix[(w.head+i)&(len(w.samples)-1)]
		}
	}
	w.samples, w.suffix, w.head = samples, suffix, 0
}

// amend enters a sample that is not newer than the newest: a correction, a late
// one, or the first after a clock was set back. It reports whether anything
// changed.
func (w *window) amend(t int64, v float64, late bool) bool {
	if !late {
		for w.n > 0 && w.at(w.n-1).t > t {
			w.unrank(w.at(w.n - 1).v)
			w.n--
		}
	}
	i := w.n
	for i > 0 && w.at(i-1).t > t {
		i--
	}
	switch {
	case i > 0 && w.at(i-1).t == t:
		w.unrank(w.at(i - 1).v)
		w.at(i - 1).v = v
		w.rank(v)
	case w.n > 0 && t <= w.at(w.n-1).t-w.width:
		return false
	case i > 0 && t-w.at(i-1).t < w.spacing:
		return false
	default:
		w.push(t, v)
		w.rank(v)
		for j := w.n - 1; j > i; j-- {
			*w.at(j) = *w.at(j - 1)
		}
		*w.at(i) = sample{t, v}
	}
	w.retotal(0)
	return true
}

// retotal computes the totals anew with the border between the stacks at mid.
func (w *window) retotal(mid int) {
	w.mid = mid
	if !w.totals {
		return
	}
	var t total
	for i := mid - 1; i >= 0; i-- {
		t.add(w.at(i).v)
		w.suffix[(w.head+i)&(len(w.samples)-1)] = t
	}
	w.back = total{}
	for i := mid; i < w.n; i++ {
		w.back.add(w.at(i).v)
	}
}

func (w *window) evict() {
	end := w.at(w.n-1).t - w.width
	for w.n > 0 && w.at(0).t <= end {
		if w.mid == 0 && w.totals {
			w.retotal(w.n)
		}
		w.unrank(w.at(0).v)
		w.head = (w.head + 1) & (len(w.samples) - 1)
		w.n--
		w.mid = max(0, w.mid-1)
	}
}

// total returns the sum of what the window holds.
func (w *window) total() total {
	if !w.summed {
		switch {
		case w.panes != nil:
			w.sum = w.panes.total()
		case w.mid > 0:
			w.sum = w.suffix[w.head].join(w.back)
		default:
			w.sum = w.back
		}
		w.summed = true
	}
	return w.sum
}

func (w *window) count() int64 {
	if w.panes != nil {
		return w.total().n
	}
	return int64(w.n)
}

// ends returns the oldest and the newest sample; n is at least 1.
func (w *window) ends() (first, last sample) {
	if w.panes != nil {
		return w.panes.ends()
	}
	return *w.at(0), *w.at(w.n - 1)
}

// covered reports whether samples cover half of the window's width; each stands
// for one expected interval.
func (w *window) covered(interval int64) bool {
	if w.count() == 0 {
		return false
	}
	first, last := w.ends()
	return last.t-first.t+interval >= w.width/2
}

// want says whether totals are asked for; it computes those that the window
// does not have.
func (w *window) want(totals bool) {
	if w.panes != nil || w.totals == totals {
		return
	}
	w.totals = totals
	w.changed()
	if !totals {
		w.suffix, w.back, w.mid = nil, total{}, 0
		return
	}
	w.suffix = make([]total, len(w.samples))
	w.retotal(w.mid)
}
