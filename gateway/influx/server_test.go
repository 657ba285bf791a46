package influx

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// elsewhere is a second engine behind real HTTP, with faults in front of it.
type elsewhere struct {
	*httptest.Server
	store    *Store
	fault    atomic.Pointer[http.HandlerFunc]
	requests atomic.Int64
	lastAuth atomic.Value
}

func startElsewhere(t testing.TB) *elsewhere {
	t.Helper()
	e := &elsewhere{store: open(t, t.TempDir(), quiet(), nil)}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.requests.Add(1)
		e.lastAuth.Store(r.Header.Get("Authorization") + " " + r.URL.Query().Get("org") + "/" + r.URL.Query().Get("bucket"))
		if fault := e.fault.Load(); fault != nil {
			(*fault)(w, r)
			return
		}
		e.store.engine.handler.ServeHTTP(w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

// answer makes every further request fail in this way.
func (e *elsewhere) answer(h http.HandlerFunc) { e.fault.Store(&h) }
func (e *elsewhere) heal()                     { e.fault.Store(nil) }

// client opens a store that writes to e.
func (e *elsewhere) client(t testing.TB) *Store {
	t.Helper()
	cfg := DefaultConfig()
	cfg.URL, cfg.Token, cfg.Org, cfg.Bucket = e.URL, "secret-token", "province", Database
	return open(t, "", cfg, nil)
}

func TestServerElsewhere(t *testing.T) {
	e := startElsewhere(t)
	s := e.client(t)
	if s.Addr() != nil {
		t.Error("it listens although the server is elsewhere")
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
	write(t, s, "river,device=a,site=a level_m=1 1\nriver,device=a,site=a level_m=2 2\n")
	if got, want := e.lastAuth.Load(), "Token secret-token province/haidang"; got != want {
		t.Errorf("the server saw %q, want %q", got, want)
	}
	if n := count(t, e.store, "river", "level_m"); n != 2 {
		t.Errorf("%d points in the server", n)
	}
	if n := count(t, s, "river", "level_m"); n != 2 {
		t.Errorf("%d points read back", n)
	}
	err := s.Write(t.Context(), []byte("river,device=a,site=a level_m=\"x\" 3\nriver,device=a,site=a level_m=4 4\n"))
	var no *telemetry.Rejection
	if !errors.As(err, &no) || len(no.Records) != 1 || no.Records[0].Index != 0 || no.Records[0].Reason != ReasonTypeConflict {
		t.Errorf("got %v", err)
	}
}

func TestFaultsAreTriedAgain(t *testing.T) {
	e := startElsewhere(t)
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	for _, c := range []struct {
		name, reason string
		fault        http.HandlerFunc
	}{
		{"401", "unauthorized", status(401, `{"code":"unauthorized","message":"unauthorized access"}`)},
		{"403", "unauthorized", status(403, `{"code":"forbidden","message":"insufficient permissions"}`)},
		{"404", "not_found", status(404, `{"code":"not found","message":"bucket \"haidang\" not found"}`)},
		{"429", "throttled", status(429, `{"code":"too many requests","message":"org has exceeded limited_write plan limit"}`)},
		{"500", "server_error", status(500, `{"error":"timeout"}`)},
		{"503", "server_error", status(503, ``)},
		{"200 of a login page", "unreachable", status(200, `<html>please log in</html>`)},
		{"302 to a login page", "other", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }},
		{"400 about the request", "unexplained", status(400, `{"code":"invalid","message":"please provide either orgID or org"}`)},
		{"400 while a shard is dropped", "other", status(400, `{"error":"partial write: shard 3 is pending deletion dropped=2"}`)},
		{"connection cut", "unreachable", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := e.client(t)
			e.answer(c.fault)
			defer e.heal()
			const lines = "river,device=f,site=a level_m=1 1\nriver,device=f,site=a level_m=2 2\n"
			err := s.Write(t.Context(), []byte(lines))
			var no *telemetry.Rejection
			if err == nil || errors.As(err, &no) {
				t.Fatalf("got %v, want an error to try again after", err)
			}
			if !strings.Contains(err.Error(), e.URL) || strings.Contains(err.Error(), "secret-token") {
				t.Errorf("the error does not say where, or says too much: %v", err)
			}
			if n := testutil.ToFloat64(s.metrics.failures.WithLabelValues(c.reason)); n == 0 {
				t.Errorf("no failure counted as %s: %v", c.reason, err)
			}
			e.heal()
			write(t, s, lines)
		})
	}
}

func TestServerThatIsGone(t *testing.T) {
	e := startElsewhere(t)
	s := e.client(t)
	e.CloseClientConnections()
	e.Server.Listener.Close()
	if err := s.Write(t.Context(), []byte("river level_m=1 1")); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("write: %v", err)
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("ready although the server is gone")
	}
}

