package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

func warned(n int) []telemetry.Transition {
	return []telemetry.Transition{{Warning: telemetry.Warning{ID: "w", N: n, At: noon}}}
}

// warnings are the numbers in the warnings log.
func numbersOfWarnings(t *testing.T, s *Spool) (numbers []int) {
	t.Helper()
	if err := s.Warnings().Replay(soon(t), func(w telemetry.Transition) { numbers = append(numbers, w.N) }); err != nil {
		t.Fatal(err)
	}
	return numbers
}

// followed is the log that a part follows, without the type of its records.
func followed(s *Spool) *core {
	switch s.options.Part.Role {
	case RoleIOC:
		return s.steps.core
	case RolePost:
		return s.warnings.core
	}
	return s.readings.core
}

// fillFollowed puts ten frames where a part reads.
func fillFollowed(t *testing.T, config Config, part Part) {
	t.Helper()
	if part.Role == RoleIOC {
		s := open(t, t.TempDir(), as(config, Part{Role: RoleRules}))
		for n := range 10 {
			if err := s.Steps().Append(soon(t), warned(n+1)); err != nil {
				t.Fatal(err)
			}
		}
		shut(t, s)
		return
	}
	if part.Role == RolePost {
		s := open(t, t.TempDir(), as(config, Part{Role: RoleIOC}))
		for n := range 10 {
			if err := s.Warnings().Append(soon(t), warned(n+1)); err != nil {
				t.Fatal(err)
			}
		}
		shut(t, s)
		return
	}
	s := open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
	for n := range 10 {
		if err := s.ReadingsOf(part.Partition).Append(soon(t), []telemetry.Reading{river("a", float64(n))}); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, s)
}

// work does with a part what only its owner may: a position, a checkpoint, and of
// the centre a warning. Who tells recipients notes that.
func work(ctx context.Context, s *Spool, n int) error {
	c := followed(s)
	s.positions.move(followerKey{c.name, "one"}, uint64(n), 0)
	err := errors.Join(s.positions.store(ctx), s.SaveCheckpoint(ctx, "state", []byte(strconv.Itoa(n))))
	if s.options.Part.Role == RoleIOC {
		err = errors.Join(err, s.Warnings().Append(ctx, warned(n)))
	}
	if s.options.Part.Role == RolePost {
		err = errors.Join(err, s.Attempts().Append(ctx, []telemetry.Attempt{{ID: "w", N: n}}))
	}
	return err
}

// worked wants that work has come to n, and that nobody else has done any.
func worked(t *testing.T, s *Spool, n int) {
	t.Helper()
	c := followed(s)
	kv, err := s.current().append.KeyValue(soon(t), bucketKV)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(soon(t), c.name+".one")
	if err != nil || string(entry.Value()) != strconv.Itoa(n) {
		t.Errorf("%s: the position is %v, %v; want %d", s.options.Part, entry, err, n)
	}
	if blob, err := s.LoadCheckpoint(soon(t), "state"); err != nil || string(blob) != strconv.Itoa(n) {
		t.Errorf("%s: the checkpoint is %q, %v; want %d", s.options.Part, blob, err, n)
	}
	if s.options.Part.Role == RoleIOC {
		if numbers := numbersOfWarnings(t, s); len(numbers) == 0 || numbers[len(numbers)-1] != n {
			t.Errorf("the warnings are %v, want %d at the end", numbers, n)
		}
	}
	if s.options.Part.Role == RolePost {
		last := telemetry.Attempt{}
		if err := s.Attempts().Replay(soon(t), func(a telemetry.Attempt) { last = a }); err != nil || last.N != n {
			t.Errorf("the newest attempt is %+v, %v, want that of transition %d", last, err, n)
		}
	}
}

var owned = []Part{{RoleRules, 1}, {RoleStore, 1}, {Role: RoleIOC}, {RolePost, 1}}

// TestPartTakeover: when a part's owner is cut off, another takes over within 15 s
// and goes on from what it has stored; the first writes nothing more and its
// followers end.
func TestPartTakeover(t *testing.T) {
	t.Parallel()
	for i, part := range owned {
		t.Run(part.String(), func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, "takeover"+strconv.Itoa(i), 1)
			config := c.inParts(0, 2)
			fillFollowed(t, config, part)
			way := forward(t, c.ports[0])
			cut := config
			cut.URL = way.url()
			first := open(t, t.TempDir(), as(cut, part))
			if err := work(soon(t), first, 4); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				if part.Role == RoleIOC {
					ended <- first.Steps().Follow(t.Context(), FollowOptions{Name: "two"}, func(context.Context, *Batch[telemetry.Transition]) error { return nil })
					return
				}
				ended <- first.Readings().Follow(t.Context(), FollowOptions{Name: "two"}, func(context.Context, *Batch[telemetry.Reading]) error { return nil })
			}()

			way.lead(0)
			begin := time.Now()
			second := open(t, t.TempDir(), as(config, part))
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("the second took over after %s", took)
			}
			if n := second.positions.get(followerKey{followed(second).name, "one"}).seq; n != 4 {
				t.Errorf("the second goes on from %d, want 4", n)
			}
			worked(t, second, 4)
			if err := work(soon(t), second, 6); err != nil {
				t.Fatal(err)
			}

			way.lead(c.ports[0])
			if err := <-ended; !errors.Is(err, ErrTaken) {
				t.Errorf("the follower of the first ended with %v, want ErrTaken", err)
			}
			if err := work(soon(t), first, 9); err == nil {
				t.Error("the first went on working")
			}
			worked(t, second, 6)
		})
	}
}

