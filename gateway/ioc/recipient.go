package ioc

import (
	"context"
	"log/slog"
	"slices"
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

	// firstKeep is when a Keeper is first called: what it keeps may be wrong since
	// before the start, as a siren's relay that has lost power.
	firstKeep = time.Second

	// logEvery is how often a recipient that fails is worth a line in the log.
	logEvery = time.Minute
)

// A Deliverer makes one attempt to hand a warning to a recipient. nil means
// that the recipient has it. It must be safe for concurrent use, bound the
// attempt in time, and end it when the context ends.
type Deliverer interface {
	Deliver(ctx context.Context, w telemetry.Warning) error
}

// A Picker is a Deliverer that is not for every warning.
type Picker interface {
	// Picks reports whether the transition is for it.
	Picks(w telemetry.Warning) bool
}

// A Keeper is a Deliverer that has to say something while warnings last,
// although nothing changes.
type Keeper interface {
	// Every is how often Keep is called.
	Every() time.Duration
	// Keep is told, by a function, which of its warnings last at present. Its
	// error is that of an attempt to deliver.
	Keep(ctx context.Context, lasting func() []telemetry.Warning) error
}

// Options of a Recipient. The zero value works.
type Options struct {
	Registerer  prometheus.Registerer // nil: not registered
	Logger      *slog.Logger          // nil: slog.Default
	Concurrency int                   // attempts of one Sender at a time; 0: DefaultConcurrency
	FirstPause  time.Duration         // 0: DefaultFirstPause
	MaxPause    time.Duration         // 0: DefaultMaxPause
	// Told is called after each attempt, by several goroutines at once; it must not
	// block. nil: nobody wants to know.
	Told func(w *telemetry.Warning, t Told)
}

// A Recipient is one place that warnings go to. Its Senders share what was
// delivered and how the recipient fares.
type Recipient struct {
	name    string
	via     string // the protocol
	to      Deliverer
	options Options

	digester Digester
	storm    *storm // nil: each warning is told by itself
	meter    *meter // nil: messages are not bounded
	folded   prometheus.Counter

	past Past // nil: nothing is known of before the start

	log    *slog.Logger
	ledger *ledger
	gate   gate

	delivered   prometheus.Counter
	failed      map[string]prometheus.Counter
	skipped     map[error]prometheus.Counter
	attempt     prometheus.Observer
	lastSuccess prometheus.Gauge

	mu       sync.Mutex
	senders  []*Sender
	trying   int                        // things that are being sent, or wait to be tried again
	lasting  func() []telemetry.Warning // nil: Keep does not run
	gaveUp   time.Time                  // when one was given up for which nothing spoke but that it was alone
	accepted time.Time                  // the last time that it accepted anything
	fault    string                     // of the last attempt that failed
	faultAt  time.Time
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
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "haidang_ioc_circuit", Help: "How the recipient is called: 0 it is, 1 one attempt is made to see whether it answers again, 2 it is left alone for a while."},
		func() float64 { return float64(r.gate.circuit()) })
	r.folded = with.NewCounter(prometheus.CounterOpts{
		Name: "haidang_ioc_folded_total", Help: "Transitions told together with others, in a digest of their river or area."})
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
	r.mu.Lock()
	r.senders = append(r.senders, s)
	r.mu.Unlock()
	promauto.With(registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "haidang_ioc_oldest_undelivered_seconds",
		Help: "Age of the oldest transition that the recipient was offered and has not accepted; 0: none.",
	}, func() float64 { return s.oldest(time.Now()).Seconds() })
	return s
}

// wants reports whether a transition is for the recipient.
func (r *Recipient) wants(w *telemetry.Warning) bool {
	if !r.addressed(w) {
		return false
	}
	picker, ok := r.to.(Picker)
	return !ok || picker.Picks(*w)
}

// addressed reports whether the warning goes to the recipient at all.
func (r *Recipient) addressed(w *telemetry.Warning) bool {
	return w.State != telemetry.Pending && !w.Shadow && (len(w.To) == 0 || slices.Contains(w.To, r.name))
}

// Offer returns what a recipient that is new is told of the warnings that last.
func (r *Recipient) Offer(lasting []telemetry.Warning) []telemetry.Transition {
	if o, ok := r.to.(interface {
		Offer([]telemetry.Warning) []telemetry.Warning
	}); ok {
		lasting = o.Offer(lasting)
	}
	out := make([]telemetry.Transition, len(lasting))
	for i := range lasting {
		out[i].Warning = lasting[i]
	}
	return out
}

