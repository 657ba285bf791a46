package bridge

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Config is one other broker.
type Config struct {
	Name    string `yaml:"name"`    // for messages, metrics and the link: province
	Connect string `yaml:"connect"` // mqtt://host:1883, mqtts://host:8883, ws:// or wss://host/mqtt
	Client  string `yaml:"client"`  // client id there; default haidang-{gateway}-{name}
	User    string `yaml:"user"`    // at the other broker; empty: nobody logs in
	Secret  string `yaml:"secret"`  // of the user; rather as ${NAME} than here
	CA      string `yaml:"ca"`      // PEM file of the authorities; default those of the system
	Cert    string `yaml:"cert"`    // PEM file of our certificate, where there is to be one
	Key     string `yaml:"key"`     // PEM file of that certificate's key

	Subscribe []string `yaml:"subscribe"` // topic filters whose messages are taken in, at QoS 1
	Forward   Forward  `yaml:"forward"`
}

// Forward says which readings are sent to the other broker.
type Forward struct {
	// Topic is where a reading is published, as JSON like that on telemetry/...,
	// with {device}, {kind} and {site}; empty: nothing is forwarded.
	Topic   string             `yaml:"topic"`
	Kinds   []string           `yaml:"kinds"`   // default all
	Devices []string           `yaml:"devices"` // patterns with * and ?; default all
	Keep    telemetry.Duration `yaml:"keep"`    // how long readings wait for a broker that cannot be reached; default 1d
}

// defaultKeep is how long readings wait by default.
const defaultKeep = 24 * time.Hour

// Bounds.
const (
	connectTimeout = 15 * time.Second
	writeTimeout   = 15 * time.Second
	ackTimeout     = 30 * time.Second // for the other broker's acknowledgement
	keepAlive      = 30 * time.Second
	oldPause       = 30 * time.Second // between attempts to send what has waited for too long
	maxPending     = 1024             // messages that are not on disk yet
	maxInFlight    = 64               // forwarded readings that are not acknowledged
	maxCommands    = 16               // that wait to be published
)

// Validate reports everything that is wrong.
func (c *Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if !telemetry.ValidName(c.Name) {
		fault("name", "name %q is not a name of letters, digits and ._:- that begins with a letter or digit", c.Name)
	}
	if _, err := c.server(); err != nil {
		fault("connect", "%v", err)
	}
	if _, err := c.encryption(); err != nil {
		fault("cert", "%v", err)
	}
	if len(c.Subscribe) == 0 && c.Forward.Topic == "" {
		fault("subscribe", "the bridge does nothing: give it topics to subscribe to, or forward.topic")
	}
	for i, filter := range c.Subscribe {
		levels := strings.Split(filter, "/")
		for j, level := range levels {
			if filter == "" || strings.ContainsAny(level, "+#") && len(level) > 1 || level == "#" && j < len(levels)-1 {
				fault(fmt.Sprintf("subscribe[%d]", i), "filter %q: + must fill a level, # must be the last level", filter)
				break
			}
		}
	}
	return append(faults, telemetry.Under("forward", c.Forward.validate())...)
}

func (f *Forward) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	rest := strings.NewReplacer("{device}", "", "{kind}", "", "{site}", "").Replace(f.Topic)
	switch {
	case f.Topic == "" && (f.Kinds != nil || f.Devices != nil || f.Keep != 0):
		faults = append(faults, telemetry.Faultf("topic", "the topic is missing, such as telemetry/{device}/{kind}"))
	case strings.ContainsAny(rest, "+#{}\x00") || strings.HasPrefix(f.Topic, "$"):
		faults = append(faults, telemetry.Faultf("topic", "topic %q: want a topic with {device}, {kind} and {site} in it, without + and #", f.Topic))
	}
	for i, pattern := range f.Devices {
		if _, err := path.Match(pattern, ""); err != nil {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("devices[%d]", i), "pattern %q: want a name with * and ?", pattern))
		}
	}
	if f.Keep < 0 {
		faults = append(faults, telemetry.Faultf("keep", "keep %s is negative", f.Keep))
	}
	return faults
}

// server is the URL of the other broker as the MQTT client wants it.
func (c *Config) server() (string, error) {
	u, err := url.Parse(c.Connect)
	if err != nil || u.Host == "" || u.User != nil {
		return "", fmt.Errorf("connect %q is not like mqtt://host:1883, mqtts://host:8883 or wss://host/mqtt (user and secret are keys of their own)", c.Connect)
	}
	port := ""
	switch u.Scheme {
	case "mqtt", "tcp":
		u.Scheme, port = "tcp", "1883"
	case "mqtts", "ssl", "tls":
		u.Scheme, port = "ssl", "8883"
	case "ws", "wss":
	default:
		return "", fmt.Errorf("connect %q: scheme %q is not one of mqtt, mqtts, ws, wss", c.Connect, u.Scheme)
	}
	if u.Port() == "" && port != "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u.String(), nil
}

// encryption is how TLS is spoken, where it is.
func (c *Config) encryption() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("read the authorities: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("there is no certificate in PEM in %s", c.CA)
		}
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s cannot be used: %w", c.Cert, c.Key, err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
