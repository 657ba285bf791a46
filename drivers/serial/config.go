package serial

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

// Format is what the lines of an instrument look like.
type Format string

// The formats.
const (
	NMEA       Format = "nmea"        // NMEA 0183 instruments and GPS receivers
	VaisalaWXT Format = "vaisala-wxt" // Vaisala WXT500 series, ASCII
	SDI12      Format = "sdi-12"      // sensors behind an SDI-12 bridge
	Pattern    Format = "pattern"     // a regular expression or columns
)

// Checksum says whether sentences without a checksum are taken.
type Checksum string

// What is asked of a checksum. A wrong one is always refused.
const (
	Required Checksum = "required"
	Optional Checksum = "optional"
)

// Defaults and bounds of a Config.
const (
	DefaultInterval = 10 * time.Second // of polls
	DefaultSDI12    = time.Minute      // of measurements of an SDI-12 bridge
	DefaultTimeout  = 2 * time.Second
	leastSilence    = time.Minute // before a free-running instrument counts as silent

	MinInterval = 100 * time.Millisecond
	MaxInterval = 24 * time.Hour
	MinTimeout  = 10 * time.Millisecond
	MaxTimeout  = time.Minute
	MinSilence  = time.Second
	MaxPoll     = 256 // bytes
	MaxValues   = 256
	MaxSensors  = 62 // addresses of one SDI-12 line
)

// Config is one serial line with an instrument, or with an SDI-12 bridge.
type Config struct {
	Name    string `yaml:"name"`    // of the source, serial.<name>, and the device of the line's own link readings
	Connect string `yaml:"connect"` // serial:///dev/... or tcp://host:port; see package link
	Device  string `yaml:"device"`  // whose readings these are; of sdi-12: each sensor's
	Format  Format `yaml:"format"`  // nmea, vaisala-wxt, sdi-12 or pattern

	// Poll is sent every Interval, as in "0R0!\r\n". Without it the instrument
	// is free-running: it sends of its own.
	Poll string `yaml:"poll"`
	// Interval is the time between polls, default 10s, and between measurements of
	// sdi-12, default 1m. Of a free-running instrument it is the time over which
	// lines are gathered into one reading with the newest values; default 0:
	// every line is a reading.
	Interval telemetry.Duration `yaml:"interval"`
	Timeout  telemetry.Duration `yaml:"timeout"` // for an answer, 10ms..1m; default 2s
	// Silence is after how long without a right line the instrument's link is
	// down. Default: three intervals and the timeout; free-running 1m at least.
	Silence telemetry.Duration `yaml:"silence"`

	// Terminator is the character that ends a line: default "\n", also after
	// "\r"; "\r" where there is no "\n".
	Terminator string `yaml:"terminator"`

	Vessel   bool     `yaml:"vessel"`   // nmea: the instrument moves, so that wind angles are no directions
	Checksum Checksum `yaml:"checksum"` // nmea: required (default) or optional

	Match     string `yaml:"match"`     // pattern: regular expression with named groups (Go's syntax)
	Separator string `yaml:"separator"` // pattern: between columns, instead of match

	// Values are what pattern reads, and what nmea (XDR) and vaisala-wxt read
	// besides, or instead of, what they know.
	Values []Value `yaml:"values"`

	Sensors []Sensor `yaml:"sensors"` // sdi-12: 1..62
	// Suffix is sent after each SDI-12 command, where the bridge wants it: "\r\n".
	Suffix string `yaml:"suffix"`
}

// A Sensor is a measurement of one SDI-12 sensor.
type Sensor struct {
	Address string `yaml:"address"` // one letter or digit
	Device  string `yaml:"device"`  // whose readings these are
	// Command is M, M1..M9, C, C1..C9 or R0..R9, each also with C for a CRC, as
	// in MC or CC1; default MC. Those of C measure at the same time.
	Command string  `yaml:"command"`
	Values  []Value `yaml:"values"` // from: the position, from 1
}

