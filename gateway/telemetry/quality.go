package telemetry

import "fmt"

// Quality says how far a value may be trusted. It is judged once, before the
// reading is appended to the log, from the range of its kind, its rate of
// change, a flat line and the device's own status.
type Quality uint8

// The qualities, from the best to the worst. Rules use good and suspect
// values and hold their state on the others.
const (
	Good Quality = iota
	Suspect
	Maintenance
	Calibrating
	Bad
)

var qualityNames = [...]string{"good", "suspect", "maintenance", "calibrating", "bad"}

// String returns the quality's word, as stored in the field quality.
func (q Quality) String() string {
	if int(q) < len(qualityNames) {
		return qualityNames[q]
	}
	return fmt.Sprintf("quality(%d)", uint8(q))
}

// ParseQuality reads a quality's word.
func ParseQuality(s string) (Quality, error) {
	for i, name := range qualityNames {
		if s == name {
			return Quality(i), nil
		}
	}
	return Bad, fmt.Errorf("quality %q is not one of good, suspect, maintenance, calibrating, bad", s)
}

// Usable reports whether rules may act on a value of this quality.
func (q Quality) Usable() bool { return q <= Suspect }

// MarshalText writes the quality's word.
func (q Quality) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// UnmarshalText reads a quality's word.
func (q *Quality) UnmarshalText(text []byte) (err error) {
	*q, err = ParseQuality(string(text))
	return err
}
