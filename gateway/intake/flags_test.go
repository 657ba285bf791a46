package intake

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// recorded opens a file of the recorded data, or skips the test.
func recorded(t *testing.T, name string) *os.File {
	t.Helper()
	dir := os.Getenv("HAIDANG_TESTDATA")
	if dir == "" {
		t.Skip("HAIDANG_TESTDATA is not set: no recorded data")
	}
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// TestRecordedFlags judges two years of a stream's water temperature as it would
// have been judged online, each test alone, and compares with the flags that
// ContDataQC gave afterwards with the same limits.
//
// ContDataQC compares each value with the one before it, so that it flags the
// way back from a spike too, which is right again: those are told apart. Its
// rate of change is three standard deviations of 25 hours; ours is a fixed
// limit, 2 degrees in half an hour.
func TestRecordedFlags(t *testing.T) {
	rows, err := csv.NewReader(recorded(t, "water/test2_QCflagged_20130101_20141231.csv")).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	const value = "Water.Temp.C"
	var readings []telemetry.Reading
	var kept [][]string
	for _, row := range rows[1:] {
		x, err := strconv.ParseFloat(row[column[value]], 64)
		if err != nil {
			continue // NA: nothing came, and a gateway hears nothing
		}
		at, err := time.Parse(time.DateTime, row[column["Date.Time"]])
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, row)
		readings = append(readings, telemetry.Reading{Device: "kim-long", Kind: "gauge", Time: at, Values: []telemetry.Value{{Name: "level_m", Number: x}}})
	}
	t.Logf("%d values, %d missing", len(kept), len(rows)-1-len(kept))
	for _, test := range []struct {
		flag  string
		tests telemetry.Tests
		least int // flags of theirs: else nothing was compared
	}{
		{"Gross", telemetry.Tests{GrossRange: &telemetry.GrossRange{Fail: span(-2, 30), Suspect: span(-1, 25)}}, 4},
		{"Spike", telemetry.Tests{Spike: &telemetry.Spike{Suspect: 1, Fail: 1.5}}, 5},
		{"RoC", telemetry.Tests{RateOfChange: &telemetry.RateOfChange{Suspect: 2.0 / 30}}, 4},
		{"Flat", telemetry.Tests{FlatLine: &telemetry.FlatLine{Suspect: telemetry.Duration(10 * time.Hour), Tolerance: 0.01}}, 2},
	} {
		b := judged(t, &test.tests, telemetry.Device{Interval: telemetry.Duration(30 * time.Minute)})
		both, ours, theirs, neither, waysBack := 0, 0, 0, 0, 0
		flagged := false
		taken := slices.Clone(readings)
		for i := range taken {
			taken[i].Values = slices.Clone(taken[i].Values) // the intake writes into them
		}
		for i, r := range b.accept(t, taken...) {
			// Their suspect and fail are our suspect and bad.
			want := map[string]telemetry.Quality{"S": telemetry.Suspect, "F": telemetry.Bad}[kept[i][column["Flag."+test.flag+"."+value]]]
			switch {
			case r.Quality == telemetry.Good && want != telemetry.Good && flagged:
				waysBack++
			case r.Quality == want && want == telemetry.Good:
				neither++
			case r.Quality == want:
				both++
			case want == telemetry.Good:
				ours++
			default:
				theirs++
			}
			if flagged = r.Quality != telemetry.Good; flagged && r.Quality != want {
				t.Errorf("%s: %v at %s is %s, they say %s", test.flag, r.Values[0].Number, r.Time, r.Quality, want)
			}
		}
		t.Logf("%-6s flagged by both %d, only by us %d, only by them %d, by neither %d; ways back from what both flag %d", test.flag, both, ours, theirs, neither, waysBack)
		if both < test.least || ours+theirs > 0 || waysBack > 3 {
			t.Errorf("%s: the flags differ", test.flag)
		}
	}
}

// TestRecordedSpike: a level of 1000 m in a recorded hydrograph of a flood is
// the only value that does not pass.
func TestRecordedSpike(t *testing.T) {
	var list []struct {
		At    string  `json:"ts"`
		Level float64 `json:"_"`
	}
	if err := json.NewDecoder(recorded(t, "hydro/ea/spikeTelem.json")).Decode(&list); err != nil {
		t.Fatal(err)
	}
	b := judged(t, &telemetry.Tests{Spike: &telemetry.Spike{Suspect: 0.5, Fail: 5}}, telemetry.Device{})
	var readings []telemetry.Reading
	for i := len(list) - 1; i >= 0; i-- { // the newest is first
		at, err := time.Parse("2006-01-02T15:04Z", list[i].At)
		if err != nil {
			t.Fatal(err)
		}
		readings = append(readings, telemetry.Reading{Device: "kim-long", Kind: "gauge", Time: at, Values: []telemetry.Value{{Name: "level_m", Number: list[i].Level}}})
	}
	b.clock.at = readings[len(readings)-1].Time.Add(time.Minute)
	flagged := 0
	for _, r := range b.accept(t, readings...) {
		is := r.Values[0].Number == 1000
		if is {
			flagged++
		}
		if (r.Quality == telemetry.Bad) != is || r.Quality == telemetry.Suspect {
			t.Errorf("%v m at %s is %s", r.Values[0].Number, r.Time.Format(time.RFC3339), r.Quality)
		}
	}
	if flagged != 1 {
		t.Errorf("%d spikes in %d values", flagged, len(readings))
	}
}
