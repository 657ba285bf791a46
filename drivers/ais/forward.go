package ais

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/drivers/link"
)

const (
	// forwardQueue bounds the sentences that wait to be sent: a second of a busy
	// coast.
	forwardQueue = 2048
	// redialEvery is the least time between two looks at an address that could
	// not be resolved.
	redialEvery = 10 * time.Second
)

// A forward sends sentences to one other program by UDP, one in a datagram with
// CR LF at its end, and never waits for it.
type forward struct {
	address string
	queue   chan []byte
	free    sync.Pool

	sent        prometheus.Counter
	full        prometheus.Counter // the queue had no room
	unreachable prometheus.Counter // no address, or nobody there
	looped      prometheus.Counter // it goes in a circle; see rounds
	running     atomic.Bool        // somebody empties the queue
}

func newForward(to string, m *metrics) (*forward, error) {
	t, err := link.Parse(to)
	if err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	return &forward{
		address: t.Address, queue: make(chan []byte, forwardQueue),
		sent:        m.forwarded.WithLabelValues(to),
		full:        m.forwardDropped.WithLabelValues(to, "queue_full"),
		unreachable: m.forwardDropped.WithLabelValues(to, "unreachable"),
		looped:      m.forwardDropped.WithLabelValues(to, "looped"),
	}, nil
}

// offer queues a sentence, or counts it as dropped.
func (f *forward) offer(sentence []byte) {
	if !f.running.Load() {
		f.full.Inc()
		return
	}
	var b []byte
	if p, ok := f.free.Get().(*[]byte); ok {
		b = (*p)[:0]
	}
	b = append(append(b, sentence...), '\r', '\n')
	select {
	case f.queue <- b:
	default:
		f.full.Inc()
	}
}

// run sends what is queued until the context ends, and what was queued by then.
func (f *forward) run(ctx context.Context) {
	defer f.running.Store(false)
	var conn net.Conn
	var tried time.Time
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	send := func(b []byte) {
		if conn == nil && time.Since(tried) >= redialEvery {
			tried = time.Now()
			// With the time of one look-up: the queue goes on filling, no more.
			c, err := (&net.Dialer{Timeout: redialEvery / 2}).DialContext(ctx, "udp", f.address)
			if err == nil {
				conn = c
			}
		}
		if conn == nil {
			f.unreachable.Inc()
		} else if _, err := conn.Write(b); err != nil {
			f.unreachable.Inc() // also that nobody took the one before
		} else {
			f.sent.Inc()
		}
		f.free.Put(&b)
	}
	for {
		select {
		case b := <-f.queue:
			send(b)
		case <-ctx.Done():
			for {
				select {
				case b := <-f.queue:
					send(b)
				default:
					return
				}
			}
		}
	}
}
