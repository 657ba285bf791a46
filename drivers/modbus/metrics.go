package modbus

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Reasons of failed requests.
const (
	reasonConnect = "connect"    // no connection could be made
	reasonTimeout = "timeout"    // no answer in time
	reasonClosed  = "closed"     // the peer closed or reset the connection
	reasonAnswer  = "bad_answer" // the bytes were no answer to the request
	reasonGateway = "gateway"    // exceptions 10 and 11: the unit behind a gateway did not answer
)

type metrics struct {
	requests    prometheus.Counter
	connections prometheus.Counter
	seconds     prometheus.Histogram
	failures    map[string]prometheus.Counter
	exceptions  *prometheus.CounterVec
	stale       prometheus.Counter
	values      prometheus.Counter
	absent      [absences]prometheus.Counter
	missed      prometheus.Counter
}

func newMetrics(line string, reg prometheus.Registerer) *metrics {
	auto := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"line": line}, reg))
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		requests:    counter("haidang_modbus_requests_total", "Requests sent."),
		connections: counter("haidang_modbus_connections_total", "Connections made."),
		stale:       counter("haidang_modbus_stale_answers_total", "Answers discarded because they belong to another request."),
		values:      counter("haidang_modbus_values_total", "Values read."),
		missed:      counter("haidang_modbus_missed_polls_total", "Polls left out because the line was busy."),
		seconds: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "haidang_modbus_request_seconds", Help: "Time from a request to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13),
		}),
		exceptions: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "haidang_modbus_exceptions_total", Help: "Exceptions that units answered, by code.",
		}, []string{"code"}),
		failures: map[string]prometheus.Counter{},
	}
	failures := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_modbus_failures_total", Help: "Requests without a usable answer.",
	}, []string{"reason"})
	for _, reason := range []string{reasonConnect, reasonTimeout, reasonClosed, reasonAnswer, reasonGateway} {
		m.failures[reason] = failures.WithLabelValues(reason)
	}
	absent := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_modbus_absent_values_total", Help: "Registers read that held no value.",
	}, []string{"reason"})
	for a := notAvailable; a < absences; a++ {
		m.absent[a] = absent.WithLabelValues(absenceNames[a])
	}
	return m
}

func (m *metrics) exception(code byte) {
	m.exceptions.WithLabelValues(strconv.Itoa(int(code))).Inc()
}
