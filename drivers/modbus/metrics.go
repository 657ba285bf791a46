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

	// not sent, because a late answer to another read could be taken for its own
	reasonUncertain = "uncertain"
)

// Reasons of connections that were no modem of the line.
const (
	strangerUnknown = "unknown_registration"
	strangerSilent  = "no_registration"
	strangerMany    = "too_many"
)

// What came of writes by hand.
const (
	writeDone     = "done"     // confirmed, and read back where that is possible
	writeRefused  = "refused"  // not allowed, or an exception of the unit
	writeFailed   = "failed"   // no answer; whether it was written is not known
	writeMismatch = "mismatch" // something else was read back
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
	confirmed   prometheus.Counter
	noise       prometheus.Counter
	strangers   map[string]prometheus.Counter
	writes      map[string]prometheus.Counter
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
		confirmed: counter("haidang_modbus_confirmed_answers_total", "Reads asked twice because another read had just brought the same bytes."),
		noise:     counter("haidang_modbus_unasked_bytes_total", "Bytes discarded because nobody had asked for them: noise, heartbeats of modems, late answers."),
	}
	labelled := func(name, help, label string, values ...string) map[string]prometheus.Counter {
		vector := auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		counters := map[string]prometheus.Counter{}
		for _, value := range values {
			counters[value] = vector.WithLabelValues(value)
		}
		return counters
	}
	m.failures = labelled("haidang_modbus_failures_total", "Requests without a usable answer.", "reason",
		reasonConnect, reasonTimeout, reasonClosed, reasonAnswer, reasonGateway, reasonUncertain)
	m.strangers = labelled("haidang_modbus_refused_connections_total", "Connections that were no modem of the line.", "reason",
		strangerUnknown, strangerSilent, strangerMany)
	m.writes = labelled("haidang_modbus_writes_total", "Writes by hand, by what came of them.", "result",
		writeDone, writeRefused, writeFailed, writeMismatch)
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
