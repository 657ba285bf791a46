package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// A sink is an intake that settles in batches on a goroutine of its own, as a
// log does that is on an infinitely fast disk.
type sink struct {
	mu    sync.Mutex
	batch []func(error)
	wake  chan struct{}
}

func (s *sink) Accept(_ string, _ []telemetry.Reading, done func(error)) {
	if done == nil {
		return
	}
	s.mu.Lock()
	s.batch = append(s.batch, done)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sink) SetAside(_ telemetry.DeadLetter, done func(error)) { s.Accept("", nil, done) }

func (s *sink) run(ctx context.Context) {
	var batch []func(error)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		batch, s.batch = s.batch, batch[:0]
		s.mu.Unlock()
		for i, done := range batch {
			done(nil)
			batch[i] = nil
		}
	}
}

// BenchmarkAcknowledged measures QoS 1 messages acknowledged per second; the
// publishers run in the same process.
func BenchmarkAcknowledged(b *testing.B) {
	for _, c := range []struct{ publishers, window int }{{50, 20}, {1, 100}} {
		b.Run(fmt.Sprintf("publishers=%d/inflight=%d", c.publishers, c.window), func(b *testing.B) {
			ctx, cancel := context.WithCancel(context.Background())
			intake := &sink{wake: make(chan struct{}, 1)}
			var running sync.WaitGroup
			running.Go(func() { intake.run(ctx) })
			broker, err := New(loopback(), intake, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			running.Go(func() { _ = broker.Run(ctx) })
			b.ReportAllocs()
			b.ResetTimer()
			var publishers sync.WaitGroup
			for p := range c.publishers {
				publishers.Go(func() {
					if err := publishMany(broker.Addr(), p, b.N/c.publishers+1, c.window); err != nil {
						b.Error(err)
					}
				})
			}
			publishers.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acked/s")
			b.StopTimer()
			cancel()
			running.Wait()
		})
	}
}

// publishMany publishes n messages, keeping window of them unacknowledged.
func publishMany(address string, publisher, n, window int) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	w := &wire{Conn: conn, in: bufio.NewReaderSize(conn, 4096), version: 4}
	if _, err := conn.Write(packet(0x10, text("MQTT"), []byte{4, 2, 0, 60}, text(fmt.Sprint(publisher)))); err != nil {
		return err
	}
	if _, err := io.ReadFull(w.in, make([]byte, 4)); err != nil {
		return err
	}
	message := w.publication(2, 0, fmt.Sprintf("telemetry/station-%d/river", publisher), `{"time":1761523200123,"level_m":3.62,"rain_1h_mm":12.4,"battery_v":12.6}`)
	id := 2 + 2 + int(binary.BigEndian.Uint16(message[2:4]))
	var out []byte
	sent := 0
	for acked := 0; acked < n; {
		out = out[:0]
		for sent < n && sent-acked < window {
			sent++
			binary.BigEndian.PutUint16(message[id:], uint16(sent%65535+1))
			out = append(out, message...)
		}
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
		}
		for first := true; first || w.in.Buffered() >= 4; first = false {
			var ack [4]byte
			if _, err := io.ReadFull(w.in, ack[:]); err != nil {
				return err
			}
			if ack[0] != 0x40 {
				return fmt.Errorf("packet %x", ack)
			}
			acked++
		}
	}
	return nil
}
