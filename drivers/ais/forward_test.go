package ais

import (
	"fmt"
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

// TestForwardInACircle: two receivers forward to each other. What goes round
// comes to rest, also in several parts, and is counted; what is new passes.
func TestForwardInACircle(t *testing.T) {
	first, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{}
	other := "udp://" + first.LocalAddr().String()
	one, _, stop := running(t, Config{Name: "one", Connect: "udp://127.0.0.1:0", Forward: []string{other}}, k)
	here := "udp://" + address(t, one)
	first.Close()
	two, _, stopTwo := running(t, Config{Name: "two", Connect: other, Forward: []string{here}}, k)
	address(t, two)
	c, err := net.Dial("udp", address(t, one))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	part, rest := static(574000001, "AN BINH", "3", "A")
	sent := []string{strings.TrimSpace(oneBoat), part, rest}
	for _, line := range sent {
		if _, err := c.Write([]byte(line + "\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	looped := func(r *Receiver, to string) float64 {
		return testutil.ToFloat64(r.m.forwardDropped.WithLabelValues(to, "looped"))
	}
	waitFor(t, "each sentence to be held back once", func() bool {
		return looped(one, other)+looped(two, here) >= float64(len(sent))
	})
	for _, stop := range []func() error{stop, stopTwo} {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if n := looped(one, other) + looped(two, here); n != float64(len(sent)) {
		t.Errorf("%v held back, want %d: each of them once, and then it is at rest", n, len(sent))
	}
}

func TestRounds(t *testing.T) {
	r, now := newRounds(), time.Unix(1e9, 0)
	passes := func(sentence string) bool {
		looped, _ := r.again([]byte(sentence), now)
		return !looped
	}
	for i := range maxRounds {
		if !passes("!AIVDM,1,1,,A,x,0*00") {
			t.Errorf("held back after %d", i)
		}
	}
	if _, news := r.again([]byte("!AIVDM,1,1,,A,x,0*00"), now); !news {
		t.Error("a circle is not told")
	}
	if _, news := r.again([]byte("!AIVDM,1,1,,A,x,0*00"), now); news {
		t.Error("it is told twice")
	}
	if !passes("!AIVDM,1,1,,A,y,0*00") {
		t.Error("another sentence is held back")
	}
	now = now.Add(roundTime)
	if !passes("!AIVDM,1,1,,A,x,0*00") {
		t.Error("it is held back for ever")
	}
	for i := range 2 * maxRounds { // the second parts of many vessels are alike
		if !passes(fmt.Sprintf("!AIVDM,2,1,3,A,%d,0*00", i)) || !passes("!AIVDM,2,2,3,A,88888888880,2*00") {
			t.Errorf("vessel %d is held back", i)
		}
	}
}
