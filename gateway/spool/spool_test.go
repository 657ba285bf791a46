package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// patience bounds what a test waits for.
const patience = 60 * time.Second

// open opens a spool on dir and closes it with the test.
func open(t testing.TB, dir string, change ...func(*Options)) *Spool {
	t.Helper()
	o := Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if os.Getenv(overCluster) != "" {
		o.Config = inCluster(t, dir)
	}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	return s
}

func shut(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until polls a condition that nothing signals.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx := soon(t)
	for !holds() {
		if !sleep(ctx, 5*time.Millisecond) {
			t.Fatalf("it took more than %s until %s", patience, what)
		}
	}
}

func put(t testing.TB, s *Spool, readings ...telemetry.Reading) {
	t.Helper()
	if err := s.Readings().Append(soon(t), readings); err != nil {
		t.Fatal(err)
	}
}

// a follower of a test collects the numbers level_m of what it accepts.
type collector struct {
	mu     sync.Mutex
	levels []float64
	seqs   []uint64
	err    chan error
	end    context.CancelFunc
}

func collect(t testing.TB, s *Spool, o FollowOptions) *collector {
	c := &collector{err: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	c.end = cancel
	t.Cleanup(cancel)
	go func() {
		c.err <- s.Readings().Follow(ctx, o, func(_ context.Context, b *Batch[telemetry.Reading]) error {
			records, err := b.Records()
			if err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			for i := range records {
				level, _ := records[i].Number("level_m")
				c.levels = append(c.levels, level)
			}
			for _, f := range b.Frames {
				c.seqs = append(c.seqs, f.Seq)
			}
			return nil
		})
	}()
	return c
}

func (c *collector) got() []float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.levels)
}

func (c *collector) stop(t testing.TB) {
	t.Helper()
	c.end()
	select {
	case err := <-c.err:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the follower does not end")
	}
}

