package rules

import (
	"cmp"
	"math"

	"haidang/gateway/telemetry"
)

// An order is what the transitions of a frame are sorted by: timers come in the
// order of their deadlines, causes before what they inhibit, and what an instant
// has released at its end; then readings as the frame has them. Each shard finds
// its transitions in this order; the transitions of one order are of one shard,
// and stay as they are.
type order struct {
	at       int64 // deadline; after all of them: readings
	released bool
	by       *binding // whose timer it is
	index    int      // of the reading
}

func (o *order) compare(p *order) int {
	if c := cmp.Or(cmp.Compare(o.at, p.at), cmp.Compare(bit(o.released), bit(p.released))); c != 0 || o.at == math.MaxInt64 {
		return cmp.Or(c, cmp.Compare(o.index, p.index))
	}
	return o.by.compare(p.by)
}

// manyFound is how many transitions of one frame a shard keeps room for.
const manyFound = 256

// found is what a shard has found, in order.
type found struct {
	at          order // of what is found now
	orders      []order
	transitions []telemetry.Transition
	given       int // of these
}

func (f *found) add(x telemetry.Transition) {
	f.orders = append(f.orders, f.at)
	f.transitions = append(f.transitions, x)
}

// gather takes what the shards have found.
func (e *Engine) gather() {
	for {
		first := (*shard)(nil)
		for _, s := range e.shards {
			if s.found.given < len(s.found.orders) && (first == nil || s.found.next().compare(first.found.next()) < 0) {
				first = s
			}
		}
		if first == nil {
			break
		}
		e.give(&first.found.transitions[first.found.given])
		first.found.given++
	}
	for _, s := range e.shards {
		switch f := &s.found; {
		case f.given == 0:
		case cap(f.orders) > manyFound: // room for a storm is not kept
			*f = found{}
		default:
			clear(f.transitions) // they hold on to their texts
			clear(f.orders)
			*f = found{orders: f.orders[:0], transitions: f.transitions[:0]}
		}
	}
}

func (f *found) next() *order { return &f.orders[f.given] }

// give passes a transition on.
func (e *Engine) give(x *telemetry.Transition) {
	if !x.Shadow {
		e.out = append(e.out, *x)
		e.meters.transitions[x.State].Inc()
		return
	}
	e.meters.shadow.Inc()
	if e.shadow != nil {
		e.shadow(*x)
	}
}
