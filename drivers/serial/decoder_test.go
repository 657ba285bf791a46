package serial

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// testNow is when the lines of the tests are received.
var testNow = time.Date(2026, 11, 22, 1, 0, 30, 0, time.UTC)

// configs are what the cases of testdata/lines are read with, by file name.
func configs() map[string]Config {
	base := Config{Name: "line", Connect: "serial:///dev/ttyS1", Device: "d"}
	with := func(change func(*Config)) Config {
		c := base
		change(&c)
		return c
	}
	return map[string]Config{
		"nmea":   with(func(c *Config) { c.Format = NMEA }),
		"vessel": with(func(c *Config) { c.Format, c.Vessel, c.Checksum = NMEA, true, Optional }),
		"xdr": with(func(c *Config) {
			c.Format = NMEA
			c.Values = []Value{{From: "C:0", To: "weather.temperature_c"}, {From: "H:0", To: "weather.humidity_pct"}, {From: "P:0", To: "weather.pressure_hpa"}, {From: "G1", To: "weather.noise_db"}}
		}),
		"wxt": with(func(c *Config) { c.Format = VaisalaWXT }),
		"maxbotix": with(func(c *Config) {
			c.Format, c.Terminator, c.Match = Pattern, "\r", `^R(?P<range>\d{4,5})$`
			c.Values = []Value{{From: "range", To: "river.level_m", Unit: "mm", Scale: -1, Offset: 7.42, Missing: []string{"9999"}}}
		}),
		"columns": with(func(c *Config) {
			c.Format, c.Separator = Pattern, ","
			c.Values = []Value{{From: "2", To: "river.level_m", Unit: "ft"}, {From: "4", To: "river.water_temperature_c", Unit: "F", Missing: []string{"-999", "NAN"}}}
		}),
		"blanks": with(func(c *Config) {
			c.Format, c.Separator = Pattern, " "
			c.Values = []Value{{From: "1", To: "weather.wind_speed_ms", Unit: "kn"}, {From: "3", To: "river.flow_m3s"}}
		}),
	}
}

// decodeLine decodes one line and shows what became of it.
func decodeLine(c Config, line string) string {
	m := newMetrics("test", nil)
	b := &batch{device: c.Device, metrics: m}
	v := newDecoder(&c).decode([]byte(line), testNow, b)
	out := []string{verdictNames[v]}
	readings := b.take()
	for i := range readings {
		out = append(out, show(&readings[i]))
	}
	for _, reason := range []string{lostField, lostInvalid, lostMissing, lostUnit} {
		if n := testutil.ToFloat64(m.fields[reason]); n > 0 {
			out = append(out, fmt.Sprintf("%s x%v", reason, n))
		}
	}
	return strings.Join(out, " | ")
}

// TestLines reads the cases of testdata/lines/*.txt: a line, and after => what
// becomes of it. \x escapes stand for bytes.
func TestLines(t *testing.T) {
	files, err := filepath.Glob("testdata/lines/*.txt")
	if err != nil || len(files) != len(configs()) {
		t.Fatalf("%d files of cases for %d configurations, %v", len(files), len(configs()), err)
	}
	for _, name := range files {
		c := configs()[strings.TrimSuffix(filepath.Base(name), ".txt")]
		if faults := c.Validate(); len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		scanner := bufio.NewScanner(bytes.NewReader(text))
		var line string
		for n := 1; scanner.Scan(); n++ {
			want, isWant := strings.CutPrefix(scanner.Text(), "=> ")
			switch {
			case strings.HasPrefix(scanner.Text(), "# ") || scanner.Text() == "":
			case !isWant:
				line = strings.NewReplacer(`\x00`, "\x00", `\xff`, "\xff", `\r`, "\r", `\n`, "\n").Replace(scanner.Text())
			default:
				if got := decodeLine(c, line); got != want {
					t.Errorf("%s:%d: %q\ngot  %s\nwant %s", name, n, line, got, want)
				}
			}
		}
	}
}

// TestMerrimac reads a real boat's log. What is expected was counted by awk
// from the lines themselves: checksums, types, first and last fields.
func TestMerrimac(t *testing.T) {
	log := testdata(t, "nmea0183/gofree-merrimac.log")
	c := configs()["nmea"]
	d := newDecoder(&c)
	b := &batch{device: "boat", metrics: newMetrics("test", nil)}
	verdict := map[string]int{}
	byKind := map[string]int{}
	values := map[string]int{}
	sum := map[string]float64{}
	for line := range bytes.Lines(log) {
		b.line()
		v := d.decode(bytes.TrimRight(line, "\r\n"), testNow, b)
		verdict[verdictNames[v]]++
		for _, r := range b.take() {
			byKind[r.Kind]++
			for _, v := range r.Values {
				values[r.Kind+"."+v.Name]++
				sum[r.Kind+"."+v.Name] += v.Number
			}
		}
	}
	t.Logf("%v\n%v\n%v\n%v", verdict, byKind, values, sum)
	for name, want := range merrimacCounts {
		if values[name] != want {
			t.Errorf("%s: %d times, want %d", name, values[name], want)
		}
	}
	for name, want := range merrimacSums {
		if math.Abs(sum[name]-want) > 1e-3 {
			t.Errorf("%s: sum %v, want %v", name, sum[name], want)
		}
	}
	var names []string
	for name := range values {
		if _, ok := merrimacCounts[name]; !ok {
			names = append(names, name)
		}
	}
	if sort.Strings(names); len(names) > 0 {
		t.Errorf("nobody expected %v", names)
	}
	for name, want := range merrimacVerdicts {
		if verdict[name] != want {
			t.Errorf("%s: %d lines, want %d", name, verdict[name], want)
		}
	}
}

