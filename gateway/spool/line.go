package spool

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

// What a byte is in a name (measurement, tag key, tag value, field key) of line
// protocol.
const (
	escaped = 1 << iota // comma, equals sign, space
	control             // cannot be written
	slash               // backslash, which is written as it is, but not everywhere
	wide                // part of a longer UTF-8 sequence
)

// class is constant: it is written here and never again.
var class = func() (t [256]uint8) {
	for i := range 32 {
		t[i] = control
	}
	t[0x7f] = control
	t[','], t['='], t[' '] = escaped, escaped, escaped
	t['\\'] = slash
	for i := 0x80; i < 0x100; i++ {
		t[i] = wide
	}
	return t
}()

// AppendReading appends the reading to dst as one line of InfluxDB line
// protocol and returns the longer slice. On an error dst is returned as it was.
//
// The measurement is the kind; the tags are device, site (when there is one)
// and the extra tags, sorted by key; the fields are the numbers as floats, the
// words as strings with the name <name>_text, quality, <value>_quality where it
// is not good and delay_s where there is a delay; the time is in nanoseconds. A
// line break in a word becomes a space, since a record is one line, and what is
// not UTF-8 in it becomes U+FFFD. A reading without
// device, kind, time or values, with a number that is not finite or with a name
// that line protocol cannot carry is an error.
func AppendReading(dst []byte, r *telemetry.Reading) ([]byte, error) {
	out, err := appendReading(dst, r)
	if err != nil {
		return dst, fmt.Errorf("write reading of device %q, kind %q as a line: %w", r.Device, r.Kind, err)
	}
	return out, nil
}

func appendReading(dst []byte, r *telemetry.Reading) ([]byte, error) {
	if r.Device == "" || r.Kind == "" {
		return dst, errors.New("a device and a kind are needed")
	}
	if len(r.Values) == 0 {
		return dst, errors.New("it has no values")
	}
	if s := r.Time.Unix(); r.Time.IsZero() || s < -9e9 || s > 9e9 {
		return dst, fmt.Errorf("time %s is not in the years 1685 to 2255", r.Time)
	}
	if r.Kind[0] == '#' || strings.IndexByte(r.Kind, '=') >= 0 {
		return dst, errors.New("a kind cannot begin with # or contain =")
	}
	dst, err := appendName(dst, r.Kind, "")
	if err != nil {
		return dst, err
	}
	if dst, err = appendTags(dst, r); err != nil {
		return dst, err
	}
	separator := byte(' ')
	for i := range r.Values {
		v := &r.Values[i]
		dst = append(dst, separator)
		separator = ','
		if dst, err = appendValue(dst, v); err != nil {
			return dst, err
		}
		if v.Quality != telemetry.Good {
			dst = append(dst, ',')
			if dst, err = appendName(dst, v.Name, "_quality"); err != nil {
				return dst, err
			}
			dst = append(dst, `="`...)
			dst = append(dst, v.Quality.String()...)
			dst = append(dst, '"')
		}
	}
	dst = append(dst, `,quality="`...)
	dst = append(dst, r.Quality.String()...)
	dst = append(dst, '"')
	if r.Delay > 0 {
		dst = append(dst, ",delay_s="...)
		dst = appendSeconds(dst, uint64(r.Delay))
	}
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, r.Time.UnixNano(), 10)
	return append(dst, '\n'), nil
}

// appendTags writes device, site and the extra tags in the order of their keys:
// InfluxDB need not sort them then.
func appendTags(dst []byte, r *telemetry.Reading) (_ []byte, err error) {
	device, site := false, false
	for i := range r.Tags {
		t := &r.Tags[i]
		if telemetry.Reserved(t.Key) {
			return dst, fmt.Errorf("extra tag %q has a reserved name", t.Key)
		}
		if i > 0 && t.Key <= r.Tags[i-1].Key {
			return dst, fmt.Errorf("extra tags are not sorted: %q after %q", t.Key, r.Tags[i-1].Key)
		}
		if !device && t.Key > "device" {
			if dst, err = appendTag(dst, "device", r.Device); err != nil {
				return dst, err
			}
			device = true
		}
		if !site && t.Key > "site" {
			if dst, err = appendTag(dst, "site", r.Site); err != nil {
				return dst, err
			}
			site = true
		}
		if dst, err = appendTag(dst, t.Key, t.Value); err != nil {
			return dst, err
		}
	}
	if !device {
		if dst, err = appendTag(dst, "device", r.Device); err != nil {
			return dst, err
		}
	}
	if !site {
		return appendTag(dst, "site", r.Site)
	}
	return dst, nil
}

