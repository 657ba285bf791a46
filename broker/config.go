package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"haidang/broker/sparkplug"
	"haidang/gateway/telemetry"
)

// Config says where the broker listens and what it reads.
type Config struct {
	Listen    string           `yaml:"listen"`    // host:port of MQTT over TCP; empty: none
	TLS       TLS              `yaml:"tls"`       // MQTT over TLS
	Websocket Websocket        `yaml:"websocket"` // MQTT over WebSocket
	Topics    []Mapping        `yaml:"topics"`    // other topics that carry telemetry
	Sparkplug sparkplug.Config `yaml:"sparkplug"` // what nodes and devices are called

	MaxClients int    `yaml:"max_clients"` // connections at a time
	Limits     Limits `yaml:"limits"`
}

// TLS is the listener for MQTT over TLS.
type TLS struct {
	Listen string `yaml:"listen"` // host:port; empty: none
	Cert   string `yaml:"cert"`   // PEM file with the certificate chain
	Key    string `yaml:"key"`    // PEM file with its key

	// ClientCA is a PEM file of the authorities that sign certificates of devices;
	// empty: devices present none.
	ClientCA string `yaml:"client_ca"`
	// Client is optional (default: a device comes with a certificate or with its
	// secret) or required.
	Client string `yaml:"client"`
}

// Websocket is the listener for MQTT over WebSocket (RFC 6455, subprotocol
// mqtt, any path), over TLS when there is a certificate.
type Websocket struct {
	Listen string `yaml:"listen"` // host:port; empty: none
	Cert   string `yaml:"cert"`   // PEM file with the certificate chain; empty: no TLS
	Key    string `yaml:"key"`    // PEM file with its key

	// Origins are the web pages that may connect besides those of this machine,
	// as https://map.example.vn; * is for all, which is safe with accounts only.
	Origins []string `yaml:"origins"`
}

// A Mapping reads telemetry from topics that are laid out in another way.
type Mapping struct {
	Topic  string `yaml:"topic"`  // a topic filter with + and #: site/+/+/data
	Device string `yaml:"device"` // the number of the level that names the device, from 1, or the device
	Kind   string `yaml:"kind"`   // the number of the level that names the kind, from 1, or the kind; not for influx
	Format string `yaml:"format"` // json (default) or influx
}

// DefaultConfig is the configuration of a broker that nobody configured.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:1883", MaxClients: 2048, Limits: DefaultLimits(), Sparkplug: sparkplug.DefaultConfig()}
}

// Bounds of the broker, for a machine with 512 MB.
const (
	maxPacketBytes  = 1 << 20   // a larger packet ends the connection
	maxConnectBytes = 32 << 10  // a larger CONNECT does: nobody knows yet who sends it
	maxPayloadBytes = 256 << 10 // a larger payload is set aside
	maxPending      = 256       // unacknowledged messages of a connection
	maxPendingBytes = 32 << 20  // of all connections
	maxDevices      = 1024      // devices of a connection whose link is followed
	maxRoutes       = 1024      // topics that a connection remembers
	maxInflight     = 1024      // QoS 1 and 2 messages on the way to a client
	maxQueued       = 10_000    // messages that wait for a client
	maxQueueBytes   = 8 << 20   // of what a session is owed
	maxQueuesBytes  = 64 << 20  // of what all are
	maxSysPending   = 64        // figures of $SYS on the way to a client
	maxForwardBytes = 8 << 20   // of telemetry on its way to subscribers
	maxRetained     = 10_000    // retained messages of clients
	maxRetainBytes  = 16 << 20  // their payloads
	maxLetters      = 16        // dead letters of one message

	connectTimeout = 10 * time.Second // from accept to CONNECT
	writeTimeout   = 10 * time.Second // for one write to a client
	refusePause    = time.Second      // between a refusal and the end of the connection
	drainTimeout   = 2 * time.Second  // for pending acknowledgements when the broker stops
	sessionExpiry  = 24 * time.Hour   // of a session whose client is away
	sysInterval    = 60 * time.Second // between updates of $SYS
)

// Validate returns what is wrong with the configuration.
func (c *Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if c.Listen == "" && c.TLS.Listen == "" && c.Websocket.Listen == "" {
		faults = append(faults, telemetry.Faultf("listen", "no listener: give an address such as 127.0.0.1:1883"))
	}
	faults = append(faults, validateListen("listen", c.Listen)...)
	faults = append(faults, validateListen("tls.listen", c.TLS.Listen)...)
	faults = append(faults, validateListen("websocket.listen", c.Websocket.Listen)...)
	if c.TLS.Listen != "" {
		faults = append(faults, telemetry.Under("tls", c.TLS.validate())...)
	}
	if w := c.Websocket; w.Listen != "" && (w.Cert != "" || w.Key != "") {
		faults = append(faults, telemetry.Under("websocket", (&TLS{Cert: w.Cert, Key: w.Key}).validate())...)
	}
	faults = append(faults, telemetry.Under("sparkplug", c.Sparkplug.Validate())...)
	faults = append(faults, telemetry.Under("limits", c.Limits.validate())...)
	if c.MaxClients < 1 || c.MaxClients > 100_000 {
		faults = append(faults, telemetry.Faultf("max_clients", "max_clients %d is not in 1..100000", c.MaxClients))
	}
	for i := range c.Topics {
		faults = append(faults, telemetry.Under(fmt.Sprintf("topics[%d]", i), c.Topics[i].validate())...)
	}
	return faults
}

