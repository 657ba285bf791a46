package bridge

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Reasons why something was dropped.
const (
	dropCommand = "command" // a command to a Sparkplug node, while many wait
	dropOld     = "too_old" // a reading that waited longer than forward.keep
)

// Metrics is what bridges count.
type Metrics struct {
	taken, forwarded *prometheus.CounterVec
	drops            *prometheus.CounterVec
	connected        *prometheus.GaugeVec
}

// NewMetrics registers what bridges count.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	return &Metrics{
		taken: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_bridge_messages_total",
			Help: "Messages received from another broker."}, []string{"bridge"}),
		forwarded: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_bridge_forwarded_total",
			Help: "Readings that another broker has acknowledged."}, []string{"bridge"}),
		drops: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_bridge_drops_total",
			Help: "What was not sent to another broker, by reason."}, []string{"bridge", "reason"}),
		connected: auto.NewGaugeVec(prometheus.GaugeOpts{Name: "haidang_bridge_connected",
			Help: "1 while the bridge receives from the other broker."}, []string{"bridge"}),
	}
}

// bound are the metrics of one bridge.
type bound struct {
	taken, forwarded prometheus.Counter
	connected        prometheus.Gauge
	dropped          func(reason string, n int)
}

func (m *Metrics) of(name string) *bound {
	return &bound{
		taken: m.taken.WithLabelValues(name), forwarded: m.forwarded.WithLabelValues(name), connected: m.connected.WithLabelValues(name),
		dropped: func(reason string, n int) { m.drops.WithLabelValues(name, reason).Add(float64(n)) },
	}
}
