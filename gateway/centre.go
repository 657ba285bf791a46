package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"haidang/gateway/console"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// A centre is the only writer of the warnings log: it numbers what the engine's
// steps and the operators' acts do to each warning, writes it down and only
// then counts it as having happened.
type centre struct {
	log *spool.Log[telemetry.Transition]
	now func() time.Time // log time; nil: acts keep their own time

	writing   sync.Mutex // held over the disk; guards unsure
	unsure    []telemetry.Transition
	observers []func(telemetry.Warning)

	mu    sync.Mutex // never held over the disk
	board *telemetry.Board
	heard uint64        // the newest frame of another centre that the board has
	news  chan struct{} // closed when there is a newer one; nil: this one writes the log

	// route says who is told of a warning, given whom it was told before; nil: whom
	// the rule names. chase says what is due because nobody has acknowledged. Both
	// are guarded by writing.
	route func(w *telemetry.Warning, before *telemetry.Warning) []string
	chase func(t *telemetry.Transition, now time.Time) []telling
}

// A telling is one thing to do about a warning that nobody has acknowledged; see
// telemetry.Board.Tell.
type telling struct {
	do         telemetry.Deed
	done, text string
	to         []string
}

// openCentre folds the warnings log; also are told of each transition.
func openCentre(ctx context.Context, log *spool.Log[telemetry.Transition], now func() time.Time, also ...func(*telemetry.Transition)) (*centre, error) {
	c := &centre{log: log, now: now, board: telemetry.NewBoard(), heard: log.Last()}
	err := log.Replay(ctx, func(t telemetry.Transition) {
		c.board.Apply(t)
		for _, f := range also {
			f(&t)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the warnings log: %w", err)
	}
	return c, nil
}

// setRoutes puts other routes in force; see centre.
func (c *centre) setRoutes(route func(w, before *telemetry.Warning) []string, chase func(*telemetry.Transition, time.Time) []telling) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.route, c.chase = route, chase
}

// observe has f called after each transition, in order; f must not block.
func (c *centre) observe(f func(telemetry.Warning)) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.observers = append(c.observers, f)
}

