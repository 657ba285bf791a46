package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// An archive is an intake that keeps everything in memory and settles on a
// goroutine of its own, at once or when told.
type archive struct {
	mu          sync.Mutex
	readings    []telemetry.Reading
	aside       []telemetry.DeadLetter
	held        []func(error)
	hold        bool
	refuse      error
	panics      bool
	outstanding int
	most        int
	settle      chan func()
	ended       chan struct{}
}

func newArchive(t testing.TB) *archive {
	a := &archive{settle: make(chan func(), 100_000), ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		for f := range a.settle {
			f()
		}
	}()
	t.Cleanup(func() { close(a.settle); <-a.ended })
	return a
}

func (a *archive) Accept(source string, readings []telemetry.Reading, done func(error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.panics {
		panic("the archive is on fire")
	}
	if a.refuse == nil {
		a.readings = append(a.readings, readings...)
	}
	a.take(done)
}

func (a *archive) SetAside(letter telemetry.DeadLetter, done func(error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.aside = append(a.aside, letter)
	a.take(done)
}

func (a *archive) take(done func(error)) {
	if done == nil {
		return
	}
	a.outstanding++
	a.most = max(a.most, a.outstanding)
	refuse := a.refuse
	settle := func(err error) {
		a.mu.Lock()
		a.outstanding--
		a.mu.Unlock()
		if err == nil {
			err = refuse
		}
		done(err)
	}
	if a.hold {
		a.held = append(a.held, settle)
		return
	}
	a.settle <- func() { settle(nil) }
}

// release settles what is held, in the given order of indices, or all, and
// returns how many there were.
func (a *archive) release(order ...int) int {
	a.mu.Lock()
	held := a.held
	a.held = nil
	a.mu.Unlock()
	if order == nil {
		for i := range held {
			order = append(order, i)
		}
	}
	for _, i := range order {
		a.settle <- func() { held[i](nil) }
	}
	return len(held)
}

func (a *archive) holding() int { a.mu.Lock(); defer a.mu.Unlock(); return len(a.held) }

func (a *archive) set(f func()) { a.mu.Lock(); defer a.mu.Unlock(); f() }

// written lists the readings, without those of links unless asked.
func (a *archive) written(links bool) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, r := range a.readings {
		if links == (r.Kind == telemetry.KindLink) {
			out = append(out, written(r))
		}
	}
	return out
}

func (a *archive) reasons() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, l := range a.aside {
		out = append(out, l.Reason)
	}
	return out
}

func (a *archive) wants(t testing.TB, want ...string) {
	t.Helper()
	eventually(t, strings.Join(want, "|"), func() bool {
		return strings.Join(a.written(false), "|") == strings.Join(want, "|")
	})
}

// A journal is what was logged.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) { j.mu.Lock(); defer j.mu.Unlock(); return j.b.Write(p) }
func (j *journal) String() string              { j.mu.Lock(); defer j.mu.Unlock(); return j.b.String() }

// A house is a running broker with its intake.
type house struct {
	*Broker
	*archive
	reg  *prometheus.Registry
	logs *journal
	stop func()
}

func loopback() Config {
	c := DefaultConfig()
	c.Listen = "127.0.0.1:0"
	return c
}

func newHouse(t testing.TB, cfg Config, change ...func(*Broker)) *house {
	t.Helper()
	return newHouseWith(t, cfg, nil, change...)
}

func newHouseWith(t testing.TB, cfg Config, options []Option, change ...func(*Broker)) *house {
	t.Helper()
	h := &house{archive: newArchive(t), reg: prometheus.NewRegistry(), logs: &journal{}}
	if faults := cfg.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	var err error
	if h.Broker, err = New(cfg, h.archive, h.reg, slog.New(slog.NewTextHandler(h.logs, nil)), options...); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(h.Broker)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *house) counts(t testing.TB, name string, labels string, want float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s%s is %v", name, labels, want), func() bool { return h.metric(name, labels) == want })
}

