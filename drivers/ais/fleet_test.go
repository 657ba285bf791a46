package ais

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// epoch is when the tests take place.
var epoch = time.Date(2025, 10, 27, 13, 0, 0, 0, time.UTC)

// A ship makes position reports of type 1.
type ship struct {
	mmsi     int64
	lat, lon float64
	speed    float64 // kn
	status   int64
	repeat   int64
	radio    int64 // tells payloads apart
}

func (s ship) line() string {
	return wrap("AIVDM,1,1,,A," + armoured(168, 1, field{6, 2, s.repeat}, field{8, 30, s.mmsi}, field{38, 4, s.status}, field{42, 8, -128}, field{50, 10, int64(math.Round(s.speed * 10))},
		field{61, 28, int64(math.Round(s.lon * fine))}, field{89, 27, int64(math.Round(s.lat * fine))}, field{116, 12, 3600}, field{128, 9, 511}, field{149, 19, s.radio}))
}

// north is the ship some metres north of where it is.
func (s ship) north(metres float64) ship {
	s.lat += metres / metresPerDegree
	s.radio++
	return s
}

// A watch is some receivers that share a fleet.
type watch struct {
	t        *testing.T
	fleet    *Fleet
	decoders map[string]*Decoder
	policy   Policy
	readings []telemetry.Reading
}

func newWatch(t *testing.T, p Policy) *watch {
	if p.Refresh == 0 {
		p.Refresh = DefaultRefresh
	}
	return &watch{t: t, fleet: NewFleet(nil), decoders: map[string]*Decoder{}, policy: p}
}

func (w *watch) decoder(receiver string) *Decoder {
	if w.decoders[receiver] == nil {
		w.decoders[receiver] = w.fleet.Decoder(receiver, w.policy)
	}
	return w.decoders[receiver]
}

// hear feeds a line some time after epoch and returns the readings it makes.
func (w *watch) hear(receiver string, after time.Duration, line string) (got []string) {
	w.decoder(receiver).Feed([]byte(line), epoch.Add(after), func(r telemetry.Reading) {
		checkReading(w.t, &r)
		w.readings = append(w.readings, r)
		got = append(got, spellReading(r))
	})
	return got
}

