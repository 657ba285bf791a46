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
	refused int               // warnings that are tried again because the recipient refuses them by themselves
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
	var mine []int // places in transitions
	for i := range transitions {
		if t := &transitions[i]; s.wants(t) {
			mine = append(mine, i)
			s.await(i, t.At)
		}
	}
	defer s.awaitNothing()
	mine = s.thin(mine, transitions)
	var refused []telemetry.RejectedRecord
	if storm := s.to.storm; storm != nil && len(mine) > 0 && storm.rages(len(mine), time.Now()) {
		refused = s.acceptTogether(ctx, mine, transitions)
	} else {
		refused = s.acceptEach(ctx, mine, transitions)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("deliver warnings to %s: %w", s.to.name, context.Cause(ctx))
	}
	slices.SortFunc(refused, func(a, b telemetry.RejectedRecord) int { return a.Index - b.Index })
	return refused, nil
}

// thin leaves out, where messages are bounded or told together, the transitions
// of a warning that a newer one of the same batch follows.
func (s *Sender) thin(mine []int, transitions []telemetry.Transition) []int {
	if s.to.meter == nil && (s.to.storm == nil || !s.to.storm.rages(len(mine), time.Now())) {
		return mine
	}
	newest := map[string]int{}
	for _, i := range mine {
		newest[transitions[i].ID] = i
	}
	return slices.DeleteFunc(mine, func(i int) bool {
		if newest[transitions[i].ID] == i {
			return false
		}
		s.to.skipped[errSuperseded].Inc()
		s.done(i)
		return true
	})
}

// acceptTogether delivers transitions as digests. It returns some time after
// they are delivered, so that what happens meanwhile is one batch.
func (s *Sender) acceptTogether(ctx context.Context, mine []int, transitions []telemetry.Transition) (refused []telemetry.RejectedRecord) {
	storm := s.to.storm
	var warnings []telemetry.Warning
	places := map[string]int{}
	for _, i := range mine {
		w := transitions[i].Warning
		if err := s.to.ledger.passed(w.ID, w.N); err != nil {
			s.to.skipped[err].Inc()
			s.done(i)
			continue
		}
		warnings = append(warnings, w)
		places[w.Key()] = i
	}
	for _, d := range storm.digests(warnings, time.Now()) {
		err := s.send(ctx, d.Key, make(chan struct{}), func(ctx context.Context) error {
			return s.attemptDigest(ctx, &d, func(w *telemetry.Warning) { s.done(places[w.Key()]) })
		})
		if ctx.Err() != nil {
			return refused
		}
		for i := range d.Warnings {
			w := &d.Warnings[i]
			s.done(places[w.Key()])
			if err != nil {
				refused = append(refused, telemetry.RejectedRecord{Index: places[w.Key()], Reason: "refused", Detail: err.Error()})
			}
		}
		if err == nil && len(d.Warnings) > 0 {
			storm.sent(&d, time.Now())
			s.to.folded.Add(float64(len(d.Warnings)))
		}
	}
	if len(warnings) > 0 {
		storm.note(len(warnings), time.Now())
		_ = sleep(ctx, storm.every) // the context's end is seen by the caller
	}
	return refused
}

// refresh takes out of a digest that waited what a newer transition has passed by
// meanwhile: the other class may have told it. dropped is called with each. When
// nothing is left the error is why, which send counts for the last one.
func (s *Sender) refresh(d *Digest, dropped func(*telemetry.Warning)) error {
	var passed error
	before := len(d.Warnings)
	d.Warnings = slices.DeleteFunc(d.Warnings, func(w telemetry.Warning) bool {
		err := s.to.ledger.passed(w.ID, w.N)
		if err == nil {
			return false
		}
		if passed != nil {
			s.to.skipped[passed].Inc()
		}
		passed = err
		dropped(&w)
		return true
	})
	switch {
	case len(d.Warnings) == before:
	case len(d.Warnings) == 0:
		return passed
	default:
		s.to.skipped[passed].Inc()
		d.Key = digestKey(s.to.storm.threadOf(d.Region, d.Warnings[0].Exercise), d.Warnings)
	}
	return nil
}

// attemptDigest makes one attempt to deliver a digest as it is by then.
func (s *Sender) attemptDigest(ctx context.Context, d *Digest, dropped func(*telemetry.Warning)) error {
	attempt, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	var flight context.Context
	var land func(accepted bool)
	for flight == nil {
		if err := s.refresh(d, dropped); err != nil {
			return err
		}
		flight, land, err = s.to.ledger.depart(attempt, d.Warnings...)
		if err != nil && err != errSuperseded && err != errDuplicate { // those are taken out
			return err
		}
	}
	began := time.Now()
	var answer string
	err = s.to.digester.DeliverDigest(listening(flight, &answer), *d)
	overtaken := context.Cause(flight) == errOvertaken
	land(delivered(err))
	if !delivered(err) && overtaken {
		return errOvertaken
	}
	if ctx.Err() == nil || err == nil {
		for i := range d.Warnings {
			s.to.tell(&d.Warnings[i], began, d.Key, answer, err)
		}
	}
	s.to.attempt.Observe(time.Since(began).Seconds())
	if ctx.Err() == nil {
		s.to.gate.noted(began, err)
	}
	return err
}

