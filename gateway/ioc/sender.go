package ioc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// maxTogether is how many transitions a Sender takes up at a time.
const maxTogether = 1024

// sameTime is how long before the first attempt at a warning another may have
// been accepted to show that the recipient itself is well.
const sameTime = time.Minute

var errGivenUp = errors.New("the recipient refuses this warning and accepts others")

// A Sender delivers the transitions of one class to one recipient. It is one
// follower of the warnings log.
type Sender struct {
	to    *Recipient
	class Class
	slots chan struct{} // attempts under way

	mu      sync.Mutex
	waiting map[int]time.Time // when what is not delivered yet happened, by its place in the batch
}

// Name is the name of the sender's follower: ioc.<recipient>.<class>.
func (s *Sender) Name() string { return "ioc." + s.to.name + "." + s.class.String() }

// Accept delivers the transitions of its class that are addressed to the
// recipient, those of a device in the order given, those of several devices at
// the same time. It returns nil when the recipient has accepted them all, and
// the context's error when that ended first; then some may have been delivered.
// A *telemetry.Rejection names what the recipient refused for good. Calls
// follow one another.
func (s *Sender) Accept(ctx context.Context, transitions []telemetry.Transition) error {
	var refused []telemetry.RejectedRecord
	for at := 0; at < len(transitions); at += maxTogether {
		some, err := s.acceptSome(ctx, transitions[at:min(at+maxTogether, len(transitions))])
		if err != nil {
			return err
		}
		for _, r := range some {
			r.Index += at
			refused = append(refused, r)
		}
	}
	if len(refused) > 0 {
		return &telemetry.Rejection{Records: refused}
	}
	return nil
}

func (s *Sender) acceptSome(ctx context.Context, transitions []telemetry.Transition) ([]telemetry.RejectedRecord, error) {
	queues := map[string][]int{} // places in transitions, by device
	for i := range transitions {
		if w := &transitions[i].Warning; s.wants(w) {
			queues[w.Device] = append(queues[w.Device], i)
			s.await(i, w.At)
		}
	}
	defer s.awaitNothing()
	var (
		workers sync.WaitGroup
		mu      sync.Mutex
		refused []telemetry.RejectedRecord
	)
	for _, queue := range queues {
		workers.Go(func() {
			for _, i := range queue {
				err := s.send(ctx, transitions[i].Warning)
				if ctx.Err() != nil {
					return
				}
				s.done(i)
				if err != nil {
					mu.Lock()
					refused = append(refused, telemetry.RejectedRecord{Index: i, Reason: "refused", Detail: err.Error()})
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("deliver warnings to %s: %w", s.to.name, context.Cause(ctx))
	}
	slices.SortFunc(refused, func(a, b telemetry.RejectedRecord) int { return a.Index - b.Index })
	return refused, nil
}

func (s *Sender) wants(w *telemetry.Warning) bool {
	return w.State != telemetry.Pending && s.class.Has(w.Severity) &&
		(len(w.To) == 0 || slices.Contains(w.To, s.to.name))
}

// send tries until the warning is delivered or passed by. It returns an error
// when the context ended, or when the recipient refuses this warning for good.
func (s *Sender) send(ctx context.Context, w telemetry.Warning) error {
	first := time.Now()
	for attempts := 1; ; attempts++ {
		began, err := s.attempt(ctx, w)
		switch {
		case err == nil:
			s.to.succeeded()
			return nil
		case err == errSuperseded, err == errDuplicate:
			s.to.skipped[err].Inc()
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == errOvertaken:
			// The newer one goes first; this one is then most often superseded.
			if err := sleep(ctx, s.to.options.FirstPause); err != nil {
				return err
			}
			continue
		}
		failure := s.count(err)
		if s.givesUp(failure, attempts, first) {
			s.to.skipped[errGivenUp].Inc()
			s.to.log.Error("the recipient refuses a warning for good: it is set aside", "warning", w.Key(), "attempts", attempts, "error", err)
			return fmt.Errorf("%d attempts to deliver %s to %s: %w", attempts, w.Key(), s.to.name, err)
		}
		if !failure.OneWarning {
			s.to.gate.failed(began, failure.After)
		}
		s.to.failedWith(failure, w.Key(), err)
		wait := max(pause(s.to.options.FirstPause, s.to.options.MaxPause, attempts), failure.After)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// attempt makes one attempt as soon as the recipient may be called, and returns
// when it began.
func (s *Sender) attempt(ctx context.Context, w telemetry.Warning) (began time.Time, err error) {
	if err := s.to.ledger.passed(w.ID, w.N); err != nil {
		return began, err
	}
	if err := s.enter(ctx); err != nil {
		return began, err
	}
	defer func() { <-s.slots }()
	flight, land, err := s.to.ledger.depart(ctx, w.ID, w.N)
	if err != nil {
		return began, err
	}
	began = time.Now()
	err = s.to.to.Deliver(flight, w)
	overtaken := context.Cause(flight) == errOvertaken
	land(err == nil)
	s.to.attempt.Observe(time.Since(began).Seconds())
	if err != nil && overtaken {
		err = errOvertaken
	}
	return began, err
}

// enter waits for the gate to be open and takes a slot.
func (s *Sender) enter(ctx context.Context) error {
	for {
		if err := s.to.gate.wait(ctx); err != nil {
			return err
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if s.to.gate.closedFor() <= 0 {
			return nil
		}
		<-s.slots
	}
}

func (s *Sender) count(err error) *Failure {
	failure := &Failure{Reason: reasonOther}
	errors.As(err, &failure)
	counter, ok := s.to.failed[failure.Reason]
	if !ok {
		counter = s.to.failed[reasonOther]
	}
	counter.Inc()
	return failure
}

// givesUp reports whether the fault lies in this warning and not in the
// recipient, which has accepted another about or since the first attempt.
func (s *Sender) givesUp(f *Failure, attempts int, first time.Time) bool {
	if f.Final {
		return true
	}
	// Others of the same batch can have been accepted just before.
	return f.OneWarning && attempts >= GiveUpAttempts && time.Since(first) >= GiveUpAfter &&
		s.to.acceptedSince(first.Add(-sameTime))
}

func (s *Sender) await(i int, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[i] = since
}

func (s *Sender) done(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, i)
}

func (s *Sender) awaitNothing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.waiting)
}

// oldest returns the age of the oldest transition that is not delivered yet.
func (s *Sender) oldest(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var age time.Duration
	for _, since := range s.waiting {
		age = max(age, now.Sub(since))
	}
	return age
}
