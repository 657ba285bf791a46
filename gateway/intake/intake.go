// Package intake is the one door into the log: it stamps, checks and judges
// what sources deliver and appends it.
//
// What it does to a reading, in this order:
//   - names, tags and values are checked; a reading that breaks a rule is set
//     aside as a dead letter with the reason, and nothing else is lost by it;
//   - a device that is not registered and came by itself (MQTT, HTTP, a bridge) is
//     told of once; its readings are taken, held or refused, see UnknownAccept;
//   - the site is filled in from the registry, and the source is noted;
//   - a reading without a time is stamped with the time of receipt, strictly
//     increasing within its series (device, kind, tags). After a step back of
//     the clock of more than a second the stamps follow the clock and are
//     suspect until they are past the newest earlier one;
//   - a device time before 2000 or more than a day ahead is replaced by the
//     time of receipt; the reading is suspect and keeps the device's time as
//     the word device_time;
//   - a number called like the quality or the word of another value
//     (level_m_quality beside level_m) becomes a word: the log has its name;
//   - values are calibrated;
//   - values outside the range of their kind are bad, and so are words where the
//     kind has a number (set aside when Strict);
//   - values are tested as their kind and device ask, see Tests of quality; while
//     the device or the value is in maintenance or calibration, that is its
//     quality and nothing is tested;
//   - what the catalogue does not know is counted and listed, or set aside when
//     Strict.
//
// Quality is judged here, once, and never again.
//
// # Tests of quality
//
// They are those of QARTOD (IOOS, Manual for Real-Time Quality Control of Water
// Level Data, section 3.3; the manuals for other variables have the same), made
// on each value of a series (device, kind, tags) in the order of arrival:
//   - gross_range: outside of fail the value is bad, outside of suspect suspect.
//   - spike: it departs by more than the limit from the last value that was
//     believed. QARTOD asks the value after it as well; a value that is judged
//     before it is appended has none. So a level is believed again when confirm
//     readings in a row (2) agree on it: the first of a true step is flagged,
//     and a single spike is, but not the way back from it.
//   - rate_of_change: the same, by units per minute of event time.
//   - flat_line: for that long, the values differ by no more than the tolerance.
//
// What is bad, by the device's own word too, is not believed and not remembered.
// A reading that is not newer than the newest of its series (late, or a
// correction) is tested for gross_range only. After a silence of three expected
// intervals, at least 15 minutes (3 hours where no interval is known), and after
// maintenance, a series begins anew: its first value passes. So it does after a
// restart, and where a reload changes the tests: what is remembered is memory,
// of at most MaxSeries series.
//
// Rules act on suspect values and hold their state on bad ones: set fail above
// anything that a real flood can do between two readings.
//
// # Links
//
// Whether a device is linked is told once, when that changes. What the log refuses of
// it, because it is full, Run tells again until the log takes it or something newer
// is told of the same device: else the device would stay down for the rules although
// it sends, or up although it has gone.
package intake

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// MaxAhead is how far a device's time may be ahead of ours.
const MaxAhead = 24 * time.Hour

// MaxSeries bounds the series whose last arrival stamp is remembered.
const MaxSeries = 200_000

// MaxUnknown bounds the unknown kinds and values that are listed.
const MaxUnknown = 1000

// A ReadingLog takes readings; see spool.Log.
type ReadingLog interface {
	AppendAsync(records []telemetry.Reading, done func(error))
}

// A LetterLog takes dead letters; see spool.Log.
type LetterLog interface {
	AppendAsync(records []telemetry.DeadLetter, done func(error))
}

// A Receipt tells the time of receipt, and false while the clock was never set.
type Receipt interface {
	Wall() (time.Time, bool)
}

