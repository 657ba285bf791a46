package uplink

import (
	"bytes"
	"context"
	"encoding/json"

	"haidang/gateway/telemetry"
)

// warnings pushes the warnings: first those that last, where the centre knows nothing
// of this log, then each step.
func (s *Sender) warnings(ctx context.Context, w Welcome) error {
	log := &s.o.Warnings
	if w.Warnings == nil {
		if err := s.offer(ctx); err != nil {
			return err
		}
	}
	from := log.Position() + 1
	if w.Warnings != nil && w.Warnings.Seq < log.Position() {
		from = w.Warnings.next() // what was not told is passed over again
	}
	t := &teller{s: s, expected: from}
	return follow(ctx, log, from, t.take)
}

// offer tells the warnings that last, and that there are no others.
func (s *Sender) offer(ctx context.Context) error {
	at := s.o.Warnings.Last()
	var body []byte
	for _, t := range s.o.Lasting() {
		if stays(&t) {
			continue
		}
		line, err := json.Marshal(told{Seq: at, Warning: t.Warning})
		if err != nil {
			return err
		}
		if len(body)+len(line) > maxBody/2 {
			break // their next steps come; it is thousands
		}
		body = append(append(body, line...), '\n')
	}
	head := &parcel{Gateway: s.o.Gateway, Epoch: s.name(), To: Position{Seq: s.o.Warnings.Position()}, All: true}
	return s.deliver(ctx, logWarnings, head, body)
}

// A teller makes parcels of the warnings log.
type teller struct {
	s        *Sender
	expected uint64
	body     []byte
	count    int
}

// take pushes a batch of frames.
func (t *teller) take(ctx context.Context, frames []Frame) error {
	for i := range frames {
		f := &frames[i]
		if f.Seq < t.expected {
			continue
		}
		if gone := f.Seq - t.expected; gone > 0 {
			t.s.metrics.lost[logWarnings].Add(float64(gone))
		}
		t.expected = f.Seq + 1
		for line := range bytes.Lines(f.Lines) {
			if err := t.add(ctx, f.Seq, line); err != nil {
				return err
			}
		}
	}
	last := frames[len(frames)-1].Seq
	if err := t.flush(ctx, last); err != nil {
		return err
	}
	return t.s.o.Warnings.Commit(ctx, last)
}

func (t *teller) add(ctx context.Context, seq uint64, line []byte) error {
	var step telemetry.Transition
	if err := json.Unmarshal(line, &step); err != nil || !travels(&step) {
		return nil // what cannot be read is told by the log's other followers
	}
	text, err := json.Marshal(told{Seq: seq, Warning: step.Warning})
	if err != nil {
		return err
	}
	if t.count >= maxTold || t.count > 0 && len(t.body)+len(text) > maxParcel {
		if err := t.flush(ctx, seq-1); err != nil {
			return err
		}
	}
	t.body = append(append(t.body, text...), '\n')
	t.count++
	return nil
}

// flush tells what was collected; everything up to a frame is told then.
func (t *teller) flush(ctx context.Context, to uint64) error {
	if t.count == 0 {
		return nil
	}
	head := &parcel{Gateway: t.s.o.Gateway, Epoch: t.s.name(), To: Position{Seq: to}}
	if err := t.s.deliver(ctx, logWarnings, head, t.body); err != nil {
		return err
	}
	t.s.metrics.records[logWarnings].Add(float64(t.count))
	t.body, t.count = t.body[:0], 0
	return nil
}
