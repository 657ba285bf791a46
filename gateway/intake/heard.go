package intake

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Heard is what was last heard of a device.
type Heard struct {
	Device  string
	At      time.Time // of receipt
	Source  string
	Quality telemetry.Quality
	Count   uint64
	Up      *bool    // the newest link reading
	Cause   string   // why it is not up, as far as is known
	Latest  []Latest // by kind

	// Failed are the values that did not pass a test of quality, by kind.value:
	// the newest failure of each.
	Failed map[string]Failed
}

// Failed is a test of quality that a value did not pass.
type Failed struct {
	Test    string // gross_range, spike, rate_of_change or flat_line
	Quality telemetry.Quality
	At      time.Time // of receipt
	Count   uint64    // failures of this value, of whatever test
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

func (in *Intake) note(source string, readings []telemetry.Reading, failures []failure, at time.Time) {
	in.metrics.accept(source, len(readings))
	in.total.Add(uint64(len(readings)))
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range readings {
		if !in.heardElse.Load() {
			in.hear(&readings[i], source, at)
		}
	}
	for i := range failures {
		if h := in.heard[failures[i].device]; h != nil {
			h.fail(&failures[i], at)
		}
	}
}

// noteAt is note of the readings at some places, which were judged elsewhere.
func (in *Intake) noteAt(source string, readings []telemetry.Reading, places []int, at time.Time) {
	in.metrics.accept(source, len(places))
	in.total.Add(uint64(len(places)))
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, i := range places {
		if !in.heardElse.Load() {
			in.hear(&readings[i], source, at)
		}
	}
}

// HearElsewhere says that Hear is called with all that the log has, also with what comes
// through this intake: that is not noted twice.
func (in *Intake) HearElsewhere() { in.heardElse.Store(true) }

// Hear notes what others took in, as their log has it: readings as they were judged,
// and when they were received. Their sources, and devices that came by themselves,
// are remembered as of this intake; nothing is counted as accepted.
func (in *Intake) Hear(readings []telemetry.Reading, received time.Time) {
	known := in.Known().Devices
	for i := range readings {
		r := &readings[i]
		if strings.HasPrefix(r.Kind, "_") {
			continue // the gateway's own records
		}
		if known.Device(r.Device) == nil && comesByItself(r.Source) {
			in.meet(r.Device, r.Source, received)
		}
		in.mu.Lock()
		in.hear(r, r.Source, received)
		in.mu.Unlock()
	}
}

// hear notes one reading. The lock is held.
func (in *Intake) hear(r *telemetry.Reading, source string, at time.Time) {
	h := in.heard[r.Device]
	if h == nil {
		if len(in.heard) >= MaxHeard {
			return
		}
		h = &Heard{Device: strings.Clone(r.Device)}
		in.heard[h.Device] = h
	}
	if r.Kind == telemetry.KindLink {
		up, _ := r.Number("up")
		is := up == 1
		h.Up, h.Cause = &is, strings.Clone(r.Text("cause"))
		return
	}
	if h.Source != source {
		h.Source = strings.Clone(source)
	}
	h.At, h.Quality = at, r.Quality
	h.Count++
	h.keep(r)
}

func (h *Heard) fail(f *failure, at time.Time) {
	name := f.kind + "." + f.value
	before, ok := h.Failed[name]
	if !ok && len(h.Failed) >= maxHeardValues {
		return
	}
	if h.Failed == nil {
		h.Failed = map[string]Failed{}
	}
	h.Failed[name] = Failed{Test: testNames[f.test], Quality: f.quality, At: at, Count: before.Count + 1}
}

// keep remembers the reading as the latest of its kind, in the memory of the
// one before it.
func (h *Heard) keep(r *telemetry.Reading) {
	i := sort.Search(len(h.Latest), func(i int) bool { return h.Latest[i].Kind >= r.Kind })
	if i == len(h.Latest) || h.Latest[i].Kind != r.Kind {
		if len(h.Latest) >= maxHeardKinds {
			return
		}
		h.Latest = slices.Insert(h.Latest, i, Latest{Kind: strings.Clone(r.Kind)})
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
	c.Failed = maps.Clone(h.Failed)
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
