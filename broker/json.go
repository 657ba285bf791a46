package broker

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

// decodeJSON reads one object or an array of objects (RFC 8259) as readings of
// the route's device and kind. When the JSON is broken there are no readings
// and one fault; else each object gives a reading or a fault.
func (r *route) decodeJSON(payload []byte) ([]telemetry.Reading, []*fault) {
	if !utf8.Valid(payload) {
		// RFC 8259, 8.1: JSON text is UTF-8.
		return nil, []*fault{faultf("bad_json", "the payload is not UTF-8")}
	}
	s := scanner{b: payload, route: r}
	s.document()
	if s.broken != nil {
		return nil, []*fault{s.broken}
	}
	return s.readings, s.faults
}

// A scanner reads flat JSON objects without building a tree.
type scanner struct {
	b     []byte
	i     int
	route *route

	readings []telemetry.Reading
	faults   []*fault
	broken   *fault // the JSON is broken: all is lost

	reading   telemetry.Reading // the object at hand
	fault     *fault            // first fault of it
	qualities []quality
	values    valueSet
	aligned   bool // its names are those of route.names so far
}

// A quality is the quality of one value.
type quality struct {
	name    string
	quality telemetry.Quality
}

func (s *scanner) document() {
	s.space()
	switch {
	case s.take('{'):
		s.element()
	case s.take('['):
		s.array()
	default:
		if s.value(); s.broken == nil {
			s.object1(faultf("not_object", "the payload is neither an object nor an array of objects"), 0)
		}
	}
	s.space()
	if s.broken == nil && s.i < len(s.b) {
		s.breaks("the end")
	}
}

func (s *scanner) array() {
	s.space()
	if s.take(']') {
		s.object1(faultf("no_values", "the array is empty"), 0)
		return
	}
	for s.broken == nil {
		s.space()
		start := s.i
		if s.take('{') {
			s.element()
		} else if s.value(); s.broken == nil {
			s.object1(faultf("not_object", "element %d is not an object", len(s.readings)+len(s.faults)), start)
		}
		s.space()
		if s.take(']') {
			return
		}
		if !s.take(',') {
			s.breaks(", or ]")
		}
	}
}

// object1 keeps a fault of the part that began at start.
func (s *scanner) object1(f *fault, start int) {
	f.bytes = s.b[start:s.i]
	s.faults = append(s.faults, f)
}

// element reads an object behind its brace.
func (s *scanner) element() {
	start := s.i - 1
	s.reading = telemetry.Reading{Device: s.route.device, Kind: s.route.kind}
	s.values = newValueSet(s.route)
	s.fault, s.qualities, s.aligned = nil, s.qualities[:0], true
	s.members(s.member)
	if s.broken != nil {
		return
	}
	s.finish()
	if s.fault != nil {
		s.object1(s.fault, start)
		return
	}
	if !s.aligned {
		s.route.remember(s.reading.Values)
	}
	s.readings = append(s.readings, s.reading)
}

// finish checks the object as a whole and joins its qualities.
func (s *scanner) finish() {
	s.reading.Values = s.values.values
	if len(s.reading.Values) == 0 {
		s.refuse(faultf("no_values", "the object has no value"))
	}
	for _, q := range s.qualities {
		if i := s.values.find(q.name); i >= 0 {
			s.reading.Values[i].Quality = q.quality
			s.reading.Quality = max(s.reading.Quality, q.quality)
		}
	}
}

// members reads the members of an object up to its closing brace.
func (s *scanner) members(member func(key []byte)) {
	s.space()
	if s.take('}') {
		return
	}
	for s.broken == nil {
		s.space()
		key := s.text()
		s.space()
		if s.broken == nil && !s.take(':') {
			s.breaks(":")
		}
		if s.broken != nil {
			return
		}
		s.space()
		member(key)
		s.space()
		if s.take('}') {
			return
		}
		if s.broken == nil && !s.take(',') {
			s.breaks(", or }")
		}
	}
}

