package modbus

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"haidang/drivers/link"
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
	MaxPause    = time.Second
	MaxUnits    = 256
	MaxModems   = 1000
)

// Config is one line with its units.
type Config struct {
	Name     string             `yaml:"name"`     // source is modbus.<name>; also the device of the line's own link readings
	Connect  string             `yaml:"connect"`  // tcp://host:502, rtu+tcp://host:port, serial:///dev/name?baud=9600, listen://:port
	Interval telemetry.Duration `yaml:"interval"` // between polls of a unit, 10ms..24h; default 10s
	Timeout  telemetry.Duration `yaml:"timeout"`  // until an answer begins, 10ms..1m; default 2s
	Pause    telemetry.Duration `yaml:"pause"`    // RTU: silence before a request, up to 1s; default 3.5 characters, 5ms over TCP
	Echo     bool               `yaml:"echo"`     // RTU: the adapter gives back what it sends
	Units    []Unit             `yaml:"units"`    // 1..256; of listen:// they are under modems
	Modems   []Modem            `yaml:"modems"`   // who dials in to listen://, 1..1000
}

// A Modem is one that dials in, with the units behind it.
type Modem struct {
	Name         string `yaml:"name"`         // the device of its link readings
	Registration Packet `yaml:"registration"` // what it sends first; may be left out where there is one modem only
	Heartbeat    Packet `yaml:"heartbeat"`    // what it sends now and then; text or hex
	Units        []Unit `yaml:"units"`        // 1..256
}

// A Unit is one instrument on the line.
type Unit struct {
	ID       int                `yaml:"id"`       // 1..247; on TCP also 0 and 255; more where the profile says so
	Device   string             `yaml:"device"`   // whose readings these are
	Profile  string             `yaml:"profile"`  // what its registers mean
	Interval telemetry.Duration `yaml:"interval"` // default: the line's
	Options  map[string]float64 `yaml:"options"`  // settings of the profile, by name
	Omit     []string           `yaml:"omit"`     // kind.value, or status.name, that this instrument lacks, such as a sensor not fitted
	Writes   []string           `yaml:"writes"`   // what may be written by hand, of the profile's writes; none by default
}

// Validate returns everything wrong with the line; a fault's path begins at
// the line. The profiles are those that its units may name.
func (c *Config) Validate(profiles *Profiles) []telemetry.Fault {
	var faults []telemetry.Fault
	if !telemetry.ValidName(c.Name) {
		faults = append(faults, telemetry.Faultf("name", "line name %q is not a name of letters, digits and ._:- that begins with a letter or digit", c.Name))
	}
	e, err := parseEndpoint(c.Connect)
	if err != nil {
		faults = append(faults, telemetry.Faultf("connect", "%v", err))
	}
	faults = append(faults, durationFault("interval", c.Interval, MinInterval, MaxInterval)...)
	faults = append(faults, durationFault("timeout", c.Timeout, MinTimeout, MaxTimeout)...)
	faults = append(faults, durationFault("pause", c.Pause, 0, MaxPause)...)
	if err == nil && !e.rtu && (c.Pause != 0 || c.Echo) {
		faults = append(faults, telemetry.Faultf("connect", "pause and echo are for RTU; %s is Modbus TCP", c.Connect))
	}
	if strings.HasPrefix(strings.ToLower(c.Connect), string(link.Listen)) {
		return append(faults, c.validateModems(profiles)...)
	}
	if len(c.Modems) > 0 {
		faults = append(faults, telemetry.Faultf("modems", "modems dial in to listen://:port, not to %s", c.Connect))
	}
	faults = append(faults, validateUnits(c.Units, c.Name, profiles, e.serial())...)
	return append(faults, c.collisions(profiles)...)
}

func validateUnits(units []Unit, line string, profiles *Profiles, serial bool) []telemetry.Fault {
	var faults []telemetry.Fault
	if len(units) == 0 || len(units) > MaxUnits {
		faults = append(faults, telemetry.Faultf("units", "%d units on the line, expected 1..%d", len(units), MaxUnits))
	}
	for i := range units {
		faults = append(faults, telemetry.Under(fmt.Sprintf("units[%d]", i), units[i].validate(line, profiles, serial))...)
	}
	return faults
}

