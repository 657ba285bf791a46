package spool

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	numbers "math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

func TestValidateAccess(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   []string
	}{
		{Config{URL: "tls://a:4222, nats://b:4222", User: "u", Password: "p", TLS: TLS{CA: "ca.pem", Cert: "c.pem", Key: "k.pem"}}, nil},
		{Config{URL: "nats://a", Credentials: "x.creds"}, nil},
		{Config{User: "u", TLS: TLS{CA: "ca.pem"}}, []string{
			"user: user is given without url: it is that of an external cluster",
			"tls.ca: tls.ca is given without url: it is that of an external cluster",
		}},
		{Config{URL: "nats://u:p@a:4222"}, []string{`url: url "nats://...@a:4222" names a user: user and password are keys of their own`}},
		{Config{URL: "u:p@a"}, []string{`url: url "nats://...@a" is not like nats://host:4222`}},
		{Config{URL: "nats://a", Credentials: "x.creds", User: "u", TLS: TLS{Cert: "c.pem"}}, []string{
			"user: give credentials or user and password, not both",
			"tls.cert: cert and key go together",
		}},
		{Config{URL: "nats://a", Password: "p"}, []string{"user: password is given without user"}},
	} {
		var got []string
		for _, f := range c.config.Validate() {
			got = append(got, f.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// TestEncrypted: a cluster that wants certificates gets ours, and is known by its
// authority alone.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, key := certify(t, dir, "ca", nil, nil)
	certify(t, dir, "server", authority, key)
	certify(t, dir, "client", authority, key)
	file := func(name string) string { return filepath.Join(dir, name) }
	c := startCluster(t, "encrypted", 1, fmt.Sprintf("tls: {cert_file: %q, key_file: %q, ca_file: %q, verify: true}", file("server.pem"), file("server.key"), file("ca.pem")))
	config := c.config(0)
	wantIn(t, refusal(t, t.TempDir(), config), "tls")
	config.TLS.CA = file("ca.pem")
	wantIn(t, refusal(t, t.TempDir(), config), "127.0.0.1")
	config.TLS.Cert, config.TLS.Key = file("client.pem"), file("client.key")
	put(t, open(t, t.TempDir(), at(config)), river("a", 1))
	config.TLS.CA = file("client.pem")
	wantIn(t, refusal(t, t.TempDir(), config), "certificate")
}

// certify writes a certificate and its key, signed by an authority or by itself.
func certify(t *testing.T, dir, name string, authority *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: numbers.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: authority == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if authority == nil {
		authority, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, authority, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	writeFile(t, filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}))
	return c, key
}

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCredentials opens a log with a credentials file; one of another account's
// making is refused, and so is the right one of an account that is not allowed to
// do what it must.
func TestCredentials(t *testing.T) {
	t.Parallel()
	operator, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	operatorKey, err := operator.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	account, accountToken := makeAccount(t, operator, -1)
	system, systemToken := makeAccount(t, operator, 0)
	accountKey, _ := account.PublicKey()
	systemKey, _ := system.PublicKey()
	claims := jwt.NewOperatorClaims(operatorKey)
	claims.SystemAccount = systemKey
	token, err := claims.Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	c := startOperated(t, fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: {%s: %s, %s: %s}\n", token, accountKey, accountToken, systemKey, systemToken))
	config := Config{URL: c.url(), Replicas: 1, MaxBytes: 64 << 20}
	config.Credentials = makeUser(t, account, nil)
	put(t, open(t, t.TempDir(), at(config)), river("a", 1))

	stranger, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	config.Credentials = makeUser(t, stranger, nil)
	wantIn(t, refusal(t, t.TempDir(), config), "refuses spool.credentials")
	config.Credentials = makeUser(t, account, func(u *jwt.UserClaims) { u.Pub.Deny.Add("$JS.API.>") })
	wantIn(t, refusal(t, t.TempDir(), config), "the account may not do what it must", "$JS.API.INFO")
}

// makeAccount makes an account that may keep that many bytes; -1: any.
func makeAccount(t *testing.T, operator nkeys.KeyPair, disk int64) (nkeys.KeyPair, string) {
	t.Helper()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	public, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.NewAccountClaims(public)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: disk, DiskStorage: disk, Streams: disk, Consumer: disk}
	token, err := claims.Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	return account, token
}

// makeUser writes a credentials file.
func makeUser(t *testing.T, account nkeys.KeyPair, change func(*jwt.UserClaims)) string {
	t.Helper()
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.NewUserClaims(public)
	if change != nil {
		change(claims)
	}
	token, err := claims.Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "box.creds")
	writeFile(t, path, text)
	return path
}

// startOperated starts a server whose accounts come from an operator.
func startOperated(t *testing.T, more string) *natsCluster {
	t.Helper()
	c := startCluster(t, "operated", 1)
	c.end(0)
	text, err := os.ReadFile(c.files[0])
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "accounts: {")
	writeFile(t, c.files[0], []byte(before+more))
	c.start(t, 0)
	c.settled(t)
	return c
}
