package ioc

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// A gate holds back every attempt at a recipient that does not answer well. A
// failure closes it for a while that doubles with each further one; a success
// opens it. So a recipient that is down is called by a few, now and then,
// however many warnings wait.
//
// It is a circuit breaker: after BreakAfter failures in a row it is broken, and
// each time that the while is over a single attempt goes through as a probe;
// only its success lets the others pass.
type gate struct {
	first, max time.Duration

	mu       sync.Mutex
	failures int                     // in a row
	closedAt time.Time               // when the last failure closed the gate
	until    time.Time               // the gate is closed until then
	held     time.Time               // the recipient asked for quiet until then; a success does not change it
	probe    chan struct{}           // closed when the probe that is under way is over; nil: none is
	giveWay  context.CancelCauseFunc // ends the probe for a grave warning; nil: it is one itself
	grave    int                     // grave warnings that wait to be let through
}

// BreakAfter is how many failures in a row break the circuit to a recipient.
const BreakAfter = 5

// A Circuit says how a recipient is called.
type Circuit uint8

// The circuits.
const (
	Closed  Circuit = iota // it is called
	Probing                // one attempt is made to see whether it answers again
	Broken                 // it is left alone for a while
)

// String returns the circuit's word.
func (c Circuit) String() string { return [...]string{"closed", "half-open", "open"}[c] }

// circuit returns how the recipient is called now.
func (g *gate) circuit() Circuit {
	pause := g.closedFor()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.failures < BreakAfter:
		return Closed
	case pause > 0:
		return Broken
	}
	return Probing
}

// pass lets an attempt through, or returns what to wait for. The attempt's context
// ends, with errOvertaken, when it is a probe that a grave warning takes the place
// of: a recipient that hangs would keep it waiting for the sake of a minor one. The
// caller calls leave when the attempt is over.
func (g *gate) pass(ctx context.Context, grave bool) (attempt context.Context, leave func(), wait <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures < BreakAfter {
		return ctx, func() {}, nil
	}
	if g.probe != nil {
		if grave && g.giveWay != nil {
			g.giveWay(errOvertaken)
		}
		return nil, nil, g.probe
	}
	attempt, cancel := context.WithCancelCause(ctx)
	probe := make(chan struct{})
	g.probe, g.giveWay = probe, cancel
	if grave {
		g.giveWay = nil
	}
	return attempt, func() {
		cancel(nil)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.probe, g.giveWay = nil, nil
		close(probe)
	}, nil
}

// press notes that a grave warning waits to be let through, until the function that
// it returns is called.
func (g *gate) press() (gone func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.grave++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.grave--
	}
}

// isPressed reports whether the next probe is a grave warning's.
func (g *gate) isPressed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failures >= BreakAfter && g.grave > 0
}

// wait returns when the gate is open.
func (g *gate) wait(ctx context.Context) error {
	for {
		pause := g.closedFor()
		if pause <= 0 {
			return ctx.Err()
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (g *gate) closedFor() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(time.Until(g.until), time.Until(g.held))
}

// failed closes the gate after an attempt that began at a time. Attempts that
// were under way together count as one failure.
func (g *gate) failed(began time.Time, after time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if hold := now.Add(after); after > 0 && hold.After(g.held) {
		g.held = hold
	}
	if began.Before(g.closedAt) {
		return
	}
	g.failures++
	g.closedAt = now
	g.until = now.Add(pause(g.first, g.max, g.failures))
}

// noted notes how an attempt ended.
func (g *gate) noted(began time.Time, err error) {
	if delivered(err) {
		g.succeeded()
		return
	}
	if f := failureIn(err); !f.OneWarning {
		g.failed(began, f.After)
	}
}

func (g *gate) succeeded() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failures = 0
	g.until = time.Time{}
}

// pause returns how long to wait after the n-th failure, from 1: first, doubled
// each time up to max, less up to a half by chance so that many do not knock at
// once.
func pause(first, max time.Duration, n int) time.Duration {
	d := max
	if n < 32 {
		if doubled := first << (n - 1); doubled > 0 && doubled < max {
			d = doubled
		}
	}
	return d - rand.N(d/2+1)
}

// sleep waits for d, or returns why the context ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
