package broker

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

func TestSharedSubscriptions(t *testing.T) {
	h := newHouse(t, loopback())
	var workers []*wire
	for i := range 3 {
		w := h.connect(t, hello{version: 5, id: fmt.Sprint("worker-", i)})
		w.subscribe(1, "$share/group/telemetry/#", 1)
		workers = append(workers, w)
	}
	alone := h.connect(t, hello{id: "alone"})
	alone.subscribe(1, "telemetry/#", 1)
	w := h.connect(t, hello{id: "a"})
	for i := range 30 {
		w.publish(1, uint16(i+1), "telemetry/d/k", fmt.Sprintf(`{"a":%d}`, i))
		w.wants(fmt.Sprintf("40 %04x", i+1))
		_, id, _, _ := alone.delivery()
		alone.puback(id)
	}
	heard := 0
	eventually(t, "the group hears 30 messages", func() bool {
		for _, worker := range workers {
			worker.send([]byte{0xc0, 0})
			for first, _ := worker.packet(); first != 0xd0; first, _ = worker.packet() {
				heard++
			}
		}
		return heard >= 30
	})
	if heard != 30 {
		t.Errorf("the group heard %d messages of 30", heard)
	}
	// A shared subscription gets no retained messages (4.8.2).
	if err := h.Publish("warnings/d/r", []byte("x"), true, 1); err != nil {
		t.Fatal(err)
	}
	workers[0].subscribe(2, "$share/group/warnings/#", 1)
	workers[0].ping()
}

// A member that is away gets nothing while another is there, and what it can keep
// when nobody is.
func TestASharedSubscriptionPassesOverWhoIsAway(t *testing.T) {
	h := newHouse(t, loopback())
	var members []*wire
	for i := range 2 {
		w := h.connect(t, hello{id: fmt.Sprint(i), keep: true})
		w.subscribe(1, "$share/group/chat", 1)
		members = append(members, w)
	}
	say := func(payload string) {
		t.Helper()
		if err := h.Publish("chat", []byte(payload), false, 1); err != nil {
			t.Fatal(err)
		}
	}
	_ = members[0].Close()
	h.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
	for i := range uint16(6) {
		say(fmt.Sprint(i))
		members[1].wantsDelivery(0x32, i+1, "chat", fmt.Sprint(i))
		members[1].puback(i + 1)
	}
	_ = members[1].Close()
	h.counts(t, "haidang_broker_disconnects_total", "reason=lost", 2)
	say("late")
	say("later")
	heard := map[string]bool{}
	for i := range 2 {
		w := h.connect(t, hello{id: fmt.Sprint(i), keep: true, wantsSession: true})
		_, _, _, payload := w.delivery()
		heard[payload] = true
	}
	if !heard["late"] || !heard["later"] {
		t.Errorf("heard %v", heard)
	}
}

// $SYS is for who asks for it, and not for a wildcard [MQTT-4.7.2-1].
func TestSharedSubscriptionsHearNoSYS(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "a"})
	for i, filter := range []string{"$share/g/#", "$share/g/+/x", "$share/g/$SYS/#"} {
		w.subscribe(uint16(i+1), filter, 0)
	}
	chosen := (&hooks{Broker: h.Broker}).OnSelectSubscribers(h.server.Topics.Subscribers("$SYS/x"), packets.Packet{})
	if len(chosen.Shared) != 1 || chosen.Shared["$share/g/$SYS/#"] == nil {
		t.Errorf("$SYS goes to %v", chosen.Shared)
	}
}

// TestPropertiesOfMessages follows what a message of MQTT 5 says besides its text,
// over a queue, from a client and in a will.
func TestPropertiesOfMessages(t *testing.T) {
	h := newHouse(t, loopback())
	const common = "\x01\x01\x03\x00\x04json\x08\x00\x03a/b\x09\x00\x01c\x26\x00\x01k\x00\x01v"
	expiring := func(seconds byte) string { return "\x02\x00\x00\x00" + string([]byte{seconds}) }
	sub := h.connect(t, hello{version: 5, id: "s", keep: true, expiry: 1000})
	sub.send(packet(0x82, []byte{0, 1, 2, 11, 7}, text("chat/#"), []byte{1})) // with identifier 7
	sub.wants("90 00010001")
	sub.send([]byte{0xe0, 0})
	sub.wantsEnd()
	h.counts(t, "haidang_broker_disconnects_total", "reason=client", 1)

	w := h.connect(t, hello{version: 5, id: "a"})
	say := func(properties, payload string) {
		w.send(packet(0x32, text("chat/x"), []byte{0, 1, byte(len(properties))}, []byte(properties), []byte(payload)))
		w.wants("40 0001")
	}
	say(common+expiring(100), "first")
	say(expiring(1), "gone")
	say("", "plain")
	will := "\x18\x00\x00\x00\x00" + common + expiring(100)
	dying := h.dial(t)
	dying.send(packet(0x10, text("MQTT"), []byte{5, 0x0e, 0, 60, 0}, text("w"), []byte{byte(len(will))}, []byte(will), text("chat/will"), text("farewell")))
	dying.packet()
	_ = dying.Close()
	eventually(t, "the second has expired", func() bool { return expired(h) })

	sub = h.connect(t, hello{version: 5, id: "s", keep: true, expiry: 1000, wantsSession: true})
	for _, want := range []struct{ properties, payload string }{
		{common, "first"}, {"", "plain"}, {common, "farewell"},
	} {
		first, body := sub.packet()
		topic := int(binary.BigEndian.Uint16(body))
		body = body[2+topic+2:]
		properties, payload := string(body[1:1+body[0]]), string(body[1+body[0]:])
		if first != 0x32 || payload != want.payload || !strings.Contains(properties, "\x0b\x07") {
			t.Fatalf("PUBLISH %x %q %q, want %q with identifier 7", first, properties, payload, want.payload)
		}
		for _, part := range []string{"\x01\x01", "\x03\x00\x04json", "\x08\x00\x03a/b", "\x09\x00\x01c", "\x26\x00\x01k\x00\x01v"} {
			if strings.Contains(properties, part) != (want.properties != "") {
				t.Errorf("%s: properties %q, and %q", payload, properties, part)
			}
		}
		if left := strings.Index(properties, "\x02\x00\x00\x00"); (left >= 0) != (want.properties != "") || left >= 0 && (properties[left+4] > 100 || properties[left+4] < 80) {
			t.Errorf("%s: properties %q do not say how long it lives on", payload, properties)
		}
	}
}

// expired reports whether all four messages wait and the second is past its time.
func expired(h *house) bool {
	q := &h.Broker.sessions.of("s").queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) < 4 {
		return false
	}
	return time.Now().Unix() >= q.waiting[1].expires
}
