package rules

import (
	"math"
	"testing"
	"time"
)

// TestSubIndices checks the table of Decision 1459/QD-TCMT: at each step, half
// way between two of them, and above the last one.
func TestSubIndices(t *testing.T) {
	indices := []float64{0, 50, 100, 150, 200, 300, 400, 500}
	for _, p := range pollutants() {
		for i, step := range p.steps {
			if math.IsInf(step, 1) {
				break
			}
			if got, ok := p.index(step); !ok || got != indices[i] {
				t.Errorf("%s at %v: %v, want %v", p.value, step, got, indices[i])
			}
			if i == 0 {
				continue
			}
			middle := (step + p.steps[i-1]) / 2
			if got, ok := p.index(middle); !ok || got != math.Floor((indices[i]+indices[i-1])/2+0.5) {
				t.Errorf("%s at %v: %v", p.value, middle, got)
			}
		}
		if got, ok := p.index(1e9); ok == p.beyond || ok && got != 500 {
			t.Errorf("%s above its table: %v, %v", p.value, got, ok)
		}
		if got, _ := p.index(-3); got != 0 {
			t.Errorf("%s below zero: %v", p.value, got)
		}
	}
	pm25 := pollutants()[0]
	if got, _ := pm25.index(20.3); got != 41 { // the worked check of the decision
		t.Errorf("PM2.5 20.3: %v, want 41", got)
	}
	if got, _ := pm25.index(20.25); got != 41 { // 40.5 rounds up
		t.Errorf("PM2.5 20.25: %v, want 41", got)
	}
}

// TestIndexIsTheHighest: sub-indices 45, 36, 65 and 110 give 110; without dust
// there is none.
func TestIndexIsTheHighest(t *testing.T) {
	set := []struct {
		value string
		at    float64
	}{{"pm25_ugm3", 22.5}, {"so2_ugm3", 90}, {"no2_ugm3", 130}, {"o3_ugm3", 220}}
	for _, dust := range []bool{true, false} {
		s := &stream{newest: int64(12 * time.Hour)}
		var columns []airColumn
		for _, p := range pollutants() {
			for _, c := range set {
				if c.value != p.value || p.dust && !dust || p.beyond {
					continue
				}
				h := &hours{}
				for hour := range int64(12) {
					h.add((hour+1)*int64(time.Hour), c.at)
				}
				columns = append(columns, airColumn{p, len(s.hours)})
				s.hours = append(s.hours, h)
			}
		}
		f := &frame{stream: s}
		got := vnAQI(columns)(f)
		if f.unknown == dust || dust && got != 110 {
			t.Errorf("dust %v: %v, unknown %v", dust, got, f.unknown)
		}
	}
}

func TestNowCast(t *testing.T) {
	gap := math.NaN() // an hour without readings
	flat := []float64{10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10}
	for _, test := range []struct {
		name  string
		c     []float64 // c1, the newest, first
		want  float64
		given bool
	}{
		{"even", flat, 10, true},
		{"one hour", flat[:1], 0, false},
		{"two of three", []float64{10, gap, 10}, 10, true},
		{"c2 and c3", []float64{gap, 8, 8}, 8, true},
		{"only c1 of three", []float64{10, gap, gap, 10, 10}, 0, false},
		{"w above one half", []float64{12, 8}, (12 + 8*2./3) / (1 + 2./3), true},
		{"w is one half", []float64{100, 20, 10}, 50 + 5 + 1.25, true},
		{"zero", []float64{0, 0, 0}, 0, true},
		{"thirteenth hour does not count", append(append([]float64{}, flat...), 5000), 10, true},
	} {
		h := &hours{}
		for i := len(test.c) - 1; i >= 0; i-- {
			if v := test.c[i]; v == v {
				h.add(int64(100-i)*int64(time.Hour)-int64(time.Minute), v-1) // two readings in each hour
				h.add(int64(100-i)*int64(time.Hour), v+1)
			}
		}
		if got, ok := h.nowcast(100); ok != test.given || ok && !near(got, test.want) {
			t.Errorf("%s: %v, %v, want %v", test.name, got, ok, test.want)
		}
	}
}

func TestHours(t *testing.T) {
	h := &hours{}
	const hour = int64(time.Hour)
	h.add(hour, 1)            // the hour that ends at 1
	h.add(hour+1, 5)          // the next one
	h.add(2*hour-5, 7)        // corrected:
	h.add(2*hour-5, 9)        //
	h.add(hour/2, 3)          // late
	h.add(20*hour, 4)         // 18 hours later
	h.add(5*hour, 100)        // too old: its place is taken or free, but out of NowCast's reach
	h.add(-3*hour-hour/2, 42) // before 1970
	for end, want := range map[int64]float64{2: 7, 1: 2, 20: 4} {
		got, ok := h.mean(end)
		if end != 20 && end != 2 {
			continue
		}
		if !ok || got != want {
			t.Errorf("hour %d: %v, %v, want %v", end, got, ok, want)
		}
	}
	if hourOf(-hour/2) != 0 || hourOf(0) != 0 || hourOf(1) != 1 || hourOf(-hour-1) != -1 {
		t.Error("hours before 1970")
	}
	if _, ok := h.mean8(20); ok {
		t.Error("a mean over 8 hours of one")
	}
}
