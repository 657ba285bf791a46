package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"haidang/gateway/console/page"
	"haidang/gateway/telemetry"
)

// A shelf is a rule book that remembers what it was asked.
type shelf struct {
	version int
	edit    RuleEdit
	back    RuleReturn
	draft   RuleDraft
	trial   RuleTrial
	fail    error
	hold    chan struct{} // Backtest waits for it or for its context
	ended   chan error    // the error of a backtest's context
}

func (s *shelf) sources() Sources {
	all := full(newDesk())
	done := func() (any, error) { return map[string]any{"version": s.version + 1}, s.fail }
	file := map[string]any{"name": "rules/a.yaml", "origin": "page", "conflict": true, "rules": []string{"flood-alarm"}, "text": hostile}
	all.RuleBook = RuleBook{
		Files: func() (any, error) {
			return map[string]any{"version": s.version, "by": hostile, "why": hostile, "at": time.Now(), "trouble": hostile, "rule_files": []any{file}}, nil
		},
		File: func(name string, version int) (any, error) {
			if name != "rules/a.yaml" {
				return nil, fmt.Errorf("%w: there is no rule file %q", ErrNoRuleFile, name)
			}
			return map[string]any{"name": name, "version": s.version, "text": hostile, "asked": version}, nil
		},
		Versions: func(name string, limit int) (any, error) {
			return []any{map[string]any{"version": 3, "by": hostile, "why": hostile, "do": "edit", "files": []string{hostile}}}, nil
		},
		Version: func(n int) (any, error) {
			if n != 3 {
				return nil, fmt.Errorf("%w: version %d", ErrNoRuleFile, n)
			}
			return map[string]any{"version": 3, "newest": 4, "by": hostile, "changes": []any{map[string]any{"name": hostile, "lines": []any{map[string]any{"mark": "+", "text": hostile}}}}}, nil
		},
		Words: func() any { return map[string]any{"functions": []string{"rate"}} },
		Check: func(_ context.Context, d RuleDraft) (any, error) {
			s.draft = d
			return map[string]any{"findings": []string{}}, s.fail
		},
		Try: func(ctx context.Context, d RuleDraft) (any, error) { s.draft = d; return map[string]any{}, s.fail },
		Backtest: func(ctx context.Context, d RuleTrial, progress func(float64)) (any, error) {
			s.trial = d
			progress(0.5)
			if s.hold != nil {
				select {
				case <-s.hold:
				case <-ctx.Done():
					s.ended <- ctx.Err()
					return nil, ctx.Err()
				}
			}
			return map[string]int{"raised": 7}, s.fail
		},
		Save:   func(_ context.Context, e RuleEdit) (any, error) { s.edit = e; return done() },
		Return: func(_ context.Context, r RuleReturn) (any, error) { s.back = r; return done() },
	}
	return all
}

