package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestWarningsPreview shows what recipients would be told, without a gateway.
func TestWarningsPreview(t *testing.T) {
	g := prepare(t, `ioc:
  - {name: mail, smtp: {url: "smtps://h", from: a@b, to: [a@b], title: {vi: "{device} {value.level_m} m"}}}
  - {name: siren, siren: {line: line-1, unit: "5", setting: siren}}
  - {name: hook, webhook: {url: "https://h"}}
modbus: [{name: line-1, connect: "tcp://127.0.0.1:502", units: [{id: 5, device: box, profile: relay, writes: [siren]}]}]
profiles: profiles
`)
	g.write("profiles/relay.yaml", "name: relay\nregisters: [{value: siren.on, address: 0, table: coil}]\nwrites: [{name: siren, address: 0, table: coil}]\n")
	name := filepath.Join(g.dir, "gateway.yaml")
	for _, c := range []struct {
		args  string
		code  int
		wants []string
	}{
		{"flood-level kim-long --set level_m=3.6", exitWell, []string{"extreme active: kim-long-flood-level-", "Subject: kim-long 3.6 m", "on: 1 to siren of unit 5", `"level_m": 3.6`}},
		{"flood-level kim-long --set level_m=1.5 --exercise", exitWell, []string{"moderate active", "Subject: DIỄN TẬP: kim-long 1.5 m", "== siren (siren): nothing"}},
		{"flood-level kim-long --set river.level_m=0..4 --recipient siren", exitWell, []string{"extreme active", "on: 1"}},
		{"flood-level kim-long --set level_m=0.2", exitFailed, []string{"is not raised for kim-long by level_m=0.2"}},
		{"flood-level kim-long", exitFailed, []string{"by silence"}},
		{"flood-level kim-long --set level_x=1", exitUsage, []string{`no value "level_x"`}},
		{"flood-level kim-long --set level_m", exitUsage, []string{"is not like level_m=3.6"}},
		{"flood kim-long --set level_m=3.6", exitUsage, []string{`no rule "flood"`}},
		{"flood-level kim-long --set level_m=3.6 --recipient x", exitUsage, []string{`no recipient "x"`}},
		{"flood-level", exitUsage, []string{"a rule and a device"}},
	} {
		code, stdout, stderr := command(t, append([]string{"warnings", "preview", "--config", name}, strings.Fields(c.args)...)...)
		if code != c.code {
			t.Errorf("%s: exit code %d\n%s%s", c.args, code, stdout, stderr)
		}
		for _, want := range c.wants {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("%s: no %q in\n%s%s", c.args, want, stdout, stderr)
			}
		}
	}
}
