// Package values declares the time and duration that storage/reads names.
package values

// Time is nanoseconds since 1970-01-01T00:00:00Z.
type Time int64

// Duration is a number of months and of nanoseconds, both not negative, and a
// sign.
type Duration struct {
	nanoseconds int64
	months      int64
	negative    bool
}

// MakeDuration returns the duration of those months and nanoseconds.
func MakeDuration(nanoseconds, months int64, negative bool) Duration {
	return Duration{nanoseconds: nanoseconds, months: months, negative: negative}
}

// Nanoseconds returns the part of fixed length, with its sign.
func (d Duration) Nanoseconds() int64 {
	if d.negative {
		return -d.nanoseconds
	}
	return d.nanoseconds
}

// Months returns the number of months, without sign.
func (d Duration) Months() int64 { return d.months }
