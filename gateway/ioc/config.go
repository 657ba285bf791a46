package ioc

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// DefaultTimeout bounds one attempt to deliver, from the dial to the answer.
const DefaultTimeout = 10 * time.Second

// Bounds of the configured timeout.
const (
	minTimeout = time.Second
	maxTimeout = time.Minute
)

// Config is one recipient of warnings: its name, and one of the protocols.
type Config struct {
	// Name is what rules write under "to", and the recipient in metrics.
	Name string `yaml:"name"`

	Webhook *WebhookConfig `yaml:"webhook"` // JSON over HTTP
	CAP     *CAPConfig     `yaml:"cap"`     // CAP 1.2 over HTTP, or into a folder
	SMTP    *SMTPConfig    `yaml:"smtp"`    // mail

	SMS   *SMSConfig   `yaml:"sms"`   // short messages through a modem
	MQTT  *MQTTConfig  `yaml:"mqtt"`  // another broker
	Siren *SirenConfig `yaml:"siren"` // on a Modbus coil

	Alertmanager *AlertmanagerConfig `yaml:"alertmanager"` // Prometheus' own, API v2

	Digest *DigestConfig `yaml:"digest"` // of smtp and sms, which have it by default, and of a webhook that asks for it
	Rate   *RateConfig   `yaml:"rate"`   // default: as many as there are
}

// ways are the protocols that a recipient can be configured with.
func ways() string { return "webhook, cap, mqtt, smtp, sms, alertmanager, siren" }

// A way is how a recipient is reached.
type way struct {
	name     string
	validate func() []telemetry.Fault
	open     func(Outside) Deliverer
}

// ways returns those that the configuration names.
func (c *Config) ways() []way {
	var out []way
	if w := c.Webhook; w != nil {
		out = append(out, way{"webhook", w.Validate, func(o Outside) Deliverer { return NewWebhook(*w, o.Version) }})
	}
	if w := c.CAP; w != nil {
		out = append(out, way{"cap", w.Validate, func(o Outside) Deliverer { return NewCAP(*w, o.Bulletins, o.Version) }})
	}
	if w := c.SMTP; w != nil {
		out = append(out, way{"smtp", w.Validate, func(o Outside) Deliverer { return NewSMTP(*w, o.Bulletins) }})
	}
	if w := c.Alertmanager; w != nil {
		out = append(out, way{"alertmanager", w.Validate, func(o Outside) Deliverer { return NewAlertmanager(*w, o.Version) }})
	}
	if w := c.SMS; w != nil {
		out = append(out, way{"sms", w.Validate, func(o Outside) Deliverer { return NewSMS(*w, o.Bulletins, o.Dial) }})
	}
	if w := c.MQTT; w != nil {
		out = append(out, way{"mqtt", w.Validate, func(o Outside) Deliverer { return NewRemote(*w, "haidang-"+o.Gateway+"-"+c.Name) }})
	}
	if w := c.Siren; w != nil {
		out = append(out, way{"siren", w.Validate, func(o Outside) Deliverer { return NewSiren(*w, o.Switch, o.Past) }})
	}
	return out
}

// Outside is what recipients use of the rest of the gateway.
type Outside struct {
	Version   string // the program's own, as others see it
	Bulletins Bulletins
	Gateway   string // the gateway's name
	Dial      Dialer // of modems
	Switch    Switch // of sirens
	Past      Past   // of warnings, for this recipient
}

// Open makes the recipient of a valid configuration.
func Open(c Config, outside Outside, o Options) *Recipient {
	w := c.ways()[0]
	r := NewRecipient(c.Name, w.open(outside), o)
	r.via, r.past = w.name, outside.Past
	if c.Rate != nil {
		r.meter = newMeter(*c.Rate)
	}
	digest := DigestConfig{}
	if c.Digest != nil {
		digest = *c.Digest
	}
	if digester, ok := r.to.(Digester); ok && !digest.Off && (c.Webhook == nil || c.Digest != nil) {
		r.digester, r.storm = digester, newStorm(digest, outside.Bulletins.Composer.Region)
	}
	return r
}

// Via names the protocol of a recipient, as in webhook.
func (c *Config) Via() string {
	if ways := c.ways(); len(ways) > 0 {
		return ways[0].name
	}
	return ""
}

// Validate reports what is wrong with this recipient.
func (c Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if !telemetry.ValidName(c.Name) {
		faults = append(faults, telemetry.Faultf("name", "recipient name %q is not a name of letters, digits and ._:- that begins with a letter or digit", c.Name))
	}
	given := c.ways()
	if len(given) == 0 {
		return append(faults, telemetry.Faultf("", "recipient %q cannot be reached; expected one of %s", c.Name, ways()))
	}
	if len(given) > 1 {
		names := make([]string, len(given))
		for i := range given {
			names[i] = given[i].name
		}
		faults = append(faults, telemetry.Faultf(given[1].name, "recipient %q has %s; expected one of them: make a recipient of each", c.Name, strings.Join(names, " and ")))
	}
	for _, w := range given {
		faults = append(faults, telemetry.Under(w.name, w.validate())...)
	}
	if c.Digest != nil {
		if c.SMTP == nil && c.SMS == nil && c.Webhook == nil {
			faults = append(faults, telemetry.Faultf("digest", "only smtp, sms and webhook tell warnings together: mqtt has a topic for each, Alertmanager groups by itself, and a CAP message is of one incident"))
		}
		faults = append(faults, telemetry.Under("digest", c.Digest.Validate())...)
	}
	if c.Rate != nil {
		faults = append(faults, telemetry.Under("rate", c.Rate.Validate())...)
	}
	return faults
}

// Address is the host and port that the recipient is reached at, or "" when it
// is not over a network of ours to look at.
func (c *Config) Address() string {
	address := ""
	switch {
	case c.Webhook != nil:
		address = c.Webhook.URL
	case c.CAP != nil:
		address = c.CAP.URL
	case c.SMTP != nil:
		address = c.SMTP.URL
	case c.MQTT != nil:
		address = c.MQTT.URL
	case c.Alertmanager != nil:
		address = c.Alertmanager.URL
	case c.SMS != nil && strings.HasPrefix(c.SMS.Connect, "tcp:"):
		address = c.SMS.Connect
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "ws": "80", "wss": "443", "mqtt": "1883", "mqtts": "8883",
			"smtp": portSMTP, "smtps": portSMTPS}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Unknown reports values that the recipient's texts name and that no kind has.
func (c *Config) Unknown(kinds *telemetry.Catalogue) []telemetry.Fault {
	var faults []telemetry.Fault
	look := func(at string, texts TextConfig) {
		values := texts.values()
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if len(kinds.Owners(name)) == 0 {
				faults = append(faults, telemetry.Faultf(at+"."+values[name], "no kind has a value %q", name))
			}
		}
	}
	if c.SMTP != nil {
		look("smtp", c.SMTP.TextConfig)
	}
	if c.SMS != nil {
		look("sms", TextConfig{Body: c.SMS.Body})
	}
	return faults
}

// Validate reports what is wrong with a list of recipients; paths begin with
// the index.
func Validate(recipients []Config) []telemetry.Fault {
	var faults []telemetry.Fault
	first := map[string]int{}
	for i, c := range recipients {
		at := fmt.Sprintf("[%d]", i)
		faults = append(faults, telemetry.Under(at, c.Validate())...)
		if j, ok := first[c.Name]; ok && c.Name != "" {
			faults = append(faults, telemetry.Faultf(at+".name", "recipient %q is there twice, first as number %d", c.Name, j))
			continue
		}
		first[c.Name] = i
	}
	return faults
}
