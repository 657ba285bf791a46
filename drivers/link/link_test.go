package link

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"tcp://ais.example:10110", "tcp://ais.example:10110"},
		{"TCP://[::1]:10110/", "tcp://[::1]:10110"},
		{"listen://:10110", "listen://127.0.0.1:10110"},
		{"listen://0.0.0.0:0", "listen://0.0.0.0:0"},
		{"udp://:10110", "udp://127.0.0.1:10110"},
		{"file:///var/log/ais.txt.gz", "file:///var/log/ais.txt.gz"},
		{"file:///with%20space", "file:///with space"},
		{"file://ais.txt", "file://ais.txt"},
		{"", "error: is not a URL"},
		{"127.0.0.1:10110", "error: is not a URL"},
		{"serial:///dev/ttyUSB0", "serial:///dev/ttyUSB0?baud=9600"},
		{"SERIAL:///dev/serial/by-id/usb-1?baud=1200&data=7&parity=e&stop=2&flow=xonxoff", "serial:///dev/serial/by-id/usb-1?baud=1200&data=7&parity=E&stop=2&flow=xonxoff"},
		{"serial:///dev/ttyS1?rs485=on&rts_before=1ms&rts_after=20ms&rts_active=low", "serial:///dev/ttyS1?baud=9600&rs485=on&rts_before=1ms&rts_after=20ms&rts_active=low"},
		{"serial:///dev/ttyS1?baud=250000&parity=M&data=8", "serial:///dev/ttyS1?baud=250000&parity=M"},
		{"serial://dev/ttyS1", "error: names no device: want serial:///dev/name?baud=9600, with three slashes"},
		{"serial:///", "error: names no device"},
		{"serial:///dev/ttyS1?baud=%zz", "error: invalid URL escape"},
		{"serial:///dev/ttyS1?baud=fast&data=9&parity=X&stop=3&flow=maybe&rs485=1&rts_before=1us&speed=1",
			`error: baud "fast" is not in 50..12000000; data "9" is not in 5..8; parity "X" is not N, O, E, M or S; stop "3" is not in 1..2; flow "maybe" is not none, rtscts or xonxoff; rs485 "1" is not on or off; rts_before "1us" is not in whole milliseconds from 0s to 1s, as in 1ms; parameter "speed" is unknown`},
		{"serial:///dev/ttyS1?baud=1200&baud=9600", "error: baud is there twice"},
		{"serial:///dev/ttyS1?rts_after=1ms", "error: want rs485=on"},
		{"serial:///dev/ttyS1?rs485=on&flow=rtscts", "error: both want the wire RTS"},
		{"usb:///dev/ttyUSB0", "error: want tcp://host:port, listen://host:port, udp://host:port, serial:///dev/name or file:///path"},
		{"tcp://host", "error: has no host:port"},
		{"tcp://:10110", "error: names no host"},
		{"tcp://host:0", "error: not in 1..65535"},
		{"tcp://host:70000", "error: not in 1..65535"},
		{"udp://host:nmea", "error: not in 1..65535"},
		{"file://", "error: names no file"},
		{"file:///x?y", "error: names no file"},
		{"file:///%zz", "error: is not a file URL"},
	} {
		target, err := Parse(c.in)
		got := target.String()
		if err != nil {
			got = "error: " + err.Error()
		}
		want, isError := strings.CutPrefix(c.want, "error: ")
		if isError && (err == nil || !strings.Contains(got, want)) || !isError && got != want {
			t.Errorf("Parse(%q): %s, want %s", c.in, got, c.want)
		}
	}
}

// collect reads everything; a too long line is shown as its length.
func collect(r io.Reader, maxLine int) (got []string, err error) {
	l := NewLineReader(r, maxLine)
	for err == nil {
		err = l.Burst(func(b []byte) { got = append(got, string(b)) }, func(b []byte) { got = append(got, fmt.Sprintf("<%d>", len(b))) })
	}
	return got, err
}

