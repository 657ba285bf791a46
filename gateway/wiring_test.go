package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// spoolIn opens a log in dir as a gateway does; change may be nil.
func spoolIn(t testing.TB, dir string, change func(*spool.Options)) *spool.Spool {
	t.Helper()
	o := spool.Options{Dir: dir, Followers: []string{followStore, followRules}, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	s, err := spool.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	return s
}

// shut closes a log; a second time does nothing.
func shut(t testing.TB, s *spool.Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A judge is the rules and the warnings of a gateway, without its sources, its
// store and its recipients.
type judge struct {
	t         *testing.T
	spool     *spool.Spool
	centre    *centre
	evaluator *evaluator
	log       *lockedBuffer
	end       func() // of evaluation; it may be called twice
}

// judgeOf opens the rules and the warnings of a log.
func judgeOf(t *testing.T, s *spool.Spool) *judge {
	t.Helper()
	j := &judge{t: t, spool: s, log: &lockedBuffer{}}
	var err error
	if j.centre, err = openCentre(t.Context(), s.Warnings(), nil); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(j.log, nil))
	if j.evaluator, err = openEvaluator(t.Context(), s, j.centre, nil, prometheus.NewRegistry(), logger); err != nil {
		t.Fatal(err)
	}
	return j
}

// run evaluates until the test, or end, ends it.
func (j *judge) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = j.evaluator.Run(ctx) }) // its last checkpoint may be refused
	j.end = func() { cancel(); running.Wait() }
	j.t.Cleanup(j.end)
}

// announce puts the built-in rules, or those of a configuration, in force.
func (j *judge) announce(in folder, name string, at time.Time) {
	j.t.Helper()
	_, w, err := loadConfiguration(in, name, nil)
	if err != nil {
		j.t.Fatal(err)
	}
	if err := j.evaluator.announce(j.t.Context(), "test-box", at, w.set); err != nil {
		j.t.Fatal(err)
	}
}

// level appends a level of Kim Long.
func (j *judge) level(m float64) {
	j.t.Helper()
	r := telemetry.Reading{Device: "kim-long", Site: "kim-long", Kind: "river", Time: time.Now(), Values: []telemetry.Value{{Name: "level_m", Number: m}}}
	if err := j.spool.Readings().Append(j.t.Context(), []telemetry.Reading{r}); err != nil {
		j.t.Fatal(err)
	}
}

// raised is the first step of a warning.
func raised(id string) telemetry.Transition {
	now := time.Now().UTC()
	return telemetry.Transition{Step: 1, Warning: telemetry.Warning{
		ID: id, N: 1, Rule: "flood-level", Device: "kim-long", Site: "kim-long", Kind: "river",
		State: telemetry.Active, Severity: telemetry.Severe, Start: now, At: now, Values: map[string]float64{},
	}}
}

// A leaving is the context of a client that leaves at the nth time that
// somebody asks for its end.
type leaving struct {
	context.Context
	mu   sync.Mutex
	n    int
	left chan struct{}
}

func (l *leaving) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n--; l.n == 0 {
		close(l.left)
	}
	return l.left
}

func (l *leaving) Err() error {
	select {
	case <-l.left:
		return context.Canceled
	default:
		return nil
	}
}

