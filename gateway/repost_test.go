package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestRecipientsChange: recipients and routes are changed while warnings last. Who
// stays is told nothing twice, who is changed goes on where he was, who is new is
// told what lasts, who is gone is told nothing, and a broken file changes nothing.
func TestRecipientsChange(t *testing.T) {
	t.Parallel()
	stays, old, moved, leaves, comes := newRecipient(t), newRecipient(t), newRecipient(t), newRecipient(t), newRecipient(t)
	g := prepare(t, "")
	base := read(t, g.dir, "gateway.yaml")
	reload := func(ioc, routes string) (int, string) {
		t.Helper()
		g.write("gateway.yaml", base+"ioc:\n"+ioc+"routes:\n"+routes)
		return g.post("/api/v1/rules/reload", "{}")
	}
	first := entryOf("stays", stays.url) + entryOf("moves", old.url) + entryOf("leaves", leaves.url)
	g.write("gateway.yaml", base+"ioc:\n"+first)
	g.start()
	c := g.client("station")
	level := func(text string) { t.Helper(); g.publish(c, "telemetry/kim-long/river", `{"level_m":`+text+`}`) }
	last := func(r *recipient) (w telemetry.Warning) {
		if got := r.got(); len(got) > 0 {
			w = got[len(got)-1]
		}
		return w
	}
	hears := func(who string, r *recipient, n int, state telemetry.State) {
		t.Helper()
		eventually(t, who+" is told", 5*time.Second, func() bool { w := last(r); return w.N == n && w.State == state })
	}
	level("1.2")
	for who, r := range map[string]*recipient{"who stays": stays, "who moves": old, "who leaves": leaves} {
		hears(who, r, 1, telemetry.Active)
	}

	status, body := reload(first+"  - {name: broken, webhook: {url: nowhere}}\n", "  - {name: a, to: [nobody]}\n")
	if status != http.StatusUnprocessableEntity || !strings.Contains(body, "gateway.yaml:") || !strings.Contains(body, "ioc[3].webhook.url") || !strings.Contains(body, `routes[0].to[0]`) {
		t.Errorf("a broken file: %d %s", status, body)
	}
	next := entryOf("stays", stays.url) + entryOf("moves", moved.url) + entryOf("comes", comes.url)
	route := "  - {name: all, match: {severity: severe}, to: [stays, moves, comes]}\n"
	if status, body := reload(next, route); status != http.StatusOK {
		t.Fatalf("%d %s\n%s", status, body, g.output)
	}
	hears("who is new", comes, 1, telemetry.Active) // it lasts
	level("2.2")
	for who, r := range map[string]*recipient{"who stays": stays, "who has moved": moved, "who is new": comes} {
		hears(who, r, 2, telemetry.Active)
	}
	if n := len(stays.got()); n != 2 || stays.keys[last(stays).ID+"/1"] != 1 {
		t.Errorf("who stays is told %d times: %v", n, stays.keys)
	}
	if got := moved.got(); len(got) != 1 {
		t.Errorf("who has moved is told what the old place was told: %v", moved.keys)
	}
	if len(old.got()) != 1 || len(leaves.got()) != 1 {
		t.Errorf("who is gone is told: %v, %v", old.keys, leaves.keys)
	}
	if out := g.must("route", "explain", "--device", "kim-long", "--severity", "severe"); !strings.Contains(out, "told: stays, moves, comes") {
		t.Errorf("the routes in force:\n%s", out)
	}
	audit := g.must("audit", "--do", "reload")
	for _, want := range []string{"recipient leaves is taken out, with 0 warnings not delivered", "recipient moves is changed", "recipient comes is new", "route all is new"} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit does not tell %q:\n%s", want, audit)
		}
	}
	if list := g.must("recipients"); strings.Contains(list, "leaves") || !strings.Contains(list, "comes") {
		t.Errorf("haidang recipients:\n%s", list)
	}
	if n := g.metric("haidang_ioc_delivered_total", `recipient="leaves"`); n != 0 {
		t.Errorf("the metrics of who is gone are there: %v", n)
	}
	level("3.8")
	hears("who stays", stays, 3, telemetry.Active)

	// Back after a while: told what lasts, and not what was meanwhile.
	if status, body := reload(next+entryOf("leaves", leaves.url), route); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	eventually(t, "who is back is told what lasts", 5*time.Second, func() bool { return last(leaves).N == 3 })
	if n := len(leaves.got()); n != 2 {
		t.Errorf("who is back is told %d times: %v", n, leaves.keys)
	}
	// A restart finds it all the same.
	g.kill()
	g.start()
	c = g.client("station-2")
	level("0.1")
	for who, r := range map[string]*recipient{"who stays": stays, "who has moved": moved, "who is new": comes, "who is back": leaves} {
		hears(who, r, 4, telemetry.Cleared)
	}
}