func TestLines(t *testing.T) {
	x := strings.Repeat("x", 20)
	huge := strings.Repeat("y", 1<<20)
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"a\nb\r\n\nc", "a|b||c"},
		{"a\n", "a"},
		{x + "\n" + x + "\r\n", x + "|" + x},
		{x + "z\nb", "<20>|b"},
		{x + "z\r\nb", "<20>|b"},
		{x + "\r", x},
		{huge, "<20>"},
		{huge + "\nb\n" + huge + "\nc", "<20>|b|<20>|c"},
		{"\r\n\r\n", "|"},
	} {
		for name, r := range map[string]io.Reader{
			"whole":        strings.NewReader(c.in),
			"byte by byte": iotest.OneByteReader(strings.NewReader(c.in)),
			"with error":   iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			got, err := collect(r, 20)
			if err != io.EOF || strings.Join(got, "|") != c.want {
				t.Errorf("%s: %.60q gives %.60q, %v, want %.60q", name, c.in, got, err, c.want)
			}
		}
	}
	if got, err := collect(iotest.TimeoutReader(strings.NewReader("a\nb\n")), 20); !errors.Is(err, iotest.ErrTimeout) || len(got) != 2 {
		t.Errorf("read error: %q, %v", got, err)
	}
}

// TestLinesOverDeadlines: a deadline that passes within a line loses nothing of
// it, and what is forgotten on purpose is gone.
func TestLinesOverDeadlines(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	l := NewLineReader(near, 20)
	l.End = '\r'
	var got []string
	burst := func(say string) error {
		go far.Write([]byte(say))
		near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		for {
			if err := l.Burst(func(b []byte) { got = append(got, string(b)) }, func(b []byte) { t.Errorf("too long: %q", b) }); err != nil {
				return err
			}
		}
	}
	for _, say := range []string{"R12", "34\rR5\nxx", "67\r", "half"} {
		if err := burst(say); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if n := l.Forget(); n != 4 {
		t.Errorf("forgot %d bytes", n)
	}
	_ = burst("R8\r")
	if s := strings.Join(got, "|"); s != "R1234|R5\nxx67|R8" {
		t.Errorf("lines %q", s)
	}
}

// TestHugeLineMemory shows that a line without end costs no memory.
func TestHugeLineMemory(t *testing.T) {
	l := NewLineReader(zeros{}, 4096)
	tooLong := 0
	allocs := testing.AllocsPerRun(1000, func() {
		_ = l.Burst(func([]byte) { t.Error("a line") }, func([]byte) { tooLong++ })
	})
	if allocs > 0 || tooLong != 1 || len(l.buf) > readBytes {
		t.Errorf("%v allocations, told %d times, buffer %d", allocs, tooLong, len(l.buf))
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\nbb\n\n"+strings.Repeat("c", 30)), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8) {
		whole, _ := collect(bytes.NewReader(in), 16)
		parts, err := collect(&chunked{in, int(chunk%7) + 1}, 16)
		if err != io.EOF || strings.Join(whole, "\n") != strings.Join(parts, "\n") {
			t.Errorf("whole %q, in parts %q, %v", whole, parts, err)
		}
	})
}

