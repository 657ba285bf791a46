package broker

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"haidang/gateway/account"
	"haidang/gateway/telemetry"
)

// A QoS 2 message that comes onto the disk after its connection has ended is taken
// in once, and heard once, when the client sends it again [MQTT-4.3.3-10].
func TestQoS2IsTakenOnceWhenTheConnectionEndsMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHouse(t, loopback())
	sub := h.connect(t, hello{id: "s"})
	sub.subscribe(1, "telemetry/#", 0)
	h.set(func() { h.hold = true })
	w := h.connect(t, hello{id: "a", keep: true})
	w.publish(2, 1, "telemetry/d/k", `{"a":1}`)
	eventually(t, "it waits for the disk", func() bool { return h.holding() == 1 })
	w = h.connect(t, hello{id: "a", keep: true, wantsSession: true}) // it has lost patience
	w.send(w.publication(0xc, 1, "telemetry/d/k", `{"a":1}`))
	h.counts(t, "haidang_broker_disconnects_total", "reason=taken_over", 1)
	h.set(func() { h.hold = false })
	h.release()
	w.wants("50 0001")
	w.send([]byte{0x62, 2, 0, 1})
	w.wants("70 0001")
	sub.wantsDelivery(0x30, 0, "telemetry/d/k", `{"a":1}`)
	w.publish(2, 1, "telemetry/d/k", `{"a":2}`)
	w.wants("50 0001")
	h.wants(t, "d/k a=1", "d/k a=2")
	sub.wantsDelivery(0x30, 0, "telemetry/d/k", `{"a":2}`)
}

// slowLinks is an intake that takes its time with the word that a device is gone.
type slowLinks struct {
	*archive
	once    sync.Once
	gone    chan struct{} // closed when it is at the door
	release chan struct{}
}

func (s *slowLinks) Accept(source string, readings []telemetry.Reading, done func(error)) {
	if up, _ := readings[0].Number("up"); readings[0].Kind == telemetry.KindLink && up == 0 {
		s.once.Do(func() { close(s.gone) })
		<-s.release
	}
	s.archive.Accept(source, readings, done)
}

// A client that comes back while its old connection ends is there, whatever is
// slow: the log has its going before its coming.
func TestLinkOfAClientThatComesBack(t *testing.T) {
	t.Parallel()
	slow := &slowLinks{gone: make(chan struct{}), release: make(chan struct{})}
	h := newHouse(t, loopback(), func(b *Broker) {
		slow.archive = b.intake.(*archive)
		b.intake = slow
	})
	w := h.connect(t, hello{id: "a"})
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	w.wants("40 0001")
	_ = w.Close()
	<-slow.gone
	w = h.connect(t, hello{id: "b"})
	w.publish(1, 1, "telemetry/d/k", `{"a":2}`)
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end) && len(h.written(true)) < 2; {
		runtime.Gosched()
	}
	close(slow.release)
	w.wants("40 0001")
	eventually(t, "three words of the link", func() bool { return len(h.written(true)) == 3 })
	if got := strings.Join(h.written(true), "|"); !strings.HasSuffix(got, "d/link up=1") {
		t.Errorf("the log says %s of a device that is there", got)
	}
}

// A token that only reads does not publish.
func TestATokenThatOnlyReads(t *testing.T) {
	t.Parallel()
	g := guard(t, loopback())
	g.edit(func(b *account.Book) (err error) {
		g.secrets["administrator"], err = b.AddToken("administrator", []telemetry.Right{telemetry.Read}, 0)
		return err
	})
	w := g.as("administrator", hello{version: 5})
	w.subscribe(1, "telemetry/#", 1)
	w.publish(1, 2, "telemetry/kim-long/river", `{"level_m":9}`)
	w.wants("40 000287")
	if got := g.written(false); len(got) != 0 {
		t.Errorf("taken in: %v", got)
	}
}

// What is remembered of who hears which topic is bounded by those who hear, not by
// topics alone.
func TestAudiencesAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, loopback())
	const listeners = 60
	for i := range listeners {
		h.connect(t, hello{id: fmt.Sprint("l-", i)}).subscribe(1, "chat/#", 0)
	}
	eventually(t, "all hear", func() bool { return len(h.audience("chat/x").alone) == listeners })
	for i := range 2 * maxHearers / listeners {
		h.audience(fmt.Sprintf("chat/%d", i))
		held := 0
		for _, a := range h.audiences.byTopic {
			held += len(a.alone)
		}
		if i%100 == 0 && held > maxHearers+listeners {
			t.Fatalf("%d hearers of %d topics are remembered", held, len(h.audiences.byTopic))
		}
	}
}

// A packet that is allowed may come in one message of a WebSocket.
func TestLargePacketOverWebsocket(t *testing.T) {
	t.Parallel()
	cfg := loopback()
	cfg.Websocket.Listen = "127.0.0.1:0"
	cfg.Limits.PacketBytes = 8 << 20
	h := newHouse(t, cfg)
	ws, answer, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial("ws://"+h.WebsocketAddr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	defer ws.Close()
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	w := &wire{version: 4}
	for _, step := range []struct {
		says []byte
		want string
	}{
		{packet(0x10, text("MQTT"), []byte{4, 2, 0, 60}, text("a")), "20020000"},
		{w.publication(2, 1, "chat/x", strings.Repeat("x", 5<<20)), "40020001"},
	} {
		if err := ws.WriteMessage(websocket.BinaryMessage, step.says); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.ReadMessage(); err != nil || fmt.Sprintf("%x", got) != step.want {
			t.Fatalf("answered %x, %v; want %s", got, err, step.want)
		}
	}
}
