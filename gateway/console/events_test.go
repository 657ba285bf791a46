package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// openStream opens the event stream and returns its lines.
func openStream(t *testing.T, base, lastID string) (lines *bufio.Reader, status int, closeStream func()) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", base+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	transport := &http.Transport{}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(resp.Body), resp.StatusCode, func() { resp.Body.Close() }
}

// next reads one block of the stream.
func next(t *testing.T, lines *bufio.Reader) string {
	t.Helper()
	var block strings.Builder
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended with %v after %q", err, block.String())
		}
		if line == "\n" {
			return block.String()
		}
		block.WriteString(line)
	}
}

func TestEvents(t *testing.T) {
	c, base, _ := start(t, newDesk().sources())
	lines, status, closeStream := openStream(t, base, "")
	defer closeStream()
	if first := next(t, lines); status != 200 || !strings.HasPrefix(first, ":") {
		t.Fatalf("status %d, begins with %q", status, first)
	}
	var ids []string
	for n := 1; n <= 3; n++ {
		c.Notify(telemetry.Warning{ID: "a", N: n, Severity: telemetry.Severe, State: telemetry.Active, Message: telemetry.Text{VI: "dòng\nmới"}})
		block := next(t, lines)
		id, rest, _ := strings.Cut(strings.TrimPrefix(block, "id: "), "\n")
		if !strings.HasPrefix(rest, "event: warning\ndata: {") || !strings.Contains(rest, fmt.Sprintf(`"n":%d,`, n)) {
			t.Errorf("event %q", block)
		}
		ids = append(ids, id)
	}
	for lastID, want := range map[string][]string{
		ids[0]: {`"n":2,`, `"n":3,`}, ids[1]: {`"n":3,`}, "other-1": {"event: resync"}, "nonsense": {"event: resync"},
		strings.TrimSuffix(ids[2], "3") + "9": {"event: resync"},
	} {
		again, _, closeAgain := openStream(t, base, lastID)
		next(t, again)
		for _, w := range want {
			if block := next(t, again); !strings.Contains(block, w) {
				t.Errorf("after %s: %q, want %s", lastID, block, w)
			}
		}
		closeAgain()
	}
}

func TestEventsKeptAreBounded(t *testing.T) {
	h := newHub(time.Now(), prometheus.NewRegistry())
	for n := range 3 * keptEvents {
		h.notify(&telemetry.Warning{ID: "a", N: n + 1})
	}
	if len(h.kept) > keptEvents || len(h.kept) < keptEvents*3/4 {
		t.Errorf("%d kept", len(h.kept))
	}
	id := func(behind int) string { return fmt.Sprintf("%s-%d", h.epoch, int(h.last)-behind) }
	if got := string(h.since(id(keptEvents*3/4 - 1))); strings.Count(got, "data:") != keptEvents*3/4-1 {
		t.Errorf("%d events again", strings.Count(got, "data:"))
	}
	if got := string(h.since(id(keptEvents + 1))); !strings.Contains(got, "resync") {
		t.Errorf("too far back: %.40q", got)
	}
	if got := h.since(id(0)); len(got) != 0 {
		t.Errorf("nothing missed: %q", got)
	}
}

func TestSlowSubscriberIsEnded(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := newHub(time.Now(), reg)
	_, slow, err := h.subscribe("")
	if err != nil {
		t.Fatal(err)
	}
	_, quick, err := h.subscribe("")
	if err != nil {
		t.Fatal(err)
	}
	for n := range subscriberQueue + 1 {
		h.notify(&telemetry.Warning{ID: "a", N: n + 1})
		<-quick
	}
	got := 0
	for range slow { // ends: it was closed
		got++
	}
	if got != subscriberQueue {
		t.Errorf("the slow one got %d, want %d", got, subscriberQueue)
	}
	h.unsubscribe(slow)
	h.unsubscribe(quick)
	if n := testutil.ToFloat64(h.slow); n != 1 || len(h.subscribers) != 0 {
		t.Errorf("%v dropped, %d left", n, len(h.subscribers))
	}
}

func TestSubscribersAreBounded(t *testing.T) {
	h := newHub(time.Now(), prometheus.NewRegistry())
	for range maxSubscribers {
		if _, _, err := h.subscribe(""); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := h.subscribe("")
	if p, ok := errors.AsType[*problem](err); !ok || p.Status != 503 || testutil.ToFloat64(h.full) != 1 {
		t.Errorf("one more: %v", err)
	}
	h.close()
	if _, _, err := h.subscribe(""); err == nil {
		t.Error("a closed hub takes subscribers")
	}
}

// A quiet stream lives beyond the server's timeouts by its heartbeats. The
// console runs on an in-memory network and the bubble's clock.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Listen: "127.0.0.1:0"}, newDesk().sources(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		network := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		c.listener = network
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- c.Run(ctx) }()
		ours, theirs := net.Pipe()
		network.conns <- theirs
		if _, err := fmt.Fprint(ours, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		began := time.Now()
		next(t, lines)
		for range 20 {
			if block := next(t, lines); block != ": still here\n" {
				t.Fatalf("block %q", block)
			}
		}
		c.Notify(telemetry.Warning{ID: "a", N: 1})
		if block := next(t, lines); !strings.Contains(block, "event: warning") || time.Since(began) != 20*heartbeat {
			t.Errorf("after %s: %q", time.Since(began), block)
		}
		ours.Close()
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
