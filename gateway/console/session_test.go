package console

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

func asks(method, path, cookie string, header ...string) *http.Request {
	r, _ := http.NewRequest(method, path, nil) // the method and path are sound
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: cookie})
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// TestSessionsEnd: idle after an hour in which only the page asked, and after a
// shift whatever is done; who only looks is never idle.
func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions(SessionConfig{})
		defer s.closeAll()
		lan := &telemetry.Account{Name: "Lan", Role: telemetry.RoleOperator, Life: context.Background()}
		vy := &telemetry.Account{Name: "Vy", Role: telemetry.RoleViewer, Life: context.Background()}
		acting, _ := s.open(lan, time.Now())
		busy, _ := s.open(lan, time.Now())
		looking, life := s.open(vy, time.Now())
		if life != 30*24*time.Hour {
			t.Errorf("who looks has %s", life)
		}
		account := s.of(asks("GET", "/", acting))
		for range 59 { // an open page is not somebody at it
			time.Sleep(time.Minute)
			s.of(asks("GET", "/api/v1/map", acting, quietHeader, "quiet"))
			s.of(asks("GET", eventsPath, acting))
			s.of(asks("POST", "/api/v1/session", busy))
		}
		if s.of(asks("GET", "/api/v1/map", acting, quietHeader, "quiet")) == nil {
			t.Error("ended before its hour")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s.of(asks("GET", "/", acting)) != nil || account.Life.Err() == nil {
			t.Error("an idle session goes on, or its streams do")
		}
		for range 11*60 - 1 {
			time.Sleep(time.Minute)
			if s.of(asks("POST", "/api/v1/session", busy)) == nil {
				t.Fatal("ended while somebody was at it")
			}
		}
		time.Sleep(2 * time.Minute)
		if s.of(asks("POST", "/api/v1/session", busy)) != nil {
			t.Error("a session outlives the shift")
		}
		if s.of(asks("GET", "/", looking, quietHeader, "quiet")) == nil {
			t.Error("a wall's session was idle")
		}
		time.Sleep(30 * 24 * time.Hour)
		if s.of(asks("GET", "/", looking)) != nil {
			t.Error("a wall's session never ends")
		}
	})
}

// TestSessionEndsUnderAnOpenPage: a session that is idle is answered so that the
// page can say so, its stream of events ends, and a login from the page goes on.
func TestSessionEndsUnderAnOpenPage(t *testing.T) {
	c, err := New(Config{Listen: "127.0.0.1:0", Session: SessionConfig{Idle: telemetry.Duration(2 * time.Second)}}, full(newDesk()), prometheus.NewPedanticRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.Guard(people{t.Context()})
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- c.Run(ctx) }()
	t.Cleanup(func() { stop(); <-stopped })
	base := "http://" + c.Addr().String()

	_, _, lan := logIn(t, base, "Lan", "right", "/")
	cookie := lan.Name + "=" + lan.Value
	if _, _, body := call(t, "GET", base+"/warnings/kim-long-flood-1", "", "Cookie", cookie, quietHeader, "quiet"); !strings.Contains(body, `id="again"`) || !strings.Contains(body, "data-idle") {
		t.Error("the page cannot say that its session has ended")
	}
	status, _, body := call(t, "GET", base+eventsPath, "", "Cookie", cookie) // until the session ends
	if status != 200 || !strings.HasPrefix(body, ": haidang") {
		t.Errorf("events: %d %q", status, body)
	}
	status, h, _ := call(t, "GET", base+"/api/v1/map", "", "Cookie", cookie, quietHeader, "quiet")
	if status != 401 || h.Get("WWW-Authenticate") != "" {
		t.Errorf("after the end: %d, challenge %q", status, h.Get("WWW-Authenticate"))
	}
	form := []string{"Content-Type", "application/x-www-form-urlencoded", "Accept", "application/json"}
	if status, h, _ = call(t, "POST", base+"/login", "user=Lan&password=wrong", form...); status != 401 || h.Get("WWW-Authenticate") != "" || h.Get("Set-Cookie") != "" {
		t.Errorf("wrong password: %d %v", status, h)
	}
	status, h, body = call(t, "POST", base+"/login", "user=Lan&password=right", form...)
	if status != 200 || !strings.Contains(body, `"account":"Lan"`) || !strings.Contains(body, `"operate":true`) || !strings.Contains(body, `"administer":false`) || h.Get("Set-Cookie") == "" {
		t.Errorf("log in from the page: %d %s", status, body)
	}
	if status, _, _ = call(t, "POST", base+"/login", "user=Lan&password=right", append(form, "Origin", "http://evil.example")...); status != 403 {
		t.Errorf("a login of another origin: %d", status)
	}
}

