package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// inFolder writes files into a folder of the test and returns it.
func inFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func wants(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, got)
		}
	}
}

// TestScenariosOfThePacks plays every scenario of the shipped packs.
func TestScenariosOfThePacks(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := command(t, "rules", "test", filepath.Join("..", "rules", "packs"))
	if code != exitWell {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
}

const riverDevice = "devices: [{id: kim-long, kinds: [river], interval: 10m, facts: {alarm1_m: 1, alarm2_m: 2, alarm3_m: 3.5}}]\n"

func TestRulesTest(t *testing.T) {
	dir := inFolder(t, map[string]string{
		"flood.yaml": floodRule,
		"other.yaml": "rules:\n  - {name: other, on: river, when: level_m > 5, shadow: true}\n",
		"more.yaml":  "rules:\n  - {name: more, on: river, when: level_m > 0.9, inhibited_by: [flood-level]}\n",
		"flood.test.yaml": riverDevice + `rules: [flood.yaml, other.yaml, more.yaml]
scenarios:
  - name: up
    only: [flood-level]
    start: 2025-10-27
    series: [{device: kim-long, kind: river, values: {level_m: "0.8 +0.1x5 2.1"}}]
    expect:
      - {at: 20m, device: kim-long, rule: flood-level, severity: moderate}
      - {at: 1h, device: kim-long, rule: flood-level, severity: severe, values: {level_m: 2.1}}
  - name: in the shadow
    only: [other]
    series: [{device: kim-long, kind: river, values: {level_m: "0 6 0"}}]
    expect:
      - {at: 10m, device: kim-long, rule: other, shadow: true}
      - {at: 20m, device: kim-long, rule: other, state: cleared}
  - name: what would inhibit it is not there
    only: [more]
    series: [{device: kim-long, kind: river, values: {level_m: "0 2"}}]
    expect: [{at: 10m, device: kim-long, rule: more}]
  - name: other rules and a restart
    only: [flood-level]
    series: [{device: kim-long, kind: river, values: {level_m: "0 6x4"}}]
    events: [{at: 5m, rules: [other.yaml]}, {at: 15m, restart: true}]
    expect: [{at: 10m, device: kim-long, rule: other}]
`,
		"wrong/flood.yaml": floodRule,
		"wrong/flood.test.yaml": riverDevice + `scenarios:
  - name: wrong
    series: [{device: kim-long, kind: river, values: {level_m: "0.8 1.2"}}]
    expect:
      - {at: 20m, device: kim-long, rule: flood-level}
`,
	})
	code, stdout, stderr := command(t, "rules", "test", "-v", filepath.Join(dir, "flood.yaml"))
	if code != exitWell {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	wants(t, "the verbose output", stdout, "ok    up  (7 readings, 2 transitions)", "20m       flood-level kim-long active moderate level_m=1", "other kim-long active moderate (shadow)", "well: 4 scenarios")

	report := filepath.Join(dir, "report.xml")
	code, stdout, stderr = command(t, "rules", "test", "--junit", report, dir)
	if code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	wants(t, "the failure", stdout, "FAIL  "+filepath.Join(dir, "wrong", "flood.test.yaml")+":3  wrong", "flood.test.yaml:6\n", "expected  flood-level kim-long active\n", "(10m earlier)")
	wants(t, "the last line", stderr, "1 of 5 scenarios failed")
	text, err := os.ReadFile(report)
	var junit struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
	}
	if err != nil || xml.Unmarshal(text, &junit) != nil || junit.Tests != 5 || junit.Failures != 1 {
		t.Errorf("JUnit: %v\n%s", err, text)
	}
	if code, _, stderr := command(t, "rules", "test", "--run", "shadow$", dir); code != exitWell {
		t.Errorf("--run: %d %s", code, stderr)
	}
	if code, _, stderr := command(t, "rules", "test", "--run", "none like it", dir); code != exitFailed || !strings.Contains(stderr, "no scenario matches") {
		t.Errorf("--run without a match: %d %s", code, stderr)
	}
}

// TestRulesTestFaults: every fault of every file at once, with its line, and
// nothing is played.
func TestRulesTestFaults(t *testing.T) {
	dir := inFolder(t, map[string]string{
		"a.yaml":      "rules:\n  - name: high\n    on: river\n    when: level_n > 1\n",
		"a.test.yaml": "scenarios: [{name: x}]\n",
		"b.yaml":      floodRule,
		"b.test.yaml": riverDevice + `only: [flood-levle]
scenarios: [{name: x}]
`,
		"c.test.yaml": "rules: [b.yaml]\n" + riverDevice + `scenarios:
  - name: x
    series:
      - {device: kim-long, kind: river, values: {level_m: 1 +1}}
  - name: y
    expect: [{at: 1h, device: kim-lomg, rule: flood-level}]
  - name: z
    expext: []
`,
		"d.test.yaml": "rules: [b.yaml]\n" + riverDevice + `scenarios:
  - name: x
    series:
      - {device: kim-long, kind: river, values: {level_m: 1 +1}}
  - name: y
    expect: [{at: 1h, device: kim-lomg, rule: flood-level}]
`,
		"e.test.yaml": "scenarios: [{name: x}]\n",
	})
	code, stdout, stderr := command(t, "rules", "test", dir)
	if code != exitUsage || stdout != "" {
		t.Errorf("exit code %d, want %d\n%s", code, exitUsage, stdout)
	}
	wants(t, "the faults", stderr,
		"a.yaml:4: rules[0].when: unknown name level_n: did you mean level_m?",
		"b.test.yaml:2: only: no rule \"flood-levle\" is there",
		"c.test.yaml:10: scenarios[2].expext: unknown key",
		"d.test.yaml:6: scenarios[0].series[0].values.level_m: \"+1\": write +1x1",
		"d.test.yaml:8: scenarios[1].expect[0].device: device \"kim-lomg\" neither",
		"e.yaml",
		"nothing was started")
	if code, _, stderr := command(t, "rules", "test", inFolder(t, nil)); code != exitUsage || !strings.Contains(stderr, "no *.test.yaml") {
		t.Errorf("an empty folder: %d %s", code, stderr)
	}
}

// TestRulesInit: check and test pass on what init writes, and it writes over
// nothing.
func TestRulesInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "my", "province")
	code, stdout, stderr := command(t, "rules", "init", dir)
	if code != exitWell {
		t.Fatalf("%d %s", code, stderr)
	}
	wants(t, "the list", stdout, filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "rules", "flood.yaml"), "README.md")
	cfg := filepath.Join(dir, "gateway.yaml")
	if code, _, stderr := command(t, "check", "--config", cfg); code != exitWell {
		t.Errorf("check: %d %s", code, stderr)
	}
	if code, stdout, stderr := command(t, "rules", "test", dir); code != exitWell || !strings.Contains(stdout, "own.test.yaml") {
		t.Errorf("test: %d %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = command(t, "rules", "check", "--config", cfg)
	if code != exitWell || strings.Contains(stdout, "own.yaml") {
		t.Errorf("rules check: %d %s%s", code, stdout, stderr)
	}
	if code, _, stderr := command(t, "rules", "init", dir); code != exitFailed || !strings.Contains(stderr, "is there already; nothing was written") {
		t.Errorf("a second init: %d %s", code, stderr)
	}
}

func TestRulesCheck(t *testing.T) {
	dir := inFolder(t, map[string]string{
		"gateway.yaml": "devices: devices.yaml\nrules: [rules.yaml]\n",
		"devices.yaml": riverDevice + "  # more\n",
		"rules.yaml": `rules:
  - {name: well, on: river, when: 'rate(level_m, "1h") > device.alarm1_m'}
  - {name: vessel, on: position, when: speed_kn > 30}
  - {name: beacon, on: position, where: 'device.id startsWith "mmsi-970"', when: nav_status == 14}
`,
		"odd.yaml": `rules:
  - {name: fact, on: river, when: level_m > device.alarm9_m}
  - name: level
    on: river
    levels:
      - {severity: minor, when: level_m > device.alarm1_m}
      - {severity: severe, when: level_m > device.alarm8_m, clear: level_m < device.alarm8_m - 1}
  - {name: windows, on: river, when: 'rate(level_m, "15m") > 1', clear: 'avg(level_m, "5m") < 1 && max(level_m, "1h") < 2'}
  - {name: silence, where: device.alarm1_m == 1, when: 'silent("10m")'}
  - {name: nowhere, on: air, where: device.alarm1_m == 77, when: pm25_ugm3 > 50}
`,
		"broken.yaml": "rules:\n  - {name: a, on: river, when: 'avg(level_m, \"1y\") > 1'}\n  - {name: b, on: rivr, when: level_m > 1}\n",
	})
	cfg := filepath.Join(dir, "gateway.yaml")
	code, stdout, stderr := command(t, "rules", "check", "--config", cfg)
	if code != exitWell || stdout != "well: 3 rules, 0 warnings\n" {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}
	odd := filepath.Join(dir, "odd.yaml")
	code, stdout, _ = command(t, "rules", "check", "--config", cfg, odd)
	var got []string
	for line := range strings.Lines(stdout) {
		got = append(got, strings.Replace(strings.TrimSpace(line), dir+string(filepath.Separator), "", 1))
	}
	want := []string{
		"warning: odd.yaml:2: rules[0]: rule fact applies to no device: no device has the fact alarm9_m: did you mean alarm1_m?",
		"warning: odd.yaml:7: rules[1].levels[1].when: no device has the fact alarm8_m: did you mean alarm1_m?",
		`warning: odd.yaml:8: rules[2].when: the window rate(..., "15m") is too short for kim-long, which reports every 10m: it never holds the two readings that rate needs`,
		`warning: odd.yaml:8: rules[2].clear: the window avg(..., "5m") is too short for kim-long, which reports every 10m: it holds one reading at most`,
		`warning: odd.yaml:9: rules[3].when: silent("10m") is not longer than the interval 10m of kim-long: it raises between two readings`,
		"warning: odd.yaml:10: rules[4]: rule nowhere applies to no device: none reports its kind and has what where and its conditions ask for",
		"well: 5 rules, 6 warnings",
	}
	if code != exitWell || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%d\n%s\nwant\n%s", code, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if code, _, _ := command(t, "rules", "check", "--strict", "--config", cfg, odd); code != exitFailed {
		t.Errorf("--strict: exit code %d", code)
	}
	code, _, stderr = command(t, "rules", "check", "--config", cfg, filepath.Join(dir, "broken.yaml"))
	wants(t, "the faults", stderr, "broken.yaml:2: rules[0].when", "broken.yaml:3: rules[1].on", "2 faults")
	if code != exitUsage {
		t.Errorf("with faults: exit code %d", code)
	}
}

