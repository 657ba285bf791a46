package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAPIProblems sends what the API of warnings does not know: each answer is a
// problem that names the field, and nothing has changed.
func TestAPIProblems(t *testing.T) {
	t.Parallel()
	centre := newRecipient(t)
	g := prepare(t, "ioc:\n"+entryOf("centre", centre.url))
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	id := g.warnings("")[0].ID
	soon := time.Now().Add(time.Hour).Format(time.RFC3339)
	w := "/api/v1/warnings/" + id
	for _, c := range []struct {
		method, path, body string
		status             int
		field              string
	}{
		{"POST", w + "/ack", `{"n":1,"by":"Lan","loud":true}`, 400, "loud"},
		{"POST", w + "/ack", `{"n":"1","by":"Lan"}`, 400, "n"},
		{"POST", w + "/ack", `{"n":1.5,"by":"Lan"}`, 400, "n"},
		{"POST", w + "/ack", `{"n":0,"by":"Lan"}`, 400, "n"},
		{"POST", w + "/ack", `{"n":1}`, 400, "by"},
		{"POST", w + "/ack", `{"n":1,"by":"` + strings.Repeat("x", 129) + `"}`, 400, "by"},
		{"POST", w + "/ack", `{"n":1,"by":"Lan","text":"` + strings.Repeat("x", 5000) + `"}`, 400, "text"},
		{"POST", w + "/ack", `{"n":1,"by":"Lan","to":"x"}`, 400, "to"},
		{"POST", w + "/ack", `{"n":1,"by":"Lan","until":"` + soon + `"}`, 400, "until"},
		{"POST", w + "/ack", `{"n":9,"by":"Lan"}`, 409, "n"},
		{"POST", w + "/ack", `{"n":1,"by":"Lan"} {}`, 400, ""},
		{"POST", w + "/ack", `[]`, 400, ""},
		{"POST", w + "/ack", `{`, 400, ""},
		{"POST", w + "/shelve", `{"n":1,"by":"Lan"}`, 400, "until"},
		{"POST", w + "/shelve", `{"n":1,"by":"Lan","until":"soon"}`, 400, "until"},
		{"POST", w + "/shelve", `{"n":1,"by":"Lan","until":"2020-01-01T00:00:00Z"}`, 400, "until"},
		{"POST", w + "/unshelve", `{"n":1,"by":"Lan"}`, 400, ""},
		{"POST", w + "/comment", `{"n":1,"by":"Lan"}`, 400, "text"},
		{"POST", w + "/assign", `{"n":1,"by":"Lan"}`, 400, "to"},
		{"POST", w + "/genuine", `{"n":1,"by":"Lan"}`, 400, ""},
		{"POST", w + "/explode", `{"n":1,"by":"Lan"}`, 404, ""},
		{"POST", "/api/v1/warnings/nothing/ack", `{"n":1,"by":"Lan"}`, 404, "id"},
		{"DELETE", w, ``, 405, ""},
		{"GET", "/api/v1/warnings?state=loud", ``, 400, "state"},
		{"GET", "/api/v1/warnings?severity=9", ``, 400, "severity"},
		{"GET", "/api/v1/warnings?colour=red", ``, 400, "colour"},
		{"GET", "/api/v1/warnings?device=a&device=b", ``, 400, "device"},
		{"GET", "/api/v1/warnings/nothing", ``, 404, "id"},
		{"GET", "/api/v1/warnings/nothing/history", ``, 404, "id"},
		{"GET", "/api/v1/warnings/nothing/deliveries", ``, 404, "id"},
		{"GET", "/api/v1/warnings/nothing/route", ``, 404, "id"},
		{"GET", "/api/v1/route?device=kim-long&severity=loud", ``, 400, "severity"},
		{"GET", "/api/v1/route?device=kim-long&rule=nothing", ``, 400, "rule"},
		{"GET", "/api/v1/route?device=kim-long&at=noon", ``, 400, "at"},
		{"GET", "/api/v1/route", ``, 400, "device"},
		{"GET", "/api/v1/reports?by=year", ``, 400, "by"},
		{"GET", "/api/v1/reports?from=x", ``, 400, "from"},
		{"GET", "/api/v1/reports?format=xls", ``, 400, "format"},
		{"POST", "/api/v1/out-of-service", `{"out":"yes","device":"kim-long","by":"Lan","why":"x"}`, 400, "out"},
		{"POST", "/api/v1/out-of-service", `{"out":true,"by":"Lan","why":"x"}`, 400, "device"},
		{"POST", "/api/v1/out-of-service", `{"out":true,"device":"kim-long","why":"x"}`, 400, "by"},
		{"POST", "/api/v1/out-of-service", `{"out":true,"device":"kim-long","by":"Lan"}`, 400, "why"},
	} {
		status, body := g.ask(c.method, "http://"+g.ports.console+c.path, "", "", c.body)
		var p struct {
			Status        int
			Title, Detail string
			Field         string
		}
		if err := json.Unmarshal([]byte(body), &p); err != nil || status != c.status || p.Status != status || p.Field != c.field || p.Detail == "" || p.Title != http.StatusText(status) {
			t.Errorf("%s %s %.60s: %d %s; want %d, field %q", c.method, c.path, c.body, status, body, c.status, c.field)
		}
	}
	if now := g.warnings("")[0]; now.N != 1 {
		t.Errorf("something has changed: %+v", now)
	}
}

// TestOperatorsAtOnce: of many who acknowledge what they all saw one does, and each
// of the others is told by whom.
func TestOperatorsAtOnce(t *testing.T) {
	t.Parallel()
	g := prepare(t, "")
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	id := g.warnings("")[0].ID
	const operators = 12
	answers := make([]string, operators)
	statuses := make([]int, operators)
	var all sync.WaitGroup
	for i := range operators {
		all.Go(func() {
			statuses[i], answers[i] = g.ask(http.MethodPost, "http://"+g.ports.console+"/api/v1/warnings/"+id+"/ack", "", "", fmt.Sprintf(`{"n":1,"by":"operator-%d"}`, i))
		})
	}
	all.Wait()
	winner := g.warnings("")[0].AckedBy
	for i := range operators {
		who := fmt.Sprint("operator-", i)
		switch {
		case statuses[i] == http.StatusOK && who == winner:
		case statuses[i] == http.StatusConflict && strings.Contains(answers[i], "ack by "+winner+" at") && strings.Contains(answers[i], `"n":2`):
		default:
			t.Errorf("%s (the first was %s): %d %s", who, winner, statuses[i], answers[i])
		}
	}
}
