package ais

import (
	"bytes"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// A weatherStation makes messages of type 8, DAC 1, FI 31.
type weatherStation struct {
	mmsi              int64
	lat, lon          float64
	day, hour, minute int64
	codes             map[string]int64 // by value; the others are not available
}

func (s weatherStation) line(kind int64) string {
	at, n := 56, 360
	if kind == 6 {
		at, n = 88, 392
	}
	fields := []field{{8, 30, s.mmsi}, {at - 16, 10, 1}, {at - 6, 6, 31},
		{at, 25, int64(math.Round(s.lon * 60_000))}, {at + 25, 24, int64(math.Round(s.lat * 60_000))}, {at + 50, 5, s.day}, {at + 55, 5, s.hour}, {at + 60, 6, s.minute}}
	for i := range observations31 {
		m := &observations31[i]
		code, ok := s.codes[m.value]
		if !ok {
			code = m.most + 1
		}
		fields = append(fields, field{at + m.at, m.width, code})
	}
	payload, fill, _ := strings.Cut(armoured(n, kind, fields...), ",")
	return wrap("AIVDM,1,1,,A," + payload + "," + fill)
}

func TestWeather(t *testing.T) {
	s := weatherStation{mmsi: 995741001, lat: 16.57, lon: 107.64, day: 27, hour: 12, minute: 50, codes: map[string]int64{
		"wind_speed_ms": 33, "wind_gust_ms": 48, "wind_direction_deg": 359, "temperature_c": -15, "humidity_pct": 100, "dew_point_c": -21,
		"pressure_hpa": 188, "visibility_m": 15, "sea_level_m": 1153, "current_speed_ms": 21, "current_direction_deg": 90,
		"wave_height_m": 42, "wave_period_s": 9, "sea_state_bft": 7, "sea_temperature_c": 251, "sea_salinity_ppt": 315,
	}}
	const weather = "weather wind_speed_ms=16.98 wind_gust_ms=24.69 wind_direction_deg=359 temperature_c=-1.5 humidity_pct=100 dew_point_c=-2.1 pressure_hpa=987 visibility_m=2778"
	const sea = "sea sea_level_m=1.53 current_speed_ms=1.08 current_direction_deg=90 wave_height_m=4.2 wave_period_s=9 sea_state_bft=7 sea_temperature_c=25.1 sea_salinity_ppt=31.5"
	for _, kind := range []int64{8, 6} {
		w := newWatch(t, Policy{})
		expect(t, "an aid to navigation", w.hear("x", 0, s.line(kind)), "mmsi-995741001 "+weather, "mmsi-995741001 "+sea)
		for _, r := range w.readings {
			if want := epoch.Add(-10 * time.Minute); !r.Time.Equal(want) {
				t.Errorf("observed at %s, want %s", r.Time, want)
			}
		}
	}
	// A coast station speaks for several instruments.
	w := newWatch(t, Policy{})
	s.mmsi = 5741001
	const there = "mmsi-005741001.1634n10738e "
	expect(t, "a coast station", w.hear("x", 0, s.line(8)), there+"position lat=16.57 lon=107.64", there+weather, there+sea)
	s.lat, s.lon, s.codes = -0.999, -0.0001, map[string]int64{"wind_speed_ms": 0}
	expect(t, "another place", w.hear("x", 0, s.line(8)), "mmsi-005741001.0100s00000w position lat=-0.999 lon=-0.0001", "mmsi-005741001.0100s00000w weather wind_speed_ms=0")
	s.lat, s.lon, s.codes = 91, 181, nil
	expect(t, "nothing available", w.hear("x", 0, s.line(8)))

	d := NewDecoder()
	for _, c := range []struct {
		name string
		line string
	}{
		{"another application", wrap("AIVDM,1,1,,A," + armoured(360, 8, field{8, 30, 574000001}, field{40, 10, 1}, field{50, 6, 22}))},
		{"too short", wrap("AIVDM,1,1,,A," + armoured(56+metBits-1, 8, field{8, 30, 574000001}, field{40, 10, 1}, field{50, 6, 31}))},
	} {
		before := d.Counts().Unread[8]
		d.Feed([]byte(c.line), time.Time{}, func(r telemetry.Reading) { t.Errorf("%s: %s", c.name, spellReading(r)) })
		if d.Counts().Unread[8] != before+1 {
			t.Errorf("%s is not counted", c.name)
		}
	}
}

func TestObservedAt(t *testing.T) {
	for _, c := range []struct {
		now               string
		day, hour, minute uint64
		want              string
	}{
		{"2025-10-27T13:00:00Z", 27, 12, 50, "2025-10-27T12:50:00Z"},
		{"2025-10-27T13:00:00Z", 27, 13, 14, "2025-10-27T13:14:00Z"},
		{"2025-10-27T13:00:00Z", 27, 13, 16, ""},
		{"2025-10-27T13:00:00Z", 26, 12, 0, ""},
		{"2025-11-01T00:05:00Z", 31, 23, 55, "2025-10-31T23:55:00Z"},
		{"2026-01-01T00:05:00Z", 31, 23, 55, "2025-12-31T23:55:00Z"},
		{"2025-12-31T23:55:00Z", 1, 0, 0, "2026-01-01T00:00:00Z"},
		{"2026-03-01T00:05:00Z", 29, 23, 55, ""},
		{"2025-10-27T13:00:00Z", 0, 12, 50, ""},
		{"2025-10-27T13:00:00Z", 27, 24, 0, ""},
		{"2025-10-27T13:00:00Z", 27, 12, 60, ""},
		{"2025-10-27T07:00:00+07:00", 26, 23, 50, "2025-10-26T23:50:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if at, ok := observedAt(c.day, c.hour, c.minute, now); ok {
			got = at.Format(time.RFC3339)
		}
		if got != c.want {
			t.Errorf("%d %02d:%02d at %s is %q, want %q", c.day, c.hour, c.minute, c.now, got, c.want)
		}
	}
	if _, ok := observedAt(27, 12, 50, time.Time{}); ok {
		t.Error("a time without a now")
	}
}

// gpsdNames are gpsd's names for the values, and the factor of its units.
var gpsdNames = map[string]struct {
	name   string
	factor float64
}{
	"wind_speed_ms": {"wspeed", knotMS}, "wind_gust_ms": {"wgust", knotMS}, "wind_direction_deg": {"wdir", 1}, "gust_direction_deg": {"wgustdir", 1},
	"temperature_c": {"airtemp", 1}, "humidity_pct": {"humidity", 1}, "dew_point_c": {"dewpoint", 1}, "pressure_hpa": {"pressure", 1}, "visibility_m": {"visibility", nauticM},
	"sea_level_m": {"waterlevel", 1}, "current_speed_ms": {"cspeed", knotMS}, "current_direction_deg": {"cdir", 1},
	"current2_speed_ms": {"cspeed2", knotMS}, "current2_direction_deg": {"cdir2", 1}, "current2_depth_m": {"cdepth2", 1},
	"current3_speed_ms": {"cspeed3", knotMS}, "current3_direction_deg": {"cdir3", 1}, "current3_depth_m": {"cdepth3", 1},
	"wave_height_m": {"waveheight", 1}, "wave_period_s": {"waveperiod", 1}, "wave_direction_deg": {"wavedir", 1},
	"swell_height_m": {"swellheight", 1}, "swell_period_s": {"swellperiod", 1}, "swell_direction_deg": {"swelldir", 1},
	"sea_state_bft": {"seastate", 1}, "sea_temperature_c": {"watertemp", 1}, "sea_salinity_ppt": {"salinity", 1},
}

// TestWeatherGpsdecode compares every recorded observation with gpsdecode.
func TestWeatherGpsdecode(t *testing.T) {
	gpsdecode, err := exec.LookPath("gpsdecode")
	if err != nil {
		t.Skip("gpsdecode (package gpsd-clients) is not installed")
	}
	var all [][]byte
	for _, pattern := range []string{"gpsd/*.aivdm", "gpsd/*.log", "gfw/*.nmea", "libais/*.nmea", "dma/*"} {
		files, _ := filepath.Glob(filepath.Join(testdata(t), "ais", pattern))
		for _, f := range files {
			all = append(all, lines(t, f)...)
		}
	}
	// One more than recordings have: every value of FI 31 at once.
	full := weatherStation{mmsi: 992576000, lat: 16.57, lon: 107.64, day: 27, hour: 12, minute: 50, codes: map[string]int64{}}
	for i := range observations31 {
		m := &observations31[i]
		full.codes[m.value] = m.least + (m.most-m.least)/3
	}
	all = append(all, []byte(full.line(8)))
	cmd := exec.Command(gpsdecode, "-j", "-s")
	cmd.Stdin = bytes.NewReader(append(bytes.Join(all, []byte("\n")), '\n'))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := map[string][]map[string]string{} // by MMSI
	for line := range strings.Lines(string(out)) {
		if m := flat(line); m["type"] == "8" && m["dac"] == "1" && (m["fid"] == "31" || m["fid"] == "11") {
			n, _ := strconv.Atoi(m["mmsi"])
			theirs[deviceName(uint32(n))] = append(theirs[deviceName(uint32(n))], m)
		}
	}
	compared := 0
	d := NewDecoder()
	for _, line := range all {
		d.Feed(line, time.Time{}, func(r telemetry.Reading) {
			if r.Kind != kindWeather && r.Kind != kindSea {
				return
			}
			device, _, _ := strings.Cut(r.Device, ".")
			best := 0
			for _, m := range theirs[device] {
				same := 0
				for _, v := range r.Values {
					if want, err := strconv.ParseFloat(m[gpsdNames[v.Name].name], 64); err == nil && math.Abs(want*gpsdNames[v.Name].factor-v.Number) < 0.51 {
						same++
					}
				}
				best = max(best, same)
			}
			if best != len(r.Values) {
				t.Errorf("only %d of %d values are gpsdecode's: %s", best, len(r.Values), spellReading(r))
			}
			compared++
		})
	}
	if compared < 20 {
		t.Errorf("%d observations compared", compared)
	}
	t.Log(fmt.Sprint(compared, " readings compared"))
}
