package ais

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestForward: another program gets every good sentence, one in a datagram, and
// one that is not there is no hindrance.
func TestForward(t *testing.T) {
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "udp://" + gone.LocalAddr().String()
	gone.Close()
	to := "udp://" + other.LocalAddr().String()
	k := &keeper{}
	r, _, stop := running(t, Config{Name: "thuan-an", Connect: "udp://127.0.0.1:0", Forward: []string{to, nobody}}, k)
	c, err := net.Dial("udp", address(t, r))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	one := strings.TrimSpace(oneBoat)
	first, second := static(574000001, "AN BINH", "3", "A")
	for _, line := range []string{one, tagged("s:x", one) + ",r003669987,1133137684", "$GPZDA,114702.51,27,01,2012,,*66", one[:len(one)-2] + "00", first, second} {
		if _, err := c.Write([]byte(line + "\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 2000)
	for _, want := range []string{one, one, first, second} { // a duplicate too: who merges is the other program's matter
		if err := other.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := other.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(buf[:n]); got != want+"\r\n" {
			t.Errorf("forwarded %q, want %q", got, want)
		}
	}
	waitFor(t, "a count of what nobody took", func() bool {
		return testutil.ToFloat64(r.m.forwardDropped.WithLabelValues(nobody, "unreachable")) > 0
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := testutil.ToFloat64(r.m.forwarded.WithLabelValues(to)); n != 4 {
		t.Errorf("%v forwarded, want 4", n)
	}
	if _, others := k.texts(); len(others) != 2 {
		t.Errorf("readings %v", others)
	}
}

// TestForwardNeverWaits offers more than the queue holds while nobody sends.
func TestForwardNeverWaits(t *testing.T) {
	m := newMetrics("x", nil)
	f, err := newForward("udp://127.0.0.1:10111", m)
	if err != nil {
		t.Fatal(err)
	}
	f.running.Store(true)
	for range forwardQueue + 10 {
		f.offer([]byte(oneBoat))
	}
	if n := testutil.ToFloat64(f.full); n != 10 {
		t.Errorf("%v dropped, want 10", n)
	}
}