// Keep lets a recipient that is a Keeper say what it has to while warnings
// last, and closes the recipient when ctx ends. lasting returns the warnings that
// are not cleared.
func (r *Recipient) Keep(ctx context.Context, lasting func() []telemetry.Warning) error {
	if closer, ok := r.to.(interface{ Close() }); ok {
		defer closer.Close()
	}
	mine := func() []telemetry.Warning {
		return slices.DeleteFunc(lasting(), func(w telemetry.Warning) bool { return !r.addressed(&w) })
	}
	r.keeps(mine)
	defer r.keeps(nil)
	keeper, ok := r.to.(Keeper)
	if !ok {
		<-ctx.Done()
		return nil
	}
	for pause := min(keeper.Every(), firstKeep); sleep(ctx, pause) == nil; pause = keeper.Every() {
		if r.gate.wait(ctx) != nil {
			break
		}
		attempt, leave, probe := r.gate.pass(ctx, false)
		if probe != nil {
			continue // a warning probes: the next time will do
		}
		began := time.Now()
		err := keeper.Keep(attempt, mine)
		if context.Cause(attempt) == errOvertaken {
			leave()
			continue // a grave warning takes its place
		}
		if ctx.Err() == nil {
			r.gate.noted(began, err)
		}
		leave()
		switch {
		case ctx.Err() != nil:
		case err != nil:
			r.failedWith(r.count(err), "of those that last", err)
		default:
			r.kept()
		}
	}
	return nil
}

func (r *Recipient) count(err error) *Failure {
	failure := failureIn(err)
	counter, ok := r.failed[failure.Reason]
	if !ok {
		counter = r.failed[reasonOther]
	}
	counter.Inc()
	return failure
}

// succeeded notes that the recipient accepted a warning.
func (r *Recipient) succeeded() {
	r.delivered.Inc()
	r.kept()
}

// kept notes that the recipient answered well.
func (r *Recipient) kept() {
	r.lastSuccess.SetToCurrentTime()
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
	r.fault, r.faultAt = err.Error(), now
	if r.failing.IsZero() && !f.OneWarning && !f.Delivered {
		r.failing = now
	}
	if now.Sub(r.logged) < logEvery {
		return
	}
	r.logged = now
	said := "a warning is not delivered yet and will be tried again"
	if f.Delivered {
		said = "a warning is delivered, but not to all"
	}
	r.log.Warn(said, "warning", key, "error", err)
}

func (r *Recipient) acceptedSince(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted.After(t)
}

// begin counts something that is sent until it is delivered or given up; the
// caller calls end then.
func (r *Recipient) begin() (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trying++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.trying--
	}
}

// alone reports whether what is refused is the only thing that is tried, so that
// nothing can show whether the recipient takes others: those come behind it. One
// such is given up, and the next only after something was accepted.
func (r *Recipient) alone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trying > 1 || r.gaveUp.After(r.accepted) {
		return false
	}
	r.gaveUp = time.Now()
	return true
}

// A Health says how a recipient fares.
type Health struct {
	Recipient   string     `json:"recipient"`
	Via         string     `json:"via"`                    // webhook, cap, smtp, ...
	Circuit     string     `json:"circuit"`                // closed: it is called; open: it is left alone for a while
	Backlog     int        `json:"backlog"`                // transitions that it was offered and has not accepted
	OldestS     float64    `json:"oldest_s"`               // age of the oldest of them, in seconds
	LastSuccess *time.Time `json:"last_success,omitempty"` // since the start of the gateway, as the two below
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	Since       *time.Time `json:"failing_since,omitempty"` // it fails without a success in between
}

// Health returns how the recipient fares.
func (r *Recipient) Health() Health {
	h := Health{Recipient: r.name, Via: r.via, Circuit: r.gate.circuit().String()}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.senders {
		h.Backlog += s.backlog()
		h.OldestS = max(h.OldestS, s.oldest(now).Seconds())
	}
	h.LastSuccess, h.LastErrorAt, h.Since = known(r.accepted), known(r.faultAt), known(r.failing)
	h.LastError = r.fault
	return h
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
