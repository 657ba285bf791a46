package ais

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	goais "github.com/BertoldVdb/go-ais"

	"haidang/gateway/telemetry"
)

// ranges are those that the package's doc promises.
var ranges = map[string][2]float64{
	"lat": {-90, 90}, "lon": {-180, 180}, "speed_kn": {0, 1022}, "course_deg": {0, 359.9}, "heading_deg": {0, 359},
	"turn_degmin": {-708.7, 708.7}, "nav_status": {0, 15}, "altitude_m": {0, 4094}, "off_position": {0, 1},
	"imo": {1, 1<<30 - 1}, "ship_type": {1, 255}, "length_m": {1, 1022}, "beam_m": {1, 126}, "draught_m": {0.1, 25.5}, "aid_type": {1, 31},
	"to_mmsi": {0, 1<<30 - 1}, "vessels_on_mmsi": {1, maxTracks}, "track": {1, maxTracks}, "receivers": {1, maxReceivers},
	"wind_speed_ms": {0, 64.9}, "wind_gust_ms": {0, 64.9}, "wind_direction_deg": {0, 359}, "gust_direction_deg": {0, 359},
	"temperature_c": {-60, 60}, "humidity_pct": {0, 100}, "dew_point_c": {-20, 50}, "pressure_hpa": {800, 1200}, "visibility_m": {0, 46300},
	"sea_level_m": {-10, 30}, "current_speed_ms": {0, 13}, "current_direction_deg": {0, 359}, "current2_speed_ms": {0, 13}, "current2_direction_deg": {0, 359},
	"current2_depth_m": {0, 30}, "current3_speed_ms": {0, 13}, "current3_direction_deg": {0, 359}, "current3_depth_m": {0, 30},
	"wave_height_m": {0, 25.1}, "wave_period_s": {0, 60}, "wave_direction_deg": {0, 359}, "swell_height_m": {0, 25.1}, "swell_period_s": {0, 60}, "swell_direction_deg": {0, 359},
	"sea_state_bft": {0, 12}, "sea_temperature_c": {-10, 50}, "sea_salinity_ppt": {0, 50},
}

// devices are the names that readings have: a vessel, one of several on an MMSI,
// a place of a coast station.
var devices = regexp.MustCompile(`^mmsi-[0-9]{9}(\.([2-9]|1[0-6])|\.[0-9]{4}[ns][0-9]{5}[ew])?$`)

var words = map[string]bool{"name": true, "callsign": true, "destination": true, "eta": true, "text": true}

// checkReading holds for every reading of any input.
func checkReading(t *testing.T, r *telemetry.Reading) {
	t.Helper()
	if !devices.MatchString(r.Device) || !telemetry.ValidName(r.Device) || len(r.Values) == 0 {
		t.Errorf("reading %+v", r)
	}
	lat, lon := false, false
	for _, v := range r.Values {
		lat, lon = lat || v.Name == "lat", lon || v.Name == "lon"
		if words[v.Name] {
			if v.Text == "" || strings.ContainsAny(v.Text, "@\n\r") {
				t.Errorf("%s %s is %q", r.Kind, v.Name, v.Text)
			}
			continue
		}
		limits, ok := ranges[v.Name]
		if !ok || v.Text != "" || !(v.Number >= limits[0] && v.Number <= limits[1]) {
			t.Errorf("%s %s is %v %q, want it in %v", r.Kind, v.Name, v.Number, v.Text, limits)
		}
	}
	if lat != lon {
		t.Errorf("lat without lon: %+v", r)
	}
}

func checkJSON(t *testing.T, line []byte) {
	t.Helper()
	if line != nil && !json.Valid(line) {
		t.Errorf("no JSON: %s", line)
	}
}

// spellReading writes a reading for comparing.
func spellReading(r telemetry.Reading) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Device, r.Kind)
	for _, v := range r.Values {
		if v.Text != "" {
			fmt.Fprintf(&b, " %s=%q", v.Name, v.Text)
		} else {
			fmt.Fprintf(&b, " %s=%s", v.Name, strconv.FormatFloat(v.Number, 'f', -1, 64))
		}
		if v.Quality != telemetry.Good {
			fmt.Fprintf(&b, "(%s)", v.Quality)
		}
	}
	return b.String()
}

