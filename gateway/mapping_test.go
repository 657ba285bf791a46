package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMappingVerbs tries payloads, lists mappings and shows one.
func TestMappingVerbs(t *testing.T) {
	name := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(name, []byte("mappings:\n  - {use: tasmota}\n  - {name: all, topic: \"tele/#\", device: x, kind: river, values: {level_m: l}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, payload string
		code          int
		want          []string
	}{
		{"try --topic tele/a/SENSOR --config " + name, `{"AM2301":{"Temperature":99}}`, exitWell, []string{"# mapping tasmota", "a weather temperature_c=99 at the time of receipt", "device a is not registered", "outside the range"}},
		{"try --topic tele/a/STATE --config " + name, `{"l":{}}`, exitFailed, []string{"# mapping all", "bad_value", "gives no reading"}},
		{"try --topic senml/kim-long", `[{"n":"river/level","u":"m","v":3.62}]`, exitWell, []string{"kim-long river level_m=3.62"}},
		{"try --topic x/y --use shelly", `1`, exitFailed, []string{`topic "x/y" carries no telemetry`, "{device}/events/rpc"}},
		{"try --topic p/events/rpc --use shelly", `{"params":{"ts":1}}`, exitWell, []string{"passed over"}},
		{"try --topic x", ``, exitFailed, []string{"the configuration has none"}},
		{"try", ``, exitUsage, []string{"want --topic"}},
		{"list --config " + name, ``, exitWell, []string{"tasmota-lwt\ttele/{device}/LWT", "all\ttele/#", "built in: chirpstack"}},
		{"show ttn", ``, exitWell, []string{"topic: v3/{application}/devices/{id}/up"}},
		{"show nothing", ``, exitUsage, []string{"is not built in"}},
	} {
		var out bytes.Buffer
		code := execute(context.Background(), environment{stdin: strings.NewReader(c.payload), stdout: &out, stderr: &out}, append([]string{"mapping"}, strings.Fields(c.args)...))
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.args, code, c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", c.args, want, out.String())
			}
		}
	}
	code, _, stderr := command(t, "check", "--config", name)
	if code != exitWell || !strings.Contains(stderr, `gateway.yaml:3: mappings[1].topic: topic "tele/#" shares topics with "tele/{device}/SENSOR"`) {
		t.Error(code, stderr)
	}
}

// Changed mappings are put in force by a reload, and clients stay connected.
func TestMappingsAreReloaded(t *testing.T) {
	const mapped = "rules: []\nmappings: [{topic: \"raw/{device}/level\", format: raw, device: \"{device}\", kind: %s, values: {%s: {}}}]\n"
	g := prepare(t, fmt.Sprintf(mapped, "river", "level_m"))
	file := filepath.Join(g.dir, "gateway.yaml")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g.start()
	c := g.client("station")
	g.publish(c, "raw/kim-long/level", "3.62")
	after := strings.NewReplacer("kind: river", "kind: reservoir", "level_m: {}", "reservoir_level_m: {}").Replace(string(before))
	if err := os.WriteFile(file, []byte(after), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reload is told", 10*time.Second, func() bool { return strings.Contains(g.output.String(), "reloaded") })
	if strings.Contains(g.output.String(), "by a restart only") {
		t.Errorf("a restart is asked for:\n%s", g.output)
	}
	g.publish(c, "raw/kim-long/level", "21.5")
	eventually(t, "both are stored", 20*time.Second, func() bool {
		return len(g.rows("SELECT level_m FROM river WHERE device = 'kim-long'")) == 1 &&
			len(g.rows("SELECT reservoir_level_m FROM reservoir WHERE device = 'kim-long'")) == 1
	})
	if !c.IsConnectionOpen() {
		t.Error("the client was disconnected")
	}
}
