package ioc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

// sounds wants the relay on or off.
func (r *relay) sounds(t *testing.T, what string, want bool) {
	t.Helper()
	r.set(func() {
		if r.on != want {
			t.Errorf("%s: it sounds: %v", what, r.on)
		}
	})
}

// memoryOf is what the log and the record of deliveries know of warnings.
type memoryOf struct {
	mu    sync.Mutex
	board *telemetry.Board
	told  map[string]int
}

func (m *memoryOf) past(id string) (news int, at time.Time, told int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t, ok := m.board.Transition(id); ok && t.Chase != nil {
		news, at = t.Chase.N, t.Chase.At
	}
	return news, at, m.told[id]
}

func (m *memoryOf) note(w *telemetry.Warning, t Told) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.Accepted {
		m.told[w.ID] = max(m.told[w.ID], w.N)
	}
}

// become puts a warning on the board as it stands; one that stays active and does not
// rise got a comment.
func (m *memoryOf) become(w telemetry.Warning) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := telemetry.Transition{Warning: w}
	before, ok := m.board.Transition(w.ID)
	switch {
	case w.State != telemetry.Active:
	case ok && before.Chase != nil && w.Severity <= before.Severity:
		next.Chase = before.Chase
	default:
		next.Chase = &telemetry.Chase{N: w.N, At: w.At, Since: w.At}
	}
	m.board.Apply(next)
}

// TestSirenAgain: what a siren does after a restart, and when its relay comes back, is
// for what it has not sounded for, and for no longer than that.
func TestSirenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &relay{}
		history := &memoryOf{board: telemetry.NewBoard(), told: map[string]int{}}
		var mu sync.Mutex
		lasts := map[string]telemetry.Warning{}
		var sender *Sender
		var stop func()
		start := func() { // a gateway with this siren
			recipient := NewRecipient("siren", NewSiren(SirenConfig{Line: "line-1", Unit: "5", Setting: "siren"}, r.write, history.past),
				Options{Logger: slog.New(slog.DiscardHandler), Told: history.note})
			sender = recipient.Sender(All)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				ended <- recipient.Keep(ctx, func() (out []telemetry.Warning) {
					mu.Lock()
					defer mu.Unlock()
					return slices.Collect(maps.Values(lasts))
				})
			}()
			stop = func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}
		happens := func(device string, n int, state telemetry.State) telemetry.Warning {
			w := warning(device, n, telemetry.Extreme)
			w.State, w.At = state, time.Now()
			history.become(w)
			mu.Lock()
			defer mu.Unlock()
			lasts[w.ID] = w
			return w
		}
		deliver := func(w telemetry.Warning) {
			t.Helper()
			if err := sender.Accept(t.Context(), transitions(w)); err != nil {
				t.Fatal(err)
			}
		}
		sounds := func(what string, want bool) { t.Helper(); r.sounds(t, what, want) }
		start()
		deliver(happens("a", 1, telemetry.Active))
		sounds("raised", true)
		_ = sleep(t.Context(), 4*time.Minute)
		stop()
		sounds("nobody would switch it off", false)
		_ = sleep(t.Context(), time.Minute)
		start()
		_ = sleep(t.Context(), 30*time.Second)
		sounds("for the rest of its time", true)
		_ = sleep(t.Context(), 6*time.Minute)
		sounds("longest is over, in spite of the restart", false)

		stop()
		_ = sleep(t.Context(), time.Hour)
		comment := happens("a", 2, telemetry.Active)
		start()
		_ = sleep(t.Context(), time.Minute)
		sounds("a comment before the start", false)
		deliver(comment)
		_ = sleep(t.Context(), time.Minute)
		sounds("the comment is delivered after the start", false)
		again := comment
		again.N = 1
		stop()
		start()
		deliver(again)
		sounds("the raise is delivered a second time after a start", false)

		stop()
		missed := happens("b", 1, telemetry.Active)
		late := happens("b", 2, telemetry.Active)
		_ = sleep(t.Context(), time.Hour)
		start()
		_ = sleep(t.Context(), time.Minute)
		deliver(missed)
		sounds("raised while the gateway was away", true)
		deliver(late)
		_ = sleep(t.Context(), 8*time.Minute)
		sounds("raised while the gateway was away, for the whole time", true)
		_ = sleep(t.Context(), 3*time.Minute)
		sounds("longest is over", false)

		r.set(func() { r.down = true })
		done := make(chan struct{})
		go func() { defer close(done); deliver(happens("c", 1, telemetry.Active)) }()
		_ = sleep(t.Context(), time.Hour)
		r.set(func() { r.down = false })
		<-done
		sounds("the relay was away for longer than longest", true)
		_ = sleep(t.Context(), 11*time.Minute)
		sounds("longest is over", false)
		deliver(happens("a", 3, telemetry.Acknowledged))
		deliver(happens("a", 4, telemetry.Active)) // as when it rises, or a shelf ends
		sounds("active again", true)
		stop()
	})
}

func TestSiren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &relay{}
		history := &memoryOf{board: telemetry.NewBoard(), told: map[string]int{}}
		recipient := NewRecipient("siren", NewSiren(SirenConfig{Line: "line-1", Unit: "5", Setting: "siren"}, r.write, history.past),
			Options{Logger: slog.New(slog.DiscardHandler), Told: history.note})
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
			history.become(w)
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
		sounds := func(what string, want bool) { t.Helper(); r.sounds(t, what, want) }
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
		again := NewSiren(SirenConfig{}, r.write, history.past)
		r.set(func() { r.on = false })
		if err := again.Keep(t.Context(), func() []telemetry.Warning { return []telemetry.Warning{board["f-flood-3f9a2c1b"]} }); err != nil {
			t.Error(err)
		}
		sounds("after a restart", true)
	})
}
