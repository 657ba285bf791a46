package faults

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// elsewhere is a trial whose InfluxDB is a second haidang behind a door.
func elsewhere(t *testing.T, n int, more map[string]string) (*trial, *store, *box) {
	second := newBox(t, "", map[string]string{"ais": "[]", "rules": "[]"})
	second.start()
	door := newStore(t, second.influx)
	keys := map[string]string{"influx": door.config()}
	for key, value := range more {
		keys[key] = value
	}
	tr := newTrial(t, "", n, keys)
	tr.store = second.influx
	return tr, door, second
}

// poison is a field that the door refuses with 400, as InfluxDB does a field of
// another type.
var poison = regexp.MustCompile(`(?m)^.*,device=poison.* n=13[ ,].*$`)

// status answers writes with a status.
func status(code int, header, value string) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		if header != "" {
			w.Header().Set(header, value)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"code":"x","message":"the harness answers %d","error":"the harness answers %d"}`, code, code)
		return true
	}
}

// TestInflux lets InfluxDB be ill in each way for a while: 5 of the issue.
// Warnings do not wait for it, and what piled up is written faster than it came.
func TestInflux(t *testing.T) {
	times(t, 1, 1)
	ill := map[string]func(http.ResponseWriter, *http.Request, []byte) bool{
		"a down": func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				c.Close()
			}
			return true
		},
		"b hanging": func(_ http.ResponseWriter, r *http.Request, _ []byte) bool { <-r.Context().Done(); return true },
		"c slow": func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
			select {
			case <-time.After(700 * time.Millisecond):
			case <-r.Context().Done():
			}
			return false
		},
		"d 400 for one point": func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !poison.Match(body) {
				return false
			}
			return status(http.StatusBadRequest, "X-Influxdb-Error", `partial write: field type conflict: input field "n" on measurement "count" is type float, already exists as type string dropped=1`)(w, r, body)
		},
		"e 401": status(401, "", ""),
		"f 413": func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			return bytes.Count(body, []byte("\n")) > 100 && status(413, "", "")(w, r, body)
		},
		"g 429 Retry-After": status(429, "Retry-After", "2"),
		"h 500":             status(500, "", ""),
	}
	tr, door, _ := elsewhere(t, 4, nil)
	tr.start()
	tr.load()
	for _, name := range []string{"a down", "b hanging", "c slow", "d 400 for one point", "e 401", "f 413", "g 429 Retry-After", "h 500"} {
		r := row{fault: "5" + name[:1] + " InfluxDB " + name[2:], times: 1}
		door.misbehave(ill[name])
		begin, acked := time.Now(), tr.acknowledged()
		if name[0] == 'd' {
			tr.poisoned()
		}
		<-time.After(2200 * time.Millisecond)
		filled := time.Since(begin)
		r.acknowledged = tr.acknowledged() - acked
		if rate := float64(r.acknowledged) / filled.Seconds(); rate < 1000/float64(slowness()) {
			t.Errorf("%s: only %.0f readings/s were acknowledged meanwhile", name, rate)
		}
		r.remark = fmt.Sprintf("a warning took %v", tr.promptly(t, name).Round(time.Millisecond))
		door.misbehave(nil)
		begin = time.Now()
		tr.eventually(name+": the backlog is written", 60*time.Second, func() bool {
			lag, n := tr.metric("haidang_spool_follower_lag_seconds", `log="readings"`, `follower="influx"`)
			return n > 0 && lag < 0.5
		})
		r.recovery = time.Since(begin)
		results.add(r)
	}
	tr.unload()
	_, letters := tr.try("/api/v1/deadletters?limit=1000")
	if n := strings.Count(letters, `"place":"readings `); n != 1 || !strings.Contains(letters, `"device":"poison"`) {
		t.Errorf("%d dead letters of readings, want that of the poisoned point alone:\n%s", n, letters)
	}
	for _, n := range []int{12, 14} {
		if got := tr.query(fmt.Sprintf("SELECT n FROM count WHERE device = 'poison' AND n = %d", n)); len(got) != 1 {
			t.Errorf("reading %d beside the poisoned one is in InfluxDB %d times", n, len(got))
		}
	}
	tr.reconcile(row{fault: "5 InfluxDB, all of it", times: len(ill)})
	if code, took := tr.box.stop(); code != 0 || took > 5*time.Second*slowness() {
		t.Errorf("exit code %d after %v\n%s", code, took, tr.output.tail())
	}
}

// poisoned publishes a point that InfluxDB will refuse, among others.
func (tr *trial) poisoned() {
	tr.t.Helper()
	conn, err := dialMQTT(tr.mqtt, "poison", 0)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer conn.Close()
	for n := 10; n < 20; n++ {
		packet := appendPublish(nil, "telemetry/poison/count", fmt.Appendf(nil, `{"n":%d}`, n), 1, uint16(n))
		if _, err := conn.Write(packet); err != nil {
			tr.t.Fatal(err)
		}
	}
	answers := make([]byte, 40)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for read := 0; read < len(answers); {
		n, err := conn.Read(answers[read:])
		if err != nil {
			tr.t.Fatal(err)
		}
		read += n
	}
}

