package modbus

import (
	"slices"
	"time"

	"haidang/gateway/telemetry"
)

// A link is whether something is connected, as far as is known.
type link uint8

const (
	unknown link = iota
	up
	down
)

// A unit is one instrument and when it is due.
type unit struct {
	config   *Unit
	device   *device
	kinds    []string // of its readings
	sizes    []int    // how many values each reading can have
	whole    []block  // what is read of a unit that refuses nothing
	blocks   []block  // what is read; split where the unit refuses it
	interval time.Duration

	due      time.Time
	link     link
	failures int                // polls in a row without an answer
	split    bool               // blocks are not whole
	widenAt  time.Time          // when whole ones are tried again
	pause    time.Duration      // before that, the last time; 0: nothing is refused
	refused  map[string]refusal // by value
}

func newUnit(cfg *Unit, interval time.Duration, profile *Profile) *unit {
	u := &unit{config: cfg, interval: interval, refused: map[string]refusal{}}
	if cfg.Interval > 0 {
		u.interval = cfg.Interval.Std()
	}
	fields := cfg.fields(profile)
	for _, f := range fields {
		if f.reading == len(u.kinds) {
			u.kinds = append(u.kinds, f.kind)
			u.sizes = append(u.sizes, 0)
		}
		u.sizes[f.reading]++
	}
	u.whole = plan(fields, profile)
	u.blocks = slices.Clone(u.whole)
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

// readings makes an empty reading per kind, with room for the values.
func (u *unit) readings() []telemetry.Reading {
	readings := make([]telemetry.Reading, len(u.kinds))
	for i, kind := range u.kinds {
		readings[i] = telemetry.Reading{Device: u.config.Device, Kind: kind, Values: make([]telemetry.Value, 0, u.sizes[i])}
	}
	return readings
}

// A device is connected while all its units are.
type device struct {
	id    string
	units []*unit
	told  link
}

// change notes whether a unit of the device answers and returns the link
// reading where the device changes by it.
func (d *device) change(u *unit, to link, cause error) []telemetry.Reading {
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
