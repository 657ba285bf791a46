package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestInboundIDsDoNotTouchDeliveries(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "a", keep: true})
	w.subscribe(1, "x/#", 1)
	other := h.connect(t, hello{id: "b"})
	other.publish(1, 1, "x/1", "hello")
	other.wants("40 0001")
	w.wantsDelivery(0x32, 1, "x/1", "hello")
	// The delivery with id 1 is not acknowledged; these use id 1, too.
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	w.wants("40 0001")
	w.publish(2, 1, "telemetry/d/k", `{"a":2}`)
	w.wants("50 0001")
	w.send([]byte{0x62, 2, 0, 1})
	w.wants("70 0001")
	w.subscribe(1, "y", 1)
	w.send(packet(0xa2, []byte{0, 1}, text("y")))
	w.wants("b0 0001")
	w.publish(1, 1, "z", "ordinary")
	w.wants("40 0001")
	w.send([]byte{0xe0, 0})
	w = h.connect(t, hello{id: "a", keep: true, wantsSession: true})
	w.wantsDelivery(0x3a, 1, "x/1", "hello") // again, as duplicate
	w.puback(1)
	w.ping()
}

func TestQoS2IsTakenOnce(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for _, topic := range []string{"telemetry/d/k", "chat"} {
			t.Run(fmt.Sprintf("v%d/%s", version, topic), func(t *testing.T) {
				h := newHouse(t, loopback())
				listener := h.connect(t, hello{id: "l"})
				listener.subscribe(1, topic, 0)
				w := h.connect(t, hello{version: version, id: "a", keep: true, expiry: 100})
				again := w.publication(2<<1|8, 7, topic, `{"a":1}`)
				w.publish(2, 7, topic, `{"a":1}`)
				w.wants("50 0007")
				w.send(again)
				w.wants("50 0007")
				_ = w.Close()
				h.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
				w = h.connect(t, hello{version: version, id: "a", keep: true, expiry: 100, wantsSession: true})
				w.send(again)
				w.wants("50 0007")
				w.send([]byte{0x62, 2, 0, 7})
				w.wants("70 0007")
				w.publish(2, 7, topic, `{"a":2}`)
				w.wants("50 0007")
				w.send([]byte{0x62, 2, 0, 7})
				w.wants("70 0007")
				listener.wantsDelivery(0x30, 0, topic, `{"a":1}`)
				listener.wantsDelivery(0x30, 0, topic, `{"a":2}`)
				listener.ping()
				if topic != "chat" {
					h.wants(t, "d/k a=1", "d/k a=2")
				}
				w.send([]byte{0x62, 2, 0, 9}) // unknown
				if version == 4 {
					w.wants("70 0009")
				} else if _, body := w.packet(); body[1] != 9 || body[2] != 0x92 {
					t.Fatalf("PUBCOMP %x", body)
				}
			})
		}
	}
}

func TestQoS2ComesBehindPendingQoS1(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.hold = true })
	w := h.connect(t, hello{id: "a"})
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	w.publish(2, 2, "telemetry/d/k", `{"a":2}`)
	w.publish(1, 3, "chat", "x")
	eventually(t, "held", func() bool { return h.holding() == 1 })
	h.release()
	w.wants("40 0001")
	eventually(t, "held", func() bool { return h.holding() == 1 })
	h.release()
	w.wants("50 0002", "40 0003")
}

func TestManyQoS2DeliveriesDoNotEndAConnection(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "a"})
	w.subscribe(1, "chat", 2)
	for i := range uint16(maxPending + 10) {
		if err := h.Publish("chat", []byte("x"), false, 2); err != nil {
			t.Fatal(err)
		}
		w.wantsDelivery(0x34, i+1, "chat", "x")
		w.send([]byte{0x50, 2, byte((i + 1) >> 8), byte(i + 1)}) // never PUBCOMP
		w.wants(fmt.Sprintf("62 %04x", i+1))
	}
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	w.wants("40 0001")
}