func TestRuleBookAPI(t *testing.T) {
	s := &shelf{version: 3}
	_, base, _ := start(t, s.sources())
	const file = "/api/v1/rules/file?name=rules/a.yaml"
	const who = `"by":" Lan ","why":"lũ"`
	for _, test := range []struct {
		method, path, body, match string
		status                    int
		want                      string // in the answer
	}{
		{"GET", "/api/v1/rules/files", "", "", 200, `"rules/a.yaml"`},
		{"GET", file, "", "", 200, `"asked":-1`},
		{"GET", file + "&version=2", "", "", 200, `"asked":2`},
		{"GET", file + "&version=x", "", "", 400, `"field":"version"`},
		{"GET", "/api/v1/rules/file?name=b", "", "", 404, "no rule file"},
		{"GET", "/api/v1/rules/words", "", "", 200, "rate"},
		{"GET", "/api/v1/rules/history?limit=0", "", "", 400, "1..500"},
		{"GET", "/api/v1/rules/history", "", "", 200, `"version":3`},
		{"GET", "/api/v1/rules/history/3", "", "", 200, `"newest":4`},
		{"GET", "/api/v1/rules/history/9", "", "", 404, "version 9"},
		{"GET", "/api/v1/rules/history/x", "", "", 400, "number of a version"},
		{"POST", "/api/v1/rules/check", `{"file":"a","text":"rules:","rule":""}`, "", 200, "findings"},
		{"POST", "/api/v1/rules/check", `{"file":"a","txt":"rules:"}`, "", 400, "txt"},
		{"POST", "/api/v1/rules/check", `[`, "", 400, "not an object"},
		{"POST", "/api/v1/rules/check", `{"text":"` + strings.Repeat("x", maxRuleBody) + `"}`, "", 413, "over 614400 bytes"},
		{"POST", "/api/v1/rules/try", `{"text":"` + strings.Repeat("x", 100<<10) + `"}`, "", 200, "{}"},
		{"PUT", file, `{"text":"x",` + who + `}`, "", 428, "If-Match"},
		{"PUT", file, `{"text":"x",` + who + `}`, `"x"`, 400, "not a version"},
		{"PUT", file, `{` + who + `}`, `"3"`, 400, `"field":"text"`},
		{"PUT", file, `{"text":"x","by":"Lan","why":" "}`, `"3"`, 400, `"field":"why"`},
		{"PUT", file, `{"text":"x",` + who + `}`, `"3"`, 200, `"version":4`},
		{"DELETE", file, "", "", 405, "GET, HEAD, PUT"},
		{"PATCH", "/api/v1/rules/flood", `{` + who + `}`, `"3"`, 400, "expected shadow or disabled"},
		{"PATCH", "/api/v1/rules/flood", `{"shadow":true,` + who + `}`, `"3"`, 200, `"version":4`},
		{"POST", "/api/v1/rules/revert", `{` + who + `}`, `"3"`, 400, `"field":"to"`},
		{"POST", "/api/v1/rules/revert", `{"to":2,` + who + `}`, `"3"`, 200, `"version":4`},
		{"POST", "/api/v1/rules/backtest", `{"file":"a","text":"x"}`, "", 400, `"field":"from"`},
		{"POST", "/api/v1/rules/backtest", `{"file":"a","text":"x","from":"2020-01-01T00:00:00Z"}`, "", 400, "400 days"},
	} {
		var header []string
		if test.match != "" {
			header = []string{"If-Match", test.match}
		}
		status, h, body := call(t, test.method, base+test.path, test.body, header...)
		if status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s %s %.80s: %d %s, want %d and %s", test.method, test.path, test.body, status, body, test.status, test.want)
		}
		if status/100 == 4 && h.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: a problem of type %s", test.method, test.path, h.Get("Content-Type"))
		}
		if test.method == "PUT" && status == 200 && h.Get("ETag") != `"4"` {
			t.Errorf("ETag %s", h.Get("ETag"))
		}
	}
	if s.edit.Rule != "flood" || !*s.edit.Shadow || s.edit.Seen != 3 || s.edit.By != "Lan" || s.edit.Why != "lũ" || s.back.To != 2 {
		t.Errorf("asked for %+v and %+v", s.edit, s.back)
	}
}

// TestRuleProblems looks at what becomes of errors.
func TestRuleProblems(t *testing.T) {
	s := &shelf{version: 3}
	_, base, _ := start(t, s.sources())
	for _, test := range []struct {
		err    error
		status int
		want   string
	}{
		{&RuleStale{Version: 5, By: "Minh", Why: "hạ ngưỡng"}, 412, `"n":5`},
		{&RuleStale{Version: 5, By: "Minh", Why: "hạ ngưỡng"}, 412, "Minh"},
		{&RuleFaults{First: "x", Faults: []string{"fault-1"}}, 422, `"faults":["fault-1"]`},
		{fmt.Errorf("%w: x", ErrUnavailable), 503, "x"},
		{context.DeadlineExceeded, 503, "too long"},
		{errors.New("nothing is to be changed"), 400, "nothing"},
	} {
		s.fail = test.err
		status, _, body := call(t, "PUT", base+"/api/v1/rules/file?name=rules/a.yaml", `{"text":"x","by":"Lan","why":"y"}`, "If-Match", `"3"`)
		if status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%v: %d %s", test.err, status, body)
		}
	}
}

const backtestBody = `{"file":"a","text":"x","rule":"r","from":"2025-10-27T00:00:00Z","to":"2025-10-28T00:00:00Z"}`

