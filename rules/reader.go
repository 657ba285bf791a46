package rules

import (
	"encoding/binary"
	"errors"
	"math"

	"haidang/gateway/telemetry"
)

// A reader reads the body of a checkpoint. After an error everything it returns
// is zero.
type reader struct {
	version byte // of the checkpoint
	rest    []byte
	texts   []string
	err     error
}

var errShort = errors.New("it ends too early")

func (r *reader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.rest)) {
		r.err = errShort
	}
	if r.err != nil {
		r.rest = nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		n = -1
	}
	if r.take(n) == nil {
		return 0
	}
	return v
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		n = -1
	}
	if r.take(n) == nil {
		return 0
	}
	return v
}

func (r *reader) int() int {
	v := r.uint()
	if v > math.MaxInt32 {
		r.take(-1)
		return 0
	}
	return int(v)
}

// count reads how many elements follow, each of at least so many bytes: a wrong
// count cannot make it allocate more than the checkpoint's own size.
func (r *reader) count(least int) int {
	n := r.int()
	if n > len(r.rest)/least {
		r.take(-1)
		return 0
	}
	return n
}

func (r *reader) bytes() []byte { return r.take(r.count(1)) }

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) float() float64 {
	if b := r.take(8); b != nil {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return 0
}

func (r *reader) text() string {
	n := r.int()
	if n == 0 {
		s := string(r.bytes())
		r.texts = append(r.texts, s)
		return s
	}
	if n > len(r.texts) {
		r.take(-1)
		return ""
	}
	return r.texts[n-1]
}

func (r *reader) device() deviceState {
	d := deviceState{id: r.text()}
	for range r.count(6) {
		s := streamState{kind: r.text(), heard: r.signed(), newest: r.signed(), quality: telemetry.Quality(r.byte()), ever: r.byte() == 1}
		if r.version > 2 {
			s.source = r.text()
		}
		for range r.count(11) {
			c := cellState{name: r.text()}
			c.cell = cell{number: r.float(), word: r.text(), at: r.signed()}
			c.cell.heard = c.cell.at + r.signed()
			c.cell.quality = telemetry.Quality(r.byte())
			s.cells = append(s.cells, c)
		}
		for range r.count(5) {
			w := windowState{name: r.text(), width: r.signed(), ranked: r.byte() == 1}
			w.window = r.window(w.width, w.ranked)
			s.windows = append(s.windows, w)
		}
		r.values(&s)
		for range r.count(7) {
			s.bindings = append(s.bindings, r.binding())
		}
		d.streams = append(d.streams, s)
	}
	return d
}

func (r *reader) values(s *streamState) {
	for range r.count(11) {
		h := hoursState{name: r.text(), hours: &hours{last: r.sample(0)}}
		h.hours.undo = r.hour()
		for i := range h.hours.row {
			h.hours.row[i] = r.hour()
		}
		s.hours = append(s.hours, h)
	}
	for range r.count(19) {
		v := prevState{name: r.text()}
		v.prev.has, v.prev.before = r.byte() == 1, r.float()
		last := r.sample(0)
		v.prev.t, v.prev.last, v.prev.any = last.t, last.v, true
		s.prevs = append(s.prevs, v)
	}
	for range r.count(2) {
		s.places = append(s.places, placeSince{r.text(), r.signed()})
	}
	s.before, s.spot = r.position(), r.position()
}

func (r *reader) hour() hourSum { return hourSum{n: int64(r.int()), hour: r.signed(), sum: r.float()} }

func (r *reader) position() (p position) {
	if r.byte() == 1 {
		p.at[0], p.at[1] = r.float(), r.float()
		p.t, p.was = r.signed(), true
	}
	return p
}

func (r *reader) flap() *flapping {
	if r.byte() == 0 {
		return nil
	}
	k := &flapping{on: r.byte() == 1, until: r.signed()}
	t := int64(0)
	for range r.count(2) {
		t += r.signed()
		k.rises = append(k.rises, rise{t, telemetry.Severity(r.byte())})
	}
	return k
}

func (r *reader) binding() bindingState {
	b := bindingState{rule: r.text(), latched: r.byte(), waiting: r.byte()}
	for i := range b.due {
		if b.waiting&(1<<i) != 0 {
			b.due[i] = r.signed()
		}
	}
	b.lastStart, b.again = r.signed(), uint32(r.int())
	b.flap = r.flap()
	if r.byte() == 1 {
		b.warning = &raised{id: string(r.bytes()), start: r.signed(), step: r.int(), severity: telemetry.Severity(r.byte())}
	}
	return b
}

func (r *reader) sample(t int64) sample { return sample{t + r.signed(), r.float()} }

func (r *reader) window(width int64, ranked bool) *window {
	w := &window{width: width, ranked: ranked}
	if width <= 0 {
		r.take(-1)
		return w
	}
	if r.byte() == 1 {
		w.panes = newPanes(width)
		w.panes.newest = r.signed()
		w.panes.undo = r.pane()
		for i := range w.panes.row {
			w.panes.row[i] = r.pane()
		}
		return w
	}
	w.spacing = r.signed()
	n, mid := r.count(9), r.int()
	most := MaxSamples
	if ranked {
		most = MaxRanked
	}
	t := int64(0)
	samples := make([]sample, 0, n)
	for range n {
		s := r.sample(t)
		t = s.t
		samples = append(samples, s)
	}
	if ranked {
		w.refill(samples)
	} else {
		for _, s := range samples {
			w.push(s.t, s.v)
		}
	}
	if mid > w.n || n == 0 || n > most {
		r.take(-1)
		return w
	}
	w.mid = mid
	return w
}

func (r *reader) pane() pane {
	n := r.int()
	if n == 0 {
		return pane{}
	}
	p := pane{total: total{n: int64(n), sum: r.float(), min: r.float(), max: r.float(), mean: r.float(), m2: r.float()}}
	p.first = r.sample(0)
	p.last = r.sample(p.first.t)
	return p
}
