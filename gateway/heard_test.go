package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLastHeardOutlivesRestart: after a restart the list of devices says when a
// silent one was last heard, and a file that is damaged costs that only.
func TestLastHeardOutlivesRestart(t *testing.T) {
	t.Parallel()
	g := prepare(t, "")
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":0.4}`)
	eventually(t, "it was heard", 5*time.Second, func() bool { return g.deviceState("kim-long").Heard != nil })
	at := *g.deviceState("kim-long").Heard
	if code := g.stop(); code != exitWell {
		t.Fatalf("exit code %d\n%s", code, g.output)
	}
	g.start()
	d := g.deviceState("kim-long")
	if d.Heard == nil || !d.Heard.Equal(at) || d.State != "unheard" || len(d.Problems) != 0 {
		t.Errorf("after a restart: heard %v, state %s, problems %q; want %v, unheard and none", d.Heard, d.State, d.Problems, at)
	}
	if never := g.deviceState("phu-oc"); never.Heard != nil {
		t.Errorf("a device that never reported was heard %v", never.Heard)
	}
	g.stop()
	if err := os.WriteFile(filepath.Join(g.dir, "data", "heard.json"), []byte("{\"kim"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.start()
	if d := g.deviceState("kim-long"); d.Heard != nil {
		t.Errorf("heard %v, from a damaged file", d.Heard)
	}
}
