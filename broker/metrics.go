package broker

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics is what the broker counts.
type metrics struct {
	families map[string]*familyCounts

	acks        prometheus.Counter
	deadLetters *prometheus.CounterVec // reason
	panics      prometheus.Counter
	connections prometheus.Counter
	disconnects *prometheus.CounterVec // reason
	drops       *prometheus.CounterVec // reason
	sent        prometheus.Counter
	deliveries  prometheus.Counter

	subscriberDrops *prometheus.CounterVec // account
	untracked       prometheus.Counter
	passedOver      prometheus.Counter
	limits          *prometheus.CounterVec // limit
	denials         *prometheus.CounterVec // reason
	revoked         prometheus.Counter

	pending      atomic.Int64 // messages
	pendingBytes atomic.Int64
}

// familyCounts counts the messages of one family of topics.
type familyCounts struct {
	accepted, setAside, refused prometheus.Counter

	// settle counts the outcome of a message that nobody waits for,
	// settleAside that of one of which a part was set aside.
	settle, settleAside func(error)
}

// count counts a message that was taken in.
func (c *familyCounts) count(aside bool) {
	if aside {
		c.setAside.Inc()
	} else {
		c.accepted.Inc()
	}
}

// Reasons why something was dropped.
const (
	dropQueue       = "slow_client"    // the queue of a subscriber is full
	dropRoom        = "queues_full"    // those of all are
	dropOversize    = "oversize"       // larger than the subscriber takes (Maximum Packet Size)
	dropSys         = "sys"            // figures of $SYS for a client that reads slowly
	dropRetain      = "retained_full"  // too many retained messages: forwarded, not kept
	dropConnections = "too_many"       // a connection beyond max_clients
	dropWill        = "will_not_taken" // a will while the broker stops
)

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		families: map[string]*familyCounts{},
		acks: auto.NewCounter(prometheus.CounterOpts{Name: "haidang_broker_acks_total",
			Help: "QoS 1 and 2 telemetry messages acknowledged."}),
		deadLetters: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_broker_dead_letters_total",
			Help: "Payloads, or parts of them, that were set aside, by reason."}, []string{"reason"}),
		panics: auto.NewCounter(prometheus.CounterOpts{Name: "haidang_broker_panics_total",
			Help: "Panics while serving a client; each is a defect and cost one connection."}),
		connections: auto.NewCounter(prometheus.CounterOpts{Name: "haidang_broker_connections_total",
			Help: "Connections accepted."}),
		disconnects: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_broker_disconnects_total",
			Help: "Connections that ended, by reason."}, []string{"reason"}),
		drops: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_broker_drops_total",
			Help: "Deliveries and connections that were dropped, by reason."}, []string{"reason"}),
		deliveries: auto.NewCounter(prometheus.CounterOpts{Name: "haidang_broker_deliveries_total",
			Help: "Messages sent to subscribers, those sent again included."}),
		subscriberDrops: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_broker_subscriber_drops_total",
			Help: "Messages that a subscriber did not get, by its account; of the first thousand accounts, the others are counted as *."}, []string{"account"}),
		sent: auto.NewCounter(prometheus.CounterOpts{Name: "haidang_broker_sent_bytes_total",
			Help: "Bytes written to clients."}),
		limits: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_broker_limited_total",
			Help: "Times that a client was held to a limit, by limit."}, []string{"limit"}),
		denials: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_broker_denied_total",
			Help: "Times that a client was not allowed what it wanted, by reason."}, []string{"reason"}),
		revoked: auto.NewCounter(prometheus.CounterOpts{Name: "haidang_broker_revoked_total",
			Help: "Connections that ended because their account was removed or changed."}),
		passedOver: auto.NewCounter(prometheus.CounterOpts{Name: "haidang_broker_passed_over_total",
			Help: "Messages on mapped topics that have nothing to do with measuring, as the mapping says (pass_over, when)."}),
		untracked: auto.NewCounter(prometheus.CounterOpts{Name: "haidang_broker_untracked_links_total",
			Help: "Devices beyond the number whose link is followed on one connection."}),
	}
	messages := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_broker_messages_total",
		Help: "Messages received, by family of topics and by what became of them."}, []string{"family", "result"})
	for _, family := range []string{familyTelemetry, familyInflux, familySenML, familySparkplug, familyMapped, familyOther} {
		c := &familyCounts{
			accepted: messages.WithLabelValues(family, "accepted"),
			setAside: messages.WithLabelValues(family, "set_aside"),
			refused:  messages.WithLabelValues(family, "refused"),
		}
		c.settle = func(err error) {
			if err != nil {
				c.refused.Inc()
				return
			}
			c.accepted.Inc()
		}
		c.settleAside = func(err error) {
			if err != nil {
				c.refused.Inc()
				return
			}
			c.setAside.Inc()
		}
		m.families[family] = c
	}
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_broker_pending_messages",
		Help: "QoS 1 and 2 messages that are not acknowledged yet."},
		func() float64 { return float64(m.pending.Load()) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_broker_pending_bytes",
		Help: "Memory of the messages that are not acknowledged yet."},
		func() float64 { return float64(m.pendingBytes.Load()) })
	return m
}

func (m *metrics) limited(limit string) { m.limits.WithLabelValues(limit).Inc() }

func (m *metrics) denied(reason string) { m.denials.WithLabelValues(reason).Inc() }

// watch adds what mochi counts.
func (b *Broker) watch(reg prometheus.Registerer) {
	auto, counts := promauto.With(reg), b.server.Info
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_broker_clients",
		Help: "Clients connected."},
		func() float64 { return float64(atomic.LoadInt64(&counts.ClientsConnected)) })
	auto.NewCounterFunc(prometheus.CounterOpts{Name: "haidang_broker_received_bytes_total",
		Help: "Bytes read from clients."},
		func() float64 { return float64(atomic.LoadInt64(&counts.BytesReceived)) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_broker_queued_messages",
		Help: "Messages for subscribers that wait or are not acknowledged."},
		func() float64 { return float64(b.room.messages.Load()) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_broker_queued_bytes",
		Help: "Memory of those messages, of which limits.queues_bytes is the bound."},
		func() float64 { return float64(b.room.bytes.Load()) })
	auto.NewCounterFunc(prometheus.CounterOpts{Name: "haidang_broker_sparkplug_definitions_total",
		Help: "Definitions of Sparkplug templates, which are passed over: their instances are read."},
		func() float64 { return float64(b.sparkplug.Definitions()) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_broker_subscriptions",
		Help: "Subscriptions of all sessions."},
		func() float64 { return float64(atomic.LoadInt64(&counts.Subscriptions)) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_broker_sessions",
		Help: "Sessions, those whose client is away included."},
		func() float64 { return float64(len(b.sessions.all())) })
}
