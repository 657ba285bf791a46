package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Files that SelfSigned makes.
const (
	AuthorityCert = "ca.pem"
	AuthorityKey  = "ca-key.pem"
	ServerCert    = "server.pem"
	ServerKey     = "server-key.pem"
)

// A Request says what SelfSigned is to make.
type Request struct {
	Dir     string
	Hosts   []string // names and addresses that the server is reached by
	Clients []string // accounts that get a certificate each: client-NAME.pem
	Life    time.Duration
	Now     time.Time
}

// SelfSigned makes certificates with P-256 keys in a folder: an authority, or
// uses the one that is there, a server's certificate, always anew, and those of
// clients; one of a client that is there already is an error, and nothing is
// made. It returns the names of the files that it wrote.
func SelfSigned(r Request) ([]string, error) {
	if len(r.Hosts) == 0 {
		return nil, errors.New("no host: name the address or name by which devices reach the server")
	}
	for _, name := range r.Clients {
		cert := filepath.Join(r.Dir, "client-"+name+".pem")
		if _, err := os.Stat(cert); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is there already: move it away for a new one", cert)
		}
	}
	if err := os.MkdirAll(r.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	a, written, err := openAuthority(r)
	if err != nil {
		return nil, err
	}
	server := template(r, "haidang "+r.Hosts[0])
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else {
			server.DNSNames = append(server.DNSNames, host)
		}
	}
	if err := a.issue(r.Dir, ServerCert, ServerKey, server); err != nil {
		return nil, err
	}
	written = append(written, ServerCert, ServerKey)
	for _, name := range r.Clients {
		client := template(r, name)
		client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		cert, key := "client-"+name+".pem", "client-"+name+"-key.pem"
		if err := a.issue(r.Dir, cert, key, client); err != nil {
			return written, err
		}
		written = append(written, cert, key)
	}
	return written, nil
}

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func template(r Request, name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // never fails (crypto/rand)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    r.Now.Add(-time.Hour), // clocks of devices are late
		NotAfter:     r.Now.Add(r.Life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func openAuthority(r Request) (*authority, []string, error) {
	certFile, keyFile := filepath.Join(r.Dir, AuthorityCert), filepath.Join(r.Dir, AuthorityKey)
	if _, err := os.Stat(certFile); err == nil {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("use the authority %s: %w", certFile, err)
		}
		key, ok := pair.PrivateKey.(crypto.Signer)
		if !ok || !pair.Leaf.IsCA {
			return nil, nil, fmt.Errorf("use the authority %s: it is none", certFile)
		}
		return &authority{cert: pair.Leaf, key: key}, nil, nil
	}
	t := template(r, "haidang authority "+r.Now.Format(time.DateOnly))
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	t.NotAfter = r.Now.Add(max(r.Life, 10*365*24*time.Hour))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the authority: %w", err)
	}
	a := &authority{cert: t, key: key}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, nil, fmt.Errorf("make the authority: %w", err)
	}
	if err := writeKey(keyFile, key); err != nil {
		return nil, nil, err
	}
	return a, []string{AuthorityCert, AuthorityKey}, writePEM(certFile, 0o644, der)
}

// issue makes a key and a certificate for it.
func (a *authority) issue(dir, certFile, keyFile string, t *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key for %s: %w", t.Subject.CommonName, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("make a certificate for %s: %w", t.Subject.CommonName, err)
	}
	if err := writeKey(filepath.Join(dir, keyFile), key); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, certFile), 0o644, der)
}

func writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return replace(name, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func writePEM(name string, mode os.FileMode, chain ...[]byte) error {
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return replace(name, mode, text)
}

// replace writes a file as a whole: a running gateway may read it any time.
func replace(name string, mode os.FileMode, text []byte) error {
	file, err := os.CreateTemp(filepath.Dir(name), ".cert-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
