package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const bookRules = `# Levels of the Huong river.
rules:
  - name: flood # of the province
    on: river
    when: level_m > 3
  - name: silent
    on: river
    when: silent("6h")
`

// askRules sends a request to the API of the rules; match is what If-Match says, ""
// for none.
func (g *gatewayProcess) askRules(method, path, match string, body any) (status int, answer string) {
	g.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		g.t.Error(err)
		return 0, ""
	}
	r, err := http.NewRequestWithContext(g.t.Context(), method, "http://"+g.ports.console+"/api/v1/rules/"+path, bytes.NewReader(text))
	if err != nil {
		g.t.Error(err)
		return 0, ""
	}
	r.Header.Set("Content-Type", "application/json")
	if match != "" {
		r.Header.Set("If-Match", match)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		g.t.Error(err)
		return 0, ""
	}
	return response.StatusCode, string(all)
}

// wants is askRules for an answer that is known.
func (g *gatewayProcess) wants(method, path, match string, body any, status int, parts ...string) string {
	g.t.Helper()
	got, answer := g.askRules(method, path, match, body)
	if got != status {
		g.t.Errorf("%s %s: %d %.600s, want %d", method, path, got, answer, status)
	}
	for _, part := range parts {
		if !strings.Contains(answer, part) {
			g.t.Errorf("%s %s: %.900s\nwant %s", method, path, answer, part)
		}
	}
	return answer
}

type edit map[string]any

const floodFile = "file?name=rules/flood.yaml"

// TestRuleBook is what an author does on the page, by its API, over a kill of the
// gateway and changes of the configuration's files.
func TestRuleBook(t *testing.T) {
	t.Parallel()
	g := prepare(t, "devices: devices.yaml\nrules: [rules/*.yaml]\n")
	g.write("devices.yaml", stationDevices)
	g.write("rules/flood.yaml", bookRules)
	g.start()
	c := g.client("station")
	g.publish(c, "telemetry/kim-long/river", `{"level_m": 2.4}`)
	eventually(t, "the reading is known", 5*time.Second, func() bool { return g.deviceState("kim-long").Heard != nil })

	drafted := strings.Replace(bookRules, "level_m > 3", "levl_m > 2", 1)
	g.wants("POST", "check", "", edit{"file": "rules/flood.yaml", "text": drafted}, 200,
		`"line":5,"column":11,"end_line":5,"end_column":17`, `"suggestion":"level_m"`, "did you mean level_m?\"")
	lower := strings.Replace(bookRules, "level_m > 3", "level_m > 2 # lower", 1)
	g.wants("POST", "check", "", edit{"file": "rules/flood.yaml", "text": lower}, 200, `"rules":["flood","silent"]`)
	g.wants("POST", "try", "", edit{"file": "rules/flood.yaml", "text": lower, "rule": "flood"}, 200,
		`"device":"kim-long","applies":true`, `"verdict":"true"`, `{"name":"level_m","number":2.5}`, `"counts":{"missing":1,"true":1}`, `"value":"level_m"`)
	g.wants("POST", "try", "", edit{"file": "rules/flood.yaml", "text": lower, "rule": "none"}, 404, "no rule")
	g.wants("POST", "try", "", edit{"file": "rules/flood.yaml", "text": drafted, "rule": "flood"}, 422, `"faults":[`)

	saved := edit{"text": lower, "by": "Lan", "why": "lũ sớm"}
	g.wants("PUT", floodFile, `"3"`, saved, 412, "the configuration")
	g.wants("PUT", floodFile, `"0"`, saved, 200, `"version":1`)
	g.wants("PUT", floodFile, `"0"`, edit{"text": bookRules, "by": "Minh", "why": "x"}, 412, "Lan has changed the rules", "lũ sớm", `"n":1`)
	g.wants("PUT", floodFile, `"1"`, saved, 400, "nothing is to be changed")
	g.wants("PUT", floodFile, `"1"`, edit{"text": drafted, "by": "Minh", "why": "x"}, 422, `"end_column":17`)
	g.wants("GET", "document", "", nil, 200, `level_m \u003e 2`) // who saves sees it in force
	g.publish(c, "telemetry/kim-long/river", `{"level_m": 2.5}`)
	eventually(t, "the new rule warns", 5*time.Second, func() bool { _, all := g.try("/api/v1/warnings"); return strings.Contains(all, `"rule":"flood"`) })
	g.wants("PATCH", "flood", `"1"`, edit{"shadow": true, "by": "Lan", "why": "thử"}, 200, `"version":2`)
	g.wants("GET", floodFile, "", nil, 200, `# of the province\n    shadow: true`, "# lower", `"origin":"page"`)
	g.wants("PUT", "file?name=rules/new.yaml", `"2"`, edit{"text": "rules:\n  - {name: fresh, on: river, when: level_m > 9}\n", "by": "Lan", "why": "mới"}, 200, `"version":3`)
	g.wants("GET", "history/2", "", nil, 200, `{"mark":"+","text":"    shadow: true"}`, `"newest":3`)

	manyAuthors(t, g, 3)

	g.kill() // what was answered is there again
	g.start()
	g.wants("GET", "files", "", nil, 200, `"version":4`, `"by":"author-`, `"rules/new.yaml"`)
	eventually(t, "the page's rules are in force again", 5*time.Second, func() bool {
		_, all := g.try("/api/v1/rules/document")
		return strings.Contains(all, `level_m \u003e 2`) && strings.Contains(all, "fresh")
	})
	if out := g.must("rules", "history"); !strings.Contains(out, "lũ sớm") || !strings.Contains(out, "rules/new.yaml") {
		t.Errorf("history:\n%s", out)
	}
	if out := g.must("rules", "history", "1"); !strings.Contains(out, "-     when: level_m > 3\n+     when: level_m > 2 # lower") {
		t.Errorf("version 1:\n%s", out)
	}
	if out := g.must("rules", "check"); !strings.Contains(out, "note: rules/flood.yaml: the text of the page is in force (version 2 by Lan: thử)") {
		t.Errorf("check:\n%s", out)
	}
	bookConflict(t, g)
}

