package influx

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	written      prometheus.Counter
	rejected     *prometheus.CounterVec
	failures     *prometheus.CounterVec
	writeSeconds prometheus.Histogram
	statements   prometheus.Counter
	dropped      prometheus.Counter
	deleted      prometheus.Counter
	restarts     prometheus.Counter
	disk         prometheus.Gauge
	free         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	return &metrics{
		written: with.NewCounter(prometheus.CounterOpts{
			Name: "haidang_influx_points_written_total",
			Help: "Points accepted by InfluxDB, those sent again included.",
		}),
		rejected: with.NewCounterVec(prometheus.CounterOpts{
			Name: "haidang_influx_points_rejected_total",
			Help: "Points refused by InfluxDB and set aside, by reason.",
		}, []string{"reason"}),
		failures: with.NewCounterVec(prometheus.CounterOpts{
			Name: "haidang_influx_write_failures_total",
			Help: "Writes that failed and are tried again, by reason.",
		}, []string{"reason"}),
		writeSeconds: with.NewHistogram(prometheus.HistogramOpts{
			Name:    "haidang_influx_write_seconds",
			Help:    "Time of one write request, the sync to disk included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		statements: with.NewCounter(prometheus.CounterOpts{
			Name: "haidang_influx_statements_refused_total",
			Help: "InfluxQL requests on the port that would have changed something.",
		}),
		dropped: with.NewCounter(prometheus.CounterOpts{
			Name: "haidang_influx_shard_groups_dropped_total",
			Help: "Oldest shard groups dropped because the disk was nearly full.",
		}),
		deleted: with.NewCounter(prometheus.CounterOpts{
			Name: "haidang_influx_retention_deletes_total",
			Help: "Deletions of a kind's readings beyond its retention.",
		}),
		restarts: with.NewCounter(prometheus.CounterOpts{
			Name: "haidang_influx_restarts_total",
			Help: "Times the embedded engine was opened again after an error of its files.",
		}),
		disk: with.NewGauge(prometheus.GaugeOpts{
			Name: "haidang_influx_disk_bytes",
			Help: "Bytes that the embedded engine holds on disk.",
		}),
		free: with.NewGauge(prometheus.GaugeOpts{
			Name: "haidang_influx_disk_free_bytes",
			Help: "Bytes free on the disk of the embedded engine.",
		}),
	}
}

func (m *metrics) observe(began time.Time) { m.writeSeconds.Observe(time.Since(began).Seconds()) }
