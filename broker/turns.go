package broker

import (
	"hash/maphash"
	"sync"
)

// turns let one connection at a time begin or end among those with the same
// client id. mochi takes a client that ends out of its lists by the id: one that
// comes back at that moment would be taken out instead, and be connected and hear
// nothing.
type turns struct {
	seed  maphash.Seed
	locks [64]sync.Mutex
}

func (t *turns) of(id string) *sync.Mutex {
	return &t.locks[maphash.String(t.seed, id)%uint64(len(t.locks))]
}

// takeTurn waits for the others with the same client id; leaveTurn ends it, at the
// latest when the connection does. A connection that has its turn keeps it.
func (c *connection) takeTurn(id string) {
	if c.turn != nil {
		return
	}
	c.turn = c.broker.turns.of(id)
	c.turn.Lock()
}

func (c *connection) leaveTurn() {
	if c.turn != nil {
		c.turn.Unlock()
		c.turn = nil
	}
}
