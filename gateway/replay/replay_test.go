package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

type taken struct {
	readings []telemetry.Reading
	letters  []telemetry.DeadLetter
}

func (s *taken) Take(r []telemetry.Reading) error { s.readings = append(s.readings, r...); return nil }
func (s *taken) Reject(letter telemetry.DeadLetter) error {
	s.letters = append(s.letters, letter)
	return nil
}

func file(t *testing.T, text []byte) *File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "recording")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func feet() *float64 { f := 0.3048; return &f }

var stage = Map{
	Device: "usgs-01037000",
	Time:   TimeColumn{Column: "datetime", Zone: "America/New_York", Abbreviation: "tz_cd"},
	Columns: map[string]Column{
		"stage":  {To: "river.level_m", Factor: feet()},
		"cfs":    {To: "river.flow_m3s"},
		"precip": {To: "rain.rain_1h_mm"},
	},
	Missing: []string{"NA"},
}

func decode(t *testing.T, m Map, text string) (*taken, error) {
	t.Helper()
	d, err := CSV(m)
	if err != nil {
		t.Fatal(err)
	}
	var got taken
	err = file(t, []byte(text)).Lines(context.Background(), d, Timing{Rate: 1}, &got)
	return &got, err
}

func TestCSV(t *testing.T) {
	if faults := stage.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	got, err := decode(t, stage, "\ufeff,datetime,tz_cd,cfs,stage,precip\r\n"+
		"0,2015-09-30 16:00:00,EDT,467,10,19.4\r\n"+
		"1,2015-11-01 01:00:00,EDT,NA,1,\r\n"+
		"2,2015-11-01 01:00:00,EST,,2,NA\r\n"+
		"3,2015-11-01 02:00:00,EST,,,\r\n"+
		"4,yesterday,EST,1,1,1\r\n"+
		"5,2015-11-01 04:00:00,EST,1,high,1\r\n"+
		"6,2015-11-01 05:00:00,EST\r\n"+
		"7,\"2015-11-01,EST\r\n"+
		"8,2015-11-01 06:00:00,EST,,3,\n")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range got.readings {
		line := r.Time.UTC().Format("01-02T15:04") + " " + r.Kind
		for _, v := range r.Values {
			line += fmt.Sprintf(" %s=%.4g", v.Name, v.Number)
		}
		lines = append(lines, line)
	}
	want := []string{
		"09-30T20:00 river flow_m3s=467 level_m=3.048",
		"09-30T20:00 rain rain_1h_mm=19.4",
		"11-01T05:00 river level_m=0.3048",
		"11-01T06:00 river level_m=0.6096",
		"11-01T11:00 river level_m=0.9144",
	}
	if strings.Join(sortedLines(lines), "\n") != strings.Join(sortedLines(want), "\n") {
		t.Errorf("readings:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	var reasons []string
	for _, l := range got.letters {
		reasons = append(reasons, filepath.Base(l.Place)+" "+l.Reason)
	}
	if fmt.Sprint(reasons) != "[recording:6 bad_time recording:7 bad_number recording:8 bad_csv recording:9 bad_csv]" {
		t.Errorf("rejected %v", reasons)
	}
}

func sortedLines(lines []string) []string {
	m := map[string]bool{}
	for _, l := range lines {
		m[l] = true
	}
	return sortedKeys(m)
}

func TestCSVHeader(t *testing.T) {
	_, err := decode(t, stage, "datetime,cfs\n")
	if err == nil || !strings.Contains(err.Error(), "tz_cd, precip, stage") || !strings.Contains(err.Error(), "it has datetime, cfs") {
		t.Errorf("error %v, want the missing columns and those that are there", err)
	}
	if _, err := decode(t, stage, ""); err == nil {
		t.Error("an empty file is no error")
	}
}

func TestMapFaults(t *testing.T) {
	m := Map{Delimiter: "ab", Time: TimeColumn{Zone: "Hue"}, Columns: map[string]Column{
		"a": {To: "level"}, "b": {To: "river.level_m", Factor: new(float64)}, "c": {To: "river.level_m"},
	}}
	var got []string
	for _, f := range m.Validate() {
		got = append(got, f.Path)
	}
	if fmt.Sprint(got) != "[device delimiter time.column time.zone columns.a.to columns.b.factor columns.c.to]" {
		t.Errorf("faults at %v", got)
	}
}

func TestGzipAndLongLines(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	fmt.Fprintf(w, "first\n%s\nlast", strings.Repeat("x", 10<<20))
	w.Close()
	f := file(t, packed.Bytes())
	var got taken
	at := time.Unix(1000, 0)
	d := LineProtocol(func(line []byte) (telemetry.Reading, error) {
		return telemetry.Reading{Device: string(line)}, nil
	})
	if err := f.Lines(context.Background(), d, Timing{Start: at, Rate: 10}, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.readings) != 2 || got.readings[0].Device != "first" || got.readings[1].Device != "last" {
		t.Errorf("%d readings", len(got.readings))
	}
	if !got.readings[1].Time.Equal(at.Add(200 * time.Millisecond)) {
		t.Errorf("the third line is at %v", got.readings[1].Time.Sub(at))
	}
	if len(got.letters) != 1 || got.letters[0].Reason != "line_too_long" || len(got.letters[0].Bytes) > MaxLine {
		t.Errorf("letters %d", len(got.letters))
	}
	if f.Done() != f.Size {
		t.Errorf("%d of %d bytes read", f.Done(), f.Size)
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pace{Speed: 100}
		at, start := time.Unix(1000, 0), time.Now()
		for _, after := range []time.Duration{0, time.Hour, 30 * time.Minute, 2 * time.Hour} {
			if err := p.Wait(context.Background(), at.Add(after)); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(start); got != 72*time.Second {
			t.Errorf("two hours at speed 100 took %v, want 72 s", got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := p.Wait(ctx, at.Add(100*time.Hour)); err == nil {
			t.Error("Wait outlived its context")
		}
	})
}
