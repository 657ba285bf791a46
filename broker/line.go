package broker

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"haidang/gateway/telemetry"
)

// decodeLines reads InfluxDB line protocol as readings of the route's device.
// Each line gives a reading or a fault. A timestamp is in nanoseconds; smaller
// ones are read by their size, as everywhere.
func (r *route) decodeLines(payload []byte) ([]telemetry.Reading, []*fault) {
	var readings []telemetry.Reading
	var faults []*fault
	d := lineprotocol.NewDecoderWithBytes(payload)
	for d.Next() {
		reading, f := r.decodeLine(d)
		if f != nil {
			faults = append(faults, f)
			continue
		}
		readings = append(readings, reading)
	}
	for _, f := range faults {
		f.bytes = f.cutLine(payload)
	}
	if len(readings)+len(faults) == 0 {
		faults = append(faults, faultf("no_values", "the payload has no line"))
	}
	return readings, faults
}

// badLine makes a fault of the decoder's error.
func badLine(err error) *fault {
	f := faultf("bad_line", "%v", err)
	if at := (*lineprotocol.DecodeError)(nil); errors.As(err, &at) {
		f.detail = "line " + strconv.FormatInt(at.Line, 10) + ": " + at.Err.Error()
		f.line = at.Line
	}
	return f
}

// cutLine returns the line of the fault where it is known.
func (f *fault) cutLine(payload []byte) []byte {
	if f.line < 1 {
		return nil
	}
	for range f.line - 1 {
		_, payload, _ = bytes.Cut(payload, []byte("\n"))
	}
	line, _, _ := bytes.Cut(payload, []byte("\n"))
	return line
}

func (r *route) decodeLine(d *lineprotocol.Decoder) (telemetry.Reading, *fault) {
	reading := telemetry.Reading{Device: r.device}
	measurement, err := d.Measurement()
	if err != nil {
		return reading, badLine(err)
	}
	reading.Kind = string(measurement)
	if f := checkKind(reading.Kind); f != nil {
		return reading, f
	}
	if f := r.lineTags(d, &reading); f != nil {
		return reading, f
	}
	if f := r.lineFields(d, &reading); f != nil {
		return reading, f
	}
	stamp, err := d.TimeBytes()
	if err != nil {
		return reading, badLine(err)
	}
	if len(stamp) > 0 {
		n, err := strconv.ParseInt(string(stamp), 10, 64)
		if err != nil {
			return reading, faultf("bad_time", "timestamp %.40q is not a whole number of nanoseconds", stamp)
		}
		if r.unit == 0 {
			reading.Time = telemetry.UnixTime(n)
		} else if reading.Time, err = scaled(n, r.unit); err != nil {
			return reading, faultf("bad_time", "%v", err)
		}
	}
	if len(reading.Values) == 0 {
		return reading, faultf("no_values", "the line of %q has no value", reading.Kind)
	}
	return reading, nil
}

func (r *route) lineTags(d *lineprotocol.Decoder, reading *telemetry.Reading) *fault {
	for {
		key, value, err := d.NextTag()
		if err != nil {
			return badLine(err)
		}
		if key == nil {
			break
		}
		switch name := string(key); {
		case name == "device" && r.device == "": // no topic says it
			reading.Device = string(value)
		case name == "device":
			if string(value) != r.device {
				return faultf("device_differs", "tag device=%.100s is not the device %q of the topic", value, r.device)
			}
		case name == "site":
			reading.Site = string(value)
			if !telemetry.ValidName(reading.Site) {
				return faultf("bad_name", "site %.200q is not a name of letters, digits and ._:-", value)
			}
		case telemetry.Reserved(name):
			return faultf("reserved_name", "tag %q: time, quality and delay_s are written by the gateway itself", name)
		case !telemetry.ValidName(name):
			return faultf("bad_name", "tag %.200q is not a name of letters, digits and ._:-", name)
		case len(reading.Tags) == telemetry.MaxTags:
			return faultf("too_many_tags", "more than %d tags besides device and site", telemetry.MaxTags)
		default:
			reading.Tags = append(reading.Tags, telemetry.Tag{Key: name, Value: string(value)})
		}
	}
	sort.Slice(reading.Tags, func(i, j int) bool { return reading.Tags[i].Key < reading.Tags[j].Key })
	for i := 1; i < len(reading.Tags); i++ {
		if reading.Tags[i].Key == reading.Tags[i-1].Key {
			return faultf("bad_line", "tag %q is there twice", reading.Tags[i].Key)
		}
	}
	return nil
}