type chunked struct {
	b []byte
	n int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b[:min(c.n, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}

func TestUnzip(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprint(z, "hello\n")
	z.Close()
	for _, in := range []string{packed.String(), "hello\n"} {
		r, err := Unzip(strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "hello\n" {
			t.Errorf("%q, %v", b, err)
		}
	}
	for _, in := range []string{"", "x"} {
		r, err := Unzip(strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != in {
			t.Errorf("%q, %v", b, err)
		}
	}
	if _, err := Unzip(strings.NewReader("\x1f\x8bxx")); err == nil || !strings.Contains(err.Error(), "gzip") {
		t.Errorf("damaged gzip: %v", err)
	}
	// A file that was cut off tells so after what could be read.
	r, err := Unzip(strings.NewReader(packed.String()[:packed.Len()-6]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := collect(r, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut gzip: %v", err)
	}
}

// A room keeps what peers say.
type room struct {
	mu    sync.Mutex
	said  []string
	ended int
	peers int
}

type member struct{ r *room }

func (r *room) join(string) Peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers++
	return member{r}
}

func (m member) say(s string) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.r.said = append(m.r.said, s)
}

func (m member) Line(b []byte)    { m.say(string(b)) }
func (m member) TooLong(b []byte) { m.say(fmt.Sprintf("<%d>", len(b))) }
func (m member) Pause(ended bool) {
	if ended {
		m.r.mu.Lock()
		defer m.r.mu.Unlock()
		m.r.ended++
	}
}

func (r *room) heard(n int) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.said) >= n
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s within 10 s", what)
		}
	}
}

func open(t *testing.T, connect string, o Options) Line {
	t.Helper()
	target, err := Parse(connect)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestIdleConnectionEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	line := open(t, "tcp://"+l.Addr().String(), Options{Idle: 20 * time.Millisecond})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := &room{}
	if err := line.Run(t.Context(), r.join); err == nil || !strings.Contains(err.Error(), "silent for 20ms") {
		t.Errorf("Run: %v", err)
	}
	if r.ended != 1 {
		t.Errorf("the peer was told %d times that it ended", r.ended)
	}
}

func TestOpenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for connect, want := range map[string]string{
		"listen://" + taken.Addr().String():  "address already in use",
		"file://" + t.TempDir() + "/nothing": "no such file",
		"file://" + t.TempDir():              "is a directory",
	} {
		target, err := Parse(connect)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), target, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("open %s: %v, want %q", connect, err, want)
		}
	}
	if _, err := Open(t.Context(), Target{Scheme: "usb"}, Options{}); err == nil {
		t.Error("an unknown scheme was opened")
	}
}

// TestServerStops shows that Run waits for its talkers, who are not left in
// their reads.
func TestServerStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	line := open(t, "listen://127.0.0.1:0", Options{})
	r := &room{}
	ended := make(chan error, 1)
	go func() { ended <- line.Run(ctx, r.join) }()
	for range 3 {
		c, err := net.Dial("tcp", line.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "hello\n")
	}
	waitFor(t, "three lines", r.heard(3))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if r.ended != 3 {
		t.Errorf("%d of 3 talkers had ended when Run returned", r.ended)
	}
}

func TestDatagrams(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	line := open(t, "udp://127.0.0.1:0", Options{MaxLine: 10})
	r := &room{}
	ended := make(chan error, 1)
	go func() { ended <- line.Run(ctx, r.join) }()
	// Some senders take a new port for every datagram: they are one talker.
	for _, s := range []string{"a\r\nb\n\nc", strings.Repeat("d", 11), ""} {
		c, err := net.Dial("udp", line.Addr())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, s)
		c.Close()
	}
	waitFor(t, "four lines", r.heard(4))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := strings.Join(r.said, "|"); got != "a|b|c|<10>" || r.peers != 1 || r.ended != 1 {
		t.Errorf("%s, %d peers, %d ended", got, r.peers, r.ended)
	}
}

// TestSendersAreBounded forgets the sender that was silent for longest.
func TestSendersAreBounded(t *testing.T) {
	var forgotten []string
	d := &datagrams{
		o:     Options{MaxPeers: 2, Refused: func(p string) { forgotten = append(forgotten, p) }},
		peers: map[netip.Addr]*sender{},
	}
	r := &room{}
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3", "10.0.0.1"} {
		d.peer(netip.MustParseAddr(a), r.join)
	}
	if strings.Join(forgotten, ",") != "10.0.0.2" || len(d.peers) != 2 || r.ended != 1 || r.peers != 3 {
		t.Errorf("forgotten %v, %d kept, %d ended, %d joined", forgotten, len(d.peers), r.ended, r.peers)
	}
}