// floodLines is a flood wave of two days as line protocol: up to 4 m, and back,
// every ten minutes; one reading is bad, one came an hour late.
func floodLines() string {
	var b strings.Builder
	start := time.Date(2025, 10, 26, 17, 0, 0, 0, time.UTC)
	for i := range 288 {
		level := 0.5 + 3.5*min(float64(i), 288-float64(i))/144
		more := `quality="good"`
		switch i {
		case 20:
			level, more = 50, `quality="bad",level_m_quality="bad"`
		case 24:
			more = `quality="good",delay_s=3600`
		}
		fmt.Fprintf(&b, "river,device=kim-long,site=kim-long level_m=%.4f,%s %d\n", level, more, start.Add(time.Duration(i)*10*time.Minute).UnixNano())
	}
	return b.String()
}

// TestRulesBacktest tries rules on the same flood in a file, in a running
// gateway's InfluxDB, and in its data folder once it has stopped.
func TestRulesBacktest(t *testing.T) {
	t.Parallel()
	g := prepare(t, "devices: devices.yaml\nrules: [rules.yaml]\n")
	g.write("devices.yaml", riverDevice)
	g.write("rules.yaml", floodRule)
	g.write("new.yaml", strings.Replace(floodRule, "level_m >= device.alarm1_m,", "level_m >= device.alarm1_m + 0.5,", 1)+
		"  - {name: fast, on: river, severity: minor, when: 'rate(level_m, \"3h\") > 0.1 && level_m > 1'}\n")
	g.write("flood.lp", floodLines())
	at := func(name string) string { return filepath.Join(g.dir, name) }
	cfg := at("gateway.yaml")
	tried := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append([]string{"rules", "backtest", "--config", cfg, "--from", "2025-10-27", "--to", "2025-10-29"}, args...)...)
		if code != exitWell {
			t.Fatalf("%q: %d\n%s%s", args, code, stdout, stderr)
		}
		return stdout
	}
	fromFile := tried(at("flood.lp"))
	wants(t, "the report", fromFile, "288 readings of 1 device", "flood-level  kim-long  1       0", "extreme",
		// 1 m is reached at the 21st reading, 3 h 30 m; below 0.95 m at the 270th.
		"  2025-10-27 03:30  41h30m")

	// A replay receives as the past did; what a gateway is sent today it
	// receives today.
	replayed(t, "--config", cfg, "--data", at("data"), at("flood.lp"))
	if stored := tried(); stored != fromFile {
		t.Errorf("of the file:\n%s\nof the folder:\n%s", fromFile, stored)
	}
	g.start()
	if running := tried(); running != fromFile {
		t.Errorf("of the file:\n%s\nof the running gateway:\n%s", fromFile, running)
	}
	if elsewhere := tried("--influx", "http://"+g.ports.influx); elsewhere != fromFile {
		t.Errorf("of the file:\n%s\nof a server:\n%s", fromFile, elsewhere)
	}

	compared := tried("--rules", at("new.yaml"), "--compare", at("flood.lp"))
	wants(t, "the comparison", compared, "against the rules that are live now, in the gateway that runs on "+at("data")+": 0 the same, 1 changed, 0 only now, 1 only new", "only with the new rules:\n  fast kim-long", "    now: 2025-10-27 03:30")
	var report struct {
		Rows []struct {
			Rule    string
			Minutes float64 `json:"minutes_in_alarm"`
		}
		Comparison struct {
			OnlyNew []struct{ Rule string } `json:"only_new"`
		}
	}
	if err := json.Unmarshal([]byte(tried("--rules", at("new.yaml"), "--compare", "--json", "--rule", "fast", at("flood.lp"))), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 1 || report.Rows[0].Rule != "fast" || report.Rows[0].Minutes <= 0 || len(report.Comparison.OnlyNew) != 1 {
		t.Errorf("JSON: %+v", report)
	}
	// What is live is what the gateway runs on, and once it has stopped what it
	// left, whatever the files say by now.
	g.write("rules.yaml", strings.Replace(floodRule, "flood-level", "renamed", 1))
	again := tried("--rules", at("new.yaml"), "--compare", at("flood.lp"))
	wants(t, "the comparison with what is not reloaded", again, "in the gateway that runs on ", "0 the same, 1 changed, 0 only now, 1 only new")
	g.stop()
	again = tried("--rules", at("new.yaml"), "--compare", at("flood.lp"))
	wants(t, "the comparison with what was left", again, "those that a gateway left in "+at("data")+" at 20", "0 the same, 1 changed, 0 only now, 1 only new")
	again = tried("--rules", at("new.yaml"), "--compare", "--data", at("empty"), at("flood.lp"))
	wants(t, "the comparison with the configuration", again, "those of the configuration (no gateway has run on ", "0 the same, 0 changed, 1 only now, 2 only new")
	if got := tried("--device", "phu-oc", at("flood.lp")); !strings.Contains(got, "no warning would have been raised") {
		t.Errorf("of another device: %s", got)
	}
}

