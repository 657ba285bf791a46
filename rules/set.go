package rules

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A Set is a compiled document. It is not changed after it was made and may be
// used by several engines.
type Set struct {
	doc  Document
	hash string
	size int // of its canonical JSON, bytes
	pack packing

	catalogue *telemetry.Catalogue
	registry  *telemetry.Registry
	zones     map[string]*zone

	plans  []*plan // the first is of rules without on
	byKind map[string]*plan
	rules  []*rule // sorted by name

	facts     []string // that expressions name
	factKinds map[string]nodeKind
	carriers  []int // facts that name devices whose warnings inhibit; nil when no rule is inhibited
	limits    map[string]limit
	mates     bool  // some rule names values of another kind
	retention int64 // how long devices that are not registered are remembered, ns
	ambiguous map[[2]string]string

	parts   map[string]int // of registered devices, by site; see divide
	weights []int          // of the parts

	warnings []telemetry.Fault
}

// Hash returns the hash of the set's document.
func (s *Set) Hash() string { return s.hash }

// Registry returns the devices of the document.
func (s *Set) Registry() *telemetry.Registry { return s.registry }

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

	hourly  []int  // cells with hourly means
	hoursOf []int  // by cell: place in hourly, or -1
	words   []bool // by cell: its values are words
	prevs   []int  // cells whose sample before is kept
	prevOf  []int  // by cell: place in prevs, or -1

	places   []placeRef
	lat, lon int  // cells, where there are places
	track    bool // the position before is kept
}

type windowSpec struct {
	cell   int
	width  time.Duration
	totals bool
	ranked bool // for percentiles

	answers int // functions that ask the window
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
		p.hoursOf = append(p.hoursOf, -1)
		p.prevOf = append(p.prevOf, -1)
		p.byName[name] = i
		q := p.kind.Quantity(name)
		p.words = append(p.words, q != nil && q.Words)
	}
	return i
}

// window returns the place of a window in the plan; windows of the same value
// and width are one.
func (p *plan) window(spec windowSpec) int {
	cell := spec.cell
	for _, i := range p.byCell[cell] {
		if w := &p.windows[i]; w.width == spec.width && w.ranked == spec.ranked {
			w.totals = w.totals || spec.totals
			return i
		}
	}
	p.windows = append(p.windows, spec)
	p.byCell[cell] = append(p.byCell[cell], len(p.windows)-1)
	return len(p.windows) - 1
}

// hour returns the place of a cell's hourly means.
func (p *plan) hour(cell int) int {
	if p.hoursOf[cell] < 0 {
		p.hoursOf[cell] = len(p.hourly)
		p.hourly = append(p.hourly, cell)
	}
	return p.hoursOf[cell]
}

// prev returns the place of a cell's sample before.
func (p *plan) prev(cell int) int {
	if p.prevOf[cell] < 0 {
		p.prevOf[cell] = len(p.prevs)
		p.prevs = append(p.prevs, cell)
	}
	return p.prevOf[cell]
}

// place returns the place of a zone in the plan.
func (p *plan) place(ref placeRef) int {
	i := slices.IndexFunc(p.places, func(other placeRef) bool { return other.name == ref.name && other.fact == ref.fact })
	if i < 0 {
		i = len(p.places)
		p.places = append(p.places, ref)
	}
	return i
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

// hasFact reports whether some device has the fact.
func (s *Set) hasFact(name string) bool { return s.factKinds[name] != kindOther }

// wrongShape returns what is wrong with the zones that the devices name by a
// fact (device.zone), "" when nothing is: each must be there, and be a line, an
// area, or either of them.
func (s *Set) wrongShape(name string, line, either bool) string {
	fact := strings.TrimPrefix(name, "device.")
	devices := s.registry.Devices()
	for i := range devices {
		v, ok := devices[i].Fact(fact)
		word, is := v.(string)
		if !ok || !is {
			continue
		}
		z := s.zones[word]
		switch {
		case z == nil:
			return fmt.Sprintf("device %s: its fact %s names the zone %q, which is not there%s", devices[i].ID, fact, word, telemetry.DidYouMean(word, sortedKeys(s.zones)))
		case !either && line != (len(z.lines) > 0):
			return fmt.Sprintf("device %s: its fact %s names the zone %q, which is no %s", devices[i].ID, fact, word, map[bool]string{true: "line", false: "area"}[line])
		}
	}
	return ""
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
