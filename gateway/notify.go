package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"
)

// A notifier tells the service manager how the gateway is, as sd_notify(3) does:
// datagrams of assignments to the socket that NOTIFY_SOCKET names.
type notifier struct {
	conn  net.Conn
	every time.Duration // between two signs of life; 0: none are expected
}

// newNotifier returns nil where no service manager listens.
func newNotifier(logger *slog.Logger) *notifier {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", address) // a leading @ is an abstract socket
	if err != nil {
		logger.Warn("the service manager cannot be told how the gateway is", "error", err)
		return nil
	}
	n := &notifier{conn: conn}
	// sd_watchdog_enabled(3): the time is for the process that WATCHDOG_PID names.
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && us > 0 {
			n.every = time.Duration(us) * time.Microsecond / 2
		}
	}
	return n
}

// run tells that the gateway is ready, then at intervals that it lives while
// alive returns, and at the end of ctx that it stops.
func (n *notifier) run(ctx context.Context, ready <-chan struct{}, alive func()) error {
	defer n.conn.Close()
	select {
	case <-ready:
		n.tell("READY=1\nSTATUS=" + fmt.Sprintf("haidang %s takes readings", version))
	case <-ctx.Done():
	}
	if n.every > 0 {
		for wait(ctx, n.every) {
			alive() // blocks where the gateway is stuck
			n.tell("WATCHDOG=1")
		}
	}
	<-ctx.Done()
	n.tell("STOPPING=1")
	return nil
}

// tell sends one datagram. A service manager that does not listen is no fault of
// ours, and there is nobody to tell.
func (n *notifier) tell(text string) { _, _ = n.conn.Write([]byte(text)) }
