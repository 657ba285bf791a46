package rules

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"haidang/gateway/telemetry"
)

// A Set is a compiled document. It is not changed after it was made and may be
// used by several engines.
type Set struct {
	doc  Document
	text []byte // canonical JSON
	hash string

	catalogue *telemetry.Catalogue
	registry  *telemetry.Registry
	zones     map[string]*zone

	plans  []*plan // the first is of rules without on
	byKind map[string]*plan
	rules  []*rule // sorted by name

	facts     []string // that expressions name
	factKinds map[string]nodeKind
	mates     bool  // some rule names values of another kind
	retention int64 // how long devices that are not registered are remembered, ns
	ambiguous map[[2]string]string

	warnings []telemetry.Fault
}

// Hash returns the hash of the set's document.
func (s *Set) Hash() string { return s.hash }

// Warnings returns what is odd but not wrong, such as a fact that no device
// has: the conditions that name it apply to no device.
func (s *Set) Warnings() []telemetry.Fault { return s.warnings }

// A plan is what the engine does with the readings of one kind.
type plan struct {
	index  int
	kind   *telemetry.Kind // nil: any kind, for rules without on
	rules  []*rule         // sorted by name
	silent bool            // some rule has silent()

	cells   []string // names of the values that expressions use
	byName  map[string]int
	windows []windowSpec
	byCell  [][]int // windows of each cell
}

type windowSpec struct {
	cell   int
	width  time.Duration
	totals bool
}

func (p *plan) name() string {
	if p.kind == nil {
		return ""
	}
	return p.kind.Name
}

// cell returns the place of a value in the plan, which it gets when it has none.
func (p *plan) cell(name string) int {
	i, ok := p.byName[name]
	if !ok {
		i = len(p.cells)
		p.cells = append(p.cells, name)
		p.byCell = append(p.byCell, nil)
		p.byName[name] = i
	}
	return i
}

// window returns the place of a window in the plan; windows of the same value
// and width are one.
func (p *plan) window(cell int, width time.Duration, totals bool) int {
	for _, i := range p.byCell[cell] {
		if w := &p.windows[i]; w.width == width {
			w.totals = w.totals || totals
			return i
		}
	}
	p.windows = append(p.windows, windowSpec{cell, width, totals})
	p.byCell[cell] = append(p.byCell[cell], len(p.windows)-1)
	return len(p.windows) - 1
}

func (s *Set) planOf(kind *telemetry.Kind) *plan {
	name := ""
	if kind != nil {
		name = kind.Name
	}
	p := s.byKind[name]
	if p == nil {
		p = &plan{index: len(s.plans), kind: kind, byName: map[string]int{}}
		s.plans = append(s.plans, p)
		s.byKind[name] = p
	}
	return p
}

// fact returns the place of a fact, which it gets when it has none.
func (s *Set) fact(name string) int {
	i := slices.Index(s.facts, name)
	if i < 0 {
		i = len(s.facts)
		s.facts = append(s.facts, name)
	}
	return i
}

func (s *Set) factNames() []string { return slices.Collect(maps.Keys(s.factKinds)) }

// learnFacts notes which facts the devices have and whether they are numbers
// or words.
func (s *Set) learnFacts() {
	s.factKinds = map[string]nodeKind{
		"id": kindWord, "name": kindWord, "site": kindWord, "owner": kindWord,
		"lat": kindNumber, "lon": kindNumber, "interval_s": kindNumber,
	}
	devices := s.registry.Devices()
	for i := range devices {
		for name := range devices[i].Facts {
			v, ok := devices[i].Fact(name)
			if !ok {
				continue
			}
			kind := kindWord
			if _, number := v.(float64); number {
				kind = kindNumber
			}
			if before := s.factKinds[name]; before != kindOther && before != kind {
				kind = kindMixed
			}
			s.factKinds[name] = kind
		}
	}
}

// ambiguousSite returns the reason why rules on one kind cannot use the values
// of another: a site with two devices of that kind. "" when there is none.
func (s *Set) ambiguousSite(on, other string) string {
	key := [2]string{on, other}
	reason, ok := s.ambiguous[key]
	if !ok {
		reason = s.findAmbiguous(on, other)
		s.ambiguous[key] = reason
	}
	return reason
}

func (s *Set) findAmbiguous(on, other string) string {
	type count struct {
		on     bool
		others []string
	}
	sites := map[string]*count{}
	devices := s.registry.Devices()
	for i := range devices {
		d := &devices[i]
		c := sites[d.Site]
		if c == nil {
			c = &count{}
			sites[d.Site] = c
		}
		c.on = c.on || slices.Contains(d.Kinds, on)
		if slices.Contains(d.Kinds, other) {
			c.others = append(c.others, d.ID)
		}
	}
	for _, name := range sortedKeys(sites) {
		if c := sites[name]; c.on && len(c.others) > 1 {
			return fmt.Sprintf("site %s has two devices of kind %s (%s and %s): which of them is meant is not known", name, other, c.others[0], c.others[1])
		}
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
