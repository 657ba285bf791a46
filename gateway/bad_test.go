package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// command runs one command line within this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patient(30*time.Second))
	defer cancel()
	code = execute(ctx, environment{stdin: strings.NewReader(""), stdout: &out, stderr: &err}, args)
	return code, out.String(), err.String()
}

// TestThreeFaults is one configuration with three faults in two files.
func TestThreeFaults(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("gateway.yaml", `data: data
modbus:
  - name: line-1
    connect: tcp://127.0.0.1:502
    units:
      - {id: 300, device: pump, profile: weather-485}
spool: {max_bites: 1GiB}
devices: devices.yaml
rules: [rules.yaml]
`)
	write("devices.yaml", "devices:\n  - {id: kim-long, kinds: [river], facts: {alarm1_m: 1}}\n")
	write("rules.yaml", "rules:\n  - name: flood\n    on: river\n    when: level_n >= device.alarm1_m\n")
	for _, verb := range []string{"check", "run"} {
		code, _, stderr := command(t, verb, "--config", filepath.Join(dir, "gateway.yaml"))
		if code != exitUsage {
			t.Errorf("%s: exit code %d, want %d", verb, code, exitUsage)
		}
		for _, want := range []string{
			"gateway.yaml:6: modbus[0].units[0].id: unit id 300 is not in 1..247",
			`gateway.yaml:7: spool.max_bites: unknown key "max_bites"; did you mean "max_bytes"?`,
			"rules.yaml:4: rules[0].when: ", "did you mean level_m?", "3 faults; nothing was started",
		} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: no %q in:\n%s", verb, want, stderr)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
			t.Errorf("%s made the data folder", verb)
		}
	}
}

// TestBadConfigurations checks each configuration of testdata/bad: every fault
// that its lines "# want: " name is told, and no other.
func TestBadConfigurations(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal("no configuration in testdata/bad", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			code, _, stderr := command(t, "check", "--config", name)
			if code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			wants := 0
			for line := range strings.Lines(string(text)) {
				want, ok := strings.CutPrefix(strings.TrimSpace(line), "# want: ")
				if !ok {
					continue
				}
				wants++
				if !strings.Contains(stderr, "testdata/bad/"+want) {
					t.Errorf("no %q", want)
				}
			}
			if got := strings.Count(stderr, "testdata/bad/"); got != wants || wants == 0 {
				t.Errorf("%d faults, want %d:\n%s", got, wants, stderr)
			}
		})
	}
}

// TestShippedConfigurations loads every configuration that the project ships.
func TestShippedConfigurations(t *testing.T) {
	for _, name := range []string{"", "../deploy/station/gateway.yaml", "../deploy/replay/sheepscot.yaml", "demo/gateway.yaml"} {
		args := []string{"check"}
		if name != "" {
			args = append(args, "--config", name)
		}
		if code, stdout, stderr := command(t, args...); code != exitWell || !strings.HasPrefix(stdout, "well: ") {
			t.Errorf("check %s: %d %s%s", name, code, stdout, stderr)
		}
	}
}

// TestOneClearLine is what keeps a gateway from starting: one line, exit code 1.
func TestOneClearLine(t *testing.T) {
	expect := func(name string, g *gatewayProcess, wants ...string) {
		t.Helper()
		g.launch("run", "--config", filepath.Join(g.dir, "gateway.yaml"))
		select {
		case <-g.ended:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: it runs", name)
		}
		text := strings.TrimSpace(g.output.String())
		if code := g.cmd.ProcessState.ExitCode(); code != exitFailed || strings.Count(text, "\n") > 0 {
			t.Errorf("%s: exit code %d and\n%s\nwant 1 and one line", name, code, text)
		}
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %s", name, want, text)
			}
		}
	}

	for i, key := range []string{"broker", "influx", "console", "ais"} {
		g := prepare(t, "")
		address := []string{g.ports.mqtt, g.ports.influx, g.ports.console, g.ports.nmea}[i]
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(address)
		expect("occupied port of "+key, g, port)
		l.Close()
	}

	first := prepare(t, "")
	first.start()
	second := prepare(t, "")
	second.write("gateway.yaml", strings.Replace(read(t, second.dir, "gateway.yaml"), filepath.Join(second.dir, "data"), filepath.Join(first.dir, "data"), 1))
	expect("second instance", second, "in use by another haidang", fmt.Sprint(first.cmd.Process.Pid))
	if status, _ := first.try("/readyz"); status != 200 {
		t.Error("the first instance is disturbed")
	}

	file := prepare(t, "")
	file.write("data", "a file, where the folder should be")
	expect("unwritable data folder", file, filepath.Join(file.dir, "data"))
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"fly"}, {"run", "--fast"}, {"run", "now"}, {"replay"}, {"decode", "png", "x"}, {"replay", "--rate", "0", "x"}, {"replay", "--start", "then", "x"}, {"demo", "--speed", "0"}, {"demo", "--speed", "NaN"}} {
		if code, _, stderr := command(t, args...); code != exitUsage || stderr == "" {
			t.Errorf("haidang %s: exit code %d, %q; want 2 and a reason", strings.Join(args, " "), code, stderr)
		}
	}
	for _, v := range verbs() {
		words := [][]string{{v.name}}
		for _, one := range v.verbs {
			words = append(words, []string{v.name, one.name})
		}
		for _, line := range words {
			code, stdout, _ := command(t, append(line, "--help")...)
			if name := strings.Join(line, " "); code != exitWell || !strings.Contains(stdout, "For example:") || !strings.Contains(stdout, "haidang "+name) {
				t.Errorf("%s --help: %d\n%s", name, code, stdout)
			}
		}
	}
	if code, _, stderr := command(t, "replay", "/no/such/file"); code != exitFailed || !strings.Contains(stderr, "/no/such/file") {
		t.Errorf("a missing file: %d %s", code, stderr)
	}
}

