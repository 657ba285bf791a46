package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/archive"
	"haidang/gateway/telemetry"
)

// TestArchive: the warnings log is lost, and what has become of a warning is told
// all the same; what is raised afterwards too. A forged month is found out.
func TestArchive(t *testing.T) {
	t.Parallel()
	g := prepare(t, "")
	g.start()
	c := g.client("station")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	w := g.warnings("")[0]
	if status, body := g.post("/api/v1/warnings/"+w.ID+"/ack", fmt.Sprintf(`{"n":%d,"by":"Lan","text":"đang xử lý"}`, w.N)); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	g.publish(c, "telemetry/kim-long/river", `{"level_m":0.1}`)
	eventually(t, "over", 5*time.Second, func() bool { return len(g.warnings("")) == 0 })
	told := func() (s story) {
		t.Helper()
		if err := json.Unmarshal([]byte(g.must("warnings", "show", w.ID, "--json")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := told()
	report := g.must("warnings", "report", "--format", "csv")
	eventually(t, "all is in the archive", 5*time.Second, func() bool { return g.metric("haidang_archive_written_total", `archive="warnings"`) >= 3 })
	if code := g.stop(); code != exitWell {
		t.Fatalf("exit code %d\n%s", code, g.output)
	}
	streams, err := filepath.Glob(filepath.Join(g.dir, "data", "spool", "jetstream", "*", "streams", "WARNINGS"))
	if err != nil || len(streams) != 1 {
		t.Fatalf("the warnings log is in %v, %v", streams, err)
	}
	if err := os.RemoveAll(streams[0]); err != nil {
		t.Fatal(err)
	}
	g.start()
	if after := told(); len(after.Transitions) != 3 || !reflect.DeepEqual(after.Transitions, before.Transitions) {
		t.Errorf("from the archive it is\n%+v\nand was\n%+v", after.Transitions, before.Transitions)
	}
	if got := g.must("warnings", "report", "--format", "csv"); got != report {
		t.Errorf("the report is\n%s\nand was\n%s", got, report)
	}
	g.publish(g.client("station-2"), "telemetry/phu-oc/river", `{"level_m":5}`)
	eventually(t, "raised anew", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	if out := g.must("warnings", "show", g.warnings("")[0].ID); !strings.Contains(out, "phu-oc") {
		t.Errorf("what came afterwards:\n%s", out)
	}
	if out := g.must("audit", "verify"); !strings.Contains(out, "0 closed files") {
		t.Errorf("verify: %s", out)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "data", archiveFolder, archiveWarnings, "2025-01-0001.jsonl.gz"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, problems, code := g.verb("audit", "verify"); code != exitFailed || !strings.Contains(problems, "has no checksum") {
		t.Errorf("a forged month: %d %s", code, problems)
	}
}

// TestAudit: who did what, from wherever it was done, once each over a kill, and
// only for administrators.
func TestAudit(t *testing.T) {
	t.Parallel()
	g := prepare(t, "rules: [rules.yaml]\ndevices: devices.yaml\n")
	g.write("devices.yaml", "devices: [{id: kim-long, kinds: [river], facts: {alarm1_m: 1, alarm2_m: 2, alarm3_m: 3.5}}]\n")
	rules := "rules: [{name: high, on: river, severity: severe, when: level_m > %d}]\n"
	g.write("rules.yaml", fmt.Sprintf(rules, 3))
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	w := g.warnings("")[0]
	for _, act := range []string{
		`ack {"n":1,"by":"Lan","text":"đã gọi trực ban"}`, `assign {"n":2,"by":"Lan","to":"BCH PCTT"}`, `false-alarm {"n":3,"by":"Minh"}`,
	} {
		deed, body, _ := strings.Cut(act, " ")
		if status, answer := g.post("/api/v1/warnings/"+w.ID+"/"+deed, body); status != http.StatusOK {
			t.Fatalf("%s: %d %s", act, status, answer)
		}
	}
	g.must("warnings", "service", "out", "--device", "kim-long", "--for", "2h", "--why", "thay đầu đo")
	g.must("devices", "state", "kim-long", "maintenance", "--why", "rửa")
	g.must("devices", "set", "kim-long", "alarm3_m=4", "--why", "quyết định mới")
	g.write("drill.test.yaml", drillFile)
	g.must("devices", "list")
	g.write("rules.yaml", fmt.Sprintf(rules, 4))
	if status, body := g.post("/api/v1/rules/reload", "{}"); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	g.must("drill", "start", filepath.Join(g.dir, "drill.test.yaml"), "--name", "flood", "--why", "diễn tập")
	g.must("drill", "end", "--why", "xong")
	g.kill()
	g.start()
	eventually(t, "the last act is on record", 5*time.Second, func() bool { return strings.Contains(g.must("audit", "--do", "service"), "service.out") })
	g.account("mật khẩu dài\nmật khẩu dài\n", "add", "an", "--role", "operator")
	g.account("mật khẩu dài\nmật khẩu dài\n", "add", "chief", "--role", "administrator")
	token := g.account("", "token", "an")

	list := g.must("audit", "list")
	at := 0
	for _, want := range []string{
		"gateway.start", "Lan", "warning.ack", w.ID, "đã gọi trực ban", "warning.assign", "in charge: BCH PCTT", "Minh", "warning.false-alarm",
		"lan", "service.out", "thay đầu đo", "device.state", "rửa", "device.change", "quyết định mới", "alarm3_m is 4",
		"reload", "rule high is changed", "drill.start", "diễn tập", "drill.end", "gateway.start", "account.add", "role: operator", "token",
	} {
		next := strings.Index(list[at:], want)
		if next < 0 {
			t.Errorf("%q does not come next:\n%s", want, list)
			break
		}
		at += next
	}
	if n := strings.Count(list, "warning.ack"); n != 1 {
		t.Errorf("the acknowledgement is told %d times", n)
	}
	if strings.Contains(list, token) || strings.Contains(list, "argon2") {
		t.Error("a secret is told")
	}
	if out := g.must("audit", "--by", "Minh"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "false-alarm") {
		t.Errorf("of Minh:\n%s", out)
	}
	base := "http://" + g.ports.console + "/api/v1/audit"
	eventually(t, "the token is in force", 10*time.Second, func() bool {
		anybody, _ := g.try("/api/v1/warnings") // 200 while there are no accounts
		status, _ := g.ask(http.MethodGet, "http://"+g.ports.console+"/api/v1/warnings", "", token, "")
		return anybody == http.StatusUnauthorized && status == http.StatusOK
	})
	if status, body := g.ask(http.MethodGet, base, "", token, ""); status != http.StatusForbidden {
		t.Errorf("an operator reads the audit: %d %s", status, body)
	}
	for query, field := range map[string]string{"from=x": "from", "to=1": "to", "from=2026-02-01&to=2026-01-01": "from", "limit=0": "limit", "who=lan": "who"} {
		if status, body := g.ask(http.MethodGet, base+"?"+query, "chief", "mật khẩu dài", ""); status != http.StatusBadRequest || !strings.Contains(body, `"field":"`+field+`"`) {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
}

// TestAuditFull: an exercise that cannot be put on record does not begin.
func TestAuditFull(t *testing.T) {
	dir := t.TempDir()
	a, err := openAudit(dir, archive.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &instance{audit: a, logger: slog.New(slog.DiscardHandler)}
	x := &exercise{Scenario: "flood", Speed: 1, Steps: 1, course: []telemetry.Transition{raised("a")}}
	g.drill.pending = make(chan *exercise, 1)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := g.startDrill(x); err == nil || g.drill.now != nil {
		t.Errorf("it begins: %v", err)
	}
}

// TestAuditList: the newest so many, each once.
func TestAuditList(t *testing.T) {
	a, err := openAudit(t.TempDir(), archive.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-time.Hour)
	for i := range 50 {
		e := auditEntry{At: begin.Add(time.Duration(i) * time.Second), By: "lan", Do: "warning.ack", On: fmt.Sprint("w", i), Key: fmt.Sprint("w", i, "/2")}
		if err := errors.Join(a.note(e), a.note(e)); err != nil {
			t.Fatal(err)
		}
	}
	q, err := auditQueryOf(url.Values{"limit": {"3"}, "do": {"warning"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	list, err := a.list(t.Context(), q)
	if got := namesOf(list, func(e *auditEntry) string { return e.On }); err != nil || !slices.Equal(got, []string{"w49", "w48", "w47"}) {
		t.Errorf("%v, %v", got, err)
	}
}

// BenchmarkAnnals is how long a report of a month and the history of one warning
// take after 100,000 transitions in the archive.
func BenchmarkAnnals(b *testing.B) {
	dir := b.TempDir()
	s := spoolIn(b, dir, nil)
	a, err := archive.Open(filepath.Join(dir, "archive"), archive.Options[telemetry.Transition]{Name: "x", At: func(t *telemetry.Transition) time.Time { return t.At }})
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2025, 10, 1, 0, 0, 0, 0, time.UTC)
	for i := range 25_000 {
		w := raised(fmt.Sprintf("s%d-flood-level-%x", i%500, i))
		w.Start, w.At = at.Add(time.Duration(i)*time.Minute), at.Add(time.Duration(i)*time.Minute)
		var list []telemetry.Transition
		for n := range 4 {
			next := w
			next.N, next.Step = n+1, n+1
			next.At = w.At.Add(time.Duration(n) * time.Minute)
			list = append(list, next)
		}
		if err := a.Append(list); err != nil {
			b.Fatal(err)
		}
	}
	if err := a.Sweep(at.AddDate(0, 2, 0)); err != nil {
		b.Fatal(err)
	}
	from := &annals{log: s.Warnings(), archive: a}
	b.Run("report", func(b *testing.B) {
		for b.Loop() {
			if _, err := newReporter(from, time.Now).of(b.Context(), url.Values{"from": {"2025-10-01"}, "to": {"2025-10-31"}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("history", func(b *testing.B) {
		for b.Loop() {
			if list, err := newHistorian(from).of(b.Context(), "s7-flood-level-7"); err != nil || len(list) != 4 {
				b.Fatal(list, err)
			}
		}
	})
}
