package broker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"haidang/gateway/account"
	"haidang/gateway/telemetry"
)

// limited starts a broker whose station kim-long has these limits.
func limited(t *testing.T, cfg Config, l telemetry.Limits) *guarded {
	t.Helper()
	g := guard(t, cfg)
	g.edit(func(b *account.Book) (err error) {
		g.secrets["tight"], err = b.Add(account.Record{Name: "tight", Role: telemetry.RoleStation, Limits: l, Publish: []string{"chat/#"}, Subscribe: []string{"chat/#"}}, "", true)
		return err
	})
	return g
}

func TestLimitOfConnections(t *testing.T) {
	g := limited(t, loopback(), telemetry.Limits{Connections: 2, Sessions: 3})
	a := g.as("tight", hello{id: "a", keep: true})
	b := g.as("tight", hello{version: 5, id: "b", keep: true, expiry: 100})
	g.as("tight", hello{id: "c", wantsCode: 3}).wantsEnd()
	g.as("tight", hello{version: 5, id: "c", wantsCode: 0x97}).wantsEnd()
	a2 := g.as("tight", hello{id: "a", keep: true, wantsSession: true}) // a takeover is none more
	a.wantsEnd()
	a2.ping()
	b.ping()
	g.as("phu-oc", hello{}).ping()
	g.counts(t, "haidang_broker_limited_total", "limit=connections", 2)
	_ = b.Close()
	g.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
	c := g.as("tight", hello{version: 5, id: "c", keep: true, expiry: 100})
	_ = c.Close()
	g.counts(t, "haidang_broker_disconnects_total", "reason=lost", 2)
	g.as("tight", hello{version: 5, id: "d", wantsCode: 0x97}).wantsEnd() // a, b and c have sessions
	g.counts(t, "haidang_broker_limited_total", "limit=sessions", 1)
	g.as("tight", hello{version: 5, id: "b", keep: true, wantsSession: true}).ping()
}

func TestLimitOfRate(t *testing.T) {
	t.Parallel()
	for _, over := range []string{overRateSlow, overRateDisconnect} {
		t.Run(over, func(t *testing.T) {
			cfg := loopback()
			cfg.Limits.OverRate = over
			g := limited(t, cfg, telemetry.Limits{MessagesPerS: 20})
			w := g.as("tight", hello{version: 5})
			start := time.Now()
			burst := 20 * int(rateBurst/time.Second)
			for i := range burst {
				w.publish(1, uint16(i+1), "telemetry/tight/k", `{"a":1}`)
				w.wants(fmt.Sprintf("40 %04x", i+1))
			}
			for i := range 20 {
				_, err := w.Write(w.publication(2, uint16(burst+i+1), "telemetry/tight/k", `{"a":1}`))
				if err != nil && over == overRateSlow {
					t.Fatal(err)
				}
				if over == overRateSlow {
					w.wants(fmt.Sprintf("40 %04x", burst+i+1))
				}
			}
			if over == overRateSlow {
				if took := time.Since(start); took < 500*time.Millisecond {
					t.Errorf("220 messages at 20/s with a burst of 200 took %s", took)
				}
			} else {
				for first, body := w.packet(); ; first, body = w.packet() {
					if first == 0xe0 {
						if body[0] != 0x96 {
							t.Errorf("DISCONNECT %x", body)
						}
						break
					}
				}
				g.counts(t, "haidang_broker_disconnects_total", "reason=rate", 1)
			}
			if g.metric("haidang_broker_limited_total", "limit=rate") == 0 {
				t.Error("nothing is counted")
			}
			g.as("phu-oc", hello{}).ping()
		})
	}
}

func TestLimitOfBytesInAll(t *testing.T) {
	cfg := loopback()
	cfg.Limits.BytesPerS = 4 << 10
	g := guard(t, cfg)
	a, b := g.as("kim-long", hello{}), g.as("phu-oc", hello{})
	payload := `{"w":"` + strings.Repeat("x", 20<<10) + `"}`
	start := time.Now()
	a.publish(1, 1, "telemetry/kim-long/k", payload)
	a.wants("40 0001")
	b.publish(1, 1, "telemetry/phu-oc/k", payload)
	b.wants("40 0001")
	b.publish(1, 2, "telemetry/phu-oc/k", `{"a":1}`)
	b.wants("40 0002")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if g.metric("haidang_broker_limited_total", "limit=total_rate") == 0 {
		t.Error("nothing is counted")
	}
}

