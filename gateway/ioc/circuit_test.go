package ioc

import (
	"context"
	"fmt"
	"net/http"
	"strings"
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
		if leave, wait := recipient.gate.pass(); wait != nil {
			t.Error("the probe is still counted as under way")
		} else {
			leave()
		}
	})
}