// TestPartStaleWriter: what an owner writes that believes in its lease though
// another has had it since is refused.
func TestPartStaleWriter(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "partstale", 1)
	for i, part := range owned {
		t.Run(part.String(), func(t *testing.T) {
			t.Parallel()
			config := c.inParts(i, 2)
			fillFollowed(t, config, part)
			s := open(t, t.TempDir(), as(config, part))
			if err := work(soon(t), s, 4); err != nil {
				t.Fatal(err)
			}
			js := direct(t, c, i)
			usurp := []byte(`{"instance": "other", "gateway": "thuan-an-box"}`)
			put := func(subject string, text []byte) {
				if _, err := js.Publish(soon(t), subject, text); err != nil {
					t.Fatal(err)
				}
			}
			put(ownerPrefix+part.String(), usurp)
			put(epochPrefix+part.String(), usurp)
			put("$KV."+bucketKV+"."+followed(s).name+".one", []byte("6"))
			put(objectSubject(s.checkpointOf("state")), []byte("{}"))
			if part.Role == RoleIOC {
				put("warnings.0", []byte("{}\n"))
			}
			s.cluster.owner.mu.Lock()
			s.cluster.owner.sent = time.Now().Add(time.Hour)
			s.cluster.owner.mu.Unlock()
			s.positions.move(followerKey{followed(s).name, "one"}, 9, 0)
			if err := s.positions.store(soon(t)); !errors.Is(err, ErrTaken) {
				t.Errorf("a stale position: %v", err)
			}
			if err := s.SaveCheckpoint(soon(t), "state", []byte("stale")); !errors.Is(err, ErrTaken) {
				t.Errorf("a stale checkpoint: %v", err)
			}
			if part.Role == RoleIOC {
				if err := s.Warnings().Append(soon(t), warned(9)); !errors.Is(err, ErrUnavailable) {
					t.Errorf("a stale warning: %v", err)
				}
			}
			for subject, want := range map[string]string{"$KV." + bucketKV + "." + followed(s).name + ".one": "6", objectSubject(s.checkpointOf("state")): "{}"} {
				stream := "KV_" + bucketKV
				if strings.HasPrefix(subject, "$O.") {
					stream = "OBJ_" + bucketObjects
				}
				at, err := js.Stream(soon(t), stream)
				if err != nil {
					t.Fatal(err)
				}
				m, err := at.GetLastMsgForSubject(soon(t), subject)
				if err != nil || string(m.Data) != want {
					t.Errorf("%s is %q, %v; want %q", subject, m.Data, err, want)
				}
			}
		})
	}
}

// TestLateWarning: a frame that an earlier owner writes after its time, before the
// new one has written any, is not passed over: the new one begins anew, at once.
func TestLateWarning(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "late", 1)
	for i, part := range []Part{{Role: RoleIOC}, {}} {
		config := c.config(i)
		option := at(config)
		if part.Role != "" {
			option = as(config, part)
		}
		s := open(t, t.TempDir(), option)
		if numbers := numbersOfWarnings(t, s); len(numbers) != 0 {
			t.Fatalf("the warnings are %v", numbers)
		}
		js := direct(t, c, i)
		late := nats.NewMsg("warnings.0")
		late.Data = []byte(`{"id": "w", "n": 1}` + "\n")
		late.Header.Set(frameHeader, "1 5 1 0")
		late.Header.Set(jetstream.MsgIDHeader, "EARLIER.7")
		if _, err := js.PublishMsg(soon(t), late); err != nil {
			t.Fatal(err)
		}
		if part.Role != "" { // that a follower has seen it makes no difference
			ctx, cancel := context.WithCancel(t.Context())
			_ = s.Warnings().Follow(ctx, FollowOptions{}, func(context.Context, *Batch[telemetry.Transition]) error { cancel(); return nil })
		}
		if err := s.Warnings().Append(soon(t), warned(1)); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "written late") {
			t.Errorf("%s: a warning beside one that is not known: %v", part, err)
		}
		if err := s.Health(); !errors.Is(err, ErrTaken) {
			t.Errorf("%s: the health is %v", part, err)
		}
		shut(t, s)
		begin := time.Now()
		s = open(t, t.TempDir(), option)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s: it was open again after %s", part, took)
		}
		if err := s.Warnings().Append(soon(t), warned(2)); err != nil {
			t.Error(err)
		}
		if numbers := numbersOfWarnings(t, s); fmt.Sprint(numbers) != "[1 2]" {
			t.Errorf("%s: the warnings are %v, want 1 and 2", part, numbers)
		}
	}
}

