package mapping

import (
	"fmt"
	"strings"

	"haidang/gateway/telemetry"
)

// A Mapping is one entry of `mappings` in the configuration: how messages on
// some topics become Readings.
type Mapping struct {
	// Use is the name of a built-in mapping, which the other keys then change: Root
	// and Device in all that belongs to it, the others in the first of it, which is
	// for what the device measures.
	Use  string `yaml:"use"`
	Root string `yaml:"root"` // of Use: instead of the first level of its topics

	Name   string `yaml:"name"`   // for messages; default the topic
	Topic  string `yaml:"topic"`  // a filter with named levels: farm/{device}/data
	Format string `yaml:"format"` // json (default), raw (the payload is one value) or influx

	// PassOver passes over payloads that have none of the values, for topics that
	// carry other things as well; else they are set aside.
	PassOver bool `yaml:"pass_over"`

	Part `yaml:",inline"`

	// Parts are several readings of one payload. What a part leaves out of device,
	// kind and time is that of the mapping.
	Parts []Part `yaml:"readings"`
}

// A Part says how one reading is made, or with Each how several are.
type Part struct {
	Each string `yaml:"each"` // path of an array or an object: a reading for each element
	Keys string `yaml:"keys"` // of Each in an object: only keys that fit this pattern with * and ?
	// When are what the payload must say, by path: a word, number or truth, after a
	// ! one that it must not say.
	When map[string]string `yaml:"when"`

	Device string `yaml:"device"` // template
	Kind   string `yaml:"kind"`   // template; in line protocol default the measurement
	Time   Time   `yaml:"time"`

	// Values are the values of the reading by name, a template: the path, a list of
	// paths of which the first that is there counts, a number that is always the
	// same, or path, scale, offset, words, none and as, see Value.
	Values map[string]any `yaml:"values"`
	// All is the path of an object all of whose members become values, nested ones
	// by names joined with _, apart from those in Except. A member that is no name
	// is made one, as by the filter slug with _.
	All    string            `yaml:"all"`
	Except []string          `yaml:"except"` // members of all that become no values
	Rename map[string]string `yaml:"rename"` // value names: from what they would be called
}

// Time says where the time of a reading is; without a path the gateway stamps
// the time of receipt.
type Time struct {
	Path string `yaml:"path"` // RFC 3339, or Unix s, ms, us, ns
	// Zone is the time zone of times without one (2026-11-22T08:00:00), as
	// Asia/Ho_Chi_Minh; without it such a time cannot be used.
	Zone string `yaml:"zone"`
	// Layout is how the time is written, as Go's reference time (02/01/2006
	// 15:04); default RFC 3339 with or without a zone, or a Unix time.
	Layout string `yaml:"layout"`
}

// Formats of payloads.
const (
	FormatJSON   = "json"
	FormatRaw    = "raw"
	FormatInflux = "influx"
)

// Bounds of a mapping and of what it makes.
const (
	maxMappings = 1000
	maxReadings = 4096 // of a payload
	maxFaults   = 64   // of a payload
)

// Validate reports everything that is wrong with the mappings; paths begin with
// [i].
func Validate(mappings []Mapping) []telemetry.Fault {
	_, faults := Compile(mappings)
	return faults
}

// Compile makes a set of the mappings. With faults the set is nil.
func Compile(mappings []Mapping) (*Set, []telemetry.Fault) {
	var faults []telemetry.Fault
	if len(mappings) > maxMappings {
		return nil, []telemetry.Fault{telemetry.Faultf("", "%d mappings; at most %d", len(mappings), maxMappings)}
	}
	s := &Set{}
	for i := range mappings {
		at := fmt.Sprintf("[%d]", i)
		list, more := mappings[i].resolve()
		faults = append(faults, telemetry.Under(at, more)...)
		for j := range list {
			r, more := compile(&list[j])
			faults = append(faults, telemetry.Under(at, more)...)
			if len(more) == 0 {
				r.at = at
				faults = append(faults, s.unreached(r)...)
				s.rules = append(s.rules, r)
			}
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return s, nil
}

// unreached reports a mapping all of whose topics belong to one before it.
func (s *Set) unreached(r *rule) []telemetry.Fault {
	for _, before := range s.rules {
		if before.topic.covers(r.topic) {
			return []telemetry.Fault{telemetry.Faultf(r.at+".topic", "topic %q is never reached: mapping %q before it takes all of %q", r.topic, before.name, before.topic)}
		}
	}
	return nil
}

// Odd returns what is allowed and may not be meant: mappings that share some of
// their topics, of which the first gets them. Paths begin with [i].
func (s *Set) Odd() []telemetry.Fault {
	var odd []telemetry.Fault
	for i, r := range s.rules {
		for _, before := range s.rules[:i] {
			if before.at != r.at && before.topic.meets(r.topic) {
				odd = append(odd, telemetry.Faultf(r.at+".topic", "topic %q shares topics with %q of mapping %q before it, which gets them", r.topic, before.topic, before.name))
			}
		}
	}
	return odd
}

// resolve returns the mappings that an entry stands for.
func (m *Mapping) resolve() ([]Mapping, []telemetry.Fault) {
	if m.Use == "" {
		if m.Root != "" {
			return nil, []telemetry.Fault{telemetry.Faultf("root", "root is for a built-in mapping (use: ...); put it into topic")}
		}
		return []Mapping{*m}, nil
	}
	list, ok := Builtin(m.Use)
	switch {
	case !ok:
		return nil, []telemetry.Fault{telemetry.Faultf("use", "mapping %q is not built in; these are: %s", m.Use, strings.Join(BuiltinNames(), ", "))}
	case m.Topic != "" || m.Format != "" || len(m.Parts) > 0 || m.Each != "":
		return nil, []telemetry.Fault{telemetry.Faultf("use", "topic, format, each and readings are those of the built-in mapping %q; root, device, kind, time, values, all, except, rename and when may be changed", m.Use)}
	}
	for i := range list {
		m.change(&list[i], i == 0)
	}
	return list, nil
}

// change puts what an entry says besides use into a built-in mapping.
func (m *Mapping) change(b *Mapping, first bool) {
	if m.Name != "" {
		b.Name = m.Name
	}
	if m.Root != "" {
		_, rest, _ := strings.Cut(b.Topic, "/")
		b.Topic = strings.TrimSuffix(m.Root, "/") + "/" + rest
	}
	parts := []*Part{&b.Part}
	for i := range b.Parts {
		parts = append(parts, &b.Parts[i])
	}
	if m.Device != "" {
		for _, p := range parts[1:] {
			p.Device = strings.ReplaceAll(p.Device, b.Device, m.Device) // "{device}.{key}"
		}
		b.Device = m.Device
	}
	b.PassOver = b.PassOver || m.PassOver
	if !first {
		return
	}
	if m.Time != (Time{}) {
		b.Time = m.Time
	}
	main := parts[0]
	if len(b.Parts) > 0 {
		main = parts[1]
	}
	if m.Kind != "" {
		main.Kind = m.Kind
	}
	if m.All != "" {
		main.All = m.All
	}
	main.Except = append(main.Except, m.Except...)
	main.Values = joined(main.Values, m.Values)
	main.Rename = joined(main.Rename, m.Rename)
	main.When = joined(main.When, m.When)
}

func joined[V any](a, b map[string]V) map[string]V {
	out := make(map[string]V, len(a)+len(b))
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		out[k] = v
	}
	return out
}