// oneMeaning fails when a key of the log stands for two transitions, or when
// the board is not what a restart would make of the log.
func oneMeaning(t *testing.T, c *centre, log *spool.Log[telemetry.Transition]) {
	t.Helper()
	keys := map[string]string{}
	err := log.Replay(t.Context(), func(tr telemetry.Transition) {
		means := fmt.Sprintf("%s %s %q", tr.State, tr.Severity, tr.AckedBy)
		if before, ok := keys[tr.Key()]; ok && before != means {
			t.Errorf("key %s stands for %s and for %s", tr.Key(), before, means)
		}
		keys[tr.Key()] = means
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := openCentre(t.Context(), log, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings(true) {
		if after, _ := again.Warning(w.ID); after.N != w.N || after.Severity != w.Severity || after.State != w.State {
			t.Errorf("%s is %s %s; after a restart it is %s %s", w.Key(), w.State, w.Severity, after.State, after.Severity)
		}
	}
}

// TestAbandonedAct: an operator's browser leaves while the act is written, and
// the water rises. The act and the step never get the same number.
func TestAbandonedAct(t *testing.T) {
	s := spoolIn(t, t.TempDir(), nil)
	c := judgeOf(t, s).centre
	for n := 1; n <= 4; n++ {
		step := raised(fmt.Sprint("w", n))
		if err := c.Step(t.Context(), []telemetry.Transition{step}); err != nil {
			t.Fatal(err)
		}
		gone := &leaving{Context: t.Context(), n: n, left: make(chan struct{})}
		if _, err := c.Act(gone, telemetry.Act{ID: step.ID, N: 1, Do: telemetry.Ack, By: "lan", At: time.Now()}); err != nil {
			t.Errorf("an act is given up with its browser: %v", err)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		step.Severity, step.Step, step.At = telemetry.Extreme, 2, step.At.Add(time.Minute)
		if err := c.Step(t.Context(), []telemetry.Transition{step}); err != nil {
			t.Fatal(err)
		}
	}
	oneMeaning(t, c, s.Warnings())
}

// TestUnsureAct: of a write whose outcome nobody knows, the same transition is
// written again before any other.
func TestUnsureAct(t *testing.T) {
	dir := t.TempDir()
	s := spoolIn(t, dir, nil)
	c := judgeOf(t, s).centre
	step := raised("w")
	if err := c.Step(t.Context(), []telemetry.Transition{step}); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	if _, err := c.Act(t.Context(), telemetry.Act{ID: "w", N: 1, Do: telemetry.Ack, By: "lan", At: time.Now()}); err == nil {
		t.Fatal("an act on a closed log succeeds")
	}
	s = spoolIn(t, dir, nil)
	c.log = s.Warnings()
	step.Severity, step.Step, step.At = telemetry.Extreme, 2, step.At.Add(time.Minute)
	if err := c.Step(t.Context(), []telemetry.Transition{step}); err != nil {
		t.Fatal(err)
	}
	if w, _ := c.Warning("w"); w.N != 3 || w.Severity != telemetry.Extreme {
		t.Errorf("the warning is %+v; want the act as its second transition and the rise as its third", w)
	}
	oneMeaning(t, c, s.Warnings())
}

// TestPositionBeyondLog: the disk lost the end of the log, and its numbers are
// given again. What gets them is evaluated.
func TestPositionBeyondLog(t *testing.T) {
	s := spoolIn(t, t.TempDir(), nil)
	state, err := rules.NewEngine(rules.Options{}).Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	blob := append(binary.BigEndian.AppendUint64(nil, 1000), state...)
	if err := s.SaveCheckpoint(t.Context(), followRules, blob); err != nil {
		t.Fatal(err)
	}
	j := judgeOf(t, s)
	j.run()
	j.announce(folder{}, "", time.Now())
	j.level(5)
	eventually(t, "a level of 5 m is judged", 5*time.Second, func() bool { return len(j.centre.Warnings(false)) == 1 })
	if text := j.log.String(); !strings.Contains(text, "the log ends before the rules' position") {
		t.Errorf("nobody is told: %q", text)
	}
}

// TestOrphanedWarning: without a checkpoint that can be read, the engine learns
// what it can from the log. A warning that it finds there goes on; one that it
// knows nothing of is cleared, or nobody ever would.
func TestOrphanedWarning(t *testing.T) {
	s := spoolIn(t, t.TempDir(), nil)
	first := judgeOf(t, s)
	first.run()
	first.announce(folder{}, "", time.Now())
	first.level(5)
	eventually(t, "raised", 5*time.Second, func() bool { return len(first.centre.Warnings(false)) == 1 })
	first.end()
	held := first.centre.Warnings(false)[0]
	if err := first.centre.Step(t.Context(), []telemetry.Transition{raised("orphan")}); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveCheckpoint(t.Context(), followRules, []byte("01234567 of another version")); err != nil {
		t.Fatal(err)
	}

	second := judgeOf(t, s)
	second.run()
	second.announce(folder{}, "", time.Now())
	eventually(t, "the orphan is cleared", 5*time.Second, func() bool {
		w, ok := second.centre.Warning("orphan")
		return ok && w.State == telemetry.Cleared
	})
	if w, _ := second.centre.Warning(held.ID); w.State != telemetry.Active || w.N != held.N {
		t.Errorf("the warning that the log explains was %s %s and is %s %s", held.Key(), held.State, w.Key(), w.State)
	}
	if text := second.log.String(); !strings.Contains(text, "checkpoint cannot be read") {
		t.Errorf("nobody is told: %q", text)
	}
}

// TestFailingCheckpoint: the folder of the checkpoints is full. Readings are
// evaluated all the same.
func TestFailingCheckpoint(t *testing.T) {
	s, broken := spoolIn(t, t.TempDir(), nil), spoolIn(t, t.TempDir(), nil)
	shut(t, broken)
	j := judgeOf(t, s)
	j.announce(folder{}, "", time.Now())
	j.evaluator.spool, j.evaluator.every = broken, 10*time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() {
		options := spool.FollowOptions{Name: followRules, From: 1, Manual: true}
		if err := s.Readings().Follow(ctx, options, j.evaluator.accept); err != nil {
			t.Error(err)
		}
	})
	following.Go(func() { j.evaluator.keepNowAndThen(ctx) })
	defer following.Wait()
	defer cancel()
	eventually(t, "a checkpoint fails", 5*time.Second, func() bool {
		return strings.Contains(j.log.String(), "checkpoint cannot be kept")
	})
	// What comes after the failure is what an endless retry would hold back.
	j.level(5)
	eventually(t, "a level of 5 m is judged", 2*time.Second, func() bool { return len(j.centre.Warnings(false)) == 1 })
}

// TestLastFrameGone: the log was emptied by age while the gateway was off. How
// long it was off is not known then, but the silence is its own and no
// device's.
func TestLastFrameGone(t *testing.T) {
	t.Parallel()
	g := prepare(t, "devices: devices.yaml\nrules: [rules.yaml]\nspool: {max_age: 1s}\n")
	g.write("devices.yaml", `devices:
  - {id: kim-long, kinds: [river], interval: 1m}
  - {id: phu-oc, kinds: [river], interval: 1m}
`)
	g.write("rules.yaml", `rules:
  - {name: quiet, on: river, when: silent("30m"), severity: moderate, message: {vi: im, en: quiet}}
  - {name: high, on: river, when: level_m > 3, severity: severe, message: {vi: cao, en: high}}
`)
	dir := filepath.Join(g.dir, "data", "spool")
	anHourAgo := func(o *spool.Options) {
		o.Config.MaxAge = telemetry.Duration(time.Second)
		o.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	}
	s := spoolIn(t, dir, anHourAgo)
	j := judgeOf(t, s)
	j.run()
	j.announce(folder{dir: g.dir}, "gateway.yaml", time.Now().Add(-time.Hour))
	j.level(0.5)
	eventually(t, "both are evaluated", 5*time.Second, func() bool { return j.evaluator.done.Load() == s.Readings().Last() })
	j.end()
	shut(t, s)
	eventually(t, "the last frame is gone", 5*time.Second, func() bool {
		s := spoolIn(t, dir, anHourAgo)
		defer shut(t, s)
		return s.Readings().LastReceived().IsZero()
	})

	g.start()
	g.publish(g.client("station"), "telemetry/phu-oc/river", `{"level_m":5}`)
	eventually(t, "the rules are at work", 5*time.Second, func() bool { return len(g.warnings("?state=all")) > 0 })
	for _, w := range g.warnings("?state=all") {
		if w.Rule != "high" {
			t.Errorf("%s of %s after an hour that the gateway was off", w.Rule, w.Device)
		}
	}
}

// TestUnwritableWarning is written down as lost; the engine goes on.
func TestUnwritableWarning(t *testing.T) {
	j := judgeOf(t, spoolIn(t, t.TempDir(), nil))
	giant := raised("giant")
	giant.Message.EN = strings.Repeat("x", 2*spool.MaxFrameBytes)
	var unwritable *telemetry.Rejection
	if err := j.centre.Step(t.Context(), []telemetry.Transition{giant}); !errors.As(err, &unwritable) {
		t.Fatalf("a warning that no frame holds: %v, want a rejection", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := j.evaluator.write(ctx, []telemetry.Transition{giant}); err != nil {
		t.Errorf("write: %v", err)
	}
	if err := j.centre.Step(t.Context(), []telemetry.Transition{raised("next")}); err != nil {
		t.Errorf("the next warning: %v", err)
	}
	// Those of the same frame are not lost with it.
	if err := j.evaluator.write(ctx, []telemetry.Transition{raised("before"), giant, raised("after"), giant, raised("last")}); err != nil {
		t.Errorf("write: %v", err)
	}
	for _, id := range []string{"before", "after", "last"} {
		if _, ok := j.centre.Warning(id); !ok {
			t.Errorf("warning %q is lost with the one that cannot be written", id)
		}
	}
}

// TestManyWarningsOfAFrame: when a whole coast falls silent at once, the warnings
// behind it do not wait for minutes.
func TestManyWarningsOfAFrame(t *testing.T) {
	j := judgeOf(t, spoolIn(t, t.TempDir(), func(o *spool.Options) { o.Scratch = true }))
	steps := make([]telemetry.Transition, 40_000)
	for i := range steps {
		steps[i] = raised("vessel-" + strconv.Itoa(100_000+i) + "-silent")
	}
	begin := time.Now()
	if err := j.centre.Step(t.Context(), steps); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("%d warnings are written after %s", len(steps), took)
	}
}
