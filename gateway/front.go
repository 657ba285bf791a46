package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"haidang/gateway/certificate"
	"haidang/gateway/console"
	"haidang/gateway/telemetry"
)

// frontGrace is how long answers under way may take when a listener is given up.
const frontGrace = 3 * time.Second

// frontRequests bounds the requests that are answered at a time, streams included.
const frontRequests = 1024

// A front answers at the console's address, and at the control socket, while the
// part ioc is not on this machine: how it is, and with the role console, what the
// machine answers that has the part. When the part comes here the console takes
// both over.
type front struct {
	m          *machine
	encryption *tls.Config
	transport  *http.Transport
	slots      chan struct{}

	mu      sync.Mutex
	at      net.Addr // where it listens, or did
	servers []*http.Server
	serving sync.WaitGroup
}

func newFront(m *machine) (*front, error) {
	f := &front{m: m, slots: make(chan struct{}, frontRequests)}
	t := m.cfg.Console.TLS
	g := &instance{cfg: m.cfg, reg: m.meters, logger: m.logger}
	var err error
	if f.encryption, err = g.encryption("console", certificate.Files{Cert: t.Cert, Key: t.Key}); err != nil {
		return nil, err
	}
	f.transport = http.DefaultTransport.(*http.Transport).Clone()
	f.transport.DialContext = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	f.transport.ResponseHeaderTimeout = askTime
	f.transport.Proxy = nil
	if t.Cert != "" {
		// One's own authority: the chain that this machine shows is believed of the others.
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if text, err := os.ReadFile(t.Cert); err == nil {
			roots.AppendCertsFromPEM(text)
		}
		f.transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return f, nil
}

// Addr is where the front listens, or listened last.
func (f *front) Addr() net.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

// open takes the address and the control socket.
func (f *front) open() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.servers) > 0 {
		return nil
	}
	address := f.m.cfg.Console.Listen
	if address == "" {
		address = console.DefaultListen
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("console.listen: %w", err)
	}
	f.at = listener.Addr()
	if f.encryption != nil {
		listener = tls.NewListener(listener, f.encryption)
	}
	f.serve(listener, f.guarded(http.HandlerFunc(f.answer)))
	socket, err := listenSocket(f.m.cfg.Data)
	switch {
	case errors.Is(err, errInstanceRuns):
		f.stop()
		return err
	case err != nil:
		f.m.logger.Warn("there is no control socket: verbs such as haidang health cannot reach this gateway", "error", err)
	default:
		f.serve(socket, http.HandlerFunc(f.answerSelf))
	}
	return nil
}

func (f *front) serve(listener net.Listener, handler http.Handler) {
	server := &http.Server{
		Handler: f.bounded(handler), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(f.m.logger.Handler(), slog.LevelDebug),
	}
	f.servers = append(f.servers, server)
	f.serving.Go(func() { _ = server.Serve(listener) })
}

// close gives the address and the socket up.
func (f *front) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop()
}

// stop ends the servers; streams that are handed on are cut off. The lock is held.
func (f *front) stop() {
	for _, server := range f.servers {
		_ = server.Close()
	}
	f.servers = nil
	f.serving.Wait()
	f.transport.CloseIdleConnections()
}

func (f *front) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "5")
			f.problem(w, r, http.StatusServiceUnavailable, fmt.Sprintf("%d requests are being answered already", frontRequests))
		}
	})
}

