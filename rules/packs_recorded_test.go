package rules

import (
	"bufio"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"haidang/drivers/ais"
	"haidang/gateway/telemetry"
)

// recorded returns the folder of recorded data.
func recorded(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("HAIDANG_TESTDATA")
	if dir == "" {
		t.Skip("HAIDANG_TESTDATA is not set: no recordings")
	}
	return dir
}

// TestPacksOnRecordedAIS sends all recorded AIS messages through the fishing
// pack. Distress must be raised for the devices of distress that send status 14
// or an ACTIVE text, and for nobody else: the recordings have ordinary vessels
// with status 14.
func TestPacksOnRecordedAIS(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(recorded(t), "ais", "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	packs, _ := readPacks(t)
	engine := NewEngine(Options{})
	now := epoch
	engine.Evaluate(now, control(t, Document{Kinds: builtinKinds(t), Rules: packs["fishing.yaml"].Rules}))
	messages, mistaken := 0, map[string]bool{}
	want, got := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		if strings.Contains(file, "expected") || strings.HasSuffix(file, ".chk") || strings.HasSuffix(file, ".json") {
			continue
		}
		decoder := ais.NewDecoder()
		for _, line := range recordedLines(t, file) {
			decoder.Feed([]byte(line), time.Time{}, func(r telemetry.Reading) {
				messages++
				now = now.Add(time.Second)
				r.Time, r.Site = now, r.Device
				status, _ := r.Number("nav_status")
				beacon := strings.HasPrefix(r.Device, "mmsi-970") || strings.HasPrefix(r.Device, "mmsi-972") || strings.HasPrefix(r.Device, "mmsi-974")
				active := r.Kind == "position" && status == 14 || r.Kind == "safety" && strings.Contains(r.Text("text"), "ACTIVE")
				switch {
				case beacon && active:
					want[r.Device] = true
				case active:
					mistaken[r.Device] = true
				}
				for _, x := range engine.Evaluate(now, []telemetry.Reading{r}) {
					if x.Severity == telemetry.Extreme {
						got[x.Device] = true
					}
				}
			})
		}
	}
	t.Logf("%d messages; distress %v; ordinary vessels that say so by mistake %v", messages, sortedKeys(want), sortedKeys(mistaken))
	if messages < 30_000 || len(mistaken) == 0 {
		t.Errorf("%d messages and %d vessels with status 14: the recordings are not what they were", messages, len(mistaken))
	}
	if a, b := strings.Join(sortedKeys(got), " "), strings.Join(sortedKeys(want), " "); a != b {
		t.Errorf("distress of %q, want %q", a, b)
	}
}

