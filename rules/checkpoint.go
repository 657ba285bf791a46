package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"
)

const (
	checkpointMagic   = "HDRS"
	checkpointVersion = 3

	// checkpointBefore is the oldest version that is read: it does not say which
	// source delivered what was heard last.
	checkpointBefore = 2
)

// Checkpoint returns the engine's state; see the package's documentation. The
// same state gives the same bytes.
func (e *Engine) Checkpoint() ([]byte, error) { return e.AppendCheckpoint(nil) }

// AppendCheckpoint appends the engine's state to b.
func (e *Engine) AppendCheckpoint(b []byte) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	begin := len(b)
	b = slices.Grow(b, e.stateBytes+e.stateBytes/16) // it may have tens of megabytes
	w := writer{numbers: make(map[string]uint64, len(e.devices)), buf: append(append(b, checkpointMagic...), checkpointVersion)}
	w.signed(e.now)
	var document []byte
	if e.set != nil {
		var err error
		if document, err = e.set.pack.take(); err != nil {
			return nil, err
		}
	}
	w.bytes(document)
	w.text(e.pending.hash)
	w.count(e.pending.parts)
	w.count(len(e.pending.words))
	for _, part := range e.pending.words {
		w.bytes([]byte(part))
	}
	ids := sortedKeys(e.devices)
	w.count(len(ids))
	for _, id := range ids { // one after the other: there may be a hundred thousand
		d := e.devices[id].state()
		w.device(&d)
	}
	e.stateBytes = len(w.buf) + 4 - begin
	return binary.LittleEndian.AppendUint32(w.buf, crc32.Checksum(w.buf[begin:], castagnoli())), nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// unsealed returns a reader of the body of a checkpoint.
func unsealed(checkpoint []byte) (reader, error) {
	body := len(checkpoint) - 4
	if body < len(checkpointMagic)+1 || string(checkpoint[:len(checkpointMagic)]) != checkpointMagic {
		return reader{}, errors.New("it does not begin with " + checkpointMagic)
	}
	version := checkpoint[len(checkpointMagic)]
	if version < checkpointBefore || version > checkpointVersion {
		return reader{}, fmt.Errorf("it has version %d, this program reads versions %d to %d: evaluate the log from its start", version, checkpointBefore, checkpointVersion)
	}
	if crc32.Checksum(checkpoint[:body], castagnoli()) != binary.LittleEndian.Uint32(checkpoint[body:]) {
		return reader{}, errors.New("it is damaged, its checksum is wrong")
	}
	return reader{version: version, rest: checkpoint[len(checkpointMagic)+1 : body]}, nil
}

// CheckpointDocument returns the document that was in force when a checkpoint was
// made, and log time then; ok is false when there was none.
func CheckpointDocument(checkpoint []byte) (doc Document, at time.Time, ok bool, err error) {
	r, err := unsealed(checkpoint)
	if err != nil {
		return Document{}, time.Time{}, false, fmt.Errorf("read rules checkpoint: %w", err)
	}
	now, packed := r.signed(), r.bytes()
	if len(packed) == 0 || r.err != nil {
		return Document{}, time.Time{}, false, r.err
	}
	text, err := inflate(packed)
	if err == nil {
		doc, err = parseDocument(text)
	}
	if err != nil {
		return Document{}, time.Time{}, false, fmt.Errorf("read rules checkpoint: %w", err)
	}
	return doc, unixTime(now), true, nil
}

// Restore puts the engine into the state of a checkpoint. After an error the
// engine is as it was.
func (e *Engine) Restore(checkpoint []byte) error {
	r, err := unsealed(checkpoint)
	if err != nil {
		return fmt.Errorf("restore rules checkpoint: %w", err)
	}
	now := r.signed()
	document := r.bytes()
	pending := assembly{hash: r.text(), parts: r.int()}
	for range r.count(1) {
		pending.words = append(pending.words, string(r.bytes()))
	}
	states := make([]deviceState, 0, r.count(2))
	for range cap(states) {
		states = append(states, r.device())
	}
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes are left over", len(r.rest))
	}
	if r.err != nil {
		return fmt.Errorf("restore rules checkpoint: %w", r.err)
	}
	var set *Set
	if len(document) > 0 {
		text, err := inflate(document)
		if err == nil {
			e.mu.Lock()
			known := e.known
			e.mu.Unlock()
			set, err = setOf(text, known)
		}
		if err != nil {
			return fmt.Errorf("restore rules checkpoint: %w", err)
		}
		set.pack.know(document)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.setNow(now)
	e.swept, e.pending = now/day, pending
	if set != nil {
		sameConditions(states, set)
		e.load(set, states)
	} else {
		e.set = nil
		for _, s := range e.shards {
			s.set, s.tallies = nil, nil
		}
		e.clear()
	}
	return nil
}

// sameConditions says of the states that they were made under this set.
func sameConditions(states []deviceState, set *Set) {
	conditions := map[string]string{}
	for _, r := range set.rules {
		conditions[r.Name] = r.condition
	}
	for i := range states {
		for j := range states[i].streams {
			for k := range states[i].streams[j].bindings {
				b := &states[i].streams[j].bindings[k]
				b.condition = conditions[b.rule]
			}
		}
	}
}

