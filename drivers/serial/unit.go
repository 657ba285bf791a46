package serial

import (
	"math"
	"slices"
	"strings"
)

// A unit is what an instrument counts in: base units = number*factor + offset.
type unit struct {
	dimension string
	factor    float64
	offset    float64
}

// unitOf returns a unit by the name that configuration gives it.
func unitOf(name string) (unit, bool) {
	i := slices.IndexFunc(units, func(u namedUnit) bool { return u.name == name })
	if i < 0 {
		return unit{}, false
	}
	return units[i].unit, true
}

type namedUnit struct {
	name   string
	suffix string // of values in this unit; "": no value is named by it
	unit
}

// units are exact by definition, but for mmHg and inHg (conventional values, NIST
// SP 811, appendix B.8).
var units = []namedUnit{
	{"m", "m", unit{"length", 1, 0}},
	{"mm", "mm", unit{"length", 1e-3, 0}},
	{"cm", "cm", unit{"length", 1e-2, 0}},
	{"km", "km", unit{"length", 1e3, 0}},
	{"in", "", unit{"length", 0.0254, 0}},
	{"ft", "", unit{"length", 0.3048, 0}},
	{"fathom", "", unit{"length", 1.8288, 0}},

	{"m/s", "ms", unit{"speed", 1, 0}},
	{"km/h", "kmh", unit{"speed", 1 / 3.6, 0}},
	{"kn", "kn", unit{"speed", 1852.0 / 3600, 0}},
	{"mph", "", unit{"speed", 0.44704, 0}},
	{"ft/s", "", unit{"speed", 0.3048, 0}},

	{"C", "c", unit{"temperature", 1, 0}},
	{"F", "", unit{"temperature", 5.0 / 9, -160.0 / 9}},
	{"K", "k", unit{"temperature", 1, -273.15}},

	{"hPa", "hpa", unit{"pressure", 1, 0}},
	{"mbar", "", unit{"pressure", 1, 0}},
	{"Pa", "pa", unit{"pressure", 0.01, 0}},
	{"kPa", "kpa", unit{"pressure", 10, 0}},
	{"bar", "bar", unit{"pressure", 1000, 0}},
	{"mmHg", "", unit{"pressure", 1.333224, 0}},
	{"inHg", "", unit{"pressure", 33.86389, 0}},
	{"psi", "", unit{"pressure", 68.94757, 0}},

	{"mm/h", "mmh", unit{"rain", 1, 0}},
	{"mm/min", "", unit{"rain", 60, 0}},
	{"in/h", "", unit{"rain", 25.4, 0}},

	{"V", "v", unit{"voltage", 1, 0}},
	{"mV", "mv", unit{"voltage", 1e-3, 0}},

	{"mS/cm", "mscm", unit{"conductivity", 1, 0}},
	{"uS/cm", "uscm", unit{"conductivity", 1e-3, 0}},
	{"S/m", "", unit{"conductivity", 10, 0}},

	{"m3/s", "m3s", unit{"flow", 1, 0}},
	{"L/s", "ls", unit{"flow", 1e-3, 0}},
	{"m3/h", "", unit{"flow", 1.0 / 3600, 0}},

	{"deg", "deg", unit{"angle", 1, 0}},
	{"rad", "", unit{"angle", 180 / math.Pi, 0}},
	{"%", "pct", unit{"ratio", 1, 0}},
}

// unitNames lists the units for messages.
func unitNames() string {
	names := make([]string, len(units))
	for i, u := range units {
		names[i] = u.name
	}
	return strings.Join(names, " ")
}

// unitIn returns the unit that a value's name ends with, as in level_m.
func unitIn(value string) (unit, bool) {
	i := strings.LastIndexByte(value, '_')
	if i < 0 {
		return unit{}, false
	}
	for _, u := range units {
		if u.suffix != "" && u.suffix == value[i+1:] {
			return u.unit, true
		}
	}
	return unit{}, false
}

// A scale turns an instrument's number into a value's.
type scale struct{ factor, offset float64 }

func (s scale) of(number float64) float64 { return tidy(number*s.factor + s.offset) }

// then applies another factor and offset after the scale.
func (s scale) then(factor, offset float64) scale {
	return scale{s.factor * factor, s.offset*factor + offset}
}

// between returns what turns numbers in one unit into another, and false when
// they measure different things.
func between(from, to unit) (scale, bool) {
	if from.dimension != to.dimension {
		return scale{}, false
	}
	return scale{from.factor / to.factor, (from.offset - to.offset) / to.factor}, true
}

// same is the scale that changes nothing.
func same() scale { return scale{1, 0} }

// tidy rounds to 9 decimals, far below what instruments resolve, so that 16.1 m
// does not become 16.100000000000001.
func tidy(f float64) float64 {
	r := math.Round(f*1e9) / 1e9
	if math.IsInf(r, 0) {
		return f
	}
	return r
}