// member reads one value of the object at hand.
func (s *scanner) member(key []byte) {
	start := s.i
	if s.i < len(s.b) && s.b[s.i] == '{' && string(key) == "quality" {
		s.i++
		s.members(s.qualityMember)
		return
	}
	t := s.value()
	if s.broken != nil {
		return
	}
	switch string(key) {
	case "time":
		s.time(t)
	case "quality":
		s.quality(t, &s.reading.Quality)
	case "device":
		if t.kind != word || string(t.text) != s.route.device {
			s.refuse(faultf("device_differs", "device %.100s is not the device %q of the topic", s.b[start:s.i], s.route.device))
		}
	default:
		s.set(key, t)
	}
}

func (s *scanner) qualityMember(key []byte) {
	t := s.value()
	if s.broken != nil {
		return
	}
	q := quality{name: string(key)}
	s.quality(t, &q.quality)
	if len(s.qualities) < telemetry.MaxValues {
		s.qualities = append(s.qualities, q)
	}
}

func (s *scanner) time(t token) {
	switch t.kind {
	case null:
		s.reading.Time = time.Time{}
	case number, word:
		at, ok := telemetry.ParseTime(string(t.text))
		if !ok {
			s.refuse(faultf("bad_time", "time %.100q is neither RFC 3339 nor a Unix time in s, ms, us or ns", t.text))
		}
		s.reading.Time = at
	default:
		s.refuse(faultf("bad_time", "time is neither RFC 3339 nor a Unix time in s, ms, us or ns"))
	}
}

func (s *scanner) quality(t token, to *telemetry.Quality) {
	if t.kind == null {
		*to = telemetry.Good
		return
	}
	q, err := telemetry.ParseQuality(string(t.text))
	if t.kind != word {
		s.refuse(faultf("bad_quality", "quality is not one of the words good, suspect, maintenance, calibrating, bad"))
	} else if err != nil {
		s.refuse(faultf("bad_quality", "%.200s", err.Error()))
	}
	*to = q
}

// set puts a value into the reading at hand; the last one of a name wins.
func (s *scanner) set(key []byte, t token) {
	value := telemetry.Value{}
	switch t.kind {
	case null:
		s.unset(key)
		return
	case word:
		if len(t.text) == 0 {
			s.unset(key)
			return
		}
		if len(t.text) > telemetry.MaxTextBytes {
			s.refuse(faultf("text_too_long", "the word of %.100q has %d bytes, at most %d are kept", key, len(t.text), telemetry.MaxTextBytes))
			return
		}
		value.Text = string(t.text)
	case truth:
		value.Number = t.number
	case number:
		if !s.numeric(key, t) {
			return
		}
		value.Number = t.number
	default:
		s.refuse(faultf("nested", "the value of %.100q is an object or an array: only numbers, words, true, false and null are values", key))
		return
	}
	s.put(key, value)
}

// numeric refuses numbers that a float64 does not hold.
func (s *scanner) numeric(key []byte, t token) bool {
	switch {
	case t.large:
		s.refuse(faultf("integer_too_large", "the value of %.100q, %.40s, is an integer beyond 2^53", key, t.text))
	case !telemetry.Finite(t.number):
		s.refuse(faultf("not_finite", "the value of %.100q, %.40s, is beyond the range of a float64", key, t.text))
	default:
		return true
	}
	return false
}

func (s *scanner) put(key []byte, value telemetry.Value) {
	n := len(s.values.values)
	if s.aligned && n < len(s.route.names) && s.route.names[n] == string(key) {
		// So far the names are those of the last reading, which are distinct.
		value.Name = s.route.names[n]
		s.values.values = append(s.values.values, value)
		return
	}
	s.aligned = false
	name, f := s.route.valueName(key)
	if f == nil {
		value.Name = name
		f = s.values.put(value)
	}
	if f != nil {
		s.refuse(f)
	}
}

func (s *scanner) unset(key []byte) {
	if s.values.unset(string(key)) {
		s.aligned = false
	}
}

func (s *scanner) refuse(f *fault) {
	if s.fault == nil {
		s.fault = f
	}
}

// The kinds of tokens.
const (
	null = iota
	truth
	number
	word
	nested
)

