package account

import (
	"net/netip"
	"sync"
	"time"
)

const (
	maxAddresses = 4096
	firstPenalty = 250 * time.Millisecond
	lastPenalty  = 8 * time.Second // less than a client waits for CONNACK
	freeFailures = 5               // before passwords of people are not checked for a while
	forgiven     = 10 * time.Minute
)

// slow remembers which addresses gave wrong secrets. An address of IPv6 stands
// for its /64, which is one customer.
type slow struct {
	mu    sync.Mutex
	known map[netip.Addr]*failures
}

type failures struct {
	n    int
	last time.Time
}

func newSlow() *slow { return &slow{known: map[netip.Addr]*failures{}} }

func network(from netip.Addr) netip.Addr {
	from = from.Unmap().WithZone("")
	if from.Is6() {
		if prefix, err := from.Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return from
}

func penalty(n int) time.Duration {
	return min(firstPenalty<<min(max(n-1, 0), 10), lastPenalty)
}

// failed notes a wrong secret and returns how long its answer is to take.
func (s *slow) failed(from netip.Addr, now time.Time) time.Duration {
	from = network(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.known[from]
	if f == nil {
		s.room(now)
		f = &failures{}
		s.known[from] = f
	}
	if now.Sub(f.last) > forgiven {
		f.n = 0
	}
	f.n++
	f.last = now
	return penalty(f.n)
}

// wait returns for how long passwords of people from the address are not
// checked.
func (s *slow) wait(from netip.Addr, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.known[network(from)]
	if f == nil || f.n < freeFailures {
		return 0
	}
	return max(f.last.Add(penalty(f.n)).Sub(now), 0)
}

// room makes room for one address more: of a few, which the map chooses by
// chance, the one that has been quiet for longest goes.
func (s *slow) room(now time.Time) {
	if len(s.known) < maxAddresses {
		return
	}
	var oldest netip.Addr
	since, looked := now, 0
	for address, f := range s.known {
		if looked == 0 || f.last.Before(since) {
			oldest, since = address, f.last
		}
		if looked++; looked == 16 {
			break
		}
	}
	delete(s.known, oldest)
}

func (s *slow) size() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.known) }
