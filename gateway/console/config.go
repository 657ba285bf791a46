package console

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// DefaultListen is where the console listens when nothing is configured.
const DefaultListen = "127.0.0.1:8080"

// Config is the console's part of the configuration.
type Config struct {
	Listen string    `yaml:"listen"` // host:port; default DefaultListen; port 0 takes a free one
	TLS    TLS       `yaml:"tls"`    // certificate; empty: plain HTTP
	Map    MapConfig `yaml:"map"`    // of the page
}

// MapConfig is what the page's map is drawn on. Without tiles it is the base map
// that the program has in it.
type MapConfig struct {
	Tiles  string `yaml:"tiles"`  // URL of one's own tile server, as https://tiles.example.vn/{z}/{x}/{y}.png
	Credit string `yaml:"credit"` // whose map it is, shown in a corner
}

func (m MapConfig) validate() []telemetry.Fault {
	if m.Tiles == "" {
		return nil
	}
	u, err := url.Parse(m.Tiles)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsAny(u.Host, "{}*;, ") || !strings.Contains(m.Tiles, "{z}") {
		return []telemetry.Fault{telemetry.Faultf("tiles", "%q is not the URL of map tiles, as https://tiles.example.vn/{z}/{x}/{y}.png", m.Tiles)}
	}
	return nil
}

// policy is the Content-Security-Policy of every answer: nothing of other hosts,
// but images of the tile server where there is one.
func (m MapConfig) policy() string {
	policy := "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
	if u, err := url.Parse(m.Tiles); err == nil && m.Tiles != "" {
		policy += "; img-src 'self' data: " + u.Scheme + "://" + u.Host
	}
	return policy
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
	return telemetry.Under("map", c.Map.validate())
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
