package rules

import "slices"

// divide finds the parts of the set's registered devices that can be evaluated
// apart: the devices of a site belong together, because they see each other's
// values, and where some rule is inhibited, so do a device and those that its
// facts gateway and line name, because their warnings inhibit those of the
// device. A device that is not registered is a part of its own unless it is
// named so.
func (s *Set) divide() {
	sites := union{}
	devices := s.registry.Devices()
	for i := range devices {
		d := &devices[i]
		sites.find(d.Site)
		if s.carriers == nil {
			continue
		}
		for _, name := range carriers() {
			v, _ := d.Fact(name)
			if carrier, _ := v.(string); carrier != "" {
				sites.join(d.Site, s.siteOf(carrier))
			}
		}
	}
	s.parts = make(map[string]int, len(sites))
	numbers := map[string]int{}
	for _, site := range sortedKeys(sites) {
		root := sites.find(site)
		if _, ok := numbers[root]; !ok {
			numbers[root] = len(numbers)
		}
		s.parts[site] = numbers[root]
	}
	s.weights = make([]int, len(numbers))
	for i := range devices {
		w := &s.weights[s.parts[devices[i].Site]]
		*w += readingCost
		for _, kind := range devices[i].Kinds {
			if p := s.byKind[kind]; p != nil {
				*w += len(p.rules)
			}
		}
	}
}

func (s *Set) siteOf(device string) string {
	if d := s.registry.Device(device); d != nil {
		return d.Site
	}
	return device
}

// place deals the parts out to n shards: each, the heaviest first, to the shard
// that has the least.
func (s *Set) place(n int) []int {
	byWeight := make([]int, len(s.weights))
	for i := range byWeight {
		byWeight[i] = i
	}
	slices.SortStableFunc(byWeight, func(a, b int) int { return s.weights[b] - s.weights[a] })
	places, load := make([]int, len(s.weights)), make([]int, n)
	for _, part := range byWeight {
		least := 0
		for i := range load {
			if load[i] < load[least] {
				least = i
			}
		}
		places[part] = least
		load[least] += s.weights[part]
	}
	return places
}

// A union joins names to sets: each leads to another of its set, the last to
// itself.
type union map[string]string

func (u union) find(name string) string {
	root, ok := u[name]
	if !ok {
		u[name] = name
		return name
	}
	for root != u[root] {
		root = u[root]
	}
	u[name] = root
	return root
}

func (u union) join(a, b string) { u[u.find(a)] = u.find(b) }
