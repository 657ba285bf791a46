//go:build linux

package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"haidang/gateway/telemetry"
)

// TestPty runs over a pseudo-terminal: the device is unplugged under an idle
// read and comes back, as the supervisor would see it.
func TestPty(t *testing.T) {
	master, path := openPty(t)
	c := wxtConfig()
	c.Connect, c.Poll, c.Interval = "serial://"+path, "0R0!\r\n", telemetry.Duration(time.Second)
	s := newShelf()
	d, err := New(c, s, prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(t.Context()) }()
	buf := make([]byte, 64)
	if n, err := master.Read(buf); err != nil || string(buf[:n]) != c.Poll {
		t.Fatalf("polled with %q, %v", buf[:n], err)
	}
	if _, err := io.WriteString(master, wxtLine); err != nil {
		t.Fatal(err)
	}
	s.waitFor(t, wxtReading)
	began := time.Now()
	master.Close()
	err = <-ended
	if took := time.Since(began); took > time.Second || err == nil || !strings.Contains(err.Error(), "hung up") {
		t.Errorf("%v after %v", err, took)
	}
	if !errors.As(err, new(interface{ Wait(context.Context) error })) {
		t.Error("nobody can wait for its return")
	}
	if got := s.lines(); !strings.Contains(got, "wxt link cause=") || !strings.Contains(got, "tt-hue link cause=") {
		t.Errorf("got\n%s", got)
	}
	if err := d.Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the device: %v", err)
	}
	master, path = openPty(t)
	d.target.Address = path
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- d.Run(ctx) }()
	if _, err := io.WriteString(master, wxtLine); err != nil {
		t.Fatal(err)
	}
	s.waitFor(t, "up=0\nwxt link up=1\ntt-hue link up=1\n"+wxtReading)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// openPty opens a pseudo-terminal and returns its far side.
func openPty(t testing.TB) (*os.File, string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			number, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return master, fmt.Sprintf("/dev/pts/%d", number)
}
