package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// TestRefuse: at the bound readings are refused until followers make room.
func TestRefuse(t *testing.T) {
	s := open(t, t.TempDir(), func(o *Options) {
		o.Config.MaxBytes = 4 << 20
		o.Followers = []string{"store"}
	})
	accepted := fill(t, s, 6<<20)
	if accepted == 0 {
		t.Fatal("nothing was accepted")
	}
	if err := s.Readings().Append(soon(t), big(0)); !errors.Is(err, ErrFull) {
		t.Fatalf("at the bound: %v, want ErrFull", err)
	}
	if err := s.Health(); !errors.Is(err, ErrFull) {
		t.Errorf("health at the bound: %v, want ErrFull", err)
	}
	warning := []telemetry.Transition{{Warning: telemetry.Warning{ID: "w"}}}
	if err := s.Warnings().Append(soon(t), warning); err != nil {
		t.Errorf("a warning while the readings are full: %v", err)
	}
	c := collect(t, s, FollowOptions{Name: "store"})
	until(t, "readings are accepted again", func() bool { return s.Readings().Append(soon(t), big(0)) == nil })
	c.stop(t)
	if err := s.Health(); err != nil {
		t.Errorf("health with room: %v", err)
	}
	if n := testutil.ToFloat64(s.metrics.dropped.WithLabelValues("readings", "store")); n != 0 {
		t.Errorf("%v frames dropped, want none", n)
	}
}

func TestDropOldest(t *testing.T) {
	s := open(t, t.TempDir(), func(o *Options) {
		o.Config.MaxBytes, o.Config.Full = 4<<20, DropOldest
		o.Followers = []string{"store"}
	})
	put(t, s, river("a", 1))
	if err := s.Readings().Commit(t.Context(), "store", 1); err != nil {
		t.Fatal(err)
	}
	const bytes = 8 << 20
	if accepted := fill(t, s, bytes); accepted < bytes {
		t.Fatalf("%d of %d bytes accepted", accepted, bytes)
	}
	c := collect(t, s, FollowOptions{Name: "store"})
	until(t, "the follower is at the end", func() bool { return s.Readings().Lag("store") == 0 })
	c.stop(t)
	d := lettersOf(t, s, 1)[0]
	if d.Reason != "gap" || !strings.HasPrefix(d.Place, "readings 2-") {
		t.Errorf("dead letter %+v", d)
	}
	if n := testutil.ToFloat64(s.metrics.dropped.WithLabelValues("readings", "store")); n == 0 {
		t.Error("no dropped frame is counted")
	}
}

// big is one reading of about 100 KB.
func big(n int) []telemetry.Reading {
	r := river("big", float64(n))
	for i := range 10 {
		r.Values = append(r.Values, telemetry.Value{Name: fmt.Sprint("w", i), Text: strings.Repeat("x", 10_000)})
	}
	return []telemetry.Reading{r}
}

// fill appends until total bytes are accepted or the log is full.
func fill(t *testing.T, s *Spool, total int) (accepted int) {
	t.Helper()
	for i := 0; accepted < total; i++ {
		err := s.Readings().Append(soon(t), big(i))
		if errors.Is(err, ErrFull) {
			return accepted
		}
		if err != nil {
			t.Fatal(err)
		}
		accepted += 100_000
	}
	return accepted
}

func TestLowDisk(t *testing.T) {
	s := open(t, t.TempDir())
	s.room.judge(s.room.headroom - 1)
	err := s.Readings().Append(soon(t), []telemetry.Reading{river("a", 1)})
	if !errors.Is(err, ErrFull) {
		t.Errorf("with a full disk: %v, want ErrFull", err)
	}
	if err := s.Warnings().Append(soon(t), []telemetry.Transition{{}}); err != nil {
		t.Errorf("a warning with a nearly full disk: %v", err)
	}
	s.room.judge(s.room.headroom)
	put(t, s, river("a", 1))
}

func TestSplitAndUnwritable(t *testing.T) {
	s := open(t, t.TempDir())
	var many []telemetry.Reading
	var want []float64
	for i := range 20_000 {
		many = append(many, river("a", float64(i)))
		want = append(want, float64(i))
	}
	put(t, s, many...)
	c := collect(t, s, FollowOptions{Name: "store"})
	c.wants(t, want...)
	if s.Readings().Last() < 3 {
		t.Errorf("%d frames: 1.7 MB were not split", s.Readings().Last())
	}
	giant := big(1)[0]
	giant.Values[1].Text = strings.Repeat("x", MaxFrameBytes)
	err := s.Readings().Append(soon(t), []telemetry.Reading{river("a", 1), giant, {Device: "a"}})
	var r *telemetry.Rejection
	if !errors.As(err, &r) || len(r.Records) != 2 || r.Records[0].Index != 1 || r.Records[1].Index != 2 {
		t.Errorf("got %v, want a rejection of records 1 and 2", err)
	}
	if err := s.Readings().Append(soon(t), nil); err != nil {
		t.Errorf("no records: %v", err)
	}
}