// manyAuthors lets many save at once what they made of the same version: one is
// taken, the others are told of him.
func manyAuthors(t *testing.T, g *gatewayProcess, version int) {
	const authors = 12
	answers := make(chan int, authors)
	for i := range authors {
		go func() {
			text := fmt.Sprintf("rules:\n  - {name: fresh, on: river, when: level_m > %d}\n", 10+i)
			status, answer := g.askRules("PUT", "file?name=rules/new.yaml", fmt.Sprintf("%q", fmt.Sprint(version)), edit{"text": text, "by": fmt.Sprintf("author-%d", i), "why": "tôi trước"})
			if status == 412 && !strings.Contains(answer, "author-") {
				t.Errorf("who was faster is not told: %s", answer)
			}
			answers <- status
		}()
	}
	taken := map[int]int{}
	for range authors {
		taken[<-answers]++
	}
	if taken[200] != 1 || taken[412] != authors-1 {
		t.Errorf("answers of %d authors at once: %v", authors, taken)
	}
}

// bookConflict changes a file that the page has changed as well, and takes what the
// page says into the configuration.
func bookConflict(t *testing.T, g *gatewayProcess) {
	reload := func() { g.wants("POST", "reload", "", edit{}, 200) }
	inForce := func(what string) {
		t.Helper()
		eventually(t, what+" is in force", 5*time.Second, func() bool {
			_, all := g.try("/api/v1/rules/document")
			return strings.Contains(all, what)
		})
	}
	g.write("rules/flood.yaml", strings.Replace(bookRules, "level_m > 3", "level_m > 4", 1))
	reload()
	g.wants("GET", floodFile, "", nil, 200, `"conflict":true`, `"theirs":"# Levels`, `{"mark":"-","text":"    when: level_m \u003e 4"}`)
	if n, v := g.metric("haidang_rules_edit_conflicts"), g.metric("haidang_rules_edit_version"); n != 1 || v != 4 {
		t.Errorf("metrics tell of %v conflicts at version %v", n, v)
	}
	inForce(`level_m \u003e 2`)
	if out, _, _ := g.verb("rules", "check"); !strings.Contains(out, "changed here and on the page") {
		t.Errorf("check of a conflict:\n%s", out)
	}
	if !strings.Contains(g.output.String(), "was changed in the configuration and on the page") {
		t.Errorf("the log does not tell of the conflict:\n%s", g.output)
	}
	if out := g.must("rules", "revert", "--to", "configuration", "--file", "rules/flood.yaml", "--why", "4 m"); !strings.Contains(out, "version 5 is in force") {
		t.Errorf("revert:\n%s", out)
	}
	g.wants("GET", floodFile, "", nil, 200, `"origin":"configuration"`, "level_m \\u003e 4")
	g.wants("POST", "revert", `"5"`, edit{"to": 1, "by": "Lan", "why": "lại"}, 200, `"version":6`)
	inForce(`level_m \u003e 2`)
	if _, all := g.try("/api/v1/rules/document"); strings.Contains(all, "fresh") {
		t.Error("a file that version 1 did not have is still there")
	}
	// Exported and taken over, the file's next change counts again.
	out := filepath.Join(g.dir, "out")
	g.must("rules", "export", out)
	text, err := os.ReadFile(filepath.Join(out, "rules", "flood.yaml"))
	if err != nil || !strings.Contains(string(text), "# lower") {
		t.Fatalf("exported %q, %v", text, err)
	}
	if _, problems, code := g.verb("rules", "export", out); code != exitFailed || !strings.Contains(problems, "there already") {
		t.Errorf("exported again: %d %s", code, problems)
	}
	g.write("rules/flood.yaml", string(text))
	reload()
	g.wants("GET", floodFile, "", nil, 200, `"origin":"configuration"`)
	g.write("rules/flood.yaml", strings.Replace(string(text), "level_m > 2", "level_m > 5", 1))
	reload()
	g.wants("GET", floodFile, "", nil, 200, `"origin":"configuration"`, "level_m \\u003e 5")
	inForce(`level_m \u003e 5`)
	if status, body := g.try("/api/v1/rules/history"); status != 200 || !strings.Contains(body, `"do":"follow"`) {
		t.Errorf("history: %s", body)
	}
}

