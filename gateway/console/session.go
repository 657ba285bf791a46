package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"haidang/gateway/console/page"
	"haidang/gateway/telemetry"
)

const (
	sessionCookie = "haidang_session"
	maxSessions   = 1000
	// quietHeader marks what a page asks for by itself, at intervals and after
	// events: it does not keep a session from being idle.
	quietHeader = "Haidang-Page"
)

// sessions are the logins of browsers. Only the hash of a cookie is kept. All end
// with the gateway and with a change of their account.
type sessions struct {
	cfg SessionConfig

	mu    sync.Mutex
	known map[[sha256.Size]byte]*session
}

type session struct {
	account *telemetry.Account // its Life is the session's
	ends    time.Time
	end     context.CancelFunc
	idle    *time.Timer // ends it; nil: who only looks is never idle
}

func newSessions(cfg SessionConfig) *sessions {
	return &sessions{cfg: cfg.orDefault(), known: map[[sha256.Size]byte]*session{}}
}

// acts reports whether the account may change something.
func acts(account *telemetry.Account) bool {
	return account.May(telemetry.Operate, "") || account.May(telemetry.Rule, "") || account.May(telemetry.Administer, "")
}

// open begins a session and returns the value of its cookie, of 128 bits.
func (s *sessions) open(account *telemetry.Account, now time.Time) (token string, life time.Duration) {
	life = s.cfg.Looking.Std()
	if acts(account) {
		life = s.cfg.Acting.Std()
	}
	token = rand.Text()
	of := *account
	var end context.CancelFunc
	of.Life, end = context.WithTimeout(account.Life, life)
	opened := &session{account: &of, ends: now.Add(life), end: end}
	if acts(account) {
		opened.idle = time.AfterFunc(s.cfg.Idle.Std(), end)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room()
	s.known[sha256.Sum256([]byte(token))] = opened
	return token, life
}

// drop ends a session.
func (s *session) drop() {
	s.end()
	if s.idle != nil {
		s.idle.Stop()
	}
}

// room takes away sessions that have ended, and when there are too many the one
// that ends first.
func (s *sessions) room() {
	var oldest [sha256.Size]byte
	var first *session
	for key, known := range s.known {
		if known.account.Life.Err() != nil {
			known.drop()
			delete(s.known, key)
			continue
		}
		if first == nil || known.ends.Before(first.ends) {
			oldest, first = key, known
		}
	}
	if len(s.known) >= maxSessions {
		first.drop()
		delete(s.known, oldest)
	}
}

// of returns the account of a request's session, or nil.
func (s *sessions) of(r *http.Request) *telemetry.Account {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[sha256.Sum256([]byte(cookie.Value))]
	if known == nil || known.account.Life.Err() != nil {
		return nil
	}
	if known.idle != nil && !quiet(r) {
		known.idle.Reset(s.cfg.Idle.Std())
	}
	return known.account
}

// quiet reports whether a page asks by itself, without somebody at it.
func quiet(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && (r.Header.Get(quietHeader) != "" || r.URL.Path == eventsPath)
}

// close ends the session of a request.
func (s *sessions) close(r *http.Request) {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sha256.Sum256([]byte(cookie.Value))
	if known := s.known[key]; known != nil {
		known.drop()
		delete(s.known, key)
	}
}

// closeAll ends every session.
func (s *sessions) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, known := range s.known {
		known.drop()
		delete(s.known, key)
	}
}

// who returns the account of a request: of its credentials, else of its session.
func (c *Console) who(r *http.Request) (*telemetry.Account, error) {
	if r.Header.Get("Authorization") == "" {
		if account := c.sessions.of(r); account != nil {
			return account, nil
		}
	}
	return c.accounts.Request(r)
}

