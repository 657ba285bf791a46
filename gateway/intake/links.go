package intake

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

// Times and bounds of link readings that the log has refused.
const (
	tellAgain     = 2 * time.Second // between two tries
	tellTogether  = 256             // at a try, before it is known that the log takes them
	tellPatience  = 30 * time.Second
	maxLinksOwed  = 50_000
	reasonTooMany = "too_many"
)

// links are the link readings of the gateway's own that are on their way to the log,
// and those that it has refused.
type links struct {
	// order is held from where a link reading is noted until it is handed to the log,
	// so that what is told again is never behind what is news.
	order sync.Mutex

	mu    sync.Mutex
	count uint64
	sent  map[series]uint64 // the newest telling that is on its way
	owed  map[series]owed

	again prometheus.Counter
	lost  prometheus.Counter
}

// An owed is a link reading that the log does not have, as it came.
type owed struct {
	source  string
	reading telemetry.Reading
}

func newLinks(reg prometheus.Registerer) *links {
	with := promauto.With(reg)
	l := &links{sent: map[series]uint64{}, owed: map[series]owed{}}
	l.again = with.NewCounter(prometheus.CounterOpts{Name: "haidang_links_told_again_total", Help: "Tries to tell again that a device is linked or not, after the log had refused it."})
	l.lost = with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_links_lost_total", Help: "That a device is linked or not, refused by the log and not told again."}, []string{"reason"}).WithLabelValues(reasonTooMany)
	with.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_links_owed", Help: "Devices of which the log does not have yet whether they are linked, because it refuses readings."}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(len(l.owed))
	})
	return l
}

// ownLink reports whether a reading is of a link as the gateway tells it: one that has
// a time of its own comes from a device, which may send it again.
func ownLink(r telemetry.Reading) bool { return r.Kind == telemetry.KindLink && r.Time.IsZero() }

// begin is called before a link reading is noted, what it returns after it is handed
// to the log.
func (l *links) begin() (end func()) {
	l.order.Lock()
	return l.order.Unlock
}

// telling notes the link readings among those that come, and returns what is to be
// called when the log has taken or refused them, which calls done.
func (l *links) telling(source string, readings []telemetry.Reading, done func(error)) func(error) {
	told := map[series]owed{}
	for _, r := range readings {
		if ownLink(r) {
			r.Values, r.Tags = slices.Clone(r.Values), slices.Clone(r.Tags)
			told[seriesOf(&r)] = owed{source, r}
		}
	}
	l.mu.Lock()
	l.count++
	n := l.count
	for s := range told {
		l.sent[s] = n
		delete(l.owed, s)
	}
	l.mu.Unlock()
	return func(err error) {
		l.settle(n, told, err)
		if done != nil {
			done(err)
		}
	}
}

// settle notes what became of telling n. What can never be written is not owed.
func (l *links) settle(n uint64, told map[series]owed, err error) {
	var never *telemetry.Rejection
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, reading := range told {
		if l.sent[s] != n {
			continue // something newer is told of it
		}
		delete(l.sent, s)
		switch {
		case err == nil || errors.As(err, &never):
		case len(l.owed) >= maxLinksOwed:
			l.lost.Inc()
		default:
			l.owed[s] = reading
		}
	}
}

// some returns at most n of the series that are owed.
func (l *links) some(n int) []series {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []series
	for s := range l.owed {
		if out = append(out, s); len(out) == n {
			break
		}
	}
	return out
}

// Run tells again, until ctx ends, what the log has refused of links.
func (in *Intake) Run(ctx context.Context) error {
	every := time.NewTicker(tellAgain)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		for ctx.Err() == nil && in.tellLinks(ctx) {
		}
	}
}

// tellLinks tells some of the links that are owed. It returns whether the log has
// taken them all and more are owed. They are told one by one: partitions of the log
// may differ in what they take.
func (in *Intake) tellLinks(ctx context.Context) (more bool) {
	owing := in.links.some(tellTogether)
	answers := make(chan error, len(owing))
	asked := 0
	for _, s := range owing {
		if in.tellLink(s, func(err error) { answers <- err }) {
			asked++
		}
	}
	ctx, cancel := context.WithTimeout(ctx, tellPatience)
	defer cancel()
	taken := true
	for range asked {
		select {
		case err := <-answers:
			taken = taken && err == nil
		case <-ctx.Done():
			return false // the answers find their way
		}
	}
	return taken && len(owing) == tellTogether
}

// tellLink tells a link that is owed, stamped as of now: late, it would change no
// warning. It returns false when something newer was told meanwhile.
func (in *Intake) tellLink(s series, done func(error)) bool {
	defer in.links.begin()()
	in.links.mu.Lock()
	o, ok := in.links.owed[s]
	in.links.mu.Unlock()
	if !ok {
		return false
	}
	in.links.again.Inc()
	reading := []telemetry.Reading{o.reading}
	in.take(o.source, reading, in.links.telling(o.source, reading, done))
	return true
}
