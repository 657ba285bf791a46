package spool

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"haidang/gateway/telemetry"
)

func TestSourcesHeader(t *testing.T) {
	for _, c := range []struct {
		runs []run
		want string
	}{
		{nil, ""},
		{[]run{{"", 3}}, ""},
		{[]run{{"broker", 12}, {"modbus.line-1", 3}, {"broker", 4}}, "broker*12 modbus.line-1*3 #1*4"},
		{[]run{{"", 2}, {"a", 1}, {"b b", 1}, {"", 1}}, "*2 a*1 *1 *1"},
	} {
		if got := writeRuns(c.runs); got != c.want {
			t.Errorf("%v: %q, want %q", c.runs, got, c.want)
		}
	}
	for _, bad := range []string{"broker", "broker*x", "broker*-1", "broker*4", "#1*2", "a*1 #2*1", "*"} {
		if err := nameSources(make([]telemetry.Reading, 3), bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestSourcesOfReadings: what the log gives back has the sources that it was
// given, however readings were joined into frames and split over them.
func TestSourcesOfReadings(t *testing.T) {
	s := open(t, t.TempDir())
	rng := rand.New(rand.NewPCG(1, 1))
	names := []string{"broker", "broker", "broker", "modbus.line-1", "ais.thuan-an", ""}
	var want []string
	for i := range 200 {
		batch := make([]telemetry.Reading, 1+rng.IntN(4))
		if i%50 == 0 {
			batch = make([]telemetry.Reading, 9000) // more than a frame
		}
		for j := range batch {
			batch[j] = fourValues()
			batch[j].Source = names[rng.IntN(len(names))]
			if len(batch) > 100 {
				batch[j].Source = names[j/3000]
			}
			want = append(want, batch[j].Source)
		}
		if err := s.Readings().Append(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := s.Readings().Replay(t.Context(), func(r telemetry.Reading) { got = append(got, r.Source) })
	if err != nil {
		t.Fatal(err)
	}
	if g, w := strings.Join(got, " "), strings.Join(want, " "); g != w {
		t.Fatalf("%d readings with other sources than the %d that were written", len(got), len(want))
	}
}

// TestTooManySources: the header is bounded, and readings beyond it lose nothing
// but their source.
func TestTooManySources(t *testing.T) {
	readings := make([]telemetry.Reading, 2000)
	var runs []run
	for i := range readings {
		runs = addRun(runs, fmt.Sprintf("source-%d", i), 1)
	}
	header := writeRuns(runs)
	if len(header) > maxSourcesBytes || len(header) < maxSourcesBytes-20 {
		t.Errorf("the header has %d bytes", len(header))
	}
	if err := nameSources(readings, header); err != nil {
		t.Fatal(err)
	}
	if readings[0].Source != "source-0" || readings[500].Source != "source-500" || readings[1999].Source != "" {
		t.Errorf("%q %q %q", readings[0].Source, readings[500].Source, readings[1999].Source)
	}
}

func FuzzSources(f *testing.F) {
	f.Add("broker*12 modbus.line-1*3 #1*4")
	f.Add("*2 a*0 #1*1")
	f.Add("#1*99999999999999999999")
	f.Fuzz(func(t *testing.T, header string) {
		readings := make([]telemetry.Reading, 20)
		if nameSources(readings, header) != nil {
			return
		}
		var runs []run
		for i := range readings {
			runs = addRun(runs, readings[i].Source, 1)
		}
		again := make([]telemetry.Reading, len(readings))
		for i, r := range runs {
			if !telemetry.ValidName(r.source) {
				runs[i].source = ""
			}
		}
		if text := writeRuns(runs); text != "" {
			if err := nameSources(again, text); err != nil {
				t.Fatalf("%q became %q: %v", header, text, err)
			}
		}
		i := 0
		for _, r := range runs {
			for range r.n {
				if again[i].Source != r.source {
					t.Fatalf("%q: reading %d is of %q, want %q", header, i, again[i].Source, r.source)
				}
				i++
			}
		}
	})
}
