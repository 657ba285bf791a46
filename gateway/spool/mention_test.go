package spool

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// damaged puts a frame that is not ours between those of the log.
func damaged(t *testing.T, s *Spool) {
	t.Helper()
	if _, err := s.current().append.Publish(soon(t), "readings.0", []byte("from elsewhere")); err != nil {
		t.Fatal(err)
	}
}

// TestLettersAreRefusedForAWhile: the disk has no room even for the dead letter
// of a frame that cannot be read. The follower does not end; with room the
// letter is kept, and what comes behind it is delivered.
func TestLettersAreRefusedForAWhile(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, river("a", 1))
	damaged(t, s)
	put(t, s, river("a", 3))
	s.letters.core.lowDisk.Store(true)
	c := collect(t, s, FollowOptions{Name: "rules"})
	refused := s.metrics.refused.WithLabelValues("dead_letters", "disk")
	until(t, "a dead letter is refused", func() bool {
		s.letters.core.lowDisk.Store(true) // the room judges every two seconds
		return testutil.ToFloat64(refused) > 0
	})
	select {
	case err := <-c.err:
		t.Fatalf("the follower ended: %v", err)
	default:
	}
	s.letters.core.lowDisk.Store(false)
	c.wants(t, 1, 3)
	if d := lettersOf(t, s, 1)[0]; d.Place != "readings 2" {
		t.Errorf("dead letter %+v, want that of frame 2", d)
	}
	c.stop(t)
}

// A blackboard is what the program says, for several goroutines.
type blackboard struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *blackboard) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *blackboard) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestLettersAreRefusedForGood: readings that can be used do not wait for ever
// for a dead letter that cannot be kept; the log of the program has it.
func TestLettersAreRefusedForGood(t *testing.T) {
	var said blackboard
	s := open(t, t.TempDir(), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
	damaged(t, s)
	put(t, s, river("a", 2))
	c := collect(t, s, FollowOptions{Name: "rules"})
	until(t, "the reading behind the damage came", func() bool {
		s.letters.core.lowDisk.Store(true)
		return len(c.got()) == 1
	})
	c.stop(t)
	if text := said.String(); !strings.Contains(text, "a dead letter cannot be kept") || !strings.Contains(text, `place="readings 1"`) {
		t.Errorf("the program says %q, want the place of what was lost", text)
	}
}

// TestReplayEndsAtBadFrame: the newest frame of a log, or both its newest, are
// damaged. Everything before is read, and the reading ends.
func TestReplayEndsAtBadFrame(t *testing.T) {
	for name, bad := range map[string][]string{
		"undecodable lines":           {"{not json\n"},
		"no header":                   {""},
		"no header, then undecodable": {"", "{not json\n"},
		"undecodable, then no header": {"{not json\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if err := s.Warnings().Append(soon(t), []telemetry.Transition{{Warning: telemetry.Warning{ID: "w", N: 1}}}); err != nil {
				t.Fatal(err)
			}
			for _, lines := range bad {
				if lines == "" {
					if _, err := s.current().append.Publish(soon(t), "warnings.0", []byte("from elsewhere")); err != nil {
						t.Fatal(err)
					}
					continue
				}
				f := &pending{lines: []byte(lines), header: "1 5 1 0"}
				if _, err := s.current().append.PublishMsg(soon(t), s.warnings.core.message(f)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			n := 0
			if err := s.Warnings().Replay(ctx, func(telemetry.Transition) { n++ }); err != nil || n != 1 {
				t.Errorf("%d transitions read, want 1: %v", n, err)
			}
			if ctx.Err() != nil {
				t.Error("it waits for what comes behind the damage")
			}
		})
	}
}

// TestFollowFromBeyond: a follower that keeps its own position had read frames
// that the log has lost. It gets those that are given their numbers.
func TestFollowFromBeyond(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, river("a", 1))
	c := collect(t, s, FollowOptions{Name: "rules", From: 1000, Manual: true})
	until(t, "it follows", func() bool { return s.Readings().Lag("rules") == 0 })
	put(t, s, river("a", 2))
	c.wants(t, 2)
	c.stop(t)
}