// Step writes the steps of the engine. Steps that the log has already, as
// after a crash, are passed over. After a *telemetry.Rejection all are written but
// those that it is about.
func (c *centre) Step(ctx context.Context, steps []telemetry.Transition) error {
	if len(steps) == 0 {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.settle(ctx); err != nil {
		return err
	}
	var batch []telemetry.Transition
	in := map[string]bool{} // the batch, by id: a frame may raise thousands
	var unwritable error
	for _, s := range steps {
		// The next step of a warning depends on the one before it.
		if in[s.ID] {
			lost, err := c.writeRest(ctx, batch)
			if err != nil {
				return err
			}
			unwritable = errors.Join(unwritable, lost)
			batch = batch[:0]
			clear(in)
		}
		c.mu.Lock()
		next, isNew := c.board.Step(s)
		if isNew {
			c.address(&next)
		}
		c.mu.Unlock()
		if isNew {
			batch = append(batch, next)
			in[s.ID] = true
		}
	}
	lost, err := c.writeRest(ctx, batch)
	if err != nil {
		return err
	}
	return errors.Join(unwritable, lost)
}

// writeRest writes a batch without the transitions that no frame of the log holds:
// those are lost, and lost says which, but not the others with them.
func (c *centre) writeRest(ctx context.Context, batch []telemetry.Transition) (lost, err error) {
	var unwritable *telemetry.Rejection
	if err = c.write(ctx, batch); !errors.As(err, &unwritable) {
		return nil, err
	}
	for i := range batch {
		err := c.write(ctx, batch[i:i+1])
		switch {
		case errors.As(err, &unwritable):
			lost = errors.Join(lost, err)
		case err != nil:
			return nil, err
		}
	}
	return lost, nil
}

// address puts down to whom a transition of the engine goes. It is called with mu
// held.
func (c *centre) address(t *telemetry.Transition) {
	if c.route == nil {
		return
	}
	if before, ok := c.board.Warning(t.ID); ok {
		t.To = c.route(&t.Warning, &before)
	} else {
		t.To = c.route(&t.Warning, nil)
	}
}

// Act writes what an operator does with a warning.
func (c *centre) Act(ctx context.Context, act telemetry.Act) (telemetry.Warning, error) {
	if c.now != nil {
		act.At = c.now() // log time, as every transition has
	}
	next, err := c.compute(ctx, func() (telemetry.Transition, error) { return c.board.Act(act) })
	return next.Warning, err
}

// Order takes a device or a rule out of service, or puts it back. What that does
// to the warnings that last is written with it, or by Run.
func (c *centre) Order(ctx context.Context, o telemetry.Order) (telemetry.Order, error) {
	if c.now != nil {
		o.At = c.now()
	}
	t, err := c.compute(ctx, func() (telemetry.Transition, error) { return c.board.Order(o) })
	if err != nil {
		return telemetry.Order{}, err
	}
	_ = c.due(ctx, o.At) // Run tries again; the log says why
	return *t.Order, nil
}

// Orders returns what is out of service.
func (c *centre) Orders() []telemetry.Order {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board.Orders()
}

// compute writes the transition that next gives. An error of next is returned as
// it is; when the transition cannot be kept the error is console.ErrUnavailable.
func (c *centre) compute(ctx context.Context, next func() (telemetry.Transition, error)) (telemetry.Transition, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.settle(ctx)
	if err == nil {
		c.mu.Lock()
		t, refused := next()
		c.mu.Unlock()
		if refused != nil {
			return telemetry.Transition{}, refused
		}
		if err = c.write(ctx, []telemetry.Transition{t}); err == nil {
			return t, nil
		}
	}
	return telemetry.Transition{}, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
}

// settle makes good a write of which nobody knows whether it reached the disk:
// the same transitions are written again, and readers drop the second ones.
// Anything else could give one number to two transitions.
func (c *centre) settle(ctx context.Context) error {
	batch := c.unsure
	c.unsure = nil
	err := c.write(ctx, batch)
	if err != nil {
		c.unsure = batch // whatever this try failed of, the first one may be on disk
	}
	return err
}

// writePatienceOfCentre bounds one write, whoever asked for it and left.
const writePatienceOfCentre = time.Minute

func (c *centre) write(ctx context.Context, batch []telemetry.Transition) error {
	if len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writePatienceOfCentre)
	defer cancel()
	if err := c.log.Append(ctx, batch); err != nil {
		var unwritable *telemetry.Rejection
		if !errors.As(err, &unwritable) && !errors.Is(err, spool.ErrFull) {
			c.unsure = slices.Clone(batch)
		}
		return fmt.Errorf("write transition %s: %w", batch[0].Key(), err)
	}
	for _, t := range batch {
		c.mu.Lock()
		c.board.Apply(t)
		c.mu.Unlock()
		if t.Order != nil {
			continue
		}
		for _, f := range c.observers {
			f(t.Warning)
		}
	}
	return nil
}

// Run does what is due by the course of time until ctx ends: it ends shelving and
// orders, and chases warnings that nobody has acknowledged.
func (c *centre) Run(ctx context.Context) {
	for wait(ctx, time.Second) {
		now := time.Now().UTC()
		if c.now != nil {
			now = c.now()
		}
		if err := c.due(ctx, now); err != nil {
			continue // the log says why; the next second tries again
		}
		_ = c.tell(ctx, now) // as above
	}
}

// due writes what the course of time does to warnings and orders.
func (c *centre) due(ctx context.Context, now time.Time) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.settle(ctx); err != nil {
		return err
	}
	for range 2 { // what an order that ends does to the warnings is due then
		c.mu.Lock()
		list := c.board.Due(now)
		c.mu.Unlock()
		if err := c.write(ctx, list); err != nil {
			return err
		}
	}
	return nil
}

