package uplink

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Bounds and defaults of the configuration.
const (
	DefaultHeartbeat  = 30 * time.Second
	shortestHeartbeat = time.Second
	longestHeartbeat  = time.Hour
	smallestRate      = 1 << 10
)

// Config is the part "uplink" of the configuration: the centre that this gateway
// pushes to, and whether it is one itself.
type Config struct {
	// URL is the console of the centre, such as https://centre.example.vn:8080. Empty:
	// nothing is pushed.
	URL string `yaml:"url"`
	// Account is whom the centre knows. Default: the gateway's name.
	Account string `yaml:"account"`
	// Secret is that of the account, such as ${UPLINK_SECRET}.
	Secret string `yaml:"secret"`
	// CA is a PEM file with the authorities that the centre's certificate is of, where
	// the system does not know them. A renewed file is in force without a restart.
	CA string `yaml:"ca"`
	// MaxRate bounds what is sent in a second, such as 64KiB/s. Warnings count and do
	// not wait. Default: no bound.
	MaxRate Rate `yaml:"max_rate"`
	// Heartbeat is how often the centre hears of this gateway while nothing else is
	// wrong. 1s to 1h, default 30s.
	Heartbeat telemetry.Duration `yaml:"heartbeat"`
	// Accept makes this gateway a centre: it takes what others push to its console. Of
	// machines with roles all are to have it.
	Accept bool `yaml:"accept"`
}

// A Rate is a number of bytes in a second that configuration writes as 64KiB/s.
type Rate telemetry.Size

// UnmarshalText reads a size, with or without /s.
func (r *Rate) UnmarshalText(text []byte) error {
	var size telemetry.Size
	if err := size.UnmarshalText([]byte(strings.TrimSuffix(strings.TrimSpace(string(text)), "/s"))); err != nil {
		return fmt.Errorf("rate %q is not like 64KiB/s", text)
	}
	*r = Rate(size)
	return nil
}

// MarshalText writes the form that UnmarshalText reads.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String writes the rate as configuration does.
func (r Rate) String() string { return telemetry.Size(r).String() + "/s" }

// Sends reports whether there is a centre to push to.
func (c *Config) Sends() bool { return c.URL != "" }

// Validate returns everything that is wrong with the configuration.
func (c *Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if !c.Sends() {
		for _, key := range []struct {
			name string
			set  bool
		}{{"account", c.Account != ""}, {"secret", c.Secret != ""}, {"ca", c.CA != ""}, {"max_rate", c.MaxRate != 0}, {"heartbeat", c.Heartbeat != 0}} {
			if key.set {
				fault(key.name, "%s means nothing without url, the console of the centre", key.name)
			}
		}
		return faults
	}
	if _, err := c.address(); err != nil {
		fault("url", "%v", err)
	}
	if c.Account != "" && !telemetry.ValidName(c.Account) {
		fault("account", "account %q is not a name of letters, digits and ._:- that begins with a letter or digit", c.Account)
	}
	if c.MaxRate != 0 && c.MaxRate < smallestRate {
		fault("max_rate", "max_rate %s is below 1KiB/s", c.MaxRate)
	}
	if h := c.Heartbeat.Std(); h != 0 && (h < shortestHeartbeat || h > longestHeartbeat) {
		fault("heartbeat", "heartbeat %s is not in 1s..1h", c.Heartbeat)
	}
	if _, _, err := c.encryption(); err != nil {
		fault("ca", "%v", err)
	}
	return faults
}

// InClear reports whether the secret would cross a network unencrypted.
func (c *Config) InClear() bool {
	u, err := c.address()
	if err != nil || u.Scheme == "https" || !c.Sends() {
		return false
	}
	switch u.Hostname() {
	case "localhost", "127.0.0.1", "::1":
		return false
	}
	return true
}

// address is where the requests go, without the last part of the path.
func (c *Config) address() (*url.URL, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("url %q is not like https://centre.example.vn:8080 (account and secret are keys of their own)", c.URL)
	}
	return u.JoinPath(Path), nil
}

// encryption is how TLS is spoken, where it is, and what the file of authorities says.
func (c *Config) encryption() (*tls.Config, []byte, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA == "" {
		return out, nil, nil
	}
	text, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("read the authorities: %w", err)
	}
	out.RootCAs = x509.NewCertPool()
	if !out.RootCAs.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("there is no certificate in PEM in %s", c.CA)
	}
	return out, text, nil
}

// heartbeat is the interval in force.
func (c *Config) heartbeat() time.Duration {
	if c.Heartbeat == 0 {
		return DefaultHeartbeat
	}
	return c.Heartbeat.Std()
}
