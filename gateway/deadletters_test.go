package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// letters returns the dead letters at the API.
func (g *gatewayProcess) letters(query string) []letterState {
	g.t.Helper()
	status, body := g.try("/api/v1/deadletters" + query)
	var answer struct{ DeadLetters []letterState }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		g.t.Fatalf("dead letters: %d %s: %v", status, body, err)
	}
	return answer.DeadLetters
}

// TestDeadLetters: what was refused is found, looked at, taken in again once it
// can be used, and once only.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	kinds := "kinds: kinds.yaml\nstrict: true\n"
	g := prepare(t, kinds)
	g.write("kinds.yaml", "kinds: []\n")
	g.start()
	c := g.client("station")
	g.publish(c, "telemetry/ao-tom/pond", `{"salt":31.5,"time":"2025-10-27T13:00:00Z"}`) // a kind that is not known
	g.publish(c, "telemetry/ao-tom/river", `{"level_m":`)
	g.publish(c, "telemetry/ao-tom/river", "\x00\xff\x1b[31m")
	g.publish(c, "telemetry/other/river", strings.Repeat("x", 5000))
	eventually(t, "four letters", 10*time.Second, func() bool { return len(g.letters("")) == 4 })
	if n := len(g.letters("?device=ao-tom&reason=bad_json")); n != 2 {
		t.Errorf("%d letters of bad_json", n)
	}
	if d := g.deviceState("ao-tom"); d.Errors["bad_json"] != 2 || d.Errors["unknown_kind"] != 1 || d.LastError == nil {
		t.Errorf("the device has errors %v, last %+v", d.Errors, d.LastError)
	}

	list := g.must("deadletter", "list", "--device", "ao-tom")
	if !strings.Contains(list, "unknown_kind") || strings.Contains(list, "other") || strings.ContainsAny(list, "\x1b\x00") {
		t.Errorf("the list is\n%s", list)
	}
	id := func(reason, text string) string {
		t.Helper()
		for _, l := range g.letters("?state=all&reason=" + reason) {
			if strings.Contains(string(l.Bytes), text) {
				return l.ID
			}
		}
		t.Fatalf("no letter %s with %q", reason, text)
		return ""
	}
	pond, torn, binary, long := id("unknown_kind", "salt"), id("bad_json", `{"level_m":`), id("bad_json", "\x00"), id("bad_json", "xxx")
	if out := g.must("deadletter", "show", pond); !strings.Contains(out, `"salt":31.5`) || !strings.Contains(out, "ao-tom/pond") {
		t.Errorf("shown as\n%s", out)
	}
	if out := g.must("deadletter", "show", binary); !strings.Contains(out, "00 ff 1b 5b") || strings.Contains(out, "\x1b") {
		t.Errorf("shown as\n%q", out)
	}

	// What cannot be used yet stays.
	if _, problems, code := g.verb("deadletter", "retry", pond, torn, long); code != 1 || !strings.Contains(problems, pond+": it still cannot be used: kind \"pond\"") ||
		!strings.Contains(problems, torn+": it still cannot be used") || !strings.Contains(problems, long+": only the first 4096 bytes were kept") {
		t.Errorf("%d %s", code, problems)
	}
	if n := len(g.letters("")); n != 4 {
		t.Errorf("%d letters after a vain retry", n)
	}
	g.write("kinds.yaml", "kinds:\n  - {name: pond, values: [{name: salt, unit: ppt, min: 0, max: 50}]}\n")
	reload(t, g)
	if out := g.must("deadletter", "retry", "--reason", "unknown_kind"); !strings.Contains(out, pond+": taken in") {
		t.Errorf("told %q", out)
	}
	eventually(t, "the reading is stored at its time", 10*time.Second, func() bool {
		rows := g.rows(`SELECT salt FROM pond WHERE time='2025-10-27T13:00:00Z'`)
		return len(rows) == 1
	})
	before := g.metric("haidang_readings_accepted_total")
	for range 2 { // also over a kill
		if _, problems, code := g.verb("deadletter", "retry", pond); code != 1 || !strings.Contains(problems, "was retried by lan") {
			t.Errorf("a second retry: %d %s", code, problems)
		}
		if got := g.metric("haidang_readings_accepted_total"); got > before {
			t.Errorf("taken in twice: %v readings, %v before", got, before)
		}
		g.kill()
		g.start()
		before = g.metric("haidang_readings_accepted_total")
	}

	// What was taken in or dropped is no problem of the device any more, also after a
	// start; what is left is.
	problems := func(want map[string]int, last string) {
		t.Helper()
		eventually(t, fmt.Sprintf("errors %v", want), 5*time.Second, func() bool { return maps.Equal(g.deviceState("ao-tom").Errors, want) })
		if d := g.deviceState("ao-tom"); last != "" && (d.LastError == nil || !strings.Contains(d.LastError.Detail, last)) {
			t.Errorf("the newest is %+v, want of %s", d.LastError, last)
		}
	}
	problems(map[string]int{"bad_json": 2}, "")
	g.must("deadletter", "drop", binary)
	left := g.letters("?device=ao-tom")[0].Detail
	problems(map[string]int{"bad_json": 1}, left)
	g.kill()
	g.start()
	problems(map[string]int{"bad_json": 1}, left)
	g.must("deadletter", "drop", "--device", "ao-tom")
	// Nothing is left of it: unknown, or known by its first contact alone where that
	// was kept before the kill.
	if status, body := g.try("/api/v1/devices/ao-tom"); status != http.StatusNotFound && (status != http.StatusOK || strings.Contains(body, "errors") || strings.Contains(body, "last_error")) {
		t.Errorf("after all is dropped: %d %s", status, body)
	}
	g.must("deadletter", "drop", long)
	if n := len(g.letters("")); n != 0 {
		t.Errorf("%d letters after all were dropped", n)
	}
	if out := g.must("deadletter", "retry", "--reason", "bad_name"); out != "there are no dead letters with the reason bad_name\n" {
		t.Errorf("nothing to retry: %q", out)
	}
	if all := g.letters("?state=all"); len(all) != 4 || all[0].Settled == nil || all[0].Settled.By != "lan" {
		t.Errorf("all letters: %+v", all)
	}
	if status, body := g.try("/api/v1/deadletters/99-0"); status != http.StatusNotFound {
		t.Errorf("a letter that is not there: %d %s", status, body)
	}
}

