package ioc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// centre is an operations centre that remembers what it accepted. answer
// decides over each request; 0 accepts.
type centre struct {
	answer func(key string, attempt int, header http.Header) int

	mu       sync.Mutex
	attempts map[string]int
	accepted []string // keys in the order of acceptance
}

func (c *centre) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	key := r.Header.Get("Idempotency-Key")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attempts == nil {
		c.attempts = map[string]int{}
	}
	c.attempts[key]++
	if c.answer != nil {
		if status := c.answer(key, c.attempts[key], w.Header()); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	c.accepted = append(c.accepted, key)
	w.WriteHeader(http.StatusAccepted)
}

func (c *centre) keys() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.accepted)
}

func quick(reg prometheus.Registerer) Options {
	return Options{Registerer: reg, Logger: slog.New(slog.DiscardHandler), FirstPause: time.Millisecond, MaxPause: 4 * time.Millisecond}
}

func recipientOf(t *testing.T, c *centre, o Options) *Recipient {
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return NewRecipient("ioc", NewWebhook(WebhookConfig{URL: server.URL}, "1"), o)
}

func transitions(warnings ...telemetry.Warning) []telemetry.Transition {
	out := make([]telemetry.Transition, len(warnings))
	for i, w := range warnings {
		out[i] = telemetry.Transition{Warning: w, Step: w.N}
	}
	return out
}

func key(device string, n int) string { return fmt.Sprintf("%s-flood-3f9a2c1b/%d", device, n) }

func counted(t *testing.T, reg prometheus.Gatherer, name string, want map[string]float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			reason := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" {
					reason = l.GetValue()
				}
			}
			got[reason] += m.GetCounter().GetValue()
		}
	}
	for reason, n := range want {
		if got[reason] != n {
			t.Errorf("%s{reason=%q} is %v, want %v", name, reason, got[reason], n)
		}
	}
}

func TestSenderTriesUntilAccepted(t *testing.T) {
	statuses := []int{500, 503, 404, 401, 302, 429, 0}
	c := &centre{answer: func(_ string, attempt int, _ http.Header) int { return statuses[attempt-1] }}
	reg := prometheus.NewPedanticRegistry()
	sender := recipientOf(t, c, quick(reg)).Sender(All)
	if err := sender.Accept(t.Context(), transitions(warning("a", 1, telemetry.Severe))); err != nil {
		t.Fatal(err)
	}
	if got := c.keys(); !slices.Equal(got, []string{key("a", 1)}) {
		t.Errorf("accepted %v", got)
	}
	counted(t, reg, "haidang_ioc_delivered_total", map[string]float64{"": 1})
	counted(t, reg, "haidang_ioc_failed_total", map[string]float64{"status_5xx": 2, "status_4xx": 2, "redirect": 1, "rate_limited": 1})
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

// Random failures, many devices at once: every transition is accepted exactly
// once, those of a device in order.
func TestOrderPerDeviceUnderRandomFailures(t *testing.T) {
	random := rand.New(rand.NewPCG(2025, 10)) // used under the centre's lock
	c := &centre{answer: func(string, int, http.Header) int {
		if random.Float64() < 0.3 {
			return []int{400, 429, 500, 502, 404}[random.IntN(5)]
		}
		return 0
	}}
	sender := recipientOf(t, c, quick(nil)).Sender(All)
	const devices, steps = 40, 6
	var batch []telemetry.Transition
	for n := range steps {
		for d := range devices {
			batch = append(batch, transitions(warning(fmt.Sprintf("d%d", d), n+1, telemetry.Severity(1+n%4)))...)
		}
	}
	if err := sender.Accept(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	next := map[string]int{}
	for _, k := range c.keys() {
		id, n, _ := strings.Cut(k, "/")
		next[id]++
		if n != fmt.Sprint(next[id]) {
			t.Fatalf("%s was accepted as number %d of its device", k, next[id])
		}
	}
	if got := len(c.keys()); got != devices*steps {
		t.Errorf("%d accepted, want %d", got, devices*steps)
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		var mu sync.Mutex
		underWay, most := 0, 0
		inMemory(t, hook, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			underWay++
			most = max(most, underWay)
			mu.Unlock()
			_ = sleep(r.Context(), time.Second)
			mu.Lock()
			underWay--
			mu.Unlock()
		}))
		sender := NewRecipient("ioc", hook, Options{Concurrency: 3}).Sender(All)
		var batch []telemetry.Transition
		for d := range 12 {
			batch = append(batch, transitions(warning(fmt.Sprintf("d%d", d), 1, telemetry.Severe))...)
		}
		began := time.Now()
		if err := sender.Accept(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); most != 3 || took != 4*time.Second {
			t.Errorf("%d at once, %s for 12 devices of 1 s each; want 3 and 4s", most, took)
		}
	})
}

