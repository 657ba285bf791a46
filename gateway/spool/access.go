package spool

import (
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"haidang/gateway/telemetry"
)

// TLS says which certificates are used towards a cluster.
type TLS struct {
	CA   string `yaml:"ca"`   // PEM file of the authorities; default those of the system
	Cert string `yaml:"cert"` // PEM file of our certificate, where the cluster wants one
	Key  string `yaml:"key"`  // PEM file with its key
}

// How the client treats a connection to a cluster. A server that is gone without
// a word is noticed after two pings.
const (
	dialPatience   = 3 * time.Second
	redialPause    = 500 * time.Millisecond
	redialJitter   = 500 * time.Millisecond
	pingInterval   = 3 * time.Second
	maxMissedPings = 2
)

// validateAccess returns what is wrong with how a cluster is to be reached.
func (c Config) validateAccess() (faults []telemetry.Fault) {
	if c.URL == "" {
		for _, key := range []struct{ name, value string }{
			{"credentials", c.Credentials}, {"user", c.User}, {"password", c.Password},
			{"tls.ca", c.TLS.CA}, {"tls.cert", c.TLS.Cert}, {"tls.key", c.TLS.Key},
		} {
			if key.value != "" {
				faults = append(faults, telemetry.Faultf(key.name, "%s is given without url: it is that of an external cluster", key.name))
			}
		}
		return faults
	}
	for one := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil || u.Host == "":
			faults = append(faults, telemetry.Faultf("url", "url %q is not like nats://host:4222", redact(one)))
		case u.User != nil:
			faults = append(faults, telemetry.Faultf("url", "url %q names a user: user and password are keys of their own", redact(one)))
		case u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss":
			faults = append(faults, telemetry.Faultf("url", "url %q: scheme %q is not one of nats, tls, ws, wss", one, u.Scheme))
		}
	}
	switch {
	case c.Credentials != "" && c.User != "":
		faults = append(faults, telemetry.Faultf("user", "give credentials or user and password, not both"))
	case c.Password != "" && c.User == "":
		faults = append(faults, telemetry.Faultf("user", "password is given without user"))
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		faults = append(faults, telemetry.Faultf("tls.cert", "cert and key go together"))
	}
	return faults
}

// redact takes a password out of a URL that may not even be one.
func redact(address string) string {
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		scheme, _, found := strings.Cut(address, "://")
		if !found {
			scheme = "nats"
		}
		return scheme + "://...@" + address[at+1:]
	}
	return address
}

// access returns the options of a connection to the cluster. Nothing is kept
// for a connection that is lost: whoever writes hears of it and tries again, and
// nothing can reach another cluster than the one that was looked at.
func (c Config) access(name string) []nats.Option {
	options := []nats.Option{
		nats.Name(name), nats.Timeout(dialPatience),
		nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), nats.ReconnectBufSize(-1),
		nats.ReconnectWait(redialPause), nats.ReconnectJitter(redialJitter, redialJitter),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxMissedPings),
	}
	if c.Credentials != "" {
		options = append(options, nats.UserCredentials(c.Credentials))
	}
	if c.User != "" {
		options = append(options, nats.UserInfo(c.User, c.Password))
	}
	if c.TLS.CA != "" {
		options = append(options, nats.RootCAs(c.TLS.CA))
	}
	if c.TLS.Cert != "" {
		options = append(options, nats.ClientCert(c.TLS.Cert, c.TLS.Key))
	}
	return options
}