func TestLimitOfPackets(t *testing.T) {
	g := limited(t, loopback(), telemetry.Limits{PacketBytes: 1000})
	w := g.as("tight", hello{version: 5})
	w.publish(1, 1, "telemetry/tight/k", `{"a":1}`)
	w.wants("40 0001")
	w.publish(1, 2, "telemetry/tight/k", strings.Repeat("x", 1000))
	w.wantsDisconnect(0x95)
	// Of all clients: the size that is announced is enough.
	for _, version := range []byte{4, 5} {
		w = g.as("kim-long", hello{version: version})
		w.send([]byte{0x32, 0xff, 0xff, 0xff, 0x7f})
		if version == 5 {
			w.wantsDisconnect(0x95)
		} else {
			w.wantsEnd()
		}
	}
	// Of somebody who has not said yet who he is.
	w = g.dial(t)
	w.send(append([]byte{0x10}, binary.AppendUvarint(nil, maxConnectBytes+1)...))
	w.wantsEnd()
	g.counts(t, "haidang_broker_limited_total", "limit=packet", 4)
	// A large packet right behind CONNECT is one of its own.
	w = g.dial(t)
	large := w.publication(0, 0, "telemetry/kim-long/k", `{"w":"`+strings.Repeat("x", 2*maxConnectBytes)+`"}`)
	w.send(append(packet(0x10, text("MQTT"), []byte{4, 0xc2, 0, 60}, text("z"), text("kim-long"), text(g.secrets["kim-long"])), large...))
	w.wants("20 0000")
	w.ping()
}

// wantsDisconnect reads DISCONNECT with the reason and then the end.
func (w *wire) wantsDisconnect(reason byte) {
	w.t.Helper()
	first, body := w.packet()
	if first != 0xe0 || body[0] != reason {
		w.t.Fatalf("packet %x %x is no DISCONNECT with reason %x", first, body, reason)
	}
	w.wantsEnd()
}