// Validate returns everything that is wrong with the line.
func (c *Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if !telemetry.ValidName(c.Name) {
		fault("name", "line name %q is not a name of letters, digits and ._:- that begins with a letter or digit", c.Name)
	}
	target, err := link.Parse(c.Connect)
	switch {
	case err != nil:
		fault("connect", "%v", err)
	case target.Scheme != link.Serial && target.Scheme != link.TCP:
		fault("connect", "connect %q: want serial:///dev/name or tcp://host:port", c.Connect)
	}
	faults = append(faults, duration("interval", c.Interval, MinInterval, MaxInterval)...)
	faults = append(faults, duration("timeout", c.Timeout, MinTimeout, MaxTimeout)...)
	faults = append(faults, duration("silence", c.Silence, MinSilence, MaxInterval)...)
	if len(strings.TrimPrefix(c.Terminator, "\r\n")) > 1 {
		fault("terminator", "terminator %q is not one character; write \"\\r\" in double quotes", c.Terminator)
	}
	for _, s := range []struct{ key, text string }{{"poll", c.Poll}, {"suffix", c.Suffix}} {
		if len(s.text) > MaxPoll || strings.Contains(s.text, `\`) {
			fault(s.key, "%s %q has a backslash or is longer than %d bytes; in double quotes \"\\r\\n\" becomes what it means", s.key, s.text, MaxPoll)
		}
	}
	faults = append(faults, c.foreign()...)
	switch c.Format {
	case SDI12:
		return append(faults, c.validateSensors()...)
	case NMEA, VaisalaWXT:
		faults = append(faults, validateValues(c.Values, true)...)
	case Pattern:
		faults = append(faults, c.validatePattern()...)
	default:
		fault("format", "format %q is not one of %s, %s, %s, %s", c.Format, NMEA, VaisalaWXT, SDI12, Pattern)
	}
	if len(c.Values) > MaxValues {
		fault("values", "%d values, at most %d", len(c.Values), MaxValues)
	}
	return append(faults, validateDevice(c.Device, c.Name)...)
}

func duration(path string, d telemetry.Duration, least, most time.Duration) []telemetry.Fault {
	if d == 0 || d.Std() >= least && d.Std() <= most {
		return nil
	}
	return []telemetry.Fault{telemetry.Faultf(path, "%s %s is not in %s..%s", path, d, telemetry.Duration(least), telemetry.Duration(most))}
}

func validateDevice(device, line string) []telemetry.Fault {
	switch {
	case !telemetry.ValidName(device):
		return []telemetry.Fault{telemetry.Faultf("device", "device %q is not a name of letters, digits and ._:- that begins with a letter or digit", device)}
	case device == line:
		return []telemetry.Fault{telemetry.Faultf("device", "device %q has the name of its line: their link readings could not be told apart", device)}
	}
	return nil
}

// foreign reports keys of other formats.
func (c *Config) foreign() []telemetry.Fault {
	var faults []telemetry.Fault
	for _, k := range []struct {
		key   string
		given bool
		of    []Format
	}{
		{"poll", c.Poll != "", []Format{NMEA, VaisalaWXT, Pattern}},
		{"device", c.Device != "", []Format{NMEA, VaisalaWXT, Pattern}},
		{"values", len(c.Values) > 0, []Format{NMEA, VaisalaWXT, Pattern}},
		{"silence", c.Silence != 0, []Format{NMEA, VaisalaWXT, Pattern}},
		{"vessel", c.Vessel, []Format{NMEA}},
		{"checksum", c.Checksum != "", []Format{NMEA}},
		{"match", c.Match != "", []Format{Pattern}},
		{"separator", c.Separator != "", []Format{Pattern}},
		{"sensors", len(c.Sensors) > 0, []Format{SDI12}},
		{"suffix", c.Suffix != "", []Format{SDI12}},
	} {
		fits := false
		for _, f := range k.of {
			fits = fits || f == c.Format
		}
		if k.given && !fits {
			faults = append(faults, telemetry.Faultf(k.key, "format %q has no %s", c.Format, k.key))
		}
	}
	if c.Checksum != "" && c.Checksum != Required && c.Checksum != Optional {
		faults = append(faults, telemetry.Faultf("checksum", "checksum %q is not %s or %s", c.Checksum, Required, Optional))
	}
	return faults
}

func (c *Config) validatePattern() []telemetry.Fault {
	var faults []telemetry.Fault
	if len(c.Values) == 0 {
		faults = append(faults, telemetry.Faultf("values", "want the values of the line, as in {from: mm, to: river.level_m}"))
	}
	faults = append(faults, validateValues(c.Values, false)...)
	if c.Match == "" == (c.Separator == "") {
		return append(faults, telemetry.Faultf("match", "want either match, a regular expression with groups like (?P<mm>[0-9]+), or separator"))
	}
	if c.Separator != "" {
		return append(faults, positions(c.Values, maxColumns)...)
	}
	re, err := regexp.Compile(c.Match)
	if err != nil {
		return append(faults, telemetry.Faultf("match", "%v", err))
	}
	for i, v := range c.Values {
		if v.From != "" && re.SubexpIndex(v.From) < 0 {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("values[%d].from", i), "match has no group (?P<%s>...)", v.From))
		}
	}
	return faults
}

// positions reports fields that are no position in 1..most.
func positions(values []Value, most int) []telemetry.Fault {
	var faults []telemetry.Fault
	for i, v := range values {
		if n, err := strconv.Atoi(v.From); v.From != "" && (err != nil || n < 1 || n > most) {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("values[%d].from", i), "from %q is not a position in 1..%d", v.From, most))
		}
	}
	return faults
}

func (c *Config) validateSensors() []telemetry.Fault {
	var faults []telemetry.Fault
	if len(c.Sensors) == 0 || len(c.Sensors) > MaxSensors {
		faults = append(faults, telemetry.Faultf("sensors", "%d sensors on the bridge, expected 1..%d", len(c.Sensors), MaxSensors))
	}
	values := map[string]int{}
	measured := map[string]int{}
	for i := range c.Sensors {
		s, at := &c.Sensors[i], fmt.Sprintf("sensors[%d]", i)
		faults = append(faults, telemetry.Under(at, s.validate(c.Name))...)
		if first, there := measured[s.Address+s.Command]; there {
			faults = append(faults, telemetry.Faultf(at, "sensor %q is asked %q by sensors[%d] already", s.Address, s.command(), first))
		} else {
			measured[s.Address+s.Command] = i
		}
		for _, v := range s.Values {
			if first, there := values[s.Device+" "+v.To]; there && first != i {
				faults = append(faults, telemetry.Faultf(at+".values", "%s of device %q is that of sensors[%d] already", v.To, s.Device, first))
			}
			values[s.Device+" "+v.To] = i
		}
	}
	return faults
}

// sdiCommand is what starts a measurement (SDI-12 V1.4, 4.4).
var sdiCommand = regexp.MustCompile(`^((M|C)C?[1-9]?|RC?[0-9])$`)

// maxSDIValues is how many values a measurement can have (SDI-12 V1.4, 4.4.6:
// two digits).
const maxSDIValues = 99

func (s *Sensor) validate(line string) []telemetry.Fault {
	var faults []telemetry.Fault
	if len(s.Address) != 1 || !isAddress(s.Address[0]) {
		faults = append(faults, telemetry.Faultf("address", "address %q is not one letter or digit", s.Address))
	}
	if !sdiCommand.MatchString(s.command()) {
		faults = append(faults, telemetry.Faultf("command", "command %q is not M, M1..M9, C, C1..C9, R0..R9 or one with a CRC, as in MC or RC0", s.Command))
	}
	if len(s.Values) == 0 {
		faults = append(faults, telemetry.Faultf("values", "want the values of the sensor, as in {from: 1, to: river.level_m}"))
	}
	faults = append(faults, validateValues(s.Values, false)...)
	faults = append(faults, positions(s.Values, maxSDIValues)...)
	return append(faults, validateDevice(s.Device, line)...)
}

func (s *Sensor) command() string {
	if s.Command == "" {
		return "MC"
	}
	return s.Command
}

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	set := func(d *telemetry.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = telemetry.Duration(otherwise)
		}
	}
	set(&c.Timeout, DefaultTimeout)
	switch {
	case c.Format == SDI12:
		set(&c.Interval, DefaultSDI12)
	case c.Poll != "":
		set(&c.Interval, DefaultInterval)
		set(&c.Silence, 3*c.Interval.Std()+c.Timeout.Std())
	default:
		set(&c.Silence, max(leastSilence, 3*c.Interval.Std()))
	}
	return c
}

// end is the byte that ends a line.
func (c *Config) end() byte {
	if c.Terminator == "" || c.Terminator == "\r\n" {
		return '\n'
	}
	return c.Terminator[0]
}
