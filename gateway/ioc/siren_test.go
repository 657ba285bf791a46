package ioc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

// A relay remembers what it was switched to, and fails while it is told to.
type relay struct {
	mu     sync.Mutex
	down   bool
	on     bool
	writes []string
}

func (r *relay) write(_ context.Context, line, unit, setting string, number float64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return errors.New("unit 5 does not answer")
	}
	r.on = number == 1
	r.writes = append(r.writes, fmt.Sprintf("%s/%s/%s=%v", line, unit, setting, number))
	return nil
}

func (r *relay) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func TestSiren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &relay{}
		recipient := NewRecipient("siren", NewSiren(SirenConfig{Line: "line-1", Unit: "5", Setting: "siren"}, r.write), Options{Logger: slog.New(slog.DiscardHandler)})
		sender := recipient.Sender(All)
		var mu sync.Mutex
		board := map[string]telemetry.Warning{}
		ctx, stop := context.WithCancel(t.Context())
		kept := make(chan error)
		go func() {
			kept <- recipient.Keep(ctx, func() (out []telemetry.Warning) {
				mu.Lock()
				defer mu.Unlock()
				for _, w := range board {
					out = append(out, w)
				}
				return out
			})
		}()
		step := func(device string, n int, s telemetry.Severity, state telemetry.State, change ...func(*telemetry.Warning)) {
			w := warning(device, n, s)
			w.State, w.At = state, time.Now()
			for _, c := range change {
				c(&w)
			}
			mu.Lock()
			board[w.ID] = w
			if state == telemetry.Cleared {
				delete(board, w.ID)
			}
			mu.Unlock()
			if err := sender.Accept(t.Context(), transitions(w)); err != nil {
				t.Fatal(err)
			}
		}
		sounds := func(what string, want bool) {
			t.Helper()
			r.set(func() {
				if r.on != want {
					t.Errorf("%s: it sounds: %v", what, r.on)
				}
			})
		}
		_ = sleep(t.Context(), time.Minute)
		r.set(func() {
			if !slices.Equal(r.writes, []string{"line-1/5/siren=0"}) {
				t.Errorf("at the start it is written %v, want off once", r.writes)
			}
		})
		step("a", 1, telemetry.Severe, telemetry.Active)
		sounds("severe", false)
		step("a", 2, telemetry.Extreme, telemetry.Active)
		sounds("extreme", true)
		step("b", 1, telemetry.Extreme, telemetry.Active)
		step("a", 3, telemetry.Extreme, telemetry.Acknowledged)
		sounds("one of two is acknowledged", true)
		step("b", 2, telemetry.Severe, telemetry.Active)
		sounds("the other one falls", false)
		step("c", 1, telemetry.Extreme, telemetry.Active, func(w *telemetry.Warning) { w.Exercise = true })
		sounds("a drill", false)

		r.set(func() { r.down = true })
		done := make(chan struct{})
		go func() { step("d", 1, telemetry.Extreme, telemetry.Active); close(done) }()
		_ = sleep(t.Context(), 3*time.Minute)
		r.set(func() { r.down = false })
		<-done
		sounds("the relay was away", true)
		r.set(func() { r.on = false }) // it has lost power
		_ = sleep(t.Context(), 90*time.Second)
		sounds("switched on again", true)
		_ = sleep(t.Context(), 10*time.Minute)
		sounds("long enough", false)
		step("d", 2, telemetry.Extreme, telemetry.Active) // a comment
		sounds("nothing new", false)
		step("e", 1, telemetry.Extreme, telemetry.Active)
		sounds("a new one", true)
		step("e", 2, telemetry.Extreme, telemetry.Cleared)
		sounds("over", false)

		// After a restart the board alone tells.
		step("f", 1, telemetry.Extreme, telemetry.Active)
		stop()
		if err := <-kept; err != nil {
			t.Error(err)
		}
		again := NewSiren(SirenConfig{}, r.write)
		r.set(func() { r.on = false })
		if err := again.Keep(t.Context(), func() []telemetry.Warning { return []telemetry.Warning{board["f-flood-3f9a2c1b"]} }); err != nil {
			t.Error(err)
		}
		sounds("after a restart", true)
	})
}
