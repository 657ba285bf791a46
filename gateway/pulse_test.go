package main

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/intake"
	"haidang/gateway/telemetry"
)

// A recordedLog keeps what is appended and when it was received.
type recordedLog struct {
	mu       sync.Mutex
	now      func() time.Time
	records  []telemetry.Reading
	received []time.Time
}

func (l *recordedLog) Append(_ context.Context, records []telemetry.Reading) error {
	l.keep(l.now(), records)
	return nil
}

func (l *recordedLog) AppendAt(received time.Time, records []telemetry.Reading, done func(error)) {
	l.keep(received, records)
	done(nil)
}

func (l *recordedLog) keep(received time.Time, records []telemetry.Reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		l.records, l.received = append(l.records, r), append(l.received, received)
	}
}

func (l *recordedLog) last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.records))
}

// TestPulseJump: a jump of the wall clock stands in the log within a fraction of
// a second, received at the time to which log time jumps, and what is received
// after it is not before it. So no `for` runs out by a jump: the engine sees the
// gap and takes it off.
func TestPulseJump(t *testing.T) {
	for name, jump := range map[string]time.Duration{"forward": 24 * time.Hour, "back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := intake.NewClock(time.Now, time.Time{})
				log := &recordedLog{now: clock.Now}
				p := &pulse{name: "box", clock: clock, log: log, last: log.last, logger: slog.New(slog.DiscardHandler)}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- p.Run(ctx) }()
				time.Sleep(time.Second)
				// The bubble's clock cannot jump: log time is moved the other way,
				// from where the wall clock looks as if it had.
				clock.Adopt(intake.Jump{Log: -jump})
				before := clock.Now()
				time.Sleep(lookEvery + time.Millisecond)
				synctest.Wait()
				if len(log.records) != 1 || log.records[0].Kind != telemetry.KindClock {
					t.Fatalf("%v after a jump the log has %+v, want one %s", lookEvery, log.records, telemetry.KindClock)
				}
				want := max(jump, 0)
				if got := log.received[0].Sub(before); got < want || got > want+time.Second {
					t.Errorf("the jump is received %v after what was before it, want %v", got, want)
				}
				if now := clock.Now(); now.Before(log.received[0]) {
					t.Errorf("log time %v after the jump is before the jump's own %v", now, log.received[0])
				}
				if moved, _ := log.records[0].Number("jump_s"); moved != want.Seconds() && (moved < want.Seconds()-1 || moved > want.Seconds()+1) {
					t.Errorf("jump_s is %v, want %v", moved, want.Seconds())
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
