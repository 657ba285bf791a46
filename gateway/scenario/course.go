package scenario

import (
	"fmt"
	"sort"
	"time"

	"haidang/gateway/telemetry"
)

// MaxReadings bounds the readings of a scenario.
const MaxReadings = 1_000_000

// A step is one thing that happens in a scenario's course: a reading is
// received, or an event.
type step struct {
	at      time.Time
	rank    int // of steps at one instant
	reading *telemetry.Reading
	event   *Event
	index   int // of the event
}

const (
	rankEvent = iota
	rankSeries
	rankSingle
)

// A course is a scenario in the order of log time.
type course struct {
	start, end time.Time
	steps      []step
}

// lay makes the course of a scenario.
func lay(s *Scenario, g *Ground) (*course, []telemetry.Fault) {
	c := &course{start: s.Begin()}
	c.end = c.start
	var faults []telemetry.Fault
	for i := range s.Series {
		faults = append(faults, telemetry.Under(fmt.Sprintf("series[%d]", i), c.series(s, &s.Series[i], g))...)
	}
	for i := range s.Readings {
		faults = append(faults, telemetry.Under(fmt.Sprintf("readings[%d]", i), c.single(&s.Readings[i], g))...)
	}
	for i := range s.Events {
		e := &s.Events[i]
		// A time in which the gateway is down shows in the log at its end.
		at := e.At.From(c.start).Add(e.Down.Std() + e.Clock.Std())
		c.steps = append(c.steps, step{at: at, rank: rankEvent, event: e, index: i})
	}
	if len(faults) > 0 {
		return nil, faults
	}
	sort.SliceStable(c.steps, func(i, j int) bool {
		a, b := &c.steps[i], &c.steps[j]
		if !a.at.Equal(b.at) {
			return a.at.Before(b.at)
		}
		return a.rank < b.rank
	})
	c.drop(s)
	for _, st := range c.steps {
		c.reach(st.at)
		if st.at.Before(c.start) {
			return nil, []telemetry.Fault{telemetry.Faultf("start", "something happens at %s, before the scenario starts", st.at.In(vietnam).Format(time.RFC3339))}
		}
	}
	for i := range s.Expect {
		c.reach(s.Expect[i].At.From(c.start))
	}
	if s.Until != nil {
		c.reach(s.Until.From(c.start))
	}
	return c, nil
}

func (c *course) reach(at time.Time) {
	if at.After(c.end) {
		c.end = at
	}
}

// drop takes out what would be received while there is no gateway, or in a time
// over which the clock jumps.
func (c *course) drop(s *Scenario) {
	for i := range s.Events {
		e := &s.Events[i]
		from := e.At.From(c.start)
		to := from.Add(e.Down.Std() + e.Clock.Std())
		kept := c.steps[:0]
		for _, st := range c.steps {
			if st.reading != nil && !st.at.Before(from) && st.at.Before(to) {
				continue
			}
			kept = append(kept, st)
		}
		c.steps = kept
	}
}

// series adds the readings of a series.
func (c *course) series(s *Scenario, from *Series, g *Ground) []telemetry.Fault {
	every := from.Every.Std()
	if every == 0 {
		every = s.Interval.Std()
	}
	if d := g.Devices.Device(from.Device); every == 0 && d != nil {
		every = d.Interval.Std()
	}
	if every <= 0 {
		return []telemetry.Fault{telemetry.Faultf("every", "every is missing: the scenario has no interval, nor has the device")}
	}
	lists, longest, faults := parseLists(from.Values, every)
	if len(faults) > 0 {
		return faults
	}
	if len(c.steps)+longest > MaxReadings {
		return []telemetry.Fault{telemetry.Faultf("values", "the scenario has more than %d readings", MaxReadings)}
	}
	at := from.From.From(c.start)
	for n := range longest {
		if r := readingAt(from, lists, n); r != nil {
			c.add(at.Add(time.Duration(n)*every), from.Delay.Std(), rankSeries, r, g)
		}
	}
	return nil
}

// A namedList is one value of a series; that of the name quality is the quality
// of the reading as a whole.
type namedList struct {
	name string
	*list
}

