package main

import (
	"sync"
	"time"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// A recordingClock is the clock of a replay: what is received was received at
// its own time, plus the delay that it had. So the same file gives the same
// log, and the same warnings, on every run.
type recordingClock struct {
	log *spool.Log[telemetry.Reading]

	mu sync.Mutex
	at time.Time
}

// advance moves the clock to the receipt of a reading; it never goes back.
func (c *recordingClock) advance(to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if to.After(c.at) {
		c.at = to
	}
}

// Now returns log time.
func (c *recordingClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Wall implements intake.Receipt.
func (c *recordingClock) Wall() (time.Time, bool) { return c.Now(), true }

// AppendAsync implements intake.ReadingLog: the records are received now, by
// this clock, however late the log writes them.
func (c *recordingClock) AppendAsync(records []telemetry.Reading, done func(error)) {
	c.log.AppendAt(c.Now(), records, done)
}
