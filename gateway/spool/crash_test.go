package spool

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// TestKill kills a process that appends as fast as it can, and finds every
// record that it had acknowledged, in order.
func TestKill(t *testing.T) {
	const variable = "HAIDANG_SPOOL_KILL_DIR"
	if dir := os.Getenv(variable); dir != "" {
		appendForEver(t, dir)
	}
	dir := t.TempDir()
	for round, next := 0, 0; round < 3; round++ {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), variable+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				continue
			}
			if acknowledged = n; n >= 3000*(round+1) {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if acknowledged < 3000 {
			t.Fatalf("the process acknowledged only %d records", acknowledged)
		}
		var said bytes.Buffer
		s := open(t, dir, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
		found := levels(t, s)
		shut(t, s)
		if text := said.String(); strings.Contains(text, "WARN") || strings.Count(text, "\n") > 1 || round > 0 && !strings.Contains(text, "level=INFO") {
			t.Errorf("round %d: a killed process is told with:\n%swant one line, of level INFO", round, text)
		}
		// Each life begins with the number of records it finds.
		for i, level := range found {
			if level != float64(i) {
				t.Fatalf("round %d: record %v in place of %d", round, level, i)
			}
		}
		if len(found) < next+acknowledged {
			t.Fatalf("round %d: %d records were there and %d acknowledged, %d are there now", round, next, acknowledged, len(found))
		}
		next = len(found)
	}
}

// appendForEver appends numbered readings and writes how many of this life are
// acknowledged.
func appendForEver(t *testing.T, dir string) {
	s := open(t, dir)
	begin := len(levels(t, s))
	var acknowledged atomic.Int64
	for i := 0; ; i++ {
		s.Readings().AppendAsync([]telemetry.Reading{river("a", float64(begin+i))}, func(err error) {
			if err == nil {
				fmt.Println(acknowledged.Add(1))
			}
		})
	}
}

// levels reads the whole log.
func levels(t *testing.T, s *Spool) (found []float64) {
	t.Helper()
	last := s.Readings().Last()
	if last == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(soon(t))
	err := s.Readings().Follow(ctx, FollowOptions{}, func(_ context.Context, b *Batch[telemetry.Reading]) error {
		records, err := b.Records()
		for i := range records {
			level, _ := records[i].Number("level_m")
			found = append(found, level)
		}
		if b.Last() == last {
			cancel()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestTornTail cuts bytes off the last block, as a power cut can: what lies
// before is there, and the log goes on.
func TestTornTail(t *testing.T) {
	for _, clean := range []bool{true, false} {
		for _, cut := range []int64{1, 100, 1000} {
			t.Run(fmt.Sprintf("clean=%t cut=%d", clean, cut), func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir)
				const frames = 50
				for i := range frames {
					put(t, s, river("a", float64(i)))
				}
				if err := s.Readings().Commit(t.Context(), "store", frames); err != nil {
					t.Fatal(err)
				}
				if err := s.positions.store(soon(t)); err != nil {
					t.Fatal(err)
				}
				torn := dir
				if clean {
					shut(t, s)
				} else {
					torn = copyOf(t, s)
				}
				blocks, err := filepath.Glob(filepath.Join(torn, "jetstream/$G/streams/READINGS/msgs/*.blk"))
				if err != nil || len(blocks) == 0 {
					t.Fatalf("no block files: %v", err)
				}
				last := blocks[len(blocks)-1]
				st, err := os.Stat(last)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(last, st.Size()-cut); err != nil {
					t.Fatal(err)
				}
				s = open(t, torn)
				records := 0
				if err := s.Readings().Replay(soon(t), func(telemetry.Reading) { records++ }); err != nil {
					t.Error(err)
				}
				if records >= frames || records < frames-int(cut/100)-1 {
					t.Errorf("%d of %d records are there after a cut of %d bytes", records, frames, cut)
				}
				put(t, s, river("a", 1000))
				found := levels(t, s)
				if len(found) > frames || len(found) < frames-int(cut/100)-1 {
					t.Errorf("%d of %d frames are there after a cut of %d bytes", len(found)-1, frames, cut)
				}
				for i, level := range found[:len(found)-1] {
					if level != float64(i) {
						t.Fatalf("frame %d holds %v", i, level)
					}
				}
				// The follower had read what is lost: it must not miss what came
				// in its place.
				collect(t, s, FollowOptions{Name: "store"}).wants(t, 1000)
			})
		}
	}
}

// TestServerDies ends the embedded server under load: the spool opens it again,
// nothing acknowledged is lost, nothing stored twice, nothing out of order.
func TestServerDies(t *testing.T) {
	s := open(t, t.TempDir())
	c := collect(t, s, FollowOptions{Name: "store"})
	const n = 2000
	results := make(chan error, n)
	var want []float64
	for i := range n {
		if i == n/2 {
			s.current().server.Shutdown()
		}
		s.Readings().AppendAsync([]telemetry.Reading{river("a", float64(i))}, func(err error) { results <- err })
		want = append(want, float64(i))
	}
	for range n {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	c.wants(t, want...)
	if r := testutil.ToFloat64(s.metrics.restarts); r != 1 {
		t.Errorf("%v restarts, want 1", r)
	}
}

// TestFailedWrite makes writes fail as a full disk does, by the limit of the
// size of a file: JetStream gives up then, and the spool opens it again.
func TestFailedWrite(t *testing.T) {
	// The limit is that of a process, so it is one of its own that has it.
	const variable = "HAIDANG_SPOOL_LIMITED"
	if os.Getenv(variable) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFailedWrite$")
		cmd.Env = append(os.Environ(), variable+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	s := open(t, t.TempDir())
	put(t, s, river("a", 0))
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = 200_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 10)
	for i := range 10 {
		s.Readings().AppendAsync(big(i), func(err error) { results <- err })
	}
	until(t, "the embedded server is opened again", func() bool { return testutil.ToFloat64(s.metrics.restarts) > 0 })
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	if found := levels(t, s); len(found) != 11 {
		t.Errorf("%d records, want each of the 11 once", len(found))
	}
}

// TestNothingIsLeft counts goroutines around a life of the spool.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	s := open(t, t.TempDir())
	put(t, s, river("a", 1))
	c := collect(t, s, FollowOptions{Name: "store"})
	c.wants(t, 1)
	shut(t, s) // ends the follower, too
	if err := <-c.err; err != nil {
		t.Error(err)
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		sleep(t.Context(), 10*time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, n, stacks[:runtime.Stack(stacks, true)])
	}
}
