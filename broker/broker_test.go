package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

func TestTelemetryOfEveryQoSAndVersion(t *testing.T) {
	for _, version := range []byte{4, 5} { // and 3 in TestMosquitto
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			h := newHouse(t, loopback())
			w := h.connect(t, hello{version: version, id: "a"})
			w.publish(0, 0, "telemetry/kim-long/river", `{"level_m":1}`)
			w.publish(1, 7, "telemetry/kim-long/river", `{"level_m":2}`)
			w.wants("40 0007")
			w.publish(2, 8, "telemetry/kim-long/river", `{"level_m":3}`)
			w.wants("50 0008")
			w.send([]byte{0x62, 2, 0, 8})
			w.wants("70 0008")
			w.publish(1, 9, "influx/kim-long", "river level_m=4")
			w.wants("40 0009")
			h.wants(t, "kim-long/river level_m=1", "kim-long/river level_m=2", "kim-long/river level_m=3", "kim-long/river level_m=4")
			h.counts(t, "haidang_broker_messages_total", "family=telemetry,result=accepted", 3)
			h.counts(t, "haidang_broker_messages_total", "family=influx,result=accepted", 1)
			h.counts(t, "haidang_broker_acks_total", "", 3)
			h.counts(t, "haidang_broker_pending_messages", "", 0)
			h.counts(t, "haidang_broker_pending_bytes", "", 0)
		})
	}
}

func TestMappedTopics(t *testing.T) {
	cfg := loopback()
	cfg.Topics = []Mapping{{Topic: "site/+/+/data", Device: "2", Kind: "3"}}
	h := newHouse(t, cfg)
	w := h.connect(t, hello{id: "a"})
	w.publish(1, 1, "site/hue/rain/data", `{"rain_mm":1}`)
	w.wants("40 0001")
	h.wants(t, "hue/rain rain_mm=1")
}

func TestAcknowledgedInOrderAndOnlyWhenStored(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.hold = true })
	w := h.connect(t, hello{id: "a"})
	for id := range uint16(4) {
		w.publish(1, id+1, "telemetry/d/k", `{"a":1}`)
	}
	eventually(t, "four are held", func() bool { return h.holding() == 4 })
	w.ping() // nothing was acknowledged so far
	h.release(3, 1, 2)
	w.ping() // the first is not stored yet
	h.counts(t, "haidang_broker_pending_messages", "", 4)
}

func TestAcknowledgedNotBeforeStored(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.hold = true })
	w := h.connect(t, hello{id: "a"})
	for id := range uint16(3) {
		w.publish(1, id+1, "telemetry/d/k", `{"a":1}`)
	}
	eventually(t, "three are held", func() bool { return h.holding() == 3 })
	h.release(2, 0)
	w.wants("40 0001")
	w.ping()
}

func TestAcknowledgedOutOfOrderOfStoring(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.hold = true })
	w := h.connect(t, hello{id: "a"})
	for id := range uint16(4) {
		w.publish(1, id+1, "telemetry/d/k", `{"a":1}`)
	}
	eventually(t, "four are held", func() bool { return h.holding() == 4 })
	h.release(3, 1, 2, 0)
	w.wants("40 0001", "40 0002", "40 0003", "40 0004")
}

func TestAtMost256Pending(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.hold = true })
	w := h.connect(t, hello{id: "a"})
	go func() {
		for id := range uint16(600) {
			if _, err := w.Write(w.publication(2, id+1, "telemetry/d/k", `{"a":1}`)); err != nil {
				return
			}
		}
	}()
	for id := uint16(0); id < 600; {
		most := min(maxPending, 600-int(id))
		eventually(t, "as many are held as may be", func() bool { return h.holding() == most })
		h.release()
		for range most {
			id++
			w.wants(fmt.Sprintf("40 %04x", id))
		}
	}
	if h.most > maxPending {
		t.Fatalf("%d messages were pending at a time", h.most)
	}
}