// TestStaleAfterFreeze stops the process that has a part (SIGSTOP) while it works, and
// lets it go on when another has taken over: it writes nothing more.
func TestStaleAfterFreeze(t *testing.T) {
	const variable = "HAIDANG_SPOOL_FROZEN"
	if where := os.Getenv(variable); where != "" {
		workForEver(t, where)
		return
	}
	slow(t)
	t.Parallel()
	for i, part := range owned {
		t.Run(part.String(), func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, "frozen"+strconv.Itoa(i), 3)
			for round := range 3 {
				config := c.inParts(round, 2)
				fillFollowed(t, config, part)
				freeze(t, config, part, round, variable)
			}
		})
	}
}

func freeze(t *testing.T, config Config, part Part, round int, variable string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStaleAfterFreeze$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %d", variable, config.URL, config.User, part.Role, part.Partition))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for n := 0; n < 20+round*7 && lines.Scan(); n++ { // somewhere in the middle of its work
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s := open(t, t.TempDir(), as(config, part))
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("%s was taken over after %s", part, took)
	}
	if err := work(soon(t), s, 9); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	last := ""
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "refused") {
			last = lines.Text()
		}
	}
	if _ = cmd.Wait(); last == "" {
		t.Errorf("%s: the frozen process did not say that it was refused", part)
	}
	worked(t, s, 9)
	shut(t, s)
}

// workForEver works on a part until it is refused.
func workForEver(t *testing.T, where string) {
	var url, user, role string
	var partition int
	if _, err := fmt.Sscan(where, &url, &user, &role, &partition); err != nil {
		t.Fatal(err)
	}
	config := Config{URL: url, Replicas: 3, User: user, Password: "secret", MaxBytes: 64 << 20, Partitions: 2}
	o := Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	as(config, Part{role, partition})(&o)
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		if err := work(t.Context(), s, n%8); err != nil {
			fmt.Println("refused:", err)
			break
		}
		fmt.Println(n)
	}
	_ = s.Close()
}

// TestNodesDieInParts ends one server after the other while two machines take
// readings for two partitions: nothing acknowledged is lost, doubled or out of
// order for those who follow them.
func TestNodesDieInParts(t *testing.T) {
	slow(t)
	t.Parallel()
	const partitions, devices = 2, 6
	c := startCluster(t, "partnodes", 3)
	config := c.inParts(0, partitions)
	var parts []*Spool
	var followers []*collector
	for p := range partitions {
		for _, role := range []string{RoleRules, RoleStore} {
			s := open(t, t.TempDir(), as(config, Part{role, p}))
			parts, followers = append(parts, s), append(followers, collect(t, s, FollowOptions{Name: role}))
		}
	}
	stop := make(chan struct{})
	sent := make([]int, devices)
	var group sync.WaitGroup
	for m := range 2 {
		s := open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
		for d := m; d < devices; d += 2 {
			group.Go(func() {
				for ; t.Context().Err() == nil; sent[d]++ {
					select {
					case <-stop:
						return
					default:
					}
					for s.Partitioned().Append(soon(t), []telemetry.Reading{numberedReading(d, sent[d]*devices+d)}) != nil {
						if t.Context().Err() != nil {
							return
						}
					}
				}
			})
		}
	}
	grown := func() {
		for i := 0; i < len(parts); i += 2 {
			end := len(followers[i].got()) + 200
			until(t, "there are 200 readings more", func() bool { return len(followers[i].got()) >= end })
		}
	}
	for i := range 3 {
		grown()
		c.end(i)
		grown()
		c.start(t, i)
		c.settled(t)
	}
	grown()
	close(stop)
	group.Wait()
	for i, follower := range followers {
		p, want := i/2, 0
		for d := range devices {
			if PartitionOf(siteOf(d), partitions) == p {
				want += sent[d]
			}
		}
		until(t, "the follower has all", func() bool { return len(follower.got()) >= want })
		next := make([]int, devices)
		for _, level := range follower.got() {
			if d := int(level) % devices; int(level)/devices == next[d] {
				next[d]++
			} else {
				t.Errorf("%s: device %d: reading %d in place of %d", parts[i].options.Part, d, int(level)/devices, next[d])
			}
		}
		if n := testutil.ToFloat64(parts[i].metrics.dropped.WithLabelValues(parts[i].readings.core.name, parts[i].options.Part.Role)); n != 0 {
			t.Errorf("%s: %v frames are told to be lost", parts[i].options.Part, n)
		}
	}
}