func reload(t *testing.T, g *gatewayProcess) {
	t.Helper()
	at := runningGateway{data: g.dir + "/data"}
	if err := at.ask(t.Context(), http.MethodPost, "/api/v1/rules/reload", nil, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestErrorsOfADay: what is older than a day does not count.
func TestErrorsOfADay(t *testing.T) {
	l := &letterbox{devices: map[string]*deviceErrors{}}
	now := time.Date(2025, 10, 27, 13, 30, 0, 0, time.UTC)
	for i, age := range []time.Duration{50 * time.Hour, 25 * time.Hour, 23 * time.Hour, time.Minute, 0} {
		l.enter(uint64(i), 0, &telemetry.DeadLetter{At: now.Add(-age), Device: "d", Reason: "bad_json", Detail: age.String()})
	}
	got, last := l.errorsOf("d", now)
	if got["bad_json"] != 3 || last.Detail != "0s" {
		t.Errorf("%v, %+v", got, last)
	}
	if got, last := l.errorsOf("d", now.Add(48*time.Hour)); got != nil || last != nil {
		t.Errorf("two days later %v, %+v", got, last)
	}
	for i := range 2 * maxLetters { // names that somebody makes up
		l.enter(uint64(i), 0, &telemetry.DeadLetter{At: now, Device: fmt.Sprint("d", i), Reason: "bad_json"})
	}
	if len(l.devices) != maxLetterDevice {
		t.Errorf("the errors of %d devices are counted", len(l.devices))
	}
	l.enter(0, 0, &telemetry.DeadLetter{At: now.Add(25 * time.Hour), Device: "new", Reason: "bad_json"})
	if got := l.erring(now.Add(25 * time.Hour)); len(got) != 1 || got[0] != "new" {
		t.Errorf("a day later %d devices have errors", len(got))
	}
	if len(l.entries) > maxLetters+maxLetters/4 {
		t.Errorf("%d letters are remembered", len(l.entries))
	}
}
