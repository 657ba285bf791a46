package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// TestOperatorsSeeWhatASubscriberLost lets a reader stay away for longer than its
// queue holds.
func TestOperatorsSeeWhatASubscriberLost(t *testing.T) {
	g := prepare(t, "rules: []\nmodbus: []\nserial: []\n")
	station := g.account("", "add", "kim-long", "--role", "station")
	reader := g.account("", "add", "archive", "--role", "reader", "--limits", "queue=10,queue_bytes=64KiB")
	g.start()
	connect := func(user, secret string) paho.Client {
		c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + g.ports.mqtt).SetClientID("c").SetUsername(user).SetPassword(secret).SetCleanSession(false))
		if token := c.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatalf("connect as %s: %v", user, token.Error())
		}
		return c
	}
	c := connect("archive", reader)
	if token := c.Subscribe("telemetry/#", 1, nil); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	c.Disconnect(100)
	eventually(t, "the broker knows that the reader is away", 10*time.Second, func() bool { return g.metric("haidang_broker_clients") == 0 })
	p := connect("kim-long", station)
	defer p.Disconnect(0)
	for i := range 30 {
		if token := p.Publish("telemetry/kim-long/river", 1, false, fmt.Sprintf(`{"level_m":%d}`, i)); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	const want = "messages that wait: 10, clients away: 1, DROPPED: 20"
	eventually(t, "the list of accounts says what was lost", 10*time.Second, func() bool {
		return strings.Contains(g.must("account", "list"), want)
	})
	if text := g.must("health"); !strings.Contains(text, "archive") || !strings.Contains(text, want) {
		t.Errorf("health says\n%s", text)
	}
	var list struct{ Accounts []listedAccount }
	if err := json.Unmarshal([]byte(g.must("account", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, l := range list.Accounts {
		if (l.Backlog != nil) != (l.Name == "archive") {
			t.Errorf("account %s has backlog %+v", l.Name, l.Backlog)
		}
	}
}
