package spool

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// A Log is one durable sequence of records. It is safe for concurrent use.
type Log[T any] struct {
	core  *core
	codec codec[T]
	lines sync.Pool // *encoded: where producers encode

	readOnly bool // another part writes it
}

// encoded is what a call has made of its records.
type encoded struct {
	lines    []byte
	runs     []run // of their sources
	count    int
	controls int
	refused  []telemetry.RejectedRecord
}

func newLog[T any](c *core, codec codec[T]) *Log[T] {
	return &Log[T]{core: c, codec: codec, lines: sync.Pool{New: func() any { return new(encoded) }}}
}

// Append writes the records, in order, and returns when they are on disk. It
// fails as AppendAsync does, and when ctx ends; then the records may reach the
// disk all the same.
func (l *Log[T]) Append(ctx context.Context, records []T) error {
	result := make(chan error, 1)
	l.append(ctx, time.Time{}, "", records, func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("append to the %s: %w", l.core.name, ctx.Err())
	}
}

// AppendAsync writes the records, in order, and calls done once, on another
// goroutine: with nil when all of them are on disk, else with the reason.
// Callbacks come in the order of the calls. done may be nil, must not block and
// must not append to the same log or close the spool. AppendAsync blocks while more than 1 MiB is
// queued in this log. The records are not used after it has returned.
//
// Reasons: ErrFull and ErrUnavailable, after which the records may be appended
// again; ErrClosed; a *telemetry.Rejection that names the records that cannot
// be written as a line of at most 512 KiB, and then none of them was written.
// Records of more than 512 KiB together are split into several frames: when
// they are refused, those of the first frames may be on disk.
func (l *Log[T]) AppendAsync(records []T, done func(error)) {
	l.append(context.Background(), time.Time{}, "", records, done)
}

// AppendAt is AppendAsync for records that were received at a time that the
// caller knows, as in a replay: they share a frame only with records of the
// same time. Log time does not decrease all the same.
func (l *Log[T]) AppendAt(received time.Time, records []T, done func(error)) {
	l.append(context.Background(), received, "", records, done)
}

// AppendOnce is AppendAsync for records that must not come twice, though it may not
// be known whether they are on disk: they are a frame of their own, with an id. Of
// the frames of one id a log in a cluster takes the first and no other within two
// minutes, whoever appends it: so what an earlier owner of a part has sent, and what
// only arrives when it has one no more, does not come beside what the next one has
// written in its place. Who comes second gets a *ThereError. That may be he who came
// first, when an answer was lost; and what is there may have other records.
//
// An embedded log has one writer: there it is AppendAsync.
func (l *Log[T]) AppendOnce(id string, records []T, done func(error)) {
	if l.core.spool.cluster == nil {
		id = ""
	}
	l.append(context.Background(), time.Time{}, id, records, done)
}

// A ThereError is the error of AppendOnce when a frame of the id is there.
type ThereError struct{ Seq uint64 } // of that frame

func (t *ThereError) Error() string { return fmt.Sprintf("frame %d is of the same id", t.Seq) }

func (l *Log[T]) append(ctx context.Context, at time.Time, once string, records []T, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	if l.readOnly {
		go done(fmt.Errorf("append to the %s: %s does not write them", l.core.name, l.core.spool.options.Part))
		return
	}
	e := l.blank()
	for i := range records {
		l.encode(e, &records[i], i)
	}
	if len(e.lines) > MaxFrameBytes {
		once = "" // its frames cannot share one id
	}
	if len(e.refused) > 0 {
		l.core.refuse(&telemetry.Rejection{Records: e.refused}, done)
	} else {
		l.core.enqueue(ctx, at, once, e.lines, e.runs, e.count, e.controls, done)
	}
	l.giveBack(e)
}

// blank returns where records are encoded, and giveBack keeps it for later.
func (l *Log[T]) blank() *encoded {
	e := l.lines.Get().(*encoded)
	*e = encoded{lines: e.lines[:0], runs: e.runs[:0]}
	return e
}

func (l *Log[T]) giveBack(e *encoded) {
	if cap(e.lines) <= 2*MaxFrameBytes { // a giant is not kept for the small ones
		l.lines.Put(e)
	}
}

// encode encodes a record, which is the caller's number i.
func (l *Log[T]) encode(e *encoded, record *T, i int) {
	before := len(e.lines)
	longer, err := l.codec.encode(e.lines, record)
	if n := len(longer) - before; err == nil && n > MaxFrameBytes {
		err = fmt.Errorf("its line has %d bytes, more than the %d of a frame", n, MaxFrameBytes)
	}
	if err != nil {
		e.refused = append(e.refused, telemetry.RejectedRecord{Index: i, Reason: "unwritable", Detail: err.Error()})
		e.lines = longer[:before]
		return
	}
	e.lines = longer
	e.count++
	if l.codec.control != nil && l.codec.control(record) {
		e.controls++
	}
	if l.codec.source != nil {
		e.runs = addRun(e.runs, l.codec.source(record), 1)
	}
}

// Last returns the sequence of the newest frame on disk, 0 before the first.
func (l *Log[T]) Last() uint64 { return l.core.last.Load() }

// Position returns the sequence up to which the follower has accepted (for a
// Manual one: committed) everything; 0 when it has no position.
func (l *Log[T]) Position(name string) uint64 {
	return l.core.spool.positions.get(followerKey{l.core.name, name}).seq
}

// Lag returns how many frames the follower has not accepted yet. What a Manual
// follower has accepted and not committed does not count.
func (l *Log[T]) Lag(name string) uint64 {
	last, at := l.Last(), l.core.spool.positions.get(followerKey{l.core.name, name}).accepted
	return last - min(at, last)
}

// Commit moves the position of a follower to seq: everything up to it need not
// be delivered again after a restart. It is for Manual followers, which store
// what they made of the frames first. A position never moves back. It is stored
// within a fraction of a second, and by Close.
func (l *Log[T]) Commit(_ context.Context, name string, seq uint64) error {
	if part := l.core.spool.options.Part; part.shared() {
		return fmt.Errorf("commit %s of the %s: %s has no positions", name, l.core.name, part)
	}
	if l.core.spool.life.Err() != nil {
		return ErrClosed
	}
	if last := l.Last(); seq > last {
		return fmt.Errorf("commit %s of the %s at %d: the last frame is %d", name, l.core.name, seq, last)
	}
	l.core.spool.positions.move(followerKey{l.core.name, name}, seq, 0)
	return nil
}

// cutLines returns the whole lines in the first n bytes, what comes after, and
// how many lines were cut off. No line is longer than n.
func cutLines(lines []byte, n int) (head, tail []byte, count int) {
	if len(lines) > n {
		n = bytes.LastIndexByte(lines[:n], '\n') + 1
	} else {
		n = len(lines)
	}
	return lines[:n], lines[n:], bytes.Count(lines[:n], []byte{'\n'})
}
