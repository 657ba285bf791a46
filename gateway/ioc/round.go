package ioc

import (
	"context"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// acceptEach delivers transitions one by one, those of several devices at the
// same time.
func (s *Sender) acceptEach(ctx context.Context, mine []int, transitions []telemetry.Transition) []telemetry.RejectedRecord {
	r := round{Sender: s, transitions: transitions}
	queues := map[string][]int{}
	for _, i := range mine {
		queues[transitions[i].Device] = append(queues[transitions[i].Device], i)
	}
	for _, queue := range queues {
		r.workers.Go(func() { r.deliver(ctx, queue) })
	}
	ahead, stop := context.WithCancel(ctx)
	var lookout sync.WaitGroup
	if len(mine) > 0 {
		lookout.Go(func() { s.lookAhead(ahead) })
	}
	r.workers.Wait()
	stop()
	lookout.Wait()
	if s.to.storm != nil {
		s.to.storm.note(len(mine), time.Now())
	}
	return r.rejected
}

// A round is the delivery of a batch.
type round struct {
	*Sender
	transitions []telemetry.Transition
	workers     sync.WaitGroup

	mu       sync.Mutex
	rejected []telemetry.RejectedRecord
}

// deliver delivers the transitions of one device in their order. One that the
// recipient refuses by itself steps aside: it is tried on, and only what follows of the
// same warning waits for it.
func (r *round) deliver(ctx context.Context, queue []int) {
	for len(queue) > 0 && ctx.Err() == nil {
		i := queue[0]
		queue = queue[1:]
		aside, settled := make(chan struct{}), make(chan struct{})
		r.workers.Go(func() { defer close(settled); r.deliverOne(ctx, i, aside) })
		select {
		case <-settled:
			continue
		case <-aside:
		}
		id := r.transitions[i].ID
		var same, others []int
		for _, next := range queue {
			if r.transitions[next].ID == id {
				same = append(same, next)
			} else {
				others = append(others, next)
			}
		}
		r.workers.Go(func() { <-settled; r.deliver(ctx, same) })
		queue = others
	}
}

// deliverOne delivers one transition, or tells that it is refused. aside is closed
// when the recipient first refuses it by itself.
func (r *round) deliverOne(ctx context.Context, i int, aside chan<- struct{}) {
	w := r.transitions[i].Warning
	err := r.send(ctx, w.Key(), aside, func(ctx context.Context) error { return r.attempt(ctx, w) })
	if ctx.Err() != nil {
		return
	}
	r.done(i)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.rejected = append(r.rejected, telemetry.RejectedRecord{Index: i, Reason: "refused", Detail: err.Error()})
	}
}