func TestLimitOfInflight(t *testing.T) {
	g := limited(t, loopback(), telemetry.Limits{Inflight: 3})
	g.set(func() { g.hold = true })
	w := g.dial(t)
	w.version = 5
	w.send(packet(0x10, text("MQTT"), []byte{5, 0xc2, 0, 60, 0}, text("a"), text("tight"), text(g.secrets["tight"])))
	first, body := w.packet()
	if first != 0x20 || !bytes.Contains(body, []byte{33, 0, 3}) {
		t.Fatalf("CONNACK %x %x announces no Receive Maximum of 3", first, body)
	}
	for i := range uint16(6) {
		w.publish(1, i+1, "telemetry/tight/k", `{"a":1}`)
	}
	eventually(t, "three are under way", func() bool { return g.holding() == 3 })
	g.release()
	w.wants("40 0001", "40 0002", "40 0003")
	eventually(t, "and the next three", func() bool { return g.holding() == 3 })
	g.set(func() { g.hold = false })
	g.release()
	w.wants("40 0004", "40 0005", "40 0006")
	w.subscribe(9, "chat/#", 1)
	for i := range 5 {
		if err := g.Publish("chat/x", fmt.Append(nil, i), false, 1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint16(3) {
		w.wantsDelivery(0x32, i+1, "chat/x", fmt.Sprint(i))
	}
	w.ping() // no fourth
	w.puback(1)
	w.wantsDelivery(0x32, 4, "chat/x", "3")
}

func TestLimitOfSubscriptionsAndLevels(t *testing.T) {
	cfg := loopback()
	cfg.Limits.Levels = 4
	g := limited(t, cfg, telemetry.Limits{Subscriptions: 2})
	for _, version := range []byte{4, 5} {
		over, deep := byte(0x80), byte(0x80)
		if version == 5 {
			over, deep = 0x97, 0x8f
		}
		w := g.as("tight", hello{version: version})
		properties := []byte{}
		if version == 5 {
			properties = []byte{0}
		}
		w.send(packet(0x82, []byte{0, 1}, properties, text("chat/1"), []byte{0}, text("chat/2"), []byte{0}, text("chat/3"), []byte{0}, text("chat/1"), []byte{0}, text("chat/1/2/3/4"), []byte{0}))
		_, body := w.packet()
		if got := body[len(body)-5:]; !bytes.Equal(got, []byte{0, 0, over, over, deep}) && !bytes.Equal(got, []byte{0, 0, over, 0, deep}) {
			t.Errorf("SUBACK %x", got)
		}
		w.publish(1, 2, "chat/1/2/3/4", "x")
		if version == 5 {
			w.wants("40 000290")
		} else {
			w.wantsEnd()
		}
	}
}

// Of all clients: the seventh subscription is one too many.
func TestLimitOfSubscriptionsInAll(t *testing.T) {
	cfg := loopback()
	cfg.Limits.Subscriptions = 6
	h := newHouse(t, cfg)
	for i := range 3 {
		w := h.connect(t, hello{id: fmt.Sprint(i)})
		w.subscribe(1, "a", 0)
		w.subscribe(2, "b", 0)
	}
	w := h.connect(t, hello{version: 5, id: "late"})
	w.send(packet(0x82, []byte{0, 1, 0}, text("a"), []byte{0}))
	w.wants("90 00010097")
	h.counts(t, "haidang_broker_limited_total", "limit=total_subscriptions", 1)
}

func TestLimitOfRetained(t *testing.T) {
	g := limited(t, loopback(), telemetry.Limits{Retained: 2})
	w := g.as("tight", hello{version: 5})
	retain := func(topic, payload, want string) {
		t.Helper()
		w.send(w.publication(2|1, 7, topic, payload))
		w.wants("40 0007" + want)
	}
	retain("chat/1", "x", "")
	retain("chat/2", "x", "")
	retain("chat/3", "x", "97")
	retain("chat/1", "again", "")
	retain("chat/2", "", "")
	retain("chat/3", "x", "")
	other := g.as("kim-long", hello{version: 5})
	other.send(other.publication(2|1, 7, "chat/4", "x"))
	other.wants("40 0007")
	g.counts(t, "haidang_broker_limited_total", "limit=retained", 1)
}

// Sockets of the WebSocket listener that ask for nothing are bounded, and shut out
// nobody who does.
func TestSilentWebsocketsAreBounded(t *testing.T) {
	t.Parallel()
	cfg := loopback()
	cfg.Websocket.Listen = "127.0.0.1:0"
	h := newHouse(t, cfg)
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", h.WebsocketAddr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	first := dial()
	for range maxLobby + 10 {
		dial()
	}
	_ = first.SetReadDeadline(time.Now().Add(patience))
	if n, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the oldest socket reads %d, %v; want its end", n, err)
	}
	h.counts(t, "haidang_broker_drops_total", "reason=too_many", 11)
	c := pahoClient(t, "ws://"+h.WebsocketAddr(), "a")
	finish(t, c.Publish("telemetry/d/k", 1, false, `{"a":1}`))
	h.counts(t, "haidang_broker_drops_total", "reason=too_many", 12)
}

// TestSilentSocketsShutOutNobodyElse fills the broker from one address with
// sockets that say nothing.
func TestSilentSocketsShutOutNobodyElse(t *testing.T) {
	cfg := loopback()
	cfg.MaxClients = 8
	h := newHouse(t, cfg)
	first := h.connect(t, hello{id: "first"})
	for range 71 {
		h.dialFrom(t, 2)
	}
	eventually(t, "all are there", func() bool { h.Broker.mu.Lock(); defer h.Broker.mu.Unlock(); return len(h.connections) == 72 })
	h.dialFrom(t, 2).wantsEnd()
	for i := range 3 {
		h.connect(t, hello{id: fmt.Sprint(i)}).ping()
	}
	first.ping()
	h.counts(t, "haidang_broker_drops_total", "reason=too_many", 4)
}
