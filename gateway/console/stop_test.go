package console

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestOccupiedPort(t *testing.T) {
	c, base, _ := start(t, newDesk().sources())
	address := strings.TrimPrefix(base, "http://")
	_, err := New(Config{Listen: address}, newDesk().sources(), prometheus.NewRegistry(), slog.Default())
	want := fmt.Sprintf("console.listen: %s is in use by another program: stop it or choose another port", c.Addr())
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestCloseWithoutRun(t *testing.T) {
	c, err := New(Config{Listen: "127.0.0.1:0"}, newDesk().sources(), prometheus.NewRegistry(), slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := net.Listen("tcp", c.Addr().String())
	if err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	again.Close()
}

// Stopping ends open streams at once and lets a request under way finish.
func TestStop(t *testing.T) {
	sources := newDesk().sources()
	entered, leave := make(chan struct{}), make(chan struct{})
	sources.Rules = func() any { close(entered); <-leave; return []int{7} }
	c, err := New(Config{Listen: "127.0.0.1:0"}, sources, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + c.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- c.Run(ctx) }()
	stream, err := http.Get(base + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	answer := make(chan string, 1)
	go func() {
		_, _, body := call(t, "GET", base+"/api/v1/rules", "")
		answer <- body
	}()
	<-entered
	stop()
	if _, err := io.Copy(io.Discard, stream.Body); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	close(leave)
	if body := <-answer; !strings.Contains(body, "[7]") {
		t.Errorf("the request under way was answered %q", body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := boundListener(inner, 1)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	for range 2 {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("a second connection was accepted")
	default:
	}
	if len(l.slots) != 1 {
		t.Fatalf("%d slots taken, want 1", len(l.slots))
	}
	first.Close()
	first.Close() // twice makes room once
	second := <-accepted
	l.Close() // while Accept waits for room
	if _, more := <-accepted; more {
		t.Error("accepted after Close")
	}
	second.Close()
}
