package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/intake"
	"haidang/gateway/telemetry"
)

// verb runs a verb against the gateway, as a person would beside it.
func (g *gatewayProcess) verb(args ...string) (stdout, stderr string, code int) {
	g.t.Helper()
	var out, problems bytes.Buffer
	cmd := exec.Command(os.Args[0], append(args, "--config", filepath.Join(g.dir, "gateway.yaml"))...)
	cmd.Env = append(os.Environ(), "HAIDANG_TEST_COMMAND=1", "SUDO_USER=lan")
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), problems.String(), exit.ExitCode()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return out.String(), problems.String(), 0
}

// must is verb for what has to work.
func (g *gatewayProcess) must(args ...string) string {
	g.t.Helper()
	out, problems, code := g.verb(args...)
	if code != 0 {
		g.t.Fatalf("haidang %q: exit code %d: %s\n%s", args, code, problems, g.output)
	}
	return out
}

func (g *gatewayProcess) deviceState(id string) deviceState {
	g.t.Helper()
	status, body := g.try("/api/v1/devices/" + id)
	var d deviceState
	if err := json.Unmarshal([]byte(body), &d); err != nil || status != http.StatusOK {
		g.t.Fatalf("device %s: %d %s: %v", id, status, body, err)
	}
	return d
}

const stationDevices = `
devices:
  - {id: kim-long, name: Trạm Kim Long, site: hue, owner: Đài KTTV, kinds: [river], interval: 1h,
     facts: {alarm1_m: 1.0, alarm2_m: 2.0, alarm3_m: 3.5},
     quality: {level_m: {spike: {suspect: 1, fail: 5}}},
     calibration: {level_m: {offset: 0.10, since: 2020-01-01}}}
  - {id: phu-oc, name: Trạm Phú Ốc, kinds: [river], interval: 1s}
`

// TestDevices is a day of an operator with a running gateway: states and facts
// by command, over a kill, and the table.
func TestDevices(t *testing.T) {
	t.Parallel()
	g := prepare(t, "devices: devices.yaml\n")
	g.write("devices.yaml", stationDevices)
	g.start()
	c := g.client("station")
	publish := func(topic, payload string) { t.Helper(); g.publish(c, topic, payload) }
	// newest waits until the field's newest value in the store is want.
	newest := func(field, want string) {
		t.Helper()
		eventually(t, field+" "+want+" is stored", 10*time.Second, func() bool {
			rows := g.rows(`SELECT last(` + field + `) FROM river WHERE device='kim-long'`)
			return len(rows) == 1 && fmt.Sprint(rows[0][1]) == want
		})
	}

	publish("telemetry/kim-long/river", `{"level_m":0.50}`)
	newest("level_m", "0.6") // calibrated
	publish("telemetry/kim-long/river", `{"level_m":90}`)
	d := g.deviceState("kim-long")
	if d.State != "error" || d.Latest["river"].Failed["level_m"] != "spike" || len(d.Problems) != 1 || d.Problems[0] != "level_m bad (spike)" {
		t.Errorf("after a spike: %+v", d)
	}
	if n := len(g.warnings("")); n != 0 {
		t.Errorf("a spike raised %d warnings", n)
	}

	// Maintenance, over a power cut, and its end by command.
	if _, problems, code := g.verb("devices", "state", "kim-lung", "maintenance", "--why", "x"); code != 1 || !strings.Contains(problems, `device "kim-lung" is not registered`) {
		t.Errorf("a device that is not there: %d %s", code, problems)
	}
	out := g.must("devices", "state", "kim-long", "maintenance", "--for", "2h", "--why", "lau đầu đo")
	if !strings.Contains(out, "kim-long: maintenance until ") || !strings.Contains(out, "by lan: lau đầu đo") {
		t.Errorf("told %q", out)
	}
	g.kill()
	g.start()
	c = g.client("station")
	publish("telemetry/kim-long/river", `{"level_m":5}`)
	newest("quality", "maintenance")
	if n := len(g.warnings("")); n != 0 {
		t.Errorf("maintenance raised %d warnings", n)
	}
	g.must("devices", "state", "kim-long", "measuring", "--why", "xong")
	publish("telemetry/kim-long/river", `{"level_m":1.85}`)
	eventually(t, "a warning at 1.95 m", 10*time.Second, func() bool {
		w := g.warnings("")
		return len(w) == 1 && w[0].Severity == telemetry.Moderate
	})

	// A fact: rules see it at once, and after a restart.
	g.must("devices", "set", "kim-long", "alarm2_m=1.90", "owner=Sở NN&MT", "--by", "Minh", "--why", "QĐ mới")
	publish("telemetry/kim-long/river", `{"level_m":1.86}`)
	severe := func() bool {
		w := g.warnings("")
		return len(w) == 1 && w[0].Severity == telemetry.Severe
	}
	eventually(t, "the new alarm level holds", 10*time.Second, severe)
	g.kill()
	g.start()
	if d := g.deviceState("kim-long"); d.Facts["alarm2_m"] != 1.9 || d.Owner != "Sở NN&MT" || len(d.Changed) != 2 || !severe() {
		t.Errorf("after a restart %+v", d)
	}
	if _, problems, code := g.verb("devices", "set", "kim-long", "lat=123", "--why", "x"); code != 1 || !strings.Contains(problems, "lat: latitude 123 is not in -90..90") {
		t.Errorf("a fault: %d %s", code, problems)
	}
	changes := g.must("devices", "changes", "kim-long")
	for _, want := range []string{"Minh  facts.alarm2_m=1.9, owner=Sở NN&MT", "QĐ mới", "lan   maintenance until", "lan   measuring"} {
		if !strings.Contains(changes, want) {
			t.Errorf("the changes lack %q:\n%s", want, changes)
		}
	}

	// The table: what is wrong first, aligned.
	eventually(t, "phu-oc is missed", 20*time.Second, func() bool { return len(g.deviceState("phu-oc").Problems) > 0 })
	table := g.must("devices")
	lines := strings.Split(table, "\n")
	if !strings.HasPrefix(lines[0], "DEVICE") || !strings.HasPrefix(lines[1], "phu-oc    Trạm Phú Ốc    -") || !strings.Contains(lines[1], "not heard since the gateway started") {
		t.Errorf("the table is\n%s", table)
	}
	if out := g.must("devices", "--site", "hue"); strings.Contains(out, "phu-oc") || !strings.Contains(out, "1 device,") {
		t.Errorf("only the site:\n%s", out)
	}
}

