package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestReload changes rules while a warning is active: by SIGHUP, first with a
// broken file, which changes nothing.
func TestReload(t *testing.T) {
	rule := "rules:\n  - {name: high, on: river, severity: severe, when: level_m > 3, clear: level_m < %s, message: {vi: cao, en: high}}\n"
	g := prepare(t, "rules: [rules.yaml]\n")
	g.write("rules.yaml", fmt.Sprintf(rule, "2"))
	g.start()
	c := g.client("station")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":3.5}`)
	eventually(t, "raised", 2*time.Second, func() bool { return len(g.warnings("")) == 1 })
	before := g.warnings("")[0]

	reload := func(text, log string) {
		t.Helper()
		g.write("rules.yaml", text)
		if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, log, 5*time.Second, func() bool { return strings.Contains(g.output.String(), log) })
	}
	reload("rules: [{name: high, on: river, when: level_n > 3}]\n", "reload refused")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":2.5}`)
	if now := g.warnings(""); len(now) != 1 || now[0].ID != before.ID || now[0].N != before.N {
		t.Errorf("a broken file changed %+v to %+v", before, now)
	}
	// The same rule and one more: the warning keeps its life.
	reload(fmt.Sprintf(rule, "2")+"  - {name: low, on: river, when: level_m < 0.1}\n", "reloaded")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":0.05}`)
	eventually(t, "the old rule clears, the new one raises", 3*time.Second, func() bool {
		all := g.warnings("?state=all")
		return len(all) == 2 && all[0].Rule == "low" && all[1].ID == before.ID && all[1].State == telemetry.Cleared && all[1].N == 2
	})
}

// TestReloadOverTheAPI does the same with POST /api/v1/rules/reload, and names a
// key that only a restart puts in force.
func TestReloadOverTheAPI(t *testing.T) {
	g := prepare(t, "rules: [rules.yaml]\n")
	g.write("rules.yaml", "rules: [{name: high, on: river, when: level_m > 3}]\n")
	g.start()
	post := func() (int, string) {
		t.Helper()
		response, err := http.Post("http://"+g.ports.console+"/api/v1/rules/reload", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	g.write("rules.yaml", "rules: [{name: high, on: river, when: level_n > 3}]\n")
	if status, body := post(); status != http.StatusUnprocessableEntity || !strings.Contains(body, "rules.yaml:1") || !strings.Contains(body, "did you mean level_m") {
		t.Errorf("a broken file: %d %s", status, body)
	}
	g.write("rules.yaml", "rules: [{name: low, on: river, when: level_m < 1}]\n")
	g.write("gateway.yaml", read(t, g.dir, "gateway.yaml")+"spool: {max_age: 30d}\n")
	if status, body := post(); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	eventually(t, "the changed key is named", 2*time.Second, func() bool {
		text := g.output.String()
		return strings.Contains(text, "by a restart only") && strings.Contains(text, "keys=spool")
	})
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":0.5}`)
	eventually(t, "the new rule is in force", 2*time.Second, func() bool {
		list := g.warnings("")
		return len(list) == 1 && list[0].Rule == "low"
	})
}

// TestStopUnderLoad stops the gateway while publishers send: it ends well within
// five seconds, and every acknowledged reading is there after the next start.
func TestStopUnderLoad(t *testing.T) {
	g := prepare(t, "")
	g.start()
	l := &publisher{device: "load", start: time.Now().Add(-time.Hour), acked: map[int]bool{}}
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	for i := range 4 {
		c := g.client(fmt.Sprint("c", i))
		publishing.Go(func() { l.publish(c, stop) })
	}
	eventually(t, "some are acknowledged", 10*time.Second, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked) > 500
	})
	began := time.Now()
	if code := g.stop(); code != exitWell || time.Since(began) > 5*time.Second {
		t.Errorf("exit code %d after %v\n%s", code, time.Since(began), g.output)
	}
	close(stop)
	publishing.Wait()
	g.start()
	l.verify(t, g)
}

// TestUnknownIsStoredAndListed publishes a kind and a value that the catalogue
// does not have, then the same to a strict gateway.
func TestUnknownIsStoredAndListed(t *testing.T) {
	for _, strict := range []bool{false, true} {
		g := prepare(t, fmt.Sprintf("strict: %v\n", strict))
		g.start()
		c := g.client("station")
		g.publish(c, "telemetry/etna/volcano", `{"lava_m":3}`)
		g.publish(c, "telemetry/kim-long/river", `{"level_m":0.5,"mood":"calm"}`)
		status, body := g.try("/api/v1/devices")
		var answer struct{ Devices []deviceState }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		kind := slices.ContainsFunc(answer.Devices, func(d deviceState) bool { return d.ID == "etna" && d.Latest["volcano"].UnknownKind })
		value := slices.ContainsFunc(answer.Devices, func(d deviceState) bool {
			return d.ID == "kim-long" && slices.Equal(d.Latest["river"].Unknown, []string{"mood"})
		})
		if kind == strict || value == strict {
			t.Errorf("strict %v: unknown kind listed %v, value %v\n%s", strict, kind, value, body)
		}
		if n := g.metric("haidang_set_aside_total"); (n == 2) != strict {
			t.Errorf("strict %v: %v set aside", strict, n)
		}
		if !strict {
			eventually(t, "stored all the same", 2*time.Second, func() bool {
				return len(g.rows("SELECT lava_m FROM volcano")) == 1 && len(g.rows("SELECT mood_text FROM river")) == 1
			})
		}
	}
}

// TestSilentOperation: a gateway that works logs nothing.
func TestSilentOperation(t *testing.T) {
	g := prepare(t, "")
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "raised", 2*time.Second, func() bool { return len(g.warnings("")) == 1 })
	g.stop()
	if text := g.output.String(); strings.Contains(text, "level=") {
		t.Errorf("it logs:\n%s", text)
	}
}
