package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestGiantLine writes a line that no frame holds, between two good ones: it is
// set aside, and the others are stored. Neither is sent for ever.
func TestGiantLine(t *testing.T) {
	g := prepare(t, "")
	g.start()
	words := []string{}
	for i := range 40 {
		words = append(words, fmt.Sprintf("w%d=%q", i, strings.Repeat("x", 15_000)))
	}
	body := "good,device=d v=1\nbig,device=d " + strings.Join(words, ",") + "\ngood,device=e v=2\n"
	for _, path := range []string{"/write?db=haidang", "/api/v2/write?bucket=haidang&org=o"} {
		response, err := http.Post("http://"+g.ports.influx+path, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode/100 == 5 {
			t.Errorf("%s: %s %s: the client will send it for ever", path, response.Status, answer)
		}
	}
	if n := g.metric("haidang_set_aside_total", `reason="too_large"`); n != 2 {
		t.Errorf("%v lines are set aside as too large, want one of each write", n)
	}
	eventually(t, "the neighbours are stored", 3*time.Second, func() bool {
		return len(g.rows("SELECT v FROM good WHERE device = 'd'")) == 2 && len(g.rows("SELECT v FROM good WHERE device = 'e'")) == 2
	})
}

// TestWriteWhileStarting: before its start and its rules are in the log, the
// gateway takes no readings.
func TestWriteWhileStarting(t *testing.T) {
	g := prepare(t, "")
	cfg, w, err := loadConfiguration(folder{dir: g.dir}, "gateway.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := open(t.Context(), cfg, w, mode{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := opened.close(); err != nil {
			t.Error(err)
		}
	}()
	write := func() *httptest.ResponseRecorder {
		answer := httptest.NewRecorder()
		opened.ingest().ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/write?db=haidang", strings.NewReader("good,device=d v=1\n")))
		return answer
	}
	if answer := write(); answer.Code != http.StatusServiceUnavailable || answer.Header().Get("Retry-After") == "" {
		t.Errorf("while starting: %d, Retry-After %q", answer.Code, answer.Header().Get("Retry-After"))
	}
	if n := opened.spool.Readings().Last(); n != 0 {
		t.Errorf("%d frames are in the log before the gateway's start", n)
	}
	close(opened.ready)
	if answer := write(); answer.Code != http.StatusNoContent || opened.spool.Readings().Last() != 1 {
		t.Errorf("started: %d %s, %d frames", answer.Code, answer.Body, opened.spool.Readings().Last())
	}
}

// TestManyBadLines: a body of bad lines costs no more memory than a few of them.
func TestManyBadLines(t *testing.T) {
	const lines = 50_000
	body := []byte(strings.Repeat("x\n", lines) + "good,device=d v=1\n")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	readings, bad, refused := parseLines(body, 0, nil)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if len(readings) != 1 || refused != lines || len(bad) != maxBadLines {
		t.Errorf("%d readings, %d refused, %d kept as dead letters; want 1, %d, %d", len(readings), refused, len(bad), lines, maxBadLines)
	}
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 1<<20 {
		t.Errorf("%d bad lines hold %d KiB", lines, held>>10)
	}
	runtime.KeepAlive(body)
	runtime.KeepAlive(bad)
}