func TestCRC(t *testing.T) {
	for _, line := range []string{
		"0+3.14OqZ",                           // SDI-12 V1.4, 4.4.12.3
		"1+2.7+85.2-0.2-2.7+770.5CAH",         // Vaisala WMT700 user guide
		"0r2,Ta=22.7C,Ua=55.5P,Pa=1004.7H@Fn", // Vaisala WXT520 user guide
		"0tX,Use chksum GoeIU~",
		"0r0Kld",
	} {
		if _, ok := checkCRC([]byte(line)); !ok {
			t.Errorf("%s: want %s", line, crcOf([]byte(line[:len(line)-crcLen])))
		}
		if _, ok := checkCRC([]byte("1" + line)); ok {
			t.Errorf("1%s is taken", line)
		}
	}
	for _, short := range []string{"", "@@@", "0@@"} {
		if _, ok := checkCRC([]byte(short)); ok {
			t.Errorf("%q is taken", short)
		}
	}
}

// TestUnits: each unit becomes each other one of its dimension, and back.
func TestUnits(t *testing.T) {
	for _, c := range []struct {
		number float64
		from   string
		value  string
		want   float64
	}{
		{212, "F", "temperature_c", 100}, {-40, "F", "temperature_c", -40}, {273.15, "K", "temperature_c", 0},
		{1, "kn", "wind_speed_ms", 0.514444444}, {3.6, "km/h", "wind_speed_ms", 1}, {1, "mph", "wind_speed_ms", 0.44704},
		{1.026, "bar", "pressure_hpa", 1026}, {29.921, "inHg", "pressure_hpa", 1013.241453}, {101325, "Pa", "pressure_hpa", 1013.25}, {760, "mmHg", "pressure_hpa", 1013.25024},
		{1234, "mm", "level_m", 1.234}, {1, "ft", "level_m", 0.3048}, {1, "in", "rain_total_mm", 25.4},
		{1, "in/h", "rain_rate_mmh", 25.4}, {100, "C", "temperature_c", 100}, {413, "uS/cm", "conductivity_mscm", 0.413},
	} {
		v := Value{To: "k." + c.value}
		s, ok := v.scale(c.from)
		if got := s.of(c.number); !ok || math.Abs(got-c.want) > 1e-8*math.Max(1, math.Abs(c.want)) {
			t.Errorf("%v %s as %s is %v, want %v", c.number, c.from, c.value, got, c.want)
		}
	}
	for _, bad := range []struct{ from, value string }{{"C", "level_m"}, {"mm", "level"}, {"furlong", "level_m"}} {
		v := Value{To: "k." + bad.value}
		if _, ok := v.scale(bad.from); ok {
			t.Errorf("%s became %s", bad.from, bad.value)
		}
	}
	for _, a := range units {
		for _, b := range units {
			there, ok := between(a.unit, b.unit)
			back, _ := between(b.unit, a.unit)
			if ok != (a.dimension == b.dimension) || ok && math.Abs(back.of(there.of(1000))-1000) > 1e-3 {
				t.Errorf("%s to %s and back", a.name, b.name)
			}
		}
	}
}

// check is what holds for whatever a decoder makes of any bytes.
func check(t *testing.T, readings []telemetry.Reading, v verdict) {
	t.Helper()
	for _, r := range readings {
		if r.Device == "" || !telemetry.ValidName(r.Kind) || len(r.Values) == 0 || len(r.Values) > MaxValues {
			t.Errorf("reading %+v", r)
		}
		for _, value := range r.Values {
			if !telemetry.Finite(value.Number) || !telemetry.ValidName(value.Name) {
				t.Errorf("value %+v", value)
			}
		}
	}
	if !v.heard() && len(readings) > 0 {
		t.Errorf("a refused line gave %+v", readings)
	}
}

func fuzzLines(f *testing.F, names ...string) {
	for _, name := range names {
		text, err := os.ReadFile("testdata/lines/" + name + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "=> ") && !strings.HasPrefix(line, "# ") {
				f.Add([]byte(strings.TrimRight(line, "\n")))
			}
		}
	}
	var decoders []decoder
	for _, name := range names {
		c := configs()[name]
		decoders = append(decoders, newDecoder(&c))
	}
	b := &batch{device: "d", metrics: newMetrics("test", nil)}
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, d := range decoders {
			b.line()
			v := d.decode(line, testNow, b)
			check(t, b.take(), v)
		}
	})
}

func FuzzNMEA(f *testing.F)    { fuzzLines(f, "nmea", "vessel", "xdr") }
func FuzzWXT(f *testing.F)     { fuzzLines(f, "wxt") }
func FuzzPattern(f *testing.F) { fuzzLines(f, "maxbotix", "columns", "blanks") }
