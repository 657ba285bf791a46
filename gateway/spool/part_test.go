package spool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// as makes open open a part of the log in a cluster.
func as(config Config, part Part, change ...func(*Options)) func(*Options) {
	return func(o *Options) {
		at(config)(o)
		o.Part = part
		o.Followers = []string{"store", "rules"}
		for _, f := range change {
			f(o)
		}
	}
}

// inParts is the configuration of a log of some partitions.
func (c *natsCluster) inParts(n, partitions int) Config {
	config := c.config(n)
	config.Partitions = partitions
	return config
}

// at a site, so that a device goes to another partition than its neighbours.
func siteOf(device int) string { return fmt.Sprint("site-", device) }

func numberedReading(device, n int) telemetry.Reading {
	r := river(fmt.Sprint("d", device), float64(n))
	r.Site = siteOf(device)
	return r
}

// TestPartitionOf: the partitions of sites are fixed for ever.
func TestPartitionOf(t *testing.T) {
	for _, c := range []struct {
		site       string
		partitions int
		want       int
	}{
		{"kim-long", 1, 0}, {"kim-long", 2, 1}, {"kim-long", 4, 1}, {"kim-long", 64, 61},
		{"", 64, 37}, {"huế", 8, 6}, {"site-1", 4, 0}, {"site-2", 4, 1},
	} {
		if got := PartitionOf(c.site, c.partitions); got != c.want {
			t.Errorf("partition of %q of %d: %d, want %d", c.site, c.partitions, got, c.want)
		}
	}
	device := telemetry.Reading{Device: "kim-long"}
	site := telemetry.Reading{Device: "gauge-3", Site: "kim-long"}
	if a, b := partitionOf(&device, 64), partitionOf(&site, 64); a != 61 || b != 61 {
		t.Errorf("a device without a site is in %d, one of a site of that name in %d; want 61", a, b)
	}
}

