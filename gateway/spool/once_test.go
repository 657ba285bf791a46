package spool

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// once appends a reading under an id and returns what came of it.
func once(s *Spool, partition int, id string, level float64) error {
	done := make(chan error, 1)
	s.ReadingsOf(partition).AppendOnce(id, []telemetry.Reading{river("a", level)}, func(err error) { done <- err })
	return <-done
}

func levelsOf(t *testing.T, s *Spool, partition int) (out []float64) {
	t.Helper()
	err := s.ReadingsOf(partition).Replay(soon(t), func(r telemetry.Reading) {
		level, _ := r.Number("level_m")
		out = append(out, level)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAppendOnce: of the frames of one id a partition of a cluster takes the first,
// whoever appends it, and tells the others where it is; nothing else is in it.
func TestAppendOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "once", 1)
	config := c.inParts(0, 2)
	first, second := open(t, t.TempDir(), as(config, Part{Role: RoleIOC})), open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
	var group sync.WaitGroup
	for n := range 20 { // beside what is appended otherwise
		group.Add(2)
		done := func(err error) {
			if err != nil {
				t.Error(err)
			}
			group.Done()
		}
		first.ReadingsOf(0).AppendAsync([]telemetry.Reading{river("b", 100)}, done)
		first.ReadingsOf(0).AppendOnce(fmt.Sprint("id", n), []telemetry.Reading{river("a", float64(n))}, done)
	}
	group.Wait()
	for n := range 20 {
		var there *ThereError
		if err := once(second, 0, fmt.Sprint("id", n), 7); !errors.As(err, &there) {
			t.Fatalf("a second frame of id%d: %v, want a ThereError", n, err)
		}
		m, err := second.ReadingsOf(0).core.ask(soon(t), second.current(), there.Seq)
		if err != nil || m.Header.Get("Nats-Msg-Id") != fmt.Sprint("id", n) {
			t.Errorf("frame %d is not that of id%d: %v", there.Seq, n, err)
		}
		head, err := parseHead(m.Header)
		if err != nil || head.count != 1 {
			t.Errorf("%d lines in the frame of id%d, want 1: %v", head.count, n, err)
		}
	}
	if err := second.Health(); err != nil {
		t.Error(err)
	}
	if err := once(second, 1, "id0", 7); err != nil {
		t.Errorf("an id counts in its partition only: %v", err)
	}
	if got := levelsOf(t, first, 0); len(got) != 40 {
		t.Errorf("%d readings, want 40: %v", len(got), got)
	}
}

// TestAppendOnceEmbedded: an embedded log has one writer, who may do as he likes.
func TestAppendOnceEmbedded(t *testing.T) {
	t.Parallel()
	if os.Getenv(overCluster) != "" {
		t.Skip("the log is in a cluster")
	}
	s := open(t, t.TempDir())
	for range 2 {
		if err := once(s, 0, "id", 1); err != nil {
			t.Fatal(err)
		}
	}
	if got := levelsOf(t, s, 0); len(got) != 2 {
		t.Errorf("%d readings, want 2", len(got))
	}
}

// TestLeaseOfReadings: who was cut off for longer than its lease lives brings no
// readings into the log any more, not even when it is connected again.
func TestLeaseOfReadings(t *testing.T) {
	t.Parallel()
	for _, part := range []Part{{Role: RoleIOC}, {}} {
		t.Run(part.String(), func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, "lease-of-readings-"+part.String(), 1)
			config := c.inParts(0, 1)
			way := forward(t, c.ports[0])
			cut := config
			cut.URL = way.url()
			brief := func(o *Options) { o.leaseLife = 3 * time.Second }
			first := open(t, t.TempDir(), as(cut, part, brief))
			if err := once(first, 0, "one", 1); err != nil {
				t.Fatal(err)
			}
			way.lead(0)
			second := open(t, t.TempDir(), as(config, part, brief))
			way.lead(c.ports[0])
			if err := once(first, 0, "two", 2); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrTaken) {
				t.Errorf("the first appends: %v, want ErrUnavailable and ErrTaken", err)
			}
			if got := levelsOf(t, second, 0); !slices.Equal(got, []float64{1}) {
				t.Errorf("the log has %v, want 1", got)
			}
		})
	}
}
