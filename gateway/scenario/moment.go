package scenario

import (
	"fmt"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Vietnam is the zone of times that are written without one.
var vietnam = time.FixedZone("+07", 7*60*60)

// A Moment is a point of a scenario's log time: an offset from its start such
// as 2h10m, or a time such as 2025-10-27T20:00:00+07:00.
type Moment struct {
	offset time.Duration
	at     time.Time // zero: offset counts
}

// From returns the moment of a scenario that begins at start.
func (m Moment) From(start time.Time) time.Time {
	if !m.at.IsZero() {
		return m.at
	}
	return start.Add(m.offset)
}

// UnmarshalText reads an offset or a time.
func (m *Moment) UnmarshalText(text []byte) error {
	if at, ok := parseDate(string(text)); ok {
		*m = Moment{at: at}
		return nil
	}
	d, err := telemetry.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not an offset from the start such as 90s, 2h10m or 1d, nor a time such as 2025-10-27T20:00:00+07:00", text)
	}
	*m = Moment{offset: d.Std()}
	return nil
}

// A Start is when a scenario begins.
type Start struct{ time.Time }

// UnmarshalText reads a time; without a zone it is Vietnam's.
func (s *Start) UnmarshalText(text []byte) error {
	at, ok := parseDate(string(text))
	if !ok {
		return fmt.Errorf("%q is not a time such as 2025-10-27T20:00:00+07:00 or 2025-10-27 20:00 (Vietnam)", text)
	}
	s.Time = at
	return nil
}

// parseDate reads RFC 3339 and shorter forms, which are in Vietnam's zone.
func parseDate(text string) (time.Time, bool) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, true
	}
	text = strings.Replace(text, "T", " ", 1)
	for _, form := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(form, text, vietnam); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
