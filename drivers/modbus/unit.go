package modbus

import (
	"slices"
	"time"

	"haidang/gateway/telemetry"
)

// A state is whether something is connected, as far as is known.
type state uint8

const (
	unknown state = iota
	up
	down
)

// A unit is one instrument and when it is due.
type unit struct {
	config   *Unit
	device   *device
	kinds    []string  // of its readings
	sizes    []int     // how many values each reading can have
	whole    []block   // what is read of a unit that refuses nothing
	blocks   []block   // what is read; split where the unit refuses it
	statuses []*Status // that judge its values
	provable bool      // its reads do not all look alike; see doubts
	interval time.Duration

	due      time.Time
	link     state
	failures int                // polls in a row without an answer
	split    bool               // blocks are not whole
	widenAt  time.Time          // when whole ones are tried again
	pause    time.Duration      // before that, the last time; 0: nothing is refused
	refused  map[string]refusal // by value
	doubts   doubts
}

func newUnit(cfg *Unit, interval time.Duration, profile *Profile) *unit {
	u := &unit{config: cfg, interval: interval, refused: map[string]refusal{}}
	if cfg.Interval > 0 {
		u.interval = cfg.Interval.Std()
	}
	fields := cfg.fields(profile)
	for i := range fields {
		f := &fields[i]
		if f.status != nil {
			f.verdict = len(u.statuses)
			u.statuses = append(u.statuses, f.status)
			continue
		}
		if f.reading == len(u.kinds) {
			u.kinds = append(u.kinds, f.kind)
			u.sizes = append(u.sizes, 0)
		}
		u.sizes[f.reading]++
	}
	u.whole = plan(fields, profile)
	u.blocks = slices.Clone(u.whole)
	for i := range u.whole {
		u.provable = u.provable || i > 0 && !u.whole[i].span().alike(u.whole[0].span())
	}
	return u
}

// reschedule moves the unit to its next slot and returns how many slots went by
// unused. Slots stay on the grid of the first poll. A unit that failed is put
// off by 1, 2, 4, 8 and then 10 slots, at most 5 minutes.
func (u *unit) reschedule(now time.Time, failed bool) (missed int64) {
	slots := int64(1)
	if failed {
		slots = min(1<<min(u.failures, 8), maxBackoffSlots, max(1, int64(maxBackoff/u.interval)))
		u.failures++
	} else {
		u.failures = 0
	}
	u.due = u.due.Add(time.Duration(slots) * u.interval)
	if late := now.Sub(u.due); late >= u.interval {
		missed = int64(late / u.interval)
		u.due = u.due.Add(time.Duration(missed) * u.interval)
	}
	return missed
}

// A device is connected while all its units are.
type device struct {
	id    string
	units []*unit
	told  state
}

// change notes whether a unit of the device answers and returns the link
// reading where the device changes by it.
func (d *device) change(u *unit, to state, cause error) []telemetry.Reading {
	u.link = to
	for _, other := range d.units {
		if to == up && other.link != up {
			return nil
		}
	}
	if d.told == to {
		return nil
	}
	d.told = to
	return []telemetry.Reading{telemetry.Link(d.id, to == up, cause)}
}
