package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sort"
	"sync"
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

// A SourceState is how a source stands, for operators.
type SourceState struct {
	Name     string    `json:"name"`
	Running  bool      `json:"running"`
	Restarts int       `json:"restarts"`
	Error    string    `json:"error,omitempty"` // the last one
	Since    time.Time `json:"since"`
}

// A supervisor keeps sources running.
type supervisor struct {
	intake   telemetry.Intake
	logger   *slog.Logger
	up       *prometheus.GaugeVec
	restarts *prometheus.CounterVec

	mu     sync.Mutex
	states map[string]*SourceState
}

func newSupervisor(intake telemetry.Intake, reg prometheus.Registerer, logger *slog.Logger) *supervisor {
	with := promauto.With(reg)
	return &supervisor{
		intake: intake, logger: logger, states: map[string]*SourceState{},
		up:       with.NewGaugeVec(prometheus.GaugeOpts{Name: "haidang_source_running", Help: "1 while the source runs, 0 while it waits to be started again."}, []string{"source"}),
		restarts: with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_source_restarts_total", Help: "How often a source ended with an error and was started again."}, []string{"source"}),
	}
}

// keep runs the source until ctx ends, with a growing pause between failures.
func (s *supervisor) keep(ctx context.Context, src source) error {
	pause := firstPause
	said := ""
	for {
		s.set(src.name, func(st *SourceState) { st.Running = true })
		started := time.Now()
		err := runSafely(ctx, src)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			s.set(src.name, func(st *SourceState) { st.Running, st.Error = false, "" })
			return nil // it has delivered all it had, as a file does
		}
		s.set(src.name, func(st *SourceState) { st.Running, st.Error, st.Restarts = false, err.Error(), st.Restarts+1 })
		s.restarts.WithLabelValues(src.name).Inc()
		if time.Since(started) > lastPause {
			pause, said = firstPause, ""
		}
		if err.Error() != said { // the same trouble is told once
			said = err.Error()
			s.logger.Warn("source failed, trying again", "source", src.name, "error", err)
		}
		s.intake.Accept(src.name, []telemetry.Reading{telemetry.Link(src.link, false, err)}, nil)
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

func (s *supervisor) set(name string, change func(*SourceState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.states[name]
	if st == nil {
		st = &SourceState{Name: name}
		s.states[name] = st
	}
	was := st.Running
	change(st)
	if st.Running != was || st.Since.IsZero() {
		st.Since = time.Now().UTC()
	}
	running := 0.0
	if st.Running {
		running = 1
	}
	s.up.WithLabelValues(name).Set(running)
}

// sources returns how the sources stand, by name.
func (s *supervisor) sources() []SourceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]SourceState, 0, len(s.states))
	for _, st := range s.states {
		out = append(out, *st)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}
