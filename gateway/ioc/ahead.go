package ioc

import (
	"context"
	"time"

	"haidang/gateway/telemetry"
)

// While a warning is refused by itself, the batch that it is in is not accepted, and
// what has come behind it is not offered.
const (
	aheadEvery   = time.Minute // between looks at what is behind
	aheadRefused = 3           // of what is behind, in one look: then the recipient refuses whatever it gets
)

// lookAhead delivers, until ctx ends, warnings that last and that the recipient does
// not have, while the batch is held up by some that it refuses by themselves: they
// would wait for up to GiveUpAfter, and longer where everything in the batch is refused.
// They show as well whether the recipient takes others. When they are offered later,
// they are duplicates.
func (s *Sender) lookAhead(ctx context.Context) {
	refused := map[string]bool{} // what was tried in vain
	for sleep(ctx, aheadEvery) == nil {
		if !s.holdsUp() || s.to.storm != nil && s.to.storm.rages(1, time.Now()) {
			continue
		}
		vain := 0
		for _, w := range s.to.lastingNow() {
			if !s.class.Has(w.Severity) || refused[w.Key()] || s.to.has(&w) || !s.to.wants(&w) {
				continue
			}
			err := s.sendAhead(ctx, w)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				continue
			}
			if vain++; vain == aheadRefused || !failureIn(err).OneWarning {
				break
			}
			refused[w.Key()] = true
		}
	}
}

// sendAhead makes one attempt to deliver a warning out of its turn.
func (s *Sender) sendAhead(ctx context.Context, w telemetry.Warning) error {
	if s.to.meter != nil {
		if err := s.to.meter.wait(ctx, s.class == Grave); err != nil {
			return err
		}
	}
	err := s.attempt(ctx, w)
	switch {
	case err == errSuperseded, err == errDuplicate, err == errOvertaken:
		return nil // its turn has come
	case delivered(err):
		if err != nil {
			s.to.failedWith(s.to.count(err), w.Key(), err)
		}
		s.to.succeeded()
		if s.to.storm != nil {
			s.to.storm.note(1, time.Now())
		}
		return nil
	case ctx.Err() == nil:
		s.to.failedWith(s.to.count(err), w.Key(), err)
	}
	return err
}

// has reports whether the recipient has accepted the transition, or a newer one, since
// the start or, as far as that is on record, before.
func (r *Recipient) has(w *telemetry.Warning) bool {
	if r.ledger.passed(w.ID, w.N) != nil {
		return true
	}
	if r.past == nil {
		return false
	}
	_, _, told := r.past(w.ID)
	return told >= w.N
}

// lastingNow returns the warnings that last and are addressed to the recipient, while
// Keep runs.
func (r *Recipient) lastingNow() []telemetry.Warning {
	r.mu.Lock()
	lasting := r.lasting
	r.mu.Unlock()
	if lasting == nil {
		return nil
	}
	return lasting()
}

// keeps notes what lasting is asked of, nil for nobody.
func (r *Recipient) keeps(lasting func() []telemetry.Warning) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lasting = lasting
}
