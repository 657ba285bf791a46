package ioc

import (
	"context"
	"errors"
	"sync"
)

// maxRemembered is of how many warnings a ledger knows what was delivered; the
// ones it heard of first are forgotten first.
const maxRemembered = 16 << 10

var (
	errSuperseded = errors.New("a newer transition of the warning was delivered already")
	errDuplicate  = errors.New("the transition was delivered already")
	errOvertaken  = errors.New("a newer transition of the warning overtakes this one")
)

// A ledger knows of each warning the newest transition that a recipient has
// accepted, and the one that is under way to it: there is at most one.
type ledger struct {
	mu        sync.Mutex
	delivered map[string]int
	order     []string // ids of delivered, in the order of their first delivery
	flights   map[string]*flight
}

type flight struct {
	n      int
	cancel context.CancelCauseFunc
	landed chan struct{}
}

func newLedger() *ledger {
	return &ledger{delivered: map[string]int{}, flights: map[string]*flight{}}
}

// passed returns errSuperseded or errDuplicate when transition n of the warning
// needs no delivery any more.
func (l *ledger) passed(id string, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.passedLocked(id, n)
}

func (l *ledger) passedLocked(id string, n int) error {
	switch newest, ok := l.delivered[id]; {
	case !ok || n > newest:
		return nil
	case n == newest:
		return errDuplicate
	}
	return errSuperseded
}

// depart begins an attempt. It waits for one of the same warning that is under
// way: an older one is cancelled with errOvertaken, a newer one is left to
// finish. The caller calls land when the attempt is over.
func (l *ledger) depart(ctx context.Context, id string, n int) (attempt context.Context, land func(accepted bool), err error) {
	for {
		l.mu.Lock()
		if err := l.passedLocked(id, n); err != nil {
			l.mu.Unlock()
			return nil, nil, err
		}
		other := l.flights[id]
		if other == nil {
			break
		}
		if other.n < n {
			other.cancel(errOvertaken)
		}
		l.mu.Unlock()
		select {
		case <-other.landed:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	defer l.mu.Unlock()
	attempt, cancel := context.WithCancelCause(ctx)
	f := &flight{n: n, cancel: cancel, landed: make(chan struct{})}
	l.flights[id] = f
	return attempt, func(accepted bool) { l.land(id, f, accepted) }, nil
}

func (l *ledger) land(id string, f *flight, accepted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flights, id)
	f.cancel(nil)
	close(f.landed)
	if accepted {
		l.acceptLocked(id, f.n)
	}
}

// accept remembers that transition n of the warning was delivered.
func (l *ledger) accept(id string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acceptLocked(id, n)
}

func (l *ledger) acceptLocked(id string, n int) {
	newest, ok := l.delivered[id]
	if !ok {
		if len(l.order) == maxRemembered {
			delete(l.delivered, l.order[0])
			l.order = l.order[1:]
		}
		l.order = append(l.order, id)
	}
	l.delivered[id] = max(newest, n)
}
