package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A loader is a load of readings with one value each, over MQTT with QoS 1.
type loader struct {
	address    string
	publishers int
	window     int           // unacknowledged messages of a publisher
	rate       int           // readings a second of all together; 0: as fast as acknowledgements come
	lasting    time.Duration // of the load
	alarm      int           // one reading in so many is an alarm; 0: none
	pad        string        // a word that each reading carries

	mu     sync.Mutex
	raised []time.Time // when each alarm was handed to the socket
	acks   []time.Duration
	took   time.Duration // until the last acknowledgement
	failed error
}

// alarmFrom is the value of the first alarm; the rule of the load looks for
// values from there on, and the value says which alarm it is.
const alarmFrom = 500_000_000

// run loads until the time is over and everything is acknowledged.
func (l *loader) run() error {
	begin := time.Now()
	var working sync.WaitGroup
	for i := range l.publishers {
		working.Go(func() {
			acks, err := l.publish(i, begin)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.acks = append(l.acks, acks...)
			l.failed = errors.Join(l.failed, err)
		})
	}
	working.Wait()
	l.took = time.Since(begin)
	slices.Sort(l.acks)
	return l.failed
}

// publish is one publisher. It returns how long each acknowledgement took.
func (l *loader) publish(me int, begin time.Time) ([]time.Duration, error) {
	conn, err := dialMQTT(l.address, fmt.Sprint("load-", me), 0)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The times lie in a ring by the number of the message: no two goroutines
	// are at one place, since a place is used again only after its slot is free.
	sent := make([]time.Time, l.window)
	slots := make(chan struct{}, l.window)
	var total atomic.Int64
	total.Store(-1)
	acks := make([]time.Duration, 0, 1<<16)
	heard := make(chan error, 1)
	go func() {
		in := bufio.NewReaderSize(conn, 4<<10)
		var ack [4]byte
		for n := 0; int64(n) != total.Load(); n++ {
			if _, err := io.ReadFull(in, ack[:]); err != nil {
				heard <- fmt.Errorf("publisher %d: acknowledgement %d: %w", me, n, err)
				conn.Close()
				return
			}
			acks = append(acks, time.Since(sent[n%l.window]))
			<-slots
		}
		heard <- nil
	}()
	count, err := l.write(me, begin, conn, sent, slots)
	if err != nil {
		return acks, errors.Join(err, <-heard)
	}
	total.Store(int64(count))
	_ = conn.SetReadDeadline(time.Now().Add(60 * time.Second))
	// The reader waits for one more acknowledgement when it had read the last
	// before it knew the total: a message of its own wakes it.
	slots <- struct{}{}
	total.Store(int64(count) + 1)
	sent[count%l.window] = time.Now()
	if _, err := conn.Write(l.packet(nil, me, count, 0)); err != nil {
		return acks, errors.Join(err, <-heard)
	}
	return acks, <-heard
}

func (l *loader) write(me int, begin time.Time, conn io.Writer, sent []time.Time, slots chan struct{}) (int, error) {
	out := bufio.NewWriterSize(conn, 16<<10)
	var packet []byte
	each := time.Duration(0)
	if l.rate > 0 {
		each = time.Second * time.Duration(l.publishers) / time.Duration(l.rate)
	}
	for n := 0; ; n++ {
		if each > 0 {
			due := begin.Add(each*time.Duration(me)/time.Duration(l.publishers) + each*time.Duration(n))
			if wait := time.Until(due); wait > 0 {
				if err := out.Flush(); err != nil {
					return n, err
				}
				<-time.After(wait)
			}
		}
		if time.Since(begin) > l.lasting {
			return n, out.Flush()
		}
		select {
		case slots <- struct{}{}:
		default:
			if err := out.Flush(); err != nil {
				return n, err
			}
			slots <- struct{}{}
		}
		now := time.Now()
		sent[n%l.window] = now
		value := n
		if l.alarm > 0 && (n+me*l.alarm/l.publishers)%l.alarm == l.alarm/2 {
			l.mu.Lock()
			value = alarmFrom + len(l.raised)
			l.raised = append(l.raised, now)
			l.mu.Unlock()
		}
		packet = l.packet(packet[:0], me, n, value)
		if _, err := out.Write(packet); err != nil {
			return n, err
		}
		if value >= alarmFrom {
			if err := out.Flush(); err != nil {
				return n, err
			}
		}
	}
}

func (l *loader) packet(dst []byte, me, n, value int) []byte {
	payload := fmt.Appendf(nil, `{"n":%d}`, value)
	if l.pad != "" {
		payload = fmt.Appendf(nil, `{"n":%d,"pad":"%s"}`, value, l.pad)
	}
	return appendPublish(dst, fmt.Sprintf("telemetry/load-%d/count", me), payload, 1, uint16(n%60000+1))
}

// share returns the value below which so large a share of the sorted times is.
func share(times []time.Duration, part float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(int(float64(len(times))*part), len(times)-1)]
}

// milliseconds writes a time for a table.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}
