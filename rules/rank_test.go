package rules

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestPercentile compares ranked windows with sorting all of their samples, and
// one that was written and read again with one that was not.
func TestPercentile(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 9))
		spec := windowSpec{width: 6 * time.Hour, ranked: true}
		w, restarted := newWindow(spec), newWindow(spec)
		ref := &reference{width: int64(6 * time.Hour), samples: map[int64]float64{}}
		now := int64(0)
		for range 600 {
			now += rng.Int64N(int64(6 * time.Minute))
			at, late, v := now, false, float64(rng.IntN(40))
			switch rng.IntN(10) {
			case 0:
				at, late = max(0, now-rng.Int64N(int64(5*time.Hour))), true
			case 1:
				at = now - rng.Int64N(int64(10*time.Minute)) // a clock set back
			}
			if len(ref.samples) == 0 {
				late = false
			}
			w.add(at, v, late)
			restarted.add(at, v, late)
			ref.add(at, v, late)
			if rng.IntN(9) == 0 {
				restarted = copyWindow(t, restarted)
			}
			var values []float64
			for _, s := range ref.sorted() {
				values = append(values, s.v)
			}
			slices.Sort(values)
			if !slices.Equal(values, w.sorted) || !slices.Equal(values, restarted.sorted) {
				t.Fatalf("sorted %v\nrestarted %v\nwant %v", w.sorted, restarted.sorted, values)
			}
			now = max(now, at)
		}
	}
}

func TestPercentileBetweenRanks(t *testing.T) {
	w := newWindow(windowSpec{width: time.Hour, ranked: true})
	for i, v := range []float64{15, 20, 35, 40, 50} {
		w.add(int64(i), v, false)
	}
	for p, want := range map[float64]float64{0: 15, 25: 20, 40: 29, 50: 35, 95: 48, 100: 50} {
		if got, ok := w.percentile(p); !ok || !near(got, want) {
			t.Errorf("percentile %v: %v, want %v", p, got, want)
		}
	}
}

// TestRankedWindowIsBounded: with too many samples it is thinned evenly, says so,
// and keeps its answers near the exact ones.
func TestRankedWindowIsBounded(t *testing.T) {
	w := newWindow(windowSpec{width: 24 * time.Hour, ranked: true})
	rng := rand.New(rand.NewPCG(1, 1))
	cuts := 0
	const n = 90_000
	for i := range int64(n) {
		if w.add(i*int64(time.Second), rng.Float64(), false) {
			cuts++
		}
		if i%50 == 0 {
			w.add(i*int64(time.Second)-int64(rng.IntN(int(20*time.Hour))), rng.Float64(), true)
		}
		if w.n > MaxRanked || len(w.sorted) != w.n {
			t.Fatalf("%d samples, %d sorted", w.n, len(w.sorted))
		}
	}
	if cuts == 0 {
		t.Error("it does not say that it was cut")
	}
	first, last := w.ends()
	if last.t-first.t < int64(23*time.Hour) {
		t.Errorf("it covers %v", time.Duration(last.t-first.t))
	}
	if p, _ := w.percentile(90); p < 0.88 || p > 0.92 {
		t.Errorf("percentile 90 of even values in 0..1: %v", p)
	}
	if cap(w.samples) > 2*MaxRanked || cap(w.sorted) > 2*MaxRanked+2 {
		t.Errorf("room for %d and %d", cap(w.samples), cap(w.sorted))
	}
}
