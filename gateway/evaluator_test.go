package main

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// TestCheckpointOfAFullLog: a log that is full gets no frame until the rules'
// position gives frames free, and the position moves with the checkpoint: so that
// one is not waited for.
func TestCheckpointOfAFullLog(t *testing.T) {
	s := spoolIn(t, t.TempDir(), func(o *spool.Options) {
		o.Config = spool.Config{MaxBytes: 4 << 20}
		o.Followers = []string{followRules}
	})
	j := judgeOf(t, s)
	j.evaluator.every = time.Hour // never by itself
	padded := []telemetry.Reading{{Device: "d", Kind: "k", Site: "d", Time: time.Unix(1, 0), Values: []telemetry.Value{{Name: "n", Number: 1}, {Name: "word", Text: strings.Repeat("x", 16000)}}}}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	full := false
	for deadline := time.Now().Add(patient(30 * time.Second)); time.Now().Before(deadline); {
		err := s.Readings().Append(ctx, padded)
		switch {
		case errors.Is(err, spool.ErrFull):
			if !full {
				full = true
				evaluating := make(chan error, 1)
				run, end := context.WithCancel(ctx)
				go func() { evaluating <- j.evaluator.Run(run) }()
				defer func() {
					end()
					if err := <-evaluating; err != nil {
						t.Error(err)
					}
				}()
			}
			<-time.After(20 * time.Millisecond)
		case err != nil:
			t.Fatal(err)
		case full:
			return // it has room again
		}
	}
	t.Errorf("full: %v; the log does not get room again, though all of it is evaluated", full)
}

// TestStopWhileLearning: the engine has lost its state and learns it again from the
// log. A gateway that stops before that is done clears what nobody knows any more
// all the same, in its next life.
func TestStopWhileLearning(t *testing.T) {
	s := spoolIn(t, t.TempDir(), nil)
	j := judgeOf(t, s)
	if err := j.centre.Step(t.Context(), []telemetry.Transition{raised("of-a-lost-state")}); err != nil {
		t.Fatal(err)
	}
	j.announce(folder{}, "", time.Now())
	j.level(0.1)

	j = judgeOf(t, s)
	ctx, stop := context.WithCancel(t.Context())
	err := s.Readings().Follow(ctx, spool.FollowOptions{From: 1, MaxFrames: 1}, func(ctx context.Context, b *spool.Batch[telemetry.Reading]) error {
		defer stop()
		return j.evaluator.accept(ctx, b)
	})
	if err := errors.Join(err, j.evaluator.keep(t.Context())); err != nil {
		t.Fatal(err)
	}

	j = judgeOf(t, s)
	if len(j.centre.Warnings(false)) != 1 {
		t.Fatalf("%+v: the test shows nothing", j.centre.Warnings(true))
	}
	if j.evaluator.position == 0 {
		t.Error("what was learned is learned again from the start of the log")
	}
	j.run()
	j.level(0.1)
	eventually(t, "cleared", 5*time.Second, func() bool { return len(j.centre.Warnings(false)) == 0 })
}

// TestComesFurther: a gateway that is killed long before its next checkpoint is due
// goes on from one that was kept because it had come far.
func TestComesFurther(t *testing.T) {
	s := spoolIn(t, t.TempDir(), nil)
	j := judgeOf(t, s)
	j.evaluator.far = 3
	j.announce(folder{}, "", time.Now())
	j.run()
	for range 5 {
		j.level(0.1)
	}
	eventually(t, "a checkpoint is kept", checkpointEvery/2, func() bool {
		blob, err := s.LoadCheckpoint(t.Context(), followRules)
		return err == nil && len(blob) > checkpointHead && binary.BigEndian.Uint64(blob)&^learningBit > 3
	})
}

// TestRefusedIsNotSilent: while the disk is full nothing is received, and no station
// is silent for that.
func TestRefusedIsNotSilent(t *testing.T) {
	for _, ticks := range []bool{true, false} {
		g := prepare(t, "rules: [rules.yaml]\n")
		g.write("rules.yaml", `rules:
  - {name: quiet, on: river, when: silent("30m"), severity: moderate, message: {vi: im, en: quiet}}
`)
		start := time.Now().Add(-3 * time.Hour)
		var later atomic.Int64 // ns
		s := spoolIn(t, t.TempDir(), func(o *spool.Options) {
			o.Now = func() time.Time { return start.Add(time.Duration(later.Load())) }
		})
		j := judgeOf(t, s)
		j.evaluator.ticks = ticks
		j.announce(folder{dir: g.dir}, "gateway.yaml", start)
		j.run()
		j.level(0.5)
		later.Store(int64(2 * time.Hour))
		j.level(0.5)
		eventually(t, "all is evaluated", 5*time.Second, func() bool { return j.evaluator.done.Load() == s.Readings().Last() })
		if got := j.centre.Warnings(true); (len(got) == 0) != ticks {
			t.Errorf("ticks %v: %+v", ticks, got)
		}
		j.end()
	}
}