func (s *Sender) wants(t *telemetry.Transition) bool {
	return s.class.Has(t.Severity) && (s.to.wants(&t.Warning) || presses(t) && s.to.addressed(&t.Warning))
}

// presses reports whether a transition is there for its recipients to be told,
// although nothing has changed: nobody acknowledges, or another recipient cannot
// be reached.
func presses(t *telemetry.Transition) bool {
	if t.Act == nil {
		return false
	}
	switch t.Act.Do {
	case telemetry.Escalate, telemetry.Remind, telemetry.Failover:
		return true
	}
	return false
}

// send tries until what has this key is delivered or passed by. It returns an
// error when the context ended, or when the recipient refuses it for good. aside is
// closed when the recipient refuses it by itself for the first time.
func (s *Sender) send(ctx context.Context, key string, aside chan<- struct{}, attempt func(context.Context) error) error {
	if s.to.meter != nil {
		if err := s.to.meter.wait(ctx, s.class == Grave); err != nil {
			return err
		}
	}
	defer s.to.begin()()
	first := time.Now()
	for attempts := 1; ; attempts++ {
		err := attempt(ctx)
		switch {
		case err == nil:
			s.to.succeeded()
			return nil
		case delivered(err):
			s.to.failedWith(s.to.count(err), key, err)
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
		failure := s.to.count(err)
		if s.givesUp(failure, attempts, first) {
			s.to.skipped[errGivenUp].Inc()
			s.to.log.Error("the recipient refuses a warning for good: it is set aside", "warning", key, "attempts", attempts, "error", err)
			return fmt.Errorf("%d attempts to deliver %s to %s: %w", attempts, key, s.to.name, err)
		}
		s.to.failedWith(failure, key, err)
		// When the recipient itself fails, the gate says when the next attempt is due,
		// for all alike: an own pause would let the others pass by when it is well again.
		wait := failure.After
		if failure.OneWarning {
			if aside != nil {
				close(aside)
				aside = nil
				defer s.stepAside()()
			}
			wait = max(wait, pause(s.to.options.FirstPause, s.to.options.MaxPause, attempts))
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// attempt makes one attempt as soon as the recipient may be called.
func (s *Sender) attempt(ctx context.Context, w telemetry.Warning) error {
	if err := s.to.ledger.passed(w.ID, w.N); err != nil {
		return err
	}
	attempt, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	flight, land, err := s.to.ledger.depart(attempt, w)
	if err != nil {
		return err
	}
	began := time.Now()
	var answer string
	err = s.to.to.Deliver(listening(flight, &answer), w)
	overtaken := context.Cause(flight) == errOvertaken
	land(delivered(err))
	s.to.attempt.Observe(time.Since(began).Seconds())
	if !delivered(err) && overtaken {
		return errOvertaken
	}
	if ctx.Err() == nil || err == nil {
		s.to.tell(&w, began, "", answer, err)
	}
	if ctx.Err() == nil {
		s.to.gate.noted(began, err)
	}
	return err
}

// delivered reports whether the recipient has the warning.
func delivered(err error) bool { return err == nil || failureIn(err).Delivered }

// enter waits for the gate to be open and takes a slot. The caller calls leave
// when the attempt is over, which is bound by the context that enter returns.
func (s *Sender) enter(ctx context.Context) (attempt context.Context, leave func(), err error) {
	grave := s.class == Grave
	if grave {
		defer s.to.gate.press()()
	}
	for {
		if err := s.to.gate.wait(ctx); err != nil {
			return nil, nil, err
		}
		if !grave && s.to.gate.isPressed() {
			if err := sleep(ctx, makeWay); err != nil {
				return nil, nil, err
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
		if s.to.gate.closedFor() > 0 {
			<-s.slots
			continue
		}
		attempt, left, probe := s.to.gate.pass(ctx, grave)
		if probe == nil {
			return attempt, func() { left(); <-s.slots }, nil
		}
		<-s.slots
		select {
		case <-probe:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// makeWay is how long a minor warning stands back before a grave one that waits.
const makeWay = 20 * time.Millisecond

// givesUp reports whether the fault lies in this warning and not in the
// recipient, which has told some, has accepted another about or since the first
// attempt, or had no other to accept.
func (s *Sender) givesUp(f *Failure, attempts int, first time.Time) bool {
	if f.Final {
		return true
	}
	if !f.OneWarning || attempts < GiveUpAttempts || time.Since(first) < GiveUpAfter {
		return false
	}
	// Others of the same batch can have been accepted just before.
	return f.Partly || s.to.acceptedSince(first.Add(-sameTime)) || s.to.alone()
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

// stepAside counts a warning that is refused by itself, until what it returns is
// called.
func (s *Sender) stepAside() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refused--
	}
}

// holdsUp reports whether something refused by itself keeps the next batch waiting.
func (s *Sender) holdsUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused > 0
}

// backlog returns how many transitions it was offered that are not delivered.
func (s *Sender) backlog() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
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
