package main

import (
	"fmt"
	"testing"
	"time"
)

// TestBridge lets one gateway take messages in from the broker of another, by a
// mapping, and forward its own readings there.
func TestBridge(t *testing.T) {
	province := prepare(t, "")
	province.start()
	box := prepare(t, fmt.Sprintf(`mappings: [{use: tasmota}]
bridges:
  - name: province
    connect: mqtt://%s
    subscribe: ["tele/#"]
    forward: {topic: "telemetry/{device}/{kind}", kinds: [river]}
`, province.ports.mqtt))
	box.start()
	level := func(g *gatewayProcess, query string) func() bool {
		return func() bool {
			rows := g.rows(query)
			return len(rows) == 1 && fmt.Sprint(rows[0][1]) == "3.62"
		}
	}
	box.publish(box.client("station"), "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the reading is at the province", 20*time.Second, level(province, "SELECT last(level_m) FROM river WHERE device = 'kim-long'"))

	eventually(t, "the bridge is up", 20*time.Second, func() bool {
		rows := box.rows("SELECT last(up) FROM link WHERE device = 'province'")
		return len(rows) == 1 && fmt.Sprint(rows[0][1]) == "1"
	})
	province.publish(province.client("sensor"), "tele/vuon/SENSOR", `{"AM2301":{"Temperature":3.62}}`)
	eventually(t, "the message is taken in", 20*time.Second, level(box, "SELECT last(temperature_c) FROM weather WHERE device = 'vuon'"))

	if code := box.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, box.output)
	}
	if code := province.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, province.output)
	}
}
