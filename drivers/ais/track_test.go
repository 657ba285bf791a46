package ais

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestSharedNumber: two boats far apart on one number, a noise position, and
// the end of it.
func TestSharedNumber(t *testing.T) {
	w := newWatch(t, Policy{})
	a := ship{mmsi: 574000001, lat: 16.5, lon: 107.6, speed: 5}
	b := ship{mmsi: 574000001, lat: 17.5, lon: 107.6, speed: 5}
	minute := func(n int, s *ship) []string {
		*s = s.north(150)
		got := w.hear("x", time.Duration(n)*time.Minute, s.line())
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], " speed_kn=5") // the place differs each time
			if i == 0 {
				got[i] = strings.Join(strings.Fields(got[i])[:2], " ") + map[bool]string{true: " bad"}[strings.Contains(got[i], "(bad)")]
			}
		}
		if r := w.readings[len(w.readings)-len(got)]; len(r.Values) > 0 {
			if n, ok := r.Number("track"); ok {
				got[0] += fmt.Sprintf(" track %v", n)
			}
		}
		return got
	}
	expect(t, "a", minute(0, &a), "mmsi-574000001 position")
	expect(t, "a", minute(1, &a), "mmsi-574000001 position")
	expect(t, "b fits nothing", minute(2, &b), "mmsi-574000001 position bad")
	expect(t, "a goes on", minute(3, &a), "mmsi-574000001 position")
	expect(t, "b is borne out", minute(4, &b), "mmsi-574000001.2 position track 2", "mmsi-574000001 vessel vessels_on_mmsi=2")
	expect(t, "a", minute(5, &a), "mmsi-574000001 position track 1")
	noise := ship{mmsi: 574000001, lat: -16.5, lon: 107.6}
	expect(t, "noise", minute(6, &noise), "mmsi-574000001 position bad")
	expect(t, "b", minute(7, &b), "mmsi-574000001.2 position track 2")
	// Facts of such a number are suspect.
	first, second := static(574000001, "AN BINH", "3", "A")
	w.hear("x", 8*time.Minute, first)
	expect(t, "facts", w.hear("x", 8*time.Minute, second), `mmsi-574000001 vessel name="AN BINH"(suspect) vessels_on_mmsi=2`)
	// b is not heard for a day.
	for n := 10; n < 60*25; n += 10 {
		a = a.north(1350)
		minute(n, &a)
	}
	last := w.readings[len(w.readings)-1]
	if _, tracked := last.Number("track"); tracked || last.Device != "mmsi-574000001" {
		t.Errorf("a day later %s", spellReading(last))
	}
	var told []string
	for _, r := range w.readings {
		if n, ok := r.Number("vessels_on_mmsi"); ok {
			told = append(told, fmt.Sprintf("%v %s", n, r.Text("name")))
		}
	}
	expect(t, "vessels told", told, "2 ", "2 AN BINH", "1 AN BINH")
	if c := w.counts(); c.Implausible != 2 {
		t.Errorf("%d implausible, want 2", c.Implausible)
	}
}

// TestWrongStart: a receiver that begins with a wrong place keeps its number.
func TestWrongStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		wrong int // reports at the wrong place
		after time.Duration
		want  string
	}{
		{"one report", 1, time.Minute, "mmsi-574000001"},
		{"many reports", 30, 5 * time.Hour, "mmsi-574000001.2"},
		{"many reports, six hours later", 30, 6*time.Hour + time.Minute, "mmsi-574000001"},
	} {
		w := newWatch(t, Policy{})
		at := time.Duration(0)
		s := ship{mmsi: 574000001}
		expect(t, "before there is a fix", w.hear("x", 0, s.line()), "mmsi-574000001 position lat=0(bad) lon=0(bad) speed_kn=0(bad) nav_status=0(bad)")
		s.lat, s.lon = 39.9, 116.4
		for range c.wrong {
			s.radio++
			at += 10 * time.Second
			w.hear("x", at, s.line())
		}
		s.lat, s.lon = 16.5, 107.6
		for end := at + c.after; at < end; {
			s.radio++
			at += 10 * time.Second
			w.hear("x", at, s.line())
		}
		if last := w.readings[len(w.readings)-1]; last.Device != c.want {
			t.Errorf("%s: %s, want device %s", c.name, spellReading(last), c.want)
		}
	}
	// A distress device is where it says, and an aircraft flies.
	for _, mmsi := range []int64{970123456, 972123456, 974123456, 111574001} {
		w := newWatch(t, Policy{})
		w.hear("x", 0, ship{mmsi: mmsi, status: 14}.line())
		w.hear("x", time.Minute, ship{mmsi: mmsi, status: 14, lat: 16.5, lon: 107.6}.line())
		if last := w.readings[len(w.readings)-1]; last.Quality != telemetry.Good || last.Device != fmt.Sprint("mmsi-", mmsi) || len(w.readings) != 2 {
			t.Errorf("%s", spellReading(last))
		}
	}
}

