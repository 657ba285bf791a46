package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// desk is a warnings board behind a lock, as main has one.
type desk struct {
	mu    sync.Mutex
	board *telemetry.Board
	fail  error // of Act, when set
}

func newDesk() *desk {
	d := &desk{board: telemetry.NewBoard()}
	at := time.Date(2025, 10, 27, 9, 30, 0, 0, time.FixedZone("+07", 7*3600))
	for i, w := range []telemetry.Warning{
		{ID: "kim-long-flood-1", N: 3, Device: "kim-long", Rule: "flood-alarm", Severity: telemetry.Extreme, State: telemetry.Active,
			Message: telemetry.Text{VI: "Mực nước Kim Long <3,62> m", EN: "Kim Long at <3.62> m"}},
		{ID: "phu-oc-flood-1", N: 1, Device: "phu-oc", Rule: "flood-alarm", Severity: telemetry.Moderate, State: telemetry.Acknowledged, AckedBy: "Lan"},
		{ID: "boat-zone-1", N: 2, Device: "mmsi-574000001", Rule: "left-zone", Severity: telemetry.Minor, State: telemetry.Shelved},
		{ID: "a-luoi-rain-1", N: 4, Device: "a-luoi", Rule: "heavy-rain", Severity: telemetry.Severe, State: telemetry.Cleared},
		{ID: "a-luoi-rain-2", N: 1, Device: "a-luoi", Rule: "heavy-rain", Severity: telemetry.Severe, State: telemetry.Pending},
	} {
		w.Site, w.Kind, w.Start, w.At = w.Device, "river", at, at.Add(time.Duration(i)*time.Minute)
		w.Values = map[string]float64{"level_m": 3.62}
		d.board.Apply(telemetry.Transition{Warning: w, Step: w.N})
	}
	return d
}

func (d *desk) warnings(all bool) []telemetry.Warning {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.board.Warnings(all)
}

func (d *desk) warning(id string) (telemetry.Warning, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.board.Warning(id)
}

func (d *desk) act(_ context.Context, act telemetry.Act) (telemetry.Warning, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return telemetry.Warning{}, d.fail
	}
	t, err := d.board.Act(act)
	if err == nil {
		d.board.Apply(t)
	}
	return t.Warning, err
}

func (d *desk) sources() Sources {
	return Sources{
		Warnings: d.warnings, Warning: d.warning, Act: d.act, Gateway: "kim-long-box", Version: "1.2",
		Devices: func(string, string) any { return []telemetry.Device{{ID: "kim-long"}} },
		Rules:   func() any { return []map[string]string{{"name": "flood-alarm"}} },
		DeadLetters: func(_ context.Context, q LetterQuery) (any, error) {
			return make([]telemetry.DeadLetter, min(q.Limit, 150)), nil
		},
		Ready: map[string]func(context.Context) error{"spool": func(context.Context) error { return nil }},
	}
}

// start runs a console on a free port and returns its address.
func start(t *testing.T, sources Sources) (c *Console, base string, reg *prometheus.Registry) {
	t.Helper()
	return startGuarded(t, sources, nil)
}