// appendTag writes nothing for an empty value: line protocol has no empty tags.
func appendTag(dst []byte, key, value string) ([]byte, error) {
	if value == "" {
		return dst, nil
	}
	dst = append(dst, ',')
	dst, err := appendName(dst, key, "")
	if err != nil {
		return dst, err
	}
	return appendName(append(dst, '='), value, "")
}

func appendValue(dst []byte, v *telemetry.Value) ([]byte, error) {
	if v.Text != "" {
		dst, err := appendName(dst, v.Name, "_text")
		if err != nil {
			return dst, err
		}
		return appendText(append(dst, '='), v.Text), nil
	}
	if !telemetry.Finite(v.Number) {
		return dst, fmt.Errorf("value %q is %v, not a finite number", v.Name, v.Number)
	}
	dst, err := appendName(dst, v.Name, "")
	if err != nil {
		return dst, err
	}
	return appendNumber(append(dst, '='), v.Number), nil
}

// appendName writes a name with its escapes. A backslash stands for itself
// before any other character; before one that is escaped, before another one or
// at the end readers disagree on it, so it is refused there.
func appendName(dst []byte, name, suffix string) ([]byte, error) {
	if name == "" {
		return dst, errors.New("a name is empty")
	}
	var found uint8
	for i := range len(name) {
		found |= class[name[i]]
	}
	if found&wide != 0 && !utf8.ValidString(name) {
		return dst, fmt.Errorf("%q is not UTF-8", name)
	}
	if found&^wide == 0 {
		return append(append(dst, name...), suffix...), nil
	}
	for i := range len(name) {
		switch class[name[i]] {
		case control:
			return dst, fmt.Errorf("%q has a control character", name)
		case slash:
			if rest := name[i+1:] + suffix; rest == "" || class[rest[0]] == escaped || class[rest[0]] == slash {
				return dst, fmt.Errorf("%q has a backslash where line protocol cannot carry one", name)
			}
		case escaped:
			dst = append(dst, '\\')
		}
		dst = append(dst, name[i])
	}
	return append(dst, suffix...), nil
}

func appendText(dst []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n', '\r':
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// appendNumber writes the number so that reading it gives the same float64.
// Most measurements have at most three decimals; these need no search for the
// shortest form.
func appendNumber(dst []byte, f float64) []byte {
	if math.Abs(f) < 1e12 {
		if n := math.Round(f * 1000); n/1000 == f && (n != 0 || !math.Signbit(f)) {
			return appendThousandths(dst, int64(n))
		}
	}
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, 64)
}

func appendThousandths(dst []byte, n int64) []byte {
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	whole, rest := uint64(n)/1000, uint64(n)%1000
	if whole < 10 {
		dst = append(dst, byte('0'+whole))
	} else {
		dst = strconv.AppendUint(dst, whole, 10)
	}
	switch {
	case rest == 0:
		return dst
	case rest%100 == 0:
		return append(dst, '.', byte('0'+rest/100))
	case rest%10 == 0:
		return append(dst, '.', byte('0'+rest/100), byte('0'+rest/10%10))
	}
	return append(dst, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// appendSeconds writes nanoseconds as seconds, exactly.
func appendSeconds(dst []byte, ns uint64) []byte {
	dst = strconv.AppendUint(dst, ns/1e9, 10)
	rest := ns % 1e9
	if rest == 0 {
		return dst
	}
	dst = append(dst, '.')
	for weight := uint64(1e8); rest > 0; weight /= 10 {
		dst = append(dst, byte('0'+rest/weight))
		rest %= weight
	}
	return dst
}