// A recordedPosition is a line of the tracks of Global Fishing Watch.
type recordedPosition struct {
	SSVID     int64
	Lat, Lon  *float64
	Timestamp string
	Speed     float64
	Segment   string
	Expected  string
	at        time.Time
}

func recordedTrack(t *testing.T, name string) (out []recordedPosition) {
	t.Helper()
	f, err := os.Open(filepath.Join(testdata(t), "tracks/gfw", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var p recordedPosition
		if err := json.Unmarshal(s.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if p.at, err = time.Parse("2006-01-02T15:04:05.999999Z", p.Timestamp); err != nil {
			t.Fatal(err)
		}
		if p.Segment += p.Expected; p.Lat != nil && p.Lon != nil {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b recordedPosition) int { return a.at.Compare(b.at) })
	return out
}

// TestRecordedSharedNumbers compares with the segments of Global Fishing Watch:
// whether a report is of the same vessel as the one before it.
func TestRecordedSharedNumbers(t *testing.T) {
	for _, c := range []struct {
		file           string
		agree          float64
		most, vessels  int // devices, and how many of them with over 20 reports at least
		implausibleMax uint64
	}{
		{"segmented-416000000.json", 0.97, 12, 4, 40},
		{"338013000.json", 0.96, 3, 1, 10},
	} {
		w := newWatch(t, Recorded())
		d := w.decoder("x")
		type step struct{ device, segment string }
		var steps []step
		devices := map[string][]telemetry.Reading{}
		positions := recordedTrack(t, c.file)
		for i, p := range positions {
			s := ship{mmsi: p.SSVID, lat: *p.Lat, lon: *p.Lon, speed: p.Speed, radio: int64(i)}
			d.Feed([]byte(tagged(fmt.Sprintf("c:%d", p.at.Unix()), s.line())), time.Time{}, func(r telemetry.Reading) {
				if r.Kind != telemetry.KindPosition {
					return
				}
				name := r.Device
				if r.Quality == telemetry.Bad {
					name = fmt.Sprint("none ", i)
				} else {
					devices[name] = append(devices[name], r)
				}
				steps = append(steps, step{name, p.Segment})
			})
		}
		if len(steps) != len(positions) {
			t.Fatalf("%s: %d readings of %d positions", c.file, len(steps), len(positions))
		}
		agree := 0
		for i := 1; i < len(steps); i++ {
			if (steps[i].device == steps[i-1].device) == (steps[i].segment == steps[i-1].segment) {
				agree++
			}
		}
		many, jumps := 0, 0
		for _, readings := range devices {
			if len(readings) > 20 {
				many++
			}
			for i := 1; i < len(readings); i++ {
				if jumped(&readings[i-1], &readings[i]) {
					jumps++
				}
			}
		}
		share := float64(agree) / float64(len(steps)-1)
		implausible := d.Counts().Implausible
		t.Logf("%s: %.2f %% of steps agree, %d devices, %d of them with over 20 reports, %d jumps within a device in less than six hours, %d reports fit none", c.file, 100*share, len(devices), many, jumps, implausible)
		if share < c.agree || len(devices) > c.most || many < c.vessels || implausible > c.implausibleMax {
			t.Errorf("%s: want %.1f %%, at most %d devices and %d that fit none", c.file, 100*c.agree, c.most, c.implausibleMax)
		}
		if jumps > 1 { // a first report that nothing bore out, see tracks.admit
			t.Errorf("%s: %d jumps within a device", c.file, jumps)
		}
	}
}

// jumped reports whether no ship goes from a to b, and a was not so long before
// that the number may have changed hands (see tracks.join).
func jumped(a, b *telemetry.Reading) bool {
	lat1, _ := a.Number("lat")
	lon1, _ := a.Number("lon")
	lat2, _ := b.Number("lat")
	lon2, _ := b.Number("lon")
	way := metres(int32(lat1*fine), int32(lon1*fine), int32(lat2*fine), int32(lon2*fine))
	return b.Time.Sub(a.Time) < 6*time.Hour && way > 1100+60*knotMS*b.Time.Sub(a.Time).Seconds()
}