// A token is one JSON value.
type token struct {
	kind   int
	text   []byte // of a number as written, of a word without escapes
	number float64
	large  bool // an integer beyond 2^53
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// breaks says that something else was expected here.
func (s *scanner) breaks(want string) {
	if s.broken != nil {
		return
	}
	if s.i >= len(s.b) {
		s.broken = faultf("bad_json", "the payload ends at byte %d, expected %s", s.i, want)
		return
	}
	_, size := utf8.DecodeRune(s.b[s.i:])
	s.broken = faultf("bad_json", "byte %d is %q, expected %s", s.i, s.b[s.i:s.i+size], want)
}

// value reads one value of any kind.
func (s *scanner) value() token {
	if s.i >= len(s.b) {
		s.breaks("a value")
		return token{}
	}
	switch c := s.b[s.i]; {
	case c == '"':
		return token{kind: word, text: s.text()}
	case c == '-' || c >= '0' && c <= '9':
		return s.numeral()
	case c == '{' || c == '[':
		return s.nested()
	}
	switch rest := s.b[s.i:]; {
	case bytes.HasPrefix(rest, []byte("null")):
		s.i += 4
		return token{kind: null}
	case bytes.HasPrefix(rest, []byte("true")):
		s.i += 4
		return token{kind: truth, number: 1}
	case bytes.HasPrefix(rest, []byte("false")):
		s.i += 5
		return token{kind: truth}
	}
	s.breaks("a value")
	return token{}
}

// nested passes over an object or an array. Such a value is refused, so all
// that matters is where it ends.
func (s *scanner) nested() token {
	d := json.NewDecoder(bytes.NewReader(s.b[s.i:]))
	var skipped json.RawMessage
	if err := d.Decode(&skipped); err != nil {
		s.broken = faultf("bad_json", "the value at byte %d: %v", s.i, err)
		return token{}
	}
	s.i += int(d.InputOffset())
	return token{kind: nested}
}

// text reads a string. The result is a part of the payload where there are no
// escapes.
func (s *scanner) text() []byte {
	if !s.take('"') {
		s.breaks("a string")
		return nil
	}
	start := s.i
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[start : s.i-1]
		case c == '\\':
			return s.escaped(start - 1)
		case c < ' ':
			s.breaks("a character of a string (control characters are written as escapes)")
			return nil
		}
	}
	s.breaks(`" at the end of a string`)
	return nil
}

// escaped reads a string that begins at start and has escapes.
func (s *scanner) escaped(start int) []byte {
	for s.i < len(s.b) && s.b[s.i] != '"' {
		if s.b[s.i] == '\\' {
			s.i++
		}
		s.i++
	}
	if s.i >= len(s.b) {
		s.i = len(s.b)
		s.breaks(`" at the end of a string`)
		return nil
	}
	s.i++
	var text string
	if err := json.Unmarshal(s.b[start:s.i], &text); err != nil {
		s.broken = faultf("bad_json", "the string at byte %d: %v", start, err)
		return nil
	}
	return []byte(text)
}

// digits passes over digits and adds them to mantissa, which is right up to 19
// digits.
func (s *scanner) digits(mantissa uint64) (uint64, int) {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		mantissa = mantissa*10 + uint64(s.b[s.i]-'0')
		s.i++
	}
	return mantissa, s.i - start
}

// numeral reads a number (RFC 8259, 6).
func (s *scanner) numeral() token {
	start := s.i
	negative := s.take('-')
	first := s.i
	mantissa, digits := s.digits(0)
	if digits == 0 || digits > 1 && s.b[first] == '0' {
		s.i = first
		s.breaks("a number without leading zeros")
		return token{}
	}
	t := token{kind: number, large: digits > 19 || mantissa > telemetry.MaxInteger}
	fraction, exponent := 0, false
	if s.take('.') {
		t.large = false
		if mantissa, fraction = s.digits(mantissa); fraction == 0 {
			s.breaks("a digit")
			return token{}
		}
	}
	if s.i < len(s.b) && (s.b[s.i] == 'e' || s.b[s.i] == 'E') {
		s.i++
		t.large, exponent = false, true
		if !s.take('+') {
			s.take('-')
		}
		if _, n := s.digits(0); n == 0 {
			s.breaks("a digit")
			return token{}
		}
	}
	t.text = s.b[start:s.i]
	if digits+fraction <= 15 && !exponent {
		// Both are exact in float64, so their quotient is the nearest one.
		t.number = float64(mantissa) / pow10(fraction)
		if negative {
			t.number = -t.number
		}
		return t
	}
	t.number, _ = strconv.ParseFloat(string(t.text), 64) // out of range gives an infinity
	return t
}