// TestUnknownDeviceIsRegistered: a device that was only heard gets a name.
func TestUnknownDeviceIsRegistered(t *testing.T) {
	g := prepare(t, "")
	g.start()
	c := g.client("someone")
	g.publish(c, "telemetry/tram-moi/river", `{"level_m":0.1}`)
	if d := g.deviceState("tram-moi"); d.Registered {
		t.Errorf("%+v", d)
	}
	g.must("devices", "set", "tram-moi", "name=Trạm mới", "interval=10m", "--why", "vừa lắp")
	if d := g.deviceState("tram-moi"); !d.Registered || d.Name != "Trạm mới" || d.Interval != "10m" {
		t.Errorf("%+v", d)
	}
	g.must("devices", "set", "tram-moi", "name=", "interval=", "--why", "nhầm")
	if d := g.deviceState("tram-moi"); d.Registered {
		t.Errorf("put back: %+v", d)
	}
}

func TestProblems(t *testing.T) {
	now := time.Date(2025, 10, 27, 13, 0, 0, 0, time.UTC)
	before := func(d time.Duration) *time.Time { t := now.Add(-d); return &t }
	down := false
	until := now.Add(time.Hour)
	for name, test := range map[string]struct {
		d    deviceState
		h    intake.Heard
		want string
		rank int
	}{
		"well":           {deviceState{Registered: true, Interval: "10m", Heard: before(20 * time.Minute)}, intake.Heard{}, "", 0},
		"silent":         {deviceState{Registered: true, Interval: "10m", Heard: before(21 * time.Minute)}, intake.Heard{}, "silent for 21m; expected every 10m", rankSilent},
		"never":          {deviceState{Registered: true, Interval: "10m"}, intake.Heard{}, "not heard since the gateway started, 3h ago; expected every 10m", rankSilent},
		"a line":         {deviceState{Up: &down}, intake.Heard{Cause: "no route to host"}, "link down: no route to host", rankSilent},
		"down":           {deviceState{Up: &down, Heard: before(0)}, intake.Heard{}, "link down", rankSuspect},
		"comes and goes": {deviceState{Registered: true, Interval: "10m", Up: &down, Heard: before(time.Minute)}, intake.Heard{}, "", 0},
		"is missed": {deviceState{Registered: true, Interval: "10m", Up: &down, Heard: before(time.Hour)}, intake.Heard{Cause: "timeout"},
			"silent for 60m; expected every 10m; link down: timeout", rankSilent},
		"its word":   {deviceState{Heard: before(0)}, intake.Heard{Quality: telemetry.Bad}, "bad, by its own word", rankBad},
		"set aside":  {deviceState{Heard: before(0), Errors: map[string]int{"bad_json": 3, "bad_name": 1}}, intake.Heard{}, "set aside in 24 h: 3 bad_json, 1 bad_name", rankErrors},
		"stranger":   {deviceState{Heard: before(100 * time.Hour)}, intake.Heard{}, "", 0},
		"maintained": {deviceState{Registered: true, Interval: "10m", Heard: before(time.Hour), Period: &periodState{State: "maintenance", Until: &until, By: "Lan", Why: "lau"}}, intake.Heard{}, "maintenance until 21:00 27/10 by Lan: lau; silent for 60m; expected every 10m", rankExcused},
		"value": {deviceState{Heard: before(0), Latest: map[string]latestState{"river": {Quality: map[string]string{"level_m": "suspect", "flow": "bad"}, Failed: map[string]string{"level_m": "flat_line"}}}}, intake.Heard{},
			"flow bad; level_m suspect (flat_line)", rankBad},
	} {
		test.d.judge(test.h, now, 3*time.Hour)
		if got := strings.Join(test.d.Problems, "; "); got != test.want || test.d.rank != test.rank {
			t.Errorf("%s: %q, rank %d; want %q, %d", name, got, test.d.rank, test.want, test.rank)
		}
		if len(test.d.ProblemTexts) != len(test.d.Problems) {
			t.Errorf("%s: %d texts of %d problems", name, len(test.d.ProblemTexts), len(test.d.Problems))
		}
		for i, text := range test.d.ProblemTexts {
			if text.EN != test.d.Problems[i] || text.VI == text.EN || strings.Contains(text.VI+text.EN, "%!") {
				t.Errorf("%s: %+v", name, text)
			}
		}
	}
}

