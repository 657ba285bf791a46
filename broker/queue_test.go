package broker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"haidang/gateway/account"
	"haidang/gateway/telemetry"
)

// queueing starts a broker with an account reader of these limits, besides others.
func queueing(t *testing.T, cfg Config, limits telemetry.Limits) *guarded {
	t.Helper()
	g := guard(t, cfg)
	g.edit(func(b *account.Book) error {
		return b.Set("reader", func(r *account.Record) { r.Subscribe, r.Limits = []string{"chat/#"}, limits })
	})
	return g
}

// say publishes messages first to last on chat/x.
func (g *guarded) say(qos byte, first, last int) {
	g.t.Helper()
	for i := first; i <= last; i++ {
		if err := g.Publish("chat/x", fmt.Append(nil, i), false, qos); err != nil {
			g.t.Fatal(err)
		}
	}
}

// nothingHeld waits until no queue holds anything.
func (g *guarded) nothingHeld() {
	g.t.Helper()
	g.counts(g.t, "haidang_broker_queued_messages", "", 0)
	g.counts(g.t, "haidang_broker_queued_bytes", "", 0)
}

// A subscriber that reads and does not acknowledge gets what its window and its
// queue hold, in order, and what is beyond is counted for it and for nobody else.
func TestQueueOfASlowSubscriber(t *testing.T) {
	t.Parallel()
	g := queueing(t, loopback(), telemetry.Limits{Inflight: 5, Queue: 20})
	slow, quick := g.as("reader", hello{}), g.as("administrator", hello{})
	slow.subscribe(1, "chat/#", 1)
	quick.subscribe(1, "chat/#", 1)
	for i := 1; i <= 40; i++ {
		g.say(1, i, i)
		_, id, _, payload := quick.delivery()
		if payload != fmt.Sprint(i) {
			t.Fatalf("the quick one gets %s instead of %d", payload, i)
		}
		quick.puback(id)
		if i <= 5 {
			slow.wantsDelivery(0x32, uint16(i), "chat/x", fmt.Sprint(i))
		}
	}
	slow.ping() // no sixth
	g.counts(t, "haidang_broker_subscriber_drops_total", "account=reader", 15)
	g.counts(t, "haidang_broker_drops_total", "reason=slow_client", 15)
	g.counts(t, "haidang_broker_subscriber_drops_total", "account=administrator", 0)
	if got := fmt.Sprintf("%+v", g.Backlogs()); !strings.Contains(got, "{Account:reader Messages:25 Bytes:") || !strings.Contains(got, "Away:0 Dropped:15}") {
		t.Errorf("backlogs %s", got)
	}
	for i := 1; i <= 25; i++ {
		slow.puback(uint16(i))
		if i <= 20 {
			slow.wantsDelivery(0x32, uint16(i+5), "chat/x", fmt.Sprint(i+5))
		}
	}
	slow.ping()
	g.say(1, 41, 41) // there is room again
	slow.wantsDelivery(0x32, 26, "chat/x", "41")
	slow.puback(26)
	_, id, _, _ := quick.delivery()
	quick.puback(id)
	g.nothingHeld()
	if said := g.logs.String(); !strings.Contains(said, "account=reader client=reader/c-reader limit=slow_client") {
		t.Errorf("the operator is told\n%s", said)
	}
}

