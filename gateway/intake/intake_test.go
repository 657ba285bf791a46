package intake

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// memory is a log that is at once "on disk".
type memory[T any] struct {
	mu      sync.Mutex
	records []T
	err     error
}

func (m *memory[T]) AppendAsync(records []T, done func(error)) {
	m.mu.Lock()
	m.records = append(m.records, records...)
	m.mu.Unlock()
	if done != nil {
		done(m.err)
	}
}

type fixed struct {
	at  time.Time
	set bool
}

func (f *fixed) Wall() (time.Time, bool) { return f.at, f.set }

type bench struct {
	*Intake
	readings *memory[telemetry.Reading]
	letters  *memory[telemetry.DeadLetter]
	clock    *fixed
}

func setup(t testing.TB, strict bool) bench {
	t.Helper()
	low, high := -5.0, 100.0
	kinds, faults := telemetry.NewCatalogue([]telemetry.Kind{{Name: "river", Values: []telemetry.Quantity{{Name: "level_m", Min: &low, Max: &high}}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	devices, faults := telemetry.NewRegistry([]telemetry.Device{{ID: "kim-long", Site: "hue"}}, kinds)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	b := bench{
		readings: &memory[telemetry.Reading]{}, letters: &memory[telemetry.DeadLetter]{},
		clock: &fixed{at: time.Date(2025, 10, 27, 13, 0, 0, 0, time.UTC), set: true},
	}
	b.Intake = New(Options{
		Readings: b.readings, Letters: b.letters, Clock: b.clock, Strict: strict,
		Known: Known{kinds, devices}, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return b
}

func river(level float64) telemetry.Reading {
	return telemetry.Reading{Device: "kim-long", Kind: "river", Values: []telemetry.Value{{Name: "level_m", Number: level}}}
}

func (b bench) accept(t *testing.T, r ...telemetry.Reading) []telemetry.Reading {
	t.Helper()
	before := len(b.readings.records)
	calls := 0
	b.Accept("test", r, func(err error) {
		if calls++; err != nil {
			t.Error(err)
		}
	})
	if calls != 1 {
		t.Errorf("done was called %d times, want once", calls)
	}
	return b.readings.records[before:]
}

func TestStampsArrivalAndSite(t *testing.T) {
	b := setup(t, false)
	got := b.accept(t, river(1), river(2))
	if !got[0].Time.Equal(b.clock.at) || !got[1].Time.Equal(b.clock.at.Add(1)) {
		t.Errorf("stamps %v and %v do not strictly increase from %v", got[0].Time, got[1].Time, b.clock.at)
	}
	if got[0].Site != "hue" || got[0].Quality != telemetry.Good {
		t.Errorf("got %+v", got[0])
	}
	other := river(1)
	other.Device = "stranger"
	if got := b.accept(t, other)[0]; got.Site != "stranger" || !got.Time.Equal(b.clock.at) {
		t.Errorf("an unregistered device: %+v", got)
	}
}

func TestClockStepsBack(t *testing.T) {
	b := setup(t, false)
	b.accept(t, river(1))
	b.clock.at = b.clock.at.Add(-500 * time.Millisecond)
	if got := b.accept(t, river(1))[0]; got.Quality != telemetry.Good || !got.Time.Equal(b.clock.at.Add(500*time.Millisecond+1)) {
		t.Errorf("half a second back: %+v", got)
	}
	b.clock.at = b.clock.at.Add(-time.Hour)
	if got := b.accept(t, river(1))[0]; got.Quality != telemetry.Suspect || !got.Time.Equal(b.clock.at) {
		t.Errorf("an hour back: %+v", got)
	}
	b.clock.at = b.clock.at.Add(2 * time.Hour)
	if got := b.accept(t, river(1))[0]; got.Quality != telemetry.Good {
		t.Errorf("the clock is right again: %+v", got)
	}
	b.clock.set = false
	if got := b.accept(t, river(1))[0]; got.Quality != telemetry.Suspect {
		t.Errorf("a clock that was never set: %+v", got)
	}
}

func TestDeviceTime(t *testing.T) {
	b := setup(t, false)
	for _, c := range []struct {
		at     time.Time
		delay  time.Duration
		wrong  bool
		reason string
	}{
		{at: b.clock.at.Add(-time.Second)},
		{at: b.clock.at.Add(-90 * time.Second), delay: 90 * time.Second},
		{at: b.clock.at.Add(23 * time.Hour)},
		{at: b.clock.at.Add(25 * time.Hour), wrong: true},
		{at: time.Unix(0, 0), wrong: true},
		{at: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC), wrong: true},
		{at: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), delay: b.clock.at.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))},
	} {
		r := river(1)
		r.Time = c.at
		got := b.accept(t, r)[0]
		if got.Delay != c.delay {
			t.Errorf("%v: delay %v, want %v", c.at, got.Delay, c.delay)
		}
		kept := got.Text("device_time")
		if c.wrong != (kept != "") || c.wrong != (got.Quality == telemetry.Suspect) || c.wrong == got.Time.Equal(c.at) {
			t.Errorf("%v: wrong %v, got %+v", c.at, c.wrong, got)
		}
		if c.wrong && kept != c.at.UTC().Format(time.RFC3339Nano) {
			t.Errorf("device_time %q of %v", kept, c.at)
		}
	}
}

func TestJudgesRange(t *testing.T) {
	b := setup(t, false)
	for level, want := range map[float64]telemetry.Quality{3.6: telemetry.Good, 1000: telemetry.Bad, -5.01: telemetry.Bad, -5: telemetry.Good} {
		got := b.accept(t, river(level))[0]
		if got.Quality != want || got.Values[0].Quality != want {
			t.Errorf("level %v: %v", level, got.Quality)
		}
	}
}

// TestWordForNumber: a word is never a number, least of all 0.
func TestWordForNumber(t *testing.T) {
	word := func(text string) telemetry.Reading {
		r := river(0)
		r.Values[0].Text = text
		return r
	}
	b := setup(t, false)
	for _, text := range []string{"n/a", "ERR", "---", "NaN", "Infinity", "3,70"} {
		if got := b.accept(t, word(text))[0]; got.Quality != telemetry.Bad || got.Values[0].Quality != telemetry.Bad || got.Values[0].Text != text {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if got := b.accept(t, word(" 3.70 "))[0]; got.Quality != telemetry.Good || got.Values[0].Text != "" || got.Values[0].Number != 3.7 {
		t.Errorf("a number in quotes: %+v", got)
	}
	if got := b.accept(t, word("1000"))[0]; got.Quality != telemetry.Bad || got.Values[0].Number != 1000 {
		t.Errorf("a number in quotes and out of range: %+v", got)
	}
	b = setup(t, true)
	if got := b.accept(t, word("n/a"), river(1)); len(got) != 1 || len(b.letters.records) != 1 || b.letters.records[0].Reason != "word_for_number" {
		t.Errorf("strict: %+v, %+v", got, b.letters.records)
	}
}

// TestNumberThatLooksLikeAQuality: in the log level_m_quality is a word, the quality
// of level_m; as a number of one device it would keep what is bad of all others out
// of the store.
func TestNumberThatLooksLikeAQuality(t *testing.T) {
	b := setup(t, false)
	for _, kind := range []string{"river", "unknown"} {
		r := river(1)
		r.Kind = kind
		for _, name := range []string{"level_m_quality", "level_m_text", "air_quality"} {
			r.Values = append(r.Values, telemetry.Value{Name: name, Number: 2.5})
		}
		got := b.accept(t, r)[0].Values
		want := []telemetry.Value{{Name: "level_m", Number: 1}, {Name: "level_m_quality", Text: "2.5"}, {Name: "level_m_text", Text: "2.5"}, {Name: "air_quality", Number: 2.5}}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", kind, got, want)
		}
	}
}

func TestSetsAside(t *testing.T) {
	long := strings.Repeat("a", 129)
	value := func(v ...telemetry.Value) telemetry.Reading {
		return telemetry.Reading{Device: "d", Kind: "river", Values: v}
	}
	named := func(device, kind string) telemetry.Reading {
		r := river(1)
		r.Device, r.Kind = device, kind
		return r
	}
	tagged := func(tags ...telemetry.Tag) telemetry.Reading {
		r := river(1)
		r.Tags = tags
		return r
	}
	for name, c := range map[string]struct {
		r      telemetry.Reading
		reason string
	}{
		"comma":          {named("a,b", "river"), "bad_name"},
		"quote":          {named(`a"b`, "river"), "bad_name"},
		"space in kind":  {named("a", "ri ver"), "bad_name"},
		"long":           {named(long, "river"), "bad_name"},
		"control record": {named("a", "_tick"), "bad_name"},
		"warning":        {named("a", "warning"), "bad_name"},
		"own kind":       {named("a", "haidang_device"), "bad_name"},
		"empty":          {value(), "no_values"},
		"NaN":            {value(telemetry.Value{Name: "level_m", Number: math.NaN()}), "not_finite"},
		"infinite":       {value(telemetry.Value{Name: "level_m", Number: math.Inf(1)}), "not_finite"},
		"reserved":       {value(telemetry.Value{Name: "time", Number: 1}), "reserved_name"},
		"value name":     {value(telemetry.Value{Name: "level m", Number: 1}), "bad_name"},
		"not UTF-8":      {value(telemetry.Value{Name: "word", Text: "\xff"}), "bad_text"},
		"long text":      {value(telemetry.Value{Name: "word", Text: strings.Repeat("x", telemetry.MaxTextBytes+1)}), "text_too_long"},
		"tag":            {tagged(telemetry.Tag{Key: "site", Value: "x"}), "bad_name"},
		"tag twice":      {tagged(telemetry.Tag{Key: "a", Value: "x"}, telemetry.Tag{Key: "a", Value: "y"}), "bad_name"},
		"nine tags":      {tagged(make([]telemetry.Tag, 9)...), "too_many_tags"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, false)
			got := b.accept(t, river(1), c.r, river(2))
			if len(got) != 2 {
				t.Errorf("%d of the 2 good neighbours were accepted", len(got))
			}
			if len(b.letters.records) != 1 || b.letters.records[0].Reason != c.reason {
				t.Errorf("letters %+v, want one with reason %s", b.letters.records, c.reason)
			}
		})
	}
}

