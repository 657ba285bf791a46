package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/telemetry"
)

const drillFile = `
scenarios:
  - name: flood
    start: 2025-10-27 00:00
    series: [{device: kim-long, kind: river, every: 10m, values: {level_m: 0.5x2 1.2 2.2 5 0.1x3}}]
    expect: []
  - name: it stays
    start: 2025-10-27 00:00
    series: [{device: phu-oc, kind: river, every: 10m, values: {level_m: 0.5 9x2}}]
    expect: []
`

// TestDrill plays a flood to the real recipient: every message is marked, nothing
// of it is real or public, and what is left of a drill ends with it and with a
// crash.
func TestDrill(t *testing.T) {
	t.Parallel()
	centre := newRecipient(t)
	g := prepare(t, "ioc:\n"+entryOf("centre", centre.url))
	g.start()
	file := filepath.Join(g.dir, "drill.test.yaml")
	if err := os.WriteFile(file, []byte(drillFile), 0o600); err != nil {
		t.Fatal(err)
	}
	public := make(chan string, 100)
	client := g.client("listener")
	if token := client.Subscribe("warnings/#", 1, func(_ paho.Client, m paho.Message) { public <- m.Topic() }); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	if out := g.must("drill", "start", file, "--name", "flood", "--speed", "10000", "--why", "diễn tập"); !strings.Contains(out, `exercise "flood" by lan (diễn tập)`) {
		t.Errorf("haidang drill start: %s", out)
	}
	eventually(t, "the flood is over", 30*time.Second, func() bool {
		return slices.ContainsFunc(centre.got(), func(w telemetry.Warning) bool { return w.State == telemetry.Cleared })
	})
	highest := telemetry.NoSeverity
	for _, w := range centre.got() {
		highest = max(highest, w.Severity)
		if !w.Exercise || !strings.HasPrefix(w.ID, "drill-") || w.Device != "kim-long" || time.Since(w.Start) > time.Minute {
			t.Errorf("told of %+v", w)
		}
	}
	if highest != telemetry.Extreme {
		t.Errorf("the highest was %s", highest)
	}
	eventually(t, "the drill is over", 5*time.Second, func() bool { return strings.Contains(g.must("drill"), "no exercise runs") })

	g.must("drill", "start", file, "--name", "it stays", "--speed", "10000", "--why", "diễn tập")
	if _, problems, code := g.verb("drill", "start", file, "--name", "flood", "--why", "x"); code == exitWell && !strings.Contains(g.must("drill"), "flood") {
		t.Errorf("a second drill: %d %s", code, problems)
	}
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("?device=phu-oc")) > 0 })
	g.kill()
	g.start()
	eventually(t, "a crash ends a drill", 5*time.Second, func() bool { return len(g.warnings("")) == 0 })
	select {
	case topic := <-public:
		t.Errorf("a client of the broker was told of %s", topic)
	default:
	}

	for body, field := range map[string]string{
		`{"do":"start","scenario":"scenarios: [","by":"Lan","why":"x"}`:  "scenario",
		`{"do":"start","scenario":"scenarios: []","by":"Lan","why":"x"}`: "",
		`{"do":"stop","by":"Lan","why":"x"}`:                             "do",
		`{"do":"end","by":"Lan"}`:                                        "why",
		`{"do":"end","why":"x"}`:                                         "by",
		`{"do":"start","loud":true}`:                                     "loud",
		`{"do":"start","speed":"fast","by":"Lan","why":"x"}`:             "speed",
		`{"do":1}`:                          "do",
		`{"do":"end","by":"Lan","why":" "}`: "why",
		`{"do":"end","by":"` + strings.Repeat("x", 200) + `","why":"x"}`:   "by",
		`{"do":"start","speed":-1,"by":"Lan","why":"x","scenario":"x: 1"}`: "speed",
	} {
		if status, answer := g.post("/api/v1/drill", body); status != http.StatusBadRequest || field != "" && !strings.Contains(answer, `"field":"`+field+`"`) {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
}
