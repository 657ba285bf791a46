package rules

import (
	"cmp"
	"fmt"
	"slices"

	"haidang/gateway/telemetry"
)

// An inhibitor counts where a rule that others name in inhibited_by has active
// warnings.
type inhibitor struct {
	devices, sites map[string]int
}

func newInhibitor() *inhibitor {
	return &inhibitor{devices: map[string]int{}, sites: map[string]int{}}
}

func (i *inhibitor) add(d *device, n int) {
	count(i.devices, d.id, n)
	count(i.sites, d.siteName, n)
}

func count(m map[string]int, key string, n int) {
	if m[key] += n; m[key] == 0 {
		delete(m, key)
	}
}

// The facts that name the device whose warnings inhibit those of this one.
func carriers() []string { return []string{"gateway", "line"} }

// inhibition checks inhibited_by of all rules and ranks them: a rule comes after
// those that inhibit it, so that of one instant the cause is raised first.
func (c *builder) inhibition(rules []*rule) []telemetry.Fault {
	var faults []telemetry.Fault
	byName := map[string]*rule{}
	var names []string
	for _, r := range rules {
		byName[r.Name] = r
		names = append(names, r.Name)
	}
	for i, r := range rules {
		for j, name := range r.InhibitedBy {
			at := fmt.Sprintf("rules[%d].inhibited_by[%d]", i, j)
			switch by := byName[name]; {
			case by == nil:
				faults = append(faults, telemetry.Faultf(at, "there is no rule %q%s", name, telemetry.DidYouMean(name, names)))
			case by == r:
				faults = append(faults, telemetry.Faultf(at, "a rule cannot inhibit itself"))
			default:
				if by.Disabled || by.Shadow {
					c.set.warnings = append(c.set.warnings, telemetry.Faultf(at, "rule %q is disabled or a shadow and inhibits nothing", name))
				}
				by.inhibits = !by.Shadow
			}
		}
		if len(r.InhibitedBy) > 0 && c.set.carriers == nil {
			for _, name := range carriers() {
				c.set.carriers = append(c.set.carriers, c.set.fact(name))
			}
		}
	}
	if len(faults) > 0 {
		return faults
	}
	for i, r := range rules {
		if _, circle := rank(byName, r, 0); circle {
			return []telemetry.Fault{telemetry.Faultf(fmt.Sprintf("rules[%d].inhibited_by", i), "rules inhibit each other in a circle")}
		}
	}
	return nil
}

// rank returns the length of the longest chain of rules that inhibit r, and
// whether it is a circle.
func rank(byName map[string]*rule, r *rule, depth int) (n int, circle bool) {
	if depth > len(byName) {
		return 0, true
	}
	if r.ranked {
		return r.rank, false
	}
	for _, name := range r.InhibitedBy {
		by, circle := rank(byName, byName[name], depth+1)
		if circle {
			return 0, true
		}
		n = max(n, by+1)
	}
	r.rank, r.ranked = n, true
	return n, false
}

// compare orders rules: causes first, then by name.
func (r *rule) compare(other *rule) int {
	return cmp.Or(cmp.Compare(r.rank, other.rank), cmp.Compare(r.Name, other.Name))
}

func (b *binding) compare(other *binding) int {
	return cmp.Or(b.rule.compare(other.rule), cmp.Compare(b.stream.device.id, other.stream.device.id))
}

// withholds reports whether the binding may not raise now, and notes until when
// its rule is muted.
func (h *shard) withholds(b *binding) bool {
	until, muted := b.rule.mutes(h.now)
	b.unmute = never
	if muted {
		b.unmute = until
	}
	return muted || h.inhibits(b)
}

func (h *shard) inhibits(b *binding) bool {
	d := b.stream.device
	for _, name := range b.rule.InhibitedBy {
		i := h.inhibitors[name]
		if i == nil {
			continue
		}
		if i.sites[d.siteName] > 0 {
			return true
		}
		for _, fact := range h.set.carriers {
			if carrier := d.facts[fact].text(); carrier != "" && i.devices[carrier] > 0 {
				return true
			}
		}
	}
	return false
}

// note counts a warning that begins (1) or ends (-1).
func (h *shard) note(b *binding, n int) {
	b.tally.active += n
	if !b.rule.inhibits {
		return
	}
	i := h.inhibitors[b.rule.Name]
	if i == nil {
		i = newInhibitor()
		h.inhibitors[b.rule.Name] = i
	}
	i.add(b.stream.device, n)
	h.loose = h.loose || n < 0
}

// release raises what was withheld and is so no more, after warnings that
// inhibited others have ended. It belongs to the end of an instant: a condition
// that ends at the same instant as what inhibits it raises nothing.
func (h *shard) release() {
	if !h.loose {
		return
	}
	h.loose = false
	var free []*binding
	for b := range h.withheld {
		if h.withholds(b) {
			h.queue.arm(b) // its rule may be muted now
		} else {
			free = append(free, b)
		}
	}
	slices.SortFunc(free, (*binding).compare)
	for _, b := range free {
		h.found.at = order{at: h.now, released: true, by: b}
		h.settle(b, h.aim(b.stream, true))
		h.queue.arm(b)
	}
}
