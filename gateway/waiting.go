package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/certificate"
	"haidang/gateway/console"
	"haidang/gateway/spool"
)

// openSpool opens the log. One in a cluster is waited for; meanwhile the console's
// address says what for, so that whoever asks for the readiness of this gateway
// gets an answer.
func (g *instance) openSpool(ctx context.Context, o spool.Options) (*spool.Spool, error) {
	if o.Config.URL == "" {
		return spool.Open(ctx, o)
	}
	w := &waitingRoom{cfg: g.cfg.Console, logger: g.logger}
	defer w.close()
	o.Waiting = w.tell
	return spool.Open(ctx, o)
}

// A waitingRoom answers in place of the console while the gateway waits.
type waitingRoom struct {
	cfg    console.Config
	logger *slog.Logger

	mu      sync.Mutex
	reason  string
	server  *http.Server
	serving sync.WaitGroup
}

// tell notes what the gateway waits for, and begins to answer.
func (w *waitingRoom) tell(reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reason = reason.Error()
	if w.server != nil {
		return
	}
	listener, err := w.listen()
	if err != nil {
		w.logger.Warn("nobody can ask for the readiness while the gateway waits", "error", err)
		return
	}
	w.server = &http.Server{
		Handler: w, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(w.logger.Handler(), slog.LevelDebug),
	}
	w.server.SetKeepAlivesEnabled(false) // the console is soon there
	w.serving.Go(func() { _ = w.server.Serve(listener) })
}

func (w *waitingRoom) listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", cmp.Or(w.cfg.Listen, console.DefaultListen))
	if err != nil {
		return nil, fmt.Errorf("console.listen: %w", err)
	}
	if w.cfg.TLS.Cert == "" {
		return listener, nil
	}
	files := certificate.Files{Cert: w.cfg.TLS.Cert, Key: w.cfg.TLS.Key}
	keeper, err := certificate.Open("console", files, prometheus.NewRegistry(), w.logger)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("console.tls: %w", err)
	}
	return tls.NewListener(listener, keeper.TLS()), nil
}

// ServeHTTP says that the gateway lives and is not ready.
func (w *waitingRoom) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	reason := w.reason
	w.mu.Unlock()
	if r.URL.Path == "/healthz" {
		fmt.Fprintln(to, "ok")
		return
	}
	to.Header().Set("Content-Type", "application/json")
	to.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(to).Encode(map[string]any{"ready": false, "not_ready": map[string]string{"log": reason}, "detail": reason})
}

// close gives the address back to the console.
func (w *waitingRoom) close() {
	w.mu.Lock()
	server := w.server
	w.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
	w.serving.Wait()
}