// startGuarded runs a console that asks who sends a request.
func startGuarded(t *testing.T, sources Sources, accounts Authenticator) (c *Console, base string, reg *prometheus.Registry) {
	t.Helper()
	reg = prometheus.NewPedanticRegistry()
	c, err := New(Config{Listen: "127.0.0.1:0"}, sources, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if accounts != nil {
		c.Guard(accounts)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c, "http://" + c.Addr().String(), reg
}

func call(t *testing.T, method, url, body string, header ...string) (status int, h http.Header, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func TestListOfWarnings(t *testing.T) {
	_, base, _ := start(t, newDesk().sources())
	for query, want := range map[string]string{
		"":                                 "kim-long-flood-1 a-luoi-rain-2 phu-oc-flood-1 boat-zone-1",
		"?state=all":                       "kim-long-flood-1 a-luoi-rain-2 phu-oc-flood-1 boat-zone-1 a-luoi-rain-1",
		"?state=active":                    "kim-long-flood-1",
		"?state=cleared":                   "a-luoi-rain-1",
		"?state=shelved":                   "boat-zone-1",
		"?device=phu-oc":                   "phu-oc-flood-1",
		"?rule=flood-alarm":                "kim-long-flood-1 phu-oc-flood-1",
		"?severity=severe&state=all":       "kim-long-flood-1 a-luoi-rain-2 a-luoi-rain-1",
		"?severity=moderate&device=phu-oc": "phu-oc-flood-1",
		"?device=nobody":                   "",
	} {
		status, h, body := call(t, "GET", base+"/api/v1/warnings"+query, "")
		var got struct{ Warnings []telemetry.Warning }
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s: status %d, %s: %v", query, status, body, err)
			continue
		}
		ids := make([]string, len(got.Warnings))
		for i, w := range got.Warnings {
			ids[i] = w.ID
		}
		if strings.Join(ids, " ") != want {
			t.Errorf("%s: %v, want %s", query, ids, want)
		}
		if want == "" && !strings.Contains(body, `"warnings":[]`) {
			t.Errorf("%s: %s, want an empty list", query, body)
		}
	}
}

func TestAnswers(t *testing.T) {
	_, base, _ := start(t, newDesk().sources())
	for _, c := range []struct {
		method, path string
		status       int
		contains     string
	}{
		{"GET", "/api/v1/warnings/kim-long-flood-1", 200, `"severity":"extreme"`},
		{"GET", "/api/v1/devices", 200, `{"devices":[{"id":"kim-long"}]}`},
		{"GET", "/api/v1/rules", 200, `{"rules":[{"name":"flood-alarm"}]}`},
		{"GET", "/api/v1/deadletters?limit=1", 200, `{"deadletters":[{"at"`},
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/readyz", 200, `{"ready":true}`},
		{"GET", "/metrics", 200, "haidang_console_events_total 0"},
		{"GET", "/assets/console.js", 200, "EventSource"},
		{"GET", "/assets/console.css", 200, "font"},
		{"HEAD", "/api/v1/warnings", 200, ""},
		{"HEAD", "/api/v1/events", 200, ""},
	} {
		status, _, body := call(t, c.method, base+c.path, "")
		if status != c.status || !strings.Contains(body, c.contains) {
			t.Errorf("%s %s: status %d, want %d with %s: %.300s", c.method, c.path, status, c.status, c.contains, body)
		}
	}
}

func TestProblems(t *testing.T) {
	d := newDesk()
	_, base, _ := start(t, d.sources())
	ack := "/api/v1/warnings/kim-long-flood-1/ack"
	for _, c := range []struct {
		request string // method, path, and body after a space
		status  int
		field   string
		detail  string
	}{
		{"GET /nothing", 404, "", "there is no /nothing here"},
		{"GET /api/v1/warnings/", 404, "", "there is no /api/v1/warnings/ here"},
		{"GET /api/v1/warnings/x", 404, "id", `there is no warning "x"`},
		{"POST /api/v1/warnings/kim-long-flood-1/clear {}", 404, "", "clear here"},
		{"GET /assets/list.html", 404, "", "there is no /assets/list.html here"},
		{"GET /assets/..%2fdoc.go", 404, "", "here"},
		{"POST /api/v1/warnings", 405, "", "expected GET, HEAD"},
		{"GET " + ack, 405, "", "expected POST"},
		{"DELETE /healthz", 405, "", "expected GET, HEAD"},
		{"GET /api/v1/warnings?status=active", 400, "status", `there is no query parameter "status"; expected one of state, device, rule, severity`},
		{"GET /api/v1/warnings?state=open", 400, "state", `state "open" is not one of`},
		{"GET /api/v1/warnings?severity=high", 400, "severity", `severity "high" is not one of minor`},
		{"GET /api/v1/warnings?device=a&device=b", 400, "device", "is there 2 times"},
		{"GET /api/v1/warnings?a;b", 400, "", "the query cannot be read"},
		{"GET /healthz?x=1", 400, "x", "expected none"},
		{"GET /api/v1/deadletters?limit=0", 400, "limit", "is not in 1..1000"},
		{"POST " + ack + " [1]", 400, "", "not an object"},
		{"POST " + ack + " null", 400, "n", "n is 0"},
		{"POST " + ack + ` {"n":3,"by":"Lan"}{}`, 400, "", "something follows the object"},
		{"POST " + ack + ` {"n":3,"by":"Lan","who":1}`, 400, "who", "unknown field"},
		{"POST " + ack + ` {"n":"3","by":"Lan"}`, 400, "n", "string into Go"},
		{"POST " + ack + ` {"by":"Lan"}`, 400, "n", "n is 0"},
		{"POST " + ack + ` {"n":3}`, 400, "by", "the name of who acts"},
		{"POST " + ack + ` {"n":3,"by":"  "}`, 400, "by", "the name of who acts"},
		{"POST " + ack + ` {"n":3,"by":"Lan","until":"soon"}`, 400, "until", "cannot parse"},
		{"POST " + ack + ` {"n":3,"by":"Lan","until":"2035-01-01T00:00:00Z"}`, 400, "until", "belongs to shelve only"},
		{"POST /api/v1/warnings/kim-long-flood-1/shelve " + ` {"n":3,"by":"Lan","until":"2025-01-01T00:00:00Z"}`, 400, "until", "missing or past"},
		{"POST /api/v1/warnings/kim-long-flood-1/comment " + ` {"n":3,"by":"Lan"}`, 400, "text", "expected the comment"},
		{"POST /api/v1/warnings/kim-long-flood-1/unshelve " + ` {"n":3,"by":"Lan"}`, 400, "", "is not shelved"},
		{"POST /api/v1/warnings/a-luoi-rain-1/ack " + ` {"n":4,"by":"Lan"}`, 400, "", "is cleared"},
		{"POST /api/v1/warnings/x/ack " + ` {"n":3,"by":"Lan"}`, 404, "id", "no such warning"},
		{"POST " + ack + ` {"n":2,"by":"Lan"}`, 409, "n", "at transition 3, not 2"},
		{"POST " + ack + ` {"n":3,"by":"` + strings.Repeat("x", 70_000) + `"}`, 413, "", "over 65536 bytes"},
	} {
		method, rest, _ := strings.Cut(c.request, " ")
		path, body, _ := strings.Cut(rest, " ")
		status, h, answer := call(t, method, base+path, body)
		var p struct {
			Status              int
			Type, Title, Detail string
			Field               string
			N                   int
		}
		if err := json.Unmarshal([]byte(answer), &p); err != nil || h.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.80s: not a problem: %d %s", c.request, status, answer)
			continue
		}
		if status != c.status || p.Status != c.status || p.Field != c.field || !strings.Contains(p.Detail, c.detail) || p.Title == "" || p.Type == "" {
			t.Errorf("%.80s: status %d, %+v; want %d, field %q, %q", c.request, status, p, c.status, c.field, c.detail)
		}
		if (status == 405) != (h.Get("Allow") != "") {
			t.Errorf("%.80s: Allow is %q", c.request, h.Get("Allow"))
		}
		if status == 409 && p.N != 3 {
			t.Errorf("%.80s: the conflict says n %d, want 3", c.request, p.N)
		}
	}
	if w, _ := d.warning("kim-long-flood-1"); w.N != 3 {
		t.Errorf("a refused act changed the warning: %+v", w)
	}
}

func TestActs(t *testing.T) {
	d := newDesk()
	_, base, _ := start(t, d.sources())
	until := time.Now().Add(time.Hour).Format(time.RFC3339)
	for _, s := range []struct {
		deed, body string
		n          int
		state      telemetry.State
	}{
		{"ack", `{"n":3,"by":"Lan","text":"đã gọi"}`, 4, telemetry.Acknowledged},
		{"shelve", `{"n":4,"by":"Minh","until":"` + until + `"}`, 5, telemetry.Shelved},
		{"unshelve", `{"n":5,"by":"Minh"}`, 6, telemetry.Acknowledged},
		{"comment", `{"n":6,"by":"Lan","text":"nước rút"}`, 7, telemetry.Acknowledged},
	} {
		status, _, body := call(t, "POST", base+"/api/v1/warnings/kim-long-flood-1/"+s.deed, s.body)
		var w telemetry.Warning
		if err := json.Unmarshal([]byte(body), &w); err != nil || status != 200 || w.N != s.n || w.State != s.state || w.AckedBy != "Lan" {
			t.Errorf("%s: status %d, %s", s.deed, status, body)
		}
	}
	d.mu.Lock()
	d.fail = fmt.Errorf("keep the act: %w: the disk is full", ErrUnavailable)
	d.mu.Unlock()
	if status, _, body := call(t, "POST", base+"/api/v1/warnings/kim-long-flood-1/ack", `{"n":7,"by":"Lan"}`); status != 503 || !strings.Contains(body, "disk is full") {
		t.Errorf("status %d, %s; want 503", status, body)
	}
}

func TestForeignPagesAreRefused(t *testing.T) {
	_, base, _ := start(t, newDesk().sources())
	port := base[strings.LastIndex(base, ":"):]
	for host, want := range map[string]int{
		"localhost" + port: 200, "LOCALHOST": 200, "127.0.0.1" + port: 200, "[::1]" + port: 200, "[::1]": 200, "localhost:9": 200,
		"evil.example" + port: 421, "127.0.0.1.evil.example": 421, "10.0.0.1" + port: 421, "localhost.evil": 421,
	} {
		if status, _, body := call(t, "GET", base+"/api/v1/warnings", "", "Host", host); status != want {
			t.Errorf("Host %s: status %d, want %d: %s", host, status, want, body)
		}
	}
	act, body := base+"/api/v1/warnings/kim-long-flood-1/comment", `{"n":3,"by":"x","text":"y"}`
	for name, c := range map[string]struct {
		header []string
		status int
	}{
		"another origin":    {[]string{"Origin", "https://evil.example"}, 403},
		"another site":      {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		"a form":            {[]string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		"text that is JSON": {[]string{"Content-Type", "text/plain"}, 415},
		"our own page":      {[]string{"Sec-Fetch-Site", "same-origin", "Origin", base}, 200},
	} {
		if status, _, answer := call(t, "POST", act, body, c.header...); status != c.status {
			t.Errorf("%s: status %d, want %d: %s", name, status, c.status, answer)
		}
	}
}

func TestReadiness(t *testing.T) {
	sources := newDesk().sources()
	sources.Ready["influx"] = func(context.Context) error { return errors.New("opening 12 shards") }
	sources.Ready["hangs"] = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	_, base, _ := start(t, sources)
	status, _, body := call(t, "GET", base+"/readyz", "")
	want := `{"not_ready":{"hangs":"context deadline exceeded","influx":"opening 12 shards"},"ready":false}`
	if status != 503 || strings.TrimSpace(body) != want {
		t.Errorf("status %d %s, want 503 %s", status, body, want)
	}
	if status, _, _ := call(t, "GET", base+"/healthz", ""); status != 200 {
		t.Errorf("healthz: status %d", status)
	}
}

func TestOptionalSources(t *testing.T) {
	d := newDesk()
	_, base, _ := start(t, Sources{Warnings: d.warnings, Warning: d.warning})
	for _, path := range []string{"/api/v1/devices", "/api/v1/rules", "/api/v1/deadletters", "/api/v1/warnings/kim-long-flood-1/ack"} {
		if status, _, _ := call(t, "GET", base+path, ""); status != 404 {
			t.Errorf("%s: status %d, want 404", path, status)
		}
	}
	if status, _, body := call(t, "GET", base+"/", ""); status != 200 || strings.Contains(body, "/api/v1/devices") {
		t.Errorf("the page: status %d, or it links what is not there", status)
	}
}

func TestBrokenSourceIs500(t *testing.T) {
	sources := newDesk().sources()
	sources.Devices = func(string, string) any { return []any{func() {}} }
	sources.DeadLetters = func(context.Context, LetterQuery) (any, error) { return nil, errors.New("secret path") }
	_, base, reg := start(t, sources)
	for _, path := range []string{"/api/v1/devices", "/api/v1/deadletters"} {
		status, h, body := call(t, "GET", base+path, "")
		if status != 500 || h.Get("Content-Type") != "application/problem+json" || strings.Contains(body, "secret") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "haidang_console_requests_total"); err != nil || n != 2 {
		t.Errorf("%d series of requests, want 2 (%v)", n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

func FuzzDecodeAct(f *testing.F) {
	f.Add(`{"n":3,"by":"Lan","text":"đã gọi"}`, "ack")
	f.Add(`{"n":4,"by":"Minh","until":"2035-01-01T00:00:00+07:00"}`, "shelve")
	f.Add(`{"n":1e3,"by":"\u0000"}{`, "comment")
	now := time.Date(2025, 10, 27, 9, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body, deed string) {
		act, err := decodeAct([]byte(body), telemetry.Deed(deed), "", now)
		if err != nil {
			if p, ok := errors.AsType[*problem](err); !ok || p.Status != 400 {
				t.Errorf("error %v is not a 400", err)
			}
			return
		}
		if act.N < 1 || act.By == "" || !act.At.Equal(now) || (act.Until != nil && !act.Until.After(now)) {
			t.Errorf("accepted %+v", act)
		}
	})
}

func BenchmarkListOfWarnings(b *testing.B) {
	many := make([]telemetry.Warning, 100)
	for i := range many {
		many[i] = telemetry.Warning{ID: fmt.Sprint("w", i), N: 1, Device: "kim-long", Values: map[string]float64{"level_m": 3.6}}
	}
	c, err := New(Config{Listen: "127.0.0.1:0"}, Sources{Warnings: func(bool) []telemetry.Warning { return many },
		Warning: func(string) (telemetry.Warning, bool) { return telemetry.Warning{}, false }}, prometheus.NewRegistry(), slog.Default())
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- c.Run(ctx) }()
	defer func() { stop(); <-stopped }()
	for b.Loop() {
		resp, err := http.Get("http://" + c.Addr().String() + "/api/v1/warnings")
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