func TestUnknown(t *testing.T) {
	strange := river(1)
	strange.Values = append(strange.Values, telemetry.Value{Name: "mood", Text: "calm"})
	other := river(1)
	other.Kind = "volcano"

	b := setup(t, false)
	if got := b.accept(t, strange, other, strange); len(got) != 3 {
		t.Errorf("%d of 3 accepted", len(got))
	}
	if got := fmt.Sprint(b.unknown); got != "map[river.mood:2 volcano:1]" {
		t.Errorf("unknown %s", got)
	}
	b = setup(t, true)
	if got := b.accept(t, strange, other, river(1)); len(got) != 1 || len(b.letters.records) != 2 {
		t.Errorf("strict: %d accepted, %d set aside", len(got), len(b.letters.records))
	}
}

func TestDoneTellsTheWorstOfBothLogs(t *testing.T) {
	b := setup(t, false)
	b.letters.err = io.ErrShortWrite
	var got error
	calls := 0
	bad := river(math.NaN())
	b.Accept("test", []telemetry.Reading{bad, river(1)}, func(err error) { calls++; got = err })
	if calls != 1 || got != io.ErrShortWrite {
		t.Errorf("done called %d times with %v", calls, got)
	}
}

func TestHeard(t *testing.T) {
	b := setup(t, false)
	b.accept(t, telemetry.Link("kim-long", true, nil), river(1), river(200))
	h := b.Heard()["kim-long"]
	if h.Count != 2 || h.Up == nil || !*h.Up || h.Quality != telemetry.Bad || !h.At.Equal(b.clock.at) ||
		len(h.Latest) != 1 || h.Latest[0].Kind != "river" || h.Latest[0].Values[0].Number != 200 {
		t.Errorf("heard %+v", h)
	}
}

func BenchmarkAccept(b *testing.B) {
	in := setup(b, false)
	in.Intake.opts.Readings = discard{}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		in.clock.at = in.clock.at.Add(time.Microsecond)
		in.Accept("bench", []telemetry.Reading{river(float64(i % 5))}, nil)
	}
}

// BenchmarkAcceptTested is BenchmarkAccept with every test of quality.
func BenchmarkAcceptTested(b *testing.B) {
	in := judged(b, &telemetry.Tests{
		GrossRange: &telemetry.GrossRange{Fail: span(-2, 30)}, Spike: &telemetry.Spike{Suspect: 1, Fail: 5},
		RateOfChange: &telemetry.RateOfChange{Suspect: 0.1}, FlatLine: &telemetry.FlatLine{Suspect: telemetry.Duration(time.Hour)},
	}, telemetry.Device{})
	in.Intake.opts.Readings = discard{}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		in.clock.at = in.clock.at.Add(time.Microsecond)
		r := river(float64(i % 5))
		r.Kind = "gauge"
		in.Accept("bench", []telemetry.Reading{r}, nil)
	}
}

type discard struct{}

func (discard) AppendAsync([]telemetry.Reading, func(error)) {}
