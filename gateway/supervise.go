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

// lookAgain is how often a source that had failed is looked at, until its link
// is up again.
const lookAgain = time.Second

// An error whose cause can end at any moment says when it has: a serial device
// that is plugged in again.
type passing interface {
	// Wait returns nil when it is worth trying again.
	Wait(ctx context.Context) error
}

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
	ours := false // its link is down by our word, not by its own
	up := s.up.WithLabelValues(src.name)
	defer up.Set(0)
	for {
		up.Set(1)
		started := time.Now()
		recovered, err := s.attempt(ctx, src, said != "", ours)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			return nil // it has delivered all it had, as a file does
		}
		up.Set(0)
		s.restarts.WithLabelValues(src.name).Inc()
		if time.Since(started) > lastPause {
			pause = firstPause
		}
		if recovered {
			said, ours = "", false
		}
		if err.Error() != said { // the same trouble is told once
			said = err.Error()
			s.logger.Warn("source failed, trying again", "source", src.name, "error", err)
		}
		if !s.down(src.link) { // the source has not told it itself, nor has an earlier try
			ours = true
			s.intake.Accept(src.name, []telemetry.Reading{telemetry.Link(src.link, false, err)}, nil)
		}
		if early := rest(ctx, err, pause/2+rand.N(pause)); early {
			pause = firstPause
		} else {
			pause = min(2*pause, lastPause)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// attempt runs the source once. Of one that had failed it tells when it runs
// again, and returns whether it did: when its link is up, or it has not failed
// for as long as the longest pause. A link that we took down, because the source
// ended without a word, is up again then too.
func (s *supervisor) attempt(ctx context.Context, src source, failed, ours bool) (recovered bool, err error) {
	if !failed {
		return false, runSafely(ctx, src)
	}
	began := time.Now()
	watched, stop := context.WithCancel(ctx)
	told := make(chan bool)
	go func() {
		for wait(watched, lookAgain) {
			if s.down(src.link) && time.Since(began) < lastPause {
				continue
			}
			if ours && s.down(src.link) {
				s.intake.Accept(src.name, []telemetry.Reading{telemetry.Link(src.link, true, nil)}, nil)
			}
			s.logger.Info("source runs again", "source", src.name)
			told <- true
			return
		}
		told <- false
	}()
	// The goroutine above has ended when this returns.
	defer func() { stop(); recovered = <-told }()
	return false, runSafely(ctx, src)
}

// rest waits for d, or until the error says that its cause is over: then it is
// early.
func rest(ctx context.Context, err error, d time.Duration) (early bool) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var cause passing
	if errors.As(err, &cause) && cause.Wait(ctx) == nil {
		return true
	}
	<-ctx.Done()
	return false
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
