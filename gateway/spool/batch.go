package spool

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"haidang/gateway/telemetry"
)

// A Frame is what was written to the log at once.
type Frame[T any] struct {
	Seq      uint64    // its place in the log, from 1
	Received time.Time // its receipt time: log time, never decreasing
	Lines    []byte    // its records, one a line; not to be changed
	Count    int       // how many

	controls int
	sources  string // the header
	name     func(records []T, sources string) error
	decode   func(dst []T, lines []byte) ([]T, error)
	records  []T
}

// Records returns the records of the frame. They are decoded once. The error is
// a *DamagedFrame: accept returns it as it is, and the frame is set aside.
func (f *Frame[T]) Records() ([]T, error) {
	if f.records != nil || f.Count == 0 {
		return f.records, nil
	}
	records, err := f.decode(make([]T, 0, f.Count), f.Lines)
	if err == nil && len(records) != f.Count {
		err = fmt.Errorf("it has %d records, its header says %d", len(records), f.Count)
	}
	if err == nil && f.sources != "" && f.name != nil {
		err = f.name(records, f.sources)
	}
	if err != nil {
		return nil, &DamagedFrame{Seq: f.Seq, Err: err}
	}
	f.records = records
	return records, nil
}

// A DamagedFrame is the error of a frame that cannot be decoded.
type DamagedFrame struct {
	Seq uint64
	Err error
}

func (d *DamagedFrame) Error() string { return fmt.Sprintf("decode frame %d: %v", d.Seq, d.Err) }

func (d *DamagedFrame) Unwrap() error { return d.Err }

// A Batch is some frames of the log, in order. There is at least one.
type Batch[T any] struct{ Frames []Frame[T] }

// First returns the sequence of the first frame.
func (b *Batch[T]) First() uint64 { return b.Frames[0].Seq }

// Last returns the sequence of the last frame.
func (b *Batch[T]) Last() uint64 { return b.Frames[len(b.Frames)-1].Seq }

// Count returns how many records the batch has.
func (b *Batch[T]) Count() int {
	n := 0
	for i := range b.Frames {
		n += b.Frames[i].Count
	}
	return n
}

// Lines returns the lines of all frames. They are not to be changed.
func (b *Batch[T]) Lines() []byte { return b.join(func(f *Frame[T]) []byte { return f.Lines }) }

// StoreLines returns the lines of all frames without the log's own records,
// those of the kinds that begin with "_": what the store is to have. It is
// empty when there are no others. They are not to be changed.
func (b *Batch[T]) StoreLines() []byte {
	return b.join(func(f *Frame[T]) []byte {
		if f.controls == 0 {
			return f.Lines
		}
		var kept []byte
		for line := range bytes.Lines(f.Lines) {
			if line[0] != '_' {
				kept = append(kept, line...)
			}
		}
		return kept
	})
}

func (b *Batch[T]) join(lines func(*Frame[T]) []byte) []byte {
	if len(b.Frames) == 1 {
		return lines(&b.Frames[0])
	}
	size := 0
	for i := range b.Frames {
		size += len(b.Frames[i].Lines)
	}
	all := make([]byte, 0, size)
	for i := range b.Frames {
		all = append(all, lines(&b.Frames[i])...)
	}
	return all
}

// Records returns the records of all frames. The error is that of
// Frame.Records.
func (b *Batch[T]) Records() ([]T, error) {
	if len(b.Frames) == 1 {
		return b.Frames[0].Records()
	}
	all := make([]T, 0, b.Count())
	for i := range b.Frames {
		records, err := b.Frames[i].Records()
		if err != nil {
			return nil, err
		}
		all = append(all, records...)
	}
	return all, nil
}

// FromStore turns the error of whoever was given StoreLines into that of the
// batch: a *telemetry.Rejection that counts the lines of StoreLines becomes one
// that counts the records of the batch. Other errors come back as they are.
func (b *Batch[T]) FromStore(err error) error {
	var r *telemetry.Rejection
	if !errors.As(err, &r) {
		return err
	}
	var place []int // record of the batch by line of StoreLines
	n := 0
	for i := range b.Frames {
		for line := range bytes.Lines(b.Frames[i].Lines) {
			if line[0] != '_' {
				place = append(place, n)
			}
			n++
		}
	}
	moved := &telemetry.Rejection{Records: make([]telemetry.RejectedRecord, len(r.Records))}
	for i, record := range r.Records {
		if record.Index >= 0 && record.Index < len(place) {
			record.Index = place[record.Index]
		}
		moved.Records[i] = record
	}
	return moved
}

// line returns the line of the record with this index in the batch and the
// frame that has it, or nil when there is no such record.
func (b *Batch[T]) line(index int) ([]byte, uint64) {
	if index < 0 {
		return nil, b.First()
	}
	for i := range b.Frames {
		f := &b.Frames[i]
		if index >= f.Count {
			index -= f.Count
			continue
		}
		for line := range bytes.Lines(f.Lines) {
			if index == 0 {
				return bytes.TrimSuffix(line, []byte{'\n'}), f.Seq
			}
			index--
		}
	}
	return nil, b.First()
}

// without returns the batch without one frame.
func (b *Batch[T]) without(seq uint64) (rest *Batch[T], taken *Frame[T]) {
	rest = &Batch[T]{}
	for i := range b.Frames {
		if b.Frames[i].Seq == seq {
			taken = &b.Frames[i]
			continue
		}
		rest.Frames = append(rest.Frames, b.Frames[i])
	}
	return rest, taken
}
