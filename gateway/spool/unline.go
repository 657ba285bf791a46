package spool

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"haidang/gateway/telemetry"
)

const (
	maxWords     = 16 << 10 // interned names and words of a decoder
	maxWordBytes = 64       // longer words are not interned
)

// A LineDecoder reads line protocol into readings. Device, kind, site and value
// names come again and again, so it keeps them (bounded) and hands out the same
// strings. It is not safe for concurrent use.
type LineDecoder struct {
	words map[string]string
	slab  []telemetry.Value // values of the readings handed out last
}

// NewLineDecoder returns a decoder.
func NewLineDecoder() *LineDecoder { return &LineDecoder{words: map[string]string{}} }

// Decode appends the readings of lines to dst. It reads what AppendReading
// writes, and any other line protocol as well: integers and booleans become
// numbers, a string field without the ending _text keeps its name. The error
// names the line; dst is returned as it was then. The readings do not refer to
// lines.
func (d *LineDecoder) Decode(dst []telemetry.Reading, lines []byte) ([]telemetry.Reading, error) {
	out := dst
	dec := lineprotocol.NewDecoderWithBytes(lines)
	for dec.Next() {
		n := len(out)
		if n == cap(out) {
			out = append(make([]telemetry.Reading, 0, max(2*n, 16)), out...)
		}
		out = out[:n+1]
		out[n] = telemetry.Reading{}
		if err := d.reading(dec, &out[n]); err != nil {
			return dst, fmt.Errorf("line %d: %w", n-len(dst)+1, err)
		}
	}
	return out, nil
}

func (d *LineDecoder) reading(dec *lineprotocol.Decoder, r *telemetry.Reading) error {
	kind, err := dec.Measurement()
	if err != nil {
		return err
	}
	r.Kind = d.word(kind)
	if err := d.tags(dec, r); err != nil {
		return err
	}
	if err := d.fields(dec, r); err != nil {
		return err
	}
	t, err := dec.Time(lineprotocol.Nanosecond, time.Time{})
	if err != nil {
		return err
	}
	if !t.IsZero() {
		t = t.UTC()
	}
	r.Time = t
	return nil
}

func (d *LineDecoder) tags(dec *lineprotocol.Decoder, r *telemetry.Reading) error {
	for {
		key, value, err := dec.NextTag()
		if err != nil || key == nil {
			return err
		}
		switch string(key) {
		case "device":
			r.Device = d.word(value)
		case "site":
			r.Site = d.word(value)
		default:
			// The key lies in the decoder's buffer only until the next call.
			r.Tags = append(r.Tags, telemetry.Tag{Key: d.word(key), Value: d.word(value)})
		}
	}
}

func (d *LineDecoder) fields(dec *lineprotocol.Decoder, r *telemetry.Reading) error {
	for {
		key, kind, raw, err := dec.NextFieldBytes()
		if err != nil {
			return err
		}
		if key == nil {
			break
		}
		if kind == lineprotocol.String {
			d.textField(r, key, raw)
			continue
		}
		if string(key) == "delay_s" {
			if r.Delay, err = parseSeconds(kind, raw); err != nil {
				return err
			}
			continue
		}
		f, err := parseNumber(kind, raw)
		if err != nil {
			return fmt.Errorf("field %q: %w", key, err)
		}
		d.add(r, telemetry.Value{Name: d.word(key), Number: f})
	}
	// A reading owns its values: whoever appends to them must not reach the next.
	r.Values = r.Values[:len(r.Values):len(r.Values)]
	return nil
}

func (d *LineDecoder) textField(r *telemetry.Reading, key, raw []byte) {
	if string(key) == "quality" {
		if q, err := telemetry.ParseQuality(d.word(raw)); err == nil {
			r.Quality = q
		}
		return
	}
	if name, ok := bytes.CutSuffix(key, []byte("_quality")); ok {
		for i := len(r.Values) - 1; i >= 0; i-- {
			if r.Values[i].Name != string(name) {
				continue
			}
			if q, err := telemetry.ParseQuality(d.word(raw)); err == nil {
				r.Values[i].Quality = q
				return
			}
			break
		}
	}
	if len(raw) == 0 {
		return // an empty word is no value
	}
	name, ok := bytes.CutSuffix(key, []byte("_text"))
	if !ok || len(name) == 0 {
		name = key
	}
	d.add(r, telemetry.Value{Name: d.word(name), Text: d.word(raw)})
}

