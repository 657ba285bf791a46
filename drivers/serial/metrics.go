package serial

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Reasons of failed requests.
const (
	failTimeout = "timeout"    // no answer in time
	failAnswer  = "bad_answer" // what came was no answer to the request
	failCRC     = "crc"        // its CRC was wrong
	failClosed  = "closed"     // the line broke
)

type metrics struct {
	lines    [verdicts]prometheus.Counter
	fields   map[string]prometheus.Counter
	readings prometheus.Counter
	unkept   prometheus.Counter
	requests prometheus.Counter
	failures map[string]prometheus.Counter
}

func newMetrics(source string, reg prometheus.Registerer) *metrics {
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"source": source}, reg)
	}
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		readings: counter("haidang_serial_readings_total", "Readings made of lines."),
		unkept:   counter("haidang_serial_lost_readings_total", "Readings that the intake could not keep."),
		requests: counter("haidang_serial_requests_total", "Polls and SDI-12 commands sent."),
		fields:   map[string]prometheus.Counter{},
		failures: map[string]prometheus.Counter{},
	}
	lines := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_serial_lines_total", Help: "Lines received, by what became of them."}, []string{"result"})
	for v := used; v < verdicts; v++ {
		m.lines[v] = lines.WithLabelValues(verdictNames[v])
	}
	fields := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_serial_lost_fields_total", Help: "Fields of right lines that gave no value."}, []string{"reason"})
	for _, reason := range []string{lostInvalid, lostField, lostUnit, lostMissing} {
		m.fields[reason] = fields.WithLabelValues(reason)
	}
	failures := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_serial_failures_total", Help: "Requests without a usable answer."}, []string{"reason"})
	for _, reason := range []string{failTimeout, failAnswer, failCRC, failClosed} {
		m.failures[reason] = failures.WithLabelValues(reason)
	}
	return m
}