func recordedLines(t *testing.T, path string) (lines []string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var from io.Reader = file
	if strings.HasSuffix(path, ".gz") {
		if from, err = gzip.NewReader(file); err != nil {
			t.Fatal(err)
		}
	}
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestPacksOnRecordedAir runs hourly concentrations through the air pack, moved
// to two winters in which the regulation and its lower limit of PM2.5 come into
// force, and compares the rules on means with a plain loop over the same
// numbers.
func TestPacksOnRecordedAir(t *testing.T) {
	readings := recordedAir(t, filepath.Join(recorded(t), "air", "PRSA_Aotizhongxin.csv"))
	packs, _ := readPacks(t)
	pack := packs["air.yaml"]
	engine := NewEngine(Options{})
	engine.Evaluate(readings[0].Time, control(t, Document{
		Kinds: builtinKinds(t), Devices: []telemetry.Device{{ID: "hue", Kinds: []string{"air"}, Interval: telemetry.Duration(time.Hour)}},
		Rules: pack.Rules, Limits: pack.Limits,
	}))
	loops := map[string]*meanLoop{}
	for _, r := range pack.Rules {
		if name, hours, ok := strings.Cut(r.Name, "-"); ok && name != "vn" {
			width, err := time.ParseDuration(hours)
			if err != nil {
				t.Fatal(err)
			}
			loops[r.Name] = &meanLoop{rule: r.Name, value: name + "_ugm3", width: width}
		}
	}
	total := 0
	for i := range readings {
		r := &readings[i]
		got, want := map[string]bool{}, map[string]bool{}
		for _, x := range engine.Evaluate(r.Time, []telemetry.Reading{*r}) {
			if x.Rule != "vn-aqi" {
				got[x.Rule+" "+string(x.State)] = true
			}
		}
		for _, l := range loops {
			if state := l.next(r, limitsAt(pack.Limits, r.Time)[strings.ReplaceAll(l.rule, "-", "_")]); state != "" {
				want[l.rule+" "+string(state)] = true
			}
		}
		total += len(want)
		if a, b := strings.Join(sortedKeys(got), ", "), strings.Join(sortedKeys(want), ", "); a != b {
			t.Fatalf("at %s\ngot  %s\nwant %s", r.Time, a, b)
		}
	}
	t.Logf("%d readings, %d transitions", len(readings), total)
	if total < 200 {
		t.Errorf("only %d transitions in the data", total)
	}
}

// limitsAt returns the limits in force at a time; 0 is none.
func limitsAt(limits []Limit, at time.Time) map[string]float64 {
	day := at.In(time.FixedZone("", 7*60*60)).Format(time.DateOnly)
	in := map[string]float64{}
	for _, l := range limits { // of one name in the order of their dates
		if l.From <= day {
			in[l.Name] = l.Value
		}
	}
	return in
}

// A meanLoop is the plain form of a rule on a mean: all samples, summed anew.
type meanLoop struct {
	rule, value string
	width       time.Duration
	samples     []telemetry.Reading
	active      bool
}

func (l *meanLoop) next(r *telemetry.Reading, limit float64) telemetry.State {
	if _, ok := r.Number(l.value); !ok {
		return ""
	}
	l.samples = append(l.samples, *r)
	for !l.samples[0].Time.After(r.Time.Add(-l.width)) {
		l.samples = l.samples[1:]
	}
	if limit == 0 || r.Time.Sub(l.samples[0].Time)+time.Hour < l.width/2 {
		return ""
	}
	sum := 0.0
	for i := range l.samples {
		v, _ := l.samples[i].Number(l.value)
		sum += v
	}
	switch mean := sum / float64(len(l.samples)); {
	case !l.active && mean > limit:
		l.active = true
		return telemetry.Active
	case l.active && mean < limit*0.95:
		l.active = false
		return telemetry.Cleared
	}
	return ""
}

func recordedAir(t *testing.T, path string) (readings []telemetry.Reading) {
	t.Helper()
	columns := map[int]string{5: "pm25_ugm3", 6: "pm10_ugm3", 7: "so2_ugm3", 8: "no2_ugm3", 9: "co_ugm3", 10: "o3_ugm3"}
	at := time.Date(2023, 3, 1, 0, 0, 0, 0, time.FixedZone("", 7*60*60))
	for i, line := range recordedLines(t, path) {
		if i == 0 {
			continue
		}
		fields := strings.Split(line, ",")
		r := telemetry.Reading{Device: "hue", Site: "hue", Kind: "air", Time: at.Add(time.Duration(i-1) * time.Hour)}
		for column := 5; column <= 10; column++ {
			if v, err := strconv.ParseFloat(fields[column], 64); err == nil { // else NA
				r.Values = append(r.Values, telemetry.Value{Name: columns[column], Number: v})
			}
		}
		day := r.Time.Format(time.DateOnly)
		if winter := day < "2024-01-01" && day >= "2023-07-01" || day < "2026-03-01" && day >= "2025-10-01"; winter && len(r.Values) > 0 {
			readings = append(readings, r)
		}
	}
	return readings
}

// BenchmarkPacks evaluates readings with all shipped packs in force, ten
// minutes apart, for the stations of the scenarios.
func BenchmarkPacks(b *testing.B) {
	for _, bench := range []struct{ device, kind, value string }{
		{"kim-long", "river", "level_m"}, {"hue", "air", "pm25_ugm3"}, {"mmsi-574990004", "position", "nav_status"},
	} {
		b.Run(bench.kind, func(b *testing.B) {
			doc := shipped(b, scenarioDevices(b))
			doc.Zones = scenarioZones(b)
			engine := NewEngine(Options{})
			engine.Evaluate(epoch, control(b, doc))
			frame := []telemetry.Reading{{Device: bench.device, Site: bench.device, Kind: bench.kind, Values: []telemetry.Value{
				{Name: bench.value, Number: 0.5}, {Name: "lat", Number: 16.5}, {Name: "lon", Number: 109},
			}}}
			now := epoch
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(10 * time.Minute)
				frame[0].Time = now
				engine.Evaluate(now, frame)
			}
		})
	}
}