func TestMemoryOfPendingMessagesIsBounded(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.hold = true })
	payload := `{"a":1,"w":"` + strings.Repeat("x", 15<<10) + `"}`
	payload = "[" + strings.Repeat(payload+",", 15) + payload + "]"
	for i := range 2 {
		w := h.connect(t, hello{id: fmt.Sprint(i)})
		go func() {
			for id := range uint16(40) {
				if _, err := w.Write(w.publication(2, id+1, "telemetry/d/k", payload)); err != nil {
					return
				}
			}
		}()
	}
	readings, _ := newRoute("telemetry/d/k", nil).decodeJSON([]byte(payload))
	size := 512 + len(payload) + int(cost(readings))
	most := maxPendingBytes / size
	for total := 0; total < 80; {
		now := min(most, 80-total)
		eventually(t, "as many are held as may be", func() bool { return h.holding() == now })
		total += h.release()
	}
	// The reading that says that the device is there is a little more.
	if h.most > most || most >= 80 {
		t.Fatalf("%d messages of %d bytes pending at a time", h.most, size)
	}
}

func TestRefusedReadingsAreNotAcknowledged(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		for _, version := range []byte{4, 5} {
			t.Run(fmt.Sprintf("qos%d/v%d", qos, version), func(t *testing.T) {
				h := newHouse(t, loopback(), func(b *Broker) { b.refusePause = time.Millisecond })
				h.set(func() { h.refuse = errors.New("the log is full") })
				w := h.connect(t, hello{version: version, id: "a"})
				w.publish(qos, 1, "telemetry/d/k", `{"a":1}`)
				if version == 5 {
					first, body := w.packet()
					if first != 0xe0 || body[0] != 0x97 {
						t.Fatalf("packet %x %x instead of DISCONNECT 0x97", first, body)
					}
				}
				w.wantsEnd()
				h.counts(t, "haidang_broker_messages_total", "family=telemetry,result=refused", 1)
				h.counts(t, "haidang_broker_disconnects_total", "reason=refused", 1)
				h.counts(t, "haidang_broker_pending_messages", "", 0)
				h.set(func() { h.refuse = nil })
				w = h.connect(t, hello{version: version, id: "a"})
				w.send(w.publication(qos<<1|8, 1, "telemetry/d/k", `{"a":1}`))
				w.wants(fmt.Sprintf("%x0 0001", 3+qos))
				h.wants(t, "d/k a=1")
			})
		}
	}
}

func TestNothingIsTakenBehindARefusal(t *testing.T) {
	h := newHouse(t, loopback(), func(b *Broker) { b.refusePause = 50 * time.Millisecond })
	h.set(func() { h.refuse = errors.New("the log is full") })
	w := h.connect(t, hello{id: "a"})
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	h.counts(t, "haidang_broker_messages_total", "family=telemetry,result=refused", 1)
	h.set(func() { h.refuse = nil })
	w.publish(1, 2, "telemetry/d/k", `{"a":2}`)
	w.wantsEnd()
	h.counts(t, "haidang_broker_disconnects_total", "reason=refused", 1)
	if got := h.written(false); len(got) > 0 {
		t.Fatalf("taken in: %s", got)
	}
}

func TestRefusalKeepsEarlierAcknowledgements(t *testing.T) {
	h := newHouse(t, loopback(), func(b *Broker) { b.refusePause = time.Millisecond })
	h.set(func() { h.hold = true })
	w := h.connect(t, hello{id: "a"})
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	eventually(t, "held", func() bool { return h.holding() == 1 })
	h.set(func() { h.refuse = errors.New("the log is full") })
	w.publish(1, 2, "telemetry/d/k", `{"a":2}`)
	w.publish(1, 3, "telemetry/d/k", `{"a":3}`)
	eventually(t, "held", func() bool { return h.holding() == 3 })
	h.release(2, 1, 0)
	w.wantsEnd("40 0001")
}

