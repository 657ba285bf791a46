package rules

import "slices"

// rank enters a value into the order of a ranked window.
func (w *window) rank(v float64) {
	if w.ranked {
		i, _ := slices.BinarySearch(w.sorted, v)
		w.sorted = slices.Insert(w.sorted, i, v)
	}
}

// unrank takes a value out of the order.
func (w *window) unrank(v float64) {
	if !w.ranked {
		return
	}
	if i, ok := slices.BinarySearch(w.sorted, v); ok {
		w.sorted = slices.Delete(w.sorted, i, i+1)
	}
}

// thin keeps a ranked window within its bound: with too many samples it keeps
// those that lie 2/MaxRanked of the width apart, and takes in no others from
// then on. It reports whether it did so.
func (w *window) thin() bool {
	if w.n <= MaxRanked {
		return false
	}
	w.spacing = max(1, w.width*2/MaxRanked)
	kept := make([]sample, 0, MaxRanked)
	for i := range w.n {
		s := *w.at(i)
		if len(kept) == 0 || s.t-kept[len(kept)-1].t >= w.spacing {
			kept = append(kept, s)
		}
	}
	w.refill(kept)
	return true
}

// refill replaces the samples of a ranked window.
func (w *window) refill(samples []sample) {
	w.samples, w.head, w.n, w.mid = nil, 0, 0, 0
	w.sorted = make([]float64, 0, len(samples))
	for _, s := range samples {
		w.push(s.t, s.v)
		w.sorted = append(w.sorted, s.v)
	}
	slices.Sort(w.sorted)
}

// percentile returns the value below which p percent of the samples lie, linear
// between the two nearest ranks (Hyndman and Fan 1996, definition 7).
func (w *window) percentile(p float64) (float64, bool) {
	n := len(w.sorted)
	if n == 0 {
		return 0, false
	}
	place := p / 100 * float64(n-1)
	i := int(place)
	if i+1 >= n {
		return w.sorted[n-1], true
	}
	k := place - float64(i)
	return w.sorted[i]*(1-k) + w.sorted[i+1]*k, true
}
