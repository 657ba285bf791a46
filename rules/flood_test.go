package rules

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestRealRiver runs a level rule and a rate rule over a season of hourly stages
// of a real river and compares them with a plain loop over the same numbers.
func TestRealRiver(t *testing.T) {
	dir := os.Getenv("HAIDANG_TESTDATA")
	if dir == "" {
		t.Skip("HAIDANG_TESTDATA is not set: no recorded stages")
	}
	readings := readStages(t, filepath.Join(dir, "hydro", "usgs_01037000_hourly_stage_flow_rain.csv"))
	engine := NewEngine(Options{})
	engine.Evaluate(readings[0].Time, control(t, readDocument(t, `
devices: [{id: gauge, kinds: [river], interval: 1h}]
rules:
  - {name: high, on: river, when: level_m >= 1.6, clear: level_m < 1.55}
  - {name: rising, on: river, when: 'rate(level_m, "2h") > 0.04'}`)))
	var got, want []string
	high, rising := false, false
	tell := func(at time.Time, rule string, is bool) {
		state := telemetry.Cleared
		if is {
			state = telemetry.Active
		}
		want = append(want, at.UTC().Format(time.RFC3339)+" "+rule+" "+string(state))
	}
	for i, r := range readings {
		for _, x := range engine.Evaluate(r.Time, []telemetry.Reading{r}) {
			got = append(got, x.At.Format(time.RFC3339)+" "+x.Rule+" "+string(x.State))
		}
		level := r.Values[0].Number
		if now := high && level >= 1.55 || level >= 1.6; now != high {
			high = now
			tell(r.Time, "high", high)
		}
		if i == 0 || r.Time.Sub(readings[i-1].Time) >= 2*time.Hour {
			continue // one sample in the window: no rate
		}
		hours := r.Time.Sub(readings[i-1].Time).Hours()
		if now := (level-readings[i-1].Values[0].Number)/hours > 0.04; now != rising {
			rising = now
			tell(r.Time, "rising", rising)
		}
	}
	if len(want) < 8 {
		t.Fatalf("only %d transitions in the data: %v", len(want), want)
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("transition %d:\ngot  %v\nwant %v", i, got[min(i, len(got)):], want[min(i, len(want)):])
		}
	}
}

func readStages(t *testing.T, path string) (readings []telemetry.Reading) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		if _, ok := column[name]; !ok {
			column[name] = i
		}
	}
	const footInMetres = 0.3048
	for _, row := range rows[1:] {
		at, err := time.Parse("2006-01-02 15:04:05", row[column["datetime"]])
		if err != nil {
			t.Fatal(err)
		}
		feet, err := strconv.ParseFloat(row[column["65565_00065"]], 64)
		if err != nil {
			continue // not measured
		}
		if n := len(readings); n > 0 && !at.After(readings[n-1].Time) {
			continue
		}
		readings = append(readings, telemetry.Reading{Device: "gauge", Kind: "river", Time: at, Values: []telemetry.Value{{Name: "level_m", Number: feet * footInMetres}}})
	}
	return readings
}