func TestWills(t *testing.T) {
	h := newHouse(t, loopback())
	listener := h.connect(t, hello{id: "l"})
	listener.subscribe(1, "telemetry/#", 1)
	end := func(o hello) {
		w := h.connect(t, o)
		_ = w.Close()
	}
	end(hello{id: "a", willTopic: "telemetry/d/k", willPayload: `{"a":1}`, willRetain: true})
	h.wants(t, "d/k a=1")
	listener.wantsDelivery(0x30, 0, "telemetry/d/k", `{"a":1}`)
	end(hello{id: "a", willTopic: "telemetry/d/k", willPayload: `offline`})
	eventually(t, "set aside", func() bool { return strings.Join(h.reasons(), " ") == "bad_json" })
	// A delayed will of a session that ends with the connection is due at once.
	end(hello{version: 5, id: "a", willTopic: "telemetry/d/k", willPayload: `{"a":2}`, willDelay: 1000})
	h.wants(t, "d/k a=1", "d/k a=2")
	h.connect(t, hello{id: "a", willTopic: "warnings/d/flood", willPayload: "x", wantsCode: 3}).wantsEnd()
	h.connect(t, hello{version: 5, id: "a", willTopic: "$SYS/x", willPayload: "x", wantsCode: 0x90}).wantsEnd()
	if h.server.Topics.Retained.Len() > 0 {
		for topic := range h.server.Topics.Retained.GetAll() {
			if strings.HasPrefix(topic, "telemetry") {
				t.Fatalf("%s is retained", topic)
			}
		}
	}
}

func TestTelemetryIsForwardedOnceStored(t *testing.T) {
	for qos := range byte(3) {
		t.Run(fmt.Sprint(qos), func(t *testing.T) {
			h := newHouse(t, loopback())
			h.set(func() { h.hold = true })
			w := h.connect(t, hello{id: "a"})
			listener := h.connect(t, hello{version: 5, id: "l"})
			w.publish(0, 0, "telemetry/d/k", `{"a":0}`)
			eventually(t, "held", func() bool { return h.holding() == 1 })
			h.release()
			w.ping()
			listener.subscribe(1, "telemetry/+/k", 1)
			w.send(w.publication(qos<<1|1, 1, "telemetry/d/k", `{"a":1}`)) // with the retain flag
			eventually(t, "held", func() bool { return h.holding() == 1 })
			listener.ping()
			h.release()
			first := min(qos, 1)
			listener.wantsDelivery(0x30|first<<1, uint16(first), "telemetry/d/k", `{"a":1}`)
			listener.ping()
			h.connect(t, hello{id: "m"}).subscribe(1, "telemetry/#", 1)
			listener.send(packet(0xa2, []byte{0, 2, 0}, text("telemetry/+/k")))
			listener.wants("b0 00020000")
			h.set(func() { h.hold = false })
			w.publish(0, 0, "telemetry/d/k", `{"a":2}`)
			h.wants(t, "d/k a=0", "d/k a=1", "d/k a=2")
			listener.ping()
		})
	}
}

func TestRetainedTelemetryIsNotKept(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "a"})
	w.send(w.publication(2|1, 1, "telemetry/d/k", `{"a":1}`))
	w.wants("40 0001")
	w.send(w.publication(2|1, 2, "telemetry/d/k", ""))
	w.wants("40 0002")
	w.subscribe(3, "telemetry/#", 1)
	w.ping()
	if r := h.reasons(); len(r) > 0 {
		t.Fatalf("set aside: %s", r)
	}
}

