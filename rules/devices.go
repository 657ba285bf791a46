package rules

import "slices"

// device returns the state of a device, which it gets when it has none; nil when
// there are too many.
func (e *Engine) device(id string) *device {
	if d := e.devices[id]; d != nil {
		return d
	}
	facts := e.set.registry.Device(id)
	registered := facts != nil
	if !registered {
		if len(e.devices) >= e.bounds.devices {
			return nil
		}
		facts = stranger(id)
	}
	d := e.set.device(facts, registered)
	d.streams = make([]*stream, len(e.set.plans))
	d.shard = e.shardOf(d.siteName)
	if e.set.mates {
		d.site = e.sites[d.siteName]
		if d.site == nil {
			d.site = &site{streams: make([]*stream, len(e.set.plans))}
			e.sites[d.siteName] = d.site
		}
	}
	e.devices[id] = d
	return d
}

// shardOf returns the shard of a site's devices.
func (e *Engine) shardOf(site string) *shard {
	if len(e.shards) == 1 {
		return e.shards[0]
	}
	if part, ok := e.set.parts[site]; ok {
		return e.shards[e.places[part]]
	}
	h := uint32(2166136261) // FNV-1a
	for i := range len(site) {
		h = (h ^ uint32(site[i])) * 16777619
	}
	return e.shards[h%uint32(len(e.shards))]
}

// join offers a stream to the other kinds of its site. Where several devices of
// a site report a kind, one that is registered with it goes first, then the one
// whose id is first.
func (s *stream) join(set *Set) {
	if s.device.site == nil {
		return
	}
	place := &s.device.site.streams[s.plan.index]
	if *place == nil || s.precedes(*place, set) {
		*place = s
	}
}

func (s *stream) precedes(other *stream, set *Set) bool {
	if x, y := s.listed(set), other.listed(set); x != y {
		return x
	}
	return s.device.id < other.device.id
}

func (s *stream) listed(set *Set) bool {
	d := set.registry.Device(s.device.id)
	return d != nil && slices.Contains(d.Kinds, s.plan.name())
}

// sweep forgets devices that are not registered, were not heard of for the
// set's retention, and have no warning active or pending.
func (e *Engine) sweep(t int64) {
	if e.set == nil {
		return
	}
	dropped := false
	for id, d := range e.devices {
		if d.registered || !d.idle(t-e.set.retention) {
			continue
		}
		for _, s := range d.streams {
			if s == nil {
				continue
			}
			s.tell()
			for i := range s.bindings {
				d.shard.queue.remove(&s.bindings[i])
				s.bindings[i].tally.devices--
			}
		}
		delete(e.devices, id)
		dropped = true
	}
	if dropped && e.set.mates {
		e.rejoin()
	}
}

func (e *Engine) rejoin() {
	clear(e.sites)
	for _, d := range e.devices {
		if e.sites[d.siteName] == nil {
			e.sites[d.siteName] = &site{streams: make([]*stream, len(e.set.plans))}
		}
		d.site = e.sites[d.siteName]
		for _, s := range d.streams {
			if s != nil {
				s.join(e.set)
			}
		}
	}
}

func (d *device) idle(since int64) bool {
	for _, s := range d.streams {
		if s == nil {
			continue
		}
		if s.heard >= since {
			return false
		}
		for i := range s.bindings {
			if s.bindings[i].latched != 0 || s.bindings[i].warning != nil || s.bindings[i].waiting != 0 {
				return false
			}
		}
	}
	return true
}
