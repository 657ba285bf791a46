package proof

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// A Shared is a log of attempts that several machines have in common.
type Shared interface {
	// Append returns nil when the attempts are kept, and a *telemetry.Rejection when
	// they never will be.
	Append(ctx context.Context, list []telemetry.Attempt) error
	// End is the number of the newest frame that anybody has written, 0 for none.
	End(ctx context.Context) (uint64, error)
	// Follow calls take with each frame from one on, in order, until ctx ends.
	Follow(ctx context.Context, from uint64, take func(frame uint64, list []telemetry.Attempt)) error
}

// How long one try to share attempts may take, and the last one before the end.
const (
	sharePatience = 10 * time.Second
	endPatience   = 2 * time.Second
)

// OpenShared is Open for attempts that are shared: what is noted here goes through
// Join into the files of each machine, this one's too. While nothing is joined it
// waits, MaxQueue of them. What waits when the Log is closed stays in the files of
// this machine alone.
func OpenShared(dir string, reg prometheus.Registerer, logger *slog.Logger) (*Log, error) {
	return openLog(dir, reg, logger, true)
}

// Join puts what is noted into a shared log, and takes from it what all machines
// note, until ctx ends. Only one Join is at work; another one waits until it ends.
func (l *Log) Join(ctx context.Context, s Shared) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var writing sync.WaitGroup
	writing.Go(func() { l.give(ctx, s) })
	defer writing.Wait()
	defer cancel()
	from, known := l.from(ctx, s)
	if !known {
		return nil
	}
	return s.Follow(ctx, from, l.take)
}

// from returns the frame behind the one that was taken last, the first one when the
// log is another one than it was; not known when ctx ends before the log answers.
func (l *Log) from(ctx context.Context, s Shared) (from uint64, known bool) {
	ticker := time.NewTicker(Beat)
	defer ticker.Stop()
	for {
		newest, err := s.End(ctx)
		l.disk.Lock()
		taken := l.frame
		l.disk.Unlock()
		switch {
		case err == nil && taken > newest:
			return 1, true
		case err == nil:
			return taken + 1, true
		}
		select {
		case <-ticker.C: // the log tells why it does not answer
		case <-ctx.Done():
			return 0, false
		}
	}
}

// give shares what is noted, until ctx ends.
func (l *Log) give(ctx context.Context, s Shared) {
	ticker := time.NewTicker(Beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			l.giveOnce(context.WithoutCancel(ctx), s, endPatience)
			return
		case <-ticker.C:
			l.giveOnce(ctx, s, sharePatience)
		}
	}
}

// giveOnce shares what waits. What is not taken is held for the next time.
func (l *Log) giveOnce(ctx context.Context, s Shared, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if len(l.held) == 0 {
			l.held = l.waiting()
		}
		if len(l.held) == 0 {
			return
		}
		err := s.Append(ctx, l.held)
		var never *telemetry.Rejection
		switch {
		case errors.As(err, &never):
			l.lost.Add(float64(len(l.held)))
		case err != nil:
			return // the log tells why
		}
		l.held = nil
	}
}

// take puts down what machines have noted.
func (l *Log) take(frame uint64, list []telemetry.Attempt) {
	l.mu.Lock()
	for i := range list {
		if list[i].Accepted {
			l.know(&list[i])
		}
	}
	l.mu.Unlock()
	l.disk.Lock()
	defer l.disk.Unlock()
	if len(list) > 0 {
		l.keep(list, frame)
	}
	l.frame = frame
}

// Await waits until everything up to a frame of the shared log has been taken, or ctx
// ends; it reports whether it has. Somebody must have joined.
func (l *Log) Await(ctx context.Context, frame uint64) bool {
	ticker := time.NewTicker(Beat / 50)
	defer ticker.Stop()
	for {
		l.disk.Lock()
		there := l.frame >= frame
		l.disk.Unlock()
		if there {
			return true
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
}
