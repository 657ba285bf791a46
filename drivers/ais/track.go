package ais

import "math"

// How vessels that use one MMSI are told apart: a report belongs to a track that
// it can have come from at the speed of ships.
const (
	driftMetres = 2              // a second, by which a place of long ago counts as farther
	slackLoose  = 10_000         // of type 27, whose position may be minutes old
	slackMetres = 1000           // of positions, clocks and receivers
	fastest     = 400            // 1/10 kn; a vessel that says it is faster may be
	forgetAfter = 24 * 3_600_000 // ms; a track that was not heard for longer is forgotten
	forgetTrial = 6 * 3_600_000  // ms; one report without a second
	joinAfter   = 6 * 3_600_000  // ms; see join
	maxTracks   = 16             // vessels on one MMSI
	maxTrials   = 8              // reports that belong nowhere, so far
)

// A fix is a place at a time.
type fix struct {
	at       int64 // Unix ms
	lat, lon int32 // 1/10000 minute
}

// A state is what a change of keeps a report from being thinned.
type state struct {
	status uint8 // navigation status, or off position of an aid
	placed bool
	manual bool // the position is suspect
	moving bool
}

// A report is what tracks and thinning need of a position message.
type report struct {
	state
	lat, lon int32  // 1/10000 minute, when placed
	speed    uint16 // 1/10 kn; noSpeed when not available
	loose    bool   // the position is coarse and may be old
}

// newReport makes a report of a place in 1/10000 minute.
func newReport(lon, lat int32, speed uint16, second, status uint8) report {
	r := report{lat: lat, lon: lon, speed: speed}
	r.placed = lon <= 180*fine && lon >= -180*fine && lat <= 90*fine && lat >= -90*fine
	r.status, r.manual = status, second >= secondManual
	return r
}

// nowhere reports whether the place is 0 degrees north, 0 degrees east, to a
// kilometre: what many receivers send before they have a fix.
func (r *report) nowhere() bool {
	const near = fine / 100
	return r.lat < near && r.lat > -near && r.lon < near && r.lon > -near
}

// Speeds at which a vessel counts as under way and as stopped, 1/10 kn; between
// them it stays what it was.
const (
	underway = 7
	stopped  = 3
)

// A track is one of the vessels on an MMSI.
type track struct {
	number  uint8 // from 1; 0: on trial
	handed  bool  // a report was handed on
	state   state // of the report that was handed on
	reports uint8 // up to 2
	speed   uint16
	began   int64 // Unix ms
	last    fix   // newest report
	kept    fix   // newest report that was handed on
}

// moving judges whether the track moves; the track's own state decides between
// the two speeds.
func (t *track) moving(speed uint16) bool {
	switch {
	case speed == noSpeed:
		return t.state.moving
	case t.state.moving:
		return speed > stopped
	}
	return speed >= underway
}

// reaches reports whether the report can be of this track.
func (t *track) reaches(r *report, at int64) (apart float64, ok bool) {
	const near = slackMetres * fine / metresPerDegree / 2
	if dlat, dlon := t.last.lat-r.lat, t.last.lon-r.lon; dlat < near && dlat > -near && dlon < near && dlon > -near {
		return 0, true
	}
	apart = metres(t.last.lat, t.last.lon, r.lat, r.lon)
	speed := max(t.speed, uint16(fastest))
	if r.speed != noSpeed {
		speed = max(speed, r.speed)
	}
	if speed > fastest {
		speed += speed / 4
	}
	lasting := at - t.last.at
	if lasting < 0 {
		lasting = -lasting
	}
	slack := float64(slackMetres)
	if r.loose {
		slack = slackLoose
	}
	// 1/10 kn is 1852/36,000,000 metres in a millisecond
	return apart, apart <= slack+float64(speed)*float64(lasting)*(1852.0/36_000_000)
}

// follow takes a report into the track.
func (t *track) follow(r *report, at int64) {
	if t.reports < 2 {
		t.reports++
	}
	if at >= t.last.at {
		t.last = fix{at: at, lat: r.lat, lon: r.lon}
	}
	if r.speed != noSpeed {
		t.speed = r.speed
	}
}

// tracks are those of one MMSI. The first is the vessel's as long as there is
// only one.
type tracks struct {
	first  track
	others []track
}

