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
	Listen string `yaml:"listen"` // host:port on loopback; default DefaultListen; port 0 takes a free one
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() []telemetry.Fault {
	host, port, err := net.SplitHostPort(c.listen())
	if err != nil {
		return []telemetry.Fault{telemetry.Faultf("listen", "address %q is not host:port, as in %s", c.Listen, DefaultListen)}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return []telemetry.Fault{telemetry.Faultf("listen", "port %q is not in 0..65535", port)}
	}
	if !loopback(host) {
		return []telemetry.Fault{telemetry.Faultf("listen", "%q is not a loopback address: there are no accounts yet, so anyone who reaches it could acknowledge and shelve warnings; expected an address like %s", c.Listen, DefaultListen)}
	}
	return nil
}

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