func TestQoS0IsCountedWhenRefused(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.refuse = errors.New("the log is full") })
	w := h.connect(t, hello{id: "a"})
	w.publish(0, 0, "telemetry/d/k", `{"a":1}`)
	h.counts(t, "haidang_broker_messages_total", "family=telemetry,result=refused", 1)
	w.ping()
}

func TestBadPayloadsAreAcknowledgedAndSetAside(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "a"})
	large := `{"a":"` + strings.Repeat("x", 300<<10) + `"}`
	id := uint16(0)
	send := func(topic, payload string) {
		id++
		w.publish(1, id, topic, payload)
		w.wants(fmt.Sprintf("40 %04x", id))
	}
	send("telemetry/d/k", `{"a":NaN}`)
	send("telemetry/d/k", large)
	send("telemetry/d,1/k", `{"a":1}`)
	send("telemetry/d/k\"", `{"a":1}`)
	send("telemetry/d", `{"a":1}`)
	send("telemetry/d/k", "")
	send("influx/d", "river a=1\nriver a=\n")
	send("telemetry/d/k", `[{"a":2},{"a":{}},{"a":9007199254740993}]`)
	send("telemetry/d/k", `{"a":3}`)
	h.wants(t, "d/river a=1", "d/k a=2", "d/k a=3")
	want := "bad_json too_large bad_name bad_name bad_topic bad_json bad_line nested integer_too_large"
	if got := strings.Join(h.reasons(), " "); got != want {
		t.Fatalf("reasons %s", got)
	}
	l := h.aside[1]
	if l.Place != "telemetry/d/k" || l.Device != "d" || l.Source != "broker" || len(l.Bytes) != telemetry.MaxDeadLetterBytes || !strings.HasPrefix(large, string(l.Bytes)) {
		t.Fatalf("letter %+v", l)
	}
	if string(h.aside[7].Bytes) != `{"a":{}}` || string(h.aside[6].Bytes) != "river a=" {
		t.Fatalf("letters keep %q and %q", h.aside[7].Bytes, h.aside[6].Bytes)
	}
	h.counts(t, "haidang_broker_dead_letters_total", "reason=bad_json", 2)
	h.counts(t, "haidang_broker_messages_total", "family=telemetry,result=set_aside", 7)
}

func TestLettersOfOneMessageAreBounded(t *testing.T) {
	h := newHouse(t, loopback())
	w := h.connect(t, hello{id: "a"})
	w.publish(1, 1, "telemetry/d/k", "["+strings.Repeat("{},", 99)+`{"a":1}]`)
	w.wants("40 0001")
	h.wants(t, "d/k a=1")
	if n := len(h.aside); n != maxLetters || !strings.Contains(h.aside[n-1].Detail, "83 more") {
		t.Fatalf("%d letters, the last one %q", n, h.aside[n-1].Detail)
	}
	h.counts(t, "haidang_broker_dead_letters_total", "reason=no_values", 99)
}

func TestPacketTooLargeEndsTheConnection(t *testing.T) {
	h := newHouse(t, loopback())
	other := h.connect(t, hello{id: "b"})
	w := h.connect(t, hello{id: "a"})
	go func() { _, _ = w.Write(w.publication(2, 1, "telemetry/d/k", strings.Repeat("x", 2<<20))) }()
	w.wantsEnd()
	h.counts(t, "haidang_broker_disconnects_total", "reason=packet_too_large", 1)
	// Five bytes before CONNECT must not allocate what they announce.
	w = h.dial(t)
	w.send([]byte{0x10, 0xff, 0xff, 0xff, 0x7f})
	w.wantsEnd()
	h.counts(t, "haidang_broker_disconnects_total", "reason=packet_too_large", 2)
	other.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	other.wants("40 0001")
}

func TestNoConnect(t *testing.T) {
	h := newHouse(t, loopback(), func(b *Broker) { b.connectTimeout = 20 * time.Millisecond })
	w := h.dial(t)
	w.send([]byte{0x10}) // a beginning
	w.wantsEnd()
	h.counts(t, "haidang_broker_disconnects_total", "reason=no_connect", 1)
	h.connect(t, hello{id: "a"}).ping()
}