func TestWarningsOut(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "inline"}) // the name of the MQTT server's own client
	publish := func(payload string) {
		t.Helper()
		if err := h.Publish("warnings/d/flood", []byte(payload), true, 1); err != nil {
			t.Fatal(err)
		}
	}
	publish("1")
	w.subscribe(1, "warnings/#", 1)
	w.wantsDelivery(0x33, 1, "warnings/d/flood", "1")
	publish("2")
	w.wantsDelivery(0x32, 2, "warnings/d/flood", "2")
	publish("")
	w.wantsDelivery(0x32, 3, "warnings/d/flood", "")
	late := h.connect(t, hello{id: "late"})
	late.subscribe(1, "warnings/#", 1)
	late.ping()
	for _, topic := range []string{"", "a/+", "#"} {
		if err := h.Publish(topic, nil, false, 0); err == nil {
			t.Errorf("topic %q was taken", topic)
		}
	}
	// mochi removes retained messages after this many seconds.
	if s := h.server.Options.Capabilities.MaximumMessageExpiryInterval; s != 0 {
		t.Errorf("retained warnings end after %d s", s)
	}
}

func TestOnlyThisProgramWarns(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{version: 5, id: "a"})
	w.publish(1, 1, "warnings/d/flood", "x")
	if first, body := w.packet(); first != 0x40 || body[1] != 1 || body[2] != 0x87 {
		t.Fatalf("packet %x %x", first, body)
	}
	w.publish(2, 2, "warnings/d/flood", "x")
	if first, body := w.packet(); first != 0x50 || body[1] != 2 || body[2] != 0x87 {
		t.Fatalf("packet %x %x", first, body)
	}
	w.ping()
	w = h.connect(t, hello{id: "b"})
	w.publish(1, 1, "warnings/d/flood", "x")
	w.wantsEnd()
	h.counts(t, "haidang_broker_messages_total", "family=other,result=refused", 3)
	h.counts(t, "haidang_broker_disconnects_total", "reason=not_authorized", 1)
}

// A client of MQTT 3.1.1 that is cut off sees no reason; the operator does, once.
func TestWritersOfWarningsAreNamed(t *testing.T) {
	h := newHouse(t, loopback())
	for i := range 3 {
		w := h.connect(t, hello{id: fmt.Sprintf("intruder-%d", i)})
		w.publish(1, 1, "warnings/d/flood", "x")
		w.wantsEnd()
	}
	h.counts(t, "haidang_broker_messages_total", "family=other,result=refused", 3)
	const want = `level=WARN msg="a client publishes where it may not" client=intruder-0 topic=warnings/d/flood disconnected=true`
	if said := h.logs.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, want) {
		t.Errorf("said\n%swant one line with %s", said, want)
	}
}

func TestTopicsOfTheServerAreAcknowledged(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			h := newHouse(t, loopback())
			listener := h.connect(t, hello{id: "l"})
			listener.subscribe(1, "#", 0)
			listener.subscribe(2, "$SYS/x", 0)
			listener.subscribe(3, "warnings", 0)
			w := h.connect(t, hello{version: version, id: "a"})
			reason := map[byte]string{4: "", 5: "87"}[version]
			w.publish(1, 1, "$SYS/x", "x")
			w.wants("40 0001" + reason)
			w.publish(1, 1, "$SYS/x", "x") // the id is free again
			w.wants("40 0001" + reason)
			w.publish(0, 0, "$SYS/x", "x")
			w.ping()
			w.publish(2, 2, "$sys", "x")
			w.wants("50 0002" + reason)
			if version == 4 {
				w.send([]byte{0x62, 2, 0, 2})
				w.wants("70 0002")
			}
			w.publish(1, 3, "$share", "x")
			w.wants("40 0003" + reason)
			w.publish(1, 4, "telemetry/d/k", `{"a":1}`)
			w.wants("40 0004")
			h.wants(t, "d/k a=1")
			h.counts(t, "haidang_broker_messages_total", "family=other,result=refused", 5)
			listener.wantsDelivery(0x30, 0, "telemetry/d/k", `{"a":1}`)
			listener.ping()
			if said := h.logs.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "client=a topic=$SYS/x disconnected=false") {
				t.Errorf("said\n%swant one line that names client and topic", said)
			}
			w.publish(1, 5, "$SYS/#", "x")
			if version == 4 {
				w.wantsEnd()
			}
		})
	}
}