func (c *Config) validateModems(profiles *Profiles) []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if len(c.Units) > 0 {
		fault("units", "units of a line that modems dial in to stand under modems")
	}
	if len(c.Modems) == 0 || len(c.Modems) > MaxModems {
		fault("modems", "%d modems, expected 1..%d: who dials in, and the units behind it", len(c.Modems), MaxModems)
	}
	names := map[string]bool{c.Name: true}
	packets := map[Packet]bool{}
	for i := range c.Modems {
		m := &c.Modems[i]
		at := fmt.Sprintf("modems[%d]", i)
		if !telemetry.ValidName(m.Name) {
			fault(at+".name", "modem name %q is not a name of letters, digits and ._:- that begins with a letter or digit", m.Name)
		} else if names[m.Name] {
			fault(at+".name", "name %q is that of the line or of another modem", m.Name)
		}
		names[m.Name] = true
		switch {
		case m.Registration.empty() && len(c.Modems) > 1:
			fault(at+".registration", "registration is missing: it tells this modem from the others")
		case !m.Registration.empty():
			faults = append(faults, telemetry.Under(at+".registration", m.Registration.validate(true))...)
			if packets[m.Registration] {
				fault(at+".registration", "another modem has the same registration")
			}
			packets[m.Registration] = true
		}
		if !m.Heartbeat.empty() {
			faults = append(faults, telemetry.Under(at+".heartbeat", m.Heartbeat.validate(false))...)
		}
		faults = append(faults, telemetry.Under(at, validateUnits(m.Units, m.Name, profiles, false))...)
	}
	if len(faults) > 0 {
		return faults
	}
	behind := map[string]string{} // modem by device
	for i := range c.Modems {
		for j := range c.Modems[i].Units {
			device, at := c.Modems[i].Units[j].Device, fmt.Sprintf("modems[%d].units[%d].device", i, j)
			if first, ok := behind[device]; ok && first != c.Modems[i].Name {
				fault(at, "device %q is behind modem %q already; its link readings would mix", device, first)
			}
			if behind[device] = c.Modems[i].Name; names[device] {
				fault(at, "device %q has the name of the line or of a modem; their link readings would mix", device)
			}
		}
	}
	return append(faults, c.collisions(profiles)...)
}

func durationFault(path string, d telemetry.Duration, least, most time.Duration) []telemetry.Fault {
	if d == 0 || d.Std() >= least && d.Std() <= most {
		return nil
	}
	return []telemetry.Fault{telemetry.Faultf(path, "%s %s is not in %s..%s", path, d, telemetry.Duration(least), telemetry.Duration(most))}
}

func (u *Unit) validate(line string, profiles *Profiles, serial bool) []telemetry.Fault {
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
	if !unitAllowed(u.ID, profile, serial) {
		faults = append(faults, telemetry.Faultf("id", "unit id %d is not in 1..247 (0 and 255 are accepted on TCP)", u.ID))
	}
	if profile == nil {
		return faults
	}
	return append(faults, u.validateChoices(profile)...)
}

// unitAllowed: MODBUS over serial line V1.02, 2.2: 1..247, 248..255 reserved.
// MODBUS on TCP/IP V1.0b, 4.4.2.2: 255 (or 0) for a device addressed by its IP.
func unitAllowed(id int, profile *Profile, serial bool) bool {
	if id >= 1 && id <= 247 || !serial && (id == 0 || id == 255) {
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
		if !profile.names(value) {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("omit[%d]", i), "profile %q has no value %q; it has %s", profile.Name, value, strings.Join(profile.Values(), ", ")))
		}
	}
	for i, name := range u.Writes {
		if profile.write(name) == nil {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("writes[%d]", i), "profile %q has no write %q; it has %s", profile.Name, name, profile.writeNames()))
		}
	}
	if len(faults) == 0 && len(u.Omit) >= len(profile.Registers) && len(u.values(profile)) == 0 {
		faults = append(faults, telemetry.Faultf("omit", "every value of profile %q is omitted: nothing is left to read", profile.Name))
	}
	return faults
}

// values are the fields that are no statuses.
func (u *Unit) values(p *Profile) []field {
	return slices.DeleteFunc(u.fields(p), func(f field) bool { return f.status != nil })
}

// collisions finds two units of the line that would write the same series.
func (c *Config) collisions(profiles *Profiles) []telemetry.Fault {
	var faults []telemetry.Fault
	type series struct{ device, value string }
	owner := map[series]string{}
	look := func(at string, u *Unit) {
		profile := profiles.Profile(u.Profile)
		if profile == nil {
			return
		}
		for _, f := range u.values(profile) {
			s := series{u.Device, f.register.Value}
			if first, taken := owner[s]; taken {
				faults = append(faults, telemetry.Faultf(at, "%s of device %q is read by %s already", f.register.Value, u.Device, first))
				return
			}
			owner[s] = at
		}
	}
	for i := range c.Units {
		look(fmt.Sprintf("units[%d]", i), &c.Units[i])
	}
	for i := range c.Modems {
		for j := range c.Modems[i].Units {
			look(fmt.Sprintf("modems[%d].units[%d]", i, j), &c.Modems[i].Units[j])
		}
	}
	return faults
}