// TestRuleBookMisfit starts with a page's text that the configuration does not
// carry any more: the configuration's rules are in force, and it is told.
func TestRuleBookMisfit(t *testing.T) {
	g := prepare(t, "devices: devices.yaml\nkinds: kinds.yaml\nrules: [rules/*.yaml]\n")
	g.write("devices.yaml", stationDevices)
	g.write("kinds.yaml", "kinds: [{name: gate, values: [{name: open_m}]}]\n")
	g.write("rules/flood.yaml", bookRules)
	g.start()
	g.wants("PUT", "file?name=rules/gate.yaml", `"0"`, edit{"text": "rules:\n  - {name: gate-open, on: gate, when: open_m > 1}\n", "by": "Lan", "why": "cống"}, 200)
	g.kill()
	g.write("kinds.yaml", "kinds: []\n")
	g.start()
	eventually(t, "the configuration's rules are in force", 5*time.Second, func() bool {
		_, all := g.try("/api/v1/rules/document")
		return strings.Contains(all, `"flood"`) && !strings.Contains(all, "gate-open")
	})
	g.wants("GET", "files", "", nil, 200, "not in force", `kind \"gate\" is not in the catalogue`)
	if !strings.Contains(g.output.String(), "not in force") {
		t.Errorf("the log does not tell:\n%s", g.output)
	}
	// It can still be taken back.
	g.wants("POST", "revert", `"1"`, edit{"to": 0, "by": "Lan", "why": "bỏ"}, 200, `"version":2`)
	g.wants("GET", "files", "", nil, 200, `"version":2`)
}

