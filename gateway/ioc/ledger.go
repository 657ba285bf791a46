package ioc

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"haidang/gateway/telemetry"
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

// depart begins an attempt to tell of warnings. It waits for those of the same
// warnings that are under way: an older one is cancelled with errOvertaken, a newer
// one is left to finish. It fails with what passed returns of one of them, and then
// none is under way. The caller calls land when the attempt is over.
func (l *ledger) depart(ctx context.Context, warnings ...telemetry.Warning) (attempt context.Context, land func(accepted bool), err error) {
	newest := map[string]int{}
	for i := range warnings {
		newest[warnings[i].ID] = max(newest[warnings[i].ID], warnings[i].N)
	}
	attempt, cancel := context.WithCancelCause(ctx)
	flights := map[string]*flight{}
	land = func(accepted bool) {
		l.land(flights, accepted)
		cancel(nil)
	}
	// In one order for all, so that no two wait for each other.
	for _, id := range slices.Sorted(maps.Keys(newest)) {
		f := &flight{n: newest[id], cancel: cancel, landed: make(chan struct{})}
		if err := l.claim(attempt, id, f); err != nil {
			land(false)
			return nil, nil, err
		}
		flights[id] = f
	}
	return attempt, land, nil
}

// claim makes f the flight of a warning.
func (l *ledger) claim(ctx context.Context, id string, f *flight) error {
	for {
		l.mu.Lock()
		if err := l.passedLocked(id, f.n); err != nil {
			l.mu.Unlock()
			return err
		}
		other := l.flights[id]
		if other == nil {
			l.flights[id] = f
			l.mu.Unlock()
			return nil
		}
		if other.n < f.n {
			other.cancel(errOvertaken)
		}
		l.mu.Unlock()
		select {
		case <-other.landed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *ledger) land(flights map[string]*flight, accepted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, f := range flights {
		delete(l.flights, id)
		close(f.landed)
		if accepted {
			l.acceptLocked(id, f.n)
		}
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
