package spool

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// copyOf writes a snapshot of the log to a folder of its own.
func copyOf(t *testing.T, s *Spool) string {
	t.Helper()
	dir := t.TempDir()
	err := s.Snapshot(func(name string, content io.ReadCloser, size int64) {
		defer content.Close()
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Error(err)
			return
		}
		file, err := os.Create(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer file.Close()
		if _, err := io.CopyN(file, content, size); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSnapshot: a log opened on a snapshot that was taken while others append has
// all that was acknowledged before it, its positions and its checkpoints.
func TestSnapshot(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	reading := func(n int) []telemetry.Reading {
		return []telemetry.Reading{{Device: "d", Kind: "k", Time: time.Unix(0, int64(n)), Values: []telemetry.Value{{Name: "n", Number: float64(n)}}}}
	}
	acked := make(chan int, 1)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; ; n++ {
			if err := s.Readings().Append(ctx, reading(n)); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-acked: // only the newest counts
			default:
			}
			acked <- n
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for range 3 {
		before := 0
		for before < 20 {
			before = <-acked
		}
		if err := s.SaveCheckpoint(ctx, "c", []byte("state")); err != nil {
			t.Fatal(err)
		}
		dir := copyOf(t, s)
		other, err := Open(ctx, Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if last := other.Readings().Last(); last < uint64(before) {
			t.Errorf("the copy ends at %d, %d was acknowledged before", last, before)
		}
		if state, err := other.LoadCheckpoint(ctx, "c"); err != nil || string(state) != "state" {
			t.Errorf("checkpoint %q, %v", state, err)
		}
		next := 1
		follow, end := context.WithCancel(ctx)
		err = other.Readings().Follow(follow, FollowOptions{}, func(_ context.Context, b *Batch[telemetry.Reading]) error {
			records, err := b.Records()
			for _, r := range records {
				if n, _ := r.Number("n"); int(n) != next {
					t.Errorf("reading %v in place of %d", n, next)
				}
				next++
			}
			if b.Last() >= other.Readings().Last() {
				end()
			}
			return err
		})
		end()
		if err != nil || next <= before {
			t.Errorf("read up to %d of %d: %v", next-1, before, err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
}

// TestPace: appending waits for the paced follower while it is behind, but no
// frame for long.
func TestPace(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Open(ctx, Options{Dir: t.TempDir(), Paced: "rules"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	one := []telemetry.Reading{{Device: "d", Kind: "k", Time: time.Unix(1, 0), Values: []telemetry.Value{{Name: "n"}}}}
	release, held := make(chan struct{}), make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Readings().Follow(ctx, FollowOptions{Name: "rules", MaxFrames: 1}, func(ctx context.Context, b *Batch[telemetry.Reading]) error {
			if b.First() == 1 {
				return nil
			}
			select {
			case held <- struct{}{}:
			default:
			}
			select {
			case <-release:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}()
	append := func() time.Duration {
		begin := time.Now()
		if err := s.Readings().Append(ctx, one); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	append()
	append()
	<-held
	// From here on the follower is behind; log time has to show it.
	for begin := time.Now(); time.Since(begin) < 2*paceLag; {
		append()
	}
	if took := append(); took < paceWait*9/10 { // the wait may have begun before the clock was read here
		t.Errorf("an append beside a follower that is behind took %v, want %v", took, paceWait)
	} else if took > 20*paceWait {
		t.Errorf("an append waited %v for a follower that stands still", took)
	}
	close(release)
	for deadline := time.Now().Add(5 * time.Second); s.Readings().Lag("rules") > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the follower does not catch up")
		}
		append()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