func TestReadings(t *testing.T) {
	mmsi := field{8, 30, 574012345}
	const here = "mmsi-574012345 "
	with := func(base []field, more ...field) []field { return append(append([]field{}, base...), more...) }
	noPlaceA := []field{mmsi, {61, 28, 108_600_000}, {89, 27, 54_600_000}}
	nothingA := with(noPlaceA, field{38, 4, 15}, field{42, 8, 128}, field{50, 10, 1023}, field{116, 12, 3600}, field{128, 9, 511})
	place := []field{mmsi, {61, 28, 64_555_000}, {89, 27, 9_880_001}}
	for _, c := range []struct {
		name    string
		payload string
		want    []string
	}{
		{"class A", armoured(168, 1, with(place, field{38, 4, 7}, field{42, 8, 20}, field{50, 10, 71}, field{116, 12, 2249}, field{128, 9, 359})...),
			[]string{here + "position lat=16.466668 lon=107.591667 speed_kn=7.1 course_deg=224.9 heading_deg=359 turn_degmin=17.9 nav_status=7"}},
		{"nothing available", armoured(168, 1, nothingA...), nil},
		{"no place", armoured(168, 3, with(noPlaceA, field{38, 4, 5}, field{42, 8, 129}, field{116, 12, 3601}, field{128, 9, 360})...), []string{here + "position speed_kn=0 nav_status=5"}},
		{"place beyond the poles", armoured(168, 1, with(nothingA, field{61, 28, 0}, field{89, 27, 54_000_001})...)[:28] + ",0", nil},
		{"102.2 means that or more; turns", armoured(168, 1, with(nothingA, field{50, 10, 1022}, field{42, 8, 126})...), []string{here + "position speed_kn=102.2 turn_degmin=708.7"}},
		{"distress device under test", armoured(168, 1, field{8, 30, 970123456}, field{38, 4, 15}, field{42, 8, 128}, field{50, 10, 1023}, field{116, 12, 3600}, field{128, 9, 511}, field{61, 28, 108_600_000}, field{89, 27, 54_600_000}),
			[]string{"mmsi-970123456 position nav_status=15"}},
		{"position entered by hand", armoured(168, 1, with(place, field{137, 6, 61}, field{50, 10, 1023}, field{116, 12, 3600}, field{128, 9, 511}, field{42, 8, 128}, field{38, 4, 15})...),
			[]string{here + "position lat=16.466668(suspect) lon=107.591667(suspect)"}},
		{"class B", armoured(168, 18, mmsi, field{46, 10, 1023}, field{57, 28, -64_555_000}, field{85, 27, -9_880_001}, field{112, 12, 0}, field{124, 9, 511}),
			[]string{here + "position lat=-16.466668 lon=-107.591667 course_deg=0"}},
		{"SAR aircraft", armoured(168, 9, field{8, 30, 111574001}, field{38, 12, 300}, field{50, 10, 140}, field{61, 28, 64_555_000}, field{89, 27, 9_880_001}, field{116, 12, 900}),
			[]string{"mmsi-111574001 position lat=16.466668 lon=107.591667 speed_kn=140 course_deg=90 altitude_m=300"}},
		{"long range", armoured(96, 27, mmsi, field{40, 4, 0}, field{44, 18, 64_555}, field{62, 17, 9_880}, field{79, 6, 63}, field{85, 9, 511}), []string{here + "position lat=16.4667 lon=107.5917 nav_status=0"}},
		{"long range, nothing", armoured(96, 27, mmsi, field{40, 4, 15}, field{44, 18, 108_600}, field{62, 17, 54_600}, field{79, 6, 63}, field{85, 9, 511}), nil},
		{"24 A", armoured(160, 24, append(sixBit(40, "TH 1234 TS@JUNK"), mmsi)...), []string{here + `vessel name="TH 1234 TS"`}},
		{"24 B", armoured(168, 24, append(sixBit(90, "XVAB7  "), mmsi, field{38, 2, 1}, field{40, 8, 30}, field{132, 9, 5}, field{141, 9, 10}, field{150, 6, 2}, field{156, 6, 3})...),
			[]string{here + `vessel callsign="XVAB7" ship_type=30 length_m=15 beam_m=5`}},
		{"24 B of an auxiliary craft", armoured(168, 24, field{8, 30, 985740001}, field{38, 2, 1}, field{40, 8, 30}, field{132, 30, 574012345}), []string{"mmsi-985740001 vessel ship_type=30"}},
		{"5 without anything", armoured(424, 5, mmsi), nil},
		{"5", armoured(424, 5, append(append(append(sixBit(70, "XVAB"), sixBit(112, "HAI DANG 1")...), sixBit(302, "HUE@@@X")...), mmsi,
			field{40, 30, 9074729}, field{232, 8, 52}, field{240, 9, 20}, field{249, 9, 8}, field{258, 6, 4}, field{264, 6, 4}, field{274, 4, 10}, field{278, 5, 27}, field{283, 5, 13}, field{294, 8, 31})...),
			[]string{here + `vessel name="HAI DANG 1" callsign="XVAB" destination="HUE" eta="10-27T13:00Z" imo=9074729 ship_type=52 length_m=28 beam_m=8 draught_m=3.1`}},
		{"5, date without hour", armoured(424, 5, mmsi, field{274, 4, 10}, field{278, 5, 27}, field{283, 5, 24}, field{288, 6, 60}), []string{here + `vessel eta="10-27"`}},
		{"14", armoured(136, 14, append(sixBit(40, "SART ACTIVE"), field{8, 30, 970123456})...), []string{`mmsi-970123456 safety text="SART ACTIVE"`}},
		{"21", armoured(272, 21, append(sixBit(43, "BUOY 7"), field{8, 30, 995741001}, field{38, 5, 30}, field{164, 28, 64_555_000}, field{192, 27, 9_880_001}, field{253, 6, 30}, field{259, 1, 1})...),
			[]string{"mmsi-995741001 position lat=16.466668 lon=107.591667 off_position=1", `mmsi-995741001 vessel name="BUOY 7" aid_type=30`}},
		{"19", armoured(312, 19, append(sixBit(143, "THUAN AN"), mmsi, field{46, 10, 30}, field{57, 28, 64_555_000}, field{85, 27, 9_880_001}, field{112, 12, 3600}, field{124, 9, 511}, field{263, 8, 30}, field{271, 9, 7}, field{280, 9, 5})...),
			[]string{here + "position lat=16.466668 lon=107.591667 speed_kn=3", here + `vessel name="THUAN AN" ship_type=30 length_m=12`}},
		{"base station", armoured(168, 4, field{8, 30, 5741234}, field{79, 28, 64_555_000}, field{107, 27, 9_880_001}), []string{"mmsi-005741234 position lat=16.466668 lon=107.591667"}},
		{"base station without a place", armoured(168, 4, field{8, 30, 5741234}, field{79, 28, 181 * fine}, field{107, 27, 91 * fine}), nil},
		{"vessel that is asked for its time", armoured(168, 11, mmsi, field{79, 28, 64_555_000}, field{107, 27, 9_880_001}), []string{here + "position lat=16.466668 lon=107.591667"}},
		{"12", armoured(138, 12, append(sixBit(72, "COME BACK@X"), mmsi, field{40, 30, 574000009})...), []string{here + `safety text="COME BACK" to_mmsi=574000009`}},
		{"23 makes none", armoured(160, 23, mmsi), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, readings, counts := feedAll(wrap("AIVDM,1,1,,A," + c.payload))
			var got []string
			for _, r := range readings {
				checkReading(t, &r)
				got = append(got, spellReading(r))
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if counts.Messages != 1 {
				t.Errorf("%d messages, rejected %v", counts.Messages, counts.Reasons())
			}
		})
	}
}

