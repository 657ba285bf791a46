package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

// look is how often files are looked at, at most.
const look = 2 * time.Second

// Whether clients present certificates, where there are authorities for them.
const (
	Optional = "optional"
	Required = "required"
)

// Files are where a listener's certificates are.
type Files struct {
	Cert string `yaml:"cert"` // PEM file with the certificate chain
	Key  string `yaml:"key"`  // PEM file with its key
	// ClientCA is a PEM file of the authorities that sign certificates of clients;
	// empty: clients present none.
	ClientCA string `yaml:"client_ca"`
	// Client is optional (default: a client may come with a certificate, or with
	// name and secret) or required.
	Client string `yaml:"client"`
}

// Validate returns what is wrong with the files; it reads them.
func (f Files) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	switch {
	case f.Cert == "":
		faults = append(faults, telemetry.Faultf("cert", "the file of the certificate is missing; `haidang cert selfsigned` makes one for a trial"))
	case f.Key == "":
		faults = append(faults, telemetry.Faultf("key", "the file of the certificate's key is missing"))
	default:
		if _, err := tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
			faults = append(faults, telemetry.Faultf("cert", "certificate %s with key %s cannot be used: %v", f.Cert, f.Key, err))
		}
	}
	switch {
	case f.Client != "" && f.Client != Optional && f.Client != Required:
		faults = append(faults, telemetry.Faultf("client", "client %q is not one of %s, %s", f.Client, Optional, Required))
	case f.Client != "" && f.ClientCA == "":
		faults = append(faults, telemetry.Faultf("client_ca", "the file of the authorities that sign certificates of clients is missing"))
	case f.ClientCA != "":
		if _, err := authorities(f.ClientCA); err != nil {
			faults = append(faults, telemetry.Faultf("client_ca", "%v", err))
		}
	}
	return faults
}

func authorities(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", name)
	}
	return pool, nil
}

// A Keeper serves the certificates of one set of files.
type Keeper struct {
	files  Files
	logger *slog.Logger
	failed prometheus.Counter

	config  atomic.Pointer[tls.Config]
	expires atomic.Int64 // Unix seconds of the end of the certificate
	looked  atomic.Int64 // Unix ns

	mu     sync.Mutex
	stamps [3]stamp
	said   string
}

type stamp struct {
	modified time.Time
	size     int64
}

// Open reads the files. name tells this keeper from others in metrics.
func Open(name string, files Files, reg prometheus.Registerer, logger *slog.Logger) (*Keeper, error) {
	auto := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"listener": name}, reg))
	k := &Keeper{files: files, logger: logger}
	k.failed = auto.NewCounter(prometheus.CounterOpts{Name: "haidang_certificate_reload_failures_total",
		Help: "Changed certificate files that could not be used."})
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_certificate_expires_timestamp_seconds",
		Help: "When the certificate of the listener ends, in Unix time."}, func() float64 { return float64(k.expires.Load()) })
	k.stamps = k.stampAll()
	if err := k.load(); err != nil {
		return nil, err
	}
	return k, nil
}

// TLS returns the configuration of a listener, good for as long as the keeper.
func (k *Keeper) TLS() *tls.Config {
	c := k.config.Load().Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return k.current(), nil }
	return c
}

// current returns what the next handshake is to use. Handshakes share one
// configuration between changes, and with it the keys of session tickets.
func (k *Keeper) current() *tls.Config {
	now, last := time.Now().UnixNano(), k.looked.Load()
	if now-last >= int64(look) && k.looked.CompareAndSwap(last, now) {
		k.refresh()
	}
	return k.config.Load()
}

// refresh reads the files again when they have changed.
func (k *Keeper) refresh() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.stampAll()
	if now == k.stamps {
		return
	}
	err := k.load()
	if err == nil {
		k.stamps, k.said = now, ""
		return
	}
	// The next look tries again: the key may be written after the certificate.
	if k.said != err.Error() {
		k.said = err.Error()
		k.failed.Inc()
		k.logger.Error("changed certificates are not used, those of before hold", "error", err)
	}
}

func (k *Keeper) stampAll() (stamps [3]stamp) {
	for i, name := range []string{k.files.Cert, k.files.Key, k.files.ClientCA} {
		if info, err := os.Stat(name); err == nil {
			stamps[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

func (k *Keeper) load() error {
	cert, err := tls.LoadX509KeyPair(k.files.Cert, k.files.Key)
	if err != nil {
		return fmt.Errorf("load certificate %s with key %s: %w", k.files.Cert, k.files.Key, err)
	}
	if cert.Leaf == nil {
		return errors.New("load certificate " + k.files.Cert + ": no certificate in it")
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if k.files.ClientCA != "" {
		if c.ClientCAs, err = authorities(k.files.ClientCA); err != nil {
			return err
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven
		if k.files.Client == Required {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	k.config.Store(c)
	k.expires.Store(cert.Leaf.NotAfter.Unix())
	return nil
}
