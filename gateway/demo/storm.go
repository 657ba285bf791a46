package demo

import (
	"math"
	"time"
)

// The storm's measure. All times are seconds of the demo.
const (
	cycleS        = 90.0  // storm and calm
	hoursPerS     = 0.5   // what one second of the demo stands for
	dayS          = 48.0  // 24 hours, compressed
	peakRainMM    = 104.6 // mm/h at Nam Đông, 2025-10-27 00-01 h
	noiseStepS    = 0.25  // noise is constant within such a step
	levelNoiseM   = 0.008 // small waves at the gauge
	calmLevelM    = 0.60  // Kim Long before the flood
	peakLevelM    = 5.05  // Kim Long, 2025-10-27 20:00
	calmPhuOcM    = 0.90
	peakPhuOcM    = 4.97 // Phú Ốc, the same flood
	calmPressure  = 1009.0
	stormPressure = 996.0
)

// A pulse rises from 0 at start to 1 at peak and falls to 0 at end, along half
// cosines; times in seconds.
type pulse struct{ start, peak, end float64 }

// The parts of the story: rain first, then the rivers.
var (
	rainNamDong  = pulse{1, 10, 26}
	rainALuoi    = pulse{2, 13, 30}
	rainHue      = pulse{3, 15, 34}
	windHue      = pulse{0, 17, 44}
	floodKimLong = pulse{8, 34, 68}
	floodPhuOc   = pulse{14, 40, 73}
)

// at returns the pulse's height, 0 to 1, at x seconds.
func (p pulse) at(x float64) float64 {
	switch {
	case x <= p.start || x >= p.end:
		return 0
	case x < p.peak:
		return (1 - math.Cos(math.Pi*(x-p.start)/(p.peak-p.start))) / 2
	}
	return (1 + math.Cos(math.Pi*(x-p.peak)/(p.end-p.peak))) / 2
}

// area returns the pulse's integral from its start to x, in seconds.
func (p pulse) area(x float64) float64 {
	rise, fall := p.peak-p.start, p.end-p.peak
	switch {
	case x <= p.start:
		return 0
	case x < p.peak:
		d := x - p.start
		return (d - rise/math.Pi*math.Sin(math.Pi*d/rise)) / 2
	case x < p.end:
		d := x - p.peak
		return rise/2 + (d+fall/math.Pi*math.Sin(math.Pi*d/fall))/2
	}
	return (rise + fall) / 2
}

// total returns the integral of the pulse that comes back every cycle, from 0
// to t seconds.
func (p pulse) total(t float64) float64 {
	if t <= 0 {
		return 0
	}
	cycles := math.Floor(t / cycleS)
	return cycles*p.area(cycleS) + p.area(t-cycles*cycleS)
}

// A storm is the weather of the demo: everything in it is a function of the
// time since the start, the seed and the speed.
type storm struct {
	seed  uint64
	speed float64 // 1: a cycle takes 90 s
}

// seconds returns the demo's time, in seconds of the story.
func (s storm) seconds(since time.Duration) float64 { return since.Seconds() * s.speed }

// phase returns how far the story is within its cycle, 0 to 90 seconds.
func (s storm) phase(since time.Duration) float64 { return math.Mod(s.seconds(since), cycleS) }

// levelM returns the water level in metres at a river station, to the
// centimetre, as a staff gauge is read.
func (s storm) levelM(station string, since time.Duration) float64 {
	calm, peak, flood := calmLevelM, peakLevelM, floodKimLong
	if station == phuOc {
		calm, peak, flood = calmPhuOcM, peakPhuOcM, floodPhuOc
	}
	level := calm + (peak-calm)*flood.at(s.phase(since)) + levelNoiseM*s.noise(station, since)
	return min(round(level, 100), peak)
}

// gauge returns the pulse and the peak in mm/h of the rain at a station.
func gauge(station string) (pulse, float64) {
	switch station {
	case namDong:
		return rainNamDong, peakRainMM
	case aLuoi:
		return rainALuoi, 68.0
	}
	return rainHue, 54.0
}

// rain1hMM returns the rain of the last hour, which is half a second of the
// demo, in millimetres.
func (s storm) rain1hMM(station string, since time.Duration) float64 {
	rain, peak := gauge(station)
	mm := peak * rain.at(s.phase(since)) * (1 + 0.03*s.noise(station, since))
	return min(round(mm, 10), peak)
}

// rain24hMM returns the rain of the last 24 hours in millimetres.
func (s storm) rain24hMM(station string, since time.Duration) float64 {
	rain, peak := gauge(station)
	t := s.seconds(since)
	return round(peak*hoursPerS*(rain.total(t)-rain.total(t-dayS)), 10)
}

// rainTotalMM returns the rain since the start in millimetres.
func (s storm) rainTotalMM(station string, since time.Duration) float64 {
	rain, peak := gauge(station)
	return peak * hoursPerS * rain.total(s.seconds(since))
}

// noise returns a number in -1..1 that depends on the seed, the stream and the
// step of time alone.
func (s storm) noise(stream string, since time.Duration) float64 {
	h := s.seed + uint64(s.seconds(since)/noiseStepS)*0x9E3779B97F4A7C15
	for i := 0; i < len(stream); i++ {
		h = (h ^ uint64(stream[i])) * 0x100000001B3
	}
	return 2*unit(h) - 1
}

// unit returns a number in 0..1 from a mixed-up h (the finaliser of SplitMix64,
// Steele, Lea and Flood 2014).
func unit(h uint64) float64 {
	h = (h ^ h>>30) * 0xBF58476D1CE4E5B9
	h = (h ^ h>>27) * 0x94D049BB133111EB
	h ^= h >> 31
	return float64(h>>11) / (1 << 53)
}

// round returns x with steps of 1/per.
func round(x, per float64) float64 { return math.Round(x*per) / per }
