package intake

import (
	"math"
	"reflect"
	"strings"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// A test names the test that a value did not pass.
type test uint8

const (
	passed test = iota
	grossRange
	spike
	rateOfChange
	flatLine
	testCount
)

var testNames = [testCount]string{"", "gross_range", "spike", "rate_of_change", "flat_line"}

// A world is what the gateway knows, prepared for judging.
type world struct {
	Known
	byKind   map[string]*plan            // kinds that have tests
	byDevice map[string]map[string]*plan // devices that have tests or calibrations of their own: by kind
}

// A plan is what is done to the values of a kind, for a device or for all.
type plan struct {
	values    []valuePlan
	remembers bool          // some test looks at what came before
	fresh     time.Duration // a series that was silent for longer begins anew
}

type valuePlan struct {
	name        string
	tests       telemetry.Tests
	calibration *telemetry.Calibration
}

// newWorld prepares for judging. Plans that are as they were before (nil: there
// is nothing before) stay the same, and with them what is remembered.
func newWorld(k Known, before *world) *world {
	if before == nil {
		before = &world{}
	}
	w := &world{Known: k, byKind: map[string]*plan{}, byDevice: map[string]map[string]*plan{}}
	for _, kind := range k.Kinds.Kinds() {
		if p := planFor(&kind, nil); p != nil {
			w.byKind[kind.Name] = p.or(before.byKind[kind.Name])
		}
	}
	for i := range k.Devices.Devices() {
		d := &k.Devices.Devices()[i]
		if len(d.Quality)+len(d.Calibration) == 0 && (d.Interval == 0 || len(w.byKind) == 0) {
			continue
		}
		own := map[string]*plan{}
		for _, kind := range k.Kinds.Kinds() {
			if p := planFor(&kind, d); p != nil {
				own[kind.Name] = p.or(before.byDevice[d.ID][kind.Name])
			}
		}
		w.byDevice[d.ID] = own
	}
	return w
}

// or returns before when it is the same plan.
func (p *plan) or(before *plan) *plan {
	if before != nil && reflect.DeepEqual(p, before) {
		return before
	}
	return p
}

// Silences after which a series begins anew: what was there before says nothing
// about what is there now.
const (
	freshUnknown = 3 * time.Hour    // the expected interval is not known
	freshLeast   = 15 * time.Minute // else three intervals, at least this
)

// planFor returns nil when there is nothing to do. d may be nil.
func planFor(kind *telemetry.Kind, d *telemetry.Device) *plan {
	p := &plan{fresh: freshUnknown}
	if d != nil && d.Interval > 0 {
		p.fresh = max(3*d.Interval.Std(), freshLeast)
	}
	for i := range kind.Values {
		q := &kind.Values[i]
		v := valuePlan{name: q.Name}
		if q.Quality != nil {
			v.tests = *q.Quality
		}
		if d != nil && !q.Words {
			for _, key := range []string{q.Name, kind.Name + "." + q.Name} { // the clearer name wins
				if own, ok := d.Quality[key]; ok {
					v.tests = own.Over(v.tests)
				}
				if c, ok := d.Calibration[key]; ok {
					v.calibration = &c
				}
			}
		}
		if !v.tests.Any() && v.calibration == nil {
			continue
		}
		p.values = append(p.values, v)
		p.remembers = p.remembers || v.tests.Spike != nil || v.tests.RateOfChange != nil || v.tests.FlatLine != nil
	}
	if len(p.values) == 0 {
		return nil
	}
	return p
}

func (w *world) plan(device, kind string) *plan {
	if len(w.byDevice) > 0 {
		if own, ok := w.byDevice[device]; ok {
			return own[kind]
		}
	}
	if len(w.byKind) == 0 {
		return nil
	}
	return w.byKind[kind]
}

func (p *plan) value(name string) int {
	for i := range p.values {
		if p.values[i].name == name {
			return i
		}
	}
	return -1
}

// tracks are what the tests remember of each series. They are memory only: after
// a restart the first reading of a series is not tested for spike, rate of
// change and flat line.
type tracks struct {
	mu   sync.Mutex
	by   map[series]*tracked
	most int
}

// A tracked series has a track for each value of its plan.
type tracked struct {
	plan   *plan
	values []track
}

func newTracks() *tracks { return &tracks{by: map[series]*tracked{}, most: MaxSeries} }

// of returns what is remembered of the reading's series. The lock is held.
func (t *tracks) of(p *plan, r *telemetry.Reading) *tracked {
	key := seriesOf(r)
	s := t.by[key]
	if s != nil && s.plan == p {
		return s
	}
	if s == nil && len(t.by) >= t.most {
		for k := range t.by { // any: it begins anew when it comes again
			delete(t.by, k)
			break
		}
	}
	s = &tracked{plan: p, values: make([]track, len(p.values))}
	// The names may be views of a payload, which the map would keep.
	key.device, key.kind, key.tags = strings.Clone(key.device), strings.Clone(key.kind), strings.Clone(key.tags)
	t.by[key] = s
	return s
}

// forget lets a series begin anew, as after maintenance.
func (t *tracks) forget(r *telemetry.Reading) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, seriesOf(r))
}

func seriesOf(r *telemetry.Reading) series {
	key := series{device: r.Device, kind: r.Kind}
	for _, t := range r.Tags {
		key.tags += t.Key + "=" + t.Value + ","
	}
	return key
}

// A sample is a number at an event time (Unix ns).
type sample struct {
	value float64
	at    int64
}

// A track is what is remembered of one value of a series.
type track struct {
	known    bool   // believed and newest mean something
	believed sample // the newest that passed
	newest   int64  // event time of the newest that was looked at

	candidate sample // the newest that did not pass
	agreed    int    // how many of them in a row agree; 0: there is none

	low, high float64 // since flat began
	flatSince int64
}

