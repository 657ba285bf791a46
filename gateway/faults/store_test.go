package faults

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// A store is an InfluxDB elsewhere: a second haidang process, or nothing, behind
// a door that can be told to misbehave.
type store struct {
	url string

	mu     sync.Mutex
	behave func(w http.ResponseWriter, r *http.Request, body []byte) bool // whether it has answered; nil: hand on
	behind http.Handler                                                   // nil: nothing
}

// newStore opens the door; address is of the InfluxDB behind it, "" for none.
func newStore(t testing.TB, address string) *store {
	s := &store{}
	if address != "" {
		s.behind = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s.url = server.URL
	return s
}

// config is the section influx of whoever writes to it.
func (s *store) config() string {
	return fmt.Sprintf("{url: %q, bucket: haidang, timeout: 2s}", s.url)
}

// misbehave changes how writes are answered; nil: well.
func (s *store) misbehave(f func(w http.ResponseWriter, r *http.Request, body []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave = f
}

// ServeHTTP implements http.Handler.
func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ping" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	behave := s.behave
	s.mu.Unlock()
	if behave != nil && behave(w, r, body) {
		return
	}
	if s.behind == nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if bytes.HasPrefix(body, []byte("warning,")) {
		w.WriteHeader(http.StatusNoContent) // a gateway takes no warnings of another
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.behind.ServeHTTP(w, r)
}
