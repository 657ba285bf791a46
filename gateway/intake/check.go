package intake

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

// check returns why a reading cannot be used: one word for counting and a
// sentence for people, or "".
func (in *Intake) check(known *Known, r *telemetry.Reading) (reason, detail string) {
	switch {
	case !telemetry.ValidName(r.Device):
		return "bad_name", fmt.Sprintf("device %q: want at most %d letters, digits and ._:- that begin with a letter or digit", r.Device, telemetry.MaxNameRunes)
	case !telemetry.ValidName(r.Kind):
		return "bad_name", fmt.Sprintf("kind %q: want at most %d letters, digits and ._:- that begin with a letter or digit", r.Kind, telemetry.MaxNameRunes)
	case telemetry.OwnKind(r.Kind):
		return "bad_name", fmt.Sprintf("kind %q is the gateway's own", r.Kind)
	case len(r.Values) == 0:
		return "no_values", "a reading has at least one value"
	case len(r.Values) > telemetry.MaxValues:
		return "too_many_values", fmt.Sprintf("%d values; at most %d", len(r.Values), telemetry.MaxValues)
	}
	if reason, detail := checkTags(r); reason != "" {
		return reason, detail
	}
	kind := known.Kinds.Kind(r.Kind)
	if kind == nil {
		if in.opts.Strict {
			return "unknown_kind", fmt.Sprintf("kind %q is not in the catalogue (strict)", r.Kind)
		}
		in.seenUnknown(r.Kind)
	}
	size := 0
	for i := range r.Values {
		v := &r.Values[i]
		if reason, detail := checkValue(v); reason != "" {
			return reason, detail
		}
		size += len(v.Name) + len(v.Text)
		if q := quantity(kind, v.Name); q != nil && !q.Words && v.Text != "" && in.opts.Strict {
			if _, err := strconv.ParseFloat(strings.TrimSpace(v.Text), 64); err != nil {
				return "word_for_number", fmt.Sprintf("value %s of kind %s is a number in %s, not %q (strict)", v.Name, r.Kind, q.Unit, v.Text)
			}
		}
		if kind != nil && kind.Quantity(v.Name) == nil && v.Name != "device_time" {
			if in.opts.Strict {
				return "unknown_value", fmt.Sprintf("value %q is not one of kind %s in the catalogue (strict)", v.Name, r.Kind)
			}
			in.seenUnknown(r.Kind + "." + v.Name)
		}
	}
	if size > MaxReadingBytes {
		return "too_large", fmt.Sprintf("%d bytes of names and words; at most %d", size, MaxReadingBytes)
	}
	return "", ""
}

// MaxReadingBytes bounds the names and words of a reading: its line, however it
// is escaped, must fit into a frame of the log.
const MaxReadingBytes = 192 << 10

func checkValue(v *telemetry.Value) (reason, detail string) {
	switch {
	case !telemetry.ValidName(v.Name):
		return "bad_name", fmt.Sprintf("value %q: want at most %d letters, digits and ._:- that begin with a letter or digit", v.Name, telemetry.MaxNameRunes)
	case telemetry.Reserved(v.Name):
		return "reserved_name", fmt.Sprintf("value %q: the names time, device, site, quality and delay_s are the gateway's own", v.Name)
	case !telemetry.Finite(v.Number):
		return "not_finite", fmt.Sprintf("value %s is %v, not a number", v.Name, v.Number)
	case len(v.Text) > telemetry.MaxTextBytes:
		return "text_too_long", fmt.Sprintf("value %s has %d bytes of text; at most %d", v.Name, len(v.Text), telemetry.MaxTextBytes)
	case v.Text != "" && !utf8.ValidString(v.Text):
		return "bad_text", fmt.Sprintf("value %s is not UTF-8", v.Name)
	}
	return "", ""
}

func checkTags(r *telemetry.Reading) (reason, detail string) {
	if len(r.Tags) == 0 {
		return "", ""
	}
	if len(r.Tags) > telemetry.MaxTags {
		return "too_many_tags", fmt.Sprintf("%d extra tags; at most %d", len(r.Tags), telemetry.MaxTags)
	}
	sort.Slice(r.Tags, func(i, j int) bool { return r.Tags[i].Key < r.Tags[j].Key })
	for i, t := range r.Tags {
		switch {
		case !telemetry.ValidName(t.Key) || telemetry.Reserved(t.Key):
			return "bad_name", fmt.Sprintf("tag %q: want letters, digits and ._:-, not time, device, site, quality or delay_s", t.Key)
		case !telemetry.ValidName(t.Value):
			return "bad_name", fmt.Sprintf("tag %s is %q: want letters, digits and ._:-", t.Key, t.Value)
		case i > 0 && r.Tags[i-1].Key == t.Key:
			return "bad_name", fmt.Sprintf("tag %q is there twice", t.Key)
		}
	}
	return "", ""
}
