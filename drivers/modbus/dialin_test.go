package modbus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/drivers/link"
)

// A coast is the far side of a line that modems dial in to.
type coast struct {
	dialled chan link.Stream
	server  server
	wait    sync.WaitGroup
}

// Accept takes the connections of modems, as link.Listener does.
func (f *coast) Accept(ctx context.Context) (link.Stream, string, error) {
	select {
	case <-ctx.Done():
		return nil, "", ctx.Err()
	case stream := <-f.dialled:
		return stream, "modem", nil
	}
}

// dial connects a modem that sends a registration and then answers requests;
// before each answer it sends a prefix, and within it an infix.
func (f *coast) dial(registration, prefix, infix string) (hangUp func()) {
	ours, theirs := net.Pipe()
	f.dialled <- ours
	f.wait.Go(func() { f.serve(theirs, registration, prefix, infix) })
	return func() { theirs.Close() }
}

func (f *coast) serve(conn net.Conn, registration, prefix, infix string) {
	defer conn.Close()
	if _, err := io.WriteString(conn, registration); err != nil {
		return
	}
	for {
		request := make([]byte, 8)
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		frame := append([]byte{0, 0, 0, 0, 0, 6}, request[:6]...)
		answer := withCRC(f.server.answer(frame)[6:])
		answer = append(append([]byte(prefix), answer[:4]...), append([]byte(infix), answer[4:]...)...)
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

const modems = `
name: modems
connect: listen://127.0.0.1:0
interval: 10s
timeout: 1s
modems:
  - {name: m1, registration: {text: KL01}, heartbeat: {hex: FE FE}, units: [{id: 1, device: kim-long, profile: level}, {id: 2, device: kim-long-2, profile: level}]}
  - {name: m2, registration: {text: KL012}, units: [{id: 1, device: phu-oc, profile: level}]}
  - {name: m3, registration: {pattern: 'IMEI:86\d{4}'}, units: [{id: 1, device: hue, profile: level}]}
  - {name: m4, registration: {hex: 01 02 03}, units: [{id: 1, device: tuan, profile: level}]}
`

// Several modems at once, each with its own units; heartbeats between and within
// frames; a modem that dials in again; strangers.
func TestModems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &coast{dialled: make(chan link.Stream)}
		f.server.register = func(unit, _ byte, _ int) (uint16, byte) { return uint16(unit) * 100, 0 }
		var cfg Config
		strictly(t, []byte(modems), &cfg)
		shelf := newShelf()
		line, reg := newLine(t, cfg, profilesOf(t, level), shelf)
		log := &lockedBuffer{}
		line.logger = slog.New(slog.NewTextHandler(log, nil))
		for _, b := range line.buses {
			b.logger = line.logger.With("modem", b.name)
		}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() { over <- line.welcome(ctx, f) }()

		f.dial("KL01", "\xFE\xFE", "\xFE\xFE")
		f.dial("KL012\r\n", "KL012", "")
		hangUp := f.dial("IMEI:861234\r\n", "", "")
		f.dial("who am I", "", "")
		f.dial("who am I", "", "")
		f.dial("", "", "")
		<-time.After(65 * time.Second)
		for device, want := range map[string]int{"kim-long": 7, "kim-long-2": 7, "phu-oc": 7, "hue": 7, "tuan": 0} {
			if n := len(shelf.of(device, "river")); n != want {
				t.Errorf("%s has %d readings after 65 s, want %d", device, n, want)
			}
		}
		if r := shelf.of("kim-long-2", "river"); len(r) > 0 && r[0].Values[0].Number != 2 {
			t.Errorf("level %v of unit 2, want 2", r[0].Values[0].Number)
		}
		if unknown, silent := count(t, reg, "haidang_modbus_refused_connections_total", strangerUnknown), count(t, reg, "haidang_modbus_refused_connections_total", strangerSilent); unknown != 2 || silent != 1 {
			t.Errorf("%v unknown and %v silent connections are counted, want 2 and 1", unknown, silent)
		}
		if n := strings.Count(log.String(), `registration="\"who am I\""`); n != 1 {
			t.Errorf("the stranger is told %d times, want once:\n%s", n, log.String())
		}

		// The connection that breaks, and the modem that dials in again without it.
		hangUp()
		synctest.Wait()
		if shelf.links("m3")+" "+shelf.links("hue") != "10 10" {
			t.Errorf("links of the modem that is gone: %s %s", shelf.links("m3"), shelf.links("hue"))
		}
		if told := shelf.of("m3", "link"); told[len(told)-1].Text("cause") != errHungUp.Error() {
			t.Errorf("cause %q", told[len(told)-1].Text("cause"))
		}
		f.dial("IMEI:861234", "", "")
		f.dial("KL01", "", "") // the first one is replaced
		<-time.After(60 * time.Second)
		if got := fmt.Sprint(shelf.links("m1"), " ", shelf.links("kim-long"), " ", shelf.links("m3"), " ", shelf.links("hue")); got != "1 1 101 101" {
			t.Errorf("links %s, want 1 1 101 101", got)
		}
		for device, least := range map[string]int{"kim-long": 12, "kim-long-2": 12, "hue": 12} {
			if n := len(shelf.of(device, "river")); n < least {
				t.Errorf("%s has %d readings, want %d or more", device, n, least)
			}
		}
		// By hand: the unit ids are those behind each modem.
		if _, err := line.Registers(ctx, Query{Unit: "1", Table: Holding, First: 4, Count: 1}); err == nil || !strings.Contains(err.Error(), "m1/1 (kim-long) or m2/1 (phu-oc)") {
			t.Errorf("unit 1 of several modems: %v", err)
		}
		if answer, err := line.Registers(ctx, Query{Unit: "m1/2", Table: Holding, First: 4, Count: 1}); err != nil || !bytes.Equal(answer, []byte{0, 200}) {
			t.Errorf("m1/2: % x, %v", answer, err)
		}
		if _, err := line.Read(ctx, "tuan"); err == nil || !strings.Contains(err.Error(), "the modem has not dialled in") {
			t.Errorf("the modem that never came: %v", err)
		}
		<-time.After(time.Minute)
		if shelf.links("m4")+shelf.links("tuan") != "00" || !strings.Contains(log.String(), `msg="modem has not dialled in" modem=m4 within=2m0s`) {
			t.Errorf("the modem that never came: links %s %s", shelf.links("m4"), shelf.links("tuan"))
		}
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		f.wait.Wait()
	})
}

