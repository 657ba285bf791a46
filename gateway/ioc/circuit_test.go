package ioc

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

// After BreakAfter failures a recipient that is down gets one attempt at a time
// however many warnings wait, and all of them as soon as one was accepted.
func TestTheCircuitBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts, underWay, most atomic.Int32
		var up atomic.Bool
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		inMemory(t, hook, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			attempts.Add(1)
			if n := underWay.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer underWay.Add(-1)
			_ = sleep(r.Context(), 100*time.Millisecond)
			if !up.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		recipient := NewRecipient("ioc", hook, quick(nil))
		recipient.gate.max, recipient.gate.first = 30*time.Second, time.Second
		sender := recipient.Sender(All)
		var batch []telemetry.Transition
		for d := range 40 {
			batch = append(batch, transitions(warning(fmt.Sprintf("d%d", d), 1, telemetry.Severe))...)
		}
		done := make(chan error)
		go func() { done <- sender.Accept(t.Context(), batch) }()
		_ = sleep(t.Context(), time.Minute)
		for recipient.gate.circuit() == Probing {
			_ = sleep(t.Context(), 50*time.Millisecond) // an attempt is under way just now
		}
		if c := recipient.gate.circuit(); c != Broken {
			t.Errorf("the circuit is %s, want open", c)
		}
		before := attempts.Load()
		most.Store(0)
		_ = sleep(t.Context(), 10*time.Minute)
		if n := attempts.Load() - before; most.Load() != 1 || n < 10 || n > 50 {
			t.Errorf("%d attempts in 10 minutes, %d at once; want one about every 15 to 30 s", n, most.Load())
		}
		h := recipient.Health()
		if h.Backlog != 40 || !strings.Contains(h.LastError, "503") || h.Since == nil || h.LastSuccess != nil {
			t.Errorf("health %+v", h)
		}
		up.Store(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if h := recipient.Health(); h.Backlog != 0 || h.Circuit != "closed" || h.Since != nil || h.LastSuccess == nil {
			t.Errorf("health %+v", h)
		}
	})
}

// A probe that is given up because the gateway stops lets the next one through.
func TestAProbeThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		inMemory(t, hook, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		recipient := NewRecipient("ioc", hook, quick(nil))
		recipient.gate.failures = BreakAfter
		sender := recipient.Sender(All)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := sender.Accept(ctx, transitions(warning("a", 1, telemetry.Severe), warning("b", 1, telemetry.Severe))); err == nil {
			t.Error("accepted")
		}
		if _, leave, wait := recipient.gate.pass(t.Context(), false); wait != nil {
			t.Error("the probe is still counted as under way")
		} else {
			leave()
		}
	})
}

// A recipient hangs for hours, each attempt until its time is over, while minor
// warnings of two devices wait. A grave one that comes then takes the place of the
// minor one's probe, and is delivered before what waits as soon as the recipient
// answers again.
func TestAGraveOneOvertakesProbesThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var mu sync.Mutex
		var got []telemetry.Severity
		var begun []telemetry.Severity
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/", Timeout: telemetry.Duration(10 * time.Second)}, "1")
		inMemory(t, hook, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var warning telemetry.Warning
			_ = json.NewDecoder(r.Body).Decode(&warning)
			mu.Lock()
			begun = append(begun, warning.Severity)
			mu.Unlock()
			if !up.Load() {
				<-r.Context().Done()
				return
			}
			mu.Lock()
			got = append(got, warning.Severity)
			mu.Unlock()
		}))
		recipient := NewRecipient("ioc", hook, quick(nil))
		recipient.gate.max, recipient.gate.first = 30*time.Second, time.Second
		var minor []telemetry.Transition
		for n := range 20 {
			w := warning([]string{"a", "b"}[n%2], 1, telemetry.Minor)
			w.ID = fmt.Sprintf("w%d", n)
			minor = append(minor, transitions(w)...)
		}
		rest, grave := recipient.Sender(Rest), recipient.Sender(Grave)
		done := make(chan error)
		go func() { done <- rest.Accept(t.Context(), minor) }()
		_ = sleep(t.Context(), time.Hour)
		for recipient.gate.circuit() != Probing { // a minor one's probe hangs
			_ = sleep(t.Context(), 100*time.Millisecond)
		}
		mu.Lock()
		before := len(begun)
		mu.Unlock()
		go func() { done <- grave.Accept(t.Context(), transitions(warning("c", 1, telemetry.Extreme))) }()
		_ = sleep(t.Context(), time.Second)
		mu.Lock()
		if len(begun) != before+1 || begun[before] != telemetry.Extreme {
			t.Errorf("a second after the extreme one came %v were begun, want that one", begun[before:])
		}
		mu.Unlock()
		_ = sleep(t.Context(), time.Hour)
		up.Store(true)
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if len(got) != 21 || got[0] != telemetry.Extreme {
			t.Errorf("%d were delivered, %v first; want 21, the extreme one first", len(got), got[:1])
		}
	})
}
