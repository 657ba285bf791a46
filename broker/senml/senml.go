// Package senml reads SenML packs (RFC 8428), in JSON or CBOR, as Readings of one
// device. Letters of a pack in CBOR have the record in JSON.
//
// # Names
//
// The device is that of the topic, never of the pack: rights are about topics.
// Of the name of a record (base name and name joined) what leads to the device is
// left out: the device's own id and a separator, else the base name, else, where
// the base name has it all or the name is a URN, everything up to the last
// separator. What
// remains is {kind}{separator}{value}, or a value of the kind senml. A separator
// is one of / : .
//
// # Units
//
// A value's name ends with its unit, as everywhere: u "Cel" makes temperature
// temperature_c. Where the name has a unit already (level_m) the value is
// converted to it, and a unit of another dimension is refused. Units that have no
// ending here (the register has a hundred) leave the name as it is.
//
// # Values
//
// v is a number (bv added), vb 0 or 1, vs a word; vd, binary, is refused. A sum s
// (bs added) is the value {value}_sum. Records of one kind and time are one
// reading. Time 0 is the time of receipt, below 2^28 relative to it (5.4).
package senml

import (
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

// DefaultKind is the kind of values whose name says none.
const DefaultKind = "senml"

// Bounds of a pack.
const (
	maxRecords = 8192
	maxLetters = 64
	version    = 10      // RFC 8428, 4.1: bver
	relative   = 1 << 28 // seconds; times below are relative to now (4.5.3)
)

// base are the base fields, which hold for the records that follow (4.6).
type base struct {
	name, unit       string
	time, value, sum float64
}

// A record is one entry of a pack.
type record struct {
	name, unit string
	local      string // the name without what leads to the device
	time       float64
	number     *float64
	sum        *float64
	truth      *bool
	word       *string
	binary     bool
}

// A refusal is why a record cannot be used.
type refusal struct{ reason, detail string }

func refuse(reason, format string, args ...any) *refusal {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// Decode reads a pack as readings of the device; now is the time of receipt, for
// times that are relative to it. Letters have reason, detail and the bytes of the
// record.
func Decode(device string, payload []byte, now time.Time) ([]telemetry.Reading, []telemetry.DeadLetter) {
	d := decoding{device: device, now: now, at: map[place]int{}}
	var pack []json.RawMessage
	var err error
	switch {
	case isCBOR(payload):
		if pack, err = fromCBOR(payload); err != nil {
			return nil, []telemetry.DeadLetter{{Reason: "bad_cbor", Detail: fmt.Sprintf("not a SenML pack in CBOR, which is an array of maps: %v", err)}}
		}
	case !utf8.Valid(payload):
		return nil, []telemetry.DeadLetter{{Reason: "bad_json", Detail: "the payload is not UTF-8"}}
	default:
		if err = json.Unmarshal(payload, &pack); err != nil {
			return nil, []telemetry.DeadLetter{{Reason: "bad_json", Detail: fmt.Sprintf("not a SenML pack, which is a JSON array of records: %v", err)}}
		}
	}
	switch {
	case len(pack) == 0:
		return nil, []telemetry.DeadLetter{{Reason: "no_values", Detail: "the pack has no record"}}
	case len(pack) > maxRecords:
		return nil, []telemetry.DeadLetter{{Reason: "too_many_readings", Detail: fmt.Sprintf("%d records; at most %d", len(pack), maxRecords)}}
	}
	for i, raw := range pack {
		if stop := d.record(i, raw); stop != nil {
			// The base fields from here on are not known, and a field that must be
			// understood is not (4.4): nothing of the pack counts.
			return nil, []telemetry.DeadLetter{{Reason: stop.reason, Detail: fmt.Sprintf("record %d: %s", i, stop.detail)}}
		}
	}
	if len(d.readings)+len(d.letters) == 0 {
		d.aside(nil, refuse("no_values", "the pack has base fields only"))
	}
	if d.more > 0 {
		d.letters[len(d.letters)-1].Detail += fmt.Sprintf("; %d more of this pack", d.more)
	}
	return d.readings, d.letters
}

// A place is the reading that a record belongs to.
type place struct {
	kind string
	time float64
}

type decoding struct {
	device   string
	now      time.Time
	base     base
	at       map[place]int // index of readings
	readings []telemetry.Reading
	letters  []telemetry.DeadLetter
	more     int
}

func (d *decoding) aside(raw []byte, why *refusal) {
	if len(d.letters) >= maxLetters {
		d.more++
		return
	}
	d.letters = append(d.letters, telemetry.DeadLetter{Reason: why.reason, Detail: why.detail, Bytes: raw})
}

// record takes one record in; a refusal is of the whole pack.
func (d *decoding) record(i int, raw []byte) *refusal {
	r, stop := d.parse(raw)
	if stop != nil {
		return stop
	}
	if r == nil {
		return nil // base fields only
	}
	if why := d.put(r); why != nil {
		why.detail = fmt.Sprintf("record %d: %s", i, why.detail)
		d.aside(raw, why)
	}
	return nil
}

// fields are the members of a record, with the first thing wrong in them.
type fields struct {
	raw  map[string]json.RawMessage
	stop *refusal
}

func (f *fields) word(key string, into *string) (there bool) {
	raw, there := f.raw[key]
	if there && f.stop == nil && (json.Unmarshal(raw, into) != nil || string(raw) == "null") {
		f.stop = refuse("bad_senml", "%s is not a word", key)
	}
	return there
}

func (f *fields) number(key string, into *float64) (there bool) {
	raw, there := f.raw[key]
	if there && f.stop == nil && (json.Unmarshal(raw, into) != nil || string(raw) == "null") {
		f.stop = refuse("bad_senml", "%s is not a number in the range of a float64", key)
	}
	return there
}

func (f *fields) truth(key string, into *bool) (there bool) {
	raw, there := f.raw[key]
	if there && f.stop == nil && (json.Unmarshal(raw, into) != nil || string(raw) == "null") {
		f.stop = refuse("bad_senml", "%s is neither true nor false", key)
	}
	return there
}

// parse reads the fields of a record and takes over its base fields.
func (d *decoding) parse(raw []byte) (*record, *refusal) {
	var f fields
	if err := json.Unmarshal(raw, &f.raw); err != nil || f.raw == nil {
		return nil, refuse("bad_senml", "not an object")
	}
	for key := range f.raw {
		if strings.HasSuffix(key, "_") {
			return nil, refuse("bad_senml", "field %.100q must be understood (RFC 8428, 4.4), and is not known", key)
		}
	}
	bver := float64(version)
	f.number("bver", &bver)
	f.word("bn", &d.base.name)
	f.word("bu", &d.base.unit)
	f.number("bt", &d.base.time)
	f.number("bv", &d.base.value)
	f.number("bs", &d.base.sum)
	if f.stop == nil && bver > version {
		f.stop = refuse("bad_senml", "bver %v is newer than %d", bver, version)
	}
	r, name := d.values(&f)
	switch {
	case f.stop != nil:
		return nil, f.stop
	case r.number != nil || r.sum != nil || r.truth != nil || r.word != nil || r.binary:
		return r, nil
	case name == "" && len(f.raw) > 0:
		return nil, nil // base fields only
	}
	return nil, refuse("bad_senml", "no value: one of v, vb, vs, vd or s")
}

// values reads what is not a base field, and the record's own name.
func (d *decoding) values(f *fields) (*record, string) {
	r := &record{unit: d.base.unit}
	name, v, s, truth, word := "", 0.0, 0.0, false, ""
	f.word("n", &name)
	f.word("u", &r.unit)
	f.number("t", &r.time)
	if f.number("v", &v) {
		v += d.base.value
		r.number = &v
	}
	if f.number("s", &s) {
		s += d.base.sum
		r.sum = &s
	}
	if f.truth("vb", &truth) {
		r.truth = &truth
	}
	if f.word("vs", &word) {
		r.word = &word
	}
	_, r.binary = f.raw["vd"]
	r.time += d.base.time
	r.name = d.base.name + name
	r.local = d.local(name)
	return r, name
}

const separators = "/:."

// local is the name of a record without what leads to the device.
func (d *decoding) local(name string) string {
	full := d.base.name + name
	if rest, ok := strings.CutPrefix(full, d.device); ok && rest != "" && strings.ContainsRune(separators, rune(rest[0])) {
		return strings.TrimLeft(rest, separators)
	}
	if urn := d.base.name == "" && strings.HasPrefix(name, "urn:"); name != "" && !urn {
		return strings.TrimLeft(name, separators)
	}
	return full[strings.LastIndexAny(full, separators)+1:]
}

// put adds the values of a record to their reading.
func (d *decoding) put(r *record) *refusal {
	values := 0
	for _, there := range []bool{r.number != nil, r.truth != nil, r.word != nil, r.binary} {
		if there {
			values++
		}
	}
	if values > 1 {
		return refuse("bad_senml", "more than one of v, vb, vs and vd")
	}
	if r.binary {
		return refuse("binary", "%q is binary (vd), which is not kept", r.name)
	}
	kind, name := DefaultKind, r.local
	if at := strings.LastIndexAny(r.local, separators); at > 0 {
		kind, name = strings.ReplaceAll(r.local[:at], "/", "."), r.local[at+1:]
	}
	if !telemetry.ValidName(kind) || kind == "warning" {
		return refuse("bad_name", "kind %.200q of %.200q is not a name of letters, digits and ._:-", kind, r.name)
	}
	var out []telemetry.Value
	switch {
	case r.truth != nil && *r.truth:
		out = append(out, telemetry.Value{Name: name, Number: 1})
	case r.truth != nil:
		out = append(out, telemetry.Value{Name: name})
	case r.word != nil && len(*r.word) > telemetry.MaxTextBytes:
		return refuse("text_too_long", "%q has %d bytes; at most %d", name, len(*r.word), telemetry.MaxTextBytes)
	case r.word != nil && *r.word != "":
		out = append(out, telemetry.Value{Name: name, Text: *r.word})
	}
	for _, n := range []struct {
		number *float64
		ending string
	}{{r.number, ""}, {r.sum, "_sum"}} {
		if n.number == nil {
			continue
		}
		value, why := inUnit(name, r.unit, *n.number)
		if why != nil {
			return why
		}
		value.Name += n.ending
		out = append(out, value)
	}
	for _, v := range out {
		if !telemetry.ValidName(v.Name) || telemetry.Reserved(v.Name) {
			return refuse("bad_name", "value %.200q of %.200q is not a name of letters, digits and ._:-, or is reserved", v.Name, r.name)
		}
	}
	return d.add(place{kind, r.time}, out)
}

// add puts values into the reading of a place; the last of a name wins.
func (d *decoding) add(p place, values []telemetry.Value) *refusal {
	if len(values) == 0 {
		return nil // an empty word
	}
	if !telemetry.Finite(p.time) {
		return refuse("bad_time", "the time is beyond the range of a float64")
	}
	i, ok := d.at[p]
	if !ok {
		i = len(d.readings)
		d.readings = append(d.readings, telemetry.Reading{Device: d.device, Kind: p.kind, Time: d.time(p.time)})
		d.at[p] = i
	}
	r := &d.readings[i]
	for _, v := range values {
		at := sort.Search(len(r.Values), func(i int) bool { return r.Values[i].Name >= v.Name })
		switch {
		case at < len(r.Values) && r.Values[at].Name == v.Name:
			r.Values[at] = v
		case len(r.Values) == telemetry.MaxValues:
			return refuse("too_many_values", "more than %d values of one time", telemetry.MaxValues)
		default:
			r.Values = append(r.Values, telemetry.Value{})
			copy(r.Values[at+1:], r.Values[at:])
			r.Values[at] = v
		}
	}
	return nil
}

// time is the instant of a SenML time; zero for the time of receipt.
func (d *decoding) time(t float64) time.Time {
	switch {
	case t == 0:
		return time.Time{}
	case math.Abs(t) < relative:
		return d.now.Add(time.Duration(t * float64(time.Second))).UTC()
	case math.Abs(t) >= 1e11:
		return time.Time{}.Add(-time.Hour) // far out of range: judged as a wrong clock
	}
	return telemetry.UnixFloat(t).UTC()
}