// A client that is away finds what its queue holds, in order, and what was dropped
// is counted for it. QoS 0 is not kept (3.1.2.4).
func TestQueueOfAClientThatIsAway(t *testing.T) {
	t.Parallel()
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			g := queueing(t, loopback(), telemetry.Limits{Queue: 20})
			o := hello{version: version, keep: true, expiry: 1000}
			w := g.as("reader", o)
			w.subscribe(1, "chat/#", 2)
			_ = w.Close()
			g.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
			g.say(0, 0, 9)
			g.say(1, 1, 10)
			g.say(2, 11, 25)
			g.counts(t, "haidang_broker_subscriber_drops_total", "account=reader", 5)
			if list := g.Backlogs(); len(list) != 1 || list[0].Away != 1 || list[0].Messages != 20 {
				t.Errorf("backlogs %+v", list)
			}
			o.wantsSession = true
			w = g.as("reader", o)
			for i := 1; i <= 20; i++ {
				first := byte(0x32)
				if i > 10 {
					first = 0x34
				}
				w.wantsDelivery(first, uint16(i), "chat/x", fmt.Sprint(i))
			}
			_ = w.Close() // nothing was acknowledged
			g.counts(t, "haidang_broker_disconnects_total", "reason=lost", 2)
			w = g.as("reader", o)
			for i := 1; i <= 20; i++ {
				first, id := byte(0x3a), uint16(i)
				if i > 10 {
					first = 0x3c
				}
				w.wantsDelivery(first, id, "chat/x", fmt.Sprint(i)) // again, in order
			}
			for i := 1; i <= 10; i++ {
				w.puback(uint16(i))
			}
			for i := 11; i <= 20; i++ {
				w.send(packet(0x50, []byte{0, byte(i)}))
				w.wants(fmt.Sprintf("62 %04x", i))
			}
			_ = w.Close() // the exchanges of QoS 2 are half done
			g.counts(t, "haidang_broker_disconnects_total", "reason=lost", 3)
			w = g.as("reader", o)
			for i := 11; i <= 20; i++ {
				w.wants(fmt.Sprintf("62 %04x", i))
				w.send(packet(0x70, []byte{0, byte(i)}))
			}
			w.ping()
			g.nothingHeld()
		})
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	cfg := loopback()
	cfg.Limits.QueuesBytes = 64 << 10
	g := queueing(t, cfg, telemetry.Limits{QueueBytes: 16 << 10})
	large := strings.Repeat("x", 4<<10)
	away := func(name string) {
		w := g.as(name, hello{keep: true})
		w.subscribe(1, "chat/#", 1)
		w.send([]byte{0xe0, 0})
		w.wantsEnd()
	}
	publish := func(n int) {
		for range n {
			if err := g.Publish("chat/x", []byte(large), false, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	away("reader")
	publish(5)
	g.counts(t, "haidang_broker_subscriber_drops_total", "account=reader", 2) // 3 of 4.3 KiB fit
	g.counts(t, "haidang_broker_drops_total", "reason=slow_client", 2)
	away("administrator")
	publish(20) // 3 of the first are there; a publication that several wait for counts once
	g.counts(t, "haidang_broker_drops_total", "reason=queues_full", 9)
	g.counts(t, "haidang_broker_subscriber_drops_total", "account=administrator", 9)
	for _, name := range []string{"reader", "administrator"} {
		g.as(name, hello{}).ping() // a clean start: the session and its queue end
	}
	g.nothingHeld()
}

// A client that ends and comes back at the same moment is not mistaken for the one
// that ended: mochi would forget it, and it would hear nothing.
func TestAClientThatComesBackHears(t *testing.T) {
	t.Parallel()
	h := newHouse(t, loopback())
	for i := range 16 { // of which many are at it at a time
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			id := t.Name()
			for n := range 60 {
				w := h.connect(t, hello{id: id})
				w.subscribe(1, id, 1)
				if err := h.Publish(id, fmt.Append(nil, n), false, 1); err != nil {
					t.Fatal(err)
				}
				w.wantsDelivery(0x32, 1, id, fmt.Sprint(n))
				if _, ok := h.server.Clients.Get(id); !ok {
					t.Fatalf("the MQTT server does not know the client after %d connections", n)
				}
				w.send([]byte{0xe0, 0})
				_ = w.Close()
			}
		})
	}
}

// TestQueueGivesBackAllRoom does to queues what clients may, in any order.
func TestQueueGivesBackAllRoom(t *testing.T) {
	all := room{most: 1 << 20}
	random := rand.New(rand.NewPCG(1, 2))
	queues := make([]*queue, 3)
	for i := range queues {
		queues[i] = &queue{most: 20, room: 1 << 16, all: &all}
	}
	conns := make([]*connection, len(queues))
	for i := range conns {
		conns[i] = &connection{client: &mqtt.Client{}}
	}
	for range 20_000 {
		i := random.IntN(len(queues))
		q := queues[i]
		switch random.IntN(8) {
		case 0:
			q.attach(conns[i], 1+random.IntN(10))
		case 1:
			q.detach(conns[i])
		case 2, 3, 4:
			p := &publication{topic: "x", qos: byte(random.IntN(3)), bytes: 300}
			for _, to := range queues {
				to.put(delivery{publication: p, qos: p.qos}, 0)
			}
		case 5:
			q.pull(conns[i], nil, 100)
		case 6:
			q.received(uint16(random.IntN(30)))
		case 7:
			q.acknowledged(uint16(random.IntN(30)))
		}
		messages, bytes := 0, int64(0)
		for _, q := range queues {
			n, size, _ := q.backlog()
			messages, bytes = messages+n, bytes+size
		}
		if all.messages.Load() != int64(messages) || all.bytes.Load() > bytes {
			t.Fatalf("all hold %d messages and %d bytes, the queues %d and %d", all.messages.Load(), all.bytes.Load(), messages, bytes)
		}
	}
	for _, q := range queues {
		q.close()
	}
	if all.messages.Load() != 0 || all.bytes.Load() != 0 {
		t.Errorf("%d messages and %d bytes are left", all.messages.Load(), all.bytes.Load())
	}
}

// ten seconds of a broker that writes while it holds a lock is what a
// subscriber that does not read used to cost everybody who published to it.
func TestADeafSubscriberHoldsUpNobody(t *testing.T) {
	h := newHouse(t, loopback())
	for i := range 3 {
		deaf := h.connect(t, hello{id: fmt.Sprint("deaf-", i)})
		deaf.subscribe(1, "chat/#", 1)
	}
	listener := h.connect(t, hello{id: "listener"})
	listener.subscribe(1, "chat/#", 1)
	payload := bytes.Repeat([]byte("x"), 64<<10)
	start := time.Now()
	for i := range 300 {
		at := time.Now()
		if err := h.Publish("chat/x", payload, false, 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(at); took > time.Second {
			t.Fatalf("publication %d took %s", i, took)
		}
		_, id, _, _ := listener.delivery()
		listener.puback(id)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("300 publications took %s", took)
	}
}