func TestRetainedMessagesOfClientsAreBounded(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "a"})
	large := strings.Repeat("x", 1000<<10)
	id := uint16(0)
	retain := func(topic, payload string) {
		id++
		w.send(w.publication(2|1, id, topic, payload))
		w.wants(fmt.Sprintf("40 %04x", id))
	}
	for i := range 20 {
		retain(fmt.Sprintf("x/%d", i), large)
	}
	h.counts(t, "haidang_broker_drops_total", "reason=retained_full", 4)
	retain("x/0", "")
	retain("x/19", large)
	h.counts(t, "haidang_broker_drops_total", "reason=retained_full", 4)
	if _, kept := h.server.Topics.Retained.Get("x/19"); !kept {
		t.Fatal("there was room")
	}
}

func TestReceiveMaximumOfASubscriber(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{version: 5, id: "a", receiveMaximum: 2})
	w.subscribe(1, "x", 1)
	for i := range 5 {
		if err := h.Publish("x", fmt.Append(nil, i), false, 1); err != nil {
			t.Fatal(err)
		}
	}
	w.wantsDelivery(0x32, 1, "x", "0")
	w.wantsDelivery(0x32, 2, "x", "1")
	for i := uint16(3); i <= 5; i++ {
		w.puback(i - 2)
		w.wantsDelivery(0x32, i, "x", fmt.Sprint(i-1))
	}
}

func TestASubscriberThatDoesNotReadDelaysNoAcknowledgement(t *testing.T) {
	h := newHouse(t, loopback())
	deaf := h.connect(t, hello{id: "deaf"})
	deaf.subscribe(1, "telemetry/#", 1)
	w := h.connect(t, hello{id: "a"})
	payload := `{"a":1,"w":"` + strings.Repeat("x", 15<<10) + `"}`
	for i := range 1200 { // more than the buffers of the socket and the queue to subscribers hold
		w.publish(1, uint16(i+1), "telemetry/d/k", payload)
		w.wants(fmt.Sprintf("40 %04x", i+1))
	}
	dropped := func() float64 { return h.metric("haidang_broker_drops_total", "reason=slow_client") }
	eventually(t, "drops are counted", func() bool { return dropped() > 0 })
}

// TestASubscriberThatReads lets the log settle thousands of messages at once.
// Within the bound of a subscriber's queue none is lost; beyond it each one comes
// or is counted.
func TestASubscriberThatReads(t *testing.T) {
	cfg := loopback()
	cfg.Limits.Queue = 3 * maxPending
	h := newHouse(t, cfg)
	dropped := func() int { return int(h.metric("haidang_broker_drops_total", "reason=slow_client")) }
	for _, c := range []struct {
		qos        byte
		publishers int
		lossless   bool
	}{{1, 3, true}, {0, 3, true}, {1, 6, false}, {0, 6, false}} {
		sub := h.connect(t, hello{id: "s"})
		sub.subscribe(1, "telemetry/#", c.qos)
		h.set(func() { h.hold = true })
		sent, before := c.publishers*maxPending, dropped()
		for i := range c.publishers {
			w := h.connect(t, hello{id: fmt.Sprint("p", i)})
			for n := range maxPending {
				w.publish(1, uint16(n+1), "telemetry/d/k", `{"a":1}`)
			}
		}
		eventually(t, "all are held", func() bool { return h.holding() >= sent })
		go h.release()
		came := 0
		for quiet := 0; came+dropped()-before < sent; {
			_ = sub.SetReadDeadline(time.Now().Add(time.Second))
			first, body, err := sub.read()
			if errors.Is(err, os.ErrDeadlineExceeded) && quiet < 2*int(patience/time.Second) {
				quiet++ // what is not read yet may have been counted as dropped meanwhile
				continue
			}
			if err != nil {
				t.Fatalf("QoS %d: %d of %d messages came and %d are counted as dropped, then %v", c.qos, came, sent, dropped()-before, err)
			}
			came, quiet = came+1, 0
			if first&6 > 0 {
				at := 2 + binary.BigEndian.Uint16(body)
				sub.puback(binary.BigEndian.Uint16(body[at:]))
			}
		}
		if c.lossless && came < sent {
			t.Errorf("QoS %d: %d of %d messages came, within the bound", c.qos, came, sent)
		}
		h.set(func() { h.hold = false })
		sub.Close()
	}
}

