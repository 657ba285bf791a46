package ais

import (
	"hash/maphash"
	mathbits "math/bits"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// maxVessels bounds the stations that a fleet remembers; one that was not heard
// for long is forgotten for a new one.
const maxVessels = 50_000

// A Fleet is what all receivers of a gateway know together: which payloads were
// heard just now, where each vessel was, what it said of itself. It merges what
// several receivers hear of one transmission, tells vessels on one MMSI apart,
// thins positions and holds back facts that did not change. Its state is a
// function of what it was fed and of the times of that; it never asks the time
// and does not survive a restart (facts are then handed on once more). It is
// safe for concurrent use.
type Fleet struct {
	seed      maphash.Seed
	forgotten prometheus.Counter

	mu        sync.Mutex
	receivers map[uint64]uint8 // bit of each receiver, by a hash of its name
	recent    sightings
	index     map[uint32]int32
	vessels   []vessel
	last      int    // place of the vessel heard last
	clock     uint64 // counts what was heard
	hand      int    // where the search for a vessel to forget goes on
	shared    int    // numbers that several vessels use
	limit     int    // maxVessels but in tests
}

// A vessel is one MMSI.
type vessel struct {
	mmsi     uint32
	vessels  uint8  // tracks.count when it was last told
	heard    uint64 // the fleet's clock then
	heardBy  uint64 // bits of the receivers since the newest position that was handed on
	heardNow uint64 // bit of the first receiver of the message in hand
	device   string // mmsi-<number>
	tracks
	memoir *memoir
}

// NewFleet makes an empty fleet and registers its metrics; reg may be nil.
func NewFleet(reg prometheus.Registerer) *Fleet {
	f := &Fleet{
		seed: maphash.MakeSeed(), receivers: map[uint64]uint8{}, index: map[uint32]int32{}, limit: maxVessels,
	}
	auto := promauto.With(reg)
	f.forgotten = auto.NewCounter(prometheus.CounterOpts{Name: "haidang_ais_forgotten_vessels_total", Help: "Vessels forgotten because there were too many."})
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_ais_vessels", Help: "MMSIs heard and remembered."}, func() float64 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return float64(len(f.index))
	})
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_ais_shared_mmsis", Help: "MMSIs that several vessels use at once."}, func() float64 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return float64(f.shared)
	})
	return f
}

// maxReceivers are told apart; the others count as one.
const maxReceivers = 64

// receiver returns the bit of a receiver: station is a hash of the tag block's
// source, 0 when there is none. It stays the same.
func (f *Fleet) receiver(name, station uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := name ^ station
	n, ok := f.receivers[key]
	if !ok {
		n = uint8(min(len(f.receivers), maxReceivers-1))
		if len(f.receivers) < maxReceivers {
			f.receivers[key] = n
		}
	}
	return 1 << n
}

// sighted notes that a receiver heard a message, and reports whether it was
// heard already. at may be zero: then nothing is a duplicate.
func (f *Fleet) sighted(m *message, by uint64, at time.Time) (again bool) {
	m.sum = m.bits.sum()
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.heard(m)
	if !at.IsZero() && f.recent.seen(m.sum, at.UnixMilli()) {
		v.heardBy |= by
		return true
	}
	v.heardBy, v.heardNow = v.heardBy|v.heardNow, by
	return false
}

// A verdict is what becomes of a position.
type verdict struct {
	device    string // whose position it is
	track     uint8  // which vessel on the MMSI; 0 when there is only one
	receivers uint8  // that heard it since its last position; 0 with one receiver
	bad       bool   // fits no vessel on this MMSI
	thinned   bool
	vessels   uint8 // how many use the MMSI, when that has changed, else 0
}

// place finds whose position it is and whether it is to be handed on. at may be
// zero: then vessels are neither told apart nor thinned.
func (f *Fleet) place(m *message, r report, l limits, at time.Time) (d verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.heard(m)
	d.device = v.device
	if at.IsZero() {
		return d
	}
	ms, t := at.UnixMilli(), &v.first
	if r.placed && !loner(m.mmsi) {
		t = v.assign(&r, ms)
		d.vessels = f.recount(v)
	}
	if t == nil {
		d.bad = true
		return d
	}
	r.moving = t.moving(r.speed)
	if !distress(m.mmsi) && !t.due(&r, ms, l) {
		d.thinned = true
		return d
	}
	t.hand(&r, ms)
	if v.vessels > 1 {
		d.track = t.number
		if t.number > 1 {
			d.device = trackName(v.device, t.number)
		}
	}
	if len(f.receivers) > 1 {
		d.receivers = uint8(mathbits.OnesCount64(v.heardBy))
	}
	v.heardBy = 0
	return d
}

