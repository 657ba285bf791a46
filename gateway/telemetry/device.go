package telemetry

import (
	"fmt"
	"math"
	"sort"
)

// A Device is what is observed, with the facts that the registry knows of it.
type Device struct {
	ID       string   `json:"id" yaml:"id"`                       // as it is in topics and tags: letters, digits and ._:-, at most 128
	Name     string   `json:"name,omitempty" yaml:"name"`         // as people call it; default the id
	Site     string   `json:"site,omitempty" yaml:"site"`         // devices of a site are judged together; default the id
	Kinds    []string `json:"kinds,omitempty" yaml:"kinds"`       // what it reports
	Interval Duration `json:"interval,omitempty" yaml:"interval"` // how often it reports; 0: not known
	Lat      *float64 `json:"lat,omitempty" yaml:"lat"`           // WGS 84, degrees north
	Lon      *float64 `json:"lon,omitempty" yaml:"lon"`           // WGS 84, degrees east
	Owner    string   `json:"owner,omitempty" yaml:"owner"`       // whom to call, and what routes choose by

	// Facts are numbers, words and truths that rules read as device.<name>,
	// such as alarm2_m.
	Facts map[string]any `json:"facts,omitempty" yaml:"facts"`
	// Quality are the tests of its values, by value or kind.value, test by test
	// instead of those of the kind.
	Quality map[string]Tests `json:"quality,omitempty" yaml:"quality"`
	// Calibration corrects its values, by value or kind.value.
	Calibration map[string]Calibration `json:"calibration,omitempty" yaml:"calibration"`
}

// Fact returns the fact called name: of Facts, or one of id, name, site, owner,
// lat, lon, interval_s. Numbers are float64, truths are 0 or 1.
func (d *Device) Fact(name string) (any, bool) {
	switch name {
	case "id":
		return d.ID, true
	case "name":
		return d.Name, true
	case "site":
		return d.Site, true
	case "owner":
		return d.Owner, d.Owner != ""
	case "lat":
		return deref(d.Lat)
	case "lon":
		return deref(d.Lon)
	case "interval_s":
		return d.Interval.Std().Seconds(), d.Interval > 0
	}
	v, ok := d.Facts[name]
	if !ok {
		return nil, false
	}
	return factValue(v)
}

func deref(f *float64) (any, bool) {
	if f == nil {
		return nil, false
	}
	return *f, true
}

func factValue(v any) (any, bool) {
	switch v := v.(type) {
	case float64:
		return v, Finite(v)
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case bool:
		if v {
			return 1.0, true
		}
		return 0.0, true
	case string:
		return v, true
	}
	return nil, false
}

// A Registry is the set of registered devices. It is not changed after it was
// made.
type Registry struct {
	devices []Device
	byID    map[string]*Device
}

// NewRegistry checks the devices, fills in their defaults and makes a registry
// of them. Fault paths begin with devices[i].
func NewRegistry(devices []Device, kinds *Catalogue) (*Registry, []Fault) {
	var faults []Fault
	r := &Registry{devices: append([]Device(nil), devices...), byID: map[string]*Device{}}
	seen := map[string]bool{}
	for i := range devices {
		at := fmt.Sprintf("devices[%d]", i)
		faults = append(faults, Under(at, devices[i].validate(kinds))...)
		if seen[devices[i].ID] {
			faults = append(faults, Faultf(at+".id", "device %q is there twice", devices[i].ID))
		}
		seen[devices[i].ID] = true
	}
	sort.SliceStable(r.devices, func(i, j int) bool { return r.devices[i].ID < r.devices[j].ID })
	for i := range r.devices {
		d := &r.devices[i]
		if d.Name == "" {
			d.Name = d.ID
		}
		if d.Site == "" {
			d.Site = d.ID
		}
		r.byID[d.ID] = d
	}
	return r, faults
}

func (d *Device) validate(kinds *Catalogue) []Fault {
	var faults []Fault
	if !ValidName(d.ID) {
		faults = append(faults, Faultf("id", "device id %q is not a name of at most %d letters, digits and ._:- that begins with a letter or digit", d.ID, MaxNameRunes))
	}
	if d.Site != "" && !ValidName(d.Site) {
		faults = append(faults, Faultf("site", "site %q is not a name of letters, digits and ._:- that begins with a letter or digit", d.Site))
	}
	for i, k := range d.Kinds {
		if kinds != nil && kinds.Kind(k) == nil {
			faults = append(faults, Faultf(fmt.Sprintf("kinds[%d]", i), "kind %q is not in the catalogue", k))
		}
	}
	if d.Interval < 0 {
		faults = append(faults, Faultf("interval", "interval %s is negative", d.Interval))
	}
	if d.Lat != nil && !(math.Abs(*d.Lat) <= 90) {
		faults = append(faults, Faultf("lat", "latitude %v is not in -90..90 degrees", *d.Lat))
	}
	if d.Lon != nil && !(math.Abs(*d.Lon) <= 180) {
		faults = append(faults, Faultf("lon", "longitude %v is not in -180..180 degrees", *d.Lon))
	}
	names := make([]string, 0, len(d.Facts))
	for name := range d.Facts {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if _, ok := factValue(d.Facts[name]); !ok {
			faults = append(faults, Faultf("facts."+name, "fact %s is not a number, a word, true or false", name))
		}
	}
	return append(faults, d.validateTests(kinds)...)
}

// Device returns the device with this id, or nil when it is not registered.
func (r *Registry) Device(id string) *Device { return r.byID[id] }

// Devices returns all devices, sorted by id.
func (r *Registry) Devices() []Device { return r.devices }
