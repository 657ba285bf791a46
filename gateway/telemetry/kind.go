package telemetry

import (
	"fmt"
	"sort"
	"strings"
)

// A Kind says what was observed: the InfluxDB measurement and its values.
type Kind struct {
	Name   string     `json:"name" yaml:"name"`     // the measurement in InfluxDB, and the level of the topic
	Title  Text       `json:"title" yaml:"title"`   // as people call it
	Values []Quantity `json:"values" yaml:"values"` // what can be measured
}

// A Quantity is one value of a kind: its unit, its plausible range and how
// people call it.
type Quantity struct {
	Name  string   `json:"name" yaml:"name"`                       // with the unit at its end: level_m
	Unit  string   `json:"unit" yaml:"unit"`                       // as people write it: m, µg/m³, kn
	Min   *float64 `json:"min,omitempty" yaml:"min,omitempty"`     // below it a value is bad
	Max   *float64 `json:"max,omitempty" yaml:"max,omitempty"`     // above it a value is bad
	Words bool     `json:"words,omitempty" yaml:"words,omitempty"` // the value is a word, not a number
	Title Text     `json:"title" yaml:"title"`                     // as people call it

	// Quality are the tests that hold for every device that has none of its own.
	Quality *Tests `json:"quality,omitempty" yaml:"quality,omitempty"`
}

// InRange reports whether number lies within the quantity's plausible range.
func (q *Quantity) InRange(number float64) bool {
	return (q.Min == nil || number >= *q.Min) && (q.Max == nil || number <= *q.Max)
}

// Quantity returns the kind's value called name, or nil.
func (k *Kind) Quantity(name string) *Quantity {
	for i := range k.Values {
		if k.Values[i].Name == name {
			return &k.Values[i]
		}
	}
	return nil
}

// A Catalogue is the set of known kinds. It is not changed after it was made.
type Catalogue struct {
	kinds  []Kind
	byName map[string]*Kind
	owners map[string][]*Kind // by value name
}

// NewCatalogue checks the kinds and makes a catalogue of them. Fault paths
// begin with kinds[i].
func NewCatalogue(kinds []Kind) (*Catalogue, []Fault) {
	var faults []Fault
	c := &Catalogue{kinds: append([]Kind(nil), kinds...), byName: map[string]*Kind{}, owners: map[string][]*Kind{}}
	sort.SliceStable(c.kinds, func(i, j int) bool { return c.kinds[i].Name < c.kinds[j].Name })
	for i := range kinds {
		faults = append(faults, Under(fmt.Sprintf("kinds[%d]", i), kinds[i].validate())...)
	}
	for i := range c.kinds {
		k := &c.kinds[i]
		if c.byName[k.Name] != nil {
			faults = append(faults, Faultf("kinds", "kind %q is there twice", k.Name))
			continue
		}
		c.byName[k.Name] = k
		for _, q := range k.Values {
			c.owners[q.Name] = append(c.owners[q.Name], k)
		}
	}
	return c, faults
}

// OwnKind reports whether the gateway itself writes a kind of this name: what
// comes from devices may not be called so.
func OwnKind(name string) bool {
	return name == "warning" || strings.HasPrefix(name, "haidang_")
}

func (k *Kind) validate() []Fault {
	var faults []Fault
	switch {
	case OwnKind(k.Name):
		faults = append(faults, Faultf("name", "kind %q is reserved: the gateway writes it itself", k.Name))
	case !ValidName(k.Name):
		faults = append(faults, Faultf("name", "kind %q is not a name of letters, digits and ._:- that begins with a letter or digit", k.Name))
	}
	seen := map[string]bool{}
	for i, q := range k.Values {
		at := fmt.Sprintf("values[%d]", i)
		switch {
		case !ValidName(q.Name) || Reserved(q.Name):
			faults = append(faults, Faultf(at+".name", "value %q is not a name of letters, digits and ._:- or is reserved (time, device, site, quality, delay_s)", q.Name))
		case seen[q.Name]:
			faults = append(faults, Faultf(at+".name", "value %q is there twice", q.Name))
		}
		seen[q.Name] = true
		if q.Min != nil && q.Max != nil && *q.Min > *q.Max {
			faults = append(faults, Faultf(at+".min", "min %v is above max %v", *q.Min, *q.Max))
		}
		if q.Quality != nil {
			faults = append(faults, Under(at+".quality", q.Quality.Validate())...)
			if q.Words {
				faults = append(faults, Faultf(at+".quality", "%q is a word; only numbers are tested", q.Name))
			}
		}
	}
	return faults
}

// Kind returns the kind called name, or nil when it is not known.
func (c *Catalogue) Kind(name string) *Kind { return c.byName[name] }

// Kinds returns all kinds, sorted by name.
func (c *Catalogue) Kinds() []Kind { return c.kinds }

// Owners returns the kinds that have a value of this name.
func (c *Catalogue) Owners(value string) []*Kind { return c.owners[value] }
