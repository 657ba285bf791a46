package mapping

import (
	"fmt"
	pathpkg "path"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"haidang/gateway/telemetry"
)

// A Set is the mappings of a gateway. It does not change.
type Set struct{ rules []*rule }

// Filters returns the topics of all mappings as MQTT topic filters.
func (s *Set) Filters() []string {
	var filters []string
	for _, r := range s.rules {
		filters = append(filters, r.topic.filter())
	}
	return filters
}

// Topics returns name and topic of each mapping, in their order.
func (s *Set) Topics() [][2]string {
	var out [][2]string
	for _, r := range s.rules {
		out = append(out, [2]string{r.name, r.topic.text})
	}
	return out
}

// Match returns what reads the messages of a topic, or nil when no mapping is for
// it. A nil set has none.
func (s *Set) Match(topic string) *Route {
	if s == nil {
		return nil
	}
	for _, r := range s.rules {
		if levels, ok := r.topic.match(topic); ok {
			return newRoute(r, levels)
		}
	}
	return nil
}

// A Route reads the messages of one topic.
type Route struct {
	rule   *rule
	levels map[string]string
	device string // of all readings
	main   string // of the first part, for letters
}

func newRoute(r *rule, levels map[string]string) *Route {
	out := &Route{rule: r, levels: levels}
	for i, p := range r.parts {
		device := ""
		if p.device.fixed() {
			device, _ = p.device.fill(&scope{levels: levels})
		}
		switch {
		case i == 0:
			out.device, out.main = device, device
		case device != out.device:
			out.device = ""
		}
	}
	return out
}

// Mapping is the name of the mapping.
func (r *Route) Mapping() string { return r.rule.name }

// Device is the device of every reading on the topic, or "" when payloads say it.
func (r *Route) Device() string { return r.device }

// Influx reports whether payloads are line protocol, which the caller decodes
// and gives to Fold.
func (r *Route) Influx() bool { return r.rule.format == FormatInflux }

// lacks is what was looked for in a payload and is not there.
type lacks []string

func (l *lacks) add(what string) {
	for _, before := range *l {
		if before == what {
			return
		}
	}
	if len(*l) < 16 {
		*l = append(*l, what)
	}
}

// A decoding is a payload that is being read.
type decoding struct {
	route    *Route
	scope    scope
	readings []telemetry.Reading
	letters  []telemetry.DeadLetter
	more     int // letters beyond maxFaults
	lacks    lacks
}

// Decode reads a payload. Letters have reason, detail, device and the bytes of
// the part; they say what could not be used.
func (r *Route) Decode(payload []byte) ([]telemetry.Reading, []telemetry.DeadLetter) {
	d := decoding{route: r, scope: scope{levels: r.levels}}
	if !utf8.Valid(payload) {
		return nil, []telemetry.DeadLetter{{Reason: "bad_text", Detail: "the payload is not UTF-8", Device: r.device}}
	}
	switch {
	case r.rule.format == FormatRaw:
		d.scope.whole = raw(payload)
	case !gjson.ValidBytes(payload):
		return nil, []telemetry.DeadLetter{{Reason: "bad_json", Detail: "the payload is not JSON", Device: r.device}}
	default:
		d.scope.whole = gjson.ParseBytes(payload)
	}
	for _, p := range r.rule.parts {
		d.part(p)
	}
	if len(d.readings)+len(d.letters) == 0 && !r.rule.pass {
		d.refuse("no_values", fmt.Sprintf("mapping %q finds no value; not there: %s", r.rule.name, strings.Join(d.lacks, ", ")), r.main)
	}
	if d.more > 0 {
		d.letters[len(d.letters)-1].Detail += fmt.Sprintf("; %d more of this payload", d.more)
	}
	return d.readings, d.letters
}

// raw makes a JSON value of a bare one.
func raw(payload []byte) gjson.Result {
	text := strings.TrimSpace(string(payload))
	if text == "true" || text == "false" || text == "null" {
		return gjson.Parse(text)
	}
	if _, detail := numeral(text); detail == "" {
		return gjson.Result{Type: gjson.Number, Raw: text, Str: text}
	}
	if len(text) > 1 && text[0] == '"' && gjson.Valid(text) {
		return gjson.Parse(text)
	}
	return gjson.Result{Type: gjson.String, Raw: text, Str: text}
}

func (d *decoding) refuse(reason, detail, device string) {
	if len(d.letters) >= maxFaults {
		d.more++
		return
	}
	l := telemetry.DeadLetter{Reason: reason, Detail: detail, Device: device}
	if d.scope.here.Raw != "" && len(d.scope.here.Raw) < len(d.scope.whole.Raw) {
		l.Bytes = []byte(d.scope.here.Raw)
	}
	d.letters = append(d.letters, l)
}

