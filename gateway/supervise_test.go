package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// links remembers what a supervisor tells of links.
type links struct{ readings []telemetry.Reading }

// down reports whether the newest one says so.
func (l *links) down(string) bool { return len(l.readings) > 0 }

func (l *links) Accept(_ string, readings []telemetry.Reading, _ func(error)) {
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
		if len(heard.readings) != 1 || heard.readings[0].Device != "line-1" || heard.readings[0].Text("cause") != "no route to host" {
			t.Errorf("links %+v", heard.readings)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}