func (t *TLS) validate() []telemetry.Fault {
	switch {
	case t.Cert == "":
		return []telemetry.Fault{telemetry.Faultf("cert", "the file of the certificate is missing")}
	case t.Key == "":
		return []telemetry.Fault{telemetry.Faultf("key", "the file of the certificate's key is missing")}
	}
	if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
		return []telemetry.Fault{telemetry.Faultf("cert", "certificate %s with key %s cannot be used: %v", t.Cert, t.Key, err)}
	}
	switch {
	case t.Client != "" && t.Client != "optional" && t.Client != "required":
		return []telemetry.Fault{telemetry.Faultf("client", "client %q is not one of optional, required", t.Client)}
	case t.Client != "" && t.ClientCA == "":
		return []telemetry.Fault{telemetry.Faultf("client_ca", "the file of the authorities that sign certificates of devices is missing")}
	case t.ClientCA != "":
		text, err := os.ReadFile(t.ClientCA)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
			err = errors.New("no certificate in PEM")
		}
		if err != nil {
			return []telemetry.Fault{telemetry.Faultf("client_ca", "authorities %s cannot be used: %v", t.ClientCA, err)}
		}
	}
	return nil
}

// Exposed returns a fault for each listener beyond loopback: what is wrong while
// there are no accounts.
func (c *Config) Exposed() []telemetry.Fault {
	var faults []telemetry.Fault
	for _, l := range []struct{ path, address string }{
		{"listen", c.Listen}, {"tls.listen", c.TLS.Listen}, {"websocket.listen", c.Websocket.Listen},
	} {
		host, port, err := net.SplitHostPort(l.address)
		if err != nil || onLoopback(host) {
			continue
		}
		faults = append(faults, telemetry.Faultf(l.path, "address %q is not on loopback, and there are no accounts to protect it: make one with `haidang account add`, or use 127.0.0.1:%s", l.address, port))
	}
	return faults
}

// InClear returns the listeners beyond loopback on which secrets cross the
// network unencrypted, by the path of their key.
func (c *Config) InClear() []string {
	var paths []string
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && !onLoopback(host) {
		paths = append(paths, "listen")
	}
	if host, _, err := net.SplitHostPort(c.Websocket.Listen); err == nil && !onLoopback(host) && c.Websocket.Cert == "" {
		paths = append(paths, "websocket.listen")
	}
	return paths
}

func onLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// validateListen checks an address.
func validateListen(path, address string) []telemetry.Fault {
	if address == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return []telemetry.Fault{telemetry.Faultf(path, "address %q is not host:port, such as 127.0.0.1:1883", address)}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return []telemetry.Fault{telemetry.Faultf(path, "port %q is not in 0..65535", port)}
	}
	return nil
}

func (m *Mapping) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	levels := strings.Split(m.Topic, "/")
	for i, level := range levels {
		if strings.ContainsAny(level, "+#") && len(level) > 1 || level == "#" && i < len(levels)-1 {
			faults = append(faults, telemetry.Faultf("topic", "topic %q: + must fill a level, # must be the last level", m.Topic))
			break
		}
	}
	switch levels[0] {
	case "":
		faults = append(faults, telemetry.Faultf("topic", "topic %q begins with an empty level", m.Topic))
	case "+", "#", familyTelemetry, familyInflux, familySenML, levelSparkplug, warningsLevel, "$SYS", "$share":
		faults = append(faults, telemetry.Faultf("topic", "topic %q may not begin with %q: telemetry, influx, senml, spBv1.0, warnings and $ have their own meaning", m.Topic, levels[0]))
	}
	faults = append(faults, validateLevel("device", m.Device, levels)...)
	switch m.Format {
	case "", formatJSON:
		faults = append(faults, validateLevel("kind", m.Kind, levels)...)
		if m.Kind == kindWarning {
			faults = append(faults, telemetry.Faultf("kind", "kind %q is this program's own", m.Kind))
		}
	case formatInflux:
		if m.Kind != "" {
			faults = append(faults, telemetry.Faultf("kind", "kind %q: in line protocol the measurement is the kind", m.Kind))
		}
	default:
		faults = append(faults, telemetry.Faultf("format", "format %q is not one of json, influx", m.Format))
	}
	return faults
}

func validateLevel(path, spec string, levels []string) []telemetry.Fault {
	if n, err := strconv.Atoi(spec); err == nil {
		if n < 1 || n > len(levels) || levels[n-1] == "#" {
			return []telemetry.Fault{telemetry.Faultf(path, "level %d is not in 1..%d of the topic", n, len(levels))}
		}
		return nil
	}
	if !telemetry.ValidName(spec) {
		return []telemetry.Fault{telemetry.Faultf(path, "%q is neither a level of the topic nor a name of letters, digits and ._:-", spec)}
	}
	return nil
}
