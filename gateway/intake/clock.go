package intake

import (
	"sync"
	"time"
)

// JumpLimit is how far the wall clock may differ from the time that has passed
// before it counts as a jump and is recorded in the log.
const JumpLimit = 60 * time.Second

// worthSlowing is how far log time must be ahead before it runs slower.
const worthSlowing = 100 * time.Millisecond

// earliest is the first time that a clock is believed to have been set.
var earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// A Clock tells log time and wall time. Log time never decreases, over restarts
// too, and runs at the speed of the monotonic clock: what the wall clock does
// is adopted only by Check, so that a jump stands in the log before any record
// that was received after it.
//
// It is safe for concurrent use.
type Clock struct {
	wall func() time.Time // with a monotonic reading

	mu     sync.Mutex
	base   time.Time     // log time at mark
	mark   time.Time     // reading of the wall clock, with its monotonic part
	ahead  time.Duration // log time minus wall time that was agreed upon
	slowed bool          // log time runs at nine tenths, until the wall clock has caught up
}

// NewClock starts log time at the wall clock, or at last, the receipt time of
// the last record of the log, where that is later.
func NewClock(wall func() time.Time, last time.Time) *Clock {
	c := &Clock{wall: wall}
	c.mark = wall()
	c.base = c.mark.Round(0)
	if c.base.Before(last) {
		c.ahead = last.Sub(c.base)
		c.base = last
	}
	return c
}

// Now returns log time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now(c.wall())
}

func (c *Clock) now(wall time.Time) time.Time {
	passed := max(wall.Sub(c.mark), 0)
	if c.slowed {
		passed -= passed / 10
	}
	return c.base.Add(passed)
}

// Wall returns the wall clock for the stamp of a reading that has no time of
// its own, and false while it was evidently never set: log time then.
func (c *Clock) Wall() (time.Time, bool) {
	wall := c.wall()
	if wall.Before(earliest) {
		return c.Now(), false
	}
	return wall.Round(0), true
}

// A Jump is a change of the wall clock that time alone does not explain.
type Jump struct {
	Wall time.Duration // by how much the wall clock jumped, negative for backward
	Log  time.Duration // by how much log time jumps: 0 for backward
}

// Check compares log time with the wall clock. A small difference is adopted at
// once (forward) or by running slower (backward). A jump is returned; the
// caller writes it to the log and then calls Adopt.
func (c *Clock) Check() (Jump, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.wall()
	now := c.now(wall)
	drift := wall.Round(0).Add(c.ahead).Sub(now)
	if drift > JumpLimit || drift < -JumpLimit {
		return Jump{Wall: drift, Log: max(drift-c.ahead, 0)}, true
	}
	// The clocks of one machine differ by nanoseconds all the time: only a real
	// difference is worth running slower for, and a second of it is a tenth.
	c.base, c.mark, c.slowed = now, wall, drift < -worthSlowing
	if drift > 0 {
		c.base = now.Add(drift)
	}
	return Jump{}, false
}

// Adopt makes log time follow the wall clock after a jump. A backward jump, and
// a forward one that only makes good an earlier backward one, leave log time
// where it is and change the agreed difference.
func (c *Clock) Adopt(j Jump) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.wall()
	now := c.now(wall)
	c.base, c.mark, c.slowed = now.Add(j.Log), wall, false
	c.ahead = max(c.ahead-j.Wall, 0)
}

// Ahead returns by how much log time is agreed to be ahead of the wall clock.
func (c *Clock) Ahead() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ahead
}
