package ioc

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

// qosWarning is the quality of service of warnings: at least once.
const qosWarning = 1

// A Publisher publishes an MQTT message; retain keeps it for those who
// subscribe later, and an empty one ends that.
type Publisher interface {
	Publish(topic string, payload []byte, retain bool, qos byte) error
}

// MQTT publishes warnings under warnings/{device}/{rule}: retained while the
// warning lasts. When it is cleared, the cleared warning is published once, not
// retained, and then the empty retained message that removes the earlier one.
// It is a follower of the warnings log.
type MQTT struct {
	to     Publisher
	ledger *ledger

	mu      sync.Mutex
	holders map[string]holder // what is retained, by topic

	published, superseded, duplicate, failed prometheus.Counter
}

type holder struct {
	id    string
	start time.Time
}

// NewMQTT returns a follower that publishes through p.
func NewMQTT(p Publisher, reg prometheus.Registerer) *MQTT {
	with := promauto.With(reg)
	skipped := with.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_ioc_mqtt_skipped_total", Help: "Transitions not published: superseded by a newer one, or published before."}, []string{"reason"})
	return &MQTT{
		to: p, ledger: newLedger(), holders: map[string]holder{},
		published: with.NewCounter(prometheus.CounterOpts{
			Name: "haidang_ioc_mqtt_published_total", Help: "Transitions of warnings published over MQTT."}),
		superseded: skipped.WithLabelValues("superseded"),
		duplicate:  skipped.WithLabelValues("duplicate"),
		failed: with.NewCounterVec(prometheus.CounterOpts{
			Name: "haidang_ioc_mqtt_failed_total", Help: "Transitions that the broker did not take; they are repeated."}, []string{"reason"}).WithLabelValues("publish"),
	}
}

// Topic returns the topic of a warning.
func Topic(w *telemetry.Warning) string { return "warnings/" + w.Device + "/" + w.Rule }

// Accept publishes the transitions in the order given. An error means that one
// was not taken; those before it are skipped when the batch comes again.
func (m *MQTT) Accept(ctx context.Context, transitions []telemetry.Transition) error {
	for i := range transitions {
		if err := ctx.Err(); err != nil {
			return err
		}
		w := &transitions[i].Warning
		if w.State == telemetry.Pending {
			continue
		}
		switch m.ledger.passed(w.ID, w.N) {
		case errDuplicate:
			m.duplicate.Inc()
			continue
		case errSuperseded:
			m.superseded.Inc()
			continue
		}
		if err := m.publish(w); err != nil {
			m.failed.Inc()
			return err
		}
	}
	return nil
}

// Republish publishes the warnings that last, retained, as after a restart of
// the broker. Those that are cleared or pending are left out.
func (m *MQTT) Republish(active []telemetry.Warning) error {
	for i := range active {
		w := &active[i]
		if w.State == telemetry.Cleared || w.State == telemetry.Pending {
			continue
		}
		if err := m.publish(w); err != nil {
			m.failed.Inc()
			return err
		}
	}
	return nil
}

func (m *MQTT) publish(w *telemetry.Warning) error {
	payload, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("write warning %s as JSON: %w", w.Key(), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	topic := Topic(w)
	// A warning that was raised later on the same topic is not covered by, nor
	// removed with, what comes late of an earlier one.
	before, held := m.holders[topic]
	newest := !held || before.id == w.ID || !w.Start.Before(before.start)
	lasts := w.State != telemetry.Cleared
	if err := m.to.Publish(topic, payload, lasts && newest, qosWarning); err != nil {
		return fmt.Errorf("publish warning %s to %s: %w", w.Key(), topic, err)
	}
	switch {
	case !newest:
	case lasts:
		m.holders[topic] = holder{id: w.ID, start: w.Start}
	default:
		if err := m.to.Publish(topic, nil, true, qosWarning); err != nil {
			return fmt.Errorf("remove the retained warning from %s: %w", topic, err)
		}
		delete(m.holders, topic)
	}
	m.ledger.accept(w.ID, w.N)
	m.published.Inc()
	return nil
}