// login serves POST /login: a form of user, password and to.
func (c *Console) login(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 8<<10)
	if err := r.ParseForm(); err != nil {
		return problemf(http.StatusBadRequest, "", "the form cannot be read: %v", err)
	}
	to, name := ownPath(r.PostForm.Get("to")), r.PostForm.Get("user")
	if c.accounts == nil {
		http.Redirect(w, r, to, http.StatusSeeOther)
		return nil
	}
	asks := r.Clone(r.Context())
	asks.SetBasicAuth(name, r.PostForm.Get("password"))
	account, err := c.accounts.Request(asks)
	if err == nil && account.Name != "" && !account.May(telemetry.Read, "") {
		err = &telemetry.Denial{Detail: "this account is not for people"}
	}
	if err != nil && wantsJSON(r) {
		denied(w, r, err)
		return nil
	}
	if err != nil {
		v := c.view(w, r, page.Login)
		v.Content = page.LoginContent{To: to, Name: name, Refused: refusal(v.Lang, err)}
		return c.writePage(w, r, http.StatusUnauthorized, v)
	}
	if account.Name != "" {
		c.sessions.close(r)
		token, life := c.sessions.open(account, time.Now())
		http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: token, Path: "/", MaxAge: int(life.Seconds()), HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
	}
	if wantsJSON(r) { // a page on which the session has ended: what is typed there stays
		return writeJSON(w, http.StatusOK, c.sessionOf(account))
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

func wantsJSON(r *http.Request) bool { return r.Header.Get("Accept") == "application/json" }

// A sessionState says who is logged in and what he may do.
type sessionState struct {
	Account    string  `json:"account"`
	Role       string  `json:"role"`
	Operate    bool    `json:"operate"`
	Rule       bool    `json:"rule"`
	Administer bool    `json:"administer"`
	IdleS      float64 `json:"idle_s,omitempty"` // after so long without an act it ends
}

func (c *Console) sessionOf(a *telemetry.Account) sessionState {
	state := sessionState{Operate: true, Rule: true, Administer: true}
	if a != nil && a.Name != "" {
		state = sessionState{Account: a.Name, Role: string(a.Role), Operate: a.May(telemetry.Operate, ""), Rule: a.May(telemetry.Rule, ""), Administer: a.May(telemetry.Administer, "")}
		state.IdleS = c.sessions.idleOf(a).Seconds()
	}
	return state
}

// idleOf is after how long a session of the account is idle; 0: never.
func (s *sessions) idleOf(a *telemetry.Account) time.Duration {
	if a.Name == "" || !acts(a) {
		return 0
	}
	return s.cfg.Idle.Std()
}

// session serves GET and POST /api/v1/session: who asks. POST is how a page says
// that somebody is at it.
func (c *Console) session(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, c.sessionOf(telemetry.AccountOf(r.Context())))
}

func refusal(lang string, err error) string {
	vi, en := "Tên hoặc mật khẩu không đúng.", "Name or password are not right."
	if denial, ok := errors.AsType[*telemetry.Denial](err); ok && denial.Status() == http.StatusTooManyRequests {
		vi, en = "Sai quá nhiều lần từ địa chỉ này; hãy chờ một lát.", "Too many wrong tries from this address; wait a while."
	}
	return page.Pick(lang, telemetry.Text{VI: vi, EN: en})
}

// logout serves POST /logout.
func (c *Console) logout(w http.ResponseWriter, r *http.Request) error {
	c.sessions.close(r)
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// toLogin sends a person who is not known to the page where he can say who he
// is; it reports false for a program.
func toLogin(w http.ResponseWriter, r *http.Request, err error) bool {
	denial, ok := errors.AsType[*telemetry.Denial](err)
	if !ok || denial.Status() != http.StatusUnauthorized || r.Method != http.MethodGet || r.Header.Get("Authorization") != "" ||
		!strings.Contains(r.Header.Get("Accept"), "text/html") {
		return false
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, "/login?to="+url.QueryEscape(r.URL.Path), http.StatusSeeOther)
	return true
}
