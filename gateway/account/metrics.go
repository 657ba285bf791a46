package account

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

type metrics struct {
	denials map[string]prometheus.Counter
	failed  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Store) *metrics {
	auto := promauto.With(reg)
	denials := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_account_denials_total",
		Help: "Times that somebody was not let in, by reason."}, []string{"reason"})
	m := &metrics{denials: map[string]prometheus.Counter{}}
	for _, reason := range []string{telemetry.DeniedMissing, telemetry.DeniedWrong, telemetry.DeniedExpired, telemetry.DeniedSlow, telemetry.DeniedBusy, telemetry.DeniedForbidden} {
		m.denials[reason] = denials.WithLabelValues(reason)
	}
	m.failed = auto.NewCounter(prometheus.CounterOpts{Name: "haidang_account_reload_failures_total",
		Help: "Versions of the file of accounts that could not be used."})
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_accounts",
		Help: "Accounts in force."}, func() float64 { return float64(s.Count()) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_account_slowed_addresses",
		Help: "Addresses that gave wrong secrets within the last ten minutes."}, func() float64 { return float64(s.slow.size()) })
	return m
}

func (m *metrics) denied(reason string) { m.denials[reason].Inc() }
