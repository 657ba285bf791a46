package ioc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

var hue = time.FixedZone("+07", 7*3600)

func warning(device string, n int, severity telemetry.Severity) telemetry.Warning {
	threshold := 3.5
	at := time.Date(2025, 10, 27, 9, 30, 0, 0, hue).Add(time.Duration(n) * time.Minute)
	return telemetry.Warning{
		ID: device + "-flood-3f9a2c1b", N: n, Rule: "flood-alarm", Device: device, Site: device, Kind: "river",
		State: telemetry.Active, Severity: severity, Start: at, At: at,
		Values: map[string]float64{"level_m": 3.62}, Threshold: &threshold,
		Message: telemetry.Text{VI: "Mực nước Kim Long 3,62 m", EN: "Kim Long at 3.62 m"},
	}
}

func failureOf(t *testing.T, err error) *Failure {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("error %v (%T), want a *Failure", err, err)
	}
	return f
}

func TestWebhookPostsTheWarningSigned(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	secret := "khóa bí mật"
	hook := NewWebhook(WebhookConfig{URL: server.URL + "/warnings?k=1", Secret: secret}, "1.2")
	w := warning("kim-long", 2, telemetry.Extreme)
	if err := hook.Deliver(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "haidang/1.2", "Idempotency-Key": "kim-long-flood-3f9a2c1b/2",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("header %s is %q, want %q", name, got.Header.Get(name), want)
		}
	}
	if got.Method != "POST" || got.URL.RequestURI() != "/warnings?k=1" {
		t.Errorf("%s %s", got.Method, got.URL)
	}
	if want, _ := json.Marshal(w); !bytes.Equal(body, want) {
		t.Errorf("body %s\nwant %s", body, want)
	}
	verifySignature(t, got.Header.Get("X-Haidang-Signature"), secret, body)
}

// verifySignature does what the package's documentation asks of a receiver.
func verifySignature(t *testing.T, header, secret string, body []byte) {
	t.Helper()
	stamp, _, ok := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	unix, err := strconv.ParseInt(stamp, 10, 64)
	if !ok || err != nil {
		t.Fatalf("signature %q is not t=<unix>,v1=<hex>", header)
	}
	if age := time.Since(time.Unix(unix, 0)); age < -time.Minute || age > time.Minute {
		t.Errorf("signed %s ago", age)
	}
	if want := Sign([]byte(secret), time.Unix(unix, 0), body); header != want {
		t.Errorf("signature %s, want %s", header, want)
	}
}

// The value was computed with: printf '1761546600.{}' | openssl dgst -sha256 -hmac secret
func TestSignKnownValue(t *testing.T) {
	got := Sign([]byte("secret"), time.Unix(1761546600, 0), []byte("{}"))
	if want := "t=1761546600,v1=507891125c28c2da4a9e5193115431901a25c4843b279e980840aeaffff5effd"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestUnsignedWithoutSecret(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := r.Header[SignatureHeader]; ok {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer server.Close()
	if err := NewWebhook(WebhookConfig{URL: server.URL}, "1").Deliver(t.Context(), warning("a", 1, telemetry.Minor)); err != nil {
		t.Error(err)
	}
}

func TestStatusDecides(t *testing.T) {
	for _, c := range []struct {
		status     int
		reason     string // "": accepted
		oneWarning bool
	}{
		{200, "", false}, {201, "", false}, {202, "", false}, {204, "", false}, {299, "", false},
		{301, "redirect", false}, {302, "redirect", false}, {307, "redirect", false}, {308, "redirect", false},
		{400, "status_4xx", true}, {401, "status_4xx", false}, {403, "status_4xx", false}, {404, "status_4xx", false},
		{408, "status_4xx", false}, {409, "status_4xx", false}, {413, "status_4xx", true}, {415, "status_4xx", true},
		{422, "status_4xx", true}, {429, "rate_limited", false},
		{500, "status_5xx", false}, {502, "status_5xx", false}, {503, "status_5xx", false}, {700, "other", false},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			var calls atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				if c.status != 204 {
					fmt.Fprint(w, "bảo trì")
				}
			}))
			defer server.Close()
			err := NewWebhook(WebhookConfig{URL: server.URL}, "1").Deliver(t.Context(), warning("a", 1, telemetry.Minor))
			if calls.Load() != 1 {
				t.Errorf("called %d times, want once", calls.Load())
			}
			if c.reason == "" {
				if err != nil {
					t.Errorf("not accepted: %v", err)
				}
				return
			}
			f := failureOf(t, err)
			if f.Reason != c.reason || f.OneWarning != c.oneWarning {
				t.Errorf("reason %s, one warning %v; want %s, %v", f.Reason, f.OneWarning, c.reason, c.oneWarning)
			}
			for _, part := range []string{fmt.Sprint(c.status), "bảo trì", strings.TrimPrefix(server.URL, "http://")} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestErrorsDoNotTellThePassword(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	hook := NewWebhook(WebhookConfig{URL: "http://ioc:matkhau@" + address + "/w?token=bimat"}, "1")
	err = hook.Deliver(t.Context(), warning("a", 1, telemetry.Minor))
	if f := failureOf(t, err); f.Reason != "refused" {
		t.Errorf("reason %s, want refused: %v", f.Reason, err)
	}
	if strings.Contains(err.Error(), "matkhau") || strings.Contains(err.Error(), "bimat") || !strings.Contains(err.Error(), address) {
		t.Errorf("error %q, want one that names %s and no secret", err, address)
	}
}

func TestNonsenseAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"not http":     "SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"closed":       "",
		"half a head":  "HTTP/1.1 200 OK\r\nContent-",
		"endless head": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 256<<10),
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 4096))
					_, _ = io.WriteString(conn, answer)
					conn.Close()
				}
			}()
			defer func() { listener.Close(); <-served }()
			err = NewWebhook(WebhookConfig{URL: "http://" + listener.Addr().String()}, "1").Deliver(t.Context(), warning("a", 1, telemetry.Minor))
			if f := failureOf(t, err); f.Reason != "connection" {
				t.Errorf("reason %s, want connection: %v", f.Reason, err)
			}
		})
	}
}

func TestUntrustedCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it reports the handshake that the client ends
	server.StartTLS()
	defer server.Close()
	err := NewWebhook(WebhookConfig{URL: server.URL}, "1").Deliver(t.Context(), warning("a", 1, telemetry.Minor))
	if f := failureOf(t, err); f.Reason != "tls" {
		t.Errorf("reason %s, want tls: %v", f.Reason, err)
	}
}

func TestConnectionIsKept(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP %d", version), func(t *testing.T) {
			var opened atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != version {
					w.WriteHeader(http.StatusHTTPVersionNotSupported)
				}
				fmt.Fprint(w, strings.Repeat("accepted ", 1000))
			}))
			server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					opened.Add(1)
				}
			}
			server.EnableHTTP2 = version == 2
			if version == 2 {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			hook := NewWebhook(WebhookConfig{URL: server.URL}, "1")
			if version == 2 {
				hook.trust.client.Transport.(*http.Transport).TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			}
			for n := range 20 {
				if err := hook.Deliver(t.Context(), warning("a", n+1, telemetry.Minor)); err != nil {
					t.Fatal(err)
				}
			}
			if opened.Load() != 1 {
				t.Errorf("%d connections for 20 warnings, want 1", opened.Load())
			}
		})
	}
}

// inMemory serves handler over net.Pipe, so that a real client and a real
// server run on the clock of a synctest bubble.
func inMemory(t *testing.T, hook *Webhook, handler http.Handler) {
	listener := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // only then does a server notice that the client has gone
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler.ServeHTTP(w, r)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	transport := hook.trust.client.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case listener.conns <- theirs:
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	t.Cleanup(func() { transport.CloseIdleConnections(); server.Close(); <-served })
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func TestSlowRecipients(t *testing.T) {
	trickle := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte{'.'})
			_ = http.NewResponseController(w).Flush()
			_ = sleep(r.Context(), time.Second)
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		reason  string
		took    time.Duration
	}{
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "timeout", DefaultTimeout},
		{"accepts, then trickles", trickle, "", maxAnswerTime},
		{"fails, then trickles", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			trickle(w, r)
		}, "status_5xx", maxAnswerTime},
		{"accepts with a flood", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
				inMemory(t, hook, c.handler)
				began := time.Now()
				err := hook.Deliver(t.Context(), warning("a", 1, telemetry.Minor))
				if took := time.Since(began); took != c.took {
					t.Errorf("took %s, want %s", took, c.took)
				}
				if c.reason == "" && err != nil {
					t.Errorf("not accepted: %v", err)
				}
				if c.reason != "" && failureOf(t, err).Reason != c.reason {
					t.Errorf("error %v, want reason %s", err, c.reason)
				}
			})
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 10, 27, 2, 30, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-1": 0, "1.5": 0, "soon": 0,
		"86400": MaxHold, "18446744073709551615": MaxHold, "99999999999999999999999": 0,
		"Mon, 27 Oct 2025 02:30:20 GMT": 20 * time.Second,
		"Mon, 27 Oct 2025 02:29:00 GMT": 0,
		"Mon, 27 Oct 2035 02:29:00 GMT": MaxHold,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("Retry-After %q: %s, want %s", header, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("7")
	f.Add("Mon, 27 Oct 2025 02:30:20 GMT")
	now := time.Date(2025, 10, 27, 2, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, header string) {
		if d := retryAfter(header, now); d < 0 || d > MaxHold {
			t.Errorf("Retry-After %q: %s is not in 0..%s", header, d, MaxHold)
		}
	})
}

func BenchmarkWebhookDeliver(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	hook := NewWebhook(WebhookConfig{URL: server.URL, Secret: "s"}, "1")
	w := warning("kim-long", 1, telemetry.Severe)
	b.ReportAllocs()
	for b.Loop() {
		if err := hook.Deliver(b.Context(), w); err != nil {
			b.Fatal(err)
		}
	}
}
