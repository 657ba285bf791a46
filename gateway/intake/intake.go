// Package intake is the one door into the log: it stamps, checks and judges
// what sources deliver and appends it.
//
// What it does to a reading, in this order:
//   - names, tags and values are checked; a reading that breaks a rule is set
//     aside as a dead letter with the reason, and nothing else is lost by it;
//   - the site is filled in from the registry;
//   - a reading without a time is stamped with the time of receipt, strictly
//     increasing within its series (device, kind, tags). After a step back of
//     the clock of more than a second the stamps follow the clock and are
//     suspect until they are past the newest earlier one;
//   - a device time before 2000 or more than a day ahead is replaced by the
//     time of receipt; the reading is suspect and keeps the device's time as
//     the word device_time;
//   - values outside the range of their kind are bad, and so are words where the
//     kind has a number (set aside when Strict);
//   - what the catalogue does not know is counted and listed, or set aside when
//     Strict.
//
// Quality is judged here, once, and never again.
package intake

import (
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strconv"
	"strings"
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
	Strict     bool // set aside what the catalogue does not know
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
	opts    Options
	known   atomic.Pointer[Known]
	metrics metrics
	total   atomic.Uint64

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
	in := &Intake{opts: o, metrics: newMetrics(o.Registerer), stamps: map[series]stamp{}, unknown: map[string]int{}, heard: map[string]*Heard{}}
	in.known.Store(&o.Known)
	return in
}

// SetKnown replaces the catalogue and the registry.
func (in *Intake) SetKnown(k Known) { in.known.Store(&k) }

// Known returns the catalogue and the registry in force.
func (in *Intake) Known() Known { return *in.known.Load() }

// Total returns how many readings were accepted since the start.
func (in *Intake) Total() uint64 { return in.total.Load() }

// Accept implements telemetry.Intake.
func (in *Intake) Accept(source string, readings []telemetry.Reading, done func(error)) {
	receipt, set := in.opts.Clock.Wall()
	known := in.known.Load()
	good := readings[:0]
	var letters []telemetry.DeadLetter
	for i := range readings {
		r := &readings[i]
		if reason, detail := in.check(known, r); reason != "" {
			letters = append(letters, in.letter(source, receipt, r, reason, detail))
			continue
		}
		if d := known.Devices.Device(r.Device); d != nil {
			r.Site = d.Site
		} else {
			r.Site = r.Device
		}
		in.stamp(r, receipt, set)
		in.judge(known, r)
		good = append(good, *r)
	}
	in.note(source, good, receipt)
	switch {
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
		Reason: reason, Detail: detail, Bytes: fmt.Appendf(nil, "%+v", r.Values),
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
	key := series{device: r.Device, kind: r.Kind}
	for _, t := range r.Tags {
		key.tags += t.Key + "=" + t.Value + ","
	}
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

// judge marks the values that lie outside the range of their kind, and those
// that are a word where the kind has a number: they are kept as words, and rules
// do not see them as numbers. A word that only writes a number, as in "3.70", is
// that number.
func (in *Intake) judge(known *Known, r *telemetry.Reading) {
	kind := known.Kinds.Kind(r.Kind)
	for i := range r.Values {
		v := &r.Values[i]
		if q := quantity(kind, v.Name); q != nil && !q.Words {
			if v.Text != "" {
				in.wordForNumber(v)
			}
			if v.Text == "" && !q.InRange(v.Number) {
				v.Quality = telemetry.Bad
				in.metrics.outOfRange.Inc()
			}
		}
		r.Quality = max(r.Quality, v.Quality)
	}
}

func quantity(kind *telemetry.Kind, name string) *telemetry.Quantity {
	if kind == nil {
		return nil
	}
	return kind.Quantity(name)
}

func (in *Intake) wordForNumber(v *telemetry.Value) {
	if f, err := strconv.ParseFloat(strings.TrimSpace(v.Text), 64); err == nil && telemetry.Finite(f) {
		v.Number, v.Text = f, ""
		return
	}
	v.Quality = telemetry.Bad
	in.metrics.words.Inc()
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

// Heard is what was last heard of a device.
type Heard struct {
	Device  string
	At      time.Time // of receipt
	Source  string
	Quality telemetry.Quality
	Count   uint64
	Up      *bool    // the newest link reading
	Latest  []Latest // by kind
}

// Latest is the reading of a kind that was received last.
type Latest struct {
	Kind   string
	Time   time.Time
	Values []telemetry.Value
}

// Bounds of what is remembered for the list of devices.
const (
	MaxHeard       = 50_000 // devices
	maxHeardKinds  = 16     // of a device
	maxHeardValues = 64     // of a kind
	maxHeardWord   = 256    // bytes of a word
)

func (in *Intake) note(source string, readings []telemetry.Reading, at time.Time) {
	in.metrics.accept(source, len(readings))
	in.total.Add(uint64(len(readings)))
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range readings {
		r := &readings[i]
		h := in.heard[r.Device]
		if h == nil {
			if len(in.heard) >= MaxHeard {
				continue
			}
			h = &Heard{Device: r.Device}
			in.heard[r.Device] = h
		}
		if r.Kind == telemetry.KindLink {
			up, _ := r.Number("up")
			is := up == 1
			h.Up = &is
			continue
		}
		h.At, h.Source, h.Quality = at, source, r.Quality
		h.Count++
		h.keep(r)
	}
}

// keep remembers the reading as the latest of its kind, in the memory of the
// one before it.
func (h *Heard) keep(r *telemetry.Reading) {
	i := sort.Search(len(h.Latest), func(i int) bool { return h.Latest[i].Kind >= r.Kind })
	if i == len(h.Latest) || h.Latest[i].Kind != r.Kind {
		if len(h.Latest) >= maxHeardKinds {
			return
		}
		h.Latest = slices.Insert(h.Latest, i, Latest{Kind: r.Kind})
	}
	l := &h.Latest[i]
	l.Time = r.Time
	for i := range min(len(r.Values), maxHeardValues) {
		v := r.Values[i]
		if i == len(l.Values) {
			l.Values = append(l.Values, telemetry.Value{})
		}
		// Names and words may be views of a payload: whoever keeps one would keep
		// it all.
		if l.Values[i].Name == v.Name {
			v.Name = l.Values[i].Name
		} else {
			v.Name = strings.Clone(v.Name)
		}
		v.Text = strings.Clone(strings.ToValidUTF8(v.Text[:min(len(v.Text), maxHeardWord)], ""))
		l.Values[i] = v
	}
	l.Values = l.Values[:min(len(r.Values), maxHeardValues)]
}

// Heard returns what was heard since the start, by device.
func (in *Intake) Heard() map[string]Heard {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := make(map[string]Heard, len(in.heard))
	for id, h := range in.heard {
		out[id] = h.copy()
	}
	return out
}

func (h *Heard) copy() Heard {
	c := *h
	c.Latest = slices.Clone(h.Latest)
	for i := range c.Latest {
		c.Latest[i].Values = slices.Clone(c.Latest[i].Values)
	}
	return c
}

// HeardOf returns what was heard of one device since the start.
func (in *Intake) HeardOf(device string) (Heard, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	h, ok := in.heard[device]
	if !ok {
		return Heard{}, false
	}
	return h.copy(), true
}

// HeardSince counts the devices of which a reading of the kind was received
// after that time.
func (in *Intake) HeardSince(kind string, after time.Time) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := 0
	for _, h := range in.heard {
		if h.At.After(after) && slices.ContainsFunc(h.Latest, func(l Latest) bool { return l.Kind == kind }) {
			n++
		}
	}
	return n
}
