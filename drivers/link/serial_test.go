//go:build linux

package link

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"haidang/drivers/link/ptytest"

	"golang.org/x/sys/unix"
)

// A pty is a serial device that the test holds the other end of.
type pty struct {
	*os.File
	path string // of the device
}

func newPty(t testing.TB) *pty {
	t.Helper()
	end, device := ptytest.Open(t)
	return &pty{File: end, path: device}
}

func (p *pty) say(t testing.TB, s string) {
	t.Helper()
	if _, err := io.WriteString(p, s); err != nil {
		t.Fatal(err)
	}
}

func dialSerial(t testing.TB, path, query string) *port {
	t.Helper()
	target, err := Parse("serial://" + path + query)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Dial(t.Context(), target, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*port)
}

// TestSerialBothWays carries every byte value, in both directions, unchanged.
func TestSerialBothWays(t *testing.T) {
	far := newPty(t)
	near := dialSerial(t, far.path, "?baud=19200")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, way := range map[string]struct {
		from io.Writer
		to   io.Reader
	}{"in": {far, near}, "out": {near, far}} {
		if _, err := way.from.Write(all); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(all))
		if _, err := io.ReadFull(way.to, got); err != nil || string(got) != string(all) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestSerialDeadlines: a deadline is kept to the millisecond, not to the
// decisecond, and a later read works.
func TestSerialDeadlines(t *testing.T) {
	far := newPty(t)
	near := dialSerial(t, far.path, "")
	buf := make([]byte, 16)
	for _, d := range []time.Duration{0, 7 * time.Millisecond, 130 * time.Millisecond} {
		began := time.Now()
		near.SetReadDeadline(began.Add(d))
		_, err := near.Read(buf)
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < d || took > d+60*time.Millisecond {
			t.Errorf("deadline of %v: %v after %v", d, err, took)
		}
	}
	far.say(t, "late")
	near.SetReadDeadline(time.Time{})
	if n, err := near.Read(buf); err != nil || string(buf[:n]) != "late" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	// A deadline set while a read waits ends it.
	failed := make(chan error, 1)
	go func() { _, err := near.Read(make([]byte, 1)); failed <- err }()
	near.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read that waited: %v", err)
	}
}

// TestSerialWriteHalts: the far side takes nothing; the write ends at its
// deadline and says how much went out, and Close is not held up.
func TestSerialWriteHalts(t *testing.T) {
	far := newPty(t)
	near := dialSerial(t, far.path, "")
	near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	big := make([]byte, 1<<20)
	n, err := near.Write(big)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(big) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	near.SetWriteDeadline(time.Time{})
	failed := make(chan error, 1)
	go func() { _, err := near.Write(big); failed <- err }()
	began := time.Now()
	if err := near.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, os.ErrClosed) {
		t.Errorf("the write that waited: %v", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("closing took %v", took)
	}
}

