package ioc

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

// Defaults and bounds of delivery.
const (
	DefaultConcurrency = 8                      // attempts of one Sender at a time
	DefaultFirstPause  = 500 * time.Millisecond // after a first failure; doubles with each further one
	DefaultMaxPause    = 30 * time.Second       // between attempts

	// MaxHold is the longest that a Retry-After of a recipient is honoured: an
	// escalation must not wait for a day because of a header.
	MaxHold = 5 * time.Minute

	// GiveUpAttempts and GiveUpAfter are how often and how long a warning is
	// tried that the recipient refuses while it accepts others.
	GiveUpAttempts = 10
	GiveUpAfter    = 15 * time.Minute

	// logEvery is how often a recipient that fails is worth a line in the log.
	logEvery = time.Minute
)

// A Deliverer makes one attempt to hand a warning to a recipient. nil means
// that the recipient has it. It must be safe for concurrent use, bound the
// attempt in time, and end it when the context ends.
type Deliverer interface {
	Deliver(ctx context.Context, w telemetry.Warning) error
}

// Options of a Recipient. The zero value works.
type Options struct {
	Registerer  prometheus.Registerer // nil: not registered
	Logger      *slog.Logger          // nil: slog.Default
	Concurrency int                   // attempts of one Sender at a time; 0: DefaultConcurrency
	FirstPause  time.Duration         // 0: DefaultFirstPause
	MaxPause    time.Duration         // 0: DefaultMaxPause
}

// A Recipient is one place that warnings go to. Its Senders share what was
// delivered and how the recipient fares.
type Recipient struct {
	name    string
	to      Deliverer
	options Options
	log     *slog.Logger
	ledger  *ledger
	gate    gate

	delivered   prometheus.Counter
	failed      map[string]prometheus.Counter
	skipped     map[error]prometheus.Counter
	attempt     prometheus.Observer
	lastSuccess prometheus.Gauge

	mu       sync.Mutex
	accepted time.Time // the last time that it accepted anything
	logged   time.Time // the last line about its failing
	failing  time.Time // since when it fails; zero: it does not
}

// NewRecipient makes a recipient. Its name is unique among those that share a
// Registerer.
func NewRecipient(name string, to Deliverer, o Options) *Recipient {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Concurrency == 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.FirstPause == 0 {
		o.FirstPause = DefaultFirstPause
	}
	if o.MaxPause == 0 {
		o.MaxPause = DefaultMaxPause
	}
	if o.Registerer != nil {
		o.Registerer = prometheus.WrapRegistererWith(prometheus.Labels{"recipient": name}, o.Registerer)
	}
	r := &Recipient{
		name: name, to: to, options: o,
		log:    o.Logger.With("recipient", name),
		ledger: newLedger(),
		gate:   gate{first: o.FirstPause, max: o.MaxPause},
	}
	r.register(promauto.With(o.Registerer))
	return r
}

func (r *Recipient) register(with promauto.Factory) {
	r.delivered = with.NewCounter(prometheus.CounterOpts{
		Name: "haidang_ioc_delivered_total", Help: "Transitions of warnings that the recipient accepted."})
	failed := with.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_ioc_failed_total", Help: "Attempts that did not deliver; they are repeated."}, []string{"reason"})
	r.failed = map[string]prometheus.Counter{}
	for _, reason := range reasons {
		r.failed[reason] = failed.WithLabelValues(reason)
	}
	skipped := with.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_ioc_skipped_total", Help: "Transitions not sent: superseded by a newer one delivered before, delivered before themselves, or refused for good and set aside."}, []string{"reason"})
	r.skipped = map[error]prometheus.Counter{
		errSuperseded: skipped.WithLabelValues("superseded"),
		errDuplicate:  skipped.WithLabelValues("duplicate"),
		errGivenUp:    skipped.WithLabelValues("refused"),
	}
	r.attempt = with.NewHistogram(prometheus.HistogramOpts{
		Name: "haidang_ioc_attempt_seconds", Help: "Duration of one attempt to deliver.",
		Buckets: []float64{0.005, 0.02, 0.1, 0.5, 2, 10, 60}})
	r.lastSuccess = with.NewGauge(prometheus.GaugeOpts{
		Name: "haidang_ioc_last_success_timestamp_seconds", Help: "Unix time of the last delivery; 0: none since the start."})
}

// Sender returns the recipient's sender for a class; a class has one.
func (r *Recipient) Sender(class Class) *Sender {
	s := &Sender{to: r, class: class, slots: make(chan struct{}, r.options.Concurrency), waiting: map[int]time.Time{}}
	registerer := r.options.Registerer
	if registerer != nil {
		registerer = prometheus.WrapRegistererWith(prometheus.Labels{"class": class.String()}, registerer)
	}
	promauto.With(registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "haidang_ioc_oldest_undelivered_seconds",
		Help: "Age of the oldest transition that the recipient was offered and has not accepted; 0: none.",
	}, func() float64 { return s.oldest(time.Now()).Seconds() })
	return s
}

// succeeded notes that the recipient accepted a warning.
func (r *Recipient) succeeded() {
	r.delivered.Inc()
	r.lastSuccess.SetToCurrentTime()
	r.gate.succeeded()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted = time.Now()
	if !r.failing.IsZero() && !r.logged.Before(r.failing) {
		r.log.Info("the recipient accepts warnings again", "after", r.accepted.Sub(r.failing).Round(time.Second))
	}
	r.failing = time.Time{}
}

// failedWith notes that an attempt failed, and says so in the log when it has
// not done so lately.
func (r *Recipient) failedWith(f *Failure, key string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.failing.IsZero() && !f.OneWarning {
		r.failing = now
	}
	if now.Sub(r.logged) < logEvery {
		return
	}
	r.logged = now
	r.log.Warn("a warning is not delivered yet and will be tried again", "warning", key, "error", err)
}

func (r *Recipient) acceptedSince(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted.After(t)
}
