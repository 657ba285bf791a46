package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/gateway/demo"
)

// testdata returns a recording of the shared collection, or skips the test.
func recording(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("HAIDANG_TESTDATA")
	if dir == "" {
		t.Skip("HAIDANG_TESTDATA is not set: no recordings to replay")
	}
	return filepath.Join(dir, name)
}

// replayed runs `haidang replay` on ports of its own and returns its summary.
func replayed(t *testing.T, args ...string) string {
	t.Helper()
	free := freePorts(t, 2)
	code, stdout, stderr := command(t, append([]string{"replay", "--console", free[0], "--influx", free[1]}, args...)...)
	if code != exitWell {
		t.Fatalf("haidang replay %s: %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// summaryOf finds the line of a summary that begins with key.
func summaryOf(text, key string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, key) {
			return strings.TrimSpace(strings.TrimPrefix(line, key))
		}
	}
	return ""
}

// TestReplayFlood replays a made flood: a sine from 0.5 to 4 m over four days,
// hour by hour, with rows that are no data among them.
func TestReplayFlood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var csv strings.Builder
	csv.WriteString("when;stage;rain\n")
	start := time.Date(2025, 10, 25, 0, 0, 0, 0, time.UTC)
	level := func(hour int) float64 { return 2.25 - 1.75*math.Cos(2*math.Pi*float64(hour)/96) }
	for hour := range 97 {
		fmt.Fprintf(&csv, "%s;%.2f;%d\n", start.Add(time.Duration(hour)*time.Hour).Format("02/01/2006 15:04"), level(hour), hour%7)
		if hour%40 == 20 {
			csv.WriteString("27/10/2025 25:00;1;1\n;;\n")
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("flood.csv", csv.String())
	columns := write("map.yaml", `
device: kim-long
delimiter: ";"
time: {column: when, format: "02/01/2006 15:04", zone: "+07:00"}
columns: {stage: {to: river.level_m}, rain: {to: rain.rain_1h_mm}}
`)
	write("rules.yaml", floodRule)
	write("devices.yaml", "devices: [{id: kim-long, kinds: [river], interval: 1h, facts: {alarm1_m: 1, alarm2_m: 2, alarm3_m: 3.5}}]\n")
	centre := newRecipient(t)
	cfg := write("gateway.yaml", fmt.Sprintf("devices: devices.yaml\nrules: [rules.yaml]\nioc: [{name: ioc, webhook: {url: %q}}]\n", centre.url))
	first := replayed(t, "--config", cfg, "--map", columns, file)
	if got := summaryOf(first, "accepted"); got != "194 readings" {
		t.Errorf("accepted %s", got)
	}
	if got := summaryOf(first, "rejected"); got != "4, 4 bad_time" {
		t.Errorf("rejected %s", got)
	}
	// The hours at which the levels of Kim Long are passed, by the same sine.
	var want []string
	for _, c := range []struct {
		hour     int
		severity string
		state    string
	}{
		{passes(level, 1.00, 0), "moderate", "active"}, {passes(level, 2.00, 0), "severe", "active"}, {passes(level, 3.50, 0), "extreme", "active"},
		{falls(level, 3.45), "severe", "active"}, {falls(level, 1.95), "moderate", "active"}, {falls(level, 0.95), "moderate", "cleared"},
	} {
		at := start.Add(time.Duration(c.hour) * time.Hour).Format("2006-01-02 15:04:05")
		want = append(want, fmt.Sprintf("%s  %-8s  %-12s", at, c.severity, c.state))
	}
	var got []string
	for line := range strings.Lines(first) {
		if strings.Contains(line, " kim-long ") {
			got = append(got, strings.TrimSpace(line)[:len(want[0])])
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("transitions:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := len(centre.got()); n != 0 {
		t.Errorf("%d warnings of a replay were sent to the recipients", n)
	}
	if second := replayed(t, "--config", cfg, "--map", columns, file); second != first {
		t.Errorf("the second run differs:\n%s", second)
	}
	if paced := replayed(t, "--deliver", "--speed", "400000", "--config", cfg, "--map", columns, file); paced != first {
		t.Errorf("the paced run differs:\n%s", paced)
	}
	if n := len(centre.got()); n != len(want) {
		t.Errorf("with --deliver the recipient got %d warnings, want %d", n, len(want))
	}
}

const floodRule = `rules:
  - name: flood-level
    on: river
    levels:
      - {severity: moderate, when: level_m >= device.alarm1_m, clear: level_m < device.alarm1_m - 0.05}
      - {severity: severe, when: level_m >= device.alarm2_m, clear: level_m < device.alarm2_m - 0.05}
      - {severity: extreme, when: level_m >= device.alarm3_m, clear: level_m < device.alarm3_m - 0.05}
`

// TestReplayTellsWhatWasNotJudged: a recording that runs backwards, one with a
// clock of 2090 in it, one without anything, one into a folder that is in use.
func TestReplayTellsWhatWasNotJudged(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	backwards := write("backwards", "river,device=kim-long level_m=1 1761580000000000000\nriver,device=kim-long level_m=5 1761570000000000000\n")
	if text := replayed(t, backwards); !strings.HasPrefix(summaryOf(text, "late"), "1 readings") {
		t.Errorf("backwards:\n%s", text)
	}
	future := write("future", "river,device=kim-long level_m=1 1761570000000000000\nriver,device=kim-long level_m=1 3786912000000000000\nriver,device=kim-long level_m=5 1761570600000000000\n")
	if text := replayed(t, future); summaryOf(text, "rejected") != "1, 1 wrong_time" || !strings.Contains(text, "extreme") {
		t.Errorf("a clock of 2090:\n%s", text)
	}
	free := freePorts(t, 2)
	base := []string{"replay", "--console", free[0], "--influx", free[1]}
	if code, _, stderr := command(t, append(base, "--format", "influx", write("nothing", "no line\n"))...); code != exitFailed || !strings.Contains(stderr, "no reading was accepted") {
		t.Errorf("nothing: %d %s", code, stderr)
	}
	if code, _, stderr := command(t, append(base, "--data", dir, backwards)...); code != exitUsage || !strings.Contains(stderr, "is not empty") {
		t.Errorf("a folder in use: %d %s", code, stderr)
	}
}

// passes is the first hour at which the level is at least high.
func passes(level func(int) float64, high float64, from int) int {
	for hour := from; ; hour++ {
		if math.Round(level(hour)*100) >= math.Round(high*100) {
			return hour
		}
	}
}

// falls is the first hour after the peak at which the level is below low.
func falls(level func(int) float64, low float64) int {
	for hour := 48; ; hour++ {
		if math.Round(level(hour)*100) < math.Round(low*100) {
			return hour
		}
	}
}

// TestReplayRealFlood is the Sheepscot river's flood of 2015-10-01.
func TestReplayRealFlood(t *testing.T) {
	if racing {
		t.Skip("TestReplayFlood runs the same under the race detector, in a tenth of the time")
	}
	file := recording(t, "hydro/usgs_01037000_hourly_stage_flow_rain.csv")
	args := []string{"--config", "../deploy/replay/sheepscot.yaml", "--map", "../deploy/replay/sheepscot.map.yaml", file}
	text := replayed(t, args...)
	// 5.29 ft at 17:00 EDT is the first stage over 1.50 m; times are shown in +07.
	for _, want := range []string{
		"2015-10-01 04:00:00  moderate  active", "2015-10-01 09:00:00  severe    active", "2015-10-01 20:00:00  extreme   active",
		"2015-10-03 04:00:00  severe    active", "2015-10-05 11:00:00  moderate  cleared",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if again := replayed(t, args...); again != text {
		t.Error("the second run differs")
	}
}

// TestReplayAIS replays a coast station's stream with foreign sentences between.
func TestReplayAIS(t *testing.T) {
	text := replayed(t, recording(t, "ais/amsa/ais.txt.gz"))
	// Several base stations hear a vessel: nearly a third of the messages are
	// heard again.
	if got := summaryOf(text, "accepted"); got != "18762 readings" {
		t.Errorf("accepted %s", got)
	}
	if got := summaryOf(text, "merged"); got != "9816 messages heard again, 114 of facts that did not change" {
		t.Errorf("merged %s", got)
	}
	if got := summaryOf(text, "read"); !strings.Contains(got, "32501 messages") {
		t.Errorf("read %s", got)
	}
}

// TestReplayKeeps serves what was replayed until it is stopped.
func TestReplayKeeps(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "lines.txt")
	lines := "# exported\nriver,device=kim-long level_m=2.5 1761570000000000000\nriver,device=kim-long level_m= 1\nriver,device=kim-long level_m=2.6\n"
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	g := prepare(t, "")
	g.launch("replay", "--keep", "--console", g.ports.console, "--influx", g.ports.influx, "--start", "2025-10-27T20:10:00+07:00", file)
	eventually(t, "the warning is served", 10*time.Second, func() bool {
		status, body := g.try("/api/v1/warnings")
		return status == 200 && strings.Contains(body, `"severity":"severe"`) && strings.Contains(body, `"start":"2025-10-27T13:00:00Z"`)
	})
	eventually(t, "both readings are stored", 5*time.Second, func() bool { return len(g.rows("SELECT level_m FROM river")) == 2 })
	eventually(t, "it says so", 5*time.Second, func() bool { return strings.Contains(g.output.String(), "all is read") })
	if code := g.stop(); code != exitWell {
		t.Errorf("exit code %d\n%s", code, g.output)
	}
	if !strings.Contains(g.output.String(), "rejected  1, 1 bad_line_protocol") {
		t.Errorf("summary:\n%s", g.output)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "haidang-replay-*", "spool")); len(left) > 0 {
		t.Logf("other replays have folders: %v", left)
	}
}

// TestDemo runs the demo faster than life until its flood has passed, stops it
// and starts it again on the same folder.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := demoOn(t, dir)
	for _, severity := range []string{"MODERATE  raised   Kim Long", "SEVERE    rises    Kim Long", "EXTREME   rises    Kim Long", "cleared  Kim Long", "raised   TTH 99912"} {
		eventually(t, severity+" is shown", 60*time.Second, func() bool { return strings.Contains(g.shown(), severity) })
	}
	first := g.stop(t)
	if !strings.Contains(first, "goes on from here") {
		t.Errorf("the end:\n%s", first)
	}
	again := demoOn(t, dir)
	eventually(t, "the second start shows warnings", 30*time.Second, func() bool { return strings.Contains(again.shown(), "Nam Đông") })
	again.stop(t)
}

type runningDemo struct {
	out    *lockedBuffer
	cancel context.CancelFunc
	ended  chan error
}

func (d *runningDemo) shown() string { return d.out.String() }

func (d *runningDemo) stop(t *testing.T) string {
	t.Helper()
	d.cancel()
	select {
	case err := <-d.ended:
		if err != nil {
			t.Fatalf("the demo ended with %v\n%s", err, d.out)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the demo still runs 10 s after it was stopped")
	}
	return d.out.String()
}

func demoOn(t *testing.T, dir string) *runningDemo {
	t.Helper()
	free := freePorts(t, 6)
	at := demo.Addresses{MQTT: free[0], NMEA: free[1], Modbus: free[2], IOC: free[3], Console: free[4], Influx: free[5]}
	ctx, cancel := context.WithCancel(context.Background())
	d := &runningDemo{out: &lockedBuffer{}, cancel: cancel, ended: make(chan error, 1)}
	go func() { d.ended <- runDemo(ctx, environment{stdout: d.out, stderr: d.out}, dir, 4, at) }()
	t.Cleanup(cancel)
	return d
}
