package ioc

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"haidang/gateway/telemetry"
)

// oneUser lets the user ioc in, and nobody else.
type oneUser struct{ mochi.HookBase }

func (oneUser) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}
func (oneUser) OnConnectAuthenticate(_ *mochi.Client, p packets.Packet) bool {
	return string(p.Connect.Username) == "ioc" && string(p.Connect.Password) == "bimat"
}
func (oneUser) OnACLCheck(*mochi.Client, string, bool) bool { return true }

// brokerOn runs a broker that knows one user, until stop.
func brokerOn(t *testing.T, address string) (stop func()) {
	t.Helper()
	server := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := server.AddHook(new(oneUser), nil); err != nil {
		t.Fatal(err)
	}
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "t", Address: address})); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		t.Fatal(err)
	}
	return func() { server.Close() }
}

// freeAddress is one that nobody listens on, below those that the system gives to
// outgoing connections: who dials one of those again and again is once connected to
// itself.
func freeAddress(t *testing.T) string {
	t.Helper()
	for tries := 0; ; tries++ {
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
		if tries == 100 {
			t.Fatal(err)
		}
	}
}

// Another broker gets each warning, retained while it lasts, also after it was
// away.
func TestRemoteBroker(t *testing.T) {
	address := freeAddress(t)
	stop := brokerOn(t, address)
	r := NewRemote(MQTTConfig{URL: "mqtt://" + address, User: "ioc", Password: "bimat", Topic: "hue/{device}/{rule}"}, "haidang-box")
	defer r.Close()
	held := func() (payloads []string) {
		t.Helper()
		client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID("reader").SetUsername("ioc").SetPassword("bimat"))
		if token := client.Connect(); token.Wait() && token.Error() != nil {
			t.Fatal(token.Error())
		}
		defer client.Disconnect(0)
		got := make(chan string, 10)
		if token := client.Subscribe("hue/#", 1, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }); token.Wait() && token.Error() != nil {
			t.Fatal(token.Error())
		}
		// Retained messages come before what is published after them.
		client.Publish("hue/end", 1, false, "end").Wait()
		for p := range got {
			if p == "end" {
				// The broker acknowledges before it hands a message to its subscribers:
				// who subscribes in between gets it as retained and as new.
				return slices.Compact(payloads)
			}
			if p != "" { // that is the end of a retained message, as new
				payloads = append(payloads, p)
			}
		}
		return nil
	}
	deliver := func(w telemetry.Warning) {
		t.Helper()
		if err := r.Deliver(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	w := warning("a", 1, telemetry.Severe)
	deliver(w)
	var back telemetry.Warning
	if list := held(); len(list) != 1 || json.Unmarshal([]byte(list[0]), &back) != nil || back.Key() != w.Key() {
		t.Errorf("retained %q", list)
	}
	stop()
	w.N = 2
	// A message that is handed to the client while it takes note of the end waits
	// for its time to run out.
	if f := failureOf(t, r.Deliver(t.Context(), w)); f.Reason != reasonRefused && f.Reason != reasonConnection && f.Reason != reasonTimeout {
		t.Errorf("%+v", f)
	}
	defer brokerOn(t, address)()
	deliver(w)
	if list := held(); len(list) != 1 {
		t.Errorf("retained %q", list)
	}
	w.N, w.State = 3, telemetry.Cleared
	deliver(w)
	if list := held(); len(list) != 0 {
		t.Errorf("retained %q after it is over", list)
	}
	wrong := NewRemote(MQTTConfig{URL: "mqtt://" + address, User: "ioc", Password: "x"}, "haidang-box")
	if f := failureOf(t, wrong.Deliver(t.Context(), w)); f.Reason != reasonLogin {
		t.Errorf("%+v", f)
	}
}

// A broker that takes the connection and says nothing ends in time.
func TestRemoteBrokerThatIsSilent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r := NewRemote(MQTTConfig{URL: "mqtt://" + listener.Addr().String(), Timeout: telemetry.Duration(time.Second)}, "box")
	began := time.Now()
	f := failureOf(t, r.Deliver(t.Context(), warning("a", 1, telemetry.Severe)))
	if f.Reason != reasonTimeout || time.Since(began) > 5*time.Second {
		t.Errorf("%+v after %s", f, time.Since(began))
	}
}

func TestTopics(t *testing.T) {
	w := warning("a", 1, telemetry.Severe)
	w.Device = "x/+/#"
	if got := topicOf("p/{device}/{severity}/{kind}", &w); got != "p/x----/severe/river" {
		t.Error(got)
	}
}
