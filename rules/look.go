package rules

import (
	"slices"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A Look is how a rule stands for one device with the newest values, whatever its
// for and its latches say.
type Look struct {
	Device string `json:"device"`
	// Applies is false when the rule is not evaluated for the device; Missing says
	// why then: where, or a fact that it does not have.
	Applies  bool               `json:"applies"`
	Received *time.Time         `json:"received,omitempty"` // log time of the newest reading; nil: none
	Verdict  string             `json:"verdict"`            // true, false or missing: of the gravest level that is true, else of all
	Severity telemetry.Severity `json:"severity"`           // of the gravest level that is true
	Levels   []LevelLook        `json:"levels,omitempty"`
	Values   []LookValue        `json:"values,omitempty"`  // numbers and words that the conditions name, in their order
	Missing  []string           `json:"missing,omitempty"` // what keeps a condition from being decided
	Message  telemetry.Text     `json:"message,omitzero"`  // that would be told, when the verdict is true
}

// A LevelLook is how one condition stands.
type LevelLook struct {
	Severity telemetry.Severity `json:"severity"`
	When     string             `json:"when"`
	Verdict  string             `json:"verdict"`
}

// A LookValue is a value that a condition names, or a fact or limit it is compared
// with.
type LookValue struct {
	Name   string  `json:"name"`
	Number float64 `json:"number"`
	Word   string  `json:"word,omitempty"` // of a value that is a word or a truth
	Fact   bool    `json:"fact,omitempty"`
}

func (v verdict) String() string {
	switch v {
	case yes:
		return "true"
	case no:
		return "false"
	}
	return "missing"
}

// Look judges the conditions of a rule for every device that has sent the rule's
// kind or is registered for it, sorted by device; nil when there is no such rule.
func (e *Engine) Look(name string) []Look {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil {
		return nil
	}
	i := slices.IndexFunc(e.set.rules, func(r *rule) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	r := e.set.rules[i]
	out := []Look{}
	ids := sortedKeys(e.devices)
	registered := e.set.registry.Devices()
	for i := range registered {
		of := &registered[i]
		if e.devices[of.ID] == nil && (r.plan.kind == nil || slices.Contains(of.Kinds, r.plan.kind.Name)) {
			ids = append(ids, of.ID)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		d := e.devices[id]
		if d == nil {
			out = append(out, Look{Device: id, Applies: true, Verdict: unknown.String(), Missing: []string{"nothing was received"}})
			continue
		}
		if s := d.streams[r.plan.index]; s != nil {
			out = append(out, d.shard.look(s, r))
		}
	}
	return out
}

func (h *shard) look(s *stream, r *rule) Look {
	l := Look{Device: s.device.id, Verdict: unknown.String()}
	if s.ever {
		at := unixTime(s.heard)
		l.Received = &at
	}
	f := h.aim(s, true)
	b := s.find(r.Name)
	if b == nil {
		l.Missing = r.reasons(f, s.device, h.set)
		return l
	}
	l.Applies = true
	best := no
	for i := range r.levels {
		level := &r.levels[i]
		if b.levels&(1<<i) == 0 {
			l.Missing = append(l.Missing, missingFacts(level, s.device, h.set)...)
			continue
		}
		v := level.when.judge(f)
		if f.notFinite {
			l.Missing = append(l.Missing, "the result is not a finite number")
		}
		l.Levels = append(l.Levels, LevelLook{level.severity, level.source, v.String()})
		switch {
		case v == yes:
			best, l.Severity = yes, max(l.Severity, level.severity)
		case v == unknown && best == no:
			best = unknown
		}
	}
	l.Verdict = best.String()
	for i := range r.levels {
		if b.levels&(1<<i) != 0 {
			l.name(f, r.levels[i].when)
		}
	}
	slices.SortStableFunc(l.Values, func(a, b LookValue) int { return r.place(a) - r.place(b) })
	slices.Sort(l.Missing)
	l.Missing = slices.Compact(l.Missing)
	if best == yes {
		w := b.describe(f, telemetry.Active, &raised{start: h.now, severity: l.Severity})
		l.Message = w.Message
	}
	return l
}

// place is small for a value that the conditions name early; facts come last.
func (r *rule) place(v LookValue) int {
	name, _, _ := strings.Cut(v.Name, ",")
	at, base := 0, 0
	if v.Fact {
		base = 1 << 20
	}
	for i := range r.levels {
		if j := strings.Index(r.levels[i].source, name); j >= 0 {
			return base + at + j
		}
		at += MaxExpressionBytes
	}
	return base + at
}

// name notes what a condition names, with its values or as missing.
func (l *Look) name(f *frame, p *program) {
	for _, o := range p.named {
		if slices.ContainsFunc(l.Values, func(v LookValue) bool { return v.Name == o.label }) {
			continue
		}
		switch v, ok := o.value(f); {
		case !ok && o.fact < 0:
			l.Missing = append(l.Missing, o.label)
		case ok:
			v.Fact = o.fact >= 0 || o.limit != nil
			l.Values = append(l.Values, v)
		}
	}
}

// value returns what an operand gives in this frame; not ok while something that
// it needs was never read, or is too old.
func (o *operand) value(f *frame) (v LookValue, ok bool) {
	v.Name = o.label
	for _, i := range append([]int{o.cell}, o.needs...) {
		if i >= 0 && f.cells[i].at == never {
			return v, false
		}
	}
	if o.mate != nil && !o.mate.fresh(f) {
		return v, false
	}
	f.unknown, f.notFinite = false, false
	switch {
	case o.number != nil:
		v.Number = o.number(f)
	case o.word != nil:
		v.Word = o.word(f)
	case o.truth != nil:
		v.Word = map[bool]string{true: "true", false: "false"}[o.truth(f)]
	default:
		return v, false
	}
	return v, !f.unknown
}

// reasons tells why a rule does not apply to a device.
func (r *rule) reasons(f *frame, d *device, set *Set) []string {
	if r.Disabled {
		return []string{"the rule is disabled"}
	}
	if r.silent && !d.registered {
		return []string{"the device is not registered"}
	}
	if r.where != nil {
		if missing := factsMissing(r.where, d, set); len(missing) > 0 {
			return missing
		}
		before := *f
		*f = frame{device: d, vm: f.vm}
		selected := r.where.judge(f) == yes
		*f = before
		if !selected {
			return []string{"where: " + r.Where}
		}
	}
	var out []string
	for i := range r.levels {
		out = append(out, missingFacts(&r.levels[i], d, set)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func missingFacts(l *level, d *device, set *Set) []string {
	out := factsMissing(l.when, d, set)
	if l.clear != nil {
		out = append(out, factsMissing(l.clear, d, set)...)
	}
	return out
}

func factsMissing(p *program, d *device, set *Set) []string {
	var out []string
	for _, i := range p.facts {
		if !d.facts[i].known {
			out = append(out, "device."+set.facts[i])
		}
	}
	return out
}

// Lookback returns how much of the past the set's expressions look at: the widest
// window, twelve hours for an index of air, an hour for prev; 0 when the newest
// readings say it all.
func (s *Set) Lookback() time.Duration {
	var back time.Duration
	for _, p := range s.plans {
		for _, w := range p.windows {
			back = max(back, w.width)
		}
		if len(p.hourly) > 0 {
			back = max(back, 13*time.Hour)
		}
		if len(p.prevs) > 0 || p.track {
			back = max(back, time.Hour)
		}
	}
	return back
}
