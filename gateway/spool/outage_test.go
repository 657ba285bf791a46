package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// slow is for tests that wait for elections of a cluster of three: `make cluster`
// runs them.
func slow(t *testing.T) {
	t.Helper()
	if os.Getenv("HAIDANG_CLUSTER") == "" {
		t.Skip("servers of a cluster that come and go: make cluster")
	}
}

// TestWaits: Open waits for a cluster without quorum, tells why once, and goes on
// by itself.
func TestWaits(t *testing.T) {
	slow(t)
	t.Parallel()
	c := startCluster(t, "waits", 3)
	c.end(0)
	c.end(1)
	var mu sync.Mutex
	var reasons []string
	opened := make(chan *Spool, 1)
	dir := t.TempDir()
	go func() {
		s, err := Open(t.Context(), Options{Dir: dir, Config: c.config(0), Logger: slog.New(slog.DiscardHandler), Waiting: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			reasons = append(reasons, err.Error())
		}})
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	told := func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(reasons) }
	until(t, "a reason is told", func() bool { return len(told()) > 0 })
	if first := told()[0]; !strings.Contains(first, "no quorum") && !strings.Contains(first, "too few servers") {
		t.Errorf("the reason is %q", first)
	}
	c.start(t, 0)
	c.start(t, 1)
	c.settled(t)
	s := <-opened
	if s == nil {
		t.FailNow()
	}
	put(t, s, river("a", 1))
	shut(t, s)
	if n := len(told()); n > 4 {
		t.Errorf("%d reasons: %q", n, told())
	}
}

// TestWaitEnds: a wait ends with the context, and nothing is left behind.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	_, err := Open(ctx, Options{Dir: dir, Config: Config{URL: "nats://127.0.0.1:1"}, Logger: slog.New(slog.DiscardHandler), Waiting: func(error) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that the context ended", err)
	}
	shut(t, open(t, dir)) // the lock was given back
}

// numbered appends readings of some devices until stop, each device's in order,
// and again until they are acknowledged; it returns how many of each device were.
func numbered(t *testing.T, s *Spool, devices int, stop <-chan struct{}) func() []int {
	sent := make([]int, devices)
	var group sync.WaitGroup
	for d := range devices {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				for s.Readings().Append(soon(t), []telemetry.Reading{river(fmt.Sprint("d", d), float64(i))}) != nil {
					if t.Context().Err() != nil {
						return
					}
				}
				sent[d] = i + 1
			}
		})
	}
	return func() []int { group.Wait(); return sent }
}