// Options are what an Intake needs.
type Options struct {
	Readings   ReadingLog
	Letters    LetterLog
	Clock      Receipt
	Known      Known
	Strict     bool   // set aside what the catalogue does not know
	Unknown    string // UnknownAccept (default), UnknownHold or UnknownRefuse
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Known is what the gateway knows of the world: kinds and devices.
type Known struct {
	Kinds   *telemetry.Catalogue
	Devices *telemetry.Registry
}

// An Intake implements telemetry.Intake.
type Intake struct {
	opts      Options
	known     atomic.Pointer[world]
	periods   atomic.Pointer[map[string][]telemetry.Period]
	refused   atomic.Pointer[map[string]bool] // devices that are not registered
	metrics   metrics
	tracks    *tracks
	total     atomic.Uint64
	contacts  contacts
	links     *links
	heardElse atomic.Bool // see HearElsewhere

	mu      sync.Mutex
	stamps  map[series]stamp
	unknown map[string]int
	heard   map[string]*Heard
}

type series struct{ device, kind, tags string }

// A stamp is the last arrival stamp of a series and the highest ever.
type stamp struct{ last, high int64 }

// New makes an Intake.
func New(o Options) *Intake {
	in := &Intake{
		opts: o, metrics: newMetrics(o.Registerer), tracks: newTracks(), links: newLinks(o.Registerer),
		stamps: map[series]stamp{}, unknown: map[string]int{}, heard: map[string]*Heard{},
	}
	in.known.Store(newWorld(o.Known, nil))
	in.SetPeriods(nil)
	return in
}

// SetKnown replaces the catalogue and the registry. What the tests of quality
// remember begins anew where the tests have changed. It is not called twice at a
// time.
func (in *Intake) SetKnown(k Known) { in.known.Store(newWorld(k, in.known.Load())) }

// SetPeriods replaces the periods of maintenance and calibration, by device.
func (in *Intake) SetPeriods(p map[string][]telemetry.Period) { in.periods.Store(&p) }

// Known returns the catalogue and the registry in force.
func (in *Intake) Known() Known { return in.known.Load().Known }

// Total returns how many readings were accepted since the start.
func (in *Intake) Total() uint64 { return in.total.Load() }

// Accept implements telemetry.Intake.
func (in *Intake) Accept(source string, readings []telemetry.Reading, done func(error)) {
	if slices.ContainsFunc(readings, ownLink) {
		defer in.links.begin()()
		done = in.links.telling(source, readings, done)
	}
	in.take(source, readings, done)
}

func (in *Intake) take(source string, readings []telemetry.Reading, done func(error)) {
	a := in.arriving(source)
	periods := *in.periods.Load()
	var failures []failure
	good := readings[:0]
	letters := a.sift(readings, func(i int) {
		r := &readings[i]
		failures = in.judge(a.known, r, periods[r.Device], failures)
		good = append(good, *r)
	})
	in.note(source, good, failures, a.receipt)
	switch {
	case len(letters)+len(good) == 0 && len(readings) > 0:
		if done != nil {
			go done(nil) // not admitted, and counted
		}
	case len(letters) == 0:
		in.opts.Readings.AppendAsync(good, done)
	case len(good) == 0:
		in.opts.Letters.AppendAsync(letters, done)
	default:
		done = both(done)
		in.opts.Letters.AppendAsync(letters, done)
		in.opts.Readings.AppendAsync(good, done)
	}
}

// Receive takes in readings that another gateway has received and judged, but for
// writing them: it returns the places of those that are to be written, which have
// their site and their source then. It calls done once, at once when nothing is set
// aside, else when that is on disk or not; done must not block.
//
// Names and values are checked, devices that are not registered are admitted or not,
// and the delay is that until here, so that what comes late is late. Quality is what it
// was, and nothing is calibrated: that was done where the readings were received.
func (in *Intake) Receive(source string, readings []telemetry.Reading, done func(error)) (good []int) {
	a := in.arriving(source)
	letters := a.sift(readings, func(i int) { good = append(good, i) })
	in.noteAt(source, readings, good, a.receipt)
	if len(letters) == 0 {
		done(nil)
		return good
	}
	in.opts.Letters.AppendAsync(letters, done)
	return good
}

// An arrival is what holds for all readings that come in together.
type arrival struct {
	*Intake
	source  string
	receipt time.Time
	set     bool // the clock was set once
	known   *world
}

func (in *Intake) arriving(source string) arrival {
	receipt, set := in.opts.Clock.Wall()
	return arrival{Intake: in, source: source, receipt: receipt, set: set, known: in.known.Load()}
}

// sift checks, places and stamps readings, and calls take with the place of each that is
// for the log; letters tell what is set aside of the others.
func (a *arrival) sift(readings []telemetry.Reading, take func(i int)) (letters []telemetry.DeadLetter) {
	for i := range readings {
		r := &readings[i]
		if reason, detail := a.check(&a.known.Known, r); reason != "" {
			letters = append(letters, a.letter(a.source, a.receipt, r, reason, detail))
			continue
		}
		site, letter, ok := a.place(a.known, a.source, r, a.receipt)
		if !ok {
			letters = append(letters, letter...)
			continue
		}
		r.Site, r.Source = site, a.source
		a.stamp(r, a.receipt, a.set)
		take(i)
	}
	return letters
}

// place returns the site of a reading's device; not ok when it is not admitted, and
// then its letter, if there is one.
func (in *Intake) place(known *world, source string, r *telemetry.Reading, receipt time.Time) (site string, letters []telemetry.DeadLetter, ok bool) {
	if d := known.Devices.Device(r.Device); d != nil {
		return d.Site, nil, true
	}
	admitted, letter := in.admit(source, r, receipt)
	if admitted {
		return r.Device, nil, true
	}
	reason, detail := in.unadmitted(r.Device)
	if letter {
		return "", []telemetry.DeadLetter{in.letter(source, receipt, r, reason, detail)}, false
	}
	in.metrics.setAside(source, reason)
	return "", nil, false
}

// both returns a callback that is to be called twice and calls done once, at
// the second call, with the first error.
func both(done func(error)) func(error) {
	if done == nil {
		return nil
	}
	var mu sync.Mutex
	var first error
	calls := 0
	return func(err error) {
		mu.Lock()
		calls++
		last := calls == 2
		if first == nil {
			first = err
		}
		err = first
		mu.Unlock()
		if last {
			done(err)
		}
	}
}

// SetAside implements telemetry.Intake.
func (in *Intake) SetAside(letter telemetry.DeadLetter, done func(error)) {
	if letter.At.IsZero() {
		letter.At, _ = in.opts.Clock.Wall()
	}
	in.metrics.setAside(letter.Source, letter.Reason)
	in.opts.Letters.AppendAsync([]telemetry.DeadLetter{letter.Trim()}, done)
}

func (in *Intake) letter(source string, at time.Time, r *telemetry.Reading, reason, detail string) telemetry.DeadLetter {
	in.metrics.setAside(source, reason)
	return telemetry.DeadLetter{
		At: at, Source: source, Device: r.Device, Place: r.Device + "/" + r.Kind,
		Reason: reason, Detail: detail, Bytes: asideOf(r),
	}.Trim()
}

// stamp gives the reading its time and its delay.
func (in *Intake) stamp(r *telemetry.Reading, receipt time.Time, set bool) {
	r.Delay = 0
	if !r.Time.IsZero() {
		if wrong := r.Time.Before(earliest) || r.Time.Sub(receipt) > MaxAhead; !wrong {
			if delay := receipt.Sub(r.Time); delay > telemetry.MaxDelay {
				r.Delay = delay
			}
			return
		}
		in.metrics.wrongTime.Inc()
		r.Values = append(r.Values, telemetry.Value{Name: "device_time", Text: deviceTime(r.Time)})
		r.Quality = max(r.Quality, telemetry.Suspect)
	}
	at, suspect := in.arrival(r, receipt.UnixNano())
	r.Time = time.Unix(0, at).UTC()
	if suspect || !set {
		r.Quality = max(r.Quality, telemetry.Suspect)
	}
}

func deviceTime(t time.Time) string {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return "outside the years 0 to 9999"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// arrival returns the arrival stamp for a reading received at now (Unix ns) and
// whether it is behind an earlier one of its series.
func (in *Intake) arrival(r *telemetry.Reading, now int64) (at int64, behind bool) {
	key := seriesOf(r)
	in.mu.Lock()
	defer in.mu.Unlock()
	s, ok := in.stamps[key]
	if !ok && len(in.stamps) >= MaxSeries {
		for k := range in.stamps { // any: the next stamp of a forgotten series is the clock's
			delete(in.stamps, k)
			break
		}
	}
	if now <= s.last && s.last-now <= int64(time.Second) {
		now = s.last + 1
	}
	s.last, s.high = now, max(s.high, now)
	in.stamps[key] = s
	return now, now < s.high
}

// seenUnknown counts a kind ("kind") or a value ("kind.value") that the
// catalogue does not know, and tells of it once.
func (in *Intake) seenUnknown(name string) {
	in.metrics.unknown.Inc()
	in.mu.Lock()
	defer in.mu.Unlock()
	if n, ok := in.unknown[name]; ok || len(in.unknown) < MaxUnknown {
		in.unknown[name] = n + 1
		if !ok {
			in.opts.Logger.Info("unknown to the catalogue, stored all the same", "name", name)
		}
	}
}
