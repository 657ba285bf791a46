package broker

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// Each violation closes that connection, and no other, with the reason that MQTT
// 5 names; MQTT 3.1.1 only closes.
func TestViolations(t *testing.T) {
	h := newHouse(t, loopback())
	other := h.connect(t, hello{id: "other"})
	props := func(version byte) []byte {
		if version == 5 {
			return []byte{0}
		}
		return nil
	}
	for _, c := range []struct {
		name   string
		packet func(version byte) []byte
		code   byte
		only5  bool
	}{
		{"a second CONNECT", func(v byte) []byte { // [MQTT-3.1.0-2]
			return packet(0x10, text("MQTT"), []byte{v, 2, 0, 60}, props(v), text("x"))
		}, 0x82, false},
		{"PUBLISH with QoS 3", func(v byte) []byte { return packet(0x36, text("x"), []byte{0, 1}, props(v)) }, 0x81, false},                    // [MQTT-3.3.1-4]
		{"PUBLISH with a wildcard", func(v byte) []byte { return packet(0x30, text("a/+"), props(v)) }, 0x82, false},                           // [MQTT-3.3.2-2]
		{"PUBLISH without a topic", func(v byte) []byte { return packet(0x30, text(""), props(v)) }, 0x82, false},                              // [MQTT-4.7.3-1]
		{"PUBLISH with packet id 0", func(v byte) []byte { return packet(0x32, text("x"), []byte{0, 0}, props(v)) }, 0x82, false},              // [MQTT-2.2.1-3]
		{"PUBLISH with QoS 0 and DUP", func(v byte) []byte { return packet(0x38, text("x"), props(v)) }, 0x82, false},                          // [MQTT-3.3.1-2]
		{"PUBLISH cut short", func(byte) []byte { return []byte{0x30, 3, 0, 9, 'x'} }, 0x81, false},                                            //
		{"a topic that is not UTF-8", func(v byte) []byte { return packet(0x30, text("a\xff"), props(v)) }, 0x81, false},                       // [MQTT-1.5.4-1]
		{"a topic with U+0000", func(v byte) []byte { return packet(0x30, text("a\x00b"), props(v)) }, 0x81, false},                            // [MQTT-1.5.4-2]
		{"topic alias 0", func(byte) []byte { return packet(0x30, text("x"), []byte{3, 35, 0, 0}) }, 0x94, true},                               // [MQTT-3.3.2-8]
		{"a topic alias above the maximum", func(byte) []byte { return packet(0x30, text("x"), []byte{3, 35, 2, 0}) }, 0x94, true},             // [MQTT-3.3.2-9]
		{"a topic alias that is not known", func(byte) []byte { return packet(0x30, text(""), []byte{3, 35, 0, 9}) }, 0x82, true},              //
		{"a subscription identifier in PUBLISH", func(byte) []byte { return packet(0x30, text("x"), []byte{2, 11, 1}) }, 0x82, true},           // [MQTT-3.3.4-6]
		{"a property twice", func(byte) []byte { return packet(0x30, text("x"), []byte{10, 2, 0, 0, 0, 9, 2, 0, 0, 0, 9}) }, 0x82, true},       // 2.2.2.2
		{"an unknown property", func(byte) []byte { return packet(0x30, text("x"), []byte{2, 0x7f, 0}) }, 0x81, true},                          //
		{"SUBSCRIBE with wrong flags", func(v byte) []byte { return packet(0x80, []byte{0, 1}, props(v), text("x"), []byte{0}) }, 0x81, false}, // [MQTT-3.8.1-1]
		{"SUBSCRIBE without filters", func(v byte) []byte { return packet(0x82, []byte{0, 1}, props(v)) }, 0x82, false},                        // [MQTT-3.8.3-2]
		{"SUBSCRIBE with packet id 0", func(v byte) []byte { return packet(0x82, []byte{0, 0}, props(v), text("x"), []byte{0}) }, 0x82, false},
		{"SUBSCRIBE with QoS 3", func(v byte) []byte { return packet(0x82, []byte{0, 1}, props(v), text("x"), []byte{3}) }, 0x81, false}, // [MQTT-3.8.3-5]
		{"UNSUBSCRIBE without filters", func(v byte) []byte { return packet(0xa2, []byte{0, 1}, props(v)) }, 0x82, false},                // [MQTT-3.10.3-2]
		{"PUBREL with wrong flags", func(byte) []byte { return []byte{0x60, 2, 0, 1} }, 0x81, false},                                     // [MQTT-3.6.1-1]
		{"PINGREQ with wrong flags", func(byte) []byte { return []byte{0xc1, 0} }, 0x81, false},                                          // [MQTT-2.1.3-1]
		{"packet type 0", func(byte) []byte { return []byte{0x00, 0} }, 0x81, false},                                                     //
		{"a length of five bytes", func(byte) []byte { return []byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x7f} }, 0x81, false},                 // [MQTT-1.5.5-1]
		{"CONNACK from a client", func(byte) []byte { return []byte{0x20, 2, 0, 0} }, 0x81, false},
	} {
		for _, version := range []byte{4, 5} {
			if c.only5 && version == 4 {
				continue
			}
			t.Run(fmt.Sprintf("%s/v%d", c.name, version), func(t *testing.T) {
				w := h.connect(t, hello{version: version, id: "a"})
				w.send(c.packet(version))
				if version == 5 {
					w.wantsDisconnect(c.code)
				} else {
					w.wantsEnd()
				}
			})
		}
	}
	other.ping()
	if h.metric("haidang_broker_panics_total", "") != 0 {
		t.Errorf("a panic: %s", h.logs)
	}
}