func TestSlowServer(t *testing.T) {
	e := startElsewhere(t)
	free := make(chan struct{})
	defer close(free)
	e.answer(func(w http.ResponseWriter, r *http.Request) { <-free })
	cfg := DefaultConfig()
	cfg.URL = e.URL
	s := open(t, "", cfg, nil)
	s.cfg.Timeout = telemetry.Duration(20 * time.Millisecond)
	if err := s.Write(t.Context(), []byte("river level_m=1 1")); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("got %v", err)
	}
}

func TestRetryAfterIsHeeded(t *testing.T) {
	e := startElsewhere(t)
	s := e.client(t)
	e.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if err := s.Write(t.Context(), []byte("river level_m=1 1")); err == nil {
		t.Fatal("accepted")
	}
	e.heal()
	before := e.requests.Load()
	asked := time.Now()
	write(t, s, "river level_m=1 1")
	if waited := time.Since(asked); waited < 900*time.Millisecond || e.requests.Load() != before+1 {
		t.Errorf("waited %s and sent %d requests", waited, e.requests.Load()-before)
	}
	// The client itself holds nothing back and sends nothing of its own accord.
	if n := count(t, e.store, "river", "level_m"); n != 1 {
		t.Errorf("%d points", n)
	}
}

func TestTooLargeBatchIsSplit(t *testing.T) {
	e := startElsewhere(t)
	s := e.client(t)
	handler := e.store.engine.handler
	e.answer(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if len(body) > 1000 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		handler.ServeHTTP(w, r)
	})
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "river,device=a level_m=%d %d\n", i, i+1)
	}
	fmt.Fprintf(&text, "river,device=a name_text=\"%s\" 500\n", strings.Repeat("x", 2000))
	err := s.Write(t.Context(), []byte(text.String()))
	var no *telemetry.Rejection
	if !errors.As(err, &no) || len(no.Records) != 1 || no.Records[0].Index != 100 || no.Records[0].Reason != ReasonTooLarge {
		t.Errorf("got %v", err)
	}
	if n := count(t, e.store, "river", "level_m"); n != 100 {
		t.Errorf("%d points, want 100", n)
	}
}

func TestOneUnexplainedRefusalAmongGoodLines(t *testing.T) {
	e := startElsewhere(t)
	s := e.client(t)
	handler := e.store.engine.handler
	e.answer(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "level_m=13 ") {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, "unlucky")
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		handler.ServeHTTP(w, r)
	})
	var text strings.Builder
	for i := range 50 {
		fmt.Fprintf(&text, "river,device=a level_m=%d %d\n", i, i+1)
	}
	err := s.Write(t.Context(), []byte(text.String()))
	var no *telemetry.Rejection
	if !errors.As(err, &no) || len(no.Records) != 1 || no.Records[0].Index != 13 || no.Records[0].Reason != ReasonRefused {
		t.Errorf("got %v", err)
	}
}

func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, err := Open(t.TempDir(), quiet(), reg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write(t, s, "river level_m=1 1\nriver level_m=2 2\n")
	if n := testutil.ToFloat64(s.metrics.written); n != 2 {
		t.Errorf("%v points counted", n)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