// reconcile reads the whole log: what was acknowledged is there once, in the order
// of its device. again allows what was refused, and appended again, to be there
// twice.
func reconcile(t *testing.T, s *Spool, sent []int, again bool) {
	t.Helper()
	next := make([]int, len(sent))
	err := s.Readings().Replay(soon(t), func(r telemetry.Reading) {
		var d int
		if _, err := fmt.Sscanf(r.Device, "d%d", &d); err != nil {
			t.Error(err)
		}
		level, _ := r.Number("level_m")
		switch n := int(level); {
		case n == next[d]:
			next[d]++
		case again && n == next[d]-1:
		default:
			t.Errorf("device %d: reading %d in place of %d", d, n, next[d])
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for d := range sent {
		if next[d] < sent[d] || next[d] > sent[d]+1 {
			t.Errorf("device %d: %d of %d acknowledged readings are there", d, next[d], sent[d])
		}
	}
}

// TestNodesDie ends one server after the other, under load: nothing acknowledged is
// lost, doubled or out of order, for a follower as well.
func TestNodesDie(t *testing.T) {
	slow(t)
	t.Parallel()
	c := startCluster(t, "nodes", 3)
	s := open(t, t.TempDir(), at(c.config(0)))
	follower := collect(t, s, FollowOptions{Name: "store"})
	stop := make(chan struct{})
	wait := numbered(t, s, 4, stop)
	for i := range 3 {
		grows(t, s, 200)
		c.end(i)
		grows(t, s, 200)
		c.start(t, i)
		c.settled(t)
	}
	grows(t, s, 200)
	close(stop)
	sent := wait()
	reconcile(t, s, sent, false)
	total := 0
	for _, n := range sent {
		total += n
	}
	until(t, "the follower has all", func() bool { return len(follower.got()) >= total })
	if seqs := follower.seqs; !slices.IsSorted(seqs) || len(slices.Compact(slices.Clone(seqs))) != len(seqs) {
		t.Error("a frame came twice or out of order to the follower")
	}
	follower.stop(t)
	if n := testutil.ToFloat64(s.metrics.dropped.WithLabelValues("readings", "store")); n != 0 {
		t.Errorf("%v frames are told to be lost", n)
	}
}

// grows waits until the log has n frames more.
func grows(t *testing.T, s *Spool, n uint64) {
	t.Helper()
	end := s.Readings().Last() + n
	until(t, fmt.Sprintf("there are %d frames more", n), func() bool { return s.Readings().Last() >= end })
}

// TestQuorumLost: without a majority nothing is acknowledged and the health tells;
// when it is back, everything is there.
func TestQuorumLost(t *testing.T) {
	slow(t)
	t.Parallel()
	c := startCluster(t, "quorum", 3)
	s := open(t, t.TempDir(), at(c.config(0)))
	put(t, s, river("d0", 0))
	c.end(0)
	c.end(1)
	var acknowledged atomic.Int64
	done := make(chan error, 2)
	for i := range 2 {
		s.Readings().AppendAsync([]telemetry.Reading{river("d0", float64(i+1))}, func(err error) {
			if err == nil {
				acknowledged.Add(1)
			}
			done <- err
		})
	}
	until(t, "the health tells", func() bool { return errors.Is(s.Health(), ErrUnavailable) })
	if n := acknowledged.Load(); n != 0 {
		t.Fatalf("%d were acknowledged without a quorum", n)
	}
	c.start(t, 0)
	c.start(t, 1)
	c.settled(t)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the health is good", func() bool { return s.Health() == nil })
	reconcile(t, s, []int{3}, false)
}

// TestOtherCluster: an address that leads to another cluster is found out at the
// start and while the gateway runs; nothing is written there.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	ours, other := startCluster(t, "ours", 1), startCluster(t, "other", 1)
	dir := t.TempDir()
	shut(t, open(t, dir, at(ours.config(0))))
	wantIn(t, refusal(t, dir, other.config(0)), "does not have the log of this gateway", "stream OWNERS is missing", "cluster.json")

	// The other one has a log as well, and comes into the client's way.
	shut(t, open(t, t.TempDir(), at(other.config(0))))
	wantIn(t, refusal(t, dir, other.config(0)), "was made at")
	way := forward(t, ours.ports[0])
	config := ours.config(0)
	config.URL = way.url()
	s := open(t, dir, at(config))
	put(t, s, river("d0", 0))
	way.lead(other.ports[0])
	done := make(chan error, 1)
	s.Readings().AppendAsync([]telemetry.Reading{river("d0", 1)}, func(err error) { done <- err })
	until(t, "the health tells of the other cluster", func() bool {
		err := s.Health()
		return err != nil && strings.Contains(err.Error(), "does not have the log of this gateway")
	})
	way.lead(ours.ports[0])
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	until(t, "the health is good", func() bool { return s.Health() == nil })
	reconcile(t, s, []int{2}, false)
	stream, err := direct(t, other, 0).Stream(soon(t), streamReadings)
	if err != nil || stream.CachedInfo().State.LastSeq != 0 {
		t.Errorf("something was written to the other cluster: %v", err)
	}
}

// TestConnectionToldLate: the client tells of a lost connection after it has found a
// new one, and the log was looked at: the health is good all the same.
func TestConnectionToldLate(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "toldlate", 1)
	s := open(t, t.TempDir(), at(c.config(0)))
	var o nats.Options
	for _, option := range s.cluster.watched(nil) {
		if err := option(&o); err != nil {
			t.Fatal(err)
		}
	}
	o.DisconnectedErrCB(nil, errors.New("cut"))
	if err := s.Health(); err == nil || !strings.Contains(err.Error(), "the connection is lost") {
		t.Errorf("the health is %v", err)
	}
	o.ReconnectedCB(nil)
	until(t, "the health is good", func() bool { return s.Health() == nil })
}

// TestStandby: a second gateway waits until the first is gone, and goes on from its
// position and checkpoint. The first, cut off meanwhile, writes nothing more.
func TestStandby(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "standby", 1)
	way := forward(t, c.ports[0])
	config := c.config(0)
	config.URL = way.url()
	first := open(t, t.TempDir(), at(config))
	put(t, first, river("d0", 0))
	follower := collect(t, first, FollowOptions{Name: "store"})
	follower.wants(t, 0)
	until(t, "the position is stored", func() bool { return first.positions.get(followerKey{"readings", "store"}).stored == 1 })
	if err := first.SaveCheckpoint(soon(t), "rules", []byte("one")); err != nil {
		t.Fatal(err)
	}
	wantIn(t, refusal(t, t.TempDir(), c.config(0)), "another gateway has the log: kim-long-box on ")

	way.lead(0)
	begin := time.Now()
	second := open(t, t.TempDir(), at(c.config(0)))
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("the standby took over after %s", took)
	}
	if blob, err := second.LoadCheckpoint(soon(t), "rules"); err != nil || string(blob) != "one" {
		t.Errorf("checkpoint %q, %v", blob, err)
	}
	put(t, second, river("d0", 1))
	collect(t, second, FollowOptions{Name: "store"}).wants(t, 1)

	way.lead(c.ports[0])
	if err := <-follower.err; !errors.Is(err, ErrTaken) {
		t.Errorf("the follower of the first ended with %v, want ErrTaken", err)
	}
	if err := first.Readings().Append(soon(t), []telemetry.Reading{river("d0", 9)}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("the first appended: %v", err)
	}
	if err := first.SaveCheckpoint(soon(t), "rules", []byte("stale")); !errors.Is(err, ErrTaken) {
		t.Errorf("the first saved a checkpoint: %v", err)
	}
	reconcile(t, second, []int{2}, false)
}

