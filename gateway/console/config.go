package console

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// DefaultListen is where the console listens when nothing is configured.
const DefaultListen = "127.0.0.1:8080"

// Config is the console's part of the configuration.
type Config struct {
	Listen string    `yaml:"listen"` // host:port; default DefaultListen; port 0 takes a free one
	TLS    TLS       `yaml:"tls"`    // certificate; empty: plain HTTP
	Map    MapConfig `yaml:"map"`    // of the page

	Session SessionConfig `yaml:"session"`
}

// SessionConfig says when the login of a browser ends. 0 is the default.
type SessionConfig struct {
	// Idle is after how long without a key, a click or a change the session of who
	// may act ends: 1s to 24h, default 1h. One that only looks may hang on a wall.
	Idle telemetry.Duration `yaml:"idle"`
	// Acting is after how long the session of who may act ends, whatever is done in
	// it: 1m to 366d, default 12h, a shift.
	Acting telemetry.Duration `yaml:"acting"`
	// Looking is the same of who only looks, as a wall does: 1m to 366d, default 30d.
	Looking telemetry.Duration `yaml:"looking"`
}

// orDefault returns the configuration with the defaults of what is left out.
func (s SessionConfig) orDefault() SessionConfig {
	return SessionConfig{
		Idle:    cmp.Or(s.Idle, telemetry.Duration(time.Hour)),
		Acting:  cmp.Or(s.Acting, telemetry.Duration(12*time.Hour)),
		Looking: cmp.Or(s.Looking, telemetry.Duration(30*24*time.Hour)),
	}
}

func (s SessionConfig) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	within := func(name string, d telemetry.Duration, least, most time.Duration) {
		if d != 0 && (d.Std() < least || d.Std() > most) {
			faults = append(faults, telemetry.Faultf(name, "%s is not in %s..%s", d, telemetry.Duration(least), telemetry.Duration(most)))
		}
	}
	within("idle", s.Idle, time.Second, 24*time.Hour)
	within("acting", s.Acting, time.Minute, 366*24*time.Hour)
	within("looking", s.Looking, time.Minute, 366*24*time.Hour)
	return faults
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
	return append(telemetry.Under("map", c.Map.validate()), telemetry.Under("session", c.Session.validate())...)
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
