package console

import (
	"net"
	"net/netip"
	"strconv"

	"haidang/gateway/telemetry"
)

// DefaultListen is where the console listens when nothing is configured.
const DefaultListen = "127.0.0.1:8080"

// Config is the console's part of the configuration.
type Config struct {
	Listen string `yaml:"listen"` // host:port; default DefaultListen; port 0 takes a free one
	TLS    TLS    `yaml:"tls"`    // certificate; empty: plain HTTP
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() []telemetry.Fault {
	_, port, err := net.SplitHostPort(c.listen())
	if err != nil {
		return []telemetry.Fault{telemetry.Faultf("listen", "address %q is not host:port, as in %s", c.Listen, DefaultListen)}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return []telemetry.Fault{telemetry.Faultf("listen", "port %q is not in 0..65535", port)}
	}
	return nil
}

// Exposed returns a fault when the listener is beyond loopback: what is wrong
// while there are no accounts.
func (c Config) Exposed() []telemetry.Fault {
	if host, _, err := net.SplitHostPort(c.listen()); err != nil || loopback(host) {
		return nil
	}
	return []telemetry.Fault{telemetry.Faultf("listen", "%q is not a loopback address, and there are no accounts: anyone who reaches it could acknowledge and shelve warnings; make one with `haidang account add`, or use an address like %s", c.Listen, DefaultListen)}
}

// InClear reports whether secrets cross a network unencrypted.
func (c Config) InClear() bool { return len(c.Exposed()) > 0 && c.TLS.Cert == "" }

func (c Config) listen() string {
	if c.Listen == "" {
		return DefaultListen
	}
	return c.Listen
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
