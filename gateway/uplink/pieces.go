package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"haidang/gateway/telemetry"
)

// A load is the readings of a parcel on their way into the log, in pieces that fit into
// a frame each.
type load struct {
	r       *Receiver
	head    *parcel
	account *telemetry.Account
	beyond  map[string]Position // of devices: on disk, of an earlier try

	readings []telemetry.Reading
	places   []Position // of the readings
	bytes    int
	to       Position
}

// Bounds of a piece: with its record it is in one frame of 512 KiB.
const (
	maxPiece = 448 << 10
	extra    = 128 // bytes that a line may grow by its delay and the device's time
)

// add takes the lines of a part; whole says that the frame ends with it, as far as the
// parcel has it. A line that cannot be read costs no other.
func (l *load) add(p *part, whole bool) error {
	readings, err := l.r.d.Decode(p.lines)
	n := 0
	for line := range bytes.Lines(p.lines) {
		var reading *telemetry.Reading
		if err == nil && n < len(readings) {
			reading = &readings[n]
		} else if one, bad := l.r.d.Decode(line); bad == nil && len(one) == 1 {
			reading = &one[0]
		} else {
			l.aside(p, line, "", "bad_line", fmt.Sprintf("it is no reading in line protocol: %v", bad))
		}
		n++
		if reading != nil && l.account != nil && !l.account.Speaks(reading.Device) {
			l.aside(p, line, reading.Device, "not_own_device", fmt.Sprintf("account %q does not speak for device %q", l.account.Name, reading.Device))
			reading = nil
		}
		at := Position{Seq: p.seq, Line: p.from + n, Received: p.received}
		if reading != nil && !l.has(reading.Device, at) {
			if err := l.put(reading, at, len(line)+extra+l.r.d.Grows(reading)); err != nil {
				return err
			}
		}
		l.to = at
	}
	if whole {
		l.to = Position{Seq: p.seq, Received: p.received}
	}
	return nil
}

// has reports whether an earlier try has brought a reading to the disk.
func (l *load) has(device string, at Position) bool {
	known, is := l.beyond[device]
	return is && !at.beyond(known)
}

// put adds a reading of that size to the piece.
func (l *load) put(reading *telemetry.Reading, at Position, size int) error {
	if l.bytes+size > maxPiece && len(l.readings) > 0 {
		if err := l.write(); err != nil {
			return err
		}
	}
	l.readings, l.places = append(l.readings, *reading), append(l.places, at)
	l.bytes += size
	return nil
}

func (l *load) aside(p *part, line []byte, device, reason, detail string) {
	l.r.d.SetAside(telemetry.DeadLetter{Source: source(l.head.Gateway), Device: device, Place: fmt.Sprintf("%s readings %d", l.head.Gateway, p.seq),
		Reason: reason, Detail: detail, Bytes: line}, nil)
}

// A share is what a partition gets of a piece.
type share struct {
	partition int
	id        string // of its frame
	readings  []telemetry.Reading
	before    uint64 // newest frame of the partition before
	err       error  // what came of it
}

// shares shares out the piece. A piece without readings is one that the partition of
// the gateway's name gets.
func (l *load) shares(good []int) []*share {
	d := &l.r.d
	byPartition := make([]*share, len(d.Partitions))
	var all []*share
	for _, i := range good {
		r := &l.readings[i]
		n := d.PartitionOf(r.Site)
		if byPartition[n] == nil {
			// Whoever writes the piece, the first reading is the first that is not on disk.
			id := fmt.Sprintf("uplink/%s/%s/%d/%d", l.head.Gateway, l.head.Epoch, l.places[i].Seq, l.places[i].Line)
			byPartition[n] = &share{partition: n, id: id}
			all = append(all, byPartition[n])
		}
		byPartition[n].readings = append(byPartition[n].readings, *r)
	}
	if len(all) == 0 {
		all = append(all, &share{partition: d.PartitionOf(l.head.Gateway)})
	}
	return all
}

