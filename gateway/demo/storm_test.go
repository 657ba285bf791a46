package demo

import (
	"math"
	"testing"
	"time"
)

// crossings walks a level through a cycle as its station measures it.
func crossings(s storm, station string, alarmsM [3]float64) (up, down [3]float64, peakM float64) {
	for x := 0.0; x < cycleS; x += stationEvery.Seconds() {
		level := s.levelM(station, time.Duration(x*float64(time.Second)))
		peakM = max(peakM, level)
		for i, alarm := range alarmsM {
			if level >= alarm && up[i] == 0 {
				up[i] = x
			}
			if up[i] > 0 && down[i] == 0 && level < alarm-0.05 {
				down[i] = x
			}
		}
	}
	return up, down, peakM
}

func TestWavePassesTheAlarmLevels(t *testing.T) {
	for _, c := range []struct {
		station string
		alarmsM [3]float64
		peakM   float64
	}{
		{kimLong, [3]float64{1.00, 2.00, 3.50}, 5.05},
		{phuOc, [3]float64{1.50, 3.00, 4.50}, 4.97},
	} {
		for seed := range uint64(20) {
			up, down, peakM := crossings(storm{seed: seed, speed: 1}, c.station, c.alarmsM)
			t.Logf("%s: up %v s, down %v s", c.station, up, down)
			if math.Abs(peakM-c.peakM) > 0.011 {
				t.Errorf("%s seed %d: peak %.2f m, want %.2f", c.station, seed, peakM, c.peakM)
			}
			if !(0 < up[0] && up[0] < up[1] && up[1] < up[2] && up[2] < down[2] && down[2] < down[1] && down[1] < down[0]) {
				t.Errorf("%s seed %d: up at %v s, down at %v s", c.station, seed, up, down)
			}
			if down[0] > 75 {
				t.Errorf("%s seed %d: below level I only after %.1f s", c.station, seed, down[0])
			}
			// A level is held for more than one reading, up and down.
			if up[1]-up[0] < 2 || up[2]-up[1] < 2 || down[1]-down[2] < 2 || down[0]-down[1] < 2 {
				t.Errorf("%s seed %d: the levels pass too fast: up %v s, down %v s", c.station, seed, up, down)
			}
		}
	}
}

// TestLevelsDoNotFlicker: once a level is passed, the noise does not bring the
// warning back within a cycle.
func TestLevelsDoNotFlicker(t *testing.T) {
	alarmsM := [3]float64{1.00, 2.00, 3.50}
	for seed := range uint64(20) {
		s, high, changes := storm{seed: seed, speed: 1}, 0, 0
		for since := time.Duration(0); since < 90*time.Second; since += stationEvery {
			level := s.levelM(kimLong, since)
			for high < 3 && level >= alarmsM[high] {
				high++
				changes++
			}
			for high > 0 && level < alarmsM[high-1]-0.05 {
				high--
				changes++
			}
		}
		if changes != 6 {
			t.Errorf("seed %d: %d changes of level, want 6", seed, changes)
		}
	}
}

func TestRainComesBeforeTheFlood(t *testing.T) {
	s := storm{seed: 3, speed: 1}
	var peakMM, heavyAt, floodAt float64
	for x := 0.0; x < cycleS; x += 0.5 {
		since := time.Duration(x * float64(time.Second))
		peakMM = max(peakMM, s.rain1hMM(namDong, since))
		if heavyAt == 0 && s.rain24hMM(namDong, since) >= 51 {
			heavyAt = x
		}
		if floodAt == 0 && s.levelM(kimLong, since) >= 1 {
			floodAt = x
		}
	}
	if peakMM < 100 || peakMM > 104.6 {
		t.Errorf("peak rain %.1f mm/h, want about 104.6", peakMM)
	}
	if heavyAt == 0 || heavyAt >= floodAt {
		t.Errorf("heavy rain at %.1f s, level I at %.1f s: rain comes first", heavyAt, floodAt)
	}
	if mm := s.rain24hMM(namDong, 89*time.Second); mm != 0 {
		t.Errorf("%.1f mm in 24 h at the end of the calm, want 0", mm)
	}
}

// TestPulseArea compares the closed form with a sum.
func TestPulseArea(t *testing.T) {
	sum, dx := 0.0, 0.001
	for x := 0.0; x < 2*cycleS; x += dx {
		sum += rainNamDong.at(math.Mod(x+dx/2, cycleS)) * dx
		if got := rainNamDong.total(x + dx); math.Abs(got-sum) > 0.01 {
			t.Fatalf("area to %.3f s is %.4f, the sum %.4f", x, got, sum)
		}
	}
}

func TestStormIsAFunctionOfSeedAndTime(t *testing.T) {
	a, b, other := storm{seed: 7, speed: 1}, storm{seed: 7, speed: 1}, storm{seed: 8, speed: 1}
	differs := false
	for since := time.Duration(0); since < 90*time.Second; since += time.Second {
		if a.levelM(kimLong, since) != b.levelM(kimLong, since) {
			t.Fatalf("two storms of one seed differ at %s", since)
		}
		differs = differs || a.levelM(kimLong, since) != other.levelM(kimLong, since)
	}
	if !differs {
		t.Error("the seed changes nothing")
	}
	fast := storm{seed: 7, speed: 10}
	if got, want := fast.phase(3*time.Second), 30.0; math.Abs(got-want) > 1e-9 {
		t.Errorf("at speed 10 the phase after 3 s is %v s, want %v", got, want)
	}
}

// TestWeatherFollowsTheStorm checks the registers over a cycle against the
// ranges of the instrument.
func TestWeatherFollowsTheStorm(t *testing.T) {
	s := storm{seed: 5, speed: 1}
	var strongestMS float64
	for since := time.Duration(0); since < 200*time.Second; since += weatherStep {
		r := s.weatherRegisters(since)
		if len(r) != 15 {
			t.Fatalf("%d registers, want 0x01F4 to 0x0202", len(r))
		}
		windMS := float64(r[0]) / 10
		strongestMS = max(strongestMS, windMS)
		temperatureC := float64(int16(r[5])) / 10
		lux := uint32(r[10])<<16 | uint32(r[11])
		if r[1] > 12 || r[2] > 7 || r[3] > 359 || r[4] < 700 || r[4] > 1000 || temperatureC < 15 || temperatureC > 35 ||
			r[9] < 980 || r[9] > 1030 || lux < 100 || lux > 30_000 || uint32(r[12]) != lux/100 {
			t.Fatalf("registers at %s: %v", since, r)
		}
	}
	if strongestMS < 19 || strongestMS > 24 {
		t.Errorf("strongest wind %.1f m/s, want a gale of about 22", strongestMS)
	}
	if got := int16(tenths(-3.2)); got != -32 {
		t.Errorf("-3.2 degrees is %d, want -32 in two's complement", got)
	}
}