func TestClassesAndAddressees(t *testing.T) {
	batch := transitions(warning("a", 1, telemetry.Minor), warning("b", 1, telemetry.Severe), warning("c", 1, telemetry.Extreme),
		warning("d", 1, telemetry.Moderate), warning("e", 1, telemetry.Severe), warning("f", 1, telemetry.Severe), warning("g", 1, telemetry.Severe))
	batch[4].To = []string{"flood-committee"}
	batch[5].To = []string{"flood-committee", "ioc"}
	batch[6].State = telemetry.Pending
	for class, want := range map[Class][]string{
		Grave: {key("b", 1), key("c", 1), key("f", 1)},
		Rest:  {key("a", 1), key("d", 1)},
		All:   {key("a", 1), key("b", 1), key("c", 1), key("d", 1), key("f", 1)},
	} {
		t.Run(class.String(), func(t *testing.T) {
			c := &centre{}
			sender := recipientOf(t, c, quick(nil)).Sender(class)
			if sender.Name() != "ioc.ioc."+class.String() {
				t.Errorf("name %s", sender.Name())
			}
			if err := sender.Accept(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			got := c.keys()
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("delivered %v, want %v", got, want)
			}
		})
	}
}

// A moderate warning cannot be delivered; it becomes extreme. The escalation is
// delivered by the other class, and the moderate step is then skipped.
func TestEscalationOvertakes(t *testing.T) {
	reg := prometheus.NewRegistry()
	firstTried := make(chan struct{})
	c := &centre{answer: func(k string, attempt int, _ http.Header) int {
		if k != key("a", 1) {
			return 0
		}
		if attempt == 1 {
			close(firstTried)
		}
		return http.StatusUnprocessableEntity
	}}
	recipient := recipientOf(t, c, quick(reg))
	rest, grave := recipient.Sender(Rest), recipient.Sender(Grave)
	log := transitions(warning("a", 1, telemetry.Moderate), warning("a", 2, telemetry.Extreme), warning("a", 3, telemetry.Minor))
	restDone := make(chan error, 1)
	go func() { restDone <- rest.Accept(t.Context(), log) }()
	<-firstTried
	if err := grave.Accept(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	if err := <-restDone; err != nil {
		t.Fatal(err)
	}
	if got, want := c.keys(), []string{key("a", 2), key("a", 3)}; !slices.Equal(got, want) {
		t.Errorf("accepted %v, want %v", got, want)
	}
	counted(t, reg, "haidang_ioc_skipped_total", map[string]float64{"superseded": 1, "duplicate": 0})
}

// An attempt that hangs is cancelled when a newer transition of the same
// warning is there: the escalation does not wait for the timeout.
func TestEscalationCancelsAHangingAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		accepted := map[string]time.Time{}
		hanging := make(chan struct{})
		inMemory(t, hook, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if k := r.Header.Get("Idempotency-Key"); k == key("a", 1) {
				close(hanging)
				<-r.Context().Done()
			} else {
				accepted[k] = time.Now()
			}
		}))
		recipient := NewRecipient("ioc", hook, Options{Logger: slog.New(slog.DiscardHandler)})
		log := transitions(warning("a", 1, telemetry.Moderate), warning("a", 2, telemetry.Extreme))
		restDone := make(chan error, 1)
		rest := recipient.Sender(Rest)
		began := time.Now()
		go func() { restDone <- rest.Accept(t.Context(), log) }()
		<-hanging
		if err := recipient.Sender(Grave).Accept(t.Context(), log); err != nil {
			t.Fatal(err)
		}
		if err := <-restDone; err != nil {
			t.Fatal(err)
		}
		if took := accepted[key("a", 2)].Sub(began); took != 0 {
			t.Errorf("the escalation took %s, want none", took)
		}
	})
}