// TestQualityFaults: tests of quality that cannot be meant are told with their
// lines.
func TestQualityFaults(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"gateway.yaml": "devices: devices.yaml\nkinds: kinds.yaml\n",
		"kinds.yaml": `kinds:
  - name: pond
    values:
      - {name: salt, unit: ppt, quality: {spike: {suspect: -1}}}
      - {name: note, words: true, quality: {spike: {suspect: 1}}}
`,
		"devices.yaml": `devices:
  - id: a
    quality:
      levl_m: {spike: {suspect: 1}}
      level_m:
        gross_range: {fail: [3, 1]}
        spike: {suspect: 2, fail: 1}
        flat_line: {suspect: often}
        rate: 3
      pond.note: {}
      pond.salt: {gross_range: {fail: [0, 5], suspect: [1]}}
    calibration:
      level_m: {scale: 0}
      river.level_m: {since: yesterday}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, _, stderr := command(t, "check", "--config", filepath.Join(dir, "gateway.yaml"))
	wants := []string{
		"kinds.yaml:4: kinds[0].values[0].quality.spike.suspect: want a limit above 0",
		`kinds.yaml:5: kinds[0].values[1].quality: "note" is a word`,
		`devices.yaml:4: devices[0].quality.levl_m: "levl_m" is not a value of the catalogue`,
		"devices.yaml:6: devices[0].quality.level_m.gross_range.fail: [3 1] is not [least, greatest]",
		"devices.yaml:7: devices[0].quality.level_m.spike.fail: fail is below suspect",
		`devices.yaml:8: devices[0].quality.level_m.flat_line.suspect: duration "often" is not like`,
		`devices.yaml:9: devices[0].quality.level_m.rate: unknown key "rate"`,
		`devices.yaml:10: devices[0].quality.pond.note: "pond.note" is a word`,
		"devices.yaml:11: devices[0].quality.pond.salt.gross_range.suspect: want [least, greatest], not a list of 1",
		"devices.yaml:13: devices[0].calibration.level_m.scale: scale 0 is not a number other than 0",
		`devices.yaml:14: devices[0].calibration.river.level_m.since: "yesterday" is not a date like 2026-03-14`,
	}
	for _, want := range wants {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q", want)
		}
	}
	if n := strings.Count(stderr, "\n") - 1; code != exitUsage || n != len(wants) {
		t.Errorf("exit code %d and %d faults, want %d:\n%s", code, n, len(wants), stderr)
	}
}

// TestSettings: what only devices.yaml can change does not become a fact of that
// name, unless it is asked for.
func TestSettings(t *testing.T) {
	for _, arg := range []string{"id=5", "site=hue", "kinds=river", "quality=x", "calibration=1"} {
		if _, err := settings([]string{arg}); err == nil || !strings.Contains(err.Error(), "change it in devices.yaml") {
			t.Errorf("%s: %v", arg, err)
		}
	}
	body, err := settings([]string{"facts.site=hue", "alarm2_m=2.10", "owner=", "pump=true"})
	want := map[string]any{"owner": nil, "facts": map[string]any{"site": "hue", "alarm2_m": 2.1, "pump": true}}
	if err != nil || !reflect.DeepEqual(body, want) {
		t.Errorf("%v, %v; want %v", body, err, want)
	}
}

// TestWatch: it is shown again and again, through troubles, until the end.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out strings.Builder
		shown := 0
		err := watchIt(ctx, &out, func(_ context.Context, out io.Writer) error {
			switch shown++; shown {
			case 2:
				return errors.New("no gateway runs")
			case 4:
				cancel()
			}
			_, err := fmt.Fprintf(out, "table %d\n", shown)
			return err
		})
		if got := out.String(); err != nil || !strings.HasPrefix(got, "table 1\n\n") || !strings.Contains(got, "no gateway runs\n\ntable 3\n") || strings.Contains(got, "table 4") {
			t.Errorf("%v\n%s", err, got)
		}
	})
}
