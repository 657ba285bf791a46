package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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

// at makes open open the log in a cluster.
func at(config Config) func(*Options) {
	return func(o *Options) {
		o.Config, o.Gateway, o.leaseLife, o.Waiting = config, "kim-long-box", 3*time.Second, func(error) {}
	}
}

// refusal opens a log that cannot be opened and returns why.
func refusal(t *testing.T, dir string, config Config) string {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir, Config: config, Gateway: "kim-long-box", Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		shut(t, s)
		t.Fatal("it was opened")
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), config.Password) && config.Password != "" {
		t.Errorf("the reason has more than a line, or a password: %v", err)
	}
	return err.Error()
}

func wantIn(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not tell %q", text, part)
		}
	}
}

// TestClusterRefuses: whatever keeps the log out of a cluster is told in one line.
func TestClusterRefuses(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "alone", 1, `no_auth_user: log0`)
	t.Run("nobody there", func(t *testing.T) {
		wantIn(t, refusal(t, t.TempDir(), Config{URL: "nats://127.0.0.1:1"}), "nats://127.0.0.1:1", "no server of the cluster can be reached")
	})
	t.Run("credentials", func(t *testing.T) {
		config := c.config(1)
		config.Password = "stolen"
		wantIn(t, refusal(t, t.TempDir(), config), "refuses spool.credentials, or user and password")
	})
	t.Run("credentials missing", func(t *testing.T) {
		config := c.config(1)
		config.User, config.Password, config.Credentials = "", "", "/nowhere/box.creds"
		wantIn(t, refusal(t, t.TempDir(), config), "/nowhere/box.creds", "no such file")
	})
	t.Run("replicas", func(t *testing.T) {
		config := c.config(1)
		config.Replicas = 3
		wantIn(t, refusal(t, t.TempDir(), config), "make stream OWNERS", "3 replicas")
	})
	t.Run("no JetStream", func(t *testing.T) {
		plain := startCluster(t, "plain", 1, `accounts: {bare: {users: [{user: bare, password: secret}]}}`)
		config := plain.config(1)
		config.User = "bare"
		wantIn(t, refusal(t, t.TempDir(), config), "no JetStream")
	})
	t.Run("no room", func(t *testing.T) {
		small := startCluster(t, "small", 1, `jetstream: {store_dir: "`+t.TempDir()+`", max_file_store: 100MB}`)
		wantIn(t, refusal(t, t.TempDir(), small.config(1)), "no room", "spool.max_bytes")
	})
	t.Run("too old", func(t *testing.T) {
		old := forward(t, c.ports[0])
		old.change = func(text []byte) []byte {
			return []byte(strings.Replace(string(text), `"version":"2.15.2"`, `"version":"2.9.25"`, 1))
		}
		config := c.config(1)
		config.URL = old.url()
		wantIn(t, refusal(t, t.TempDir(), config), "version 2.9.25", "2.11 or newer")
	})
}

// TestForeignStreams: a stream that somebody else made otherwise is left alone.
func TestForeignStreams(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "foreign", 1)
	right := func(config Config) jetstream.StreamConfig {
		return streamConfig(config.withDefaults(0), "readings", streamReadings)
	}
	for i, one := range []struct {
		what   string
		change func(*jetstream.StreamConfig)
		want   []string
	}{
		{"subjects", func(s *jetstream.StreamConfig) { s.Subjects = []string{"telemetry.>"} }, []string{"subjects is [telemetry.>] and must be [readings.*]"}},
		{"retention", func(s *jetstream.StreamConfig) { s.Retention = jetstream.WorkQueuePolicy }, []string{"retention is WorkQueue and must be Limits"}},
		{"storage", func(s *jetstream.StreamConfig) { s.Storage = jetstream.MemoryStorage }, []string{"storage is Memory and must be File"}},
		{"bounds", func(s *jetstream.StreamConfig) { s.MaxBytes = 1 << 20 }, []string{"max_bytes is 1048576", "spool.max_bytes"}},
		{"direct", func(s *jetstream.StreamConfig) { s.AllowDirect = true }, []string{"allow_direct is true"}},
		{"overlap", func(s *jetstream.StreamConfig) { s.Name = "OTHER" }, []string{"make stream READINGS", "overlap"}},
		{"same", func(*jetstream.StreamConfig) {}, nil},
	} {
		t.Run(one.what, func(t *testing.T) {
			config := c.config(i)
			js := direct(t, c, i)
			made := right(config)
			one.change(&made)
			if _, err := js.CreateStream(soon(t), made); err != nil {
				t.Fatal(err)
			}
			if one.want == nil {
				put(t, open(t, t.TempDir(), at(config)), river("a", 1))
				return
			}
			wantIn(t, refusal(t, t.TempDir(), config), one.want...)
			stream, err := js.Stream(soon(t), made.Name)
			if err != nil {
				t.Fatal(err)
			}
			if d := append(disagreement(stream.CachedInfo().Config, made), boundsDiffer(stream.CachedInfo().Config, made)...); len(d) > 0 {
				t.Errorf("the stream was changed: %q", d)
			}
		})
	}
}

