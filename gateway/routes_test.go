package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

func entryOf(name, url string) string {
	return fmt.Sprintf("  - {name: %s, webhook: {url: %q}}\n", name, url)
}

// routed starts a gateway with a centre that answers, one that is gone and what
// stands in for it, and a chief who is told when nobody acknowledges.
func routed(t *testing.T, routes string) (g *gatewayProcess, centre, chief, standIn *recipient) {
	t.Helper()
	centre, chief, standIn = newRecipient(t), newRecipient(t), newRecipient(t)
	g = prepare(t, "ioc:\n"+entryOf("centre", centre.url)+entryOf("gone", nowhere)+entryOf("stand-in", standIn.url)+entryOf("chief", chief.url)+routes)
	g.start()
	return g, centre, chief, standIn
}

// post acts as an operator; n is that of now.
func (g *gatewayProcess) post(path, body string) (int, string) {
	g.t.Helper()
	return g.ask(http.MethodPost, "http://"+g.ports.console+path, "", "", body)
}

// TestRoutes follows a warning that nobody acknowledges over a kill: each
// escalation, failover and reminder once, with a key of its own, and the proof of
// it.
func TestRoutes(t *testing.T) {
	t.Parallel()
	g, centre, chief, standIn := routed(t, `
routes:
  - {name: floods, match: {severity: severe, rules: ["flood-*"]}, to: [centre, gone], else: {after: 1s, to: [stand-in]}}
  - {name: grave, match: {severity: extreme}, to: [centre], escalate: [{after: 4s, to: [chief]}]}
`)
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "the centre is told", 5*time.Second, func() bool { return len(centre.got()) > 0 })
	eventually(t, "another stands in for who is gone", 5*time.Second, func() bool { return len(standIn.got()) > 0 })
	if len(chief.got()) > 0 {
		t.Error("the chief is told before his time")
	}
	g.kill()
	g.start()
	eventually(t, "the chief is told", 10*time.Second, func() bool { return len(chief.got()) > 0 })
	w := g.warnings("")[0]
	if w.N != 3 || strings.Join(w.To, " ") != "centre gone stand-in chief" {
		t.Errorf("the warning stands at %+v", w)
	}

	show := g.must("warnings", "show", w.ID)
	for _, want := range []string{"failover by haidang", "escalate by haidang", "* floods -> centre, gone", "* grave -> centre", "204 No Content", "connection refused", "level_m = 5", "done: floods/else/gone/1, grave/0"} {
		if !strings.Contains(show, want) {
			t.Errorf("haidang warnings show does not tell %q:\n%s", want, show)
		}
	}
	explained := g.must("route", "explain", "--device", "kim-long", "--rule", "flood-level", "--severity", "severe", "--at", "2025-10-27 02:30")
	if !strings.Contains(explained, "told: centre, gone\n") || !strings.Contains(explained, "no: severity severe, at least extreme") {
		t.Errorf("haidang route explain tells\n%s", explained)
	}

	if status, body := g.post("/api/v1/warnings/"+w.ID+"/ack", fmt.Sprintf(`{"n":%d,"by":"Lan"}`, w.N)); status != http.StatusOK {
		t.Fatalf("ack: %d %s", status, body)
	}
	status, body := g.post("/api/v1/warnings/"+w.ID+"/ack", fmt.Sprintf(`{"n":%d,"by":"Minh"}`, w.N))
	if status != http.StatusConflict || !strings.Contains(body, "ack by Lan at") {
		t.Errorf("the second of two operators: %d %s", status, body)
	}
	g.publish(g.client("station-2"), "telemetry/kim-long/river", `{"level_m":0.1}`)
	over := func(r *recipient) func() bool {
		return func() bool { got := r.got(); return len(got) > 0 && got[len(got)-1].State == telemetry.Cleared }
	}
	eventually(t, "the chief hears of the end", 5*time.Second, over(chief))
	eventually(t, "so does who stood in", 5*time.Second, over(standIn))
	if len(chief.keys) != len(chief.got()) { // the others were told before the kill, and may be told again
		t.Errorf("told twice: %v", chief.keys)
	}
}

