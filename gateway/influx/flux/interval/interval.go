// Package interval declares the windows of fixed length that storage/reads
// names.
package interval

import (
	"errors"

	"github.com/influxdata/flux/values"
)

// Window is a sequence of periods, one beginning at every multiple of every
// plus offset.
type Window struct {
	every, period, offset int64 // nanoseconds
}

// NewWindow returns a window. Months are refused: their length is not fixed,
// and nothing outside Flux asks for them.
func NewWindow(every, period, offset values.Duration) (Window, error) {
	if every.Months() != 0 || period.Months() != 0 || offset.Months() != 0 {
		return Window{}, errors.New("a window of months needs Flux, which is not built in")
	}
	if every.Nanoseconds() <= 0 {
		return Window{}, errors.New("a window needs a positive length")
	}
	return Window{every: every.Nanoseconds(), period: period.Nanoseconds(), offset: offset.Nanoseconds()}, nil
}

// Every returns the distance between the beginnings of two periods.
func (w Window) Every() values.Duration {
	return values.MakeDuration(w.every, 0, false)
}

// IsZero reports whether w is the zero window, which stands for all time.
func (w Window) IsZero() bool { return w == Window{} }

// GetLatestBounds returns the bounds of the latest period that contains t.
func (w Window) GetLatestBounds(t values.Time) Bounds {
	since := (int64(t) - w.offset) % w.every
	if since < 0 {
		since += w.every
	}
	start := int64(t) - since
	return Bounds{start: values.Time(start), stop: values.Time(start + w.period)}
}

// Bounds is the half-open interval [Start, Stop).
type Bounds struct{ start, stop values.Time }

// Start is the first instant inside.
func (b Bounds) Start() values.Time { return b.start }

// Stop is the first instant after.
func (b Bounds) Stop() values.Time { return b.stop }