// inRange is the gross range test: it needs no memory.
func (v *valuePlan) inRange(x float64) (telemetry.Quality, test) {
	g := v.tests.GrossRange
	switch {
	case g == nil:
	case outside(x, g.Fail):
		return telemetry.Bad, grossRange
	case outside(x, g.Suspect):
		return telemetry.Suspect, grossRange
	}
	return telemetry.Good, passed
}

func outside(x float64, span []float64) bool {
	return len(span) == 2 && (x < span[0] || x > span[1])
}

// judge makes the tests that look at what came before. x is a number that may be
// trusted as far as it is known. A sample that is not newer than the newest is
// late or a correction: it is not tested and changes nothing.
func (t *track) judge(v *valuePlan, x sample, fresh time.Duration) (telemetry.Quality, test) {
	if t.known && x.at <= t.newest {
		return telemetry.Good, passed
	}
	if !t.known || time.Duration(x.at-t.newest) > fresh {
		*t = track{known: true, newest: x.at}
		t.believe(x, true, 0)
		return telemetry.Good, passed
	}
	t.newest = x.at
	quality, failed := v.step(t.believed, x)
	if failed != passed {
		if near, _ := v.step(t.candidate, x); t.agreed > 0 && near == telemetry.Good {
			t.agreed++
		} else {
			t.agreed = 1
		}
		t.candidate = x
		if t.agreed < v.confirm() {
			return quality, failed
		}
		t.believe(x, true, 0) // the new level is believed, and this is the first of it
		return telemetry.Good, passed
	}
	tolerance := 0.0
	if v.tests.FlatLine != nil {
		tolerance = v.tests.FlatLine.Tolerance
	}
	t.believe(x, false, tolerance)
	return v.flat(time.Duration(x.at - t.flatSince))
}

// believe takes the sample as what is there now. What was flat is so no longer
// when it begins anew, or when the values since then differ by more than the
// tolerance.
func (t *track) believe(x sample, anew bool, tolerance float64) {
	t.believed, t.agreed = x, 0
	low, high := min(t.low, x.value), max(t.high, x.value)
	if anew || high-low > tolerance*(1+1e-9) { // 1.23-1.22 is a little more than 0.01
		low, high, t.flatSince = x.value, x.value, x.at
	}
	t.low, t.high = low, high
}

func (v *valuePlan) confirm() int {
	if s := v.tests.Spike; s != nil && s.Confirm > 0 {
		return s.Confirm
	}
	return telemetry.DefaultConfirm
}

// step judges the way from one sample to the next.
func (v *valuePlan) step(from, to sample) (telemetry.Quality, test) {
	by := math.Abs(to.value - from.value)
	quality, failed := telemetry.Good, passed
	if s := v.tests.Spike; s != nil {
		if q := limit(by, s.Suspect, s.Fail); q > quality {
			quality, failed = q, spike
		}
	}
	if r := v.tests.RateOfChange; r != nil {
		perMinute := by / (float64(to.at-from.at) / float64(time.Minute))
		if q := limit(perMinute, r.Suspect, r.Fail); q > quality {
			quality, failed = q, rateOfChange
		}
	}
	return quality, failed
}

func limit(x, suspect, fail float64) telemetry.Quality {
	switch {
	case fail > 0 && x > fail:
		return telemetry.Bad
	case suspect > 0 && x > suspect:
		return telemetry.Suspect
	}
	return telemetry.Good
}

func (v *valuePlan) flat(lasting time.Duration) (telemetry.Quality, test) {
	f := v.tests.FlatLine
	switch {
	case f == nil:
	case f.Fail > 0 && lasting >= f.Fail.Std():
		return telemetry.Bad, flatLine
	case f.Suspect > 0 && lasting >= f.Suspect.Std():
		return telemetry.Suspect, flatLine
	}
	return telemetry.Good, passed
}

// A failure is a value that did not pass.
type failure struct {
	device, kind, value string
	test                test
	quality             telemetry.Quality
}

// test tests the values of a reading that are in its plan, and adds those that
// did not pass to failures. What is bad already, and what its device says is in
// maintenance, is not tested; after that a series begins anew.
func (in *Intake) test(p *plan, r *telemetry.Reading, failures []failure) []failure {
	var memory *tracked
	if p.remembers {
		in.tracks.mu.Lock()
		defer in.tracks.mu.Unlock()
		memory = in.tracks.of(p, r)
	}
	at := r.Time.UnixNano()
	for i := range r.Values {
		v := &r.Values[i]
		n := p.value(v.Name)
		if n < 0 || v.Text != "" {
			continue
		}
		if now := max(v.Quality, r.Quality); !now.Usable() {
			if memory != nil && now != telemetry.Bad {
				memory.values[n] = track{}
			}
			continue
		}
		of := &p.values[n]
		quality, failed := of.inRange(v.Number)
		if memory != nil && quality != telemetry.Bad {
			if q, f := memory.values[n].judge(of, sample{v.Number, at}, p.fresh); q > quality {
				quality, failed = q, f
			}
		}
		if failed != passed {
			v.Quality = max(v.Quality, quality)
			in.metrics.failed(failed, quality)
			failures = append(failures, failure{r.Device, r.Kind, v.Name, failed, quality})
		}
	}
	return failures
}

func (p *plan) calibrate(v *telemetry.Value, at time.Time) {
	n := p.value(v.Name)
	if n < 0 || v.Text != "" || p.values[n].calibration == nil {
		return
	}
	x := p.values[n].calibration.Apply(v.Number, at)
	if !telemetry.Finite(x) {
		v.Quality = telemetry.Bad // a number at the end of what float64 holds
		return
	}
	v.Number = x
}