// TestCoast runs the base station recording and compares its counts.
func TestCoast(t *testing.T) {
	d := NewDecoder()
	kinds := map[string]int{}
	for _, line := range lines(t, filepath.Join(testdata(t), "ais/amsa/ais.txt.gz")) {
		d.Feed(line, time.Time{}, func(r telemetry.Reading) {
			checkReading(t, &r)
			kinds[r.Kind]++
		})
	}
	d.End()
	c := d.Counts()
	// SUMMARY.json: 32517 sentences, of which 16 are noise of a wrong length, and
	// 1512 malformed ones.
	if c.Sentences != 32517 || c.Messages != 32501 || c.Rejected[BadPayload] != 16 || c.Rejected[BadTalker]+c.Rejected[BadSentence]+c.Rejected[BadChecksum] != 1512 {
		t.Errorf("counts %+v, rejected %v", c, c.Reasons())
	}
	if kinds["position"] < 24_000 || kinds["vessel"] < 2_000 {
		t.Errorf("readings %v", kinds)
	}
	t.Logf("readings %v, rejected %v", kinds, c.Reasons())
}

// TestHotTypes compares the direct reading of types 1, 2, 3 and 18 with go-ais.
func TestHotTypes(t *testing.T) {
	u := newUnpacker()
	n := 0
	compare := func(m *message) {
		var p position
		switch q := u.packet(m).(type) {
		case goais.PositionReport:
			p.readClassA(&m.bits)
			want := position{
				status: q.NavigationalStatus, turn: int8(q.RateOfTurn), accuracy: q.PositionAccuracy, raim: q.Raim,
				speed: uint16(q.Sog), course: uint16(q.Cog), heading: q.TrueHeading, second: q.Timestamp, maneuver: q.SpecialManoeuvreIndicator,
				lon: int32(q.Longitude), lat: int32(q.Latitude), radio: q.CommunicationState,
			}
			if p != want {
				t.Errorf("type %d: %+v, go-ais %+v", m.kind, p, want)
			}
			n++
		case goais.StandardClassBPositionReport:
			p.readClassB(&m.bits)
			want := position{
				status: statusNone, accuracy: q.PositionAccuracy, raim: q.Raim, speed: uint16(q.Sog), course: uint16(q.Cog), heading: q.TrueHeading, second: q.Timestamp,
				lon: int32(q.Longitude), lat: int32(q.Latitude), radio: uint32(q.IsItdma())<<19 | q.CommunicationState,
			}
			if p != want {
				t.Errorf("type %d: %+v, go-ais %+v", m.kind, p, want)
			}
			n++
		}
	}
	// A fixed sequence of numbers that visits all bits.
	x := uint64(88172645463325252)
	next := func(width int) int64 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		return int64(x >> (64 - width))
	}
	p := newParser()
	for i := range 2000 {
		kind := []int64{1, 2, 3, 18}[i%4]
		fields := []field{{6, 32, next(32)}, {38, 45, next(45)}, {83, 45, next(45)}, {128, 40, next(40)}}
		p.feed([]byte(wrap("AIVDM,1,1,,A,"+armoured(168, kind, fields...))), time.Time{}, compare)
	}
	if n != 2000 {
		t.Errorf("%d of 2000 messages compared, rejected %v", n, p.counts.Reasons())
	}
}

// TestEveryLength decodes messages of every type and length, of zeros, of ones
// and of changing bits: none breaks a decoder, and what passes the length check
// is decoded.
func TestEveryLength(t *testing.T) {
	j, d := newJSONWriter(true), NewDecoder()
	p := newParser()
	for kind := range int64(29) {
		for n := 6; n < 1110; n += 1 + n/300*n/100 {
			for fill, pattern := range []int64{0, -1, 0x5A3C96E1F07} {
				var fields []field
				for at := 6; at < n; at += 41 {
					fields = append(fields, field{at, 41, pattern})
				}
				line := []byte(wrap("AIVDM,1,1,,A," + armoured(n, kind, fields...)))
				d.Feed(line, time.Time{}, func(r telemetry.Reading) { checkReading(t, &r) })
				p.feed(line, time.Time{}, func(m *message) {
					text := j.message(m)
					if text == nil {
						t.Errorf("type %d of %d bits, pattern %d, passed the length check and was not decoded", kind, n, fill)
					}
					checkJSON(t, text)
				})
			}
		}
	}
	for kind := 1; kind <= 27; kind++ {
		if p.counts.Types[kind] == 0 {
			t.Errorf("no message of type %d", kind)
		}
	}
}
