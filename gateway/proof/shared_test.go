package proof

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// A commonLog is what machines have in common, in memory. While it is away it takes
// nothing; an unsure one takes what it says that it has not.
type commonLog struct {
	mu     sync.Mutex
	frames [][]telemetry.Attempt
	away   bool
	unsure bool
	more   chan struct{}
}

func newCommonLog() *commonLog { return &commonLog{more: make(chan struct{})} }

func (c *commonLog) Append(_ context.Context, list []telemetry.Attempt) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return errors.New("away")
	}
	if list[0].ID == "unwritable" {
		return &telemetry.Rejection{Records: []telemetry.RejectedRecord{{}}}
	}
	c.frames = append(c.frames, slices.Clone(list))
	close(c.more)
	c.more = make(chan struct{})
	if c.unsure {
		c.unsure = false
		return errors.New("no answer")
	}
	return nil
}

func (c *commonLog) End(context.Context) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return 0, errors.New("away")
	}
	return uint64(len(c.frames)), nil
}

func (c *commonLog) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.frames)
}

// next returns a frame, and what is closed when there is one more.
func (c *commonLog) next(n uint64) ([]telemetry.Attempt, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > uint64(len(c.frames)) {
		return nil, c.more
	}
	return c.frames[n-1], nil
}

func (c *commonLog) Follow(ctx context.Context, from uint64, take func(uint64, []telemetry.Attempt)) error {
	for n := from; ; {
		frame, more := c.next(n)
		if more == nil {
			take(n, frame)
			n++
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *commonLog) set(away, unsure bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away, c.unsure = away, unsure
}

func openShared(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := OpenShared(dir, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestShared: attempts are known to each machine, once, also to one that comes later
// or was away; and those that the common log did not take wait for it.
func TestShared(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		common := newCommonLog()
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		join := func(ctx context.Context, l *Log) {
			running.Go(func() {
				if err := l.Join(ctx, common); err != nil {
					t.Error(err)
				}
			})
		}
		one := openShared(t, dirs[0])
		join(ctx, one)
		one.Note(attempt("w", 1, false))
		common.set(false, true)
		one.Note(attempt("w", 1, true))
		time.Sleep(3 * Beat)
		if common.count() != 2 {
			t.Errorf("%d frames, want that of the lost answer twice", common.count())
		}
		two := openShared(t, dirs[1])
		within, leave := context.WithCancel(ctx)
		join(within, two)
		if !two.Await(ctx, 2) {
			t.Error("the second machine does not come to the end")
		}
		const want = "1.1 false, 1.2 true"
		if a, b := of(t, one, "w"), of(t, two, "w"); a != want || b != want || two.Accepted("w", "ioc") != 1 {
			t.Errorf("known are %q and %q, want %q", a, b, want)
		}

		leave()
		synctest.Wait()
		if err := two.Close(); err != nil {
			t.Error(err)
		}
		common.set(true, false)
		one.Note(attempt("w", 2, true))
		time.Sleep(3 * Beat)
		if one.Accepted("w", "ioc") != 2 {
			t.Error("the machine that has noted it waits for others to know it")
		}
		common.set(false, false)
		two = openShared(t, dirs[1])
		if two.Accepted("w", "ioc") != 1 || two.frame != 2 {
			t.Errorf("after a restart transition %d is known to be accepted, up to frame %d", two.Accepted("w", "ioc"), two.frame)
		}
		join(ctx, two)
		two.Note(attempt("w", 3, true))
		time.Sleep(3 * Beat)
		const then = want + ", 2.1 true, 3.1 true"
		if a, b := of(t, one, "w"), of(t, two, "w"); a != then || b != then {
			t.Errorf("known are %q and %q, want %q", a, b, then)
		}
		stop()
		running.Wait()
		if err := errors.Join(one.Close(), two.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestSharedAnew: another common log is read from its start, the same one from where it
// was, when it answers; what can never be written is lost alone, and counted.
func TestSharedAnew(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := openShared(t, dir)
		within := func(common *commonLog, act func()) {
			ctx, stop := context.WithCancel(t.Context())
			joined := make(chan error, 1)
			go func() { joined <- l.Join(ctx, common) }()
			act()
			time.Sleep(3 * Beat)
			stop()
			if err := <-joined; err != nil {
				t.Error(err)
			}
		}
		old := newCommonLog()
		within(old, func() {
			l.Note(attempt("w", 1, true))
			time.Sleep(2 * Beat)
			l.Note(attempt("unwritable", 1, true))
			time.Sleep(2 * Beat)
			l.Note(attempt("w", 2, true))
		})
		if got := testutil.ToFloat64(l.lost); got != 1 {
			t.Errorf("%v attempts count as lost, want 1", got)
		}
		old.set(true, false)
		within(old, func() {
			time.Sleep(2 * Beat)
			old.set(false, false)
		})
		if got := testutil.ToFloat64(l.noted[true]); got != 2 || l.frame != 2 {
			t.Errorf("%v attempts were put down up to frame %d, want 2 up to 2: none twice", got, l.frame)
		}
		other := newCommonLog()
		if err := other.Append(t.Context(), []telemetry.Attempt{attempt("x", 1, true)}); err != nil {
			t.Fatal(err)
		}
		within(other, func() {})
		if l.Accepted("x", "ioc") != 1 || l.frame != 1 {
			t.Errorf("of another log it knows %d, up to frame %d", l.Accepted("x", "ioc"), l.frame)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestSharedLeft is closed while the common log is away: what it has not taken is in
// the files of this machine.
func TestSharedLeft(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		common := newCommonLog()
		common.set(true, false)
		l := openShared(t, dir)
		ctx, stop := context.WithCancel(t.Context())
		joined := make(chan error, 1)
		go func() { joined <- l.Join(ctx, common) }()
		l.Note(attempt("w", 1, true))
		time.Sleep(2 * Beat)
		l.Note(attempt("w", 2, true))
		stop()
		if err := errors.Join(<-joined, l.Close()); err != nil {
			t.Error(err)
		}
		again := openShared(t, dir)
		if got := of(t, again, "w"); got != "1.1 true, 2.1 true" || again.Accepted("w", "ioc") != 2 {
			t.Errorf("kept are %q", got)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
}
