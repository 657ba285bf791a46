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
	to       Publisher
	ledger   *ledger
	retained retainer

	published, superseded, duplicate, failed prometheus.Counter
}

// A retainer is what a broker holds of the warnings, by topic.
type retainer struct {
	mu      sync.Mutex
	holders map[string]holder
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
		to: p, ledger: newLedger(), retained: retainer{holders: map[string]holder{}},
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
	if err := m.retained.publish(w, Topic(w), payload, func(topic string, payload []byte, retain bool) error {
		return m.to.Publish(topic, payload, retain, qosWarning)
	}); err != nil {
		return err
	}
	m.ledger.accept(w.ID, w.N)
	m.published.Inc()
	return nil
}

// publish publishes a warning: retained while it lasts; when it is cleared once,
// not retained, and then the empty message that removes the retained one.
func (r *retainer) publish(w *telemetry.Warning, topic string, payload []byte, publish func(topic string, payload []byte, retain bool) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A warning that was raised later on the same topic is not covered by, nor
	// removed with, what comes late of an earlier one.
	before, held := r.holders[topic]
	newest := !held || before.id == w.ID || !w.Start.Before(before.start)
	lasts := w.State != telemetry.Cleared
	if err := publish(topic, payload, lasts && newest); err != nil {
		return fmt.Errorf("publish warning %s to %s: %w", w.Key(), topic, err)
	}
	switch {
	case !newest:
	case lasts:
		r.holders[topic] = holder{id: w.ID, start: w.Start}
	default:
		if err := publish(topic, nil, true); err != nil {
			return fmt.Errorf("remove the retained warning from %s: %w", topic, err)
		}
		delete(r.holders, topic)
	}
	return nil
}
