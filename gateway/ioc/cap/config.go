package cap

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"haidang/gateway/telemetry"
)

// DefaultRadiusKM is the circle around a device whose facts say nothing else.
const DefaultRadiusKM = 5

// Config is how the gateway speaks CAP, whoever it speaks to.
type Config struct {
	// Sender names this gateway worldwide, as in haidang@ioc.hue.gov.vn. Without
	// it every message has the status Test.
	Sender     string         `yaml:"sender"`
	SenderName telemetry.Text `yaml:"sender_name"` // the office that warns, for people
	Web        string         `yaml:"web"`         // http or https; where people read more
	Contact    string         `yaml:"contact"`     // whom they call
	// Status is actual, test, system or draft; default actual where there is a
	// sender. Warnings of a drill have the status Exercise in any case.
	Status string `yaml:"status"`
	// Scope is public (default), restricted (then restriction says to whom) or
	// private (then addresses says to whom).
	Scope       string   `yaml:"scope"`
	Restriction string   `yaml:"restriction"` // of scope restricted: to whom, in words
	Addresses   []string `yaml:"addresses"`   // of scope private: to whom
	// RadiusKM is the circle around a device, 0.1 to 500 km; its fact radius_km
	// goes first. Default DefaultRadiusKM.
	RadiusKM float64 `yaml:"radius_km"`
	// Geocodes are names of geocodes and the facts of devices that hold them, as
	// in {commune: commune_code}.
	Geocodes map[string]string `yaml:"geocodes"`
	Events   []Event           `yaml:"events"` // before the built-in ones
	Feed     FeedConfig        `yaml:"feed"`
}

// FeedConfig is which warnings are in the Atom feed, and for whom.
type FeedConfig struct {
	Public bool   `yaml:"public"` // served to everybody, without an account
	URL    string `yaml:"url"`    // the address under which the world sees /cap/, as in https://canhbao.hue.gov.vn/cap/
	// MinSeverity leaves out warnings that never were as grave; default moderate.
	MinSeverity telemetry.Severity `yaml:"min_severity"`
	Exercise    bool               `yaml:"exercise"` // show those of drills, too
}

// Validate reports what is wrong.
func (c *Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if c.Sender != "" && !validName(c.Sender) {
		fault("sender", "sender %q has a space, a comma, < or &; expected a name like haidang@ioc.hue.gov.vn", c.Sender)
	}
	if c.Status != "" && !slices.Contains(statuses(), c.Status) {
		fault("status", "status %q is not one of %s", c.Status, strings.Join(statuses(), ", "))
	}
	if c.Status == "actual" && c.Sender == "" {
		fault("sender", "messages with the status actual need a sender, a name like haidang@ioc.hue.gov.vn")
	}
	switch c.Scope {
	case "", "public":
	case "restricted":
		if c.Restriction == "" {
			fault("restriction", "scope restricted needs restriction: who may read the messages")
		}
	case "private":
		if len(c.Addresses) == 0 {
			fault("addresses", "scope private needs addresses: whom the messages are for")
		}
	default:
		fault("scope", "scope %q is not one of public, restricted, private", c.Scope)
	}
	for i, address := range c.Addresses {
		if address == "" || strings.ContainsAny(address, "\"\r\n") {
			fault(fmt.Sprintf("addresses[%d]", i), "address %q is empty or has a quotation mark", address)
		}
	}
	if c.RadiusKM != 0 && !(c.RadiusKM >= 0.1 && c.RadiusKM <= 500) {
		fault("radius_km", "radius %v km is not in 0.1..500", c.RadiusKM)
	}
	for _, link := range [...]struct{ path, url string }{{"web", c.Web}, {"feed.url", c.Feed.URL}} {
		if u, err := url.Parse(link.url); link.url != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			fault(link.path, "%q is not an address like https://host/path", link.url)
		}
	}
	for i := range c.Events {
		faults = append(faults, telemetry.Under(fmt.Sprintf("events[%d]", i), c.Events[i].validate())...)
	}
	return faults
}

func statuses() []string { return []string{"actual", "test", "system", "draft"} }

// status is the status of what is no drill.
func (c *Config) status() string {
	switch {
	case c.Status != "":
		return title(c.Status)
	case c.Sender == "":
		return "Test"
	}
	return "Actual"
}

// title writes a word of the configuration as CAP has it.
func title(word string) string { return strings.ToUpper(word[:1]) + word[1:] }