// TestUnknownRecipient: a rule that names somebody who is not there is a fault.
func TestUnknownRecipient(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("gateway.yaml", "rules: [rules.yaml]\nioc: [{name: ioc, webhook: {url: \"https://host\"}}]\n")
	write("rules.yaml", "rules:\n  - {name: high, on: river, when: level_m > 3,\n     to: [ioc, comittee]}\n")
	_, _, err := loadConfiguration(folder{dir: dir}, "gateway.yaml", nil)
	if err == nil || !strings.Contains(err.Error(), "rules.yaml:3: rules[0].to[1]: there is no recipient \"comittee\" under ioc; expected one of ioc") {
		t.Errorf("%v", err)
	}
}

// TestUnknownRecipientOfThePage: so is one in a rule that is written on the page; and a
// reload does not take a recipient away that such a rule names.
func TestUnknownRecipientOfThePage(t *testing.T) {
	t.Parallel()
	centre := newRecipient(t)
	g := prepare(t, "devices: devices.yaml\nrules: [rules/*.yaml]\nioc:\n"+entryOf("centre", centre.url)+entryOf("police", centre.url))
	g.write("devices.yaml", stationDevices)
	g.write("rules/flood.yaml", bookRules)
	g.start()
	text := func(to string) string {
		return strings.Replace(bookRules, "    when: level_m > 3\n", "    when: level_m > 3\n    to: ["+to+"]\n", 1)
	}
	unknown := `"line":6,"column":18,"end_line":6,"end_column":24`
	g.wants("POST", "check", "", edit{"file": "rules/flood.yaml", "text": text("centre, polise")}, 200, `there is no recipient \"polise\"`, unknown)
	g.wants("PUT", floodFile, `"0"`, edit{"text": text("centre, polise"), "by": "Lan", "why": "x"}, 422, `there is no recipient \"polise\"`, "expected one of centre, police", unknown)
	g.wants("PUT", floodFile, `"0"`, edit{"text": text("centre, police"), "by": "Lan", "why": "x"}, 200)

	config := read(t, g.dir, "gateway.yaml")
	g.write("gateway.yaml", strings.Replace(config, entryOf("police", centre.url), "", 1))
	g.wants("POST", "reload", "", edit{}, 422, `there is no recipient`, "police")
	if out, problems, code := g.verb("rules", "check"); code == exitWell || !strings.Contains(problems+out, `there is no recipient "police"`) {
		t.Errorf("check: %d %s%s", code, out, problems)
	}
	g.kill() // a restart has no recipients of before: the rule holds, and it is told
	g.start()
	g.wants("GET", floodFile, "", nil, 200, `"origin":"page"`)
	if said := g.output.String(); !strings.Contains(said, `there is no recipient \"police\"`) {
		t.Errorf("the log does not tell:\n%s", said)
	}
	g.wants("GET", "words", "", nil, 200, `"recipients":["centre"]`)
}

// TestTry: a test message comes, is marked, and is on record.
func TestTry(t *testing.T) {
	t.Parallel()
	centre := newRecipient(t)
	g := prepare(t, "ioc:\n"+entryOf("centre", centre.url)+entryOf("gone", nowhere))
	g.start()
	if out := g.must("recipients", "test", "centre", "--why", "hằng tháng"); !strings.Contains(out, "answered: 204") {
		t.Errorf("haidang recipients test: %s", out)
	}
	got := centre.got()
	if len(got) != 2 || !got[0].Exercise || got[0].Rule != "test" || got[1].State != telemetry.Cleared || got[0].ID != got[1].ID || !strings.Contains(got[0].Message.VI, "lan kiểm tra đường báo") {
		t.Errorf("it gets %+v", got)
	}
	if _, problems, code := g.verb("recipients", "test", "gone", "--why", "x"); code != exitFailed || !strings.Contains(problems, "refused") {
		t.Errorf("who is gone: %d %s", code, problems)
	}
	if _, problems, code := g.verb("recipients", "test", "nobody", "--why", "x"); code != exitFailed || !strings.Contains(problems, `no recipient "nobody"; expected one of centre, gone`) {
		t.Errorf("nobody: %d %s", code, problems)
	}
	for body, field := range map[string]string{`{"by":"lan"}`: "why", `{"why":"x"}`: "by", `{"by":"lan","why":"x","loud":1}`: "loud"} {
		if status, answer := g.post("/api/v1/recipients/centre/test", body); status != http.StatusBadRequest || !strings.Contains(answer, `"field":"`+field+`"`) {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	if audit := g.must("audit", "--do", "recipient"); !strings.Contains(audit, "recipient.test") || !strings.Contains(audit, "hằng tháng") {
		t.Errorf("audit:\n%s", audit)
	}
	if len(g.warnings("?state=all")) != 0 {
		t.Error("a test is a warning")
	}
}