// TestBadPayloads: each is acknowledged, set aside or stored as the semantics
// say, counted, and disturbs nothing else.
func TestBadPayloads(t *testing.T) {
	g := prepare(t, "")
	g.start()
	c := g.client("station")
	cases := []struct{ topic, payload, reason string }{
		{"telemetry/kim-long/river", "{", "bad_json"},
		{"telemetry/kim-long/river", `{"level_m": NaN}`, "bad_json"},
		{"telemetry/kim-long/river", `{"note":"` + strings.Repeat("x", 300<<10) + `"}`, "too_large"},
		{"telemetry/kim,long/river", `{"level_m": 1}`, "bad_name"},
		{`telemetry/kim"long/river`, `{"level_m": 1}`, "bad_name"},
		{"telemetry/kim-long/river", `{"n": 9007199254740993}`, "integer_too_large"},
		{"influx/kim-long", "river level_m=", "bad_line"},
	}
	for _, bad := range cases {
		g.publish(c, bad.topic, bad.payload)
		if n := g.metric("haidang_set_aside_total", fmt.Sprintf("reason=%q", bad.reason)); n < 1 {
			t.Errorf("%.40s: reason %s is not counted", bad.payload, bad.reason)
		}
		if _, body := g.try("/api/v1/deadletters"); !strings.Contains(body, bad.reason) {
			t.Errorf("%.40s: reason %s is not listed", bad.payload, bad.reason)
		}
	}
	if n := g.metric("haidang_set_aside_total"); n != float64(len(cases)) {
		t.Errorf("%v set aside, want %d", n, len(cases))
	}

	g.publish(c, "telemetry/kim-long/river", `{"level_m": 0.11, "time": 3600}`)
	g.publish(c, "telemetry/kim-long/river", `{"level_m": 0.12, "time": "2090-01-01T00:00:00Z"}`)
	eventually(t, "wrong times are stored at receipt, suspect, with the device's time", 3*time.Second, func() bool {
		rows := g.rows("SELECT level_m, quality, device_time_text FROM river WHERE time > now() - 1m AND time < now() + 1m")
		return fmt.Sprint(cells(rows)) == "[0.11 suspect 1970-01-01T01:00:00Z 0.12 suspect 2090-01-01T00:00:00Z]"
	})
	if n := g.metric("haidang_wrong_device_time_total"); n != 2 {
		t.Errorf("%v wrong times counted, want 2", n)
	}

	// A packet of 2 MB ends its own connection and no other.
	big, err := net.Dial("tcp", g.ports.mqtt)
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	fmt.Fprint(big, "\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03big")
	answer := make([]byte, 4)
	if _, err := io.ReadFull(big, answer); err != nil || answer[0] != 0x20 {
		t.Fatalf("CONNACK % x, %v", answer, err)
	}
	_, _ = big.Write(append([]byte("\x32\x80\x80\x80\x01"), bytes.Repeat([]byte("x"), 64<<10)...)) // it may be closed meanwhile
	_ = big.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, big); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the connection that sent 2 MB is still open")
	}
	g.publish(c, "telemetry/kim-long/river", `{"level_m": 0.13}`)
	eventually(t, "the neighbour is undisturbed", 2*time.Second, func() bool {
		return fmt.Sprint(cells(g.rows("SELECT last(level_m) FROM river"))) == "[0.13]"
	})
}

// cells returns the values of rows without their times.
func cells(rows [][]any) []any {
	var out []any
	for _, row := range rows {
		out = append(out, row[1:]...)
	}
	return out
}