func (c *collector) wants(t testing.TB, want ...float64) {
	t.Helper()
	until(t, fmt.Sprintf("%d readings came", len(want)), func() bool { return len(c.got()) >= len(want) })
	if got := c.got(); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestAppendAndFollow(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := open(t, t.TempDir(), func(o *Options) { o.Registerer = reg })
	put(t, s, river("a", 1), river("b", 2))
	c := collect(t, s, FollowOptions{Name: "store"})
	c.wants(t, 1, 2)
	put(t, s, river("a", 3))
	c.wants(t, 1, 2, 3)
	until(t, "the position is 2", func() bool { return s.Readings().Position("store") == 2 })
	if last, lag := s.Readings().Last(), s.Readings().Lag("store"); last != 2 || lag != 0 {
		t.Errorf("last %d, lag %d; want 2 and 0", last, lag)
	}
	if n := testutil.ToFloat64(s.metrics.records.WithLabelValues("readings")); n != 3 {
		t.Errorf("%v records counted, want 3", n)
	}
	if _, err := testutil.GatherAndCount(reg); err != nil {
		t.Error(err)
	}
	if _, err := testutil.GatherAndLint(reg); err != nil {
		t.Error(err)
	}
	if err := s.Readings().Follow(t.Context(), FollowOptions{Name: "store"}, nil); err == nil {
		t.Error("two followers under one name")
	}
	c.stop(t)
}

func TestWarningsAndLetters(t *testing.T) {
	s := open(t, t.TempDir())
	want := telemetry.Transition{Warning: telemetry.Warning{ID: "w-1", N: 1, State: telemetry.Active, Severity: telemetry.Extreme, At: noon, Message: telemetry.Text{VI: "Lũ\nlớn"}}, Step: 1}
	if err := s.Warnings().Append(soon(t), []telemetry.Transition{want}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(soon(t))
	var got []telemetry.Transition
	err := s.Warnings().Follow(ctx, FollowOptions{Name: "ioc"}, func(_ context.Context, b *Batch[telemetry.Transition]) (err error) {
		defer cancel()
		got, err = b.Records()
		return err
	})
	if err != nil || len(got) != 1 || got[0].Message != want.Message || got[0].Key() != "w-1/1" || !got[0].At.Equal(noon) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestOrder has many producers at once: the callbacks of each come in its
// order, and so do its records.
func TestOrder(t *testing.T) {
	s := open(t, t.TempDir())
	const producers, each = 16, 300
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			next := make(chan int, each)
			for i := range each {
				s.Readings().AppendAsync([]telemetry.Reading{river(fmt.Sprint("d", p), float64(i))}, func(err error) {
					if err != nil {
						t.Error(err)
					}
					next <- i
				})
			}
			for i := range each {
				if got := <-next; got != i {
					t.Errorf("callback %d came in place of %d", got, i)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]float64{}
	n := 0
	var received time.Time
	ctx, cancel := context.WithCancel(soon(t))
	err := s.Readings().Follow(ctx, FollowOptions{}, func(_ context.Context, b *Batch[telemetry.Reading]) error {
		for i := range b.Frames {
			if b.Frames[i].Received.Before(received) {
				t.Errorf("log time goes back at frame %d", b.Frames[i].Seq)
			}
			received = b.Frames[i].Received
		}
		records, err := b.Records()
		for i := range records {
			if level, _ := records[i].Number("level_m"); level != seen[records[i].Device] {
				t.Errorf("device %s: reading %v in place of %v", records[i].Device, level, seen[records[i].Device])
			}
			seen[records[i].Device]++
		}
		if n += len(records); n == producers*each {
			cancel()
		}
		return err
	})
	if err != nil || n != producers*each {
		t.Errorf("%d of %d readings, %v", n, producers*each, err)
	}
}

func TestRestartContinues(t *testing.T) {
	dir := t.TempDir()
	clock := noon
	at := func(o *Options) { o.Now = func() time.Time { return clock } }
	s := open(t, dir, at)
	put(t, s, river("a", 1))
	put(t, s, river("a", 2))
	c := collect(t, s, FollowOptions{Name: "ủy ban.1"})
	c.wants(t, 1, 2)
	c.stop(t)
	shut(t, s)

	clock = noon.Add(-time.Hour) // the clock was set back meanwhile
	s = open(t, dir, at)
	if last, at := s.Readings().Last(), s.Readings().Position("ủy ban.1"); last != 2 || at != 2 {
		t.Fatalf("last %d, position %d; want 2 and 2", last, at)
	}
	put(t, s, river("a", 3))
	c = collect(t, s, FollowOptions{Name: "ủy ban.1"})
	c.wants(t, 3)
	c = collect(t, s, FollowOptions{Name: "rules", From: 2, Manual: true})
	c.wants(t, 2, 3)
	if at := s.Readings().Position("rules"); at != 0 {
		t.Errorf("a manual follower's position moved to %d by itself", at)
	}
	if err := s.Readings().Commit(t.Context(), "rules", 3); err != nil || s.Readings().Position("rules") != 3 {
		t.Errorf("commit: %v, position %d", err, s.Readings().Position("rules"))
	}
	if err := s.Readings().Commit(t.Context(), "rules", 4); err == nil {
		t.Error("a commit beyond the end is no error")
	}
	var received []time.Time
	ctx, cancel := context.WithCancel(soon(t))
	_ = s.Readings().Follow(ctx, FollowOptions{From: 2}, func(_ context.Context, b *Batch[telemetry.Reading]) error {
		for i := range b.Frames {
			received = append(received, b.Frames[i].Received)
		}
		if len(received) == 2 {
			cancel()
		}
		return nil
	})
	if !received[0].Equal(noon) || !received[1].Equal(noon) {
		t.Errorf("receipt times %v, want %v twice: log time never decreases", received, noon)
	}
}

// TestLagOfManualFollower: what is accepted is not late, though it is committed
// only now and then.
func TestLagOfManualFollower(t *testing.T) {
	clock := noon
	reg := prometheus.NewPedanticRegistry()
	s := open(t, t.TempDir(), func(o *Options) {
		o.Now = func() time.Time { return clock }
		o.Registerer = reg
	})
	lag := func(frames, seconds float64) {
		t.Helper()
		want := map[string]float64{"haidang_spool_follower_lag_frames": frames, "haidang_spool_follower_lag_seconds": seconds}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if w, ok := want[f.GetName()]; ok && f.GetMetric()[0].GetGauge().GetValue() != w {
				t.Errorf("%s is %v, want %v", f.GetName(), f.GetMetric()[0].GetGauge().GetValue(), w)
			}
		}
		if n := s.Readings().Lag("rules"); float64(n) != frames {
			t.Errorf("lag %d frames, want %v", n, frames)
		}
	}
	put(t, s, river("a", 1))
	c := collect(t, s, FollowOptions{Name: "rules", Manual: true})
	c.wants(t, 1)
	if err := s.Readings().Commit(t.Context(), "rules", 1); err != nil {
		t.Fatal(err)
	}
	clock = noon.Add(9 * time.Second)
	put(t, s, river("a", 2))
	c.wants(t, 1, 2)
	until(t, "both are accepted", func() bool { return s.Readings().Lag("rules") == 0 })
	lag(0, 0)
	if at := s.Readings().Position("rules"); at != 1 {
		t.Errorf("the position is %d, want what was committed, 1", at)
	}
	c.stop(t)
	clock = noon.Add(20 * time.Second)
	put(t, s, river("a", 3))
	lag(1, 11)
	// One that begins again takes from the log again what it has not committed.
	refusing, cancel := context.WithCancel(soon(t))
	err := s.Readings().Follow(refusing, FollowOptions{Name: "rules", From: 2, Manual: true}, func(context.Context, *Batch[telemetry.Reading]) error {
		lag(2, 11) // no receipt time is known: the gauge of the seconds is left out
		cancel()
		return errors.New("not now")
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLogClock(t *testing.T) {
	var c logClock
	c.last = noon
	for i, step := range []struct{ clock, want time.Duration }{
		{-time.Hour, 0},
		{-time.Hour + 10*time.Second, 10 * time.Second}, // at the clock's pace
		{-2 * time.Hour, 10 * time.Second},
		{-2*time.Hour + time.Second, 11 * time.Second},
		{time.Minute, 2*time.Hour + 70*time.Second}, // a jump forward is time, too
		{3 * time.Hour, 5*time.Hour + 10*time.Second - time.Minute + time.Minute},
	} {
		got := c.now(noon.Add(step.clock)).Sub(noon)
		if got != step.want {
			t.Errorf("step %d: log time is %s after noon, want %s", i, got, step.want)
		}
	}
}

// TestGivenTimes: the times of a replay and those of the clock in one log do not
// push log time on.
func TestGivenTimes(t *testing.T) {
	var c logClock
	long := -6 * 365 * 24 * time.Hour
	for i, step := range []struct {
		given    bool
		at, want time.Duration
	}{{true, long, long}, {false, 0, 0}, {true, long + time.Hour, 0}, {false, time.Second, time.Second}, {true, time.Minute, time.Minute}} {
		next := c.now
		if step.given {
			next = c.given
		}
		if got := next(noon.Add(step.at)).Sub(noon); got != step.want {
			t.Errorf("step %d: log time is %s after noon, want %s", i, got, step.want)
		}
	}
}

func TestFollowersOfReadingsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, river("a", 1))
	for _, name := range []string{"store", "old"} {
		if err := s.Readings().Commit(t.Context(), name, 1); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, s)
	s = open(t, dir, func(o *Options) { o.Followers = []string{"store"} })
	if s.Readings().Position("store") != 1 || s.Readings().Position("old") != 0 {
		t.Errorf("positions store %d, old %d; want 1 and 0", s.Readings().Position("store"), s.Readings().Position("old"))
	}
}

func TestReadingsAreEmptied(t *testing.T) {
	s := open(t, t.TempDir(), func(o *Options) { o.Followers = []string{"store", "rules"} })
	for i := range 10 {
		put(t, s, river("a", float64(i)))
	}
	first := func() uint64 {
		stream, err := s.current().append.Stream(soon(t), streamReadings)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.FirstSeq
	}
	empty := func() {
		if err := s.positions.store(soon(t)); err != nil {
			t.Fatal(err)
		}
		s.room.kick()
	}
	if err := s.Readings().Commit(t.Context(), "store", 10); err != nil {
		t.Fatal(err)
	}
	empty()
	if err := s.Readings().Commit(t.Context(), "rules", 4); err != nil {
		t.Fatal(err)
	}
	empty()
	until(t, "the first four frames are gone", func() bool { return first() == 5 })
	if err := s.Readings().Commit(t.Context(), "rules", 10); err != nil {
		t.Fatal(err)
	}
	empty()
	until(t, "all but the last frame are gone", func() bool { return first() == 10 })
}

// TestFollowRetries: an error is tried again with the same batch, a rejection
// is set aside, and the position moves only then.
func TestFollowRetries(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, river("a", 1), river("b", 2), river("c", 3))
	tries := 0
	ctx, cancel := context.WithCancel(soon(t))
	ended := make(chan error)
	go func() {
		ended <- s.Readings().Follow(ctx, FollowOptions{Name: "store"}, func(_ context.Context, b *Batch[telemetry.Reading]) error {
			if s.Readings().Position("store") != 0 || b.Count() != 3 {
				t.Error("the position moved before the batch was accepted, or the batch changed")
			}
			if tries++; tries <= 2 {
				return errors.New("connection refused")
			}
			return fmt.Errorf("write: %w", &telemetry.Rejection{Records: []telemetry.RejectedRecord{{Index: 1, Reason: "type_conflict", Detail: "float wanted"}, {Index: 7, Reason: "odd"}}})
		})
	}()
	until(t, "the batch is accepted", func() bool { return s.Readings().Position("store") == 1 })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	letters := lettersOf(t, s, 2)
	d := letters[0]
	if d.Source != "store" || d.Device != "b" || d.Reason != "type_conflict" || d.Place != "readings 1" || !strings.HasPrefix(string(d.Bytes), "river,device=b,") {
		t.Errorf("dead letter %+v", d)
	}
	if n := testutil.ToFloat64(s.metrics.retries.WithLabelValues("readings", "store")); n != 2 {
		t.Errorf("%v retries counted, want 2", n)
	}
}

func lettersOf(t *testing.T, s *Spool, n int) (letters []telemetry.DeadLetter) {
	t.Helper()
	ctx, cancel := context.WithCancel(soon(t))
	err := s.DeadLetters().Follow(ctx, FollowOptions{}, func(_ context.Context, b *Batch[telemetry.DeadLetter]) error {
		records, err := b.Records()
		if letters = append(letters, records...); len(letters) >= n {
			cancel()
		}
		return err
	})
	if err != nil || len(letters) != n {
		t.Fatalf("%d dead letters, want %d: %v", len(letters), n, err)
	}
	return letters
}

// TestDamagedFrames: a frame without our header and one whose lines cannot be
// decoded are set aside whole, and the follower goes on.
func TestDamagedFrames(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, river("a", 1))
	js := s.current().append
	if _, err := js.Publish(soon(t), "readings.0", []byte("from elsewhere")); err != nil {
		t.Fatal(err)
	}
	f := &pending{lines: []byte("river,device=a level_m=x 5\n"), header: "1 5 1 0"}
	if _, err := js.PublishMsg(soon(t), s.readings.core.message(f)); err != nil {
		t.Fatal(err)
	}
	put(t, s, river("a", 4)) // the committer finds other sequences than it expected
	c := collect(t, s, FollowOptions{Name: "rules"})
	c.wants(t, 1, 4)
	letters := lettersOf(t, s, 2)
	for i, place := range []string{"readings 2", "readings 3"} {
		if letters[i].Place != place || letters[i].Reason != "undecodable" || len(letters[i].Bytes) == 0 {
			t.Errorf("dead letter %+v, want one of %s", letters[i], place)
		}
	}
}
