package rules

import (
	"haidang/gateway/telemetry"
)

const (
	// worthFork is how many evaluations other goroutines have to take over until
	// starting them pays: about 30 µs of work.
	worthFork = 1000

	// readingCost is what a reading costs besides its evaluations, in these.
	readingCost = 6

	// fewTimers is how many timers of one shard are fired without asking whether
	// there are so many that it should be done in parallel.
	fewTimers = 64
)

// fire fires the timers of all shards up to t.
func (e *Engine) fire(t int64) {
	more := 0
	for _, s := range e.shards {
		if s.fire(t, e.bounds.timers) {
			more++
		}
	}
	if more > 0 {
		e.fork(t, more > 1)
	}
	e.now = t
	e.gather()
}

// take evaluates readings.
func (e *Engine) take(readings []telemetry.Reading) {
	if e.set == nil {
		return
	}
	if len(e.shards) == 1 {
		for i := range readings {
			if k, ok := e.route(&readings[i]); ok {
				e.shards[0].take(&k)
			}
		}
		e.gather()
		return
	}
	total, most := 0, 0
	for i := range readings {
		k, ok := e.route(&readings[i])
		if !ok {
			continue
		}
		k.index = i
		s := k.device.shard
		s.tasks = append(s.tasks, k)
		cost := readingCost
		if k.plan != nil {
			cost += len(k.plan.rules)
		}
		if k.whole != nil {
			cost += len(k.whole.rules)
		}
		s.cost += cost
		total += cost
		most = max(most, s.cost)
	}
	if total > 0 {
		e.fork(e.now, total-most >= e.bounds.work)
		e.gather()
	}
}

// fork has the shards do their tasks, or fire their timers up to t, at the same
// time or one after the other, and waits for them.
func (e *Engine) fork(t int64, together bool) {
	own := e.shards[0]
	for _, s := range e.shards {
		s.until = t
		if s.cost > own.cost {
			own = s
		}
	}
	for _, s := range e.shards {
		switch {
		case s == own || s.idle():
		case together:
			e.forked.Add(1)
			go s.run()
		default:
			s.work()
		}
	}
	own.work()
	e.forked.Wait()
}

// idle reports whether the shard has no task, and no timer to fire.
func (h *shard) idle() bool {
	return len(h.tasks) == 0 && (len(h.queue) == 0 || h.queue[0].queued > h.until) && h.until == h.now
}

// route returns what there is to do for a reading; ok is false when it is nothing.
func (e *Engine) route(r *telemetry.Reading) (k task, ok bool) {
	plan, whole := e.set.byKind[r.Kind], e.set.plans[0]
	if plan != nil && len(plan.rules) == 0 && len(plan.cells) == 0 {
		plan = nil
	}
	if r.Kind == telemetry.KindLink || len(whole.rules) == 0 {
		whole = nil
	}
	if plan == nil && whole == nil {
		return task{}, false
	}
	if len(r.Tags) > 0 {
		e.meters.tagged.Inc()
		return task{}, false
	}
	d := e.device(r.Device)
	if d == nil {
		e.meters.crowded.Inc()
		return task{}, false
	}
	return task{reading: r, device: d, plan: plan, whole: whole}, true
}
