package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

const patience = 20 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A peer is a mosquitto that keeps its sessions on disk.
type peer struct {
	t       testing.TB
	dir     string
	address string
	process *exec.Cmd
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, dir: t.TempDir(), address: l.Addr().String()}
	_ = l.Close()
	_, port, _ := net.SplitHostPort(p.address)
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nautosave_interval 1\nmax_queued_messages 0\nuser root\n", port, p.dir)
	if err := os.WriteFile(filepath.Join(p.dir, "m.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	t.Cleanup(p.stop)
	return p
}

func (p *peer) start() {
	p.process = exec.Command("mosquitto", "-c", filepath.Join(p.dir, "m.conf"))
	if err := p.process.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", p.address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// stop lets mosquitto end as a restart of the service does: it writes its sessions.
func (p *peer) stop() {
	if p.process == nil {
		return
	}
	_ = p.process.Process.Signal(os.Interrupt)
	_ = p.process.Wait()
	p.process = nil
}

func (p *peer) client(id string, clean bool, handler paho.MessageHandler) paho.Client {
	p.t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + p.address).SetClientID(id).SetCleanSession(clean).SetAutoReconnect(false).SetDefaultPublishHandler(handler))
	if err := wait(context.Background(), c.Connect(), patience); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// plain reads every payload as the number of a message; the topic other/ is none.
type plain struct{}

func (plain) Read(topic string, payload []byte) ([]telemetry.Reading, []telemetry.DeadLetter, bool) {
	if strings.HasPrefix(topic, "other/") {
		return nil, nil, false
	}
	var n float64
	if err := json.Unmarshal(payload, &n); err != nil {
		return nil, []telemetry.DeadLetter{{Reason: "bad_json", Place: topic}}, true
	}
	return []telemetry.Reading{{Device: "d", Kind: "k", Values: []telemetry.Value{{Name: "n", Number: n}}}}, nil, true
}

// An archive is an intake that settles on goroutines of its own, or refuses.
type archive struct {
	mu      sync.Mutex
	seen    map[int]int
	links   []float64
	letters []telemetry.DeadLetter
	refuse  bool
	refused int
	running sync.WaitGroup
}

func (a *archive) Accept(_ string, readings []telemetry.Reading, done func(error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	for _, r := range readings {
		switch {
		case r.Kind == telemetry.KindLink:
			a.links = append(a.links, r.Values[0].Number)
		case a.refuse:
			a.refused++
			err = errors.New("the log is full")
		default:
			a.seen[int(r.Values[0].Number)]++
		}
	}
	if done != nil {
		a.running.Go(func() { done(err) })
	}
}

func (a *archive) SetAside(l telemetry.DeadLetter, done func(error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.letters = append(a.letters, l)
	if done != nil {
		a.running.Go(func() { done(nil) })
	}
}

func (a *archive) count() int { a.mu.Lock(); defer a.mu.Unlock(); return len(a.seen) }

func (a *archive) set(f func()) { a.mu.Lock(); defer a.mu.Unlock(); f() }

func newBridge(p *peer, a *archive, cfg Config) *Bridge {
	cfg.Name, cfg.Connect = "province", "mqtt://"+p.address
	return New(cfg, "box", a, NewMetrics(prometheus.NewRegistry()), func(func(string, []byte)) Reader { return plain{} })
}

// keep runs the bridge again and again, as the supervisor does.
func keep(t testing.TB, b *Bridge) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if b.Run(ctx) != nil {
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// TestNothingIsLost restarts the other broker, refuses messages and stops the
// bridge for a while: each message comes at least once, and none is acknowledged
// that was refused.
func TestNothingIsLost(t *testing.T) {
	p := newPeer(t)
	a := &archive{seen: map[int]int{}}
	defer a.running.Wait()
	b := newBridge(p, a, Config{Subscribe: []string{"telemetry/#"}})
	stop := keep(t, b)
	eventually(t, "the link is up", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.links) > 0 })
	sent := 0
	publish := func(n int) {
		c := p.client("publisher", true, nil)
		defer c.Disconnect(quietly)
		for range n {
			sent++
			if err := wait(context.Background(), c.Publish("telemetry/d/k", 1, false, fmt.Sprint(sent)), patience); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := func() bool { return a.count() == sent }
	publish(100)
	eventually(t, "100 messages", all)

	a.set(func() { a.refuse = true }) // the log is full
	publish(50)
	eventually(t, "some are refused", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.refused > 0 })
	if n := a.count(); n != 100 {
		t.Errorf("%d messages, want 100", n)
	}
	a.set(func() { a.refuse = false })
	eventually(t, "the refused ones come again", all)

	stop() // the gateway is down
	publish(50)
	p.stop() // and the other broker restarts meanwhile
	p.start()
	stop = keep(t, b)
	eventually(t, "those of the meantime", all)
	p.stop()
	p.start()
	eventually(t, "the bridge is back", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.links) >= 4 })
	publish(50)
	eventually(t, "after the restart", all)
	stop()
}

// TestWhatIsNotTelemetry is set aside with its topic, and acknowledged.
func TestWhatIsNotTelemetry(t *testing.T) {
	p := newPeer(t)
	a := &archive{seen: map[int]int{}}
	defer a.running.Wait()
	stop := keep(t, newBridge(p, a, Config{Subscribe: []string{"#"}}))
	eventually(t, "the link is up", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.links) > 0 })
	c := p.client("publisher", true, nil)
	defer c.Disconnect(quietly)
	for topic, payload := range map[string]string{"other/x": "1", "telemetry/d/k": "x"} {
		if err := wait(context.Background(), c.Publish(topic, 1, false, payload), patience); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two letters", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.letters) == 2 })
	stop()
	a.set(func() {})
	for _, l := range a.letters {
		if l.Source != "bridge.province" || l.Place == "" || l.Reason != "bad_json" && l.Reason != "unknown_topic" {
			t.Errorf("%+v", l)
		}
	}
}

