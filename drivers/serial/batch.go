package serial

import (
	"slices"
	"time"

	"haidang/gateway/telemetry"
)

// A batch makes readings of what lines say.
type batch struct {
	device   string
	metrics  *metrics
	gather   bool // lines are merged: the newest value of a name wins
	first    int  // of the readings of this line; 0 where lines are merged
	readings []telemetry.Reading
}

// line begins a new line.
func (b *batch) line() {
	if !b.gather {
		b.first = len(b.readings)
	}
}

func (b *batch) reading(kind string) *telemetry.Reading {
	for i := b.first; i < len(b.readings); i++ {
		if b.readings[i].Kind == kind {
			return &b.readings[i]
		}
	}
	b.readings = append(b.readings, telemetry.Reading{Device: b.device, Kind: kind})
	return &b.readings[len(b.readings)-1]
}

func (b *batch) value(kind string, v telemetry.Value) {
	r := b.reading(kind)
	if i := slices.IndexFunc(r.Values, func(old telemetry.Value) bool { return old.Name == v.Name }); i >= 0 {
		r.Values[i] = v
		return
	}
	r.Values = append(r.Values, v)
}

func (b *batch) at(kind string, t time.Time) { b.reading(kind).Time = t }

func (b *batch) lost(reason string) { b.metrics.fields[reason].Inc() }

// take returns the readings and begins anew.
func (b *batch) take() []telemetry.Reading {
	readings := b.readings
	b.readings, b.first = nil, 0
	for i := range readings {
		r := &readings[i]
		for _, v := range r.Values {
			r.Quality = max(r.Quality, v.Quality)
		}
	}
	return readings
}
