package spool

import "time"

// Under more load than the machine can take, whoever appends and the followers
// fight for the cores, and there are more of those who append: without a pace a
// follower falls behind by seconds, though it could keep up alone.
const (
	paceLag  = 150 * time.Millisecond // by which the follower may be behind
	paceWait = 50 * time.Millisecond  // at most, of one frame: a follower that reads a backlog stops nobody
)

// pace waits a moment while the follower Options.Paced is behind. What comes
// meanwhile goes into the same frame.
func (c *core) pace() {
	s := c.spool
	if s.options.Paced == "" || c.kind != logReadings || !c.behind() {
		return
	}
	begin := time.Now()
	timer := time.NewTimer(paceWait)
	defer timer.Stop()
	for c.behind() {
		select {
		case <-s.positions.progress:
			continue
		case <-timer.C:
		case <-s.serving.Done():
		}
		break
	}
	s.metrics.paced.Add(time.Since(begin).Seconds())
}

// behind reports whether the paced follower is at work and too far behind.
func (c *core) behind() bool {
	at := c.spool.positions.get(followerKey{c.name, c.spool.options.Paced})
	if at.received == 0 || at.accepted >= c.last.Load() {
		return false
	}
	return c.lastReceived.Load()-at.received > int64(paceLag)
}
