package uplink

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Logs, as labels.
const (
	logReadings = "readings"
	logWarnings = "warnings"
)

// sending is what the field's side counts.
type sending struct {
	connected prometheus.Gauge
	lines     prometheus.Counter // bytes before packing
	packed    map[string]prometheus.Counter
	records   map[string]prometheus.Counter
	lost      map[string]prometheus.Counter
	failures  *prometheus.CounterVec
}

func newSending(reg prometheus.Registerer) *sending {
	auto := promauto.With(reg)
	bytes := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_uplink_sent_bytes_total", Help: "Bytes of requests to the centre, packed."}, []string{"log"})
	records := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_uplink_sent_records_total", Help: "Readings and warnings that the centre has on disk."}, []string{"log"})
	lost := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_uplink_lost_frames_total", Help: "Frames that were gone from the log before the centre had them."}, []string{"log"})
	s := &sending{
		connected: auto.NewGauge(prometheus.GaugeOpts{Name: "haidang_uplink_connected", Help: "1 while the centre answers."}),
		lines:     auto.NewCounter(prometheus.CounterOpts{Name: "haidang_uplink_line_bytes_total", Help: "Bytes of line protocol in the requests, before packing."}),
		packed:    map[string]prometheus.Counter{}, records: map[string]prometheus.Counter{}, lost: map[string]prometheus.Counter{},
		failures: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_uplink_failures_total", Help: "Requests to the centre that it did not take, by reason."}, []string{"reason"}),
	}
	for _, log := range []string{logReadings, logWarnings} {
		s.packed[log], s.records[log], s.lost[log] = bytes.WithLabelValues(log), records.WithLabelValues(log), lost.WithLabelValues(log)
	}
	s.packed["hello"] = bytes.WithLabelValues("hello")
	return s
}

// taking is what the centre's side counts.
type taking struct {
	records  *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	lost     *prometheus.CounterVec
	refusals *prometheus.CounterVec
	heard    *prometheus.GaugeVec
	lag      *prometheus.GaugeVec
	offset   *prometheus.GaugeVec
}

func newTaking(reg prometheus.Registerer) *taking {
	auto := promauto.With(reg)
	return &taking{
		records:  auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_uplink_taken_records_total", Help: "Readings and warnings of other gateways that are on disk."}, []string{"gateway", "log"}),
		bytes:    auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_uplink_taken_bytes_total", Help: "Bytes of their requests, packed."}, []string{"gateway"}),
		lost:     auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_uplink_gap_frames_total", Help: "Frames that were gone from the log of another gateway before this one had them."}, []string{"gateway"}),
		refusals: auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_uplink_refused_total", Help: "Requests of other gateways that were not taken, by reason."}, []string{"reason"}),
		heard:    auto.NewGaugeVec(prometheus.GaugeOpts{Name: "haidang_uplink_heard_timestamp_seconds", Help: "When a gateway was heard last."}, []string{"gateway"}),
		lag:      auto.NewGaugeVec(prometheus.GaugeOpts{Name: "haidang_uplink_gateway_lag_seconds", Help: "Age of the oldest reading that a gateway has and this one does not, as the gateway said last."}, []string{"gateway"}),
		offset:   auto.NewGaugeVec(prometheus.GaugeOpts{Name: "haidang_uplink_clock_offset_seconds", Help: "Clock of a gateway minus that of this one, when it was heard last."}, []string{"gateway"}),
	}
}