func TestRulesBacktestUsage(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "--from is missing"},
		{[]string{"--from", "last week"}, exitUsage, "--from: \"last week\" is not a time"},
		{[]string{"--from", "2025-10-02", "--to", "2025-10-01"}, exitUsage, "is not before"},
		{[]string{"--from", "2025-10-01", "--compare"}, exitUsage, "--compare needs --rules"},
		{[]string{"--from", "2025-10-01", "--rule", "none"}, exitUsage, "no rule \"none\""},
		{[]string{"--from", "2025-10-01", "--gap", "long"}, exitUsage, "--gap"},
		{[]string{"--from", "2025-10-01", "--rules", filepath.Join(empty, "*.yaml")}, exitUsage, "no file matches"},
		{[]string{"--from", "2025-10-01", "--data", empty}, exitFailed, "there is no store in"},
		{[]string{"--from", "2025-10-01", "--influx", "http://127.0.0.1:1"}, exitFailed, "127.0.0.1:1"},
		{[]string{filepath.Join(empty, "none.csv")}, exitFailed, "none.csv"},
	} {
		code, _, stderr := command(t, append([]string{"rules", "backtest"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: %d, want %d with %q\n%s", c.args, code, c.code, c.want, stderr)
		}
	}
}

// TestRulesExplain tells the story of a warning that was raised, acknowledged
// and cleared.
func TestRulesExplain(t *testing.T) {
	g := prepare(t, "devices: devices.yaml\nrules: [rules.yaml]\n")
	g.write("devices.yaml", riverDevice)
	g.write("rules.yaml", floodRule)
	g.start()
	c := g.client("t")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":2.5}`)
	eventually(t, "a warning", 10*time.Second, func() bool { return len(g.warnings("")) == 1 })
	w := g.warnings("")[0]
	act := fmt.Sprintf(`{"n":%d,"by":"Lan","text":"đã gọi trạm"}`, w.N)
	response, err := http.Post("http://"+g.ports.console+"/api/v1/warnings/"+w.ID+"/ack", "application/json", strings.NewReader(act))
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("ack: %v %v", err, response)
	}
	response.Body.Close()
	_, list, _ := command(t, "rules", "explain", "--data", filepath.Join(g.dir, "data"))
	wants(t, "the list", list, w.ID, "acknowledged")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":0.5}`)
	eventually(t, "it clears", 10*time.Second, func() bool { return len(g.warnings("")) == 0 })

	code, story, stderr := command(t, "rules", "explain", "--config", filepath.Join(g.dir, "gateway.yaml"), w.ID)
	if code != exitWell {
		t.Fatalf("%d %s", code, stderr)
	}
	wants(t, "the story", story, "flood-level at kim-long: cleared; raised ", "rule       flood-level on river", "condition  level_m >= device.alarm2_m",
		"  Đã hết: flood-level: ", "saw        level_m = 0.5", "source     broker", "goes to    all recipients", `ack by Lan: "đã gọi trạm"`, "  1  ", "  2  ", "  3  ")
	code, raw, _ := command(t, "rules", "explain", "--json", "--address", g.ports.console, w.ID)
	var transitions []telemetry.Transition
	if err := json.Unmarshal([]byte(raw), &transitions); err != nil || code != exitWell || len(transitions) != 3 || transitions[1].Act == nil || transitions[2].State != telemetry.Cleared {
		t.Errorf("%d %v %s", code, err, raw)
	}
	for id, want := range map[string]string{"no-such-warning": "there is no warning", "a/b": "there is no"} {
		if code, _, stderr := command(t, "rules", "explain", "--address", g.ports.console, id); code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("of %s: %d %s", id, code, stderr)
		}
	}
	if code, _, stderr := command(t, "rules", "explain", "--data", g.dir); code != exitFailed || !strings.Contains(stderr, "no gateway runs on the data folder") {
		t.Errorf("of another folder: %d %s", code, stderr)
	}
	if code, _, stderr := command(t, "rules", "explain", "--address", "127.0.0.1:1"); code != exitFailed || !strings.Contains(stderr, "no gateway answers") {
		t.Errorf("without a gateway: %d %s", code, stderr)
	}
}

func TestRulesHelp(t *testing.T) {
	for _, args := range [][]string{{"rules", "--help"}, {"help", "rules"}} {
		code, stdout, _ := command(t, args...)
		if code != exitWell {
			t.Errorf("%q: %d", args, code)
		}
		wants(t, "the help", stdout, "haidang rules test ", "haidang rules backtest ", "haidang rules check ", "haidang rules init ", "haidang rules explain ")
	}
	for _, name := range []string{"test", "backtest", "check", "init", "explain"} {
		for _, args := range [][]string{{"rules", name, "--help"}, {"help", "rules", name}, {"rules", "help", name}} {
			code, stdout, _ := command(t, args...)
			if code != exitWell {
				t.Errorf("%q: %d", args, code)
			}
			wants(t, "the help", stdout, "haidang rules "+name, "For example:")
		}
	}
	for _, args := range [][]string{{"rules"}, {"rules", "tset"}} {
		if code, _, stderr := command(t, args...); code != exitUsage || !strings.Contains(stderr, "haidang rules test ") {
			t.Errorf("%q: %d %s", args, code, stderr)
		}
	}
}
