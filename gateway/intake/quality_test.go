package intake

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

func span(low, high float64) []float64 { return []float64{low, high} }

// judged makes an intake in which one kind, gauge, has the tests for level_m
// that the kind and the device ask for.
func judged(t testing.TB, kind *telemetry.Tests, device telemetry.Device) bench {
	t.Helper()
	b := setup(t, false)
	b.Intake = New(Options{
		Readings: b.readings, Letters: b.letters, Clock: b.clock, Known: known(t, kind, device),
		Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return b
}

func known(t testing.TB, kind *telemetry.Tests, device telemetry.Device) Known {
	t.Helper()
	low, high := -5.0, 2000.0
	kinds, faults := telemetry.NewCatalogue([]telemetry.Kind{{Name: "gauge", Values: []telemetry.Quantity{
		{Name: "level_m", Min: &low, Max: &high, Quality: kind}, {Name: "other"}, {Name: "note", Words: true},
	}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	device.ID = "kim-long"
	devices, faults := telemetry.NewRegistry([]telemetry.Device{device}, kinds)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return Known{kinds, devices}
}

// course reads "12 12.1? 1000! +3h 12": values ten minutes apart, with the
// quality that is expected (? suspect, ! bad, ~ maintenance, ^ calibrating),
// pauses, and -20m for what comes late.
func course(t *testing.T, b bench, start time.Time, text string) {
	t.Helper()
	at := start
	var readings []telemetry.Reading
	var want []telemetry.Quality
	for i, word := range strings.Fields(text) {
		if word[0] == '+' || word[0] == '-' && strings.ContainsAny(word, "mh") {
			pause, err := time.ParseDuration(word)
			if err != nil {
				t.Fatal(err)
			}
			at = at.Add(pause - 10*time.Minute)
			continue
		}
		quality := telemetry.Good
		for mark, q := range map[string]telemetry.Quality{"?": telemetry.Suspect, "!": telemetry.Bad, "~": telemetry.Maintenance, "^": telemetry.Calibrating} {
			if rest, ok := strings.CutSuffix(word, mark); ok {
				word, quality = rest, q
			}
		}
		number, err := strconv.ParseFloat(word, 64)
		if err != nil {
			t.Fatalf("word %d: %v", i, err)
		}
		readings = append(readings, telemetry.Reading{Device: "kim-long", Kind: "gauge", Time: at, Values: []telemetry.Value{{Name: "level_m", Number: number}}})
		want = append(want, quality)
		at = at.Add(10 * time.Minute)
	}
	for i, r := range b.accept(t, readings...) {
		if r.Quality != want[i] {
			t.Errorf("reading %d, %v at %s, is %s; want %s (of %q)", i, r.Values[0].Number, r.Time.Format(time.TimeOnly), r.Quality, want[i], text)
		}
	}
}

func TestTests(t *testing.T) {
	spikes := telemetry.Tests{Spike: &telemetry.Spike{Suspect: 1, Fail: 5}}
	flat := telemetry.Tests{FlatLine: &telemetry.FlatLine{Suspect: telemetry.Duration(30 * time.Minute), Fail: telemetry.Duration(time.Hour), Tolerance: 0.01}}
	rates := telemetry.Tests{RateOfChange: &telemetry.RateOfChange{Suspect: 0.1}}
	for name, test := range map[string]struct {
		kind   telemetry.Tests
		device telemetry.Device
		course string
	}{
		"none":                             {telemetry.Tests{}, telemetry.Device{}, "1 1000 1 -5.1!"},
		"gross range":                      {telemetry.Tests{GrossRange: &telemetry.GrossRange{Fail: span(0, 10), Suspect: span(1, 8)}}, telemetry.Device{}, "1 8 8.1? 0.9? 10? -0.1! 10.1! 5"},
		"a spike, and the way back":        {spikes, telemetry.Device{}, "2 2 4? 2 2 9! 2"},
		"a limit is not beyond it":         {spikes, telemetry.Device{}, "2 3 4 5 6"},
		"a step is believed at the second": {spikes, telemetry.Device{}, "2 2 4? 4 4 2? 2.1 2"},
		"spikes that do not agree":         {spikes, telemetry.Device{}, "2 2 4? 6? 8! 2 2"},
		"spikes in turn":                   {spikes, telemetry.Device{}, "2 4? 2 4? 2 4? 2"},
		"confirm":                          {telemetry.Tests{Spike: &telemetry.Spike{Suspect: 1, Confirm: 3}}, telemetry.Device{}, "2 4? 4? 4 4 9? 9? 2? 4"},
		"rate":                             {rates, telemetry.Device{}, "2 3 4.1? 4.2 6? 3 3"},
		"a rate that goes on":              {rates, telemetry.Device{}, "2 4? 6? 8? 10? 10 10"},
		"rate by time":                     {rates, telemetry.Device{}, "2 4? 2 +30m 4.9 +30m 8?"},
		"late and corrected":               {spikes, telemetry.Device{}, "2 2 -30m 9 +40m 2 -0m 9 2"},
		"after a silence":                  {spikes, telemetry.Device{}, "2 2 +2h 9! +4h 9 9"},
		"the interval says what silence is": {spikes, telemetry.Device{Interval: telemetry.Duration(10 * time.Minute)},
			"2 2 +30m 9! +31m 9 9"},
		"a bad value is not believed": {spikes, telemetry.Device{}, "2 -6! 2 2.5 3001! 3"},
		"flat":                        {flat, telemetry.Device{}, "2 2.01 2 2.005? 2? 2? 2! 2.02 2.02 2.02 2.02?"},
		"flat in spite of a spike":    {flat.Over(spikes), telemetry.Device{}, "2 2 9! 2? 2? 2? 2!"},
		"flat no longer":              {flat, telemetry.Device{}, "2 2 2 2? 3 3 3 3?"},
		"the device instead of its kind": {spikes, telemetry.Device{Quality: map[string]telemetry.Tests{"level_m": {Spike: &telemetry.Spike{Suspect: 3}}}},
			"2 4 9?"},
		"the device has none":     {spikes, telemetry.Device{Quality: map[string]telemetry.Tests{"level_m": {Spike: &telemetry.Spike{}}}}, "2 9 2"},
		"the clearer name":        {spikes, telemetry.Device{Quality: map[string]telemetry.Tests{"level_m": {Spike: &telemetry.Spike{}}, "gauge.level_m": {Spike: &telemetry.Spike{Suspect: 3}}}}, "2 9? 2"},
		"another test beside":     {spikes, telemetry.Device{Quality: map[string]telemetry.Tests{"level_m": {GrossRange: &telemetry.GrossRange{Suspect: span(0, 3)}}}}, "2 4? 3.5? 9! 2?"},
		"suspect values believed": {telemetry.Tests{GrossRange: &telemetry.GrossRange{Suspect: span(0, 3)}, Spike: &telemetry.Spike{Fail: 2}}, telemetry.Device{}, "2 3.5? 5? 7? 2! 7?"},
	} {
		t.Run(name, func(t *testing.T) {
			b := judged(t, &test.kind, test.device)
			course(t, b, b.clock.at.Add(-20*time.Hour), test.course)
		})
	}
}

func TestSeriesAreTestedApart(t *testing.T) {
	b := judged(t, &telemetry.Tests{Spike: &telemetry.Spike{Suspect: 1}}, telemetry.Device{})
	r := func(device, tag string, x float64, at int) telemetry.Reading {
		r := telemetry.Reading{Device: device, Kind: "gauge", Time: b.clock.at.Add(time.Duration(at) * time.Second), Values: []telemetry.Value{{Name: "level_m", Number: x}, {Name: "other", Number: 100 * x}}}
		if tag != "" {
			r.Tags = []telemetry.Tag{{Key: "probe", Value: tag}}
		}
		return r
	}
	got := b.accept(t, r("kim-long", "", 1, 0), r("kim-long", "a", 5, 0), r("elsewhere", "", 9, 0),
		r("kim-long", "", 1, 1), r("kim-long", "a", 5, 1), r("elsewhere", "", 9, 1), r("elsewhere", "", 3, 2))
	for i, g := range got {
		if want := i == 6; (g.Quality == telemetry.Suspect) != want || g.Values[1].Quality != telemetry.Good {
			t.Errorf("reading %d is %s, values %v", i, g.Quality, g.Values)
		}
	}
	h, _ := b.HeardOf("elsewhere")
	if f := h.Failed["gauge.level_m"]; f.Test != "spike" || f.Count != 1 || f.Quality != telemetry.Suspect {
		t.Errorf("the list of devices has %+v", h.Failed)
	}
	if n := testutil.ToFloat64(b.metrics.failures[spike][0]); n != 1 {
		t.Errorf("%v failures are counted", n)
	}
}

func TestMemoryOfTestsIsBounded(t *testing.T) {
	b := judged(t, &telemetry.Tests{Spike: &telemetry.Spike{Suspect: 1}}, telemetry.Device{})
	b.tracks.most = 10
	for i := range 100 {
		b.accept(t, telemetry.Reading{Device: fmt.Sprint("d", i), Kind: "gauge", Values: []telemetry.Value{{Name: "level_m"}}})
	}
	if len(b.tracks.by) != 10 {
		t.Errorf("%d series are remembered", len(b.tracks.by))
	}
}

// TestReloadKeepsMemory: what is remembered outlives a change that does not
// concern it.
func TestReloadKeepsMemory(t *testing.T) {
	tests := &telemetry.Tests{Spike: &telemetry.Spike{Suspect: 1}}
	b := judged(t, tests, telemetry.Device{})
	start := b.clock.at.Add(-20 * time.Hour)
	course(t, b, start, "2 2")
	b.SetKnown(known(t, tests, telemetry.Device{Name: "Kim Long"}))
	course(t, b, start.Add(20*time.Minute), "9? 2")
	b.SetKnown(known(t, tests, telemetry.Device{Interval: telemetry.Duration(time.Hour)}))
	course(t, b, start.Add(40*time.Minute), "9 2?")
}

func TestCalibration(t *testing.T) {
	scale, since := 2.0, telemetry.Instant(time.Date(2025, 10, 27, 12, 0, 0, 0, time.UTC))
	b := judged(t, nil, telemetry.Device{
		Calibration: map[string]telemetry.Calibration{"level_m": {Scale: &scale, Offset: -1, Since: &since}},
		Quality:     map[string]telemetry.Tests{"level_m": {GrossRange: &telemetry.GrossRange{Fail: span(0, 10)}}},
	})
	at := func(min int, x float64) telemetry.Reading {
		return telemetry.Reading{Device: "kim-long", Kind: "gauge", Time: since.Std().Add(time.Duration(min) * time.Minute), Values: []telemetry.Value{{Name: "level_m", Number: x}, {Name: "other", Number: x}}}
	}
	word := at(3, 0)
	word.Values[0].Text = " 3 "
	got := b.accept(t, at(-1, 4), at(0, 4), at(1, 6), at(2, 1e308), word)
	for i, want := range []telemetry.Value{
		{Name: "level_m", Number: 4}, {Name: "level_m", Number: 7}, {Name: "level_m", Number: 11, Quality: telemetry.Bad},
		{Name: "level_m", Number: 1e308, Quality: telemetry.Bad}, {Name: "level_m", Number: 5},
	} {
		if got[i].Values[0] != want || i < 4 && got[i].Values[1].Number != []float64{4, 4, 6, 1e308}[i] {
			t.Errorf("reading %d: %+v, want %+v", i, got[i].Values, want)
		}
	}
}

func TestPeriods(t *testing.T) {
	b := judged(t, &telemetry.Tests{Spike: &telemetry.Spike{Suspect: 1}}, telemetry.Device{})
	start := b.clock.at.Add(-20 * time.Hour)
	end := start.Add(40 * time.Minute)
	b.SetPeriods(map[string][]telemetry.Period{"kim-long": {
		{State: telemetry.Maintenance, Since: start.Add(20 * time.Minute), Until: &end},
		{Value: "level_m", State: telemetry.Calibrating, Since: start.Add(60 * time.Minute)},
	}})
	course(t, b, start, "2 2 9~ -6~ 9 9 7^ -6^ 20^")
	b.SetPeriods(nil)
	course(t, b, start.Add(90*time.Minute), "2 2 9?")

	b.SetPeriods(map[string][]telemetry.Period{"kim-long": {{State: telemetry.Maintenance, Since: start}}})
	got := b.accept(t, telemetry.Link("kim-long", false, nil), telemetry.Reading{Device: "kim-long", Kind: "gauge", Values: []telemetry.Value{{Name: "level_m", Number: 1, Quality: telemetry.Bad}, {Name: "other", Text: "word"}}})
	if got[0].Quality != telemetry.Good {
		t.Errorf("the link is %s: nobody would hear that it broke", got[0].Quality)
	}
	if got[1].Quality != telemetry.Maintenance || got[1].Values[0].Quality != telemetry.Good || got[1].Values[1].Text != "word" {
		t.Errorf("in maintenance a reading is %+v", got[1])
	}
}
