package influx

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// read returns the readings of a range as lines, by receipt in seconds.
func read(t *testing.T, s *Store, r Range) []string {
	t.Helper()
	var out []string
	last := time.Time{}
	for reading, err := range s.Readings(t.Context(), r) {
		if err != nil {
			t.Fatal(err)
		}
		at := received(&reading)
		if at.Before(last) {
			t.Fatalf("%s was received at %s, after one of %s", reading.Kind, at, last)
		}
		last = at
		line := fmt.Sprintf("%d %s@%s %s", at.Unix(), reading.Device, reading.Site, reading.Kind)
		for _, v := range reading.Values {
			line += fmt.Sprintf(" %s=%g%s", v.Name, v.Number, v.Text)
			if v.Quality != telemetry.Good {
				line += "!" + v.Quality.String()
			}
		}
		for _, tag := range reading.Tags {
			line += " #" + tag.Key + "=" + tag.Value
		}
		out = append(out, fmt.Sprintf("%s q=%s delay=%s", line, reading.Quality, reading.Delay))
	}
	return out
}

func TestReadingsInTheOrderOfReceipt(t *testing.T) {
	s := open(t, t.TempDir(), quiet(), nil)
	write(t, s, `river,device=a,site=s level_m=1,level_m_quality="suspect",flow_m3s=3,quality="suspect" 1000000000000
rain,device=b,site=s rain_1h_mm=5,quality="good" 1000000000000
river,device=a,site=s level_m=2,quality="good",delay_s=7200.5 1060000000000
vessel,device=mmsi-1,site=mmsi-1 name_text="Bé \"Hai\"",name_text_quality="bad",up=true,quality="good" 1120000000000
river,device=c,site=c,sensor=x level_m=4,quality="bad" 1180000000000
river,device=a,site=s level_m=9,quality="good",delay_s=99999 1240000000000
warning,device=a,rule=r,site=s severity=3 1240000000000
`)
	whole := Range{From: time.Unix(1000, 0), To: time.Unix(20000, 0)}
	want := []string{
		"1000 a@s river flow_m3s=3 level_m=1!suspect q=suspect delay=0s",
		"1000 b@s rain rain_1h_mm=5 q=good delay=0s",
		`1120 mmsi-1@mmsi-1 vessel name=0Bé "Hai" up=1 q=good delay=0s`,
		"1180 c@c river level_m=4 #sensor=x q=bad delay=0s",
		"8260 a@s river level_m=2 q=good delay=2h0m0.5s",
	}
	got := read(t, s, whole)
	for i := range got {
		got[i] = strings.Replace(got[i], "up=1 name=0Bé \"Hai\"", "name=0Bé \"Hai\" up=1", 1)
		got[i] = strings.Replace(got[i], "level_m=1!suspect flow_m3s=3", "flow_m3s=3 level_m=1!suspect", 1)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("readings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	whole.Kinds, whole.Devices = []string{"river", "no such"}, []string{"a", "it's"}
	if got := read(t, s, whole); len(got) != 2 {
		t.Errorf("of river and a there are %v", got)
	}
	whole.Devices = []string{}
	if got := read(t, s, whole); len(got) != 0 {
		t.Errorf("of no device there are %v", got)
	}
	for range s.Readings(t.Context(), Range{From: whole.From, To: whole.To}) {
		break // a reader may leave
	}
}

// TestReadingsInSlices reads more rows than a slice may hold, from a store in
// which they lie unevenly.
func TestReadingsInSlices(t *testing.T) {
	s := open(t, t.TempDir(), quiet(), nil)
	const dense, sparse = 5000, 200 // in one minute, in two hundred days
	start := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	var lines strings.Builder
	point := func(i int, at time.Time) {
		fmt.Fprintf(&lines, "river,device=d%d,site=d%d level_m=%d,quality=\"good\" %d\n", i%7, i%7, i, at.UnixNano())
	}
	for i := range dense {
		point(i, start.Add(2400*time.Hour+time.Duration(i)*time.Minute/dense))
	}
	for i := range sparse {
		point(i, start.Add(time.Duration(i)*24*time.Hour+time.Minute))
	}
	write(t, s, lines.String())
	n, last := 0, time.Time{}
	err := s.readings(t.Context(), Range{From: start, To: start.Add(365 * 24 * time.Hour)}, 100, func(r telemetry.Reading) bool {
		if r.Time.Before(last) {
			t.Fatalf("reading %d is of %s, after one of %s", n, r.Time, last)
		}
		last = r.Time
		n++
		return true
	})
	if err != nil || n != dense+sparse {
		t.Errorf("%d readings, want %d; %v", n, dense+sparse, err)
	}
}

// BenchmarkReadings reads a year of one station: three values every ten minutes.
func BenchmarkReadings(b *testing.B) {
	s := open(b, b.TempDir(), quiet(), nil)
	start := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	const rows = 365 * 144
	var lines strings.Builder
	for i := range rows {
		fmt.Fprintf(&lines, "river,device=a,site=a level_m=%d,flow_m3s=%d,battery_v=12.5,quality=\"good\" %d\n", i%7, i, start.Add(time.Duration(i)*10*time.Minute).UnixNano())
		if i%10_000 == 9_999 || i == rows-1 {
			write(b, s, lines.String())
			lines.Reset()
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range s.Readings(b.Context(), Range{From: start, To: start.AddDate(1, 0, 0)}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != rows {
			b.Fatalf("%d readings, want %d", n, rows)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "readings/s")
}
