package ioc

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

// Several warnings that a recipient refuses by themselves keep what comes behind them
// waiting no longer than one does, those of their own device as well.
func TestSeveralRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		began := time.Now()
		took := map[string]time.Duration{}
		ioc := &centre{answer: func(k string, _ int, _ http.Header) int {
			if strings.HasPrefix(k, "bad") {
				return 422
			}
			took[k] = time.Since(began)
			return 0
		}}
		inMemory(t, hook, ioc)
		sender := NewRecipient("ioc", hook, Options{Logger: slog.New(slog.DiscardHandler)}).Sender(All)
		of := func(id string, n int) telemetry.Warning {
			w := warning("kim-long", n, telemetry.Severe)
			w.ID = id
			return w
		}
		err := sender.Accept(t.Context(), transitions(of("bad-1", 1), of("bad-2", 1), of("good", 1), of("bad-3", 1), of("bad-1", 2), of("good", 2)))
		rejection, rejected := errors.AsType[*telemetry.Rejection](err)
		if !rejected || len(rejection.Records) != 4 {
			t.Errorf("%v, want four that are given up", err)
		}
		// bad-1/2 waits for bad-1/1: those of one warning keep their order.
		if total := time.Since(began); total > 2*GiveUpAfter+2*time.Minute {
			t.Errorf("it took %s", total)
		}
		if took["good/1"] > time.Second || took["good/2"] > time.Second || !slices.Equal(ioc.keys(), []string{"good/1", "good/2"}) {
			t.Errorf("accepted %v, after %v", ioc.keys(), took)
		}
	})
}

// What lasts behind a batch that is held up, since all of it is refused, is tried out
// of its turn; it shows that the recipient takes others.
func TestAheadOfWhatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		began := time.Now()
		took := map[string]time.Duration{}
		everything := false
		ioc := &centre{answer: func(k string, _ int, _ http.Header) int {
			if strings.HasPrefix(k, "bad") || everything {
				return 422
			}
			took[k] = time.Since(began)
			return 0
		}}
		inMemory(t, hook, ioc)
		recipient := NewRecipient("ioc", hook, Options{Logger: slog.New(slog.DiscardHandler)})
		recipient.past = func(id string) (news int, at time.Time, told int) {
			if strings.HasPrefix(id, "told") {
				told = 1 // before the start
			}
			return 1, began, told
		}
		sender := recipient.Sender(Grave)
		behind := []telemetry.Warning{warning("bad-c", 1, telemetry.Severe), warning("told", 1, telemetry.Extreme), warning("minor", 1, telemetry.Minor),
			warning("good-a", 3, telemetry.Extreme), warning("good-b", 1, telemetry.Severe), warning("elsewhere", 1, telemetry.Severe)}
		behind[5].To = []string{"others"}
		ctx, stop := context.WithCancel(t.Context())
		kept := make(chan error, 1)
		go func() {
			kept <- recipient.Keep(ctx, func() []telemetry.Warning { return slices.Clone(behind) })
		}()
		batch := transitions(warning("bad-a", 1, telemetry.Severe), warning("bad-b", 1, telemetry.Severe))
		rejection, rejected := errors.AsType[*telemetry.Rejection](sender.Accept(t.Context(), batch))
		if !rejected || len(rejection.Records) != 2 || time.Since(began) > GiveUpAfter+2*time.Minute {
			t.Fatalf("set aside %+v after %s, want both after %s", rejection, time.Since(began), GiveUpAfter)
		}
		if len(took) != 2 || took[key("good-a", 3)] > 2*aheadEvery || took[key("good-b", 1)] > 2*aheadEvery {
			t.Errorf("accepted after %v, want good-a and good-b within %s", took, 2*aheadEvery)
		}
		// They come in their turn, and are known.
		if err := sender.Accept(t.Context(), transitions(warning("good-a", 2, telemetry.Severe), behind[3], behind[4])); err != nil {
			t.Error(err)
		}
		if got := len(ioc.keys()); got != 2 {
			t.Errorf("accepted %v, want each once", ioc.keys())
		}

		// A recipient that refuses whatever it gets is not given everything there is, and
		// nothing is given up.
		ioc.mu.Lock()
		everything = true
		clear(ioc.attempts)
		ioc.mu.Unlock()
		behind = behind[:0]
		for _, device := range strings.Fields("e f g h i j k l m n o p q r s t u v w x y z") {
			behind = append(behind, warning(device, 1, telemetry.Severe))
		}
		limit, cancel := context.WithTimeout(t.Context(), 3*time.Minute+time.Second)
		defer cancel()
		if err := sender.Accept(limit, transitions(warning("c", 1, telemetry.Severe), warning("d", 1, telemetry.Severe))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("of a recipient that refuses everything: %v", err)
		}
		if got := len(ioc.attempts); got > 2+3*aheadRefused {
			t.Errorf("%d warnings are tried in three minutes", got)
		}
		stop()
		if err := <-kept; err != nil {
			t.Error(err)
		}
	})
}
