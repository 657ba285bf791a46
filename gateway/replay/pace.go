package replay

import (
	"context"
	"time"
)

// A Pace holds a replay to a multiple of the recording's own speed.
type Pace struct {
	Speed float64 // 1: as it happened; 100: a hundred times faster; 0: as fast as it goes

	started time.Time // by the clock of this machine
	first   time.Time // of the recording
}

// Wait returns when it is the turn of a record of this time, or with ctx's
// error. A record that is older than the one before it is due at once.
func (p *Pace) Wait(ctx context.Context, at time.Time) error {
	if p.Speed <= 0 {
		return ctx.Err()
	}
	if p.started.IsZero() {
		p.started, p.first = time.Now(), at
		return ctx.Err()
	}
	due := p.started.Add(time.Duration(float64(at.Sub(p.first)) / p.Speed))
	pause := time.Until(due)
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
