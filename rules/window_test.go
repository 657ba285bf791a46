package rules

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"
	"time"
)

// reference is a window as one would write it without regard for speed.
type reference struct {
	width   int64
	samples map[int64]float64
}

func (r *reference) add(t int64, v float64, late bool) {
	if !late {
		for old := range r.samples {
			if old > t {
				delete(r.samples, old)
			}
		}
	}
	r.samples[t] = v
	end := int64(math.MinInt64)
	for old := range r.samples {
		end = max(end, old)
	}
	for old := range r.samples {
		if old <= end-r.width {
			delete(r.samples, old)
		}
	}
}

func (r *reference) sorted() []sample {
	var out []sample
	for t, v := range r.samples {
		out = append(out, sample{t, v})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].t < out[j].t })
	return out
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*(1+math.Abs(a)+math.Abs(b)) }

func compareTotals(t *testing.T, got total, samples []sample) {
	t.Helper()
	var want total
	for _, s := range samples {
		want.n++
		want.sum += s.v
	}
	want.mean, want.min, want.max = want.sum/float64(want.n), math.Inf(1), math.Inf(-1)
	for _, s := range samples {
		want.min, want.max = min(want.min, s.v), max(want.max, s.v)
		want.m2 += (s.v - want.mean) * (s.v - want.mean)
	}
	if got.n != want.n || !near(got.sum, want.sum) || got.min != want.min || got.max != want.max || !near(got.mean, want.mean) || !near(got.m2, want.m2) {
		t.Fatalf("got %+v\nwant %+v", got, want)
	}
}

func copyWindow(t *testing.T, w *window) *window {
	t.Helper()
	out := writer{numbers: map[string]uint64{}}
	out.window(w)
	in := reader{rest: out.buf}
	next := in.window(w.width, w.ranked)
	if in.err != nil || len(in.rest) > 0 {
		t.Fatalf("window read back: %v, %d bytes left", in.err, len(in.rest))
	}
	next.want(w.totals)
	return next
}

// TestExactWindow compares windows with the reference, and one that is written
// to a checkpoint and read again at random times with one that is not, to the
// last bit.
func TestExactWindow(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w, restarted := newWindow(windowSpec{width: time.Hour, totals: true}), newWindow(windowSpec{width: time.Hour, totals: true})
		ref := &reference{width: int64(time.Hour), samples: map[int64]float64{}}
		now := int64(0)
		for range 800 {
			now += int64(rng.IntN(int(4 * time.Minute)))
			at, late, v := now, false, float64(rng.IntN(2000))/16
			switch rng.IntN(12) {
			case 0: // late
				at, late = now-int64(rng.IntN(int(100*time.Minute))), true
			case 1: // correction
				s := ref.sorted()
				if len(s) > 0 {
					at, late = s[rng.IntN(len(s))].t, true
				}
			case 2: // a clock that ran ahead and is set right
				at = now - int64(rng.IntN(int(10*time.Minute)))
			case 3: // a gap
				if rng.IntN(10) == 0 {
					now += int64(2 * time.Hour)
					at = now
				}
			}
			if len(ref.samples) == 0 || late && at <= ref.sorted()[len(ref.samples)-1].t-ref.width {
				late = false
				at = now
			}
			w.add(at, v, late)
			restarted.add(at, v, late)
			ref.add(at, v, late)
			if rng.IntN(5) == 0 {
				restarted = copyWindow(t, restarted)
			}
			samples := ref.sorted()
			compareTotals(t, w.total(), samples)
			first, last := w.ends()
			if first != samples[0] || last != samples[len(samples)-1] || w.count() != int64(len(samples)) {
				t.Fatalf("ends %v %v, want %v", first, last, samples)
			}
			if w.total() != restarted.total() {
				t.Fatalf("restarted %+v, not restarted %+v", restarted.total(), w.total())
			}
		}
	}
}

