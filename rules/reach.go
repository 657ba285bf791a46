package rules

import (
	"slices"

	"haidang/gateway/telemetry"
)

// A Reach is to what a rule applies.
type Reach struct {
	Registered int               // devices
	Slowest    *telemetry.Device // of them: the first with the longest interval; nil: there is none
	Others     bool              // also devices that are not registered, as vessels may be
}

// Reach tells by name what each rule applies to, as the engine sees it: of the
// devices that report its kind (one without kinds may report any), those that have
// what its where and its conditions ask for. Rules that apply to nothing, and those
// that are disabled, are not in it.
func (s *Set) Reach() map[string]Reach {
	by := make([]Reach, len(s.rules))
	f := &frame{}
	each := func(facts *telemetry.Device, registered bool, note func(*Reach)) {
		d := s.device(facts, registered)
		for _, p := range s.plans {
			if p.kind != nil && len(facts.Kinds) > 0 && !slices.Contains(facts.Kinds, p.kind.Name) {
				continue
			}
			for _, r := range p.rules {
				if r.applies(f, d) != 0 {
					note(&by[r.index])
				}
			}
		}
	}
	devices := s.registry.Devices()
	for i := range devices {
		each(&devices[i], true, func(r *Reach) {
			if r.Slowest == nil || devices[i].Interval > r.Slowest.Interval {
				r.Slowest = &devices[i]
			}
			r.Registered++
		})
	}
	each(stranger("not-registered-by-anyone"), false, func(r *Reach) { r.Others = true })
	out := map[string]Reach{}
	for _, r := range s.rules {
		if at := by[r.index]; at.Registered > 0 || at.Others {
			out[r.Name] = at
		}
	}
	return out
}

// stranger is what is known of a device that is not registered.
func stranger(id string) *telemetry.Device {
	return &telemetry.Device{ID: id, Name: id, Site: id}
}

// device returns a device with the facts that the set's expressions name, and
// without a state.
func (s *Set) device(facts *telemetry.Device, registered bool) *device {
	d := &device{id: facts.ID, registered: registered, siteName: facts.Site, interval: int64(facts.Interval)}
	d.facts = make([]factCell, len(s.facts))
	for i, name := range s.facts {
		v, known := facts.Fact(name)
		d.facts[i].known = known
		switch v := v.(type) {
		case float64:
			d.facts[i].number = v
		case string:
			d.facts[i].word = &factWord{v, s.zones[v]}
		}
	}
	return d
}
