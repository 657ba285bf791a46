package telemetry

import (
	"math"
	"strconv"
	"time"
)

// Kinds with a meaning of their own.
const (
	KindLink     = "link"     // value up: 1 when the device or source is connected, 0 when not
	KindPosition = "position" // where a vessel is
	KindVessel   = "vessel"   // what a vessel says of itself
	KindGateway  = "gateway"  // what a gateway that pushes to this one says of itself

	KindStart   = "_start"   // the gateway started; value down_s: how long it was down
	KindClock   = "_clock"   // the wall clock jumped; value jump_s: by how much
	KindTick    = "_tick"    // nothing else was received for a while
	KindControl = "_control" // rules, devices or kinds changed; see package rules
	KindUplink  = "_uplink"  // how far a gateway has pushed its readings; see package uplink
)

// Limits of a reading. A reading beyond them is set aside.
const (
	MaxTags      = 8           // extra tags of a reading
	MaxValues    = 1024        // values of a reading
	MaxTextBytes = 16 << 10    // bytes of a word
	MaxInteger   = 1 << 53     // integers beyond it lose digits as float64
	MaxDelay     = time.Second // a delay up to this is not stored
)

// A Reading is what one device reported at one instant.
type Reading struct {
	Device string // what is observed; see ValidName
	Kind   string // what was observed: the InfluxDB measurement
	Site   string // the device's site; the gateway fills it from the registry

	// Time is the reading's own time (event time). Zero means that the device
	// gave none; the gateway then stamps the time of receipt.
	Time time.Time

	// Delay is the time of receipt minus Time where that is over one second,
	// else 0. The gateway fills it; it is stored as delay_s.
	Delay time.Duration

	Quality Quality // the worst of the reading
	Values  []Value
	Tags    []Tag // up to MaxTags extra tags, sorted by key

	// Source is what delivered the reading, such as broker or modbus.line-1. The
	// gateway fills it; the log keeps it beside the lines, the store does not.
	Source string
}

// A Value is a named number or word of a Reading.
type Value struct {
	Name    string  // with its unit: level_m
	Number  float64 // finite; meaningful when Text is empty
	Text    string  // a word; stored as the string field <name>_text
	Quality Quality // stored as <name>_quality where it is not good
}

// A Tag is an extra dimension of a reading's series.
type Tag struct{ Key, Value string }

// Number returns the number called name and whether the reading has it.
func (r *Reading) Number(name string) (float64, bool) {
	for i := range r.Values {
		if v := &r.Values[i]; v.Name == name && v.Text == "" {
			return v.Number, true
		}
	}
	return 0, false
}

// Text returns the word called name, or "" when the reading has none.
func (r *Reading) Text(name string) string {
	for i := range r.Values {
		if r.Values[i].Name == name {
			return r.Values[i].Text
		}
	}
	return ""
}

// Control reports whether the reading is a record of the log itself and not
// of a device.
func (r *Reading) Control() bool { return len(r.Kind) > 0 && r.Kind[0] == '_' }

// Finite reports whether f can be a value.
func Finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// Link returns the reading that says that a device or a source is connected
// (up) or not. The cause of a broken link is kept as the word "cause".
func Link(device string, up bool, cause error) Reading {
	r := Reading{Device: device, Kind: KindLink, Values: []Value{{Name: "up"}}}
	if up {
		r.Values[0].Number = 1
	} else if cause != nil {
		r.Values = append(r.Values, Value{Name: "cause", Text: cut(cause.Error(), 256)})
	}
	return r
}

// UnixTime reads a Unix time whose unit shows in its size: below 1e11 seconds,
// below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds. Times
// before 1970 are read as seconds.
func UnixTime(t int64) time.Time {
	switch {
	case t < 1e11:
		return time.Unix(t, 0)
	case t < 1e14:
		return time.UnixMilli(t)
	case t < 1e17:
		return time.UnixMicro(t)
	}
	return time.Unix(0, t)
}

// ParseTime reads a time as devices write it: RFC 3339 or a Unix time as
// UnixTime reads it, in seconds also with decimals.
func ParseTime(s string) (time.Time, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return UnixTime(n), true
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && Finite(f) {
		return UnixFloat(f), true
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}

// UnixFloat is UnixTime for a number with decimals.
func UnixFloat(f float64) time.Time {
	if math.Abs(f) < 1e11 {
		s, frac := math.Modf(f)
		return time.Unix(int64(s), int64(math.Round(frac*1e6))*1e3)
	}
	if math.Abs(f) >= math.MaxInt64 {
		return time.Time{}.Add(-time.Hour) // far out of range: judged as a wrong clock
	}
	return UnixTime(int64(f))
}

// cut shortens s to at most n bytes without breaking a UTF-8 sequence.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