// On a real socket: one modem that does not register, on a line that is stopped
// while it is connected.
func TestOneModemOnSocket(t *testing.T) {
	cfg := Config{Name: "line", Connect: "listen://127.0.0.1:0", Interval: seconds(0.02), Timeout: seconds(2),
		Modems: []Modem{{Name: "m", Units: []Unit{{ID: 1, Device: "a", Profile: "level"}}}}}
	shelf := newShelf()
	line, _ := newLine(t, cfg, profilesOf(t, level), shelf)
	listener, err := link.Bind(t.Context(), line.endpoint.target, link.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- line.welcome(ctx, listener) }()
	f := &coast{}
	for range 2 { // the second one replaces the first
		conn, err := net.Dial("tcp", listener.Addr())
		if err != nil {
			t.Fatal(err)
		}
		seen := len(shelf.of("a", "river"))
		f.wait.Go(func() { f.serve(conn, "hello", "", "") })
		shelf.until(t, "readings of the modem", func() bool { return len(shelf.of("a", "river")) >= seen+3 })
	}
	if shelf.links("m")+shelf.links("a") != "11" {
		t.Errorf("links %s %s, want 1 1", shelf.links("m"), shelf.links("a"))
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	f.wait.Wait()
}

// A port that is taken ends Run, and is told.
func TestListenTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := Config{Name: "line", Connect: "listen://" + taken.Addr().String(), Modems: []Modem{{Name: "m", Units: []Unit{{ID: 1, Device: "a", Profile: "level"}}}}}
	shelf := newShelf()
	line, _ := newLine(t, cfg, profilesOf(t, level), shelf)
	if err := line.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") || shelf.links("line") != "0" {
		t.Errorf("Run: %v, links %s", err, shelf.links("line"))
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte("IMEI:861234\r\n"), `IMEI:\d+`, "KL01")
	f.Add([]byte("xxKL01"), `[`, "KL01")
	f.Fuzz(func(t *testing.T, arrived []byte, pattern, literal string) {
		for _, p := range []Packet{{Pattern: pattern}, {Text: literal}, {Hex: literal}} {
			if len(p.validate(true)) > 0 {
				continue
			}
			if n := newMatcher(&p).matches(arrived); n < 0 || n > len(arrived) {
				t.Errorf("%+v matches %d of %d bytes", p, n, len(arrived))
			}
		}
	})
}

// lockedBuffer is a log that several write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
