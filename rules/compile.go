package rules

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"time"

	"haidang/gateway/telemetry"
)

// A rule is a compiled Rule.
type rule struct {
	Rule
	plan      *plan
	condition string
	where     *program // nil: every device
	levels    []level
	index     int     // in Set.rules
	version   string  // hash of its meaning
	silent    bool    // raises on silence: for registered devices only
	clocks    []clock // of its conditions
	fixed     []int64 // their lengths, where all are known without a device

	flap     Flap
	schedule schedule
	rank     int // length of the chain of rules that inhibit it
	ranked   bool
	inhibits bool // others

	vi, en     template
	ended, end template // the same of the warning that ends, vi and en
	shown      []*operand
	mates      []*mate // one of each other kind that its conditions name
}

// A level is a compiled Level; a rule without levels has one.
type level struct {
	when     *program
	clear    *program // nil: not when
	hold     int64    // for, ns
	release  int64    // clear_for, ns
	severity telemetry.Severity
	title    telemetry.Text
	source   string // of when
}

func (l *level) applies(d *device) bool {
	return l.when.applies(d) && (l.clear == nil || l.clear.applies(d))
}

// Compile checks the document and makes a Set of it. It reports every fault at
// once; with faults there is no Set. Fault paths begin in the document:
// rules[3].levels[0].when.
func Compile(doc Document) (*Set, []telemetry.Fault) {
	var faults, more []telemetry.Fault
	s := &Set{doc: doc, byKind: map[string]*plan{}, ambiguous: map[[2]string]string{}}
	s.catalogue, faults = telemetry.NewCatalogue(doc.Kinds)
	s.registry, more = telemetry.NewRegistry(doc.Devices, s.catalogue)
	faults = append(faults, more...)
	s.zones, more = parseZones(doc.Zones)
	faults = append(faults, more...)
	s.limits, more = readLimits(doc.Limits)
	faults = append(faults, more...)
	s.learnFacts()

	c := builder{set: s, scopes: map[*plan]*scope{}, places: map[*plan]*scope{}}
	s.planOf(nil)
	seen := map[string]bool{}
	for i := range doc.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		c.faults, c.warnings = nil, nil
		r := c.rule(&doc.Rules[i])
		if seen[r.Name] {
			c.fault("name", "rule %q is there twice", r.Name)
		}
		seen[r.Name] = true
		faults = append(faults, telemetry.Under(at, c.faults)...)
		s.warnings = append(s.warnings, telemetry.Under(at, c.warnings)...)
		s.rules = append(s.rules, r)
	}
	faults = append(faults, c.inhibition(s.rules)...)
	text, err := canonical(doc)
	if err != nil && len(faults) == 0 {
		faults = append(faults, telemetry.Faultf("", "%v", err))
	}
	if len(faults) > 0 {
		return nil, faults
	}
	s.hash, s.size, s.pack.text = hashOf(text), len(text), text
	sort.Slice(s.rules, func(i, j int) bool { return s.rules[i].Name < s.rules[j].Name })
	for i, r := range s.rules {
		r.index = i
		if r.Disabled {
			continue
		}
		r.plan.rules = append(r.plan.rules, r)
		r.plan.silent = r.plan.silent || r.silent
	}
	for _, p := range s.plans {
		slices.SortFunc(p.rules, (*rule).compare)
	}
	s.retention = int64(Retention)
	for _, p := range s.plans {
		for _, w := range p.windows {
			s.retention = max(s.retention, int64(w.width))
		}
	}
	s.divide()
	return s, nil
}

// A builder compiles one rule after the other.
type builder struct {
	set      *Set
	scopes   map[*plan]*scope
	places   map[*plan]*scope // for where
	faults   []telemetry.Fault
	warnings []telemetry.Fault
}

func (c *builder) fault(path, format string, args ...any) {
	c.faults = append(c.faults, telemetry.Faultf(path, format, args...))
}

func (c *builder) scope(p *plan, facts bool) *scope {
	scopes := c.scopes
	if facts {
		scopes = c.places
	}
	if scopes[p] == nil {
		scopes[p] = newScope(c.set, p, facts)
	}
	return scopes[p]
}

func (c *builder) rule(from *Rule) *rule {
	r := &rule{Rule: *from, condition: from.condition()}
	if !telemetry.ValidName(r.Name) {
		c.fault("name", "rule name %q is not a name of at most %d letters, digits and ._:- that begins with a letter or digit", r.Name, telemetry.MaxNameRunes)
	}
	var kind *telemetry.Kind
	if r.On != "" {
		if kind = c.set.catalogue.Kind(r.On); kind == nil {
			var names []string
			for _, k := range c.set.catalogue.Kinds() {
				names = append(names, k.Name)
			}
			c.fault("on", "kind %q is not in the catalogue%s", r.On, telemetry.DidYouMean(r.On, names))
			return r
		}
	}
	r.plan = c.set.planOf(kind)
	if r.Where != "" {
		r.where = c.expression("where", r.Where, r.plan, true)
	}
	c.hold("for", r.For)
	c.hold("clear_for", r.ClearFor)
	for i, name := range r.To {
		if !telemetry.ValidName(name) {
			c.fault(fmt.Sprintf("to[%d]", i), "recipient %q is not a name", name)
		}
	}
	if len(r.Levels) > 0 {
		c.levels(r)
	} else {
		c.single(r)
	}
	c.mute(r)
	c.flap(r)
	c.gather(r)
	r.vi, r.en = c.messages(r)
	r.ended, r.end = c.endings(r)
	return r
}

