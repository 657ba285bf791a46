package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStrays: a slip in the name of a source's device or value is told before
// it makes a series of its own.
func TestStrays(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"gateway.yaml": `data: data
devices: devices.yaml
modbus:
  - name: line-1
    connect: tcp://127.0.0.1:502
    units:
      - {id: 1, device: weather-hue, profile: weather-485}
      - {id: 2, device: wether-hue, profile: weather-485}
serial:
  - name: gauge
    connect: serial:///dev/ttyS7
    device: kim-long
    format: pattern
    separator: ";"
    values:
      - {from: "1", to: river.level_m}
      - {from: "2", to: river.levle_m}
      - {from: "3", to: river.depth_cm}
      - {from: "4", to: soil.moisture}
`,
		"devices.yaml": "devices:\n  - {id: kim-long, kinds: [river]}\n  - {id: weather-hue, kinds: [weather]}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, _, stderr := command(t, "check", "--config", filepath.Join(dir, "gateway.yaml"))
	if code != exitWell {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if strings.Contains(stderr, "built-in") {
		t.Errorf("what is odd of built-in rules is told:\n%s", stderr)
	}
	var got []string
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, "modbus[") || strings.Contains(line, "serial[") {
			got = append(got, strings.Replace(strings.TrimSpace(line), dir+string(filepath.Separator), "", 1))
		}
	}
	for i, want := range []string{
		`warning: gateway.yaml:8: modbus[0].units[1].device: device "wether-hue" is not registered: did you mean weather-hue?`,
		"warning: gateway.yaml:17: serial[0].values[1].to: value river.levle_m is not in the catalogue of kinds: did you mean river.level_m?",
		"warning: gateway.yaml:18: serial[0].values[2].to: value river.depth_cm is not in the catalogue of kinds; kind river has river.",
		"warning: gateway.yaml:19: serial[0].values[3].to: value soil.moisture is not in the catalogue of kinds",
	} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Fatalf("no %q in:\n%s", want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 4 {
		t.Errorf("more than was wrong:\n%s", strings.Join(got, "\n"))
	}
}
