package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// links remembers what a supervisor tells of links.
type links struct {
	mu       sync.Mutex
	readings []telemetry.Reading
}

// down reports whether the newest one says so.
func (l *links) down(string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.readings)
	return n > 0 && l.readings[n-1].Values[0].Number == 0
}

func (l *links) Accept(_ string, readings []telemetry.Reading, _ func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readings = append(l.readings, readings...)
}

func (l *links) SetAside(telemetry.DeadLetter, func(error)) {}

// TestSupervisorStartsAgain has a source fail, panic, run well for a while, fail
// again and end with its context.
func TestSupervisorStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		heard := &links{}
		s := newSupervisor(heard, heard.down, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(context.Background())
		var starts []time.Time
		src := source{name: "modbus.line-1", link: "line-1", run: func(ctx context.Context) error {
			starts = append(starts, time.Now())
			switch len(starts) {
			case 1, 2:
				return errors.New("no route to host")
			case 3:
				panic("a fault of the driver")
			case 4:
				time.Sleep(2 * lastPause)
				return io.EOF
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		ended := make(chan error)
		go func() { ended <- s.keep(ctx, src) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(starts) != 5 {
			t.Fatalf("%d starts, want 5", len(starts))
		}
		for i, c := range []struct{ least, most time.Duration }{{500, 1500}, {1000, 3000}, {2000, 6000}} {
			if pause := starts[i+1].Sub(starts[i]); pause < c.least*time.Millisecond || pause > c.most*time.Millisecond {
				t.Errorf("pause %d was %v", i+1, pause)
			}
		}
		if pause := starts[4].Sub(starts[3]) - 2*lastPause; pause > 2*time.Second {
			t.Errorf("after it had run well the pause was %v, not the first one", pause)
		}
		if n := testutil.ToFloat64(s.restarts.WithLabelValues("modbus.line-1")); n != 4 {
			t.Errorf("%v restarts counted, want 4", n)
		}
		if testutil.ToFloat64(s.up.WithLabelValues("modbus.line-1")) != 1 {
			t.Error("a running source is not counted as running")
		}
		if n := strings.Count(log.String(), "no route to host"); n != 1 {
			t.Errorf("the same trouble was told %d times", n)
		}
		// Down at its first failure, up after it had run well, and the same again.
		var told []string
		for _, r := range heard.readings {
			up, _ := r.Number("up")
			told = append(told, fmt.Sprint(r.Device, up, r.Text("cause")))
		}
		if got := strings.Join(told, ", "); got != "line-10no route to host, line-11, line-10EOF, line-11" {
			t.Errorf("links %s", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

// unplugged is an error whose cause ends.
type unplugged struct{ back chan struct{} }

func (u unplugged) Error() string { return "the device is gone" }

func (u unplugged) Wait(ctx context.Context) error {
	select {
	case <-u.back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestSupervisorDoesNotOversleep: a source whose trouble is over is started at
// once, and that it runs again is told, once, and its next trouble is news.
func TestSupervisorDoesNotOversleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		var present, isDown atomic.Bool
		isDown.Store(true)
		s := newSupervisor(&links{}, func(string) bool { return isDown.Load() }, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		back := make(chan struct{})
		var starts []time.Time
		src := source{name: "serial.wxt", link: "wxt", run: func(ctx context.Context) error {
			starts = append(starts, time.Now())
			if present.Load() {
				isDown.Store(false)
				wait(ctx, 20*time.Second)
				isDown.Store(true)
				present.Store(false)
			}
			return fmt.Errorf("serial %q: %w", "wxt", unplugged{back})
		}}
		ended := make(chan error)
		go func() { ended <- s.keep(ctx, src) }()
		time.Sleep(5 * time.Minute) // the pauses are long by now
		synctest.Wait()
		if n := len(starts); n < 7 || n > 14 {
			t.Errorf("%d starts in 5 minutes without the device", n)
		}
		for range 3 {
			n, plugged := len(starts), time.Now()
			present.Store(true)
			back <- struct{}{}
			synctest.Wait()
			if len(starts) != n+1 || !starts[n].Equal(plugged) {
				t.Errorf("start %d was not at the moment of the device's return", n+1)
			}
			time.Sleep(20 * time.Second) // then it is gone again
			synctest.Wait()
		}
		if n := strings.Count(log.String(), "runs again"); n != 3 {
			t.Errorf("told %d times that it runs again, want 3:\n%s", n, log.String())
		}
		if n := strings.Count(log.String(), "the device is gone"); n != 4 {
			t.Errorf("its trouble was told %d times, want 4:\n%s", n, log.String())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestSupervisorTrustsTime: a listener to which nobody has come runs again
// although its link is not up.
func TestSupervisorTrustsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		s := newSupervisor(&links{}, func(string) bool { return true }, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		first := true
		ended := make(chan error)
		go func() {
			ended <- s.keep(ctx, source{name: "ais.nmea", link: "nmea", run: func(ctx context.Context) error {
				if first {
					first = false
					return errors.New("the port is taken")
				}
				<-ctx.Done()
				return nil
			}})
		}()
		time.Sleep(lastPause)
		synctest.Wait()
		if strings.Contains(log.String(), "runs again") {
			t.Error("told before the time of a long pause")
		}
		time.Sleep(lastPause)
		synctest.Wait()
		if n := strings.Count(log.String(), "runs again"); n != 1 {
			t.Errorf("told %d times that it runs again", n)
		}
		cancel()
		<-ended
	})
}