// A writer writes the body of a checkpoint.
type writer struct {
	buf     []byte
	numbers map[string]uint64 // of the strings that were written
}

func (w *writer) signed(v int64) { w.buf = binary.AppendVarint(w.buf, v) }
func (w *writer) count(n int)    { w.buf = binary.AppendUvarint(w.buf, uint64(n)) }
func (w *writer) float(v float64) {
	w.buf = binary.LittleEndian.AppendUint64(w.buf, math.Float64bits(v))
}
func (w *writer) bits(bits ...byte) { w.buf = append(w.buf, bits...) }

func (w *writer) bytes(b []byte) {
	w.count(len(b))
	w.buf = append(w.buf, b...)
}

// text writes a string: 0 and the string the first time, then its number.
func (w *writer) text(s string) {
	if n, ok := w.numbers[s]; ok {
		w.buf = binary.AppendUvarint(w.buf, n)
		return
	}
	w.numbers[s] = uint64(len(w.numbers) + 1)
	w.count(0)
	w.bytes([]byte(s))
}

func (w *writer) device(d *deviceState) {
	w.text(d.id)
	w.count(len(d.streams))
	for i := range d.streams {
		s := &d.streams[i]
		w.text(s.kind)
		w.signed(s.heard)
		w.signed(s.newest)
		w.bits(byte(s.quality), bit(s.ever))
		w.text(s.source)
		w.count(len(s.cells))
		for _, c := range s.cells {
			w.text(c.name)
			w.float(c.cell.number)
			w.text(c.cell.word)
			w.signed(c.cell.at)
			w.signed(c.cell.heard - c.cell.at)
			w.bits(byte(c.cell.quality))
		}
		w.count(len(s.windows))
		for _, x := range s.windows {
			w.text(x.name)
			w.signed(x.width)
			w.bits(bit(x.ranked))
			w.window(x.window)
		}
		w.values(s)
		w.count(len(s.bindings))
		for i := range s.bindings {
			w.binding(&s.bindings[i])
		}
	}
}

// values writes hourly means, samples before, places and positions.
func (w *writer) values(s *streamState) {
	w.count(len(s.hours))
	for _, h := range s.hours {
		w.text(h.name)
		w.samples(0, h.hours.last)
		w.hour(&h.hours.undo)
		for i := range h.hours.row {
			w.hour(&h.hours.row[i])
		}
	}
	w.count(len(s.prevs))
	for _, v := range s.prevs {
		w.text(v.name)
		w.bits(bit(v.prev.has))
		w.float(v.prev.before)
		w.samples(0, sample{v.prev.t, v.prev.last})
	}
	w.count(len(s.places))
	for _, p := range s.places {
		w.text(p.name)
		w.signed(p.entered)
	}
	w.position(&s.before)
	w.position(&s.spot)
}

func (w *writer) hour(h *hourSum) {
	w.count(int(h.n))
	w.signed(h.hour)
	w.float(h.sum)
}

func (w *writer) position(p *position) {
	w.bits(bit(p.was))
	if p.was {
		w.float(p.at[0])
		w.float(p.at[1])
		w.signed(p.t)
	}
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (w *writer) binding(b *bindingState) {
	w.text(b.rule)
	w.bits(b.latched, b.waiting)
	for i := range b.due {
		if b.waiting&(1<<i) != 0 {
			w.signed(b.due[i])
		}
	}
	w.signed(b.lastStart)
	w.count(int(b.again))
	w.flap(b.flap)
	if b.warning == nil {
		w.bits(0)
		return
	}
	w.bits(1)
	w.bytes([]byte(b.warning.id))
	w.signed(b.warning.start)
	w.count(b.warning.step)
	w.bits(byte(b.warning.severity))
}

func (w *writer) flap(k *flapping) {
	if k == nil {
		w.bits(0)
		return
	}
	w.bits(1, bit(k.on))
	w.signed(k.until)
	w.count(len(k.rises))
	t := int64(0)
	for _, r := range k.rises {
		w.signed(r.at - t)
		w.bits(byte(r.to))
		t = r.at
	}
}

func (w *writer) samples(t int64, s sample) int64 {
	w.signed(s.t - t)
	w.float(s.v)
	return s.t
}

func (w *writer) window(x *window) {
	if x.panes != nil {
		w.bits(1)
		w.signed(x.panes.newest)
		w.pane(&x.panes.undo)
		for i := range x.panes.row {
			w.pane(&x.panes.row[i])
		}
		return
	}
	w.bits(0)
	w.signed(x.spacing)
	w.count(x.n)
	w.count(x.mid)
	t := int64(0)
	for i := range x.n {
		t = w.samples(t, *x.at(i))
	}
}

func (w *writer) pane(p *pane) {
	w.count(int(p.total.n))
	if p.total.n == 0 {
		return
	}
	for _, v := range [...]float64{p.total.sum, p.total.min, p.total.max, p.total.mean, p.total.m2} {
		w.float(v)
	}
	w.samples(w.samples(0, p.first), p.last)
}
