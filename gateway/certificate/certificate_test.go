package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// made makes certificates in a folder of its own.
func made(t *testing.T, clients ...string) string {
	t.Helper()
	dir := t.TempDir()
	issue(t, dir, clients...)
	return dir
}

func issue(t *testing.T, dir string, clients ...string) {
	t.Helper()
	if _, err := SelfSigned(Request{Dir: dir, Hosts: []string{"127.0.0.1", "gateway.example"}, Clients: clients, Life: time.Hour, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

func files(dir string) Files {
	return Files{Cert: filepath.Join(dir, ServerCert), Key: filepath.Join(dir, ServerKey), ClientCA: filepath.Join(dir, AuthorityCert)}
}

// serve answers each connection with the name of the client's certificate.
func serve(t *testing.T, k *Keeper) (address string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", k.TLS())
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := conn.(*tls.Conn)
			if c.Handshake() == nil {
				name := "nobody"
				if s := c.ConnectionState(); len(s.VerifiedChains) > 0 {
					name = s.PeerCertificates[0].Subject.CommonName
				}
				_, _ = io.WriteString(c, name)
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); done.Wait() })
	return l.Addr().String()
}

// ask connects and returns what the server says, and its certificate.
func ask(address string, c *tls.Config) (string, *tls.ConnectionState, error) {
	conn, err := tls.Dial("tcp", address, c)
	if err != nil {
		return "", nil, err
	}
	defer conn.Close()
	said, err := io.ReadAll(conn)
	state := conn.ConnectionState()
	return string(said), &state, err
}

func trusting(t *testing.T, dir string) *tls.Config {
	t.Helper()
	pool, err := authorities(filepath.Join(dir, AuthorityCert))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: pool}
}

func client(t *testing.T, dir, name string) []tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client-"+name+".pem"), filepath.Join(dir, "client-"+name+"-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{pair}
}

func TestClientsWithCertificates(t *testing.T) {
	dir, other := made(t, "kim-long"), made(t, "kim-long")
	for _, required := range []bool{false, true} {
		f := files(dir)
		if required {
			f.Client = Required
		}
		k, err := Open("test", f, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		address := serve(t, k)
		c := trusting(t, dir)
		said, state, err := ask(address, c)
		if required == (err == nil) || !required && said != "nobody" {
			t.Errorf("without a certificate: %q %v", said, err)
		}
		if !required && state.Version != tls.VersionTLS13 {
			t.Errorf("TLS version %x", state.Version)
		}
		c.Certificates = client(t, dir, "kim-long")
		if said, _, err := ask(address, c); err != nil || said != "kim-long" {
			t.Errorf("with one: %q %v", said, err)
		}
		c.Certificates = client(t, other, "kim-long")
		if said, _, err := ask(address, c); err == nil && said == "kim-long" {
			t.Error("with one that another authority has signed it is let in")
		}
		c.MaxVersion = tls.VersionTLS11
		if _, _, err := ask(address, c); err == nil {
			t.Error("TLS 1.1 is spoken")
		}
	}
}

func TestFilesAreReadAgain(t *testing.T) {
	dir := made(t)
	var logs bytes.Buffer
	k, err := Open("test", files(dir), prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	address, c := serve(t, k), trusting(t, dir)
	serial := func() string {
		t.Helper()
		k.looked.Store(0) // as if two seconds had passed
		_, state, err := ask(address, c)
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	if serial() != first {
		t.Error("nothing has changed, and the certificate has")
	}
	issue(t, dir)
	second := serial()
	if second == first {
		t.Error("the new certificate is not used")
	}
	if err := os.WriteFile(filepath.Join(dir, ServerKey), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	serial() // asked twice, it is told once
	if serial() != second {
		t.Error("a broken key changed the certificate")
	}
	if strings.Count(logs.String(), "\n") != 1 || !strings.Contains(logs.String(), ServerKey) {
		t.Errorf("said\n%s", logs.String())
	}
	issue(t, dir)
	if serial() == second {
		t.Error("the certificate is not used after a broken one")
	}
}

// A ticket of an earlier session does not bring a client in whose authority is
// trusted no more.
func TestTicketsDoNotOutliveTheAuthority(t *testing.T) {
	dir := made(t, "kim-long")
	next := made(t, "kim-long")
	f := files(dir)
	f.ClientCA = filepath.Join(t.TempDir(), "ca.pem")
	use := func(dir string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, AuthorityCert))
		if err != nil {
			t.Fatal(err)
		}
		if err := replace(f.ClientCA, 0o600, append(text, '\n')); err != nil {
			t.Fatal(err)
		}
	}
	use(dir)
	k, err := Open("test", f, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	address, c := serve(t, k), trusting(t, dir)
	c.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	c.ServerName = "127.0.0.1"
	c.Certificates = client(t, dir, "kim-long")
	resumed := false
	for range 2 {
		said, state, err := ask(address, c)
		if err != nil || said != "kim-long" {
			t.Fatalf("%q %v", said, err)
		}
		resumed = state.DidResume
	}
	if !resumed {
		t.Error("the second session does not use the ticket of the first")
	}
	if err := os.Chtimes(f.ClientCA, time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	use(next)
	k.looked.Store(0)
	if said, _, err := ask(address, c); err == nil && said == "kim-long" {
		t.Error("the ticket brings in who has no valid certificate")
	}
}

func TestSelfSigned(t *testing.T) {
	dir := made(t, "kim-long")
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	authority := read(AuthorityCert)
	issue(t, dir, "phu-oc")
	if !bytes.Equal(authority, read(AuthorityCert)) {
		t.Error("the authority was made anew: devices that have it are cut off")
	}
	if _, err := SelfSigned(Request{Dir: dir, Hosts: []string{"x"}, Clients: []string{"kim-long"}, Life: time.Hour, Now: time.Now()}); err == nil {
		t.Error("a client's certificate was replaced")
	}
	if _, err := SelfSigned(Request{Dir: dir}); err == nil {
		t.Error("a server without a name was made")
	}
	for _, name := range []string{AuthorityKey, ServerKey, "client-kim-long-key.pem"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, ServerCert), filepath.Join(dir, ServerKey))
	if err != nil {
		t.Fatal(err)
	}
	pool, _ := authorities(filepath.Join(dir, AuthorityCert))
	for host, want := range map[string]bool{"gateway.example": true, "127.0.0.1": true, "other.example": false} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool})
		if (err == nil) != want {
			t.Errorf("%s: %v", host, err)
		}
	}
	if pair.Leaf.NotAfter.Before(time.Now()) {
		t.Error("it has ended already")
	}
}

func TestValidate(t *testing.T) {
	dir := made(t)
	good := files(dir)
	for want, f := range map[string]Files{
		"":     good,
		"cert": {Key: good.Key}, "key": {Cert: good.Cert}, "client_ca": {Cert: good.Cert, Key: good.Key, Client: Required},
		"client": {Cert: good.Cert, Key: good.Key, ClientCA: good.ClientCA, Client: "perhaps"},
	} {
		got := ""
		for _, fault := range f.Validate() {
			got += fault.Path
		}
		if got != want {
			t.Errorf("%+v: %q, want %q", f, got, want)
		}
	}
	if faults := (Files{Cert: good.Cert, Key: good.Key, ClientCA: good.Key}).Validate(); len(faults) != 1 {
		t.Errorf("a key as authority: %v", faults)
	}
}