// guarded asks who wants to know how this machine is. What is handed on is asked by
// the machine that answers it.
func (f *front) guarded(next http.Handler) http.Handler {
	door := f.m.accounts.Door(false)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.isOwn(r.URL.Path) || isOpen(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		account, err := door.Request(r)
		if err == nil && !account.May(telemetry.Read, "") {
			err = telemetry.Forbidden(fmt.Sprintf("account %q (%s) may not read here", account.Name, account.Role))
		}
		if err != nil {
			denial, ok := errors.AsType[*telemetry.Denial](err)
			if !ok {
				denial = &telemetry.Denial{Reason: telemetry.DeniedBusy, Detail: err.Error()}
			}
			if denial.Status() == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="Hai Dang", charset="UTF-8"`)
			}
			f.problem(w, r, denial.Status(), denial.Detail)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOpen reports whether anybody may ask.
func isOpen(path string) bool { return path == "/healthz" || path == "/readyz" }

// isOwn reports whether a path is about this machine.
func (f *front) isOwn(path string) bool {
	return isOpen(path) || path == "/metrics" || path == machinePath || path == "/api/v1/health" && !f.m.cfg.has(roleConsole)
}

// machinePath is how a machine is, also where the page of another is shown.
const machinePath = "/api/v1/machine"

// answer serves the console's address.
func (f *front) answer(w http.ResponseWriter, r *http.Request) {
	if f.isOwn(r.URL.Path) || !f.m.cfg.has(roleConsole) {
		f.answerSelf(w, r)
		return
	}
	f.handOn(w, r)
}

// answerSelf says how this machine is.
func (f *front) answerSelf(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	case "/readyz":
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		missing := failing(ctx, f.m.checks())
		if len(missing) > 0 {
			writeAnswer(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "not_ready": missing})
			return
		}
		writeAnswer(w, http.StatusOK, map[string]any{"ready": true})
	case "/metrics":
		promhttp.HandlerFor(f.m.meters, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r)
	case "/api/v1/health", machinePath:
		h, err := f.m.health(r.Context())
		if err != nil {
			f.problem(w, r, http.StatusInternalServerError, err.Error())
			return
		}
		writeAnswer(w, http.StatusOK, h)
	default:
		status, detail := http.StatusNotFound, fmt.Sprintf("this machine has the roles %s, and nothing at %s", strings.Join(f.m.cfg.Roles, ", "), r.URL.Path)
		if leader, ok := f.m.holder(roleIOC); ok {
			detail += fmt.Sprintf("; the console is at %s (%s)", leader.Console, leader)
			status = http.StatusMisdirectedRequest
		}
		f.problem(w, r, status, detail)
	}
}

// handOn hands a request on to the machine that has the part ioc.
func (f *front) handOn(w http.ResponseWriter, r *http.Request) {
	if !f.m.accounts.On() && !f.isCalled(r.Host) {
		f.problem(w, r, http.StatusMisdirectedRequest, fmt.Sprintf("Host %q is not this gateway; expected localhost, 127.0.0.1 or [::1]", r.Host))
		return
	}
	leader, ok := f.m.holder(roleIOC)
	target, err := url.Parse(leader.Console)
	if !ok || err != nil || target.Host == "" {
		f.nobody(w, r, "no machine has the part ioc now: one that has the role takes it within seconds")
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.SetXForwarded()
			if f.m.accounts.On() {
				p.Out.Host = p.In.Host // who is asked compares it with where a page came from
			} else if p.In.Header.Get("Origin") == scheme(f.m.cfg.Console.TLS.Cert)+"://"+p.In.Host {
				p.Out.Header.Set("Origin", target.Scheme+"://"+target.Host)
			}
		},
		Transport: f.transport,
		ErrorLog:  slog.NewLogLogger(f.m.logger.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				f.nobody(w, r, fmt.Sprintf("%s at %s does not answer: %v", leader, leader.Console, reason(err)))
			}
		},
	}
	proxy.ServeHTTP(w, r)
}

// isCalled reports whether a Host header names this machine: while there are no
// accounts, a page of the internet whose name resolves to 127.0.0.1 (DNS rebinding)
// still sends its own name.
func (f *front) isCalled(header string) bool {
	name := header
	if n, _, err := net.SplitHostPort(header); err == nil {
		name = n
	}
	own, _, _ := net.SplitHostPort(f.Addr().String())
	return name == "localhost" || name == "127.0.0.1" || strings.Trim(name, "[]") == "::1" || name == own
}

// nobody says that there is no console now, and when to ask again.
func (f *front) nobody(w http.ResponseWriter, r *http.Request, detail string) {
	w.Header().Set("Retry-After", "2")
	f.problem(w, r, http.StatusServiceUnavailable, detail)
}

// problem writes an error: to a browser as a page that asks again, else as RFC 9457
// has it.
func (f *front) problem(w http.ResponseWriter, r *http.Request, status int, detail string) {
	w.Header().Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable && strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="3"><title>Hải Đăng</title>
<h1>Hải Đăng</h1><p>Trung tâm đang chuyển sang máy khác; trang này tự tải lại.</p><p lang="en">The centre is moving to another machine; this page loads again by itself.</p><p>%s</p>
`, html.EscapeString(detail))
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail})
}

func writeAnswer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
