package broker

import "haidang/gateway/telemetry"

// seenFrom is the number of values from which on names are looked up in a map.
const seenFrom = 32

// A valueSet is the values of a reading that is being read; the last one of a
// name wins.
type valueSet struct {
	values []telemetry.Value
	seen   map[string]int // index by name; nil while there are few
}

// newValueSet makes a set that expects as many values as the last reading had.
func newValueSet(r *route) valueSet {
	n := len(r.names)
	if n == 0 {
		n = 4
	}
	return valueSet{values: make([]telemetry.Value, 0, n)}
}

// find returns the index of the value called name, or -1.
func (s *valueSet) find(name string) int {
	if len(s.values) < seenFrom {
		for i := range s.values {
			if s.values[i].Name == name {
				return i
			}
		}
		return -1
	}
	if len(s.seen) != len(s.values) {
		s.seen = make(map[string]int, 2*len(s.values))
		for i := range s.values {
			s.seen[s.values[i].Name] = i
		}
	}
	if i, ok := s.seen[name]; ok {
		return i
	}
	return -1
}

// put adds a value or replaces the one of its name.
func (s *valueSet) put(value telemetry.Value) *fault {
	if i := s.find(value.Name); i >= 0 {
		s.values[i] = value
		return nil
	}
	if len(s.values) == telemetry.MaxValues {
		return faultf("too_many_values", "more than %d values", telemetry.MaxValues)
	}
	if s.seen != nil {
		s.seen[value.Name] = len(s.values)
	}
	s.values = append(s.values, value)
	return nil
}

// unset takes the value called name out and reports whether there was one.
func (s *valueSet) unset(name string) bool {
	i := s.find(name)
	if i < 0 {
		return false
	}
	s.values, s.seen = append(s.values[:i], s.values[i+1:]...), nil
	return true
}

// valueName returns key as a name, the string in use when there is one.
func (r *route) valueName(key []byte) (string, *fault) {
	for _, name := range r.names {
		if name == string(key) {
			return name, nil
		}
	}
	name := string(key)
	switch {
	case telemetry.Reserved(name):
		return "", faultf("reserved_name", "value %q: time, device, site, quality and delay_s are written by the gateway itself", name)
	case !telemetry.ValidName(name):
		return "", faultf("bad_name", "value %.200q is not a name of at most %d letters, digits and ._:- that begins with a letter or digit", name, telemetry.MaxNameRunes)
	}
	return name, nil
}

// remember keeps the names of a reading for the next one, which most often has
// the same.
func (r *route) remember(values []telemetry.Value) {
	const most = 64
	if len(values) < len(r.names) || len(values) > most {
		return
	}
	same := len(values) == len(r.names)
	for i := 0; same && i < len(values); i++ {
		same = values[i].Name == r.names[i]
	}
	if same {
		return
	}
	names := make([]string, len(values))
	for i := range values {
		names[i] = values[i].Name
	}
	r.names = names
}

// cost estimates the memory that readings take while they are pending, in bytes.
func cost(readings []telemetry.Reading) int64 {
	bytes := int64(0)
	for i := range readings {
		bytes += 160
		for j := range readings[i].Values {
			bytes += 56 + int64(len(readings[i].Values[j].Text))
		}
	}
	return bytes
}

// pow10 returns 10^n for n in 0..22, which float64 holds exactly.
func pow10(n int) float64 {
	return [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}[n]
}