// TestDeeds: an operator without the page. What was only told again does not stand
// in his way, what has changed does.
func TestDeeds(t *testing.T) {
	t.Parallel()
	centre := newRecipient(t)
	g := prepare(t, "ioc:\n"+entryOf("centre", centre.url)+"routes:\n  - {name: all, to: [centre], escalate: [{after: 1s, to: [centre]}]}\n")
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "it escalates", 10*time.Second, func() bool { list := g.warnings(""); return len(list) == 1 && list[0].N == 2 })
	id := g.warnings("")[0].ID
	for _, c := range []struct {
		line []string
		want string
	}{
		{[]string{"ack", id, "--n", "1", "--text", "đã gọi"}, "acknowledged, extreme, acknowledged by lan"},
		{[]string{"comment", id, "--text", "nước còn lên", "--by", "Minh"}, "acknowledged by lan"},
		{[]string{"assign", id, "--to", "BCH PCTT"}, "in charge: BCH PCTT"},
		{[]string{"shelve", id, "--for", "2h"}, "shelved, extreme, acknowledged by lan, in charge: BCH PCTT, until 20"},
		{[]string{"unshelve", id}, "acknowledged, extreme"},
		{[]string{"false-alarm", id}, "marked as a false alarm"},
		{[]string{"genuine", id}, "acknowledged, extreme"},
	} {
		if out := g.must(append([]string{"warnings"}, c.line...)...); !strings.Contains(out, c.want) {
			t.Errorf("%q: %s", c.line, out)
		}
	}
	for _, c := range []struct {
		line []string
		want string
		code int
	}{
		{[]string{"ack", id, "--n", "2"}, "is at transition 9, not 2: genuine by lan", exitFailed},
		{[]string{"ack", "nothing"}, `no warning "nothing"`, exitFailed},
		{[]string{"comment", id}, "text is missing", exitFailed},
		{[]string{"assign", id}, "to has 0 letters", exitFailed},
		{[]string{"shelve", id}, "--for is missing", exitUsage},
		{[]string{"ack"}, "takes one id", exitUsage},
	} {
		if _, problems, code := g.verb(append([]string{"warnings"}, c.line...)...); code != c.code || !strings.Contains(problems, c.want) {
			t.Errorf("%q: %d %s", c.line, code, problems)
		}
	}
}

// TestOutOfServiceIsToldToNobody, and what lasts when it is put back is told.
func TestOutOfServiceIsToldToNobody(t *testing.T) {
	t.Parallel()
	centre := newRecipient(t)
	g := prepare(t, "ioc:\n"+entryOf("centre", centre.url))
	g.start()
	g.must("warnings", "service", "out", "--device", "kim-long", "--why", "thay đầu đo")
	if _, problems, code := g.verb("warnings", "service", "out", "--device", "kim-long", "--why", "x"); code != exitFailed || !strings.Contains(problems, "taken out (thay đầu đo) by lan at") {
		t.Errorf("a second order: %d %s", code, problems)
	}
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("?state=out-of-service")) == 1 })
	g.kill()
	g.start()
	if list := g.must("warnings", "service"); !strings.Contains(list, "thay đầu đo") {
		t.Errorf("haidang warnings service after a kill:\n%s", list)
	}
	g.must("warnings", "service", "in", "--device", "kim-long", "--why", "xong")
	eventually(t, "told when it is put back", 5*time.Second, func() bool { return len(centre.got()) == 1 })
	if got := centre.got()[0]; got.N != 2 || got.State != telemetry.Active || got.Quiet {
		t.Errorf("%+v", got)
	}
	for body, field := range map[string]string{
		`{"out":true,"device":"nobody","by":"Lan","why":"x"}`:                                  "device",
		`{"out":true,"rule":"nothing","by":"Lan","why":"x"}`:                                   "rule",
		`{"device":"kim-long","by":"Lan","why":"x"}`:                                           "out",
		`{"out":true,"device":"kim-long","by":"Lan","why":"x","forever":1}`:                    "forever",
		`{"out":true,"device":"kim-long","by":"Lan","why":"x","until":"2020-01-01T00:00:00Z"}`: "until",
	} {
		if status, answer := g.post("/api/v1/out-of-service", body); status != http.StatusBadRequest || !strings.Contains(answer, `"field":"`+field+`"`) {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
}
