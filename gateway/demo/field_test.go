package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"haidang/gateway/telemetry"
)

const patience = 20 * time.Second

// await polls a condition until it holds or patience ends.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited %s in vain for: %s", patience, what)
		case <-tick.C:
		}
	}
}

// A message is what a station published.
type message struct {
	topic, client string
	qos           byte
	payload       []byte
}

// A testBroker is mochi with a hook that admits everyone and writes down what is
// published.
type testBroker struct {
	mochi.HookBase
	server *mochi.Server
	mu     sync.Mutex
	seen   []message
}

func (b *testBroker) ID() string { return "seen" }

func (b *testBroker) Provides(h byte) bool {
	return h == mochi.OnPublish || h == mochi.OnConnectAuthenticate || h == mochi.OnACLCheck
}

func (b *testBroker) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (b *testBroker) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

func (b *testBroker) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, message{pk.TopicName, cl.ID, pk.FixedHeader.Qos, append([]byte(nil), pk.Payload...)})
	return pk, nil
}

func (b *testBroker) messages() []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]message(nil), b.seen...)
}

func startBroker(t *testing.T, address string) (*testBroker, string) {
	t.Helper()
	b := &testBroker{}
	b.server = mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	listener := listeners.NewTCP(listeners.Config{ID: "t", Address: address})
	for _, err := range []error{
		b.server.AddHook(b, nil),
		b.server.AddListener(listener),
		b.server.Serve(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return b, listener.Address()
}

// settle waits until no more goroutines run than before.
func settle(t *testing.T, before int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for runtime.NumGoroutine() > before {
		select {
		case <-deadline:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		case <-tick.C:
		}
	}
}

// sentences listens as the gateway does and hands on the lines that it hears.
func sentences(t *testing.T) (address string, heard func() int, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	n := 0
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				mu.Lock()
				n++
				mu.Unlock()
			}
			conn.Close()
		}
	})
	return listener.Addr().String(), func() int { mu.Lock(); defer mu.Unlock(); return n }, func() { listener.Close(); wait.Wait() }
}

// TestFieldSpeaksToAGateway runs the whole field against real sockets.
func TestFieldSpeaksToAGateway(t *testing.T) {
	before := runtime.NumGoroutine()
	broker, mqttAddress := startBroker(t, "127.0.0.1:0")
	nmea, heard, stopNMEA := sentences(t)

	received := make(chan telemetry.Warning, 1)
	field, err := New(Config{
		Addresses: Addresses{MQTT: mqttAddress, NMEA: nmea, Modbus: "127.0.0.1:0", IOC: "127.0.0.1:0"},
		Seed:      1, Speed: 20, Secret: "s",
	}, func(w telemetry.Warning) { received <- w }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- field.Run(ctx) }()

	count := map[string]int{}
	defer func() {
		if t.Failed() {
			t.Logf("heard %d sentences and readings %v", heard(), count)
		}
	}()
	await(t, "two readings of each station, 60 sentences", func() bool {
		select {
		case err := <-done:
			t.Fatalf("Run ended: %v", err)
		default:
		}
		clear(count)
		for _, m := range broker.messages() {
			count[m.topic]++
		}
		return count["telemetry/demo-kim-long/river"] >= 2 && count["telemetry/demo-phu-oc/river"] >= 2 &&
			count["telemetry/demo-nam-dong/rain"] >= 2 && count["telemetry/demo-a-luoi/rain"] >= 2 && heard() >= 60
	})
	checkMessages(t, broker.messages())

	w := telemetry.Warning{ID: "w", N: 1, State: telemetry.Active, Severity: telemetry.Extreme}
	if status, answer := post(t, "http://"+field.Addresses().IOC+"/warnings", "w/1", "s", warningJSON(t, w)); status != 204 {
		t.Errorf("the centre answers %d %s", status, answer)
	}
	if got := <-received; got.ID != "w" {
		t.Errorf("received %+v", got)
	}
	http.DefaultClient.CloseIdleConnections()

	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	stopNMEA()
	if err := broker.server.Close(); err != nil {
		t.Error(err)
	}
	settle(t, before)
}