// loner reports whether the number is of a craft that is never told apart:
// a distress device, whose place may not be doubted, and an aircraft (111),
// which is faster than any vessel.
func loner(mmsi uint32) bool { return distress(mmsi) || mmsi/1_000_000 == 111 }

// recount returns how many vessels use the number when that has changed, else 0.
func (f *Fleet) recount(v *vessel) uint8 {
	if len(v.others) == 0 && v.vessels == 1 {
		return 0
	}
	n := v.count()
	if n == v.vessels {
		return 0
	}
	if n > 1 && v.vessels == 1 {
		f.shared++
	} else if n == 1 {
		f.shared--
	}
	v.vessels = n
	return n
}

// unchanged reports whether the payload of a part is that heard before, and its
// facts were handed on less than refresh ago.
func (f *Fleet) unchanged(m *message, from part, refresh time.Duration, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.heard(m)
	return v.memoir != nil && v.memoir.sums[from] == m.sum && !v.memoir.stale(refresh, at) && v.memoir.using == v.vessels
}

func (m *memoir) stale(refresh time.Duration, at time.Time) bool {
	if at.IsZero() || m.sent == 0 {
		return m.sent == 0
	}
	apart := at.UnixMilli() - m.sent
	return apart >= refresh.Milliseconds() || apart < -refresh.Milliseconds()
}

// learn takes in what a part says. It returns all that is known, how many
// vessels use the number, and whether that is to be handed on: it has changed,
// or was last handed on refresh ago.
func (f *Fleet) learn(m *message, from part, said facts, refresh time.Duration, at time.Time) (known facts, using uint8, device string, due bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.heard(m)
	if v.memoir == nil {
		v.memoir = &memoir{}
	}
	o := v.memoir
	o.sums[from] = m.sum
	known = o.facts.merge(from, said)
	if known == o.facts && o.using == v.vessels && !o.stale(refresh, at) {
		return known, v.vessels, v.device, false
	}
	o.facts, o.using, o.sent = known, v.vessels, 1
	if !at.IsZero() {
		o.sent = at.UnixMilli()
	}
	return known, v.vessels, v.device, known != (facts{})
}

// known returns the facts of an MMSI on which the number of vessels has
// changed; they count as handed on.
func (f *Fleet) known(m *message, at time.Time) facts {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.heard(m)
	if v.memoir == nil {
		v.memoir = &memoir{}
	}
	v.memoir.using, v.memoir.sent = v.vessels, at.UnixMilli()
	return v.memoir.facts
}

// heard returns the message's vessel, and notes that it was heard. It is valid
// until the next call.
func (f *Fleet) heard(m *message) *vessel {
	if f.last < len(f.vessels) && f.vessels[f.last].mmsi == m.mmsi {
		return &f.vessels[f.last]
	}
	i, ok := f.index[m.mmsi]
	if !ok {
		i = int32(f.room())
		f.index[m.mmsi] = i
		f.vessels[i] = vessel{mmsi: m.mmsi, device: deviceName(m.mmsi), vessels: 1}
	}
	v := &f.vessels[i]
	f.clock++
	v.heard, f.last = f.clock, int(i)
	return v
}

// look is how many vessels are looked at to find the one to forget.
const look = 64

// room returns a free place for a vessel: when there are limit that of the one,
// among the next look of them, that was not heard for longest. A list in the
// order of hearing would tell exactly, at the price of two neighbours touched
// for every message.
func (f *Fleet) room() int {
	if len(f.vessels) < f.limit {
		f.vessels = append(f.vessels, vessel{})
		return len(f.vessels) - 1
	}
	oldest := f.hand
	for range min(look, len(f.vessels)) {
		if f.vessels[f.hand].heard < f.vessels[oldest].heard {
			oldest = f.hand
		}
		f.hand = (f.hand + 1) % len(f.vessels)
	}
	v := &f.vessels[oldest]
	delete(f.index, v.mmsi)
	if v.vessels > 1 {
		f.shared--
	}
	f.forgotten.Inc()
	return oldest
}

// Decoder returns a decoder that shares the fleet. The receiver's name tells
// whose sightings are one; policy says what is thinned and whose clock counts.
func (f *Fleet) Decoder(receiver string, policy Policy) *Decoder {
	d := NewDecoder()
	d.fleet, d.policy, d.limits = f, policy, policy.Thin.limits()
	d.receiver = maphash.String(f.seed, receiver) | 1
	d.parser.seed = f.seed // one station has one hash, whoever heard it
	return d
}