// TestForward sends readings while the other broker comes and goes, as a follower
// that tries a batch again until it is accepted.
func TestForward(t *testing.T) {
	p := newPeer(t)
	var mu sync.Mutex
	got := map[string]string{}
	hear := func(_ paho.Client, m paho.Message) {
		mu.Lock()
		defer mu.Unlock()
		got[m.Topic()] = string(m.Payload())
	}
	subscriber := p.client("subscriber", false, hear)
	if err := wait(context.Background(), subscriber.Subscribe("up/#", 1, nil), patience); err != nil {
		t.Fatal(err)
	}
	b := newBridge(p, &archive{}, Config{Forward: Forward{Topic: "up/{site}/{device}/{kind}", Kinds: []string{"river"}, Devices: []string{"d*"}, Keep: telemetry.Duration(time.Hour)}})
	defer b.Close()
	now := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	batch := func(from, n int) []telemetry.Reading {
		var list []telemetry.Reading
		for i := range n {
			list = append(list, telemetry.Reading{Device: fmt.Sprintf("d%d", from+i), Site: "hue", Kind: "river", Time: now,
				Values: []telemetry.Value{{Name: "level_m", Number: 3.62}, {Name: "gate", Text: "open", Quality: telemetry.Suspect}}, Quality: telemetry.Suspect})
		}
		return list
	}
	ctx := context.Background()
	other := []telemetry.Reading{{Device: "d", Kind: "rain"}, {Device: "x", Kind: "river"}, {Device: "d", Kind: "_tick"}, {Device: "d", Kind: "river", Source: "bridge.province"}}
	if err := b.Forward(ctx, append(batch(0, 100), other...), now, now); err != nil {
		t.Fatal(err)
	}
	p.stop()
	if err := b.Forward(ctx, batch(100, 50), now, now); err == nil {
		t.Fatal("forwarded to a broker that is down")
	}
	if err := b.Forward(ctx, batch(900, 1), now, now.Add(2*time.Hour)); err != nil {
		t.Fatal("what is too old is not dropped:", err)
	}
	p.start()
	subscriber = p.client("subscriber", false, hear) // its session waited
	eventually(t, "the batch is sent again", func() bool { return b.Forward(ctx, batch(100, 50), now, now) == nil })
	eventually(t, "150 readings", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 150 })
	subscriber.Disconnect(quietly)
	want := `{"gate":"open","level_m":3.62,"quality":{"gate":"suspect"},"time":"2026-11-22T01:00:00Z"}`
	if got["up/hue/d149/river"] != want {
		t.Errorf("got %s\nwant %s", got["up/hue/d149/river"], want)
	}
}

// What has waited for too long is dropped without an attempt for each frame: where
// an attempt takes its time, the log would grow faster than it is dropped.
func TestOldReadingsAreDroppedFast(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var attempts atomic.Int32
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			attempts.Add(1)
			conn.Close()
		}
	}()
	defer func() { listener.Close(); <-ended }()
	b := newBridge(&peer{address: listener.Addr().String()}, &archive{}, Config{Forward: Forward{Topic: "up/{device}", Keep: telemetry.Duration(time.Hour)}})
	defer b.Close()
	now := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	frame := []telemetry.Reading{{Device: "d", Kind: "river", Time: now, Values: []telemetry.Value{{Name: "level_m", Number: 1}}}}
	for range 50 {
		if err := b.Forward(context.Background(), frame, now, now.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if n := attempts.Load(); n > 2 { // the MQTT client makes two of one
		t.Errorf("%d connections for 50 frames that are dropped", n)
	}
	if err := b.Forward(context.Background(), frame, now, now); err == nil || attempts.Load() < 2 {
		t.Errorf("what is not too old is not tried: %v, %d attempts", err, attempts.Load())
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Name: "a", Connect: "mqtts://host", Subscribe: []string{"a/#", "+/b"}}, ""},
		{Config{Name: "a", Connect: "wss://host/mqtt", Forward: Forward{Topic: "telemetry/{device}/{kind}"}}, ""},
		{Config{Name: "a b", Connect: "mqtt://host", Subscribe: []string{"#"}}, "name"},
		{Config{Name: "a", Connect: "http://host", Subscribe: []string{"#"}}, "connect"},
		{Config{Name: "a", Connect: "mqtt://u:p@host", Subscribe: []string{"#"}}, "connect"},
		{Config{Name: "a", Connect: "mqtt://host"}, "subscribe"},
		{Config{Name: "a", Connect: "mqtt://host", Subscribe: []string{"a/#/b"}}, "subscribe[0]"},
		{Config{Name: "a", Connect: "mqtt://host", Subscribe: []string{"#"}, CA: "nothing.pem"}, "cert"},
		{Config{Name: "a", Connect: "mqtt://host", Forward: Forward{Topic: "a/{devise}"}}, "forward.topic"},
		{Config{Name: "a", Connect: "mqtt://host", Subscribe: []string{"#"}, Forward: Forward{Kinds: []string{"x"}}}, "forward.topic"},
		{Config{Name: "a", Connect: "mqtt://host", Forward: Forward{Topic: "a", Devices: []string{"["}}}, "forward.devices[0]"},
	} {
		faults := c.cfg.Validate()
		if (c.want == "") != (len(faults) == 0) || len(faults) > 0 && faults[0].Path != c.want {
			t.Errorf("%+v: %v", c.cfg, faults)
		}
	}
}