// add puts a value behind those of r, which are the last ones in the slab.
func (d *LineDecoder) add(r *telemetry.Reading, v telemetry.Value) {
	if len(d.slab) == cap(d.slab) {
		slab := make([]telemetry.Value, 0, max(64, min(2*cap(d.slab), 4096), 2*len(r.Values)))
		d.slab = append(slab, r.Values...)
		r.Values = d.slab
	}
	n := len(r.Values)
	d.slab = append(d.slab, v)
	r.Values = d.slab[len(d.slab)-n-1:]
}

func (d *LineDecoder) word(b []byte) string {
	if len(b) > maxWordBytes {
		return string(b)
	}
	if s, ok := d.words[string(b)]; ok {
		return s
	}
	if len(d.words) >= maxWords {
		clear(d.words)
	}
	s := string(b)
	d.words[s] = s
	return s
}

// pow10 holds the powers of ten that a float64 holds exactly and the fast path
// of parseNumber can meet.
var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// parseNumber reads a number. Up to 15 digits without an exponent the quotient
// of two exact float64 is the correctly rounded result (W. D. Clinger, How to
// read floating point numbers accurately, 1990); the rest goes the long way.
func parseNumber(kind lineprotocol.ValueKind, raw []byte) (float64, error) {
	if kind == lineprotocol.Float {
		if f, ok := parseShort(raw); ok {
			return f, nil
		}
	}
	v, err := lineprotocol.NewValueFromBytes(kind, raw)
	if err != nil {
		return 0, err
	}
	switch v.Kind() {
	case lineprotocol.Int:
		return float64(v.IntV()), nil
	case lineprotocol.Uint:
		return float64(v.UintV()), nil
	case lineprotocol.Bool:
		if v.BoolV() {
			return 1, nil
		}
		return 0, nil
	}
	return v.FloatV(), nil
}

func parseShort(raw []byte) (float64, bool) {
	digits, negative := raw, false
	if len(digits) > 0 && digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	mantissa, point := uint64(0), -1
	if len(digits) == 0 || len(digits) > 16 {
		return 0, false
	}
	for i, c := range digits {
		switch {
		case c >= '0' && c <= '9':
			mantissa = mantissa*10 + uint64(c-'0')
		case c == '.' && point < 0 && i > 0:
			point = i
		default:
			return 0, false
		}
	}
	decimals := 0
	if point >= 0 {
		decimals = len(digits) - 1 - point
	}
	if mantissa > 1e15 {
		return 0, false
	}
	f := float64(mantissa) / pow10[decimals]
	if negative {
		f = -f
	}
	return f, true
}

// parseSeconds reads delay_s; what appendSeconds wrote comes back exactly.
func parseSeconds(kind lineprotocol.ValueKind, raw []byte) (time.Duration, error) {
	whole, fraction, _ := bytes.Cut(raw, []byte("."))
	if kind == lineprotocol.Float && len(whole) > 0 && len(whole) <= 10 && len(fraction) <= 9 {
		if w, ok := parseShort(whole); ok && w >= 0 && w < math.MaxInt64/1e9 {
			f, ok := 0.0, true
			if len(fraction) > 0 {
				f, ok = parseShort(fraction)
			}
			if ok && f >= 0 {
				ns := int64(f)
				for range 9 - len(fraction) {
					ns *= 10
				}
				return time.Duration(int64(w)*1e9 + ns), nil
			}
		}
	}
	f, err := parseNumber(kind, raw)
	if err != nil {
		return 0, fmt.Errorf("field delay_s: %w", err)
	}
	return time.Duration(math.Max(math.Min(math.Round(f*1e9), math.MaxInt64/2), 0)), nil
}
