package uplink

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/certificate"
)

// A centre whose certificate is of another authority one day is trusted again once the
// field's file of authorities is renewed, without a restart; a file that cannot be used
// leaves what was before, and is told.
func TestAuthoritiesRenewed(t *testing.T) {
	t.Parallel()
	certified := func() (dir string) {
		dir = t.TempDir()
		if _, err := certificate.SelfSigned(certificate.Request{Dir: dir, Hosts: []string{"127.0.0.1"}, Life: time.Hour, Now: time.Now()}); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	first, second := certified(), certified()
	var present atomic.Pointer[tls.Certificate]
	use := func(dir string) {
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		present.Store(&cert)
	}
	use(first)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(Welcome{Gateway: "hue"})
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*present.Load()}}, nil
	}}
	server.StartTLS()
	defer server.Close()

	trusted := filepath.Join(t.TempDir(), "ca.pem")
	trust := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(trusted, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	authority := func(dir string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	trust(authority(first))

	p, err := newPress()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLine(Config{URL: server.URL, CA: trusted}, "kim-long", p, newSending(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l.hello = func(context.Context, bool) (Hello, error) { return Hello{Gateway: "kim-long", Now: time.Now()}, nil }
	greet := func() error {
		server.CloseClientConnections() // so that there is a handshake
		return l.greet(t.Context(), false)
	}
	if err := greet(); err != nil {
		t.Fatalf("with the authority of the centre: %v", err)
	}
	use(second)
	if err := greet(); err == nil {
		t.Fatal("a centre of an unknown authority is trusted")
	}
	trust([]byte("half of a certif"))
	if err := greet(); err == nil || !strings.Contains(err.Error(), "the authorities of before hold: there is no certificate in PEM in "+trusted) {
		t.Errorf("a file that cannot be used: %v", err)
	}
	use(first)
	if err := greet(); err != nil {
		t.Errorf("what was before does not hold: %v", err)
	}
	use(second)
	trust(authority(second))
	if err := greet(); err == nil {
		t.Error("the file is looked at after a failure, and this was none yet")
	}
	if err := greet(); err != nil {
		t.Errorf("the file is renewed: %v", err)
	}
	use(first)
	if err := greet(); err == nil {
		t.Error("the authority of before is trusted still")
	}
}

// A field whose last answer was lost, and that begins anew, learns from the centre that
// it has everything: no frame need come after it.
func TestLastAnswerLost(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	f := newBox(t, "box", Config{URL: c.server.URL})
	f.run()
	f.receive(3, 10)
	eventually(t, "pushed", f.pushed)
	c.set(func() { c.misfires = 1 })
	f.receive(1, 10)
	eventually(t, "the centre has it", func() bool { return len(c.taken()) == f.next })
	f.restart() // before it asks again
	eventually(t, "the field knows", f.pushed)
	if err := c.wrong(f.next); err != nil {
		t.Error(err)
	}
}