// TestStaleWriter: what is written against a revision or a sequence is refused when
// another was there first, even if the writer believes in its lease.
func TestStaleWriter(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "stale", 1)
	s := open(t, t.TempDir(), at(c.config(0)))
	warn := func(n int) error {
		return s.Warnings().Append(soon(t), []telemetry.Transition{{Warning: telemetry.Warning{ID: "w", N: n, At: noon}}})
	}
	if err := errors.Join(warn(1), s.SaveCheckpoint(soon(t), "rules", []byte("one"))); err != nil {
		t.Fatal(err)
	}
	// Another takes over and writes, as it does when this process was asleep.
	js := direct(t, c, 0)
	usurp := []byte(`{"instance": "other", "gateway": "thuan-an-box"}`)
	for _, m := range []struct {
		subject string
		text    []byte
	}{{ownerPrefix + wholeLease, usurp}, {epochPrefix + wholeLease, usurp}, {"warnings.0", []byte("{}\n")}, {objectSubject("rules"), []byte("{}")}} {
		if _, err := js.Publish(soon(t), m.subject, m.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SaveCheckpoint(soon(t), "rules", []byte("stale")); !errors.Is(err, ErrTaken) {
		t.Errorf("a stale checkpoint was saved: %v", err)
	}
	if err := warn(2); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a stale warning was written: %v", err)
	}
	if err := s.Health(); !errors.Is(err, ErrTaken) {
		t.Errorf("the health is %v", err)
	}
	stream, err := js.Stream(soon(t), streamWarnings)
	if err != nil || stream.CachedInfo().State.LastSeq != 2 {
		t.Errorf("the warnings log was written to: %v", err)
	}
}

// TestOwnAnswerLost: writes of ours whose answers were lost do not look like those
// of another.
func TestOwnAnswerLost(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "answers", 1)
	dir := t.TempDir()
	s := open(t, dir, at(c.config(0)))
	put(t, s, river("a", 1))
	if err := s.SaveCheckpoint(soon(t), "rules", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Warnings().Append(soon(t), []telemetry.Transition{{Warning: telemetry.Warning{ID: "w", N: 1, At: noon}}}); err != nil {
		t.Fatal(err)
	}
	for subject := range s.cluster.revisions {
		s.cluster.setRevision(subject, 99)
	}
	s.cluster.owner.mu.Lock()
	s.cluster.owner.revision = 1
	s.cluster.owner.mu.Unlock()
	js := direct(t, c, 0)
	for i := range 2 { // frames of ours, of which the committer knows nothing
		m := nats.NewMsg("warnings.0")
		m.Data = []byte("{}\n")
		m.Header.Set(frameHeader, "1 5 1 0")
		m.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s.%d", s.warnings.core.instance, 100+i))
		if _, err := js.PublishMsg(soon(t), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.cluster.owner.renew(soon(t)); err != nil {
		t.Errorf("the lease: %v", err)
	}
	if err := s.SaveCheckpoint(soon(t), "rules", []byte("two")); err != nil {
		t.Errorf("the checkpoint: %v", err)
	}
	if err := s.Readings().Commit(t.Context(), "rules", 1); err != nil {
		t.Fatal(err)
	}
	if err := s.positions.store(soon(t)); err != nil {
		t.Errorf("the positions: %v", err)
	}
	if err := s.Warnings().Append(soon(t), []telemetry.Transition{{Warning: telemetry.Warning{ID: "w", N: 2, At: noon}}}); err != nil {
		t.Errorf("the warnings: %v", err)
	}
	if last := s.Warnings().Last(); last != 4 {
		t.Errorf("the warnings end at %d, want 4", last)
	}
}

// TestRefill: what a cursor does not show is asked for from the leader.
func TestRefill(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "refill", 1)
	s := open(t, t.TempDir(), at(c.config(0)))
	for i := range 6 {
		put(t, s, river("a", float64(i)))
	}
	stream, err := direct(t, c, 0).Stream(soon(t), streamReadings)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(soon(t), 4); err != nil {
		t.Fatal(err)
	}
	got := make(chan raw, 10)
	next, err := s.readings.core.refill(soon(t), s.current(), 2, 6, got)
	close(got)
	var seqs []uint64
	for r := range got {
		seqs = append(seqs, r.seq)
	}
	if err != nil || next != 6 || !slices.Equal(seqs, []uint64{2, 3, 5}) {
		t.Errorf("frames %v, go on from %d, %v; want 2, 3, 5 and 6", seqs, next, err)
	}
	if _, err := s.readings.core.endGone(soon(t), s.current(), 7, 9, make(chan raw, 1)); !errors.Is(err, errBehind) {
		t.Errorf("frames that the leader does not have yet: %v, want that it lies behind", err)
	}
}
