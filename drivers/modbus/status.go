package modbus

import (
	"fmt"
	"slices"
	"strings"

	"haidang/gateway/telemetry"
)

// A Status is a register with which the instrument judges its own values.
type Status struct {
	Name    string                      `yaml:"name"`    // for messages and a unit's omit: status.<name>
	Address int                         `yaml:"address"` // as of a Register, and so the next four
	Table   string                      `yaml:"table"`
	Type    string                      `yaml:"type"` // int16, uint16, int32 or uint32; default uint16
	Order   string                      `yaml:"order"`
	Mask    uint64                      `yaml:"mask"`
	Map     map[int64]telemetry.Quality `yaml:"map"`     // the quality for each code
	Default *telemetry.Quality          `yaml:"default"` // for codes that the map lacks; default bad
	Values  []string                    `yaml:"values"`  // kind.value that it judges; none: all
}

// statusPrefix begins the names of statuses where values are named.
const statusPrefix = "status."

// register is the status as something to read.
func (s *Status) register() *Register {
	r := &Register{Value: statusPrefix + s.Name, Address: s.Address, Table: s.Table, Type: s.Type, Order: s.Order, Mask: s.Mask}
	r.fill()
	return r
}

func (s *Status) validate(p *Profile) []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if !telemetry.ValidName(s.Name) {
		fault("name", "status name %q is not a name of letters, digits and ._:- that begins with a letter or digit", s.Name)
		return faults
	}
	r := s.register()
	faults = append(faults, r.validate(p)...)
	switch r.Type {
	case "", "int16", "uint16", "int32", "uint32":
	default:
		fault("type", "a status of type %q, expected int16, uint16, int32 or uint32", r.Type)
	}
	if len(s.Map) == 0 {
		fault("map", "a status without a map judges nothing; expected codes and qualities, as in {0: good, 1: suspect}")
	}
	for i, value := range s.Values {
		if !p.has(value) {
			fault(fmt.Sprintf("values[%d]", i), "the profile has no value %q; it has %s", value, strings.Join(p.Values(), ", "))
		}
	}
	return faults
}

func (s *Status) judges(kind, value string) bool {
	return len(s.Values) == 0 || slices.Contains(s.Values, kind+"."+value)
}

// quality is what a code means.
func (s *Status) quality(code float64) telemetry.Quality {
	if q, ok := s.Map[int64(code)]; ok {
		return q
	}
	if s.Default != nil {
		return *s.Default
	}
	return telemetry.Bad
}

// A harvest is what one poll of a unit brings.
type harvest struct {
	readings []telemetry.Reading
	verdicts []telemetry.Quality // by status of the unit; suspect until it was read
}

// harvest makes an empty one with room for the values.
func (u *unit) harvest() *harvest {
	h := &harvest{readings: make([]telemetry.Reading, len(u.kinds))}
	for i, kind := range u.kinds {
		h.readings[i] = telemetry.Reading{Device: u.config.Device, Kind: kind, Values: make([]telemetry.Value, 0, u.sizes[i])}
	}
	if len(u.statuses) > 0 {
		h.verdicts = make([]telemetry.Quality, len(u.statuses))
		for i := range h.verdicts {
			h.verdicts[i] = telemetry.Suspect
		}
	}
	return h
}

// judged returns the readings that have values, with the quality that the
// statuses of the unit give them. Values whose status could not be read are
// suspect.
func (h *harvest) judged(u *unit) []telemetry.Reading {
	out := h.readings[:0]
	for _, r := range h.readings {
		if len(r.Values) == 0 {
			continue
		}
		for i := range r.Values {
			v := &r.Values[i]
			for j, s := range u.statuses {
				if s.judges(r.Kind, v.Name) {
					v.Quality = max(v.Quality, h.verdicts[j])
				}
			}
			r.Quality = max(r.Quality, v.Quality)
		}
		out = append(out, r)
	}
	return out
}
