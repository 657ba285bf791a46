package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// notHere begins documented commands that this test does not run, with where they
// are run instead.
func notHere() map[string]string {
	return map[string]string{
		"run":              "the gateway of this test is it",
		"replay ":          "TestReplay, on recordings",
		"decode ais":       "TestE2EDecode, on sentences",
		"rules ":           "TestRules..., in a folder of rules init",
		"drill ":           "TestDrill, on a scenario",
		"recipients test ": "TestTry, with recipients",
		"modbus read ":     "TestModbus..., on an instrument",
		"modbus write ":    "TestModbus..., on an instrument",
	}
}

// TestDocumentedCommandsRun runs the commands of every page in the order in which a
// reader meets them, beside a gateway that runs.
func TestDocumentedCommandsRun(t *testing.T) {
	g := prepare(t, "")
	g.write("gateway.yaml", strings.Replace(read(t, g.dir, "gateway.yaml"), filepath.Join(g.dir, "data"), filepath.Join(g.dir, "haidang-data"), 1))
	g.start()
	g.publish(g.client("kim-long"), "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the warning of the README", 5*time.Second, func() bool { return len(g.warnings("")) > 0 })
	place := strings.NewReplacer("/etc/haidang/", g.dir+"/", "/var/lib/haidang", filepath.Join(g.dir, "haidang-data"), "/mnt/usb/", g.dir+"/",
		"kim-long-flood-level-3f9a", g.warnings("")[0].ID, "NAME", "kim-long", "my-station", "kim-long")
	ran := 0
	for _, page := range pages(t) {
		all := shown(t, page)
		for _, at := range slices.Sorted(maps.Keys(all)) {
			_, line, ok := strings.Cut(" "+all[at], " haidang ")
			if !ok || strings.Contains(all[at], "docker") || strings.Contains(all[at], "systemctl") {
				continue
			}
			if slices.ContainsFunc(slices.Collect(maps.Keys(notHere())), func(start string) bool { return strings.HasPrefix(line+" ", start) }) {
				continue
			}
			ran++
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(page), at), func(t *testing.T) {
				t.Chdir(g.dir)
				args := words(place.Replace(line))
				if args[0] == "account" && args[1] == "add" { // two pages make the same one
					_, _, _ = typed(t, "", "account", "remove", args[2])
				}
				code, out, said := typed(t, "a long password for lan\n", args...)
				if code != exitWell {
					t.Errorf("haidang %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, said)
				}
			})
		}
	}
	if ran < 25 {
		t.Errorf("only %d commands were run", ran)
	}
}