// count returns how many vessels use the MMSI, at least 1.
func (s *tracks) count() uint8 {
	n := uint8(0)
	if s.first.reports > 0 {
		n = 1
	}
	for i := range s.others {
		if s.others[i].number > 0 {
			n++
		}
	}
	return max(n, 1)
}

// assign finds the track of a placed report, or nil when it is nowhere or fits
// none and is not yet borne out by a second one.
func (s *tracks) assign(r *report, at int64) *track {
	s.forget(at)
	if r.nowhere() {
		return nil
	}
	if s.first.reports == 0 && len(s.others) == 0 {
		s.first = track{number: 1, began: at, last: fix{at: at}}
		s.first.follow(r, at)
		return &s.first
	}
	t := s.nearest(r, at)
	if t == nil {
		s.try(r, at)
		return nil
	}
	t.follow(r, at)
	if t == &s.first {
		return t
	}
	if t.number == 0 {
		return s.admit(t)
	}
	return s.join(t, r, at)
}

// nearest returns the track that the report can be of, a confirmed one before
// one on trial, the nearest of several; one that was not heard for long counts
// as farther, since it may be anywhere by now.
func (s *tracks) nearest(r *report, at int64) (best *track) {
	var least float64
	consider := func(t *track) {
		apart, ok := t.reaches(r, at)
		if !ok {
			return
		}
		apart += driftMetres * math.Abs(float64(at-t.last.at)) / 1000
		if best != nil && (best.number > 0) == (t.number > 0) && apart >= least || best != nil && best.number > 0 && t.number == 0 {
			return
		}
		best, least = t, apart
	}
	if s.first.reports > 0 {
		consider(&s.first)
	}
	for i := range s.others {
		consider(&s.others[i])
	}
	return best
}

// try keeps a report that fits no track; a second one that fits it makes it one.
func (s *tracks) try(r *report, at int64) {
	trials, oldest := 0, -1
	for i := range s.others {
		if s.others[i].number == 0 {
			trials++
			if oldest < 0 || s.others[i].last.at < s.others[oldest].last.at {
				oldest = i
			}
		}
	}
	t := track{began: at, last: fix{at: at}}
	t.follow(r, at)
	if trials == maxTrials {
		s.others[oldest] = t
		return
	}
	s.others = append(s.others, t)
}

// admit gives a track on trial, of which a second report has come, the lowest
// free number; nil when there is none. A first report that nothing has borne out
// since was noise: the track takes its place.
func (s *tracks) admit(t *track) *track {
	if s.first.reports <= 1 {
		handed, state := s.first.handed, s.first.state
		s.first = *t
		s.first.number, s.first.handed, s.first.state = 1, handed && t.handed, state
		s.remove(t)
		return &s.first
	}
	var used [maxTracks + 1]bool
	for i := range s.others {
		used[s.others[i].number] = true
	}
	for n := 2; n <= maxTracks; n++ {
		if !used[n] {
			t.number = uint8(n)
			return t
		}
	}
	return nil
}

// join makes one vessel of the first and this track when the first was not
// heard since this one began, and can have come here or is silent for joinAfter:
// then it was one vessel whose position or clock was wrong for a while, as after
// a cold start. Two that were heard in turn are two and never joined.
func (s *tracks) join(t *track, r *report, at int64) *track {
	if s.first.reports == 0 || s.first.last.at >= t.began {
		return t
	}
	if _, ok := s.first.reaches(r, at); !ok && at-s.first.last.at <= joinAfter {
		return t
	}
	s.first = *t
	s.first.number = 1
	s.remove(t)
	return &s.first
}

// forget drops the tracks that were not heard for long.
func (s *tracks) forget(at int64) {
	if s.first.reports > 0 && at-s.first.last.at > forgetAfter {
		s.first = track{}
	}
	if len(s.others) == 0 {
		return
	}
	kept := s.others[:0]
	for i := range s.others {
		t := &s.others[i]
		if lasting := at - t.last.at; lasting <= forgetTrial || t.number > 0 && lasting <= forgetAfter {
			kept = append(kept, *t)
		}
	}
	if s.others = kept; len(kept) == 0 {
		s.others = nil
	}
}

func (s *tracks) remove(t *track) {
	for i := range s.others {
		if &s.others[i] == t {
			s.others = append(s.others[:i], s.others[i+1:]...)
			return
		}
	}
}
