package ais

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are one receiver's, all with the label source.
type metrics struct {
	lines     prometheus.Counter
	sentences prometheus.Counter
	readings  prometheus.Counter
	types     [28]prometheus.Counter
	unread    [28]prometheus.Counter
	rejected  [reasonCount]prometheus.Counter
	refused   prometheus.Counter
	lost      prometheus.Counter
	peers     prometheus.Gauge

	duplicates  prometheus.Counter
	thinned     prometheus.Counter
	unchanged   prometheus.Counter
	implausible prometheus.Counter
	wrongClock  prometheus.Counter

	forwarded      *prometheus.CounterVec // by address
	forwardDropped *prometheus.CounterVec // by address and reason
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
		lines:     counter("haidang_ais_lines_total", "Lines received."),
		sentences: counter("haidang_ais_sentences_total", "VDM and VDO sentences with a right checksum."),
		readings:  counter("haidang_ais_readings_total", "Readings made of messages."),
		refused:   counter("haidang_ais_refused_connections_total", "Connections refused and senders forgotten because there were too many."),
		lost:      counter("haidang_ais_lost_readings_total", "Readings that the intake could not keep."),
		peers:     auto.NewGauge(prometheus.GaugeOpts{Name: "haidang_ais_talkers", Help: "Open connections, known senders or files being read."}),
	}
	types := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_ais_messages_total", Help: "Complete messages by type."}, []string{"type"})
	for i := 1; i < len(m.types); i++ {
		m.types[i] = types.WithLabelValues(strconv.Itoa(i))
	}
	unread := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_ais_unread_messages_total", Help: "Messages of types and contents that make no reading, by type."}, []string{"type"})
	for i := 1; i < len(m.unread); i++ {
		m.unread[i] = unread.WithLabelValues(strconv.Itoa(i))
	}
	held := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_ais_held_back_total", Help: "Messages that made no reading because nothing in them was new."}, []string{"reason"})
	m.duplicates, m.thinned, m.unchanged = held.WithLabelValues("duplicate"), held.WithLabelValues("thinned"), held.WithLabelValues("unchanged")
	m.implausible = counter("haidang_ais_implausible_positions_total", "Positions that fit no vessel on their MMSI, stored with quality bad.")
	m.wrongClock = counter("haidang_ais_wrong_clock_total", "Messages whose line has a time too far from that of receipt.")
	m.forwarded = auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_ais_forwarded_total", Help: "Sentences forwarded to other programs."}, []string{"to"})
	m.forwardDropped = auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_ais_forward_dropped_total", Help: "Sentences not forwarded."}, []string{"to", "reason"})
	rejected := auto.NewCounterVec(prometheus.CounterOpts{Name: "haidang_ais_rejected_total", Help: "Lines, sentences and messages refused."}, []string{"reason"})
	for i := int(None) + 1; i < reasonCount; i++ {
		m.rejected[i] = rejected.WithLabelValues(Reason(i).String())
	}
	return m
}

// add counts what is new in now since before.
func (m *metrics) add(now, before *Counts) {
	m.lines.Add(float64(now.Lines - before.Lines))
	m.sentences.Add(float64(now.Sentences - before.Sentences))
	m.readings.Add(float64(now.Readings - before.Readings))
	for i := 1; i < len(m.types); i++ {
		if n := now.Types[i] - before.Types[i]; n > 0 {
			m.types[i].Add(float64(n))
		}
	}
	for i := 1; i < len(m.unread); i++ {
		if n := now.Unread[i] - before.Unread[i]; n > 0 {
			m.unread[i].Add(float64(n))
		}
	}
	m.duplicates.Add(float64(now.Duplicates - before.Duplicates))
	m.thinned.Add(float64(now.Thinned - before.Thinned))
	m.unchanged.Add(float64(now.Unchanged - before.Unchanged))
	m.implausible.Add(float64(now.Implausible - before.Implausible))
	m.wrongClock.Add(float64(now.WrongClock - before.WrongClock))
	for i := int(None) + 1; i < reasonCount; i++ {
		if n := now.Rejected[i] - before.Rejected[i]; n > 0 {
			m.rejected[i].Add(float64(n))
		}
	}
}
