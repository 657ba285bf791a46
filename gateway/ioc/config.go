package ioc

import (
	"fmt"
	"net/url"
	"time"

	"haidang/gateway/telemetry"
)

// DefaultTimeout bounds one attempt to deliver, from the dial to the status.
const DefaultTimeout = 10 * time.Second

// Bounds of the configured timeout.
const (
	minTimeout = time.Second
	maxTimeout = time.Minute
)

// Config is one recipient of warnings.
type Config struct {
	// Name is what rules write under "to", and the recipient in metrics.
	Name    string         `yaml:"name"`
	Webhook *WebhookConfig `yaml:"webhook"`
}

// WebhookConfig is where and how warnings are posted.
type WebhookConfig struct {
	URL     string             `yaml:"url"`     // http or https; a user and a password in it are sent as basic authentication
	Secret  string             `yaml:"secret"`  // key of X-Haidang-Signature; empty: not signed
	Timeout telemetry.Duration `yaml:"timeout"` // of one attempt, 1s to 1m; default DefaultTimeout
}

// Validate reports what is wrong with this recipient.
func (c Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if !telemetry.ValidName(c.Name) {
		faults = append(faults, telemetry.Faultf("name", "recipient name %q is not a name of letters, digits and ._:- that begins with a letter or digit", c.Name))
	}
	if c.Webhook == nil {
		return append(faults, telemetry.Faultf("webhook", "recipient %q has no webhook: {url: ...}", c.Name))
	}
	return append(faults, telemetry.Under("webhook", c.Webhook.Validate())...)
}

// Validate reports what is wrong with the webhook.
func (c WebhookConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	// The address can carry a password or a token: messages do not repeat it.
	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		faults = append(faults, telemetry.Faultf("url", "url is missing; expected https://host/path"))
	case err != nil:
		faults = append(faults, telemetry.Faultf("url", "url cannot be read; expected https://host/path"))
	case u.Scheme != "http" && u.Scheme != "https":
		faults = append(faults, telemetry.Faultf("url", "url begins with %q; expected http:// or https://", u.Scheme))
	case u.Hostname() == "":
		faults = append(faults, telemetry.Faultf("url", "url has no host; expected https://host/path"))
	case u.Fragment != "":
		faults = append(faults, telemetry.Faultf("url", "url has a fragment (#%s), which is never sent", u.Fragment))
	}
	if t := c.Timeout.Std(); t != 0 && (t < minTimeout || t > maxTimeout) {
		faults = append(faults, telemetry.Faultf("timeout", "timeout %s is not in %s..%s", c.Timeout,
			telemetry.Duration(minTimeout), telemetry.Duration(maxTimeout)))
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