func (r *route) lineFields(d *lineprotocol.Decoder, reading *telemetry.Reading) *fault {
	values := newValueSet(r)
	var qualities []telemetry.Value // string fields that may be the quality of a value
	for {
		key, field, err := d.NextField()
		if err != nil {
			return badLine(err)
		}
		if key == nil {
			break
		}
		switch {
		case string(key) == "delay_s":
			// Of the gateway that wrote the line. The intake measures its own; a
			// replay goes by this one.
			if s, ok := fieldNumber(field); ok && s > 0 && s < maxDelaySeconds {
				reading.Delay = time.Duration(s * float64(time.Second))
			}
			continue
		case string(key) == "quality":
			q, err := telemetry.ParseQuality(field.String())
			if field.Kind() == lineprotocol.String {
				q, err = telemetry.ParseQuality(field.StringV())
			}
			if err != nil {
				return faultf("bad_quality", "%.200s", err.Error())
			}
			reading.Quality = max(reading.Quality, q)
			continue
		}
		value, f := fieldValue(key, field)
		if f != nil {
			return f
		}
		if field.Kind() == lineprotocol.String {
			if value.Text == "" {
				continue
			}
			if _, err := telemetry.ParseQuality(value.Text); err == nil && bytes.HasSuffix(key, []byte("_quality")) {
				value.Name = string(key)
				qualities = append(qualities, value)
				continue
			}
			key = bytes.TrimSuffix(key, []byte("_text"))
		}
		if value.Name, f = r.valueName(key); f != nil {
			return f
		}
		if f := values.put(value); f != nil {
			return f
		}
	}
	return r.lineQualities(reading, &values, qualities)
}

// lineQualities gives the values their qualities; a word <x>_quality without a
// value x is a word like others.
func (r *route) lineQualities(reading *telemetry.Reading, values *valueSet, qualities []telemetry.Value) *fault {
	for _, v := range qualities {
		if i := values.find(strings.TrimSuffix(v.Name, "_quality")); i >= 0 {
			q, _ := telemetry.ParseQuality(v.Text)
			values.values[i].Quality = q
			reading.Quality = max(reading.Quality, q)
			continue
		}
		var f *fault
		if v.Name, f = r.valueName([]byte(v.Name)); f != nil {
			return f
		}
		if f := values.put(v); f != nil {
			return f
		}
	}
	reading.Values = values.values
	r.remember(reading.Values)
	return nil
}

// fieldValue reads a field; the name is left to the caller.
func fieldValue(key []byte, field lineprotocol.Value) (telemetry.Value, *fault) {
	var v telemetry.Value
	switch field.Kind() {
	case lineprotocol.Int:
		n := field.IntV()
		if n > telemetry.MaxInteger || n < -telemetry.MaxInteger {
			return v, faultf("integer_too_large", "field %.100q, %d, is an integer beyond 2^53", key, n)
		}
		v.Number = float64(n)
	case lineprotocol.Uint:
		n := field.UintV()
		if n > telemetry.MaxInteger {
			return v, faultf("integer_too_large", "field %.100q, %d, is an integer beyond 2^53", key, n)
		}
		v.Number = float64(n)
	case lineprotocol.Float:
		if v.Number = field.FloatV(); !telemetry.Finite(v.Number) {
			return v, faultf("not_finite", "field %.100q is not a finite number", key)
		}
	case lineprotocol.Bool:
		if field.BoolV() {
			v.Number = 1
		}
	case lineprotocol.String:
		v.Text = field.StringV()
		if len(v.Text) > telemetry.MaxTextBytes {
			return v, faultf("text_too_long", "the word of field %.100q has %d bytes, at most %d are kept", key, len(v.Text), telemetry.MaxTextBytes)
		}
	}
	return v, nil
}

// maxDelaySeconds is a century: beyond it delay_s is nonsense.
const maxDelaySeconds = 100 * 365 * 24 * 3600

func fieldNumber(field lineprotocol.Value) (float64, bool) {
	switch field.Kind() {
	case lineprotocol.Float:
		return field.FloatV(), true
	case lineprotocol.Int:
		return float64(field.IntV()), true
	case lineprotocol.Uint:
		return float64(field.UintV()), true
	}
	return 0, false
}

// ParseLine reads one line of InfluxDB line protocol whose tag device names the
// device, as InfluxDB's own write endpoints and exports have it. unit is that of
// the timestamp; 0: seen from its size.
func ParseLine(line []byte, unit time.Duration) (telemetry.Reading, error) {
	r := route{family: familyInflux, format: formatInflux, unit: unit}
	d := lineprotocol.NewDecoderWithBytes(line)
	if !d.Next() {
		return telemetry.Reading{}, errors.New("the line is empty")
	}
	reading, f := r.decodeLine(d)
	switch {
	case f != nil:
		return telemetry.Reading{}, errors.New(f.detail)
	case reading.Device == "":
		return telemetry.Reading{}, errors.New("the tag device, whose reading this is, is missing")
	case d.Next():
		return telemetry.Reading{}, errors.New("more than one line")
	}
	return reading, nil
}

// scaled is the Unix time n in the given unit.
func scaled(n int64, unit time.Duration) (time.Time, error) {
	perSecond := int64(time.Second / unit)
	if perSecond == 0 {
		seconds := int64(unit / time.Second)
		if n > math.MaxInt32*60 || n < -math.MaxInt32*60 {
			return time.Time{}, fmt.Errorf("timestamp %d is out of range in units of %s", n, unit)
		}
		return time.Unix(n*seconds, 0), nil
	}
	return time.Unix(n/perSecond, n%perSecond*int64(unit)), nil
}