// part makes the readings of one part.
func (d *decoding) part(p *reading) {
	d.scope.here, d.scope.key = d.scope.whole, ""
	if p.each == nil {
		d.element(p)
		return
	}
	list := p.each.find(&d.scope)
	if !list.IsArray() && !list.IsObject() {
		d.lacks.add(p.each.String() + " (a list)")
		return
	}
	n, seen := 0, 0
	object := list.IsObject()
	list.ForEach(func(key, element gjson.Result) bool {
		d.scope.key = fmt.Sprint(n)
		if object {
			d.scope.key = key.String()
		}
		n++
		d.scope.here = element
		if p.keys != "" {
			if ok, _ := pathpkg.Match(p.keys, d.scope.key); !ok {
				return true
			}
		}
		if !p.holds(&d.scope) {
			return true
		}
		seen++
		if len(d.readings) >= maxReadings {
			d.refuse("too_many_readings", fmt.Sprintf("more than %d readings in a payload", maxReadings), d.route.device)
			return false
		}
		d.element(p)
		return true
	})
	if seen == 0 {
		d.lacks.add(p.each.String() + " (an element that fits)")
	}
}

func (p *reading) holds(s *scope) bool {
	for _, c := range p.when {
		if found := c.path.find(s); (found.String() == c.want) == c.not {
			return false
		}
	}
	return true
}

// element makes one reading of the element at hand.
func (d *decoding) element(p *reading) {
	if !p.holds(&d.scope) {
		for _, c := range p.when {
			d.lacks.add(c.String())
		}
		return
	}
	r := telemetry.Reading{}
	values := collection{named: map[string]int{}}
	device, lacking := p.device.fill(&d.scope)
	for _, v := range p.values {
		d.value(p, v, &values, device)
	}
	if p.all != nil {
		d.all(p, &values, device)
	}
	if len(values.list) == 0 {
		return // what was looked for is noted
	}
	if lacking != "" {
		d.refuse("no_device", fmt.Sprintf("the device %s needs %s, which is not there", p.device, lacking), "")
		return
	}
	r.Device = device
	if !telemetry.ValidName(device) {
		d.refuse("bad_name", fmt.Sprintf("device %.200q, of %s, is not a name of letters, digits and ._:-; the filter |slug makes one", device, p.device), "")
		return
	}
	if r.Kind, lacking = p.kind.fill(&d.scope); lacking != "" || !telemetry.ValidName(r.Kind) || r.Kind == "warning" {
		d.refuse("bad_name", fmt.Sprintf("kind %.200q, of %s, is not a name of letters, digits and ._:-", r.Kind, p.kind), device)
		return
	}
	if p.at != nil {
		at, detail := p.at.read(&d.scope)
		if detail != "" {
			d.refuse("bad_time", detail, device)
			return
		}
		r.Time = at
	}
	r.Values = values.list
	d.readings = append(d.readings, r)
}

// String tells the condition.
func (c condition) String() string {
	if c.not {
		return fmt.Sprintf("%s other than %q", c.path, c.want)
	}
	return fmt.Sprintf("%s = %q", c.path, c.want)
}

// A collection is the values of a reading; the first of a name stays.
type collection struct {
	list  []telemetry.Value
	named map[string]int
}

func (d *decoding) value(p *reading, v *value, into *collection, device string) {
	name, lacking := v.name.fill(&d.scope)
	if to, ok := p.rename[name]; ok {
		name = to
	}
	out, there, detail := v.read(&d.scope)
	switch {
	case detail != "":
		d.refuse("bad_value", fmt.Sprintf("value %s: %s", name, detail), device)
		return
	case !there || lacking != "":
		for _, at := range v.paths {
			d.lacks.add(at.String())
		}
		if d.route.rule.format == FormatRaw {
			d.lacks.add("a number or a word")
		}
		return
	}
	d.put(into, name, out, device)
}

func (d *decoding) put(into *collection, name string, v telemetry.Value, device string) {
	if _, ok := into.named[name]; ok {
		return
	}
	switch {
	case !telemetry.ValidName(name) || telemetry.Reserved(name):
		d.refuse("bad_name", fmt.Sprintf("value %.200q is not a name of letters, digits and ._:-, or is reserved", name), device)
		return
	case len(into.list) == telemetry.MaxValues:
		d.refuse("too_many_values", fmt.Sprintf("more than %d values", telemetry.MaxValues), device)
		return
	}
	into.named[name] = len(into.list)
	v.Name = name
	into.list = append(into.list, v)
}