func TestStoreLines(t *testing.T) {
	s := open(t, t.TempDir())
	tick := river("gateway", 0)
	tick.Kind = telemetry.KindTick
	put(t, s, river("a", 1), tick, river("b", 2))
	ctx, cancel := context.WithCancel(soon(t))
	_ = s.Readings().Follow(ctx, FollowOptions{}, func(_ context.Context, b *Batch[telemetry.Reading]) error {
		defer cancel()
		if lines := b.StoreLines(); bytes.Count(lines, []byte("\n")) != 2 || bytes.Contains(lines, []byte("_tick")) {
			t.Errorf("lines for the store:\n%s", lines)
		}
		if bytes.Count(b.Lines(), []byte("\n")) != 3 {
			t.Errorf("all lines:\n%s", b.Lines())
		}
		var r *telemetry.Rejection
		if err := b.FromStore(&telemetry.Rejection{Records: []telemetry.RejectedRecord{{Index: 1}}}); !errors.As(err, &r) || r.Records[0].Index != 2 {
			t.Errorf("line 1 of the store is record 2 of the batch, got %+v", r)
		}
		return nil
	})
}

func TestCheckpoints(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if blob, err := s.LoadCheckpoint(soon(t), "rules"); blob != nil || err != nil {
		t.Errorf("before the first: %d bytes, %v", len(blob), err)
	}
	blob := make([]byte, 5<<20)
	rnd := rand.NewChaCha8([32]byte{1})
	for range 3 {
		_, _ = rnd.Read(blob)
		if err := s.SaveCheckpoint(soon(t), "rules", blob); err != nil {
			t.Fatal(err)
		}
	}
	// What a crash in the middle of saving leaves behind.
	if _, err := s.current().append.Publish(soon(t), checkpointSubject+"ORPHAN", blob[:1000]); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, dir)
	got, err := s.LoadCheckpoint(soon(t), "rules")
	if err != nil || !bytes.Equal(got, blob) {
		t.Errorf("%d bytes, %v; want the %d bytes that were saved last", len(got), err, len(blob))
	}
	if n := s.current().bytes(soon(t), "OBJ_"+bucketObjects); n > 2*(5<<20+100_000) {
		t.Errorf("the checkpoints take %d bytes: old ones are not removed", n)
	}
}

func TestSecondOpener(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(t.Context(), Options{Dir: dir})
	want := fmt.Sprintf("%s is in use by another haidang (pid %d)", dir, os.Getpid())
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestUnwritableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{Dir: filepath.Join(file, "spool")})
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want one line that names the folder", err)
	}
}

func TestServerDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err := Open(t.Context(), Options{Dir: dir})
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) || time.Since(begin) > patience/3 {
		t.Errorf("after %s: %v; want one line that names the folder, at once", time.Since(begin), err)
	}
}

// TestSilence: normal operation says nothing.
func TestSilence(t *testing.T) {
	var said bytes.Buffer
	dir := t.TempDir()
	for range 2 {
		s := open(t, dir, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
		put(t, s, river("a", 1))
		c := collect(t, s, FollowOptions{Name: "store"})
		until(t, "the reading came", func() bool { return len(c.got()) == 1 })
		if err := s.SaveCheckpoint(soon(t), "rules", []byte("x")); err != nil {
			t.Fatal(err)
		}
		c.stop(t)
		shut(t, s)
	}
	if said.Len() > 0 {
		t.Errorf("normal operation says:\n%s", said.String())
	}
}

func TestAfterClose(t *testing.T) {
	s := open(t, t.TempDir())
	shut(t, s)
	if err := s.Readings().Append(soon(t), []telemetry.Reading{river("a", 1)}); !errors.Is(err, ErrClosed) {
		t.Errorf("append: %v, want ErrClosed", err)
	}
	if err := s.Readings().Follow(t.Context(), FollowOptions{}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("follow: %v, want ErrClosed", err)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   []string
	}{
		{Config{}, nil},
		{Config{MaxBytes: 8 << 30, MaxAge: telemetry.Duration(time.Hour), Full: DropOldest, URL: "nats://a:4222,tls://b:4222", Replicas: 1}, nil},
		{Config{MaxBytes: 1000, MaxAge: 5, Full: "panic", URL: "http://x", Replicas: 9}, []string{
			"max_bytes: max_bytes 1000B is below 4MiB",
			"max_age: max_age 5ns is below 1s",
			`full: full "panic" is not one of refuse, drop_oldest`,
			"replicas: replicas 9 is not in 1..5",
			`url: url "http://x": scheme "http" is not one of nats, tls, ws, wss`,
		}},
	} {
		var got []string
		for _, f := range c.config.Validate() {
			got = append(got, f.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}