// TestRuleDrafts sends what nobody should: it is refused in good time, and told.
func TestRuleDrafts(t *testing.T) {
	t.Setenv("HAIDANG_TEST_SECRET", "s3cret")
	g := prepare(t, "devices: devices.yaml\nrules: [rules/*.yaml]\n")
	g.write("devices.yaml", stationDevices)
	g.write("rules/flood.yaml", bookRules)
	g.start()
	rule := func(when string) string { return "rules:\n  - name: x\n    on: river\n    when: " + when + "\n" }
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n")
	for i := '1'; i <= '9'; i++ {
		fmt.Fprintf(&bomb, "a%c: &a%c [%s*a%c]\n", i, i, strings.Repeat(fmt.Sprintf("*a%c, ", i-1), 9), i-1)
	}
	for name, c := range map[string]struct {
		text   string
		status int
		want   string
	}{
		"parens":    {rule(strings.Repeat("(", 2000) + "level_m" + strings.Repeat(")", 2000) + " > 1"), 200, `"findings":[`},
		"deep":      {rule(`"` + strings.Repeat("not (", 600) + "level_m > 1" + strings.Repeat(")", 600) + `"`), 200, `"level":"error"`},
		"long":      {rule("level_m > 1" + strings.Repeat(" or level_m > 1", 400)), 200, "longer than 4096 bytes"},
		"wide":      {rule("level_m > 1" + strings.Repeat(" or level_m > 1", 150)), 200, `"level":"error"`},
		"bomb":      {bomb.String() + rule("level_m > 1"), 200, "unknown key"},
		"no YAML":   {"rules:\n  - name: x\n    on: [river\n", 200, `"line":3,"column":1,`},
		"empty":     {"", 200, `"rules":[]`},
		"variable":  {strings.Replace(rule("level_m > 1"), "name: x", `name: x${HAIDANG_TEST_SECRET}`, 1), 200, "variables of the environment"},
		"huge":      {"# " + strings.Repeat("x", 300<<10), 400, "bytes are more than"},
		"twice":     {strings.Replace(rule("level_m > 1"), "name: x", "name: flood", 1), 200, "is there twice"},
		"recursion": {"a: &a [*a]\n" + rule("level_m > 1"), 200, `"level":"error"`},
		"many":      {"rules:\n" + strings.Repeat("  - {name: y, on: river, when: level_m > 1}\n", 4000), 200, "is there twice"},
		"binary":    {"rules: \"\x00\x01\"", 200, `"level":"error"`},
	} {
		began := time.Now()
		answer := g.wants("POST", "check", "", edit{"file": "rules/x.yaml", "text": c.text}, c.status, c.want)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %s", name, took)
		}
		if strings.Contains(answer, "s3cret") {
			t.Errorf("%s tells a secret", name)
		}
	}
	for _, name := range []string{"../x.yaml", "/etc/x.yaml", "rules/x.txt", "rules//x.yaml", "rules/x.test.yaml", ".x.yaml", ""} {
		g.wants("PUT", "file?name="+url.QueryEscape(name), `"0"`, edit{"text": rule("level_m > 1"), "by": "Lan", "why": "x"}, 404)
	}
	if _, err := os.Stat(filepath.Join(g.dir, "data", "rules")); !os.IsNotExist(err) {
		t.Errorf("what was refused has left something on disk: %v", err)
	}
	// The past: a rule that was not there, over a store that has nothing; and one
	// that raises.
	from := time.Now().Add(-time.Hour)
	past := edit{"file": "rules/x.yaml", "text": rule("level_m > 1"), "rule": "x", "from": from}
	g.wants("POST", "backtest", "", past, 200, `"share":0`, `"error":"no readings`)
	c := g.client("station")
	for i := range 5 {
		g.publish(c, "telemetry/kim-long/river", fmt.Sprintf(`{"level_m": %d, "time": %d}`, i%3, from.Add(time.Duration(i)*10*time.Minute).Unix()))
	}
	eventually(t, "the backtest finds what is stored", 10*time.Second, func() bool {
		_, answer := g.askRules("POST", "backtest", "", past)
		return strings.Contains(answer, `"readings":5`)
	})
	g.wants("POST", "backtest", "", past, 200, `"rule":"x","on":"river","value":"level_m"`, `"device":"kim-long","raised":`)
	past["text"], past["rule"], past["file"] = strings.Replace(bookRules, "> 3", "> 1.5", 1), "flood", "rules/flood.yaml"
	g.wants("POST", "backtest", "", past, 200, `"live":{`, `"compared":{"changed":0,"only_live":0,"only_new":1,"same":0}`)
}