// TestBoundsFollow: the bounds of a stream that is ours follow the configuration,
// and what an operator set besides stays; other replicas are refused.
func TestBoundsFollow(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "bounds", 1)
	config, dir := c.config(0), t.TempDir()
	shut(t, open(t, dir, at(config)))
	js := direct(t, c, 0)
	stream, err := js.Stream(soon(t), streamReadings)
	if err != nil {
		t.Fatal(err)
	}
	changed := stream.CachedInfo().Config
	changed.Description = "asked for by the province"
	if _, err := js.UpdateStream(soon(t), changed); err != nil {
		t.Fatal(err)
	}
	config.MaxBytes, config.Full = 128<<20, DropOldest
	shut(t, open(t, dir, at(config)))
	if stream, err = js.Stream(soon(t), streamReadings); err != nil {
		t.Fatal(err)
	}
	got := stream.CachedInfo().Config
	if got.MaxBytes != 128<<20 || got.Discard != jetstream.DiscardOld || got.Description != changed.Description {
		t.Errorf("the stream is %+v", got)
	}
	config.Replicas = 3
	wantIn(t, refusal(t, dir, config), "replicas is 1 and must be 3 (spool.replicas)")
}

// direct is JetStream in the account of a log, without the spool.
func direct(t *testing.T, c *natsCluster, n int) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(c.url(), nats.UserInfo(fmt.Sprint("log", n), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// TestWaits: Open waits for a cluster without quorum, tells why once, and goes on
// by itself.
func TestWaits(t *testing.T) {
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
	}{{ownerSubject, usurp}, {epochSubject, usurp}, {"warnings.0", []byte("{}\n")}, {objectSubject("rules"), []byte("{}")}} {
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

// A way leads from a port to another one, which may be changed.
type way struct {
	listener net.Listener
	change   func([]byte) []byte // what the server says first

	mu    sync.Mutex
	to    int // 0: nowhere
	conns []net.Conn
}

func forward(t *testing.T, to int) *way {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{listener: listener, to: to, change: func(text []byte) []byte { return text }}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { w.serve(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		w.lead(0)
		group.Wait()
	})
	return w
}

func (w *way) url() string { return "nats://" + w.listener.Addr().String() }

// lead ends all connections and leads the next ones elsewhere.
func (w *way) lead(to int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
	for _, conn := range w.conns {
		conn.Close()
	}
	w.conns = nil
}

func (w *way) serve(client net.Conn) {
	defer client.Close()
	w.mu.Lock()
	to := w.to
	if to == 0 {
		w.mu.Unlock()
		return
	}
	backend, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", to))
	if err != nil {
		w.mu.Unlock()
		return
	}
	w.conns = append(w.conns, client, backend)
	w.mu.Unlock()
	defer backend.Close()
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = io.Copy(backend, client)
		backend.Close()
	})
	first := make([]byte, 64<<10)
	n, err := backend.Read(first)
	if err == nil {
		_, err = client.Write(w.change(first[:n]))
	}
	if err == nil {
		_, _ = io.Copy(client, backend)
	}
	client.Close()
	group.Wait()
}
