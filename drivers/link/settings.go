package link

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a serial line's settings.
const (
	MinBaud     = 50
	MaxBaud     = 12_000_000 // what USB adapters reach at most
	DefaultBaud = 9600

	maxRTSDelay = time.Second
)

// Parity is how a serial line checks each character.
type Parity byte

// The parities. With mark and space the bit is always 1 or always 0.
const (
	NoParity    Parity = 'N'
	OddParity   Parity = 'O'
	EvenParity  Parity = 'E'
	MarkParity  Parity = 'M'
	SpaceParity Parity = 'S'
)

// Flow is who may halt the sending of a serial line.
type Flow string

// The kinds of flow control.
const (
	NoFlow      Flow = "none"
	RTSCTS      Flow = "rtscts"  // by wires
	XonXoff     Flow = "xonxoff" // by characters 0x11 and 0x13
	flowChoices      = "none, rtscts or xonxoff"
)

// SerialLine is how a serial line is set. The zero value is not valid; Parse
// makes it with the defaults 9600 baud, 8 data bits, no parity, 1 stop bit.
type SerialLine struct {
	Baud   int    // bits per second, MinBaud..MaxBaud
	Data   int    // data bits, 5..8
	Parity Parity // default NoParity
	Stop   int    // stop bits, 1 or 2
	Flow   Flow

	// RS485 has the driver raise RTS while it sends, as the line's transceiver
	// needs it where it does not turn round by itself (Linux TIOCSRS485).
	RS485 bool
	// RTSBefore and RTSAfter are how long RTS is held before the first and after
	// the last bit, in whole milliseconds up to 1 s; only with RS485.
	RTSBefore, RTSAfter time.Duration
	// RTSLow has RTS low while sending and high otherwise; only with RS485.
	RTSLow bool
}

// CharTime is how long one character takes on the wire: a start bit, the data
// bits, the parity bit where there is one, and the stop bits. Modbus RTU ends a
// frame by 3.5 of them (Modbus over serial line V1.02, 2.5.1.1).
func (s SerialLine) CharTime() time.Duration {
	bits := 1 + s.Data + s.Stop
	if s.Parity != NoParity {
		bits++
	}
	return time.Duration(bits) * time.Second / time.Duration(s.Baud)
}

// String writes the settings as in 9600 8N1.
func (s SerialLine) String() string {
	return fmt.Sprintf("%d %d%c%d", s.Baud, s.Data, s.Parity, s.Stop)
}

// query writes what differs from the defaults, as Parse reads it.
func (s SerialLine) query() string {
	var parts []string
	add := func(key, value string) { parts = append(parts, key+"="+value) }
	add("baud", strconv.Itoa(s.Baud))
	if s.Data != 8 {
		add("data", strconv.Itoa(s.Data))
	}
	if s.Parity != NoParity {
		add("parity", string(rune(s.Parity)))
	}
	if s.Stop != 1 {
		add("stop", strconv.Itoa(s.Stop))
	}
	if s.Flow != NoFlow {
		add("flow", string(s.Flow))
	}
	if s.RS485 {
		add("rs485", "on")
		if s.RTSBefore > 0 {
			add("rts_before", s.RTSBefore.String())
		}
		if s.RTSAfter > 0 {
			add("rts_after", s.RTSAfter.String())
		}
		if s.RTSLow {
			add("rts_active", "low")
		}
	}
	return strings.Join(parts, "&")
}

// parseSerial reads serial:///dev/name?key=value&... Its error names every
// parameter that is wrong.
func parseSerial(connect string) (Target, error) {
	u, err := url.Parse(connect)
	if err != nil {
		return Target{}, fmt.Errorf("connect %q is not a serial URL: %w", connect, err)
	}
	if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/" || u.Fragment != "" {
		return Target{}, fmt.Errorf("connect %q names no device: want serial:///dev/name?baud=9600, with three slashes", connect)
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Target{}, fmt.Errorf("connect %q: %w", connect, err)
	}
	s, faults := parseSettings(values)
	if len(faults) > 0 {
		return Target{}, fmt.Errorf("connect %q: %s", connect, strings.Join(faults, "; "))
	}
	return Target{Scheme: Serial, Address: u.Path, Serial: s}, nil
}

func parseSettings(values url.Values) (SerialLine, []string) {
	q := query{values: values, used: map[string]bool{}}
	s := SerialLine{
		Baud:   q.number("baud", DefaultBaud, MinBaud, MaxBaud),
		Data:   q.number("data", 8, 5, 8),
		Parity: Parity(q.word("parity", "N, O, E, M or S", "N", "O", "E", "M", "S")[0]),
		Stop:   q.number("stop", 1, 1, 2),
		Flow:   Flow(q.word("flow", flowChoices, string(NoFlow), string(RTSCTS), string(XonXoff))),
		RS485:  q.word("rs485", "on or off", "off", "on") == "on",

		RTSBefore: q.delay("rts_before"),
		RTSAfter:  q.delay("rts_after"),
		RTSLow:    q.word("rts_active", "high or low", "high", "low") == "low",
	}
	if !s.RS485 && (s.RTSBefore != 0 || s.RTSAfter != 0 || s.RTSLow) {
		q.faults = append(q.faults, "rts_before, rts_after and rts_active want rs485=on")
	}
	if s.RS485 && s.Flow == RTSCTS {
		q.faults = append(q.faults, "rs485=on and flow=rtscts both want the wire RTS")
	}
	var unknown []string
	for key := range values {
		if !q.used[key] {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown)
	for _, key := range unknown {
		q.faults = append(q.faults, fmt.Sprintf("parameter %q is unknown: want baud, data, parity, stop, flow, rs485, rts_before, rts_after or rts_active", key))
	}
	return s, q.faults
}

// A query reads parameters and keeps what is wrong with them.
type query struct {
	values url.Values
	used   map[string]bool
	faults []string
}

func (q *query) text(key string) (string, bool) {
	q.used[key] = true
	list := q.values[key]
	if len(list) > 1 {
		q.faults = append(q.faults, key+" is there twice")
	}
	if len(list) == 0 {
		return "", false
	}
	return list[0], true
}

func (q *query) number(key string, otherwise, least, most int) int {
	text, ok := q.text(key)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		q.faults = append(q.faults, fmt.Sprintf("%s %q is not in %d..%d", key, text, least, most))
		return otherwise
	}
	return n
}

// word returns the choice that was made; the first one is the default.
func (q *query) word(key, want string, choices ...string) string {
	text, ok := q.text(key)
	if !ok {
		return choices[0]
	}
	for _, c := range choices {
		if strings.EqualFold(text, c) {
			return c
		}
	}
	q.faults = append(q.faults, fmt.Sprintf("%s %q is not %s", key, text, want))
	return choices[0]
}

func (q *query) delay(key string) time.Duration {
	text, ok := q.text(key)
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxRTSDelay || d%time.Millisecond != 0 {
		q.faults = append(q.faults, fmt.Sprintf("%s %q is not in whole milliseconds from 0s to %s, as in 1ms", key, text, maxRTSDelay))
		return 0
	}
	return d
}