// TestManyWriters: several machines append to all partitions at once, and their
// readings come to the followers of each, in order, once.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	const partitions, machines, devices, each = 3, 3, 12, 150
	c := startCluster(t, "writers", 1)
	config := c.inParts(0, partitions)
	var followers []*collector
	var parts []*Spool
	full := func(o *Options) { o.Followers = append(o.Followers, "nobody") } // so that nothing is emptied
	for p := range partitions {
		for _, role := range []string{RoleRules, RoleStore} {
			s := open(t, t.TempDir(), as(config, Part{role, p}, full))
			parts = append(parts, s)
			followers = append(followers, collect(t, s, FollowOptions{Name: role}))
		}
	}
	var group sync.WaitGroup
	for m := range machines {
		s := open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
		for d := range devices {
			if d%machines != m {
				continue
			}
			group.Go(func() {
				for i := range each {
					if err := s.Partitioned().Append(soon(t), []telemetry.Reading{numberedReading(d, i)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	group.Wait()
	for p := range partitions {
		rules, store := parts[2*p], parts[2*p+1]
		next := map[string]int{}
		err := rules.Readings().Replay(soon(t), func(r telemetry.Reading) {
			level, _ := r.Number("level_m")
			if partitionOf(&r, partitions) != p || int(level) != next[r.Device] {
				t.Errorf("partition %d has %s %v in place of %d", p, r.Device, level, next[r.Device])
			}
			next[r.Device]++
		})
		if err != nil {
			t.Fatal(err)
		}
		all := 0
		for d := range devices {
			want := 0
			if PartitionOf(siteOf(d), partitions) == p {
				want = each
			}
			if all += want; next[fmt.Sprint("d", d)] != want {
				t.Errorf("partition %d has %d readings of device %d, want %d", p, next[fmt.Sprint("d", d)], d, want)
			}
		}
		for i, s := range []*Spool{rules, store} {
			follower := followers[2*p+i]
			until(t, "the follower has all", func() bool { return len(follower.got()) >= all })
			if n := len(slices.Compact(slices.Clone(follower.seqs))); !slices.IsSorted(follower.seqs) || n != len(follower.seqs) || uint64(n) != s.Readings().Last() {
				t.Errorf("the follower of partition %d got %d frames, %d of them different, of %d", p, len(follower.seqs), n, s.Readings().Last())
			}
		}
		if rules.Readings().Last() != store.Readings().Last() {
			t.Errorf("partition %d ends at %d and at %d", p, rules.Readings().Last(), store.Readings().Last())
		}
	}
	if last := parts[0].DeadLetters().Last(); last != 0 {
		t.Errorf("there are %d dead letters", last)
	}
}

// TestLagOfOthers: what others append shows in the lag of a follower that is at a
// standstill, and of one that has not begun.
func TestLagOfOthers(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "lag", 1)
	config := c.inParts(0, 2)
	ingest := open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
	p := PartitionOf("kim-long", 2)
	store := open(t, t.TempDir(), as(config, Part{RoleStore, p}))
	took := make(chan struct{})
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	group.Go(func() {
		err := store.Readings().Follow(ctx, FollowOptions{Name: "store", MaxFrames: 1}, func(ctx context.Context, _ *Batch[telemetry.Reading]) error {
			select {
			case took <- struct{}{}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	for i := range 100 {
		if err := ingest.Partitioned().Append(soon(t), []telemetry.Reading{river("a", float64(i))}); err != nil {
			t.Fatal(err)
		}
	}
	<-took
	until(t, "the lag is that of the stream", func() bool { return store.Readings().Lag("store") == 99 })
	rules := open(t, t.TempDir(), as(config, Part{RoleRules, p}))
	if lag := rules.Readings().Lag("rules"); lag != 100 {
		t.Errorf("a follower that has not begun lags %d frames, want 100", lag)
	}
	cancel()
	group.Wait()
}

// TestDeviceMoves: a device that goes from one machine to another keeps its order.
func TestDeviceMoves(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "moves", 1)
	config := c.inParts(0, 4)
	first, second := open(t, t.TempDir(), as(config, Part{Role: RoleIngest})), open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
	p := PartitionOf("kim-long", 4)
	follower := collect(t, open(t, t.TempDir(), as(config, Part{RoleStore, p})), FollowOptions{Name: "store"})
	var want []float64
	for i := range 40 {
		s := []*Spool{first, second}[i%2]
		if err := s.Partitioned().Append(soon(t), []telemetry.Reading{river("a", float64(i))}); err != nil {
			t.Fatal(err)
		}
		want = append(want, float64(i))
	}
	follower.wants(t, want...)
}

// TestEmptiedAcrossProcesses: a partition is emptied up to the slower of its
// followers, who are in different processes, and nobody forgets the other's
// position.
func TestEmptiedAcrossProcesses(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "emptied", 1)
	config := c.inParts(0, 2)
	p := PartitionOf("kim-long", 2)
	ingest := open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
	for i := range 30 {
		if err := ingest.Partitioned().Append(soon(t), []telemetry.Reading{river("a", float64(i))}); err != nil {
			t.Fatal(err)
		}
	}
	js := direct(t, c, 0)
	first := func() uint64 {
		stream, err := js.Stream(soon(t), readingsPlace(p, 2).stream)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.FirstSeq
	}
	rules := open(t, t.TempDir(), as(config, Part{RoleRules, p}))
	collect(t, rules, FollowOptions{Name: "rules"})
	stored := func(s *Spool, name string) func() bool {
		return func() bool {
			return s.positions.get(followerKey{readingsPlace(p, 2).name, name}).stored == 30
		}
	}
	until(t, "the position of the rules is stored", stored(rules, "rules"))
	rules.room.kick()
	until(t, "the rules have looked for the store", func() bool {
		_, looked := rules.positions.all()[followerKey{readingsPlace(p, 2).name, "store"}]
		return looked
	})
	if n := first(); n != 1 {
		t.Fatalf("without a store the log begins at %d, want 1", n)
	}
	store := open(t, t.TempDir(), as(config, Part{RoleStore, p}))
	if err := store.Readings().Commit(t.Context(), "store", 10); err != nil {
		t.Fatal(err)
	}
	until(t, "the log is emptied up to the store", func() bool { rules.room.kick(); return first() == 11 })
	shut(t, store)
	shut(t, rules)
	rules = open(t, t.TempDir(), as(config, Part{RoleRules, p}))
	store = open(t, t.TempDir(), as(config, Part{RoleStore, p}))
	if a, b := rules.Readings().Position("rules"), store.Readings().Position("store"); a != 30 || b != 10 {
		t.Errorf("the positions are %d and %d, want 30 and 10", a, b)
	}
	follower := collect(t, store, FollowOptions{Name: "store"})
	until(t, "the store has the rest", func() bool { return len(follower.got()) == 20 })
	until(t, "the log is emptied but for its last frame", func() bool { rules.room.kick(); return first() == 30 })
	if n := testutil.ToFloat64(store.metrics.dropped.WithLabelValues(readingsPlace(p, 2).name, "store")); n != 0 {
		t.Errorf("%v frames are told to be lost", n)
	}
}

// TestFullAcrossProcesses: a partition that is full refuses, which both who appends
// and the rules see; it heals when its followers have gone on.
func TestFullAcrossProcesses(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "full", 1)
	config := c.inParts(0, 2)
	config.MaxBytes = 8 << 20
	ingest := open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
	p := PartitionOf("kim-long", 2)
	rules, store := open(t, t.TempDir(), as(config, Part{RoleRules, p})), open(t, t.TempDir(), as(config, Part{RoleStore, p}))
	until(t, "it is full", func() bool {
		return errors.Is(ingest.Partitioned().Append(soon(t), big(0)), ErrFull)
	})
	other := river("b", 1)
	for i := 0; PartitionOf(other.Site, 2) == p; i++ {
		other.Site = siteOf(i)
	}
	if err := ingest.Partitioned().Append(soon(t), []telemetry.Reading{other}); err != nil {
		t.Errorf("the other partition: %v", err)
	}
	for _, s := range []*Spool{ingest, rules} {
		until(t, "the health tells", func() bool { return errors.Is(s.Health(), ErrFull) })
	}
	collect(t, rules, FollowOptions{Name: "rules"})
	collect(t, store, FollowOptions{Name: "store"})
	for _, s := range []*Spool{ingest, rules} {
		until(t, "the health is good, though nobody appends", func() bool { return s.Health() == nil })
	}
	if err := ingest.Partitioned().Append(soon(t), big(0)); err != nil {
		t.Error(err)
	}
}

// TestSteps: the steps of several engines come to the centre, and are emptied when
// it has them.
func TestSteps(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "steps", 1)
	config := c.inParts(0, 2)
	step := func(p, n int) []telemetry.Transition {
		return []telemetry.Transition{{Warning: telemetry.Warning{ID: fmt.Sprint("w", p), At: noon}, Step: n}}
	}
	ioc := open(t, t.TempDir(), as(config, Part{Role: RoleIOC}))
	for p := range 2 {
		s := open(t, t.TempDir(), as(config, Part{RoleRules, p}))
		for n := range 20 {
			if err := s.Steps().Append(soon(t), step(p, n+1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Warnings().Append(soon(t), step(p, 1)); err == nil {
			t.Error("an engine appended to the warnings")
		}
	}
	if err := ioc.Steps().Append(soon(t), step(0, 1)); err == nil {
		t.Error("the centre appended a step")
	}
	got := map[string]int{}
	ctx, cancel := context.WithCancel(t.Context())
	err := ioc.Steps().Follow(ctx, FollowOptions{Name: "centre"}, func(_ context.Context, b *Batch[telemetry.Transition]) error {
		steps, err := b.Records()
		if err != nil {
			return err
		}
		for _, s := range steps {
			if got[s.ID]++; got[s.ID] != s.Step {
				t.Errorf("step %d of %s came in place of %d", s.Step, s.ID, got[s.ID])
			}
		}
		if b.Last() == 40 {
			cancel()
		}
		return ioc.Warnings().Append(soon(t), steps)
	})
	if err != nil || got["w0"] != 20 || got["w1"] != 20 {
		t.Errorf("the centre got %v, %v", got, err)
	}
	stream, err := direct(t, c, 0).Stream(soon(t), streamSteps)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the steps are emptied but for the last frame", func() bool {
		info, err := stream.Info(soon(t))
		return err == nil && info.State.FirstSeq == 40
	})
}

// TestPartitioned: what is wrong with records is told by their place in the call,
// and then none is written; control records go everywhere.
func TestPartitioned(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "partitioned", 1)
	s := open(t, t.TempDir(), as(c.inParts(0, 4), Part{Role: RoleIngest}))
	var records []telemetry.Reading
	for d := range 12 {
		records = append(records, numberedReading(d, 0))
	}
	long := telemetry.Value{Name: "word", Text: strings.Repeat("x", MaxFrameBytes)}
	records[3].Values = append(records[3].Values, long)
	records[9].Values = append(records[9].Values, long)
	err := s.Partitioned().Append(soon(t), records)
	var rejection *telemetry.Rejection
	if !errors.As(err, &rejection) || len(rejection.Records) != 2 || rejection.Records[0].Index != 3 || rejection.Records[1].Index != 9 {
		t.Errorf("%v, want the rejection of 3 and 9", err)
	}
	ends := func() (all []uint64) {
		for p := range s.Partitions() {
			all = append(all, s.ReadingsOf(p).Last())
		}
		return all
	}
	if got := ends(); !slices.Equal(got, []uint64{0, 0, 0, 0}) {
		t.Errorf("the partitions end at %v, want that nothing was written", got)
	}
	if err := s.Partitioned().AppendAll(soon(t), []telemetry.Reading{{Device: "box", Kind: telemetry.KindControl, Time: noon, Values: []telemetry.Value{{Name: "n", Number: 1}}}}); err != nil {
		t.Fatal(err)
	}
	if got := ends(); !slices.Equal(got, []uint64{1, 1, 1, 1}) {
		t.Errorf("the partitions end at %v after a control record", got)
	}
	done := make(chan error, 2)
	s.Partitioned().AppendAsync(records[4:9], func(err error) { done <- err })
	s.Partitioned().AppendAsync(nil, func(err error) { done <- err })
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	shut(t, s)
	if err := s.Partitioned().Append(soon(t), records[:3]); !errors.Is(err, ErrClosed) {
		t.Errorf("append to a closed spool: %v", err)
	}
}
