//go:build linux

package serial

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/drivers/link/ptytest"
	"haidang/gateway/telemetry"
)

// TestPty runs over a pseudo-terminal: the device is unplugged under an idle
// read and comes back, as the supervisor would see it.
func TestPty(t *testing.T) {
	master, path := ptytest.Open(t)
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
	master, path = ptytest.Open(t)
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