func TestPanes(t *testing.T) {
	const width, each = 6 * time.Hour, int64(6 * time.Hour / Panes)
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w, restarted := newWindow(windowSpec{width: width, totals: true}), newWindow(windowSpec{width: width, totals: true})
		if w.panes == nil {
			t.Fatal("a window of 6 h is exact")
		}
		var samples []sample // in the order of arrival
		now := int64(-3 * time.Hour)
		for i := range 700 {
			now += 1 + int64(rng.IntN(int(2*time.Minute)))
			s, late := sample{now, float64(rng.IntN(2000)) / 16}, false
			switch {
			case i > 0 && rng.IntN(10) == 0:
				now = samples[len(samples)-1].t
				s.t = now
				samples = samples[:len(samples)-1] // the newest is corrected
			case i > 0 && rng.IntN(10) == 0:
				s.t, late = now-1-int64(rng.IntN(int(7*time.Hour))), true
			case rng.IntN(200) == 0:
				now += int64(9 * time.Hour)
				s.t = now
			}
			w.add(s.t, s.v, late)
			restarted.add(s.t, s.v, late)
			if late {
				last := samples[len(samples)-1]
				samples = append(samples[:len(samples)-1], s, last) // the newest stays last
				now = last.t
			} else {
				samples = append(samples, s)
			}
			if rng.IntN(5) == 0 {
				restarted = copyWindow(t, restarted)
			}
			newest := int64(math.Floor(float64(now) / float64(each)))
			var in []sample
			for _, s := range samples {
				if n := int64(math.Floor(float64(s.t) / float64(each))); n > newest-Panes {
					in = append(in, s)
				}
			}
			compareTotals(t, w.total(), in)
			sort.SliceStable(in, func(i, j int) bool { return in[i].t < in[j].t })
			if first, last := w.ends(); first.t != in[0].t || last != in[len(in)-1] {
				t.Fatalf("ends %v %v, want %v %v", first, last, in[0], in[len(in)-1])
			}
			if w.total() != restarted.total() {
				t.Fatalf("restarted %+v, not restarted %+v", restarted.total(), w.total())
			}
		}
	}
}

func TestPanesWhenTheClockIsSetBack(t *testing.T) {
	for _, ahead := range []time.Duration{time.Minute, time.Hour, 20 * time.Hour, 400 * time.Hour} {
		t.Run(fmt.Sprint(ahead), func(t *testing.T) {
			w := newWindow(windowSpec{width: 6 * time.Hour, totals: true})
			w.add(0, 1, false)
			w.add(int64(time.Hour), 2, false)
			w.add(int64(time.Hour+ahead), 100, false)
			w.add(int64(time.Hour+30*time.Second), 3, false)
			first, last := w.ends()
			if last != (sample{int64(time.Hour + 30*time.Second), 3}) {
				t.Errorf("last is %v", last)
			}
			if ahead < 5*time.Hour && first != (sample{0, 1}) {
				t.Errorf("first is %v", first)
			}
			if ahead > time.Minute*6 && w.total().max > 3 {
				t.Errorf("the reading ahead is still there: %+v", w.total())
			}
		})
	}
}

// TestWindowIsBounded: a device that sends too much gets panes.
func TestWindowIsBounded(t *testing.T) {
	w := newWindow(windowSpec{width: time.Hour, totals: true})
	cuts := 0
	for i := range int64(3 * MaxSamples) {
		if w.add(i*int64(time.Second)/10, float64(i%7), false) {
			cuts++
		}
	}
	if cuts != 1 || w.panes == nil || len(w.samples) > 0 {
		t.Fatalf("%d cuts, %d samples", cuts, len(w.samples))
	}
	if n := w.count(); n != 3*MaxSamples {
		t.Errorf("%d samples counted", n)
	}
	if v, ok := delta(w); !ok || v != float64((3*MaxSamples-1)%7) {
		t.Errorf("delta %v", v)
	}
}

// TestLargeValuesLeaveNoResidue: what is subtracted from a running sum stays in
// its rounding.
func TestLargeValuesLeaveNoResidue(t *testing.T) {
	w := newWindow(windowSpec{width: time.Minute, totals: true})
	w.add(0, 1e18, false)
	for i := range int64(200) {
		w.add(i*int64(time.Second)+1, 0.1, false)
	}
	if got := w.total(); !near(got.sum, float64(got.n)*0.1) || got.n != 60 {
		t.Errorf("%+v", got)
	}
}
