package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

const (
	maxSubscribers  = 256  // pages that are open
	subscriberQueue = 256  // events that a subscriber may be behind
	keptEvents      = 1024 // for those who come back with Last-Event-ID; a quarter goes at a time
	heartbeat       = 15 * time.Second
	eventWriteTime  = 10 * time.Second
)

// A hub hands events to its subscribers and keeps the latest for those who
// come back.
type hub struct {
	epoch string // of this process: ids of another do not fit

	mu          sync.Mutex
	closed      bool
	last        uint64   // sequence of the newest event, from 1
	kept        [][]byte // events last-len(kept)+1 to last
	subscribers map[chan []byte]struct{}

	sent, slow, full prometheus.Counter
}

func newHub(now time.Time, reg prometheus.Registerer) *hub {
	with := promauto.With(reg)
	dropped := with.NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_console_subscribers_dropped_total", Help: "Event streams ended because they did not keep up (slow), or refused because there are enough (full)."}, []string{"reason"})
	return &hub{
		epoch:       strconv.FormatInt(now.UnixNano(), 36),
		subscribers: map[chan []byte]struct{}{},
		sent: with.NewCounter(prometheus.CounterOpts{
			Name: "haidang_console_events_total", Help: "Transitions of warnings offered to event streams."}),
		slow: dropped.WithLabelValues("slow"),
		full: dropped.WithLabelValues("full"),
	}
}

// notify offers a warning to every subscriber; one whose queue is full is ended.
func (h *hub) notify(w *telemetry.Warning) {
	body, err := json.Marshal(w)
	if err != nil { // a NaN: nothing that came through the log
		return
	}
	h.sent.Inc()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.last++
	// JSON has no line breaks, so that one data line holds it.
	event := fmt.Appendf(nil, "id: %s-%d\nevent: warning\ndata: %s\n\n", h.epoch, h.last, body)
	if len(h.kept) == keptEvents {
		h.kept = append(h.kept[:0:0], h.kept[keptEvents/4:]...)
	}
	h.kept = append(h.kept, event)
	for s := range h.subscribers {
		select {
		case s <- event:
		default:
			h.slow.Inc()
			delete(h.subscribers, s)
			close(s)
		}
	}
}

// subscribe returns the events that follow lastID, as far as they are kept, and
// a channel with those to come, which is closed when the stream ends.
func (h *hub) subscribe(lastID string) (missed []byte, events chan []byte, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, problemf(http.StatusServiceUnavailable, "", "the gateway is stopping")
	}
	if len(h.subscribers) >= maxSubscribers {
		h.full.Inc()
		return nil, nil, problemf(http.StatusServiceUnavailable, "", "%d event streams are open, no more are served", maxSubscribers)
	}
	events = make(chan []byte, subscriberQueue)
	h.subscribers[events] = struct{}{}
	return h.since(lastID), events, nil
}

func (h *hub) since(lastID string) []byte {
	if lastID == "" {
		return nil
	}
	resync := []byte("event: resync\ndata: {}\n\n")
	epoch, number, _ := strings.Cut(lastID, "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || epoch != h.epoch || seq > h.last || h.last-seq > uint64(len(h.kept)) {
		return resync
	}
	return bytes.Join(h.kept[len(h.kept)-int(h.last-seq):], nil)
}

func (h *hub) unsubscribe(events chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribers, events)
}

// close ends every stream.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subscribers {
		delete(h.subscribers, s)
		close(s)
	}
}

// events serves GET /api/v1/events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
func (c *Console) events(w http.ResponseWriter, r *http.Request) error {
	missed, events, err := c.hub.subscribe(r.Header.Get("Last-Event-ID"))
	if err != nil {
		w.Header().Set("Retry-After", "10")
		return err
	}
	defer c.hub.unsubscribe(events)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return nil
	}
	stream := http.NewResponseController(w)
	send := func(event []byte) bool {
		// The stream outlives the server's own write timeout; each write has one.
		if stream.SetWriteDeadline(time.Now().Add(eventWriteTime)) != nil {
			return false
		}
		if _, err := w.Write(event); err != nil {
			return false
		}
		return stream.Flush() == nil
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for ok := send(append([]byte(": haidang\n\n"), missed...)); ok; {
		select {
		case event, open := <-events:
			ok = open && send(event)
		case <-beat.C:
			ok = send([]byte(": still here\n\n"))
		case <-r.Context().Done():
			return nil
		}
	}
	return nil
}