func (h *house) metric(name, labels string) float64 {
	families, err := h.reg.Gather()
	if err != nil {
		return -1
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			if strings.Join(have, ",") == labels {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// A wire is a client that speaks bytes.
type wire struct {
	t testing.TB
	net.Conn
	in      *bufio.Reader
	version byte
}

func (h *house) dial(t testing.TB) *wire { return h.dialFrom(t, 1) }

// dialFrom comes from 127.0.0.host.
func (h *house) dialFrom(t testing.TB, host byte) *wire {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}}
	conn, err := dialer.Dial("tcp", h.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &wire{t: t, Conn: conn, in: bufio.NewReader(conn), version: 4}
}

// A hello is what CONNECT says.
type hello struct {
	version        byte
	id             string
	keep           bool // the session
	expiry         uint32
	receiveMaximum uint16
	willTopic      string
	willPayload    string
	willDelay      uint32
	willRetain     bool
	user, secret   string
	wantsCode      byte
	wantsSession   bool
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func packet(first byte, body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	return append(append([]byte{first}, binary.AppendUvarint(nil, uint64(len(b)))...), b...)
}

// connect connects and reads CONNACK.
func (h *house) connect(t testing.TB, o hello) *wire {
	t.Helper()
	return h.dial(t).connect(o)
}

// connect says CONNECT and reads CONNACK.
func (w *wire) connect(o hello) *wire {
	t := w.t
	t.Helper()
	if o.version == 0 {
		o.version = 4
	}
	w.version = o.version
	flags := byte(0)
	if !o.keep {
		flags |= 2
	}
	if o.willTopic != "" {
		flags |= 4
		if o.willRetain {
			flags |= 0x20
		}
	}
	if o.user != "" {
		flags |= 0x80
	}
	if o.secret != "" {
		flags |= 0x40
	}
	body := [][]byte{text("MQTT"), {o.version, flags, 0, 60}}
	if o.version == 5 {
		var props []byte
		if o.expiry > 0 {
			props = binary.BigEndian.AppendUint32(append(props, 17), o.expiry)
		}
		if o.receiveMaximum > 0 {
			props = binary.BigEndian.AppendUint16(append(props, 33), o.receiveMaximum)
		}
		body = append(body, append([]byte{byte(len(props))}, props...))
	}
	body = append(body, text(o.id))
	if o.willTopic != "" {
		if o.version == 5 {
			props := binary.BigEndian.AppendUint32([]byte{24}, o.willDelay)
			body = append(body, append([]byte{byte(len(props))}, props...))
		}
		body = append(body, text(o.willTopic), text(o.willPayload))
	}
	if o.user != "" {
		body = append(body, text(o.user))
	}
	if o.secret != "" {
		body = append(body, text(o.secret))
	}
	w.send(packet(0x10, body...))
	first, answer := w.packet()
	if first != 0x20 || answer[1] != o.wantsCode || (answer[0] == 1) != o.wantsSession {
		t.Fatalf("CONNACK %x %x", first, answer)
	}
	return w
}

func (w *wire) send(b []byte) {
	w.t.Helper()
	if _, err := w.Write(b); err != nil {
		w.t.Fatalf("write: %v", err)
	}
}

// publication makes a PUBLISH.
func (w *wire) publication(first byte, id uint16, topic, payload string) []byte {
	body := [][]byte{text(topic)}
	if first&6 != 0 {
		body = append(body, binary.BigEndian.AppendUint16(nil, id))
	}
	if w.version == 5 {
		body = append(body, []byte{0})
	}
	return packet(0x30|first, append(body, []byte(payload))...)
}

func (w *wire) publish(qos byte, id uint16, topic, payload string) {
	w.t.Helper()
	w.send(w.publication(qos<<1, id, topic, payload))
}

func (w *wire) subscribe(id uint16, filter string, qos byte) {
	w.t.Helper()
	props := []byte{}
	if w.version == 5 {
		props = []byte{0}
	}
	w.send(packet(0x82, binary.BigEndian.AppendUint16(nil, id), props, text(filter), []byte{qos}))
	first, body := w.packet()
	if first != 0x90 || binary.BigEndian.Uint16(body) != id || body[len(body)-1] != qos {
		w.t.Fatalf("SUBACK %x %x", first, body)
	}
}

// read reads a packet.
func (w *wire) read() (byte, []byte, error) {
	_ = w.SetReadDeadline(time.Now().Add(patience))
	first, err := w.in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(w.in)
	if err != nil {
		return 0, nil, err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(w.in, body)
	return first, body, err
}

func (w *wire) packet() (byte, []byte) {
	w.t.Helper()
	first, body, err := w.read()
	if err != nil {
		w.t.Fatalf("read: %v", err)
	}
	return first, body
}

// wants reads the next packets and compares them in hex.
func (w *wire) wants(want ...string) {
	w.t.Helper()
	for _, x := range want {
		first, body := w.packet()
		if got := fmt.Sprintf("%02x %x", first, body); got != x {
			w.t.Fatalf("got packet %s, want %s", got, x)
		}
	}
}

// delivery reads a PUBLISH.
func (w *wire) delivery() (first byte, id uint16, topic, payload string) {
	w.t.Helper()
	first, body := w.packet()
	if first>>4 != 3 {
		w.t.Fatalf("packet %x %x is no PUBLISH", first, body)
	}
	n := binary.BigEndian.Uint16(body)
	topic, body = string(body[2:2+n]), body[2+n:]
	if first&6 != 0 {
		id, body = binary.BigEndian.Uint16(body), body[2:]
	}
	if w.version == 5 {
		body = body[1+body[0]:]
	}
	return first, id, topic, string(body)
}

func (w *wire) wantsDelivery(first byte, id uint16, topic, payload string) {
	w.t.Helper()
	f, i, tp, p := w.delivery()
	if f != first || i != id || tp != topic || p != payload {
		w.t.Fatalf("got PUBLISH %x id %d %s %s, want %x id %d %s %s", f, i, tp, p, first, id, topic, payload)
	}
}

func (w *wire) puback(id uint16) { w.send(packet(0x40, binary.BigEndian.AppendUint16(nil, id))) }

// ping sees that nothing else comes first.
func (w *wire) ping() {
	w.t.Helper()
	w.send([]byte{0xc0, 0})
	w.wants("d0 ")
}

// wantsEnd reads until the broker has closed the connection, with no packet
// before but a DISCONNECT.
func (w *wire) wantsEnd(want ...string) {
	w.t.Helper()
	w.wants(want...)
	if first, body, err := w.read(); err == nil {
		w.t.Fatalf("packet %x %x instead of the end", first, body)
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		w.t.Fatal("the connection stays open")
	}
}