func TestTakeoverDropsPendingAcknowledgements(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.hold = true })
	first := h.connect(t, hello{id: "a", keep: true})
	first.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	eventually(t, "held", func() bool { return h.holding() == 1 })
	second := h.connect(t, hello{id: "a", keep: true, wantsSession: true})
	h.counts(t, "haidang_broker_disconnects_total", "reason=taken_over", 1)
	h.release()
	second.ping()
	h.counts(t, "haidang_broker_pending_messages", "", 0)
	h.set(func() { h.hold = false })
	second.send(second.publication(2|8, 1, "telemetry/d/k", `{"a":1}`))
	second.wants("40 0001")
}

func TestAPanicCostsOneConnection(t *testing.T) {
	t.Parallel()
	h := newHouse(t, loopback())
	other := h.connect(t, hello{id: "b"})
	h.set(func() { h.panics = true })
	w := h.connect(t, hello{id: "a"})
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	w.wantsEnd()
	// On the event loop of the MQTT server: a will that is sent later.
	w = h.connect(t, hello{version: 5, id: "c", expiry: 100, willTopic: "telemetry/d/k", willPayload: `{"a":1}`, willDelay: 1})
	_ = w.Close()
	h.counts(t, "haidang_broker_panics_total", "", 3) // the publish, the link that ends with it, the will
	h.set(func() { h.panics = false })
	other.publish(1, 1, "telemetry/e/k", `{"a":1}`)
	other.wants("40 0001")
	h.stop()
	if !strings.Contains(h.logs.String(), "the archive is on fire") {
		t.Fatal("the panic is not in the log")
	}
}

func TestLinks(t *testing.T) {
	h := newHouse(t, loopback())
	a, b := h.connect(t, hello{id: "a"}), h.connect(t, hello{id: "b"})
	for _, w := range []*wire{a, a, b} {
		w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
		w.wants("40 0001")
	}
	a.publish(1, 2, "telemetry/e/k", `bad`)
	a.wants("40 0002")
	links := func(want ...string) {
		t.Helper()
		eventually(t, strings.Join(want, "|"), func() bool { return strings.Join(h.written(true), "|") == strings.Join(want, "|") })
	}
	links("d/link up=1")
	_ = a.Close()
	h.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
	links("d/link up=1") // b carries it
	b.send([]byte{0xe0, 0})
	links("d/link up=1", `d/link up=0 cause="the client disconnected"`)
	b = h.connect(t, hello{id: "b"})
	b.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	b.wants("40 0001")
	links("d/link up=1", `d/link up=0 cause="the client disconnected"`, "d/link up=1")
	h.stop()
	links("d/link up=1", `d/link up=0 cause="the client disconnected"`, "d/link up=1") // it is the gateway that went
}

func TestStoppingWaitsForPendingAcknowledgements(t *testing.T) {
	h := newHouse(t, loopback())
	h.set(func() { h.hold = true })
	w := h.connect(t, hello{version: 5, id: "a", willTopic: "telemetry/d/k", willPayload: `{"a":2}`})
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	eventually(t, "held", func() bool { return h.holding() == 1 })
	ended := make(chan struct{})
	go func() { h.stop(); close(ended) }()
	eventually(t, "stopping", h.stopping.Load)
	h.release()
	w.wants("40 0001")
	if first, body := w.packet(); first != 0xe0 || body[0] != 0x8b {
		t.Fatalf("packet %x %x instead of DISCONNECT 0x8b", first, body)
	}
	<-ended
	h.wants(t, "d/k a=1") // and no will: the client is well
}

func TestOccupiedPort(t *testing.T) {
	h := newHouse(t, loopback())
	cfg := DefaultConfig()
	cfg.Listen = ""
	cfg.Websocket.Listen = h.Addr()
	_, err := New(cfg, h.archive, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "broker.websocket.listen: "+h.Addr()+" is in use") {
		t.Fatalf("error %v", err)
	}
}