func TestSessionOfWhoAsks(t *testing.T) {
	_, base, _ := start(t, newDesk().sources())
	if _, _, body := call(t, "GET", base+"/api/v1/session", ""); body != `{"account":"","role":"","operate":true,"rule":true,"administer":true}`+"\n" {
		t.Errorf("without accounts: %s", body)
	}
	_, base, _ = startGuarded(t, newDesk().sources(), people{t.Context()})
	_, _, vy := logIn(t, base, "Vy", "right", "/")
	if _, _, body := call(t, "POST", base+"/api/v1/session", "", "Cookie", vy.Name+"="+vy.Value); body != `{"account":"Vy","role":"viewer","operate":false,"rule":false,"administer":false}`+"\n" {
		t.Errorf("Vy: %s", body)
	}
	if status, _, _ := call(t, "GET", base+"/api/v1/session", ""); status != 401 {
		t.Errorf("nobody: %d", status)
	}
}

// TestStrictness holds every page and answer to the headers that keep other hosts
// and inline script out.
func TestStrictness(t *testing.T) {
	_, base, _ := start(t, full(newDesk()))
	for _, path := range []string{"/", "/warnings/kim-long-flood-1", "/devices", "/devices/kim-long", "/rules", "/health", "/drill", "/keys", "/login", "/nowhere", "/api/v1/warnings", "/assets/console.js"} {
		_, h, body := call(t, "GET", base+path, "")
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "object-src 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: policy %q lacks %s", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", path, h)
		}
		if strings.HasPrefix(h.Get("Content-Type"), "text/html") {
			checkPage(t, path, body)
		}
	}
}

// people knows Lan, who operates, and Vy, who looks.
type people struct{ life context.Context }

func (p people) Request(r *http.Request) (*telemetry.Account, error) {
	user, password, ok := r.BasicAuth()
	role, known := map[string]telemetry.Role{"Lan": telemetry.RoleOperator, "Vy": telemetry.RoleViewer, "kim-long": telemetry.RoleStation}[user]
	if !ok || !known || password != "right" {
		return nil, &telemetry.Denial{Reason: telemetry.DeniedWrong, Detail: "who are you?"}
	}
	return &telemetry.Account{Name: user, Role: role, Life: p.life}, nil
}

