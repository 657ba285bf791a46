package ioc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// brokerOf returns a real broker, and what its subscribers to warnings/# see.
func brokerOf(t *testing.T) (*mqtt.Server, func() []string) {
	server := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	if err := server.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	var seen []string // the inline client is called by Publish itself
	if err := server.Subscribe("warnings/#", 1, func(_ *mqtt.Client, _ packets.Subscription, p packets.Packet) {
		seen = append(seen, brief(p.Payload))
	}); err != nil {
		t.Fatal(err)
	}
	return server, func() []string { return seen }
}

func brief(payload []byte) string {
	if len(payload) == 0 {
		return "empty"
	}
	var w telemetry.Warning
	if err := json.Unmarshal(payload, &w); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s", w.Key(), w.State)
}

func retained(server *mqtt.Server, topic string) string {
	for _, p := range server.Topics.Messages(topic) {
		return brief(p.Payload)
	}
	return "none"
}

func step(id string, n int, state telemetry.State, start time.Time) telemetry.Transition {
	w := warning("kim-long", n, telemetry.Severe)
	w.ID, w.State, w.Start = id, state, start
	return telemetry.Transition{Warning: w}
}

func TestMQTTRetainsWhileActive(t *testing.T) {
	server, seen := brokerOf(t)
	reg := prometheus.NewRegistry()
	m := NewMQTT(server, reg)
	const topic = "warnings/kim-long/flood-alarm"
	start := time.Date(2025, 10, 27, 9, 0, 0, 0, hue)
	for _, s := range []struct {
		step telemetry.Transition
		want string
	}{
		{step("a", 1, telemetry.Pending, start), "none"},
		{step("a", 2, telemetry.Active, start), "a/2 active"},
		{step("a", 3, telemetry.Acknowledged, start), "a/3 acknowledged"},
		{step("a", 2, telemetry.Active, start), "a/3 acknowledged"}, // again
		{step("a", 4, telemetry.Cleared, start), "none"},
		{step("b", 1, telemetry.Active, start.Add(time.Hour)), "b/1 active"},
		{step("a", 5, telemetry.Cleared, start), "b/1 active"}, // a comment on the earlier one
	} {
		if err := m.Accept(t.Context(), []telemetry.Transition{s.step}); err != nil {
			t.Fatal(err)
		}
		if got := retained(server, topic); got != s.want {
			t.Errorf("after %s: retained %s, want %s", s.step.Key(), got, s.want)
		}
	}
	want := []string{"a/2 active", "a/3 acknowledged", "a/4 cleared", "empty", "b/1 active", "a/5 cleared"}
	if got := seen(); !slices.Equal(got, want) {
		t.Errorf("subscribers saw %v, want %v", got, want)
	}
	counted(t, reg, "haidang_ioc_mqtt_published_total", map[string]float64{"": 5})
	counted(t, reg, "haidang_ioc_mqtt_skipped_total", map[string]float64{"superseded": 1})
}

// After a restart the warnings that last are retained again before the follower
// catches up; what it then brings of the past neither covers nor removes them.
func TestMQTTRepublish(t *testing.T) {
	server, _ := brokerOf(t)
	m := NewMQTT(server, nil)
	const topic = "warnings/kim-long/flood-alarm"
	start := time.Date(2025, 10, 27, 9, 0, 0, 0, hue)
	now := []telemetry.Warning{step("b", 2, telemetry.Active, start.Add(time.Hour)).Warning, step("c", 9, telemetry.Cleared, start).Warning}
	now[1].Device = "phu-oc"
	if err := m.Republish(now); err != nil {
		t.Fatal(err)
	}
	if got := retained(server, "warnings/phu-oc/flood-alarm"); got != "none" {
		t.Errorf("a cleared warning is retained: %s", got)
	}
	past := []telemetry.Transition{step("a", 1, telemetry.Active, start), step("a", 2, telemetry.Cleared, start),
		step("b", 1, telemetry.Active, start.Add(time.Hour)), step("b", 2, telemetry.Active, start.Add(time.Hour))}
	for _, p := range past {
		if err := m.Accept(t.Context(), []telemetry.Transition{p}); err != nil {
			t.Fatal(err)
		}
		if got := retained(server, topic); got != "b/2 active" {
			t.Errorf("after %s: retained %s, want b/2 active", p.Key(), got)
		}
	}
}

type refusing struct{ after int }

func (r *refusing) Publish(string, []byte, bool, byte) error {
	if r.after--; r.after < 0 {
		return errors.New("no room")
	}
	return nil
}

func TestMQTTErrorIsReturned(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMQTT(&refusing{after: 1}, reg)
	start := time.Date(2025, 10, 27, 9, 0, 0, 0, hue)
	batch := []telemetry.Transition{step("a", 1, telemetry.Active, start), step("a", 2, telemetry.Active, start)}
	if err := m.Accept(t.Context(), batch); err == nil || !bytes.Contains([]byte(err.Error()), []byte("a/2 to warnings/kim-long/flood-alarm: no room")) {
		t.Errorf("error %v", err)
	}
	m.to = &refusing{after: 1} // takes one more: the first is not published again
	if err := m.Accept(t.Context(), batch); err != nil {
		t.Error(err)
	}
	counted(t, reg, "haidang_ioc_mqtt_published_total", map[string]float64{"": 2})
	counted(t, reg, "haidang_ioc_mqtt_failed_total", map[string]float64{"publish": 1})
}