func TestTopicAlias(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{version: 5, id: "a"})
	alias := []byte{3, 35, 0, 1}
	w.send(packet(0x32, text("telemetry/d/k"), []byte{0, 1}, alias, []byte(`{"a":1}`)))
	w.send(packet(0x32, text(""), []byte{0, 2}, alias, []byte(`{"a":2}`)))
	w.wants("40 0001", "40 0002")
	h.wants(t, "d/k a=1", "d/k a=2")
}

func TestNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	h := newHouse(t, loopback())
	for i := range 20 {
		w := h.connect(t, hello{id: fmt.Sprint(i)})
		w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
		w.wants("40 0001")
	}
	h.dial(t)
	h.stop()
	// What remains is the archive's goroutine.
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before+1 })
	if h.metrics.pending.Load() != 0 || len(h.connections) != 0 || len(h.links.carriers) != 0 {
		t.Error("something is left")
	}
}

func TestTooManyConnections(t *testing.T) {
	cfg := loopback()
	cfg.MaxClients = 1
	h := newHouse(t, cfg)
	h.connect(t, hello{id: "a"})
	h.connect(t, hello{id: "b", wantsCode: 3}).wantsEnd()
	h.connect(t, hello{version: 5, id: "b", wantsCode: 0x89}).wantsEnd()
	h.counts(t, "haidang_broker_limited_total", "limit=total_connections", 2)
	serves := func(n int) {
		eventually(t, "all are served", func() bool { h.Broker.mu.Lock(); defer h.Broker.mu.Unlock(); return len(h.connections) == n })
	}
	serves(1)
	for range 63 {
		h.dial(t)
	}
	h.dial(t)
	serves(65)
	h.dial(t).wantsEnd()
	h.counts(t, "haidang_broker_drops_total", "reason=too_many", 1)
}

// TestWebsocketServesNothingElse asks for a page on the WebSocket listener: the
// connection must not stay open behind the answer.
func TestWebsocketServesNothingElse(t *testing.T) {
	cfg := loopback()
	cfg.Websocket.Listen = "127.0.0.1:0"
	h := newHouse(t, cfg)
	conn, err := net.Dial("tcp", h.WebsocketAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), " 400 ") {
		t.Fatalf("%q, %v; want 400 and the end", answer, err)
	}
}

func TestExpiredSessionsLeaveNoSubscription(t *testing.T) {
	t.Parallel()
	h := newHouse(t, loopback())
	w := h.connect(t, hello{version: 5, id: "a", expiry: 1})
	w.subscribe(1, "telemetry/#", 1)
	_ = w.Close()
	eventually(t, "the subscription ends", func() bool { return len(h.server.Topics.Subscribers("telemetry/d/k").Subscriptions) == 0 })
	h.Broker.sessions.mu.Lock()
	defer h.Broker.sessions.mu.Unlock()
	if len(h.Broker.sessions.byID) > 0 {
		t.Fatal("the session is kept")
	}
}

func TestJoin(t *testing.T) {
	var got []error
	done := join(3, func(err error) { got = append(got, err) })
	full := errors.New("full")
	done(nil)
	done(full)
	done(errors.New("other"))
	if len(got) != 1 || got[0] != full {
		t.Fatal(got)
	}
}