func TestSerialCloseEndsRead(t *testing.T) {
	near := dialSerial(t, newPty(t).path, "")
	failed := make(chan error, 1)
	go func() { _, err := near.Read(make([]byte, 1)); failed <- err }()
	near.Close()
	if err := <-failed; !errors.Is(err, os.ErrClosed) {
		t.Errorf("a read that waited: %v", err)
	}
	if err := near.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := near.Write([]byte{1}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

// TestSerialHangUp unplugs a device under an idle read: the read ends within a
// second, after what came before, and its error waits for the device.
func TestSerialHangUp(t *testing.T) {
	far := newPty(t)
	name := filepath.Join(t.TempDir(), "ttyUSB0")
	if err := os.Symlink(far.path, name); err != nil {
		t.Fatal(err)
	}
	near := dialSerial(t, name, "")
	failed := make(chan error, 1)
	go func() {
		all, err := io.ReadAll(near)
		if string(all) != "last words" {
			t.Errorf("read %q", all)
		}
		failed <- err
	}()
	far.say(t, "last words")
	waitFor(t, "reading", func() bool { // or the pty would throw them away
		return far.queued(t) == 0
	})
	os.Remove(name)
	began := time.Now()
	far.Close()
	err := <-failed
	if took := time.Since(began); took > time.Second {
		t.Errorf("noticed after %v", took)
	}
	if err == nil || !strings.Contains(err.Error(), "hung up") || !strings.Contains(err.Error(), name) {
		t.Fatalf("error %v", err)
	}
	if _, again := near.Write([]byte("x")); again == nil {
		t.Error("a write to a device that is gone")
	}
	near.Close()

	plugged := make(chan time.Time, 1)
	next := newPty(t)
	go func() {
		<-time.After(2 * lookEvery)
		plugged <- time.Now()
		if err := os.Symlink(next.path, name); err != nil {
			t.Error(err)
		}
	}()
	waitBack(t, err)
	if took := time.Since(<-plugged); took > time.Second {
		t.Errorf("its return was noticed after %v", took)
	}
	dialSerial(t, name, "")
}

// queued is how much the near side has not read.
func (p *pty) queued(t testing.TB) (n int) {
	t.Helper()
	f, err := os.OpenFile(p.path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err = unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func waitBack(t testing.TB, err error) {
	t.Helper()
	var back interface{ Wait(context.Context) error }
	if !errors.As(err, &back) {
		t.Fatalf("%v cannot be waited for", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := back.Wait(ctx); err != nil {
		t.Fatalf("waiting for the device: %v", err)
	}
}

func TestSerialMissing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ttyUSB7")
	target, err := Parse("serial://" + name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Dial(t.Context(), target, Options{})
	if !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), name) != 1 {
		t.Fatalf("error %v", err)
	}
	var back interface{ Wait(context.Context) error }
	if !errors.As(err, &back) {
		t.Fatal("a missing device cannot be waited for")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lookEvery)
	defer cancel()
	if err := back.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a missing device has come: %v", err)
	}
	far := newPty(t)
	if err := os.Symlink(far.path, name); err != nil {
		t.Fatal(err)
	}
	waitBack(t, err)
	dialSerial(t, name, "")
}

// TestSerialRefused: what is no serial device, and what another program has.
func TestSerialRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	far := newPty(t)
	first := dialSerial(t, far.path, "")
	for path, want := range map[string]string{
		file:        "it is no serial device",
		"/dev/null": "it is no serial device",
		far.path:    "another program has it open",
	} {
		target, err := Parse("serial://" + path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Dial(t.Context(), target, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || errors.As(err, new(*absence)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	first.Close()
	dialSerial(t, far.path, "").Close()
	// Nothing that we set outlives us.
	f, err := os.OpenFile(far.path, unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if excl, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGEXCL); err != nil || excl != 0 {
		t.Errorf("the device still refuses others: %d, %v", excl, err)
	}
}

// TestSerialSettings reads back what the system has been told.
func TestSerialSettings(t *testing.T) {
	for _, c := range []struct {
		query         string
		speed         uint32
		cflag, iflag  uint32
		clear, iclear uint32
	}{
		{query: "?baud=9600", speed: 9600, cflag: unix.B9600 | unix.CS8 | unix.CLOCAL | unix.CREAD, clear: unix.CSTOPB | unix.CRTSCTS, iclear: unix.INPCK | unix.IXON | unix.ICRNL},
		{query: "?baud=31250&stop=2", speed: 31250, cflag: unix.BOTHER | unix.CSTOPB},
		{query: "?baud=134", speed: 134},
		{query: "?baud=1200&data=7&parity=E", speed: 1200, iflag: unix.INPCK | unix.IGNPAR},
		{query: "?baud=250000&parity=M", speed: 250000, cflag: unix.CMSPAR | unix.PARODD, iflag: unix.INPCK},
		{query: "?parity=S", speed: 9600, cflag: unix.CMSPAR, clear: unix.PARODD},
		{query: "?flow=rtscts", speed: 9600, cflag: unix.CRTSCTS},
		{query: "?flow=xonxoff", speed: 9600, iflag: unix.IXON | unix.IXOFF},
	} {
		p := dialSerial(t, newPty(t).path, c.query)
		err := p.control(func(fd int) error {
			s, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
			if err != nil {
				return err
			}
			if s.Ospeed != c.speed || s.Cflag&c.cflag != c.cflag || s.Iflag&c.iflag != c.iflag || s.Cflag&c.clear != 0 || s.Iflag&c.iclear != 0 {
				t.Errorf("%s: speed %d, cflag %#x, iflag %#x", c.query, s.Ospeed, s.Cflag, s.Iflag)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	target, err := Parse("serial://" + newPty(t).path + "?rs485=on&rts_before=1ms")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), target, Options{}); err == nil || !strings.Contains(err.Error(), "TIOCSRS485") {
		t.Errorf("RS-485 on a device without it: %v", err)
	}
}

func TestCharTime(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"?baud=9600":                      1041666, // 10 bits
		"?baud=9600&parity=E":             1145833, // 11
		"?baud=1200&data=7&parity=E":      8333333, // 10, SDI-12
		"?baud=115200&data=8&stop=2":      95486,
		"?baud=50&data=5&parity=O&stop=2": 180 * time.Millisecond, // 9
	} {
		target, err := Parse("serial:///dev/ttyS0" + query)
		if err != nil {
			t.Fatal(err)
		}
		if got := target.Serial.CharTime(); got != want {
			t.Errorf("%s: %d ns, want %d", query, got, want)
		}
	}
}

// TestSerialLines reads lines of text as an AIS receiver sends them.
func TestSerialLines(t *testing.T) {
	far := newPty(t)
	line := open(t, "serial://"+far.path+"?baud=38400", Options{MaxLine: 20})
	r := &room{}
	ended := make(chan error, 1)
	go func() { ended <- line.Run(t.Context(), r.join) }()
	far.say(t, "!AIVDM,1\r\n!AIVDM,")
	waitFor(t, "the first line", r.heard(1))
	far.say(t, "2\r\n"+strings.Repeat("x", 100)+"\r\nlast\n")
	waitFor(t, "four lines", r.heard(4))
	far.Close()
	err := <-ended
	if err == nil || !strings.Contains(err.Error(), "hung up") || strings.Count(err.Error(), far.path) != 1 {
		t.Errorf("Run: %v", err)
	}
	if got := strings.Join(r.said, "|"); got != "!AIVDM,1|!AIVDM,2|<20>|last" || r.ended != 1 {
		t.Errorf("%s, ended %d times", got, r.ended)
	}
}

// TestSerialIdleCost: a line on which nothing happens costs no time at all.
func TestSerialIdleCost(t *testing.T) {
	far := newPty(t)
	near := dialSerial(t, far.path, "")
	near.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	_, err := near.Read(make([]byte, 1))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	if used > 100*time.Millisecond { // a busy loop would use all of it
		t.Errorf("%v of processor time in 400 ms of silence", used)
	}
}

// TestSocat has a program of its own on the other side.
func TestSocat(t *testing.T) {
	socat, err := exec.LookPath("socat")
	if err != nil {
		t.Skip("socat is not installed: .ci/peers does it")
	}
	name := filepath.Join(t.TempDir(), "ttyUSB0")
	cmd := exec.Command(socat, "PTY,raw,echo=0,link="+name, "EXEC:cat")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	waitFor(t, "a pty of socat", func() bool { _, err := os.Stat(name); return err == nil })
	near := dialSerial(t, name, "?baud=9600&data=7&parity=E")
	if _, err := near.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, err = near.Read(got)
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "hung up") || took > time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

func TestBind(t *testing.T) {
	target, err := Parse("listen://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan string, 1)
	l, err := Bind(t.Context(), target, Options{MaxPeers: 1, Refused: func(p string) { refused <- p }})
	if err != nil {
		t.Fatal(err)
	}
	call := func() Stream {
		there, err := Parse("tcp://" + l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		s, err := Dial(t.Context(), there, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	caller := call()
	s, peer, err := l.Accept(t.Context())
	if err != nil || peer == "" {
		t.Fatal(peer, err)
	}
	if _, err := caller.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 1); true {
		if _, err := s.Read(b); err != nil || b[0] != 'x' {
			t.Errorf("%q, %v", b, err)
		}
	}
	type result struct {
		s   Stream
		err error
	}
	next := make(chan result, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { s, _, err := l.Accept(ctx); next <- result{s, err} }()
	call()
	<-refused // there is room for one
	s.Close()
	call()
	if r := <-next; r.err != nil {
		t.Fatal(r.err)
	} else {
		r.s.Close()
		r.s.Close() // gives its place back once
	}
	go func() { _, _, err := l.Accept(ctx); next <- result{nil, err} }()
	cancel()
	if r := <-next; !errors.Is(r.err, context.Canceled) {
		t.Errorf("Accept after the end: %v", r.err)
	}
	if _, err := Bind(t.Context(), Target{Scheme: TCP, Address: "127.0.0.1:1"}, Options{}); err == nil {
		t.Error("bound to tcp://")
	}
	if _, err := Dial(t.Context(), target, Options{}); err == nil {
		t.Error("dialled listen://")
	}
}

// BenchmarkSerialRoundTrip sends a Modbus-sized request over a pseudo-terminal
// and reads its answer.
func BenchmarkSerialRoundTrip(b *testing.B) {
	far := newPty(b)
	near := dialSerial(b, far.path, "?baud=115200")
	go func() {
		buf := make([]byte, 64)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			if _, err := far.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	request, answer := make([]byte, 8), make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		near.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := near.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(near, answer); err != nil {
			b.Fatal(err)
		}
	}
}