func logIn(t *testing.T, base, user, password, to string) (status int, where string, cookie *http.Cookie) {
	t.Helper()
	form := url.Values{"user": {user}, "password": {password}, "to": {to}}
	r, err := http.NewRequestWithContext(t.Context(), "POST", base+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for _, c := range answer.Cookies() {
		cookie = c
	}
	return answer.StatusCode, answer.Header.Get("Location"), cookie
}

func TestSessions(t *testing.T) {
	s := newDesk().sources()
	life, removed := context.WithCancel(t.Context())
	defer removed()
	_, base, _ := startGuarded(t, s, people{life})

	status, h, _ := call(t, "GET", base+"/warnings/kim-long-flood-1", "", "Accept", "text/html")
	if status != 303 || h.Get("Location") != "/login?to=%2Fwarnings%2Fkim-long-flood-1" {
		t.Errorf("a person is not led to the login: %d %q", status, h.Get("Location"))
	}
	if status, h, _ = call(t, "GET", base+"/api/v1/warnings", "", "Sec-Fetch-Dest", "empty"); status != 401 || h.Get("WWW-Authenticate") != "" {
		t.Errorf("a script of the page gets the browser's dialog: %d %v", status, h)
	}
	if status, h, _ = call(t, "GET", base+"/api/v1/warnings", ""); status != 401 || h.Get("WWW-Authenticate") == "" {
		t.Errorf("a program is not told how: %d", status)
	}
	if status, _, cookie := logIn(t, base, "Lan", "wrong", "/"); status != 401 || cookie != nil {
		t.Errorf("wrong password: %d %v", status, cookie)
	}
	if status, _, cookie := logIn(t, base, "kim-long", "right", "/"); status != 401 || cookie != nil {
		t.Errorf("a station logs in: %d %v", status, cookie)
	}
	for to, want := range map[string]string{"/devices": "/devices", "//evil.example": "/", "https://evil.example/": "/", `/\evil.example`: "/", "": "/", "javascript:1": "/"} {
		if status, where, _ := logIn(t, base, "Lan", "right", to); status != 303 || where != want {
			t.Errorf("to %q: %d %q", to, status, where)
		}
	}
	_, _, lan := logIn(t, base, "Lan", "right", "/")
	if lan == nil || !lan.HttpOnly || lan.SameSite != http.SameSiteLaxMode || lan.MaxAge != 12*3600 || len(lan.Value) < 26 {
		t.Fatalf("cookie %v", lan)
	}
	cookie := lan.Name + "=" + lan.Value
	if _, _, body := call(t, "GET", base+"/", "", "Cookie", cookie); !strings.Contains(body, `data-account="Lan"`) || !strings.Contains(body, "data-operate") || strings.Contains(body, "data-administer") {
		t.Error("Lan's page is wrong")
	}
	status, _, body := call(t, "POST", base+"/api/v1/warnings/kim-long-flood-1/ack", `{"n":3,"by":"Minh"}`, "Cookie", cookie)
	if status != 200 || !strings.Contains(body, `"acked_by":"Lan"`) {
		t.Errorf("Lan acts: %d %s", status, body)
	}
	if status, _, _ = call(t, "POST", base+"/api/v1/warnings/kim-long-flood-1/comment", `{"n":4,"text":"x"}`, "Cookie", cookie, "Sec-Fetch-Site", "cross-site"); status != 403 {
		t.Errorf("a page of another site acts: %d", status)
	}

	_, _, vy := logIn(t, base, "Vy", "right", "/")
	looks := vy.Name + "=" + vy.Value
	if _, _, body := call(t, "GET", base+"/", "", "Cookie", looks); strings.Contains(body, "data-operate") || vy.MaxAge != 30*24*3600 {
		t.Error("Vy's page lets her act")
	}
	if status, _, _ = call(t, "POST", base+"/api/v1/warnings/kim-long-flood-1/comment", `{"n":4,"text":"x"}`, "Cookie", looks); status != 403 {
		t.Errorf("Vy acts: %d", status)
	}

	for path, who := range map[string]string{"/api/v1/drill": looks, "/api/v1/devices/kim-long/admission": cookie, "/api/v1/deadletters/1-0/drop": cookie, "/api/v1/devices/kim-long/state": looks} {
		if status, _, _ = call(t, "POST", base+path, `{}`, "Cookie", who); status != 403 {
			t.Errorf("%s by who may not: %d", path, status)
		}
	}

	if status, h, _ = call(t, "POST", base+"/logout", "", "Cookie", cookie); status != 303 || !strings.Contains(h.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("log out: %d %q", status, h.Get("Set-Cookie"))
	}
	if status, _, _ = call(t, "GET", base+"/api/v1/warnings", "", "Cookie", cookie); status != 401 {
		t.Errorf("after the log-out: %d", status)
	}
	removed() // Vy's account is taken away
	if status, _, _ = call(t, "GET", base+"/api/v1/warnings", "", "Cookie", looks); status != 401 {
		t.Errorf("of an account that is gone: %d", status)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions(SessionConfig{})
	account := &telemetry.Account{Name: "Lan", Role: telemetry.RoleOperator, Life: t.Context()}
	now := time.Now()
	first, _ := s.open(account, now)
	for i := range maxSessions {
		s.open(account, now.Add(time.Duration(i+1)*time.Second))
	}
	r, _ := http.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: first})
	if len(s.known) != maxSessions || s.of(r) != nil {
		t.Errorf("%d sessions", len(s.known))
	}
	s.closeAll()
}
