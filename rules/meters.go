package rules

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

// meters are the engine's metrics, with their labels bound.
type meters struct {
	evaluations prometheus.Counter
	transitions map[telemetry.State]prometheus.Counter
	shadow      prometheus.Counter
	notFinite   prometheus.Counter
	late        prometheus.Counter
	tagged      prometheus.Counter
	crowded     prometheus.Counter
	cut         prometheus.Counter
	applied     prometheus.Counter
	refused     prometheus.Counter
	broken      prometheus.Counter
	devices     prometheus.Gauge
}

func newMeters(registerer prometheus.Registerer) *meters {
	f := promauto.With(registerer)
	transitions := f.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_rules_transitions_total", Help: "Transitions of warnings, by the state after them.",
	}, []string{"state"})
	ignored := f.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_rules_ignored_readings_total", Help: "Readings that triggered no rule: late ones, those with extra tags, and those of devices beyond the bound.",
	}, []string{"reason"})
	documents := f.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_rules_documents_total", Help: "Documents of rules in the log: applied, refused because they do not compile, or broken.",
	}, []string{"result"})
	return &meters{
		evaluations: f.NewCounter(prometheus.CounterOpts{Name: "haidang_rules_evaluations_total", Help: "Evaluations of a rule for a device."}),
		transitions: map[telemetry.State]prometheus.Counter{
			telemetry.Active:  transitions.WithLabelValues(string(telemetry.Active)),
			telemetry.Cleared: transitions.WithLabelValues(string(telemetry.Cleared)),
		},
		shadow: f.NewCounter(prometheus.CounterOpts{Name: "haidang_rules_shadow_transitions_total", Help: "Transitions of warnings of rules in shadow, delivered to nobody."}),
		notFinite: f.NewCounterVec(prometheus.CounterOpts{
			Name: "haidang_rules_failures_total", Help: "Conditions without a result, such as a division by zero: they neither raised nor cleared.",
		}, []string{"reason"}).WithLabelValues("not_finite"),
		late:    ignored.WithLabelValues("late"),
		tagged:  ignored.WithLabelValues("tagged"),
		crowded: ignored.WithLabelValues("too_many_devices"),
		cut:     f.NewCounter(prometheus.CounterOpts{Name: "haidang_rules_windows_cut_total", Help: "Windows that had more samples than are kept and are no more exact."}),
		applied: documents.WithLabelValues("applied"),
		refused: documents.WithLabelValues("refused"),
		broken:  documents.WithLabelValues("broken"),
		devices: f.NewGauge(prometheus.GaugeOpts{Name: "haidang_rules_devices", Help: "Devices of which the engine keeps a state."}),
	}
}