func parseLists(values map[string]any, every time.Duration) (lists []namedList, longest int, faults []telemetry.Fault) {
	for _, name := range sortedKeys(values) {
		if name != "quality" && (!telemetry.ValidName(name) || telemetry.Reserved(name)) {
			faults = append(faults, telemetry.Faultf("values."+name, "%q cannot be the name of a value", name))
			continue
		}
		l, err := parseList(name, values[name], every, name == "quality")
		if err == nil && name == "quality" {
			for _, s := range l.slots {
				if _, bad := telemetry.ParseQuality(s.value.Text); s.present && bad != nil {
					err = bad
					break
				}
			}
		}
		if err != nil {
			faults = append(faults, telemetry.Faultf("values."+name, "%v", err))
			continue
		}
		lists = append(lists, namedList{name, l})
		longest = max(longest, len(l.slots))
	}
	return lists, longest, faults
}

// readingAt returns the reading of slot n, or nil when nothing is sent.
func readingAt(from *Series, lists []namedList, n int) *telemetry.Reading {
	r := &telemetry.Reading{Device: from.Device, Kind: from.Kind}
	for _, l := range lists {
		s := l.at(n)
		switch {
		case s.silent:
			return nil
		case !s.present:
		case l.name == "quality":
			q, _ := telemetry.ParseQuality(s.value.Text) // parseLists has read it
			r.Quality = max(r.Quality, q)
		default:
			r.Values = append(r.Values, marked(s))
		}
	}
	if len(r.Values) == 0 {
		return nil
	}
	return r
}

// given marks a quality that is not for the range to judge.
const given = telemetry.Quality(0x80)

func marked(s slot) telemetry.Value {
	v := s.value
	if s.judged {
		v.Quality |= given
	}
	return v
}

// single adds a single reading.
func (c *course) single(from *Single, g *Ground) []telemetry.Fault {
	r := &telemetry.Reading{Device: from.Device, Kind: from.Kind, Quality: from.Quality}
	var faults []telemetry.Fault
	for _, name := range sortedKeys(from.Values) {
		s, err := parseSingle(name, from.Values[name])
		if !telemetry.ValidName(name) || telemetry.Reserved(name) {
			err = fmt.Errorf("%q cannot be the name of a value", name)
		}
		if err != nil {
			faults = append(faults, telemetry.Faultf("values."+name, "%v", err))
			continue
		}
		r.Values = append(r.Values, marked(s))
	}
	for _, key := range sortedKeys(from.Tags) {
		if !telemetry.ValidName(key) || telemetry.Reserved(key) || !telemetry.ValidName(from.Tags[key]) {
			faults = append(faults, telemetry.Faultf("tags."+key, "tag %q or its value %q is not a name", key, from.Tags[key]))
		}
		r.Tags = append(r.Tags, telemetry.Tag{Key: key, Value: from.Tags[key]})
	}
	if len(faults) > 0 {
		return faults
	}
	at, delay := from.At.From(c.start), from.Delay.Std()
	if from.Time != nil {
		delay = at.Sub(from.Time.From(c.start))
	}
	c.add(at, delay, rankSingle, r, g)
	return nil
}

// add stamps and judges a reading as the gateway does.
func (c *course) add(received time.Time, delay time.Duration, rank int, r *telemetry.Reading, g *Ground) {
	r.Site = r.Device
	if d := g.Devices.Device(r.Device); d != nil {
		r.Site = d.Site
	}
	r.Time = received.Add(-delay).UTC()
	if delay > telemetry.MaxDelay {
		r.Delay = delay
	}
	kind := g.Kinds.Kind(r.Kind)
	for i := range r.Values {
		v := &r.Values[i]
		switch {
		case v.Quality&given != 0:
			v.Quality &^= given
		case kind != nil && v.Text == "":
			if q := kind.Quantity(v.Name); q != nil && !q.InRange(v.Number) {
				v.Quality = telemetry.Bad
			}
		}
		r.Quality = max(r.Quality, v.Quality)
	}
	c.steps = append(c.steps, step{at: received, rank: rank, reading: r})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