// tell writes what is due because nobody has acknowledged.
func (c *centre) tell(ctx context.Context, now time.Time) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.chase == nil {
		return nil
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	lasting := c.board.Lasting()
	c.mu.Unlock()
	for i := range lasting {
		if lasting[i].State != telemetry.Active || lasting[i].Shadow {
			continue
		}
		for _, one := range c.chase(&lasting[i], now) {
			c.mu.Lock()
			next, ok := c.board.Tell(lasting[i].ID, one.do, one.done, one.to, one.text, now)
			c.mu.Unlock()
			if !ok {
				continue
			}
			if err := c.write(ctx, []telemetry.Transition{next}); err != nil {
				return err
			}
		}
	}
	return nil
}

// orphan clears the warnings of which the engine knows nothing after it has lost
// its state; held are those that it knows.
func (c *centre) orphan(ctx context.Context, at time.Time, held map[string]bool) error {
	var steps []telemetry.Transition
	c.mu.Lock()
	for _, w := range c.board.Warnings(false) {
		if t, ok := c.board.End(w.ID, at); ok && !held[w.ID] && !w.Exercise && w.Gateway == "" {
			steps = append(steps, t)
		}
	}
	c.mu.Unlock()
	return c.Step(ctx, steps)
}

// forget clears the warnings of another gateway but for some: it has lost its state.
func (c *centre) forget(ctx context.Context, gateway string, at time.Time, but map[string]bool) error {
	var steps []telemetry.Transition
	c.mu.Lock()
	for _, w := range c.board.Warnings(false) {
		if t, ok := c.board.End(w.ID, at); ok && w.Gateway == gateway && !but[w.ID] {
			t.Happened = at
			steps = append(steps, t)
		}
	}
	c.mu.Unlock()
	return c.Step(ctx, steps)
}

// endExercises clears the warnings of drills.
func (c *centre) endExercises(ctx context.Context, at time.Time) error {
	var steps []telemetry.Transition
	c.mu.Lock()
	for _, w := range c.board.Warnings(false) {
		if t, ok := c.board.End(w.ID, at); ok && w.Exercise {
			steps = append(steps, t)
		}
	}
	c.mu.Unlock()
	return c.Step(ctx, steps)
}

// Warnings returns the warnings as they stand; the cleared ones too if all.
func (c *centre) Warnings(all bool) []telemetry.Warning {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board.Warnings(all)
}

// Lasting returns the newest transitions of the warnings that are not cleared.
func (c *centre) Lasting() []telemetry.Transition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board.Lasting()
}

// Warning returns one warning as it stands.
func (c *centre) Warning(id string) (telemetry.Warning, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board.Warning(id)
}

// Transition returns the newest transition of a warning.
func (c *centre) Transition(id string) (telemetry.Transition, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.board.Transition(id)
}

// openListener opens a centre that another one writes for: it only knows how warnings
// stand.
func openListener(ctx context.Context, log *spool.Log[telemetry.Transition], now func() time.Time, also ...func(*telemetry.Transition)) (*centre, error) {
	c, err := openCentre(ctx, log, now, also...)
	if err == nil {
		c.news = make(chan struct{})
	}
	return c, err
}

// listen takes up what another centre writes, until ctx ends.
func (c *centre) listen(ctx context.Context) error {
	return c.log.Follow(ctx, spool.FollowOptions{From: c.heard + 1}, func(_ context.Context, b *spool.Batch[telemetry.Transition]) error {
		for i := range b.Frames {
			records, err := b.Frames[i].Records()
			if err != nil {
				continue // its followers with a name tell of it
			}
			for k := range records {
				c.mu.Lock()
				c.board.Apply(records[k])
				c.mu.Unlock()
				if records[k].Order != nil {
					continue
				}
				for _, f := range c.observers {
					f(records[k].Warning)
				}
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.heard = b.Last()
		close(c.news)
		c.news = make(chan struct{})
		return nil
	})
}

// await returns when a frame of the log has been taken up.
func (c *centre) await(ctx context.Context, frame uint64) error {
	for {
		c.mu.Lock()
		heard, news := c.heard, c.news
		c.mu.Unlock()
		if news == nil || heard >= frame {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
