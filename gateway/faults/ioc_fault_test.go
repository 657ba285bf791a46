package faults

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// escalating raises a minor warning for each alarm and an extreme one where the
// reading says 5.
const escalating = `
rules:
  - name: numbered
    on: count
    when: alarm > 0 && n >= 0
    severity: minor
    for: 0s
    flap: {raises: 0}
    message: {vi: '{n} {count(n, "1s")} {sum(n, "1s")}', en: '{n} {count(n, "1s")} {sum(n, "1s")}'}
  - name: level
    on: level
    flap: {raises: 0}
    levels:
      - {severity: minor, when: level_m >= 1}
      - {severity: extreme, when: level_m >= 5}
    for: 0s
    message: {vi: '{level_m}', en: '{level_m}'}
`

const hanging = "6b IOC hanging"

// TestIOC lets the operations centre be ill in each way while warnings come: 6
// of the issue. All arrive, in order within a device, each under one key; a grave
// one overtakes those that wait.
func TestIOC(t *testing.T) {
	times(t, 1, 1)
	type answer = func(http.ResponseWriter, *http.Request, telemetry.Warning) bool
	ill := []struct {
		name string
		do   answer
	}{
		{"6a IOC down", func(w http.ResponseWriter, _ *http.Request, _ telemetry.Warning) bool {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				c.Close()
			}
			return false
		}},
		{hanging, func(_ http.ResponseWriter, r *http.Request, _ telemetry.Warning) bool {
			<-r.Context().Done()
			return false
		}},
		{"6c IOC 500", func(w http.ResponseWriter, _ *http.Request, _ telemetry.Warning) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return false
		}},
		{"6d IOC nonsense", func(w http.ResponseWriter, _ *http.Request, _ telemetry.Warning) bool {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_, _ = c.Write([]byte("SSH-2.0-nonsense\r\n\x00\xff"))
				c.Close()
			}
			return false
		}},
	}
	for _, fault := range ill {
		t.Run(fault.name[3:], func(t *testing.T) {
			tr := newTrial(t, "", 2, nil)
			tr.write("rules.yaml", escalating)
			tr.write("kinds.yaml", kindsFile+"  - {name: level, values: [{name: level_m, unit: m, min: -10, max: 100, title: {vi: m, en: m}}]}\n")
			if fault.name == hanging {
				// Each attempt takes its whole time: many of them have to fit into the test.
				tr.rewrite("timeout: 2s", "timeout: 1s")
			}
			tr.start()
			tr.centre.behave(fault.do)
			tr.load()
			tr.awaitAcks(2000, 30*time.Second)
			tr.say(t, 1) // a minor warning, behind the others
			tr.awaitAcks(200, 30*time.Second)
			tr.say(t, 6) // it escalates
			<-time.After(time.Second)
			tr.centre.behave(nil)
			begin := time.Now()
			tr.unload()
			tr.settled(90 * time.Second)
			r := row{fault: fault.name, times: 1, recovery: time.Since(begin)}
			r.remark = tr.overtook(t)
			tr.reconcile(r)
		})
	}
}

// say publishes a level of the device gauge and waits for its acknowledgement.
func (tr *trial) say(t *testing.T, level float64) {
	t.Helper()
	conn, err := dialMQTT(tr.mqtt, "gauge", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(appendPublish(nil, "telemetry/gauge/level", fmt.Appendf(nil, `{"level_m":%g}`, level), 1, 1)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second * slowness()))
	var answer [4]byte
	if _, err := conn.Read(answer[:]); err != nil {
		t.Fatal(err)
	}
}

// overtook checks that the extreme warning came before the minor ones that had
// waited longer, and that its own minor transition was passed over and counted.
func (tr *trial) overtook(t *testing.T) string {
	t.Helper()
	warnings, _ := tr.centre.got()
	at := slices.IndexFunc(warnings, func(w telemetry.Warning) bool { return w.Device == "gauge" && w.Severity == telemetry.Extreme })
	if at < 0 {
		t.Error("the extreme warning did not come")
		return ""
	}
	later := 0
	for _, w := range warnings[at:] {
		if w.At.Before(warnings[at].At) {
			later++
		}
	}
	if later == 0 {
		t.Errorf("the extreme warning came after all %d that had waited", at)
	}
	for _, w := range warnings[at+1:] {
		if w.Device == "gauge" && w.N < warnings[at].N {
			t.Errorf("the superseded %s came after %s", w.Key(), warnings[at].Key())
		}
	}
	superseded, _ := tr.metric("haidang_ioc_skipped_total", `reason="superseded"`)
	early := slices.ContainsFunc(warnings[:at], func(w telemetry.Warning) bool { return w.Device == "gauge" })
	if superseded == 0 && !early {
		status, metrics := tr.try("/metrics")
		t.Errorf("a transition was passed over and not counted as superseded; /metrics answers %d", status)
		for line := range strings.Lines(metrics) {
			if strings.HasPrefix(line, "haidang_ioc_") && !strings.Contains(line, "_bucket") {
				t.Log(strings.TrimSpace(line))
			}
		}
		for _, w := range warnings {
			if w.Device == "gauge" {
				t.Logf("%s %s %s", w.Key(), w.Severity, w.State)
			}
		}
	}
	return fmt.Sprintf("extreme overtook %d, %v superseded", later, superseded)
}
