package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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

// TestAdmission: a device that came by itself is refused, which outlives a restart,
// reconsidered and approved, and what was held of it is taken in.
func TestAdmission(t *testing.T) {
	t.Parallel()
	g := prepare(t, "unknown_devices: hold\n")
	g.start()
	c := g.client("station")
	g.publish(c, "telemetry/tram-la/river", `{"level_m":1.5,"time":"2025-10-27T13:00:00Z"}`)
	eventually(t, "the reading is held", 10*time.Second, func() bool { return len(g.letters("?reason=held")) == 1 })
	admit := func(body string) (int, string) { return g.post("/api/v1/devices/tram-la/admission", body) }
	if _, page := g.try("/devices"); !strings.Contains(page, `data-device="tram-la"`) || !strings.Contains(page, "chờ duyệt") {
		t.Error("the page does not list who waits")
	}
	if status, answer := admit(`{"do":"refuse","by":"Lan","why":"không rõ của ai"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	if status, answer := admit(`{"do":"refuse","by":"Lan","why":"x"}`); status != http.StatusBadRequest {
		t.Errorf("refused twice: %d %s", status, answer)
	}
	c.Disconnect(0)
	g.kill()
	g.start()
	c = g.client("station-again")
	for range 3 {
		g.publish(c, "telemetry/tram-la/river", `{"level_m":9}`)
	}
	d := g.deviceState("tram-la")
	if d.Refused == nil || d.Refused.By != "Lan" || d.Refused.Why != "không rõ của ai" || d.Held < 3 || d.Readings != 0 {
		t.Errorf("after a restart: %+v", d)
	}
	if n := g.metric("haidang_set_aside_total", `reason="refused"`); n < 3 {
		t.Errorf("%v readings of a refused device are counted", n)
	}
	if status, answer := admit(`{"do":"reconsider","by":"Lan","why":"Đài nhận là của họ"}`); status != http.StatusOK {
		t.Errorf("%d %s", status, answer)
	}
	if status, answer := admit(`{"do":"approve","name":"Trạm lạ","interval":"10m","by":"Lan","why":"đã kiểm tra"}`); status != http.StatusOK || !strings.Contains(answer, `"retried":1`) || !strings.Contains(answer, `"failed":0`) {
		t.Errorf("%d %s", status, answer)
	}
	if d := g.deviceState("tram-la"); !d.Registered || d.Name != "Trạm lạ" || d.Interval != "10m" || d.Refused != nil {
		t.Errorf("approved: %+v", d)
	}
	if status, _ := admit(`{"do":"refuse","by":"Lan","why":"x"}`); status != http.StatusBadRequest {
		t.Errorf("a registered device is refused: %d", status)
	}
	if status, _ := g.post("/api/v1/devices/never-heard/admission", `{"do":"refuse","by":"Lan","why":"x"}`); status != http.StatusNotFound {
		t.Errorf("a device that nobody knows: %d", status)
	}
	g.publish(c, "telemetry/tram-la/river", `{"level_m":1.6,"time":"2025-10-27T13:10:00Z"}`)
	eventually(t, "what was held and what came since are in InfluxDB", 20*time.Second, func() bool {
		rows := g.rows("SELECT level_m FROM river WHERE device = 'tram-la'")
		return len(rows) == 2 && fmt.Sprintf("%v %v", rows[0][1], rows[1][1]) == "1.5 1.6"
	})
	if out := g.must("devices", "changes", "tram-la"); !strings.Contains(out, "không rõ của ai") || !strings.Contains(out, "Đài nhận") {
		t.Errorf("changes: %s", out)
	}
}

// First contact with a device is told once, not once for each start.
func TestContactsOutliveARestart(t *testing.T) {
	g := prepare(t, "rules: []\n")
	for run, want := range []float64{1, 0, 1} {
		if run == 2 { // a file that cannot be read costs the memory, no more
			if err := os.WriteFile(filepath.Join(g.dir, "data", "contacts.json"), []byte("[{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g.start()
		c := g.client("station")
		g.publish(c, "telemetry/tram-la/river", `{"level_m":1.5}`)
		c.Disconnect(0)
		if n := g.metric("haidang_first_contacts_total"); n != want {
			t.Errorf("start %d: %v first contacts, want %v", run+1, n, want)
		}
		if d := g.deviceState("tram-la"); d.Registered || d.FirstContact == nil {
			t.Errorf("start %d: %+v", run+1, d)
		}
		if code := g.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, g.output)
		}
	}
}
