package rules

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/paulmach/orb"
)

func zoneOf(t testing.TB, kind string, coordinates any) *zone {
	t.Helper()
	text, err := json.Marshal(coordinates)
	if err != nil {
		t.Fatal(err)
	}
	zones, faults := parseZones(json.RawMessage(fmt.Sprintf(
		`{"type": "FeatureCollection", "features": [{"properties": {"name": "z"}, "geometry": {"type": %q, "coordinates": %s}}]}`, kind, text)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return zones["z"]
}

func TestMetres(t *testing.T) {
	for _, test := range []struct {
		a, b orb.Point
		want float64
	}{
		{orb.Point{0, 0}, orb.Point{0, 1}, earthRadius * radians},
		{orb.Point{107, 60}, orb.Point{108, 60}, 55597}, // half of a degree at the equator, less the great circle's bend
		{orb.Point{0, 0}, orb.Point{180, 0}, earthRadius * math.Pi},
		{orb.Point{106.7, 10.77}, orb.Point{105.85, 21.03}, 1144000}, // Ho Chi Minh City to Hanoi
	} {
		if got := metres(test.a, test.b); math.Abs(got-test.want) > 1e-3*test.want {
			t.Errorf("%v to %v: %.0f m, want %.0f", test.a, test.b, got, test.want)
		}
	}
}

// TestDistance compares the distance with the least one to 20,000 places on each
// edge, up to some 300 km.
func TestDistance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	worst := 0.0
	for range 30 {
		lat, lon := rng.Float64()*50-10, 100+rng.Float64()*10
		at := func(size float64) orb.Point {
			return orb.Point{lon + (rng.Float64()-0.5)*size, lat + (rng.Float64()-0.5)*size}
		}
		line := orb.LineString{at(2), at(2), at(2)}
		z := zoneOf(t, "LineString", line)
		p := at(4)
		want := math.Inf(1)
		for i := 1; i < len(line); i++ {
			for k := range 20001 {
				part := float64(k) / 20000
				on := orb.Point{line[i-1][0] + part*(line[i][0]-line[i-1][0]), line[i-1][1] + part*(line[i][1]-line[i-1][1])}
				want = min(want, metres(p, on))
			}
		}
		got := z.distance(p)
		worst = max(worst, (math.Abs(got-want)-10)/want) // places on the edge are up to 20 m apart
	}
	t.Logf("at most %.3f %%", 100*worst)
	if worst > 2e-4 {
		t.Errorf("the distance is wrong by %.2f %%", 100*worst)
	}
}

func TestDistanceOfAnArea(t *testing.T) {
	z := zoneOf(t, "Polygon", [][][2]float64{{{107, 16}, {108, 16}, {108, 17}, {107, 17}, {107, 16}}, {{107.4, 16.4}, {107.6, 16.4}, {107.6, 16.6}, {107.4, 16.6}, {107.4, 16.4}}})
	if d := z.distance(orb.Point{107.2, 16.5}); d != 0 {
		t.Errorf("inside: %v", d)
	}
	if d := z.distance(orb.Point{107, 16}); d != 0 {
		t.Errorf("at the edge: %v", d)
	}
	hole := z.distance(orb.Point{107.5, 16.5})
	if want := 0.1 * radians * earthRadius * math.Cos(16.5*radians); math.Abs(hole-want) > 1e-3*want {
		t.Errorf("in the hole: %v, want %v", hole, want)
	}
	north := z.distance(orb.Point{107.5, 18})
	if want := radians * earthRadius; math.Abs(north-want) > 1e-3*want {
		t.Errorf("a degree to the north: %v, want %v", north, want)
	}
}

func TestCrossed(t *testing.T) {
	z := zoneOf(t, "MultiLineString", [][][2]float64{{{0, 0}, {2, 0}, {2, 2}}, {{5, 0}, {5, 1}}})
	for _, test := range []struct {
		name     string
		from, to orb.Point
		want     bool
	}{
		{"across", orb.Point{1, -1}, orb.Point{1, 1}, true},
		{"back", orb.Point{1, 1}, orb.Point{1, -1}, true},
		{"beside", orb.Point{-1, -1}, orb.Point{-1, 1}, false},
		{"not far enough", orb.Point{1, 1}, orb.Point{1, 0.1}, false},
		{"onto", orb.Point{1, 1}, orb.Point{1, 0}, true},
		{"from it", orb.Point{1, 0}, orb.Point{1, -1}, false},
		{"along it", orb.Point{0.5, 0}, orb.Point{1.5, 0}, false},
		{"onto it, along", orb.Point{-1, 0}, orb.Point{1, 0}, true},
		{"through its bend", orb.Point{1, -1}, orb.Point{3, 1}, true},
		{"around its end", orb.Point{2, 3}, orb.Point{3, 1}, false},
		{"through its end", orb.Point{1, 2}, orb.Point{3, 2}, true},
		{"no step", orb.Point{1, 0}, orb.Point{1, 0}, false},
		{"from one line over another", orb.Point{2, 1}, orb.Point{6, 0.5}, true},
		{"twice", orb.Point{1, -1}, orb.Point{3, 1.5}, true},
	} {
		if got := z.crossed(test.from, test.to); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// TestCrossedOnceOnAWalk: a walk of small steps crosses a line once or three
// times where its ends are on different sides, whatever places lie on the line.
func TestCrossedOnceOnAWalk(t *testing.T) {
	z := zoneOf(t, "LineString", [][2]float64{{-1e2, 0}, {1e2, 0}})
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		at := orb.Point{0, float64(rng.IntN(5) - 2)}
		side, crossings := math.Copysign(1, at[1]), 0
		if at[1] == 0 {
			continue
		}
		for range 20 {
			next := orb.Point{at[0] + 0.5, at[1] + float64(rng.IntN(3)-1)}
			if z.crossed(at, next) {
				crossings++
				if at[1] == 0 {
					t.Fatalf("a step from the line at %v counts", at)
				}
			}
			at = next
		}
		if at[1] != 0 && math.Copysign(1, at[1]) != side && crossings == 0 {
			t.Fatal("the other side was reached without a crossing")
		}
	}
}
