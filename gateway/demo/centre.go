package demo

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// DefaultSecret is the webhook secret in the demo's gateway.yaml.
const DefaultSecret = "demo-secret"

const (
	maxWarningBytes = 64 << 10
	keepReceived    = 1000   // warnings that GET /received shows
	keepKeys        = 20_000 // idempotency keys that are remembered
)

// A centre plays the operations centre: it takes warnings as the gateway's
// webhook sends them and acknowledges each key once and for all.
type centre struct {
	listener net.Listener
	secret   string
	received func(telemetry.Warning)
	logger   *slog.Logger

	mu         sync.Mutex
	keys       map[string]bool
	order      []string // keys by age
	latest     []json.RawMessage
	accepted   uint64
	duplicates uint64
	refused    uint64
}

func newCentre(address, secret string, received func(telemetry.Warning), logger *slog.Logger) (*centre, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen as the operations centre on %s: %w", address, err)
	}
	return &centre{listener: listener, secret: secret, received: received, logger: logger, keys: map[string]bool{}}, nil
}

// run serves until ctx ends and lets requests under way finish.
func (c *centre) run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /warnings", c.take)
	mux.HandleFunc("GET /received", c.list)
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(c.logger.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(c.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the operations centre on %s: %w", c.listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close() // a client that will not let go
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the operations centre on %s: %w", c.listener.Addr(), err)
	}
	return nil
}

// take accepts one warning: 204, also for a key that it has seen before; 400
// where the request is not a warning with its key; 401 where the signature is
// wrong.
func (c *centre) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWarningBytes))
	if err != nil {
		c.refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("a warning has at most %d bytes", maxWarningBytes))
		return
	}
	if !c.signed(r.Header.Get("X-Haidang-Signature"), body) {
		c.refuse(w, http.StatusUnauthorized, "the signature does not belong to this body and secret")
		return
	}
	var warning telemetry.Warning
	if err := json.Unmarshal(body, &warning); err != nil {
		c.refuse(w, http.StatusBadRequest, "the body is not a warning in JSON: "+err.Error())
		return
	}
	if warning.ID == "" || warning.N < 1 {
		c.refuse(w, http.StatusBadRequest, "id and n (from 1) are missing")
		return
	}
	if got := r.Header.Get("Idempotency-Key"); got != warning.Key() {
		c.refuse(w, http.StatusBadRequest, fmt.Sprintf("the Idempotency-Key is %q and not %q", got, warning.Key()))
		return
	}
	if c.keep(&warning, body) {
		c.received(warning)
	}
	w.WriteHeader(http.StatusNoContent)
}

// signed checks the signature t=<unix>,v1=<hex HMAC-SHA256 of "t.body">.
func (c *centre) signed(signature string, body []byte) bool {
	if c.secret == "" {
		return true
	}
	var at, sum string
	for part := range strings.SplitSeq(signature, ",") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "t":
			at = value
		case "v1":
			sum = value
		}
	}
	got, err := hex.DecodeString(sum)
	mac := hmac.New(sha256.New, []byte(c.secret))
	fmt.Fprintf(mac, "%s.", at)
	mac.Write(body)
	return err == nil && at != "" && hmac.Equal(got, mac.Sum(nil))
}

// keep remembers the warning and reports false when its key is known already.
func (c *centre) keep(warning *telemetry.Warning, body []byte) bool {
	key := warning.Key()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[key] {
		c.duplicates++
		return false
	}
	c.keys[key] = true
	c.order = append(c.order, key)
	if len(c.order) > keepKeys {
		delete(c.keys, c.order[0])
		c.order = c.order[1:]
	}
	c.accepted++
	c.latest = append(c.latest, bytes.Clone(body))
	if len(c.latest) > keepReceived {
		c.latest = c.latest[1:]
	}
	return true
}

func (c *centre) refuse(w http.ResponseWriter, status int, reason string) {
	c.mu.Lock()
	c.refused++
	c.mu.Unlock()
	c.logger.Warn("the operations centre refused a request", "status", status, "reason", reason)
	http.Error(w, reason, status)
}

// list shows what was received, the newest last.
func (c *centre) list(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	out := struct {
		Received   uint64            `json:"received"`
		Duplicates uint64            `json:"duplicates"`
		Refused    uint64            `json:"refused"`
		Warnings   []json.RawMessage `json:"warnings"` // the latest 1000
	}{c.accepted, c.duplicates, c.refused, append([]json.RawMessage{}, c.latest...)}
	c.mu.Unlock()
	body, err := json.Marshal(out)
	if err != nil {
		http.Error(w, "encode what was received: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Write(append(body, '\n'))
}