// all takes every member of an object.
func (d *decoding) all(p *reading, into *collection, device string) {
	root := p.all.find(&d.scope)
	if !root.IsObject() {
		d.lacks.add(p.all.String() + " (an object)")
		return
	}
	plain := &value{scale: 1}
	var walk func(prefix string, at gjson.Result, depth int)
	walk = func(prefix string, at gjson.Result, depth int) {
		at.ForEach(func(key, found gjson.Result) bool {
			name := slug(prefix+key.String(), '_')
			if p.except[name] || len(into.list) == telemetry.MaxValues {
				return true
			}
			if found.IsObject() {
				if depth < 8 {
					walk(name+"_", found, depth+1)
				}
				return true
			}
			if to, ok := p.rename[name]; ok {
				name = to
			}
			if found.IsArray() || !telemetry.ValidName(name) || telemetry.Reserved(name) {
				return true // not asked for by name
			}
			if v, there, detail := plain.of(found); detail != "" {
				d.refuse("bad_value", fmt.Sprintf("value %s: %s", name, detail), device)
			} else if there {
				d.put(into, name, v, device)
			}
			return true
		})
	}
	walk("", root, 0)
	if len(into.list) == 0 {
		d.lacks.add("a value in " + p.all.String())
	}
}

// layouts are those of times without a zone.
var layouts = [...]string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04", "2006-01-02T15:04"}

// read returns the time, zero when the payload has none.
func (m *moment) read(s *scope) (time.Time, string) {
	found := m.path.find(s)
	text := strings.TrimSpace(found.String())
	if !found.Exists() || found.Type == gjson.Null || text == "" {
		return time.Time{}, ""
	}
	if m.layout != "" {
		zone := m.zone
		if zone == nil {
			zone = time.UTC
		}
		at, err := time.ParseInLocation(m.layout, text, zone)
		if err != nil {
			return at, fmt.Sprintf("time %.100q at %s is not written as %s", text, m.path, m.layout)
		}
		return at, ""
	}
	if at, ok := telemetry.ParseTime(text); ok {
		return at, ""
	}
	for _, layout := range layouts {
		if at, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			if m.zone == nil {
				return at, fmt.Sprintf("time %.100q at %s has no time zone; give the mapping one (time: {path: %s, zone: Asia/Ho_Chi_Minh})", text, m.path, m.path)
			}
			at, _ = time.ParseInLocation(layout, text, m.zone)
			return at, ""
		}
	}
	return time.Time{}, fmt.Sprintf("time %.100q at %s is neither RFC 3339 nor a Unix time", text, m.path)
}

// Fold gives a reading of line protocol its device and kind; the tags that they
// are made of are taken out of it. device is what the line's own tag device said,
// or "".
func (r *Route) Fold(reading *telemetry.Reading) *telemetry.DeadLetter {
	p := r.rule.parts[0]
	s := scope{levels: r.levels, measurement: reading.Kind, tags: map[string]string{}, used: map[string]bool{}}
	for _, t := range reading.Tags {
		s.tags[t.Key] = t.Value
	}
	if reading.Device != "" {
		s.tags["device"] = reading.Device
	}
	device, lacking := p.device.fill(&s)
	if lacking != "" {
		return &telemetry.DeadLetter{Reason: "no_device", Detail: fmt.Sprintf("the device %s needs the %s, which the line does not have", p.device, lacking)}
	}
	if p.kind != nil {
		if reading.Kind, lacking = p.kind.fill(&s); lacking != "" {
			return &telemetry.DeadLetter{Reason: "bad_name", Device: device, Detail: fmt.Sprintf("the kind %s needs the %s, which the line does not have", p.kind, lacking)}
		}
	}
	if !telemetry.ValidName(device) || !telemetry.ValidName(reading.Kind) || reading.Kind == "warning" {
		return &telemetry.DeadLetter{Reason: "bad_name", Detail: fmt.Sprintf("device %.200q or kind %.200q is not a name of letters, digits and ._:-", device, reading.Kind)}
	}
	reading.Device = device
	kept := reading.Tags[:0]
	for _, t := range reading.Tags {
		if !s.used[t.Key] {
			kept = append(kept, t)
		}
	}
	reading.Tags = kept
	for i := range reading.Values {
		if to, ok := p.rename[reading.Values[i].Name]; ok {
			reading.Values[i].Name = to
		}
	}
	sort.Slice(reading.Tags, func(i, j int) bool { return reading.Tags[i].Key < reading.Tags[j].Key })
	return nil
}