func TestDeliveredOnceInAProcess(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := &centre{}
	sender := recipientOf(t, c, quick(reg)).Sender(All)
	batch := transitions(warning("a", 1, telemetry.Minor), warning("a", 2, telemetry.Minor))
	for range 2 {
		if err := sender.Accept(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := c.keys(), []string{key("a", 1), key("a", 2)}; !slices.Equal(got, want) {
		t.Errorf("accepted %v, want %v", got, want)
	}
	counted(t, reg, "haidang_ioc_skipped_total", map[string]float64{"superseded": 1, "duplicate": 1})
}

func TestAFailingRecipientBlocksNoOther(t *testing.T) {
	reg := prometheus.NewRegistry()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + listener.Addr().String()
	listener.Close()
	ctx, stop := context.WithCancel(t.Context())
	down := NewRecipient("down", NewWebhook(WebhookConfig{URL: nobody}, "1"), quick(reg)).Sender(All)
	batch := transitions(warning("a", 1, telemetry.Minor), warning("b", 1, telemetry.Extreme))
	ended := make(chan error, 1)
	go func() { ended <- down.Accept(ctx, batch) }()

	c := &centre{}
	up := recipientOf(t, c, quick(reg)).Sender(All)
	if err := up.Accept(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := len(c.keys()); got != 2 {
		t.Errorf("%d accepted, want 2", got)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v, want the context's error", err)
	}
	if _, ok := errors.AsType[*telemetry.Rejection](err); ok {
		t.Error("what was not delivered was given up")
	}
}

func TestRetryAfterHoldsTheRecipient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var offered []time.Duration
		c := &centre{answer: func(_ string, _ int, h http.Header) int {
			offered = append(offered, time.Since(began))
			if len(offered) == 1 {
				h.Set("Retry-After", "120")
				return http.StatusServiceUnavailable
			}
			return 0
		}}
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		inMemory(t, hook, c)
		sender := NewRecipient("ioc", hook, Options{Logger: slog.New(slog.DiscardHandler), Concurrency: 1}).Sender(All)
		batch := transitions(warning("a", 1, telemetry.Minor), warning("b", 1, telemetry.Extreme), warning("c", 1, telemetry.Extreme))
		if err := sender.Accept(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if len(offered) != 4 || offered[1] < 2*time.Minute || offered[3] > 3*time.Minute {
			t.Errorf("called after %v, want once at first and the rest after 2 minutes", offered)
		}
	})
}

// A recipient that is down for half an hour while 100 devices have warnings is
// called a bounded number of times, and gets everything soon after.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		const outage = 30 * time.Minute
		calls := 0
		c := &centre{answer: func(string, int, http.Header) int {
			if time.Since(began) < outage {
				calls++
				return http.StatusBadGateway
			}
			return 0
		}}
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		inMemory(t, hook, c)
		reg := prometheus.NewRegistry()
		sender := NewRecipient("ioc", hook, Options{Logger: slog.New(slog.DiscardHandler), Registerer: reg}).Sender(All)
		var batch []telemetry.Transition
		for d := range 100 {
			w := warning(fmt.Sprintf("d%d", d), 1, telemetry.Severe)
			w.At = began
			batch = append(batch, transitions(w)...)
		}
		done := make(chan error, 1)
		go func() { done <- sender.Accept(t.Context(), batch) }()
		if err := sleep(t.Context(), 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		if got := sender.oldest(time.Now()); got != 10*time.Minute {
			t.Errorf("oldest undelivered is %s, want 10m", got)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(c.keys()) != 100 || time.Since(began) > outage+2*DefaultMaxPause {
			t.Errorf("%d accepted after %s", len(c.keys()), time.Since(began))
		}
		if limit := DefaultConcurrency * int(outage/(DefaultMaxPause/2)+10); calls > limit {
			t.Errorf("%d calls during the outage, want at most %d", calls, limit)
		}
		t.Logf("%d calls during the outage, all accepted %s after it", calls, time.Since(began)-outage)
		if got := sender.oldest(time.Now()); got != 0 {
			t.Errorf("oldest undelivered is %s, want none", got)
		}
	})
}

func TestRefusedForGood(t *testing.T) {
	for _, c := range []struct {
		name   string
		others bool // the recipient accepts other warnings
		status int
		gone   bool
	}{
		{"one bad warning among good ones", true, 422, true},
		{"everything is refused", false, 422, false},
		{"a wrong password", true, 401, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
				ioc := &centre{answer: func(k string, _ int, _ http.Header) int {
					if c.others && k != key("bad", 1) {
						return 0
					}
					return c.status
				}}
				inMemory(t, hook, ioc)
				sender := NewRecipient("ioc", hook, Options{Logger: slog.New(slog.DiscardHandler)}).Sender(All)
				batch := transitions(warning("a", 1, telemetry.Minor), warning("bad", 1, telemetry.Minor),
					warning("bad", 2, telemetry.Minor), warning("b", 1, telemetry.Minor))
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				err := sender.Accept(ctx, batch)
				rejection, rejected := errors.AsType[*telemetry.Rejection](err)
				if rejected != c.gone {
					t.Fatalf("ended with %v; given up should be %v", err, c.gone)
				}
				if !rejected {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("ended with %v", err)
					}
					return
				}
				if len(rejection.Records) != 1 || rejection.Records[0].Index != 1 || rejection.Records[0].Reason != "refused" {
					t.Errorf("set aside %+v, want number 1", rejection.Records)
				}
				if got := ioc.keys(); len(got) != 3 || got[2] != key("bad", 2) {
					t.Errorf("accepted %v, want the other three", got)
				}
			})
		})
	}
}

// What cannot be written as JSON is set aside at once, with its place in the
// whole of a large batch.
func TestLargeBatch(t *testing.T) {
	c := &centre{}
	sender := recipientOf(t, c, quick(nil)).Sender(All)
	var batch []telemetry.Transition
	for i := range maxTogether + 500 {
		batch = append(batch, transitions(warning(fmt.Sprintf("d%d", i), 1, telemetry.Severe))...)
	}
	const bad = maxTogether + 77
	batch[bad].Values = map[string]float64{"level_m": math.NaN()}
	rejection, ok := errors.AsType[*telemetry.Rejection](sender.Accept(t.Context(), batch))
	if !ok || len(rejection.Records) != 1 || rejection.Records[0].Index != bad {
		t.Errorf("set aside %+v, want number %d", rejection, bad)
	}
	if got := len(c.keys()); got != len(batch)-1 {
		t.Errorf("%d accepted, want %d", got, len(batch)-1)
	}
}
