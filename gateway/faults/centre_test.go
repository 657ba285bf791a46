package faults

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// A centre is the operations centre: it takes warnings over a webhook and keeps
// the accepted ones in the order in which they came.
type centre struct {
	url string

	mu       sync.Mutex
	accepted []telemetry.Warning // each key once
	arrived  []time.Time         // beside accepted
	keys     map[string]string   // body by key
	again    int                 // accepted deliveries of a key that was known
	faults   []string

	answer func(w http.ResponseWriter, r *http.Request, warning telemetry.Warning) bool // whether it accepted; nil: 204
}

func newCentre(t testing.TB) *centre { return newCentreAt(t, "127.0.0.1") }

// newCentreAt opens it at an address of this machine.
func newCentreAt(t testing.TB, ip string) *centre {
	c := &centre{keys: map[string]string{}}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(c)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	c.url = server.URL
	return c
}

// recipientName is what the configurations call the centre that is told.
const recipientName = "ioc"

// config is the section ioc.
func (c *centre) config() string {
	return fmt.Sprintf("[{name: %s, webhook: {url: %q, timeout: 2s}}]", recipientName, c.url)
}

// behave changes how it answers.
func (c *centre) behave(answer func(w http.ResponseWriter, r *http.Request, warning telemetry.Warning) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// ServeHTTP implements http.Handler.
func (c *centre) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var warning telemetry.Warning
	err := json.NewDecoder(r.Body).Decode(&warning)
	c.mu.Lock()
	answer := c.answer
	if err != nil {
		c.faults = append(c.faults, fmt.Sprintf("a body that is no warning: %v", err))
	}
	c.mu.Unlock()
	if answer != nil {
		if !answer(w, r, warning) {
			return
		}
	} else {
		w.WriteHeader(http.StatusNoContent)
	}
	c.accept(r, warning)
}

// accept notes that a warning is accepted, now.
func (c *centre) accept(r *http.Request, warning telemetry.Warning) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.take(r.Header.Get("Idempotency-Key"), warning, now)
}

func (c *centre) take(key string, w telemetry.Warning, now time.Time) {
	if key != w.Key() {
		c.faults = append(c.faults, fmt.Sprintf("Idempotency-Key %q of %s", key, w.Key()))
	}
	body, _ := json.Marshal(w)
	known, again := c.keys[key]
	switch {
	case !again:
		c.keys[key] = string(body)
		c.accepted = append(c.accepted, w)
		c.arrived = append(c.arrived, now)
	case known != string(body):
		c.faults = append(c.faults, fmt.Sprintf("key %s has two meanings: %s and %s", key, known, body))
	default:
		c.again++
	}
}

// got returns the warnings that were accepted, each once, and what was wrong.
func (c *centre) got() ([]telemetry.Warning, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]telemetry.Warning(nil), c.accepted...), append([]string(nil), c.faults...)
}