// TestBacktestOnce wants one at a time of a session.
func TestBacktestOnce(t *testing.T) {
	s := &shelf{hold: make(chan struct{}), ended: make(chan error, 1)}
	_, base, _ := start(t, s.sources())
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	begin := func() *http.Response {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/rules/backtest", strings.NewReader(backtestBody))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	first := begin() // its first line has come
	defer first.Body.Close()
	if status, _, body := call(t, "POST", base+"/api/v1/rules/backtest", backtestBody); status != 409 || !strings.Contains(body, "of yours") {
		t.Errorf("a second one: %d %s", status, body)
	}
	leave()
	<-s.ended
}

func TestBacktestEnds(t *testing.T) {
	s := &shelf{}
	_, base, _ := start(t, s.sources())
	status, h, body := call(t, "POST", base+"/api/v1/rules/backtest", backtestBody)
	if status != 200 || h.Get("Content-Type") != "application/x-ndjson" || !strings.HasSuffix(body, `{"report":{"raised":7}}`+"\n") || !strings.HasPrefix(body, `{"share":0}`) {
		t.Errorf("%d %s", status, body)
	}
	s.fail = errors.New("no readings")
	if _, _, body := call(t, "POST", base+"/api/v1/rules/backtest", backtestBody); !strings.HasSuffix(body, `{"error":"no readings"}`+"\n") {
		t.Errorf("of none: %s", body)
	}
	// Who asked goes away: it ends, and the next one may begin.
	s.fail, s.hold, s.ended = nil, make(chan struct{}), make(chan error, 1)
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/rules/backtest", strings.NewReader(backtestBody))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	close(s.hold)
	for deadline := time.Now().Add(5 * time.Second); ; {
		if status, _, _ := call(t, "POST", base+"/api/v1/rules/backtest", backtestBody); status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the next one may not begin")
		}
	}
}

// TestRulePages renders every page of rules in both languages with hostile names.
func TestRulePages(t *testing.T) {
	s := &shelf{version: 4}
	_, base, _ := start(t, s.sources())
	for _, lang := range page.Languages() {
		for path, want := range map[string]string{
			"/rules": "flood-alarm", "/rules/edit/flood-alarm": `id="editor"`, "/rules/new": `data-new="yes"`,
			"/rules/history": `href="/rules/history/3"`, "/rules/history/3": `class="added"`,
		} {
			status, h, body := call(t, "GET", base+path+"?lang="+lang, "")
			if status != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: %d, no %s", path, status, want)
			}
			if strings.Contains(body, "<script>alert") || strings.Contains(body, "%!") || strings.Contains(body, "style=") {
				t.Errorf("%s lets markup through", path)
			}
			policy := h.Get("Content-Security-Policy")
			if edits := strings.Contains(path, "edit") || strings.HasSuffix(path, "new"); edits != strings.Contains(policy, "style-src 'self' 'nonce-") || strings.Contains(policy, "unsafe") {
				t.Errorf("%s: policy %s", path, policy)
			}
			if strings.Contains(body, "codemirror") != (strings.Contains(path, "edit") || strings.HasSuffix(path, "new")) {
				t.Errorf("%s: the editor is loaded there, or is not", path)
			}
		}
	}
	if status, _, _ := call(t, "GET", base+"/rules/edit/none", ""); status != 404 {
		t.Errorf("a rule that is not there: %d", status)
	}
	if status, _, _ := call(t, "GET", base+"/rules/history/7", ""); status != 404 {
		t.Errorf("a version that is not there: %d", status)
	}
}

// TestRuleRights wants that drafts and changes are for rule authors, and that
// everybody who reads may read.
func TestRuleRights(t *testing.T) {
	for what, want := range map[string]telemetry.Right{
		"GET /rules/edit/x": telemetry.Read, "GET /api/v1/rules/file": telemetry.Read, "GET /api/v1/rules/history/3": telemetry.Read,
		"PUT /api/v1/rules/file": telemetry.Rule, "PATCH /api/v1/rules/flood": telemetry.Rule, "POST /api/v1/rules/check": telemetry.Rule,
		"POST /api/v1/rules/try": telemetry.Rule, "POST /api/v1/rules/backtest": telemetry.Rule, "POST /api/v1/rules/revert": telemetry.Rule,
	} {
		method, path, _ := strings.Cut(what, " ")
		if got := needs(method, path); got != want {
			t.Errorf("%s needs the right to %s, want %s", what, got, want)
		}
	}
}
