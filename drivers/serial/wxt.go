package serial

import (
	"bytes"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// wxt reads the ASCII messages of Vaisala's WXT510, WXT520 and WXT530 series
// (User Guide M211840EN, chapter "Getting data messages"):
//
//	0R1,Dm=236D,Sm=1.0M,Sx=2.2M     from address 0, wind
//	0r2,Ta=22.7C,Ua=55.5P@Fn        with a CRC of three characters: r instead of R
//
// A number is followed by the letter of its unit; # says that it is invalid.
type wxt struct {
	fields []field
}

// wxtValues are the parameters that are used without being configured. Sx is
// the maximum within the averaging time: the gust.
func wxtValues() []Value {
	return []Value{
		{From: "Dm", To: "weather.wind_direction_deg"},
		{From: "Sm", To: "weather.wind_speed_ms"},
		{From: "Sx", To: "weather.wind_gust_ms"},
		{From: "Ta", To: "weather.temperature_c"},
		{From: "Ua", To: "weather.humidity_pct"},
		{From: "Pa", To: "weather.pressure_hpa"},
		{From: "Rc", To: "weather.rain_total_mm"},
		{From: "Ri", To: "weather.rain_rate_mmh"},
		{From: "Vs", To: "weather.supply_v"},
	}
}

func newWXT(c *Config) *wxt {
	return &wxt{newFields(override(wxtValues(), c.Values))}
}

// override returns the values that hold by default, without those of whose
// field or value the configuration says something else, and then those.
func override(defaults, configured []Value) []Value {
	var out []Value
next:
	for _, d := range defaults {
		for _, c := range configured {
			if c.From == d.From || c.To == d.To {
				continue next
			}
		}
		out = append(out, d)
	}
	return append(out, configured...)
}

// wxtUnits are the letters of units by the first letters of a parameter; the
// longer prefix goes first.
var wxtUnits = []struct{ prefix, letters string }{
	{"D", "D=deg"},
	{"S", "M=m/s K=km/h S=mph N=kn"},
	{"T", "C=C F=F"},
	{"U", "P=%"},
	{"P", "H=hPa P=Pa B=bar M=mmHg I=inHg"},
	{"Rc", "M=mm I=in"},
	{"Ri", "M=mm/h I=in/h"},
	{"Rp", "M=mm/h I=in/h"},
	{"V", "V=V N=V W=V F=V"}, // of Vh the letter says how the heating works
}

// wxtUnit returns the unit that a letter stands for. A parameter without a known
// unit (hail, durations) is a bare number.
func wxtUnit(parameter string, letter byte) (name string, ok bool) {
	for _, u := range wxtUnits {
		if !strings.HasPrefix(parameter, u.prefix) {
			continue
		}
		for one := range strings.FieldsSeq(u.letters) {
			if one[0] == letter {
				return one[2:], true
			}
		}
		return "", false
	}
	return "", true
}

func (w *wxt) decode(line []byte, _ time.Time, out sink) verdict {
	line = bytes.TrimLeft(line, "\x00 \t\r\n")
	body, v := wxtBody(line)
	if v != used {
		return v
	}
	found := unused
	for len(body) > 0 {
		var one []byte
		one, body, _ = bytes.Cut(body, []byte{','})
		parameter, text, ok := bytes.Cut(one, []byte{'='})
		if !ok || len(parameter) != 2 {
			out.lost(lostField) // of a line that was cut
			continue
		}
		for i := range w.fields {
			if f := &w.fields[i]; f.from == string(parameter) {
				found = used
				w.number(f, text, out)
			}
		}
	}
	return found
}

// wxtBody checks the beginning and, where there is one, the CRC.
func wxtBody(line []byte) ([]byte, verdict) {
	if len(line) < 4 || !isAddress(line[0]) || line[1] != 'R' && line[1] != 'r' {
		return nil, malformed
	}
	if line[1] == 'r' {
		body, ok := checkCRC(line)
		if !ok {
			return nil, badChecksum
		}
		line = body
	}
	head, body, ok := bytes.Cut(line, []byte{','})
	if !ok || len(head) > 3 || len(head) == 3 && (head[2] < '0' || head[2] > '9') {
		return nil, malformed
	}
	return body, used
}

// number takes 16.0C, 000# or 0.0M.
func (w *wxt) number(f *field, text []byte, out sink) {
	if len(text) < 2 {
		out.lost(lostField)
		return
	}
	digits, letter := string(text[:len(text)-1]), text[len(text)-1]
	number, ok := parseNumber(digits)
	switch {
	case letter == '#':
		out.lost(lostInvalid)
		return
	case !ok || letter >= '0' && letter <= '9' || letter == '.':
		out.lost(lostField) // a number without its unit is one that was cut
		return
	case f.absent(digits):
		return
	}
	name, ok := wxtUnit(f.from, letter)
	if !ok {
		out.lost(lostUnit)
		return
	}
	s, ok := f.value.scale(name)
	if !ok {
		out.lost(lostUnit)
		return
	}
	out.value(f.kind, telemetry.Value{Name: f.name, Number: s.of(number)})
}

// isAddress reports whether c can be the address of an instrument (SDI-12 V1.4,
// 4.1.1; Vaisala has the same).
func isAddress(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
