package intake

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestClockNeverDecreases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := NewClock(time.Now, start.Add(time.Hour))
		if got := c.Now(); !got.Equal(start.Add(time.Hour)) {
			t.Errorf("after a restart with a clock an hour behind, log time is %v, want %v", got, start.Add(time.Hour))
		}
		time.Sleep(10 * time.Second)
		if got := c.Now().Sub(start); got != time.Hour+10*time.Second {
			t.Errorf("log time ran %v", got)
		}
		if _, jumped := c.Check(); jumped {
			t.Error("an agreed difference counts as a jump")
		}
		// The clock is set right: an hour forward. Log time has no gap.
		jump := Jump{Wall: time.Hour}
		c.Adopt(jump)
		if got := c.Ahead(); got != 0 {
			t.Errorf("still %v ahead", got)
		}
	})
}

func TestClockFollowsAForwardJump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := NewClock(time.Now, time.Time{})
		c.Adopt(Jump{Wall: 24 * time.Hour, Log: 24 * time.Hour})
		if got := c.Now().Sub(start); got != 24*time.Hour {
			t.Errorf("log time jumped %v", got)
		}
		// The bubble's clock did not really jump: it now looks a day behind.
		jump, jumped := c.Check()
		if !jumped || jump.Wall != -24*time.Hour || jump.Log != 0 {
			t.Errorf("jump %+v %v", jump, jumped)
		}
		before := c.Now()
		c.Adopt(jump)
		if got := c.Now(); got.Before(before) || c.Ahead() != 24*time.Hour {
			t.Errorf("log time went from %v to %v, ahead %v", before, got, c.Ahead())
		}
		if _, jumped := c.Check(); jumped {
			t.Error("a jump that was adopted is seen again")
		}
	})
}

func TestClockRunsSlowerUntilTheWallClockHasCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock(time.Now, time.Time{})
		c.Adopt(Jump{Wall: 0, Log: 5 * time.Second}) // log time five seconds ahead
		if _, jumped := c.Check(); jumped {
			t.Fatal("five seconds count as a jump")
		}
		last := c.Now()
		for range 60 {
			time.Sleep(time.Second)
			if now := c.Now(); !now.After(last) {
				t.Fatalf("log time stands at %v", now)
			} else {
				last = now
			}
			c.Check()
		}
		if got := time.Until(c.Now()); got < -time.Second || got > time.Second {
			t.Errorf("after a minute log time still differs by %v", got)
		}
	})
}

func TestClockThatWasNeverSet(t *testing.T) {
	epoch := time.Unix(1000, 0)
	last := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	c := NewClock(func() time.Time { return epoch }, last)
	if at, set := c.Wall(); set || !at.Equal(last) {
		t.Errorf("Wall() = %v, %v; want log time and false", at, set)
	}
}
