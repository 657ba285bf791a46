package spool

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// A Partitioned appends readings to the partitions of the log: those of one site
// to the same one, see PartitionOf. It is safe for concurrent use.
type Partitioned struct{ logs []*Log[telemetry.Reading] }

// Append is AppendAsync that waits. It fails as that does, and when ctx ends; then
// the records may reach the disk all the same.
func (p *Partitioned) Append(ctx context.Context, records []telemetry.Reading) error {
	result := make(chan error, 1)
	p.split(ctx, records, func(err error) { result <- err })
	return p.wait(ctx, result)
}

// AppendAsync writes the records and calls done once, on another goroutine: with
// nil when all of them are on disk, else with the first reason of a partition, as
// Log.AppendAsync gives them. What went to other partitions may be on disk then;
// after a *telemetry.Rejection nothing is. The order of the records of one site
// is kept, within a call and from call to call; callbacks may come in another
// order than their calls. done may be nil, must not block and must not append.
// AppendAsync blocks while more than 1 MiB is queued for one of the partitions.
// The records are not used after it has returned.
func (p *Partitioned) AppendAsync(records []telemetry.Reading, done func(error)) {
	p.split(context.Background(), records, done)
}

// AppendAll writes the records to every partition, as each engine needs the
// control records, and returns when they are on disk in all of them.
func (p *Partitioned) AppendAll(ctx context.Context, records []telemetry.Reading) error {
	result := make(chan error, 1)
	all := &joint{left: len(p.logs), done: func(err error) { result <- err }}
	for _, log := range p.logs {
		log.append(ctx, time.Time{}, "", records, all.settle)
	}
	return p.wait(ctx, result)
}

func (p *Partitioned) wait(ctx context.Context, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("append to the %s: %w", logReadings, ctx.Err())
	}
}

// split appends each record to its partition. All are encoded first, so that
// nothing is written when one cannot be.
func (p *Partitioned) split(ctx context.Context, records []telemetry.Reading, done func(error)) {
	if only, ok := p.only(records); ok {
		p.logs[only].append(ctx, time.Time{}, "", records, done)
		return
	}
	if done == nil {
		done = func(error) {}
	}
	pieces := make([]*encoded, len(p.logs))
	var refused []telemetry.RejectedRecord
	involved := 0
	for i := range records {
		n := partitionOf(&records[i], len(p.logs))
		if pieces[n] == nil {
			pieces[n] = p.logs[n].blank()
			involved++
		}
		p.logs[n].encode(pieces[n], &records[i], i)
	}
	for _, e := range pieces {
		if e != nil {
			refused = append(refused, e.refused...)
		}
	}
	all := &joint{left: involved, done: done}
	if len(refused) > 0 {
		slices.SortFunc(refused, func(a, b telemetry.RejectedRecord) int { return cmp.Compare(a.Index, b.Index) })
		all.left = 1
		p.logs[partitionOf(&records[0], len(p.logs))].core.refuse(&telemetry.Rejection{Records: refused}, all.settle)
	}
	for n, e := range pieces {
		if e == nil {
			continue
		}
		if len(refused) == 0 {
			p.logs[n].core.enqueue(ctx, time.Time{}, "", e.lines, e.runs, e.count, e.controls, all.settle)
		}
		p.logs[n].giveBack(e)
	}
}

// only returns the partition that all records go to, when there is one.
func (p *Partitioned) only(records []telemetry.Reading) (int, bool) {
	if len(p.logs) == 1 || len(records) == 0 {
		return 0, true
	}
	first := partitionOf(&records[0], len(p.logs))
	for i := 1; i < len(records); i++ {
		same := records[i].Site == records[0].Site && (records[i].Site != "" || records[i].Device == records[0].Device)
		if !same && partitionOf(&records[i], len(p.logs)) != first {
			return 0, false
		}
	}
	return first, true
}

// A joint is what several partitions owe to one caller.
type joint struct {
	mu   sync.Mutex
	left int
	err  error
	done func(error)
}

// settle notes that one of them is done; the last one calls back.
func (j *joint) settle(err error) {
	j.mu.Lock()
	if j.err == nil {
		j.err = err
	}
	j.left--
	last, err := j.left == 0, j.err
	j.mu.Unlock()
	if last {
		j.done(err)
	}
}