func (c *builder) hold(path string, d telemetry.Duration) {
	if d < 0 || d.Std() > MaxHold {
		c.fault(path, "%s %s is not in 0s..%s", path, d, telemetry.Duration(MaxHold))
	}
}

func (c *builder) single(r *rule) {
	if r.When == "" {
		c.fault("when", "a rule needs when or levels")
		return
	}
	l := level{severity: r.Severity, source: r.When, hold: int64(r.For), release: int64(r.ClearFor)}
	if l.severity == telemetry.NoSeverity {
		l.severity = telemetry.Moderate
	}
	l.when = c.expression("when", r.When, r.plan, false)
	if r.Clear != "" {
		l.clear = c.expression("clear", r.Clear, r.plan, false)
	}
	r.levels = []level{l}
}

func (c *builder) levels(r *rule) {
	for _, is := range []struct {
		path string
		set  bool
	}{{"when", r.When != ""}, {"clear", r.Clear != ""}, {"severity", r.Severity != telemetry.NoSeverity}} {
		if is.set {
			c.fault(is.path, "a rule with levels has %s in its levels only", is.path)
		}
	}
	seen := map[telemetry.Severity]bool{}
	for i, from := range r.Levels {
		at := fmt.Sprintf("levels[%d].", i)
		l := level{severity: from.Severity, title: from.Title, source: from.When, hold: int64(r.For), release: int64(r.ClearFor)}
		if from.For != nil {
			c.hold(at+"for", *from.For)
			l.hold = int64(*from.For)
		}
		switch {
		case from.Severity == telemetry.NoSeverity:
			c.fault(at+"severity", "a level needs a severity: minor, moderate, severe or extreme")
		case seen[from.Severity]:
			c.fault(at+"severity", "severity %s is there twice", from.Severity)
		}
		seen[from.Severity] = true
		if from.When == "" {
			c.fault(at+"when", "a level needs when")
			continue
		}
		l.when = c.expression(at+"when", from.When, r.plan, false)
		if from.Clear != "" {
			l.clear = c.expression(at+"clear", from.Clear, r.plan, false)
		}
		r.levels = append(r.levels, l)
	}
}

// expression compiles a condition; after a fault it returns nil.
func (c *builder) expression(path, source string, p *plan, facts bool) *program {
	return c.compile(path, source, p, facts, kindTruth)
}

func (c *builder) compile(path, source string, p *plan, facts bool, want nodeKind) *program {
	s := c.scope(p, facts)
	compiled, err := s.compile(source, want)
	if err != nil {
		c.fault(path, "%v", err)
		locate(&c.faults[len(c.faults)-1], source, err)
		return nil
	}
	for _, w := range s.unknown {
		c.warnings = append(c.warnings, telemetry.Faultf(path, "%s", w))
	}
	return compiled
}

// gather collects what a rule's conditions have in common.
func (c *builder) gather(r *rule) {
	seen := map[*operand]bool{}
	meaning := sha256.New()
	fmt.Fprintf(meaning, "%s %+v %+v %v %q", r.condition, r.flap, r.schedule, r.Latch, r.InhibitedBy)
	fixed := true
	for i := range r.levels {
		l := &r.levels[i]
		r.silent = r.silent || l.when != nil && l.when.silent
		for _, p := range []*program{l.when, l.clear} {
			if p == nil {
				continue
			}
			for _, k := range p.clocks {
				r.clocks = append(r.clocks, k)
				r.fixed = append(r.fixed, k.after)
				fixed = fixed && k.of == nil
			}
			for _, o := range p.shown {
				if !seen[o] {
					seen[o] = true
					r.shown = append(r.shown, o)
				}
			}
			for _, o := range p.named {
				if m := cmp.Or(o.mate, o.of); m != nil && !slices.ContainsFunc(r.mates, func(other *mate) bool { return other.plan == m.plan }) {
					r.mates = append(r.mates, m)
				}
				if o.zone != nil {
					fmt.Fprintf(meaning, "%q %v", o.zone.name, o.zone.edges)
				}
				if o.limit != nil {
					fmt.Fprintf(meaning, "%q %v", o.label, o.limit)
				}
			}
		}
	}
	if !fixed {
		r.fixed = nil
	}
	r.version = hex.EncodeToString(meaning.Sum(nil)[:4])
}

// applies reports which levels of the rule apply to the device, as bits; 0 when
// the rule does not apply at all.
func (r *rule) applies(f *frame, d *device) (levels uint8) {
	if r.silent && !d.registered {
		return 0
	}
	if r.where != nil {
		if !r.where.applies(d) {
			return 0
		}
		before := *f
		*f = frame{device: d, vm: f.vm} // no reading is needed, or at hand
		selected := r.where.judge(f) == yes
		*f = before
		if !selected {
			return 0
		}
	}
	for i := range r.levels {
		if r.levels[i].applies(d) {
			levels |= 1 << i
		}
	}
	return levels
}

// Retention is how long the engine remembers a device that is not registered
// and not heard of, unless a window is wider or a warning of it is active.
const Retention = 7 * 24 * time.Hour