// write writes the piece with its record, or records, and waits until all are on disk.
// What comes of it is not given up when the gateway is gone meanwhile: its next request
// waits for it, and finds what was written.
func (l *load) write() error {
	r, n := l.r, len(l.readings)
	r.writing.RLock()
	defer r.writing.RUnlock()
	aside := make(chan error, 1)
	good := r.d.Receive(source(l.head.Gateway), l.readings, func(err error) { aside <- err })
	if err := <-aside; err != nil {
		return l.refused(err)
	}
	all := l.shares(good)
	l.append(all)
	err := l.took(all)
	l.readings, l.places, l.bytes = nil, nil, 0
	if err != nil {
		return l.refused(err)
	}
	r.metrics.records.WithLabelValues(l.head.Gateway, logReadings).Add(float64(n))
	return nil
}

// append writes shares, each in one frame with a record.
func (l *load) append(all []*share) {
	r := l.r
	var after *Position
	if len(all) > 1 {
		at := l.head.After
		r.mu.Lock()
		if s := r.memory.enter(l.head.Gateway, l.head.Epoch); s != nil {
			at = s.Readings
		}
		r.mu.Unlock()
		after = &at
	}
	mark := record(l.head.Gateway, l.head.Epoch, l.to, after, r.d.Now())
	var written sync.WaitGroup
	for _, s := range all {
		p := &r.d.Partitions[s.partition]
		s.before = p.Last()
		written.Add(1)
		p.Append(s.id, append(s.readings, mark), func(err error) { s.err = err; written.Done() })
	}
	written.Wait()
}

// took notes what came of shares, and returns why not all are on disk.
func (l *load) took(all []*share) (err error) {
	r := l.r
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range all {
		if s.err == nil {
			continue
		}
		err = s.err
		p := &r.d.Partitions[s.partition]
		if frame, known := p.There(s.err); known {
			r.unsure[s.partition].raise(min(s.before, frame-1))
		} else if !p.Unwritten(s.err) {
			r.unsure[s.partition].raise(s.before)
		}
	}
	r.changed = true
	at := r.memory.enter(l.head.Gateway, l.head.Epoch)
	switch {
	case at == nil:
	case err == nil:
		at.complete(l.to)
		delete(r.guests[l.head.Gateway].said, reasonFull)
	default:
		for _, s := range all {
			for i := range s.readings {
				if s.err == nil {
					at.has(s.readings[i].Device, l.to)
				}
			}
		}
	}
	return err
}

// refused is why a piece is not taken.
func (l *load) refused(err error) error {
	l.r.tell(l.head.Gateway, reasonFull, fmt.Sprintf("the log does not take what gateway %s pushes: %v", l.head.Gateway, err))
	return fmt.Errorf("the log of the centre does not take readings now: %w", err)
}

// settle finds out what became of writes that failed: once a record of ours is on disk
// what came before it is there or never will be, and the log says which.
func (r *Receiver) settle(ctx context.Context) error {
	r.mu.Lock()
	unsure := slices.ContainsFunc(r.unsure, func(d doubt) bool { return d.is })
	r.mu.Unlock()
	if !unsure {
		return nil
	}
	r.writing.Lock()
	defer r.writing.Unlock()
	var errs []error
	for n := range r.unsure {
		r.mu.Lock()
		d := r.unsure[n]
		r.mu.Unlock()
		if !d.is {
			continue
		}
		if err := r.clear(ctx, n, d.since+1); err != nil {
			errs = append(errs, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory.conclude()
	return errors.Join(errs...)
}

// clear reads a partition from a frame on, behind a record of ours.
func (r *Receiver) clear(ctx context.Context, n int, from uint64) error {
	p := &r.d.Partitions[n]
	written := make(chan error, 1)
	p.Append("", []telemetry.Reading{{Device: r.d.Gateway, Site: r.d.Gateway, Kind: telemetry.KindUplink, Time: r.d.Now(),
		Values: []telemetry.Value{{Name: "mark", Number: 1}}}}, func(err error) { written <- err })
	// Where several may write, the frames have ids: what arrives after this is not taken
	// twice. A log that is full is not to wait for our record until it is emptied.
	if err := <-written; err != nil && !(r.d.Shared && p.Unwritten(err)) {
		return fmt.Errorf("the log of the centre does not take readings now: %w", err)
	}
	if err := r.read(ctx, n, from); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsure[n], r.changed = doubt{}, true
	return nil
}
