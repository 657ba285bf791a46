package serial

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// A Value says which field of an instrument's line is which value.
type Value struct {
	// From names the field: a group of the pattern, a column (from 1) of the line,
	// the position (from 1) of an SDI-12 value, a parameter of a Vaisala message
	// (Sm), the name of an XDR transducer or its type and name (C:AIRTEMP).
	From string `yaml:"from"`
	// To is kind.value, as in river.level_m.
	To string `yaml:"to"`
	// Unit is the instrument's, where it is not the one in the value's name:
	// mm, ft, kn, F, ... Lines that carry units need none.
	Unit string `yaml:"unit"`
	// Scale and Offset are applied after the unit: number*scale + offset.
	// A scale of 0 means 1.
	Scale  float64 `yaml:"scale"`
	Offset float64 `yaml:"offset"`
	// Missing are the texts with which the instrument says that it has no value,
	// as in "9999". A number is compared as a number.
	Missing []string `yaml:"missing"`
}

// validate returns what is wrong. Lines of formats that carry units must not be
// given one.
func (v *Value) validate(carriesUnits bool) []telemetry.Fault {
	var faults []telemetry.Fault
	if v.From == "" {
		faults = append(faults, telemetry.Faultf("from", "the field of the line is missing"))
	}
	kind, name, ok := strings.Cut(v.To, ".")
	if !ok || !telemetry.ValidName(kind) || !telemetry.ValidName(name) || telemetry.Reserved(name) {
		faults = append(faults, telemetry.Faultf("to", "%q is not kind.value, as in river.level_m", v.To))
	}
	switch _, known := unitOf(v.Unit); {
	case v.Unit == "":
	case carriesUnits:
		faults = append(faults, telemetry.Faultf("unit", "the lines of this format carry their units: want no unit"))
	case !known:
		faults = append(faults, telemetry.Faultf("unit", "unit %q is not one of %s", v.Unit, unitNames()))
	case ok:
		if _, fits := v.scale(v.Unit); !fits {
			faults = append(faults, telemetry.Faultf("unit", "unit %q cannot become the unit in the name %q", v.Unit, name))
		}
	}
	if !telemetry.Finite(v.Scale) || !telemetry.Finite(v.Offset) {
		faults = append(faults, telemetry.Faultf("scale", "scale %v and offset %v must be numbers", v.Scale, v.Offset))
	}
	return faults
}

// validateValues returns what is wrong in a list of values.
func validateValues(values []Value, carriesUnits bool) []telemetry.Fault {
	var faults []telemetry.Fault
	seen := map[string]bool{}
	for i := range values {
		at := fmt.Sprintf("values[%d]", i)
		faults = append(faults, telemetry.Under(at, values[i].validate(carriesUnits))...)
		if to := values[i].To; seen[to] && to != "" {
			faults = append(faults, telemetry.Faultf(at+".to", "%q is there twice", to))
		}
		seen[values[i].To] = true
	}
	return faults
}

// scale returns what turns a number in the unit into the value's, and false
// when the unit in the value's name measures something else.
func (v *Value) scale(unitName string) (scale, bool) {
	s := same()
	if unitName != "" {
		from, ok := unitOf(unitName)
		if !ok {
			return s, false
		}
		_, name, _ := strings.Cut(v.To, ".")
		to, ok := unitIn(name)
		if !ok {
			return s, false
		}
		if s, ok = between(from, to); !ok {
			return s, false
		}
	}
	factor := v.Scale
	if factor == 0 {
		factor = 1
	}
	return s.then(factor, v.Offset), true
}

// A field is a Value made ready.
type field struct {
	from    string
	kind    string
	name    string
	fixed   scale // for numbers without a unit of their own
	value   Value
	missing []string
}

// newField makes a valid Value ready.
func newField(v Value) field {
	f := field{from: v.From, value: v, missing: v.Missing}
	f.kind, f.name, _ = strings.Cut(v.To, ".")
	f.fixed, _ = v.scale(v.Unit)
	return f
}

func newFields(values []Value) []field {
	fields := make([]field, len(values))
	for i, v := range values {
		fields[i] = newField(v)
	}
	return fields
}

// absent reports whether the text says that there is no value.
func (f *field) absent(text string) bool {
	if text == "" {
		return true
	}
	number, err := strconv.ParseFloat(text, 64)
	for _, m := range f.missing {
		if m == text {
			return true
		}
		if n, bad := strconv.ParseFloat(m, 64); err == nil && bad == nil && n == number {
			return true
		}
	}
	return false
}

// parseNumber reads a decimal number as instruments write it: no hexadecimal,
// no infinity, no exponent.
func parseNumber(text string) (float64, bool) {
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' {
			return 0, false
		}
	}
	number, err := strconv.ParseFloat(text, 64)
	return number, err == nil && telemetry.Finite(number) && math.Abs(number) < telemetry.MaxInteger
}
