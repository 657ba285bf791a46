package modbus

import (
	"fmt"
	"net"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Defaults and bounds of a Config.
const (
	DefaultInterval = 10 * time.Second
	DefaultTimeout  = 2 * time.Second
	DefaultPort     = "502" // IANA: mbap

	MinInterval = 10 * time.Millisecond
	MaxInterval = 24 * time.Hour
	MinTimeout  = 10 * time.Millisecond
	MaxTimeout  = time.Minute
	MaxUnits    = 256
)

// Config is one line with its units.
type Config struct {
	Name     string             `yaml:"name"`     // source is modbus.<name>; also the device of the line's own link readings
	Connect  string             `yaml:"connect"`  // tcp://host:port, port 502 when left out
	Interval telemetry.Duration `yaml:"interval"` // between polls of a unit, 10ms..24h; default 10s
	Timeout  telemetry.Duration `yaml:"timeout"`  // for one answer, 10ms..1m; default 2s
	Units    []Unit             `yaml:"units"`    // 1..256
}

// A Unit is one instrument on the line.
type Unit struct {
	ID       int                `yaml:"id"`       // 1..247; on TCP also 0 and 255; more where the profile says so
	Device   string             `yaml:"device"`   // whose readings these are
	Profile  string             `yaml:"profile"`  // what its registers mean
	Interval telemetry.Duration `yaml:"interval"` // default: the line's
	Options  map[string]float64 `yaml:"options"`  // settings of the profile, by name
	Omit     []string           `yaml:"omit"`     // kind.value that this instrument lacks, such as a sensor not fitted
}

// Validate returns everything wrong with the line; a fault's path begins at
// the line. The profiles are those that its units may name.
func (c *Config) Validate(profiles *Profiles) []telemetry.Fault {
	var faults []telemetry.Fault
	if !telemetry.ValidName(c.Name) {
		faults = append(faults, telemetry.Faultf("name", "line name %q is not a name of letters, digits and ._:- that begins with a letter or digit", c.Name))
	}
	if _, err := tcpAddress(c.Connect); err != nil {
		faults = append(faults, telemetry.Faultf("connect", "%v", err))
	}
	faults = append(faults, durationFault("interval", c.Interval, MinInterval, MaxInterval)...)
	faults = append(faults, durationFault("timeout", c.Timeout, MinTimeout, MaxTimeout)...)
	if len(c.Units) == 0 || len(c.Units) > MaxUnits {
		faults = append(faults, telemetry.Faultf("units", "%d units on the line, expected 1..%d", len(c.Units), MaxUnits))
	}
	for i := range c.Units {
		faults = append(faults, telemetry.Under(fmt.Sprintf("units[%d]", i), c.Units[i].validate(c.Name, profiles))...)
	}
	return append(faults, c.collisions(profiles)...)
}

func durationFault(path string, d telemetry.Duration, least, most time.Duration) []telemetry.Fault {
	if d == 0 || d.Std() >= least && d.Std() <= most {
		return nil
	}
	return []telemetry.Fault{telemetry.Faultf(path, "%s %s is not in %s..%s", path, d, telemetry.Duration(least), telemetry.Duration(most))}
}

func (u *Unit) validate(line string, profiles *Profiles) []telemetry.Fault {
	var faults []telemetry.Fault
	switch {
	case !telemetry.ValidName(u.Device):
		faults = append(faults, telemetry.Faultf("device", "device %q is not a name of letters, digits and ._:- that begins with a letter or digit", u.Device))
	case u.Device == line:
		faults = append(faults, telemetry.Faultf("device", "device %q has the name of the line; their link readings would mix", u.Device))
	}
	faults = append(faults, durationFault("interval", u.Interval, MinInterval, MaxInterval)...)
	profile := profiles.Profile(u.Profile)
	if profile == nil {
		faults = append(faults, telemetry.Faultf("profile", "profile %q is not known; known are %s", u.Profile, strings.Join(profiles.Names(), ", ")))
	}
	if !unitAllowed(u.ID, profile) {
		faults = append(faults, telemetry.Faultf("id", "unit id %d is not in 1..247 (0 and 255 are accepted on TCP)", u.ID))
	}
	if profile == nil {
		return faults
	}
	return append(faults, u.validateChoices(profile)...)
}

// unitAllowed: MODBUS over serial line V1.02, 2.2: 1..247, 248..255 reserved.
// MODBUS on TCP/IP V1.0b, 4.4.2.2: 255 (or 0) for a device addressed by its IP.
func unitAllowed(id int, profile *Profile) bool {
	if id >= 0 && id <= 247 || id == 255 {
		return true
	}
	if profile != nil {
		for _, extra := range profile.UnitIDs {
			if extra == id {
				return true
			}
		}
	}
	return false
}

func (u *Unit) validateChoices(profile *Profile) []telemetry.Fault {
	var faults []telemetry.Fault
	names := make([]string, 0, len(u.Options))
	for name := range u.Options {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		option := profile.option(name)
		switch {
		case option == nil && len(profile.Options) == 0:
			faults = append(faults, telemetry.Faultf("options."+name, "profile %q has no options", profile.Name))
		case option == nil:
			faults = append(faults, telemetry.Faultf("options."+name, "profile %q has no option %q; it has %s", profile.Name, name, profile.optionNames()))
		case !option.allows(u.Options[name]):
			faults = append(faults, telemetry.Faultf("options."+name, "%s %v is not one of %s", name, u.Options[name], numbers(option.Choices)))
		}
	}
	for i, value := range u.Omit {
		if !profile.has(value) {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("omit[%d]", i), "profile %q has no value %q; it has %s", profile.Name, value, strings.Join(profile.Values(), ", ")))
		}
	}
	if len(faults) == 0 && len(u.Omit) >= len(profile.Registers) && len(u.fields(profile)) == 0 {
		faults = append(faults, telemetry.Faultf("omit", "every value of profile %q is omitted: nothing is left to read", profile.Name))
	}
	return faults
}

// collisions finds two units of the line that would write the same series.
func (c *Config) collisions(profiles *Profiles) []telemetry.Fault {
	var faults []telemetry.Fault
	type series struct{ device, value string }
	owner := map[series]int{}
	for i := range c.Units {
		u := &c.Units[i]
		profile := profiles.Profile(u.Profile)
		if profile == nil {
			continue
		}
		for _, f := range u.fields(profile) {
			at := series{u.Device, f.register.Value}
			if first, taken := owner[at]; taken {
				faults = append(faults, telemetry.Faultf(fmt.Sprintf("units[%d]", i), "%s of device %q is read by units[%d] already", f.register.Value, u.Device, first))
				break
			}
			owner[at] = i
		}
	}
	return faults
}

// tcpAddress returns host:port of a tcp:// connect string.
func tcpAddress(connect string) (string, error) {
	u, err := url.Parse(connect)
	if err != nil {
		return "", fmt.Errorf("connect %q is not like tcp://host:502", connect)
	}
	switch u.Scheme {
	case "tcp":
	case "serial":
		return "", fmt.Errorf("connect %q: Modbus on serial lines is not built into this release; expected tcp://host:502", connect)
	case "rtu+tcp":
		return "", fmt.Errorf("connect %q: Modbus RTU over TCP is not built into this release; expected tcp://host:502", connect)
	case "listen":
		return "", fmt.Errorf("connect %q: devices that dial in are not built into this release; expected tcp://host:502", connect)
	default:
		return "", fmt.Errorf("connect %q is not like tcp://host:502", connect)
	}
	if u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("connect %q is not like tcp://host:502", connect)
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("connect %q: port %s is not in 1..65535", connect, port)
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}
