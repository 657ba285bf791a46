package senml

import (
	"strings"

	"haidang/gateway/telemetry"
)

// A unit is one of the register of SenML units (RFC 8428, 12.1, and the secondary
// units of RFC 8798): base = number*factor + offset in the base unit of its
// dimension.
type unit struct {
	dimension      string
	factor, offset float64
	ending         string // what values in it end with where their name says no unit
}

// unitOf returns a unit of the register that has an ending here.
func unitOf(name string) (unit, bool) {
	switch name {
	case "m":
		return unit{"length", 1, 0, "m"}, true
	case "mm":
		return unit{"length", 1e-3, 0, "mm"}, true
	case "cm":
		return unit{"length", 1e-2, 0, "m"}, true
	case "km":
		return unit{"length", 1e3, 0, "m"}, true
	case "Cel":
		return unit{"temperature", 1, 0, "c"}, true
	case "K":
		return unit{"temperature", 1, -273.15, "c"}, true
	case "Pa":
		return unit{"pressure", 1, 0, "hpa"}, true
	case "hPa":
		return unit{"pressure", 100, 0, "hpa"}, true
	case "kPa":
		return unit{"pressure", 1000, 0, "hpa"}, true
	case "%RH", "%EL", "%":
		return unit{"share", 1, 0, "pct"}, true
	case "/":
		return unit{"share", 100, 0, "pct"}, true
	case "m/s":
		return unit{"speed", 1, 0, "ms"}, true
	case "km/h":
		return unit{"speed", 1 / 3.6, 0, "ms"}, true
	case "m3/s":
		return unit{"flow", 1, 0, "m3s"}, true
	case "l/s":
		return unit{"flow", 1e-3, 0, "m3s"}, true
	case "mm/h":
		return unit{"rain", 1, 0, "mmh"}, true
	case "V":
		return unit{"voltage", 1, 0, "v"}, true
	case "mV":
		return unit{"voltage", 1e-3, 0, "v"}, true
	case "A":
		return unit{"current", 1, 0, "a"}, true
	case "mA":
		return unit{"current", 1e-3, 0, "a"}, true
	case "W":
		return unit{"power", 1, 0, "w"}, true
	case "kW":
		return unit{"power", 1e3, 0, "kw"}, true
	case "J":
		return unit{"energy", 1, 0, "j"}, true
	case "kWh":
		return unit{"energy", 3.6e6, 0, "kwh"}, true
	case "lx":
		return unit{"light", 1, 0, "lx"}, true
	case "W/m2":
		return unit{"radiation", 1, 0, "wm2"}, true
	case "S/m":
		return unit{"conductivity", 10, 0, "mscm"}, true
	case "mg/l":
		return unit{"concentration", 1, 0, "mgl"}, true
	case "ug/m3":
		return unit{"dust", 1, 0, "ugm3"}, true
	case "deg":
		return unit{"angle", 1, 0, "deg"}, true
	case "rad":
		return unit{"angle", 180 / 3.141592653589793, 0, "deg"}, true
	case "dBm":
		return unit{"level", 1, 0, "dbm"}, true
	case "s":
		return unit{"time", 1, 0, "s"}, true
	case "lat", "lon":
		return unit{"position", 1, 0, ""}, true
	}
	return unit{}, false
}

// endings are the units at the end of values' names.
func endingOf(name string) (unit, bool) {
	at := strings.LastIndexByte(name, '_')
	if at < 1 {
		return unit{}, false
	}
	spelled := map[string]string{
		"m": "m", "mm": "mm", "c": "Cel", "hpa": "hPa", "pct": "%", "ms": "m/s", "m3s": "m3/s", "mmh": "mm/h", "v": "V", "a": "A", "w": "W", "kw": "kW",
		"j": "J", "kwh": "kWh", "lx": "lx", "wm2": "W/m2", "mscm": "S/m", "mgl": "mg/l", "ugm3": "ug/m3", "deg": "deg", "dbm": "dBm", "s": "s",
	}[name[at+1:]]
	u, ok := unitOf(spelled)
	if spelled == "S/m" {
		u.factor = 1 // the ending is mS/cm, the base of the dimension
	}
	return u, ok
}

// inUnit makes a value of a number in a unit: converted to the unit that the
// name ends with, or with the unit's ending added.
func inUnit(name, from string, number float64) (telemetry.Value, *refusal) {
	v := telemetry.Value{Name: name, Number: number}
	given, known := unitOf(from)
	if known && given.ending != "" {
		to, named := endingOf(name)
		switch {
		case named && to.dimension != given.dimension:
			return v, refuse("unit_differs", "%q is in %s, which is no unit for _%s", name, from, to.ending)
		case !named:
			v.Name = name + "_" + given.ending
			to, _ = endingOf(v.Name)
		}
		if to != given {
			v.Number = (number*given.factor + given.offset - to.offset) / to.factor
		}
	}
	if !telemetry.Finite(v.Number) {
		return v, refuse("not_finite", "%q is beyond the range of a float64", name)
	}
	return v, nil
}