// checkMessages: QoS 1, the device's own connection, JSON with its own time
// that goes on.
func checkMessages(t *testing.T, messages []message) {
	t.Helper()
	last := map[string]time.Time{}
	for _, m := range messages {
		device := strings.Split(m.topic, "/")[1]
		var reading struct{ Time time.Time }
		if err := json.Unmarshal(m.payload, &reading); err != nil {
			t.Fatalf("%s: %s: %v", m.topic, m.payload, err)
		}
		if m.qos != 1 || m.client != device || !reading.Time.After(last[m.topic]) {
			t.Errorf("%s from %s, QoS %d, time %s after %s", m.topic, m.client, m.qos, reading.Time, last[m.topic])
		}
		last[m.topic] = reading.Time
	}
}

// TestStationKeepsWhatTheGatewayMisses takes the broker away for a while: every
// reading of the time arrives in the end, in order.
func TestStationKeepsWhatTheGatewayMisses(t *testing.T) {
	before := runtime.NumGoroutine()
	first, address := startBroker(t, "127.0.0.1:0")
	var mu sync.Mutex
	measured := 0
	st := &station{
		broker: address, id: "gauge", topic: "telemetry/gauge/river", start: time.Now(),
		logger: slog.New(slog.DiscardHandler),
		measure: func(time.Duration) map[string]any {
			mu.Lock()
			defer mu.Unlock()
			measured++
			return map[string]any{"n": measured}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.run(ctx) }()
	await(t, "two readings", func() bool { return len(first.messages()) >= 2 })
	if err := first.server.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	away := measured
	mu.Unlock()
	await(t, "three readings while the broker is away", func() bool { mu.Lock(); defer mu.Unlock(); return measured >= away+3 })
	second, _ := startBroker(t, address)
	await(t, "what was missed", func() bool { return len(second.messages()) >= 4 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := second.server.Close(); err != nil {
		t.Error(err)
	}
	seen, newest := map[int]bool{}, 0
	for _, m := range append(first.messages(), second.messages()...) {
		var reading struct{ N int }
		if err := json.Unmarshal(m.payload, &reading); err != nil {
			t.Fatal(err)
		}
		if reading.N < newest { // the one under way may come twice
			t.Errorf("reading %d after %d", reading.N, newest)
		}
		newest = max(newest, reading.N)
		seen[reading.N] = true
	}
	for n := 1; n <= newest; n++ {
		if !seen[n] {
			t.Errorf("reading %d of %d never arrived", n, newest)
		}
	}
	settle(t, before)
}

// TestFieldWithoutAGateway: nobody listens, and the field stops all the same.
func TestFieldWithoutAGateway(t *testing.T) {
	before := runtime.NumGoroutine()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	field, err := New(Config{Addresses: Addresses{MQTT: nobody, NMEA: nobody, Modbus: "127.0.0.1:0", IOC: "127.0.0.1:0"}}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := field.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	settle(t, before)
}

func TestStationMemoryIsBounded(t *testing.T) {
	st := &station{id: "gauge", logger: slog.New(slog.DiscardHandler)}
	for n := range stationMemory + 5 {
		st.remember(fmt.Append(nil, n))
	}
	if len(st.memory) != stationMemory || st.lost != 5 || string(st.memory[0]) != "0" || string(st.memory[1]) != "6" {
		t.Errorf("%d kept, %d lost, begins %s %s", len(st.memory), st.lost, st.memory[0], st.memory[1])
	}
}

func TestNewNamesAnOccupiedPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	for _, a := range []Addresses{{Modbus: address, IOC: "127.0.0.1:0"}, {Modbus: "127.0.0.1:0", IOC: address}} {
		_, err := New(Config{Addresses: a}, nil, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), address) {
			t.Errorf("%+v: error %v does not name %s", a, err, address)
		}
	}
	if _, err := New(Config{Speed: -1}, nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a negative speed was taken")
	}
}
