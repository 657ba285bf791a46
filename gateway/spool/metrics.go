package spool

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// maxReasons bounds the label reason of the dead letters.
const maxReasons = 64

// metrics are what the spool counts.
type metrics struct {
	registry *registry

	frames, records, bytes, refused *prometheus.CounterVec
	seconds                         *prometheus.HistogramVec
	retries, dropped, letters, lost *prometheus.CounterVec
	rereads                         *prometheus.CounterVec
	restarts, positionErrors, paced prometheus.Counter
	reconnects, surrendered         prometheus.Counter

	mu      sync.Mutex
	reasons map[string]bool
}

// registry remembers what was registered, so that Close can take it back.
type registry struct {
	prometheus.Registerer
	mine []prometheus.Collector
}

func (r *registry) MustRegister(cs ...prometheus.Collector) {
	r.mine = append(r.mine, cs...)
	if r.Registerer != nil {
		r.Registerer.MustRegister(cs...)
	}
}

func newMetrics(reg prometheus.Registerer) *metrics {
	r := &registry{Registerer: reg}
	with := promauto.With(r)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_spool_" + name, Help: help}, labels)
	}
	return &metrics{
		registry: r,
		frames:   counter("frames_total", "Frames on disk.", "log"),
		records:  counter("records_total", "Records on disk.", "log"),
		bytes:    counter("appended_bytes_total", "Bytes of lines on disk.", "log"),
		refused:  counter("refused_total", "Records refused.", "log", "reason"),
		seconds: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "haidang_spool_append_seconds", Help: "From the first record of a frame to the frame on disk.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}, []string{"log"}),
		retries:        counter("follower_retries_total", "Batches that a follower did not accept.", "log", "follower"),
		dropped:        counter("follower_dropped_total", "Frames that were gone before the follower had read them.", "log", "follower"),
		lost:           counter("lost_frames_total", "Frames that a damaged disk has lost, found at the start.", "log"),
		letters:        counter("dead_letters_total", "Records and frames set aside for a follower.", "log", "follower", "reason"),
		rereads:        counter("reread_total", "Times that reading a log was interrupted and begun again.", "log"),
		restarts:       with.NewCounter(prometheus.CounterOpts{Name: "haidang_spool_restarts_total", Help: "Restarts of the embedded log."}),
		positionErrors: with.NewCounter(prometheus.CounterOpts{Name: "haidang_spool_position_errors_total", Help: "Times that positions could not be stored."}),
		reconnects:     with.NewCounter(prometheus.CounterOpts{Name: "haidang_spool_reconnects_total", Help: "Times that the connection to the cluster was lost and found again."}),
		surrendered:    with.NewCounter(prometheus.CounterOpts{Name: "haidang_spool_surrenders_total", Help: "Times that another gateway had taken over the log in the cluster."}),
		paced:          with.NewCounter(prometheus.CounterOpts{Name: "haidang_spool_paced_seconds_total", Help: "Time that appending readings waited for the follower that they must not run away from."}),
		reasons:        map[string]bool{},
	}
}

func (m *metrics) unregister() {
	if m.registry.Registerer == nil {
		return
	}
	for _, c := range m.registry.mine {
		m.registry.Registerer.Unregister(c)
	}
}

// deadLetter counts a dead letter.
func (m *metrics) deadLetter(log, follower, reason string) {
	m.mu.Lock()
	if !m.reasons[reason] {
		if len(m.reasons) < maxReasons {
			m.reasons[reason] = true
		} else {
			reason = "other"
		}
	}
	m.mu.Unlock()
	m.letters.WithLabelValues(log, follower, reason).Inc()
}

// logMetrics are those of one log, bound once.
type logMetrics struct {
	all                                          *metrics
	log                                          string
	frames, records, bytes                       prometheus.Counter
	refusedFull, refusedDisk, refusedUnavailable prometheus.Counter
	rereads                                      prometheus.Counter
	seconds                                      prometheus.Observer
}

func (m *metrics) of(log string) logMetrics {
	return logMetrics{
		all: m, log: log,
		frames: m.frames.WithLabelValues(log), records: m.records.WithLabelValues(log), bytes: m.bytes.WithLabelValues(log),
		refusedFull:        m.refused.WithLabelValues(log, "full"),
		refusedDisk:        m.refused.WithLabelValues(log, "disk"),
		refusedUnavailable: m.refused.WithLabelValues(log, "unavailable"),
		rereads:            m.rereads.WithLabelValues(log),
		seconds:            m.seconds.WithLabelValues(log),
	}
}

type followerMetrics struct{ retries, dropped prometheus.Counter }

func (m logMetrics) follower(name string) followerMetrics {
	return followerMetrics{
		retries: m.all.retries.WithLabelValues(m.log, name),
		dropped: m.all.dropped.WithLabelValues(m.log, name),
	}
}

// observe registers what is looked at when metrics are collected.
func (m *metrics) observe(s *Spool) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("haidang_spool_"+name, help, labels, nil)
	}
	m.registry.MustRegister(&gauges{
		spool:      s,
		queue:      desc("queue_bytes", "Bytes that wait for the disk.", "log"),
		stored:     desc("log_bytes", "Bytes of the log on disk.", "log"),
		lag:        desc("follower_lag_frames", "Frames that the follower has not accepted.", "log", "follower"),
		lagSeconds: desc("follower_lag_seconds", "Log time between the newest frame and the one accepted last.", "log", "follower"),
	})
}

type gauges struct {
	spool                          *Spool
	queue, stored, lag, lagSeconds *prometheus.Desc
}

func (g *gauges) Describe(to chan<- *prometheus.Desc) {
	to <- g.queue
	to <- g.stored
	to <- g.lag
	to <- g.lagSeconds
}

func (g *gauges) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	cores := map[string]*core{}
	for _, c := range g.spool.cores() {
		cores[c.name] = c
		send(g.queue, float64(c.queued.Load()), c.name)
		send(g.stored, float64(c.storedBytes.Load()), c.name)
	}
	for key, at := range g.spool.positions.all() {
		if !at.ours && g.spool.options.Part != (Part{}) {
			continue // told by the process that has the follower
		}
		c := cores[key.log]
		last := c.last.Load()
		send(g.lag, float64(last-min(at.accepted, last)), key.log, key.name)
		if behind := time.Duration(max(c.lastReceived.Load(), c.newestAt.Load()) - at.received); at.accepted >= last {
			send(g.lagSeconds, 0, key.log, key.name)
		} else if at.received > 0 {
			send(g.lagSeconds, behind.Seconds(), key.log, key.name)
		}
	}
}