func TestConnectsThatAreRefused(t *testing.T) {
	h := newHouse(t, loopback())
	for _, c := range []struct {
		name string
		sent []byte
		want string // in hex; empty: the connection only ends
	}{
		{"a first packet that is no CONNECT", []byte{0xc0, 0}, ""},                                                            // [MQTT-3.1.0-1]
		{"another protocol", packet(0x10, text("MQIsdp"), []byte{4, 2, 0, 60}, text("a")), ""},                                // [MQTT-3.1.2-1]
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), ""},                                                                        //
		{"version 6", packet(0x10, text("MQTT"), []byte{6, 2, 0, 60}, text("a")), ""},                                         // [MQTT-3.1.2-2]
		{"the reserved flag", packet(0x10, text("MQTT"), []byte{4, 3, 0, 60}, text("a")), ""},                                 // [MQTT-3.1.2-3]
		{"a session without a client id", packet(0x10, text("MQTT"), []byte{4, 0, 0, 60}, text("")), "20 0002"},               // [MQTT-3.1.3-8]
		{"a will with QoS 3", packet(0x10, text("MQTT"), []byte{4, 0x1e, 0, 60}, text("a"), text("t"), text("p")), ""},        // [MQTT-3.1.2-14]
		{"a password without a user", packet(0x10, text("MQTT"), []byte{4, 0x42, 0, 60}, text("a"), text("p")), ""},           // [MQTT-3.1.2-22]
		{"a client id that is not UTF-8", packet(0x10, text("MQTT"), []byte{4, 2, 0, 60}, text("\xff")), ""},                  // [MQTT-1.5.4-1]
		{"CONNECT cut short", packet(0x10, text("MQTT"), []byte{4, 2}), ""},                                                   //
		{"an authentication method", packet(0x10, text("MQTT"), []byte{5, 2, 0, 60, 4, 21, 0, 1, 'x'}, text("a")), "20 008c"}, // 4.12: not supported
	} {
		t.Run(c.name, func(t *testing.T) {
			w := h.dial(t)
			w.send(c.sent)
			first, body, err := w.read()
			if got := fmt.Sprintf("%02x %x", first, body[:min(len(body), 2)]); err == nil && c.want != "" && got == c.want {
				w.wantsEnd()
				return
			} else if err == nil && first == 0x20 && body[1] >= 1 && c.want == "" {
				w.wantsEnd() // a reason is more than is asked for
				return
			} else if err == nil || c.want != "" {
				t.Fatalf("got %s %v, want %q", got, err, c.want)
			}
		})
	}
	h.connect(t, hello{id: "a"}).ping()
}

func TestKeepAliveEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t, loopback())
	for _, version := range []byte{4, 5} {
		w := h.dial(t)
		w.version = version
		properties := []byte{}
		if version == 5 {
			properties = []byte{0}
		}
		start := time.Now()
		w.send(packet(0x10, text("MQTT"), []byte{version, 2, 0, 1}, properties, text("a"))) // of one second
		first, body := w.packet()
		if first != 0x20 || body[1] != 0 {
			t.Fatalf("CONNACK %x %x", first, body)
		}
		if version == 5 {
			w.wantsDisconnect(0x8d)
		} else {
			w.wantsEnd()
		}
		if took := time.Since(start); took < time.Second || took > 4*time.Second {
			t.Errorf("after %s", took)
		}
	}
}

