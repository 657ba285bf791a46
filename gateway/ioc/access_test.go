package ioc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// An authority signs certificates into PEM files of a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key = newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// sign writes name.pem and name.key.
func (a *authority) sign(name string) tls.Certificate {
	key := newKey(a.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", private)
	cert, err := tls.LoadX509KeyPair(a.path(name+".pem"), a.path(name+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// A recipient that asks for our certificate gets it, and its own is checked
// against the authority of the configuration.
func TestMutualTLSAndToken(t *testing.T) {
	a := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	var who, token string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		who, token = r.TLS.PeerCertificates[0].Subject.CommonName, r.Header.Get("Authorization")
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{a.sign("server")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.StartTLS()
	defer server.Close()
	a.sign("box")

	c := WebhookConfig{URL: server.URL, Access: Access{Token: "bimat", CA: a.path("ca.pem"), Cert: a.path("box.pem"), Key: a.path("box.key")}}
	if faults := c.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	if err := NewWebhook(c, "1").Deliver(t.Context(), warning("a", 1, telemetry.Severe)); err != nil {
		t.Fatal(err)
	}
	if who != "box" || token != "Bearer bimat" {
		t.Errorf("the recipient saw %q with %q", who, token)
	}
	for name, access := range map[string]Access{
		"without a certificate":     {CA: a.path("ca.pem")},
		"of an unknown authority":   {Cert: a.path("box.pem"), Key: a.path("box.key")},
		"authorities that are gone": {CA: a.path("gone.pem")},
	} {
		err := NewWebhook(WebhookConfig{URL: server.URL, Access: access}, "1").Deliver(t.Context(), warning("a", 1, telemetry.Severe))
		if f := failureOf(t, err); f.Reason != reasonTLS {
			t.Errorf("%s: %v (%s), want tls", name, err, f.Reason)
		}
	}
}

// A renewed file of authorities is in force without a restart; one that cannot be used
// leaves what was before, and is told with the first failure.
func TestAuthoritiesRenewed(t *testing.T) {
	first, second := newAuthority(t), newAuthority(t)
	var present atomic.Pointer[tls.Certificate]
	use := func(a *authority) { cert := a.sign("server"); present.Store(&cert) }
	use(first)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*present.Load()}}, nil
	}}
	server.StartTLS()
	defer server.Close()

	ca := filepath.Join(t.TempDir(), "ca.pem")
	hook := NewWebhook(WebhookConfig{URL: server.URL, Access: Access{CA: ca}}, "1")
	n := 0
	deliver := func() error {
		hook.trust.looked = time.Time{} // two seconds have gone by
		server.CloseClientConnections() // so that there is a handshake
		n++
		return hook.Deliver(t.Context(), warning("a", n, telemetry.Severe))
	}
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(ca, text, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(n) * time.Minute) // two writes may fall into one tick of the file system's clock
		if err := os.Chtimes(ca, at, at); err != nil {
			t.Fatal(err)
		}
	}
	of := func(a *authority) []byte {
		text, err := os.ReadFile(a.path("ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if f := failureOf(t, deliver()); f.Reason != reasonTLS {
		t.Errorf("without the file: %v (%s)", f, f.Reason)
	}
	put(of(first))
	if err := deliver(); err != nil {
		t.Errorf("the file is there now: %v", err)
	}
	use(second)
	if f := failureOf(t, deliver()); f.Reason != reasonTLS {
		t.Errorf("a server of an unknown authority: %v (%s)", f, f.Reason)
	}
	put([]byte("half of a certif"))
	if f := failureOf(t, deliver()); !strings.Contains(f.Detail, "the authorities of before hold") || !strings.Contains(f.Detail, "no certificate in PEM") {
		t.Errorf("a file that cannot be used is not told: %v", f)
	}
	use(first)
	if err := deliver(); err != nil {
		t.Errorf("with a file that cannot be used, what was before does not hold: %v", err)
	}
	use(second)
	put(of(second))
	if err := deliver(); err != nil {
		t.Errorf("the file is renewed: %v", err)
	}
	use(first)
	if f := failureOf(t, deliver()); f.Reason != reasonTLS {
		t.Errorf("the authority of before is trusted still: %v (%s)", f, f.Reason)
	}
}
