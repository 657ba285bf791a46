package intake

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

type metrics struct {
	accepted   *prometheus.CounterVec
	aside      *prometheus.CounterVec
	wrongTime  prometheus.Counter
	outOfRange prometheus.Counter
	unknown    prometheus.Counter
	words      prometheus.Counter
	contacts   prometheus.Counter
	failures   [testCount][2]prometheus.Counter // by test: suspect, bad

	sources *sync.Map // source -> prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	with := promauto.With(reg)
	m := metrics{
		accepted:   with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_readings_accepted_total", Help: "Readings handed to the log, by source."}, []string{"source"}),
		aside:      with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_set_aside_total", Help: "Payloads, sentences and readings that could not be used, by source and reason; see the dead letters."}, []string{"source", "reason"}),
		wrongTime:  with.NewCounter(prometheus.CounterOpts{Name: "haidang_wrong_device_time_total", Help: "Readings whose device time was before 2000 or more than a day ahead, stored at receipt time."}),
		outOfRange: with.NewCounter(prometheus.CounterOpts{Name: "haidang_values_out_of_range_total", Help: "Values outside the range of their kind, stored with quality bad."}),
		words:      with.NewCounter(prometheus.CounterOpts{Name: "haidang_words_for_numbers_total", Help: "Values that came as a word where their kind has a number, stored as a word with quality bad."}),
		unknown:    with.NewCounter(prometheus.CounterOpts{Name: "haidang_unknown_total", Help: "Kinds and values seen that the catalogue does not know, stored all the same."}),
		contacts:   with.NewCounter(prometheus.CounterOpts{Name: "haidang_first_contacts_total", Help: "Devices that are not registered and were first heard since the start, over MQTT, HTTP or a bridge."}),
		sources:    &sync.Map{},
	}
	failures := with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_quality_failures_total", Help: "Values that did not pass a test of quality that their kind or device asks for, by test and the quality they got."}, []string{"test", "quality"})
	for t := grossRange; t < testCount; t++ {
		m.failures[t] = [2]prometheus.Counter{
			failures.WithLabelValues(testNames[t], telemetry.Suspect.String()),
			failures.WithLabelValues(testNames[t], telemetry.Bad.String()),
		}
	}
	return m
}

// failed counts a value that did not pass.
func (m *metrics) failed(t test, q telemetry.Quality) {
	severity := 0
	if q == telemetry.Bad {
		severity = 1
	}
	m.failures[t][severity].Inc()
}

func (m *metrics) accept(source string, n int) {
	c, ok := m.sources.Load(source)
	if !ok {
		c, _ = m.sources.LoadOrStore(source, m.accepted.WithLabelValues(source))
	}
	c.(prometheus.Counter).Add(float64(n))
}

func (m *metrics) setAside(source, reason string) {
	m.aside.WithLabelValues(source, reason).Inc()
}