func (w *watch) counts() (c Counts) {
	for _, d := range w.decoders {
		n := d.Counts()
		c.Readings += n.Readings
		c.Duplicates += n.Duplicates
		c.Thinned += n.Thinned
		c.Unchanged += n.Unchanged
		c.Implausible += n.Implausible
		c.WrongClock += n.WrongClock
	}
	return c
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s: got\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestMerge(t *testing.T) {
	w := newWatch(t, Policy{})
	a := ship{mmsi: 574000001, lat: 16.5, lon: 107.6, speed: 5, status: 7}
	const pos = "mmsi-574000001 position lat=16.5 lon=107.6 speed_kn=5 nav_status=7"
	expect(t, "first", w.hear("thuan-an", 0, a.line()), pos)
	expect(t, "by another", w.hear("son-tra", 2*time.Second, a.line()))
	expect(t, "by the same again", w.hear("thuan-an", 3*time.Second, a.line()))
	repeated := a
	repeated.repeat = 1
	expect(t, "through a repeater", w.hear("chan-may", 4*time.Second, repeated.line()))
	expect(t, "with a tag block", w.hear("thuan-an", 5*time.Second, tagged("s:other,c:1761570004", a.line())))
	next := a
	next.radio = 9
	expect(t, "the next, and how many heard the first", w.hear("son-tra", 6*time.Second, next.line()), pos+" receivers=4")
	expect(t, "the next again", w.hear("thuan-an", 6*time.Second, next.line()))
	expect(t, "the first, a minute later", w.hear("thuan-an", time.Minute, a.line()), pos+" receivers=2")
	if c := w.counts(); c.Duplicates != 5 || c.Readings != 3 {
		t.Errorf("%d duplicates, %d readings, want 5 and 3", c.Duplicates, c.Readings)
	}

	// Parts of one message from two receivers, between each other.
	first, second := static(574000002, "AN BINH", "3", "A")
	one, other := "thuan-an", "son-tra"
	expect(t, "first parts", append(w.hear(one, 61*time.Second, first), w.hear(other, 61*time.Second, first)...))
	expect(t, "second parts", append(w.hear(other, 62*time.Second, second), w.hear(one, 62*time.Second, second)...), `mmsi-574000002 vessel name="AN BINH" vessels_on_mmsi=1`)
}

func TestThin(t *testing.T) {
	w := newWatch(t, Policy{Thin: Thin{Every: telemetry.Duration(10 * time.Second), Distance: "50m", Heartbeat: telemetry.Duration(time.Minute)}})
	s := ship{mmsi: 574000001, lat: 16.5, lon: 107.6, speed: 5, status: 7}
	heard := func(what string, after int, want bool) {
		t.Helper()
		s.radio++
		if got := len(w.hear("x", time.Duration(after)*time.Second, s.line())) > 0; got != want {
			t.Errorf("%s at %d s: handed on %v, want %v", what, after, got, want)
		}
	}
	heard("the first", 0, true)
	s = s.north(60)
	heard("far enough, too early", 5, false)
	heard("far enough, late enough", 11, true)
	s = s.north(20)
	heard("late enough, too near", 30, false)
	heard("heartbeat", 71, true)
	s.status = 5
	heard("change of status", 72, true)
	heard("the same status", 73, false)
	s.speed = 0.5
	heard("slower, still under way", 74, false)
	s.speed = 0.2
	heard("it stops", 75, true)
	s.speed = 0.5
	heard("swinging at its anchor", 76, false)
	s.speed = 0.8
	heard("under way", 77, true)
	lost := s
	s.lat, s.lon = 91, 181
	heard("its place is lost", 78, true)
	s.lat, s.lon = lost.lat, lost.lon
	heard("and found", 79, true)
	if c := w.counts(); c.Thinned != 5 {
		t.Errorf("%d thinned, want 5", c.Thinned)
	}
	// A distress device is never thinned.
	s.mmsi, s.status, s.speed = 970123456, 14, 0
	for i := range 10 {
		heard("SART", 80+i, true)
	}
	// A base station reports every ten seconds; what it says is that it is there.
	base := func(second int64) string {
		return wrap("AIVDM,1,1,,A," + armoured(168, 4, field{8, 30, 5740001}, field{72, 6, second}, field{79, 28, 64_555_000}, field{107, 27, 9_880_001}))
	}
	n := 0
	for i := range 180 {
		n += len(w.hear("x", 100*time.Second+time.Duration(i)*10*time.Second, base(int64(i%60))))
	}
	if n != 3 {
		t.Errorf("%d readings of a base station in half an hour, want 3", n)
	}
}

func TestFacts(t *testing.T) {
	w := newWatch(t, Policy{Refresh: time.Hour})
	mmsi := field{8, 30, 574000001}
	line := func(n int, kind int64, fields ...field) string {
		return wrap("AIVDM,1,1,,A," + armoured(n, kind, append(fields, mmsi)...))
	}
	name := line(160, 24, sixBit(40, "TH 1234 TS")...)
	other := line(160, 24, sixBit(40, "TH 1234 TX")...)
	rest := line(168, 24, append(sixBit(90, "XVAB7"), field{38, 2, 1}, field{40, 8, 30}, field{132, 9, 5}, field{141, 9, 10})...)
	const known = `mmsi-574000001 vessel name="TH 1234 TS" callsign="XVAB7" ship_type=30 length_m=15 vessels_on_mmsi=1`
	expect(t, "24 A", w.hear("x", 0, name), `mmsi-574000001 vessel name="TH 1234 TS" vessels_on_mmsi=1`)
	expect(t, "24 B", w.hear("x", time.Second, rest), known)
	for i := range 9 {
		at := time.Duration(i+1) * 6 * time.Minute
		expect(t, "again", append(w.hear("x", at, name), w.hear("x", at+time.Second, rest)...))
	}
	expect(t, "after an hour", w.hear("x", time.Hour+2*time.Second, rest), known)
	expect(t, "its other part", w.hear("x", time.Hour+3*time.Second, name))
	expect(t, "another name", w.hear("x", time.Hour+time.Minute, other), strings.Replace(known, "TS", "TX", 1))
	expect(t, "no name", w.hear("x", time.Hour+2*time.Minute, line(160, 24)), strings.Replace(known, `name="TH 1234 TS" `, "", 1))
	if c := w.counts(); c.Unchanged != 19 {
		t.Errorf("%d unchanged, want 19", c.Unchanged)
	}
	// Without a time facts are handed on when they change.
	d := w.fleet.Decoder("y", Recorded())
	n := 0
	for range 3 {
		d.Feed([]byte(name), time.Time{}, func(telemetry.Reading) { n++ })
	}
	if n != 1 {
		t.Errorf("%d readings of the same facts without time, want 1", n)
	}
}

func TestClock(t *testing.T) {
	boat := ship{mmsi: 574000001, lat: 16.5, lon: 107.6}
	sart := ship{mmsi: 970123456, lat: 16.5, lon: 107.6, status: 14}
	at := func(d time.Duration) string { return fmt.Sprintf("c:%d", epoch.Add(d).Unix()) }
	for _, c := range []struct {
		name string
		cfg  Config
		line string
		want time.Duration // after epoch; -1: none
	}{
		{"as the line says", Config{}, tagged(at(-90*time.Second), boat.line()), -90 * time.Second},
		{"too old", Config{}, tagged(at(-3*time.Minute), boat.line()), -1},
		{"too new", Config{}, tagged(at(3*time.Minute), boat.line()), -1},
		{"old, as configured", Config{MaxSkew: telemetry.Duration(24 * time.Hour)}, tagged(at(-3*time.Hour), boat.line()), -3 * time.Hour},
		{"old distress is still news", Config{MaxSkew: telemetry.Duration(24 * time.Hour)}, tagged(at(-3*time.Hour), sart.line()), -1},
		{"never the line's", Config{Clock: ClockReceipt}, tagged(at(0), boat.line()), -1},
		{"wrong checksum of the block", Config{}, `\` + at(0) + `*00\` + boat.line(), -1},
		{"no checksum of the block", Config{}, `\` + at(0) + `\` + boat.line(), -1},
		{"of a suffix", Config{}, boat.line() + fmt.Sprintf(",r003669987,%d", epoch.Unix()), 0},
		{"none", Config{}, boat.line(), -1},
	} {
		w := newWatch(t, c.cfg.policy(false))
		w.hear("x", 0, c.line)
		want := epoch.Add(c.want)
		if c.want == -1 {
			want = time.Time{}
		}
		if len(w.readings) != 1 || !w.readings[0].Time.Equal(want) {
			t.Errorf("%s: %+v, want time %s", c.name, w.readings, want)
		}
		if n := w.counts().WrongClock; (n == 1) != strings.HasPrefix(c.name, "too") && c.name != "old distress is still news" {
			t.Errorf("%s: %d wrong clocks counted", c.name, n)
		}
	}
	if p := (&Config{}).policy(true); p.MaxSkew != 0 {
		t.Errorf("of a file the line's time is within %s", p.MaxSkew)
	}
}

// TestFleetForgets: the number of vessels is bounded, and who was not heard for
// longest goes.
func TestFleetForgets(t *testing.T) {
	w := newWatch(t, Policy{})
	w.fleet.limit = 100
	s := ship{lat: 16.5, lon: 107.6}
	for i := range int64(1000) {
		s.mmsi = 574000000 + i
		w.hear("x", time.Duration(i)*time.Second, s.line())
		s.mmsi, s.radio = 574999999, i
		w.hear("x", time.Duration(i)*time.Second, s.line())
	}
	if n := len(w.fleet.index); n != 100 || len(w.fleet.vessels) != 100 {
		t.Errorf("%d vessels are kept, want 100", n)
	}
	if _, ok := w.fleet.index[574999999]; !ok {
		t.Error("the one that was heard all the time is forgotten")
	}
	// Many vessels on one number.
	w = newWatch(t, Policy{})
	for i := range 4000 {
		s = ship{mmsi: 574000001, lat: float64(i%100 - 50), lon: 107.6, radio: int64(i)}
		w.hear("x", time.Duration(i)*time.Second, s.line())
	}
	v := &w.fleet.vessels[0]
	if len(v.others) > maxTracks+maxTrials {
		t.Errorf("%d tracks are kept, want at most %d", len(v.others), maxTracks+maxTrials)
	}
}

// TestRecordingIsRepeatable: the same recording makes the same readings.
func TestRecordingIsRepeatable(t *testing.T) {
	all := lines(t, filepath.Join(testdata(t), "ais/amsa/ais.txt.gz"))
	var runs [2]bytes.Buffer
	var counts Counts
	for i := range runs {
		d := NewFleet(nil).Decoder("x", Recorded())
		for n, line := range all {
			d.Feed(line, epoch.Add(time.Duration(n)*10*time.Millisecond), func(r telemetry.Reading) {
				fmt.Fprintln(&runs[i], r.Time, spellReading(r))
			})
		}
		counts = d.Counts()
	}
	if !bytes.Equal(runs[0].Bytes(), runs[1].Bytes()) {
		t.Error("the second run differs")
	}
	t.Logf("%d messages, %d readings, %d duplicates, %d unchanged, %d implausible", counts.Messages, counts.Readings, counts.Duplicates, counts.Unchanged, counts.Implausible)
	if counts.Duplicates == 0 || counts.Unchanged == 0 {
		t.Errorf("counts %+v", counts)
	}
}

// TestFleetTogether feeds one fleet from several receivers at once: every
// message is taken by one of them.
func TestFleetTogether(t *testing.T) {
	const receivers, vessels = 4, 2000
	all := fleet(vessels)
	f := NewFleet(nil)
	var each sync.WaitGroup
	var readings, duplicates atomic.Uint64
	for i := range receivers {
		d := f.Decoder(fmt.Sprint(i), Policy{Refresh: DefaultRefresh})
		each.Go(func() {
			for _, line := range all {
				d.Feed(line, epoch, func(telemetry.Reading) {})
			}
			c := d.Counts()
			readings.Add(c.Readings)
			duplicates.Add(c.Duplicates)
		})
	}
	each.Wait()
	if r, d := readings.Load(), duplicates.Load(); r != vessels || d != vessels*(receivers-1) {
		t.Errorf("%d readings and %d duplicates of %d messages heard by %d", r, d, vessels, receivers)
	}
}

// FuzzFleet puts positions of a few numbers anywhere, at any time.
func FuzzFleet(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 1, 1, 1, 200, 100, 50, 25})
	f.Add(bytes.Repeat([]byte{3, 200, 7, 9, 255, 0, 128, 64}, 20))
	f.Fuzz(func(t *testing.T, moves []byte) {
		w := newWatch(t, Policy{Thin: Thin{Every: telemetry.Duration(10 * time.Second), Distance: "50m"}})
		w.fleet.limit = 3
		at := time.Duration(0)
		for i := 0; i+4 <= len(moves); i += 4 {
			m := moves[i : i+4]
			at += time.Duration(int8(m[3])) * time.Minute
			s := ship{mmsi: 574000000 + int64(m[0]%5), lat: float64(int8(m[1])), lon: float64(m[2]), speed: float64(m[0]), radio: int64(i)}
			if n := len(w.hear("x", at, s.line())); n > 2 {
				t.Errorf("%d readings of a position", n)
			}
		}
		shared := 0
		for i := range w.fleet.vessels {
			v := &w.fleet.vessels[i]
			if len(v.others) > maxTracks+maxTrials || v.vessels < 1 || v.vessels > maxTracks {
				t.Errorf("%d others, %d vessels on %d", len(v.others), v.vessels, v.mmsi)
			}
			if v.vessels > 1 {
				shared++
			}
		}
		if shared != w.fleet.shared || len(w.fleet.index) != len(w.fleet.vessels) {
			t.Errorf("%d shared, %d counted; %d of %d in the index", shared, w.fleet.shared, len(w.fleet.index), len(w.fleet.vessels))
		}
	})
}
