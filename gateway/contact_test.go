package main

import (
	"fmt"
	"testing"
	"time"
)

// TestUnknownDevicesAreHeld lets a device that nobody registered come by, registers
// it, and takes in what was held.
func TestUnknownDevicesAreHeld(t *testing.T) {
	g := prepare(t, "unknown_devices: hold\n")
	g.start()
	c := g.client("station")
	g.publish(c, "telemetry/tram-la/river", `{"level_m":1.5,"time":"2025-10-27T13:00:00Z"}`)
	eventually(t, "the reading is held", 10*time.Second, func() bool { return len(g.letters("?reason=held")) == 1 })
	if d := g.deviceState("tram-la"); d.Registered || d.FirstContact == nil || d.Held == 0 {
		t.Errorf("%+v", d)
	}
	if g.metric("haidang_first_contacts_total") != 1 {
		t.Error("no first contact")
	}
	held := g.letters("?reason=held")[0].ID
	if _, _, code := g.verb("deadletter", "retry", held); code == 0 {
		t.Error("taken in before it is registered")
	}
	g.must("devices", "set", "tram-la", "name=Trạm lạ", "--why", "đã kiểm tra")
	if d := g.deviceState("tram-la"); !d.Registered || d.FirstContact != nil {
		t.Errorf("%+v", d)
	}
	g.must("deadletter", "retry", "--reason", "held")
	g.publish(c, "telemetry/tram-la/river", `{"level_m":1.6,"time":"2025-10-27T13:10:00Z"}`)
	eventually(t, "both readings are in InfluxDB", 20*time.Second, func() bool {
		rows := g.rows("SELECT level_m FROM river WHERE device = 'tram-la'")
		return len(rows) == 2 && fmt.Sprintf("%v %v", rows[0][1], rows[1][1]) == "1.5 1.6"
	})
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, g.output)
	}
}
