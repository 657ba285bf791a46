package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

// A source delivers readings until its context ends. It does not retry: it
// returns its error and is started again.
type source struct {
	name string // as in messages and metrics: modbus.line-1
	link string // the device of its link readings
	run  func(context.Context) error
}

// Bounds of the pause before a source is started again.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// A supervisor keeps sources running.
type supervisor struct {
	intake   telemetry.Intake
	down     func(link string) bool // the newest link reading says so already
	logger   *slog.Logger
	up       *prometheus.GaugeVec
	restarts *prometheus.CounterVec
}

func newSupervisor(intake telemetry.Intake, down func(link string) bool, reg prometheus.Registerer, logger *slog.Logger) *supervisor {
	with := promauto.With(reg)
	return &supervisor{
		intake: intake, down: down, logger: logger,
		up:       with.NewGaugeVec(prometheus.GaugeOpts{Name: "haidang_source_running", Help: "1 while the source runs, 0 while it waits to be started again."}, []string{"source"}),
		restarts: with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_source_restarts_total", Help: "How often a source ended with an error and was started again."}, []string{"source"}),
	}
}

// keep runs the source until ctx ends, with a growing pause between failures.
func (s *supervisor) keep(ctx context.Context, src source) error {
	pause := firstPause
	said := ""
	up := s.up.WithLabelValues(src.name)
	defer up.Set(0)
	for {
		up.Set(1)
		started := time.Now()
		err := runSafely(ctx, src)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			return nil // it has delivered all it had, as a file does
		}
		up.Set(0)
		s.restarts.WithLabelValues(src.name).Inc()
		if time.Since(started) > lastPause {
			pause, said = firstPause, ""
		}
		if err.Error() != said { // the same trouble is told once
			said = err.Error()
			s.logger.Warn("source failed, trying again", "source", src.name, "error", err)
		}
		if !s.down(src.link) { // the source has not told it itself, nor has an earlier try
			s.intake.Accept(src.name, []telemetry.Reading{telemetry.Link(src.link, false, err)}, nil)
		}
		if !wait(ctx, pause/2+rand.N(pause)) {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// wait returns false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// runSafely turns a panic of a source into its error: one source's fault does
// not stop the others.
func runSafely(ctx context.Context, src source) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	err = src.run(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}
