package proof

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"haidang/gateway/telemetry"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func open(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func attempt(id string, n int, accepted bool) telemetry.Attempt {
	return telemetry.Attempt{ID: id, N: n, Recipient: "ioc", Via: "webhook", At: time.Unix(int64(1000+n), 0).UTC(), Accepted: accepted, Answer: "204 No Content"}
}

func of(t *testing.T, l *Log, id string) string {
	t.Helper()
	list, err := l.Of(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, a := range list {
		words = append(words, fmt.Sprintf("%d.%d %v", a.N, a.Attempt, a.Accepted))
	}
	return strings.Join(words, ", ")
}

// TestNoted attempts are there after a restart, counted, and a torn line harms
// nothing.
func TestNoted(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	for _, a := range []telemetry.Attempt{attempt("w", 1, false), attempt("w", 1, false), attempt("w", 1, true), attempt("other", 1, true), attempt("w", 2, false)} {
		l.Note(a)
	}
	const want = "1.1 false, 1.2 false, 1.3 true, 2.1 false"
	if got := of(t, l, "w"); got != want {
		t.Errorf("noted %s", got)
	}
	cancel()
	running.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	file, err := os.OpenFile(names[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"id":"w","n":9,"acc`); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	again.Note(attempt("w", 3, true))
	if got := of(t, again, "w"); got != want+", 3.1 true" {
		t.Errorf("after a restart %s", got)
	}
	if n := again.Accepted("w", "ioc"); n != 3 {
		t.Errorf("accepted up to %d, want 3", n)
	}
	if n := again.Accepted("w", "nobody"); n != 0 {
		t.Errorf("nobody has accepted %d", n)
	}
	if n := again.Accepted("other", "ioc"); n != 1 {
		t.Errorf("after a restart the other is accepted up to %d, want 1", n)
	}
}

// TestBounds: the oldest file goes first, and a long answer is cut.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	for n := 1; n <= MaxFiles; n++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%012d.jsonl", n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, fmt.Sprintf("%012d.jsonl", n)), MaxFile); err != nil {
			t.Fatal(err)
		}
	}
	l := &Log{dir: dir, turn: make(chan struct{}, 1), logger: slog.New(slog.DiscardHandler), queue: make(chan telemetry.Attempt, 1), accepted: map[pair]int{}, tries: map[pair]try{},
		number: MaxFiles, lost: prometheus.NewCounter(prometheus.CounterOpts{}),
		noted: map[bool]prometheus.Counter{true: prometheus.NewCounter(prometheus.CounterOpts{})}}
	a := attempt("w", 1, true)
	a.Answer = strings.Repeat("ễ", maxAnswer)
	l.Note(a)
	l.Note(attempt("w", 2, true)) // the queue holds one
	if got := testutil.ToFloat64(l.lost); got != 1 {
		t.Errorf("%v attempts count as lost, want 1", got)
	}
	l.flush()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	numbers, err := l.files()
	if err != nil || len(numbers) != MaxFiles || numbers[0] != 2 {
		t.Errorf("files %v, %v", numbers, err)
	}
	text, err := os.ReadFile(l.name(MaxFiles + 1))
	if err != nil || len(text) > 2*maxAnswer || !strings.Contains(string(text), "ễ...") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// TestKnownIsBounded however many warnings there are.
func TestKnownIsBounded(t *testing.T) {
	l := open(t, t.TempDir())
	for i := range maxKnown + 10 {
		l.know(&telemetry.Attempt{ID: fmt.Sprint(i), N: 1})
	}
	if len(l.accepted) != maxKnown || len(l.order) != maxKnown || l.Accepted("0", "") != 0 {
		t.Errorf("%d are known", len(l.accepted))
	}
}

// TestSince: what was accepted since a time, over a restart, the oldest first.
func TestSince(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	for run := range 2 {
		l, err := Open(dir, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			at := begin.Add(time.Duration(10*run-i) * time.Minute)
			l.Note(telemetry.Attempt{ID: fmt.Sprintf("w%d%d", run, i), N: 1, Recipient: "mail", At: at, Accepted: true})
			l.Note(telemetry.Attempt{ID: fmt.Sprintf("f%d%d", run, i), N: 1, Recipient: "mail", At: at})
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(dir, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	list, err := l.Since(t.Context(), begin.Add(-time.Minute))
	var ids []string
	for i := range list {
		ids = append(ids, list[i].ID)
	}
	if got := strings.Join(ids, " "); err != nil || got != "w01 w00 w12 w11 w10" {
		t.Errorf("%s, %v", got, err)
	}
	if list, err := l.Since(t.Context(), begin.Add(time.Hour)); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}