// promptly returns how long the newest warnings took from the reading's time to
// the centre, and holds it to a second.
func (tr *trial) promptly(t *testing.T, name string) time.Duration {
	t.Helper()
	since := time.Now().Add(-2 * time.Second)
	tr.eventually(name+": warnings come", 10*time.Second, func() bool { _, seen := tr.slowestSince(since); return seen > 0 })
	worst, seen := tr.slowestSince(since)
	if worst > time.Second*slowness() {
		t.Errorf("%s: of %d warnings in the last two seconds the slowest took %v", name, seen, worst)
	}
	return worst
}

// slowestSince returns how long the slowest warning took of those that have come
// since then, and how many that were.
func (tr *trial) slowestSince(since time.Time) (worst time.Duration, seen int) {
	tr.centre.mu.Lock()
	defer tr.centre.mu.Unlock()
	for i := len(tr.centre.accepted) - 1; i >= 0 && tr.centre.arrived[i].After(since); i-- {
		if w := &tr.centre.accepted[i]; w.State == telemetry.Active {
			worst = max(worst, tr.centre.arrived[i].Sub(tr.madeAt(w)))
			seen++
		}
	}
	return worst, seen
}

// madeAt returns when a publisher made the reading that raised a warning.
func (tr *trial) madeAt(w *telemetry.Warning) time.Time {
	for _, p := range tr.publishers {
		if p.device == w.Device {
			p.mu.Lock()
			defer p.mu.Unlock()
			return time.UnixMilli(p.times[int(w.Values["n"])])
		}
	}
	return w.At
}

// TestInfluxAwayAtStart starts the gateway while its InfluxDB is away: it takes
// readings and is ready; health says what is missing. All is written once InfluxDB
// is there.
func TestInfluxAwayAtStart(t *testing.T) {
	times(t, 1, 1)
	address := freePorts(t, 1)[0]
	tr := newTrial(t, "", 2, map[string]string{"influx": fmt.Sprintf("{url: \"http://%s\", bucket: haidang, timeout: 2s}", address)})
	tr.store = address
	tr.start()
	tr.load()
	tr.awaitAcks(500, 30*time.Second)
	if _, body := tr.try("/api/v1/health"); !strings.Contains(body, `"ready":true`) || !strings.Contains(body, `"degraded":{"store":`) {
		t.Errorf("health while InfluxDB is away: %.600s", body)
	}
	startEngine(t, address)
	begin := time.Now()
	tr.unload()
	tr.settled(60 * time.Second)
	tr.reconcile(row{fault: "5j InfluxDB away at start", times: 1, recovery: time.Since(begin)})
}

// TestInfluxReturnsLate lets the log pass its bound while InfluxDB is away. As
// configured, readings are refused, or the oldest go and it is said which.
func TestInfluxReturnsLate(t *testing.T) {
	times(t, 1, 1)
	for _, full := range []string{"refuse", "drop_oldest"} {
		t.Run(full, func(t *testing.T) {
			tr, door, _ := elsewhere(t, 4, map[string]string{"spool": "{max_bytes: 4MiB, full: " + full + "}"})
			for _, p := range tr.publishers {
				p.pad = strings.Repeat("word ", 100)
			}
			door.misbehave(status(503, "", ""))
			tr.start()
			tr.load()
			r := row{fault: "5i InfluxDB late, " + full, times: 1}
			switch full {
			case "refuse":
				tr.eventually("readings are refused", 30*time.Second, func() bool {
					n, _ := tr.metric("haidang_spool_refused_total", `log="readings"`, `reason="full"`)
					return n > 0
				})
			default:
				tr.awaitAcks(16_000, 60*time.Second)
			}
			door.misbehave(nil)
			begin := time.Now()
			tr.awaitAcks(100, 40*time.Second)
			tr.unload()
			tr.settled(60 * time.Second)
			if r.recovery = time.Since(begin); r.recovery > 10*time.Second*slowness() {
				t.Errorf("it took %v until readings were taken again and written", r.recovery)
			}
			if full == "refuse" {
				tr.reconcile(r)
				return
			}
			tr.told(&r)
			results.add(r)
		})
	}
}

// told holds what is missing in InfluxDB to what the dead letters say that was
// dropped.
func (tr *trial) told(r *row) {
	tr.t.Helper()
	missing := 0
	for _, p := range tr.publishers {
		r.acknowledged += p.acknowledged()
		seen := map[int]bool{}
		for _, s := range tr.query(fmt.Sprintf("SELECT n FROM count WHERE device = '%s'", p.device)) {
			seen[int(s.values[0])] = true
		}
		for n := range p.acked {
			if p.acked[n] && !seen[n] {
				missing++
			}
		}
		if last := len(p.acked) - 1; p.acked[last] && !seen[last] {
			tr.t.Errorf("%s: the newest reading is missing, the oldest are to go", p.device)
		}
	}
	dropped, _ := tr.metric("haidang_spool_follower_dropped_total", `follower="influx"`)
	_, letters := tr.try("/api/v1/deadletters?limit=1000")
	if missing == 0 || dropped == 0 || !strings.Contains(letters, `"gap"`) {
		tr.t.Errorf("%d readings are missing, %v frames counted as dropped, dead letters %s", missing, dropped, letters)
	}
	r.remark = fmt.Sprintf("%d of the oldest dropped, as configured and told", missing)
}