func TestRetainedMessages(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "a"})
	w.send(w.publication(2|1, 1, "chat/x", "kept"))
	w.wants("40 0001")
	five := h.connect(t, hello{version: 5, id: "five"})
	ask := func(options byte) {
		t.Helper()
		five.send(packet(0x82, []byte{0, 1, 0}, text("chat/#"), []byte{options}))
		if first, body := five.packet(); first != 0x90 || body[len(body)-1] != options&3 {
			t.Fatalf("SUBACK %x %x", first, body)
		}
	}
	ask(0x20) // retain handling 2: none
	five.ping()
	ask(0x10) // 1: none, the subscription is there
	five.ping()
	ask(0x00) // 0: always
	five.wantsDelivery(0x31, 0, "chat/x", "kept")
	ask(0x08) // retain as published
	five.wantsDelivery(0x31, 0, "chat/x", "kept")
	w.send(w.publication(2|1, 2, "chat/x", "again"))
	w.wants("40 0002")
	five.wantsDelivery(0x31, 0, "chat/x", "again")
	w.send(w.publication(2|1, 3, "chat/x", "")) // takes it away [MQTT-3.3.1-6]
	w.wants("40 0003")
	five.wantsDelivery(0x31, 0, "chat/x", "")
	late := h.connect(t, hello{id: "late"})
	late.subscribe(1, "chat/#", 0)
	late.ping()
}

// A will that waits is not sent when the client is back in time [MQTT-3.1.3-9].
func TestDelayedWills(t *testing.T) {
	t.Parallel()
	h := newHouse(t, loopback())
	o := hello{version: 5, id: "a", expiry: 100, willTopic: "telemetry/d/k", willPayload: `{"a":1}`, willDelay: 1}
	_ = h.connect(t, o).Close()
	h.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
	o.wantsSession, o.keep = true, true
	w := h.connect(t, o)
	o.wantsSession = false
	o.id = "b"
	_ = h.connect(t, o).Close()
	h.wants(t, "d/k a=1") // of b alone
	w.ping()
	// DISCONNECT takes the will away, unless it says 0x04 [MQTT-3.14.4-3].
	w.send([]byte{0xe0, 0})
	o.id, o.willPayload, o.willDelay = "c", `{"a":2}`, 0
	h.connect(t, o).send([]byte{0xe0, 1, 4})
	h.wants(t, "d/k a=1", "d/k a=2")
}

// What was queued for a client that is away comes when it is back, until its
// session ends.
func TestSessionsOfMQTT5(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{version: 5, id: "a", keep: true, expiry: 100})
	w.subscribe(1, "chat/#", 1)
	_ = w.Close()
	h.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
	for i := range 5 {
		if err := h.Publish("chat/x", fmt.Append(nil, i), false, 1); err != nil {
			t.Fatal(err)
		}
	}
	w = h.connect(t, hello{version: 5, id: "a", keep: true, expiry: 100, wantsSession: true})
	for i := range 5 {
		_, id, _, payload := w.delivery()
		if payload != fmt.Sprint(i) {
			t.Errorf("message %d is %s", i, payload)
		}
		w.puback(id)
	}
	// Session expiry may be shortened at the end (3.14.2.2.2).
	w.send(packet(0xe0, []byte{0, 5, 17, 0, 0, 0, 0}))
	w.wantsEnd()
	w = h.connect(t, hello{version: 5, id: "a", keep: true, expiry: 100})
	w.ping()
	// One of no length ends with its connection, also when that is taken over.
	short := h.connect(t, hello{version: 5, id: "short", keep: true})
	short.subscribe(1, "chat/#", 1)
	h.connect(t, hello{version: 5, id: "short", keep: true}).ping()
	short.wantsDisconnect(0x8e)
	if found := h.server.Topics.Subscribers("chat/x").Subscriptions; len(found) > 0 {
		t.Errorf("subscriptions are left: %v", found)
	}
	h.connect(t, hello{version: 5, id: "a", expiry: 100}).ping() // clean start: a new session
	w.wantsDisconnect(0x8e)
}

// A session may be asked for that lasts longer than a day; CONNACK says what it is
// (3.2.2.3.2).
func TestSessionsEndAfterADay(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.dial(t)
	w.version = 5
	w.send(packet(0x10, text("MQTT"), []byte{5, 2, 0, 60, 5, 17, 0xff, 0xff, 0xff, 0xff}, text("a")))
	first, body := w.packet()
	if want := []byte{17, 0, 1, 0x51, 0x80}; first != 0x20 || body[1] != 0 || !bytes.Contains(body, want) {
		t.Fatalf("CONNACK %x %x does not say 86,400 s", first, body)
	}
}

// A client that says what it can take is not sent more.
func TestMaximumPacketSizeOfASubscriber(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.dial(t)
	w.version = 5
	w.send(packet(0x10, text("MQTT"), []byte{5, 2, 0, 60, 5, 39, 0, 0, 0, 64}, text("a")))
	w.packet()
	w.subscribe(1, "chat/#", 0)
	for _, payload := range []string{string(bytes.Repeat([]byte("x"), 100)), "small"} {
		if err := h.Publish("chat/x", []byte(payload), false, 0); err != nil {
			t.Fatal(err)
		}
	}
	w.wantsDelivery(0x30, 0, "chat/x", "small")
}
