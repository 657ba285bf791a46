package ioc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// A warning that is refused while nothing else is tried does not hold back for
// ever what comes behind it; but when the next one is refused as well, the fault is
// the recipient's, and that one waits.
func TestOneThatIsRefusedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := NewWebhook(WebhookConfig{URL: "http://ioc.test/"}, "1")
		refuses := true
		ioc := &centre{answer: func(k string, _ int, _ http.Header) int {
			if refuses || k == key("bad", 1) {
				return 422
			}
			return 0
		}}
		inMemory(t, hook, ioc)
		sender := NewRecipient("ioc", hook, Options{Logger: slog.New(slog.DiscardHandler)}).Sender(All)
		accept := func(device string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
			defer cancel()
			return sender.Accept(ctx, transitions(warning(device, 1, telemetry.Severe)))
		}
		rejection, rejected := errors.AsType[*telemetry.Rejection](accept("bad"))
		if !rejected || len(rejection.Records) != 1 {
			t.Fatalf("it holds back all that follow for ever")
		}
		if err := accept("a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second one, of a recipient that refuses everything, ended with %v", err)
		}
		ioc.mu.Lock()
		refuses = false
		ioc.mu.Unlock()
		if err := accept("a"); err != nil {
			t.Error(err)
		}
		if got := ioc.keys(); !slices.Equal(got, []string{key("a", 1)}) {
			t.Errorf("accepted %v", got)
		}
	})
}

// What a digest has waited with while the other class told what is newer is not
// told behind it.
func TestADigestDoesNotTellWhatIsPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		l := &listener{fail: func() error {
			if down {
				return errors.New("down")
			}
			return nil
		}}
		reg := prometheus.NewRegistry()
		recipient := stormy(l, reg)
		grave, rest := recipient.Sender(Grave), recipient.Sender(Rest)
		batch := func(n, count int, severity telemetry.Severity) (out []telemetry.Transition) {
			for i := range count {
				out = append(out, transitions(flooded(fmt.Sprintf("Huong-%d", i), n, severity))...)
			}
			return out
		}
		var both sync.WaitGroup
		send := func(s *Sender, list []telemetry.Transition) {
			both.Go(func() {
				if err := s.Accept(t.Context(), list); err != nil {
					t.Error(err)
				}
			})
		}
		send(rest, batch(1, 10, telemetry.Moderate))
		time.Sleep(10 * time.Minute) // of the bubble
		send(grave, batch(2, 9, telemetry.Extreme))
		time.Sleep(10 * time.Minute)
		l.mu.Lock()
		down = false
		l.mu.Unlock()
		both.Wait()
		told := map[string]int{}
		for _, d := range l.digests {
			for _, w := range d.Warnings {
				if w.N < told[w.ID] {
					t.Errorf("%s is told after transition %d", w.Key(), told[w.ID])
				}
				told[w.ID] = w.N
			}
		}
		if len(told) != 10 {
			t.Errorf("%d warnings are told, want 10: %v", len(told), l.heard)
		}
		counted(t, reg, "haidang_ioc_skipped_total", map[string]float64{"superseded": 9})
		keys := map[string]bool{}
		for _, d := range l.digests {
			if keys[d.Key] || d.Key != digestKey(recipient.storm.threadOf(d.Region, false), d.Warnings) {
				t.Errorf("key %s of %d warnings", d.Key, len(d.Warnings))
			}
			keys[d.Key] = true
		}
		if n := grave.backlog() + rest.backlog(); n != 0 {
			t.Errorf("%d are said to wait", n)
		}
	})
}

// A message that a recipient refuses does not let those of other warnings expire.
func TestCAPThatIsRefusedIsNotInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &mailbox{answer: func(id string) int {
			if strings.Contains(id, "-b") || strings.HasPrefix(id, "b") {
				return 422
			}
			return 0
		}}
		from := bulletins()
		r := NewCAP(CAPConfig{URL: "http://ioc.test/"}, from, "1")
		inMemory(t, &Webhook{endpoint: r.endpoint}, box)
		began := time.Now()
		var lasting []telemetry.Warning
		for _, device := range []string{"a", "b", "c"} {
			w := flooded(device, 1, telemetry.Severe)
			w.At, w.Start = began, began
			from.Chronicle.Apply(w)
			lasting = append(lasting, w)
		}
		time.Sleep(24 * time.Hour) // of the bubble: all are due again
		err := r.Keep(t.Context(), func() []telemetry.Warning { return slices.Clone(lasting) })
		if f := failureOf(t, err); !f.OneWarning {
			t.Errorf("%+v", f)
		}
		got := strings.Join(box.got(), " ")
		if !strings.Contains(got, "a-flood") || !strings.Contains(got, "c-flood") {
			t.Errorf("said again: %s; want those of a and c", got)
		}
	})
}

// A number that the network refuses in words that it does not refuse for good with
// does not keep later warnings from the others.
func TestANumberThatIsAlwaysRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &simModem{onMessage: func(number string) string {
			if number == "+84905123456" {
				return "+CMS ERROR: 21"
			}
			return ""
		}}
		recipient := NewRecipient("sms", smsOf(m), Options{Logger: slog.New(slog.DiscardHandler)})
		sender := recipient.Sender(All)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		for _, device := range []string{"a", "b"} {
			if err := sender.Accept(ctx, transitions(flooded(device, 1, telemetry.Severe))); ctx.Err() != nil {
				t.Fatalf("warning %s holds back all that follow: %v", device, err)
			}
			if recipient.gate.circuit() != Closed {
				t.Error("the modem is taken for dead")
			}
		}
		if got := m.got("112"); len(got) != 2 {
			t.Errorf("the other number has %d messages, want 2", len(got))
		}
	})
}

// An address that the server puts off, as that of a full mailbox, does not keep the
// mail from the others; it is tried again alone.
func TestAnAddressThatIsPutOff(t *testing.T) {
	server := &mailServer{answers: map[string]string{"RCPT TO:<truc@hue.example>": "452 4.2.2 mailbox full"}}
	config := mailer(server.start(t))
	s := NewSMTP(config, bulletins())
	w := flooded("a", 1, telemetry.Severe)
	for range 3 {
		f := failureOf(t, s.Deliver(t.Context(), w))
		if !f.OneWarning || f.Delivered || !strings.Contains(f.Detail, "truc@hue.example: 452") {
			t.Fatalf("%+v", f)
		}
		if len(server.mails) != 1 {
			t.Fatalf("the others have %d mails, want one", len(server.mails))
		}
	}
	server.mu.Lock()
	server.answers = nil
	server.lines = nil
	server.mu.Unlock()
	if err := s.Deliver(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	var to []string
	for _, line := range server.said() {
		if strings.HasPrefix(line, "RCPT") {
			to = append(to, line)
		}
	}
	if !slices.Equal(to, []string{"RCPT TO:<truc@hue.example>"}) || len(server.mails) != 2 {
		t.Errorf("then it was sent to %q, in %d mails", to, len(server.mails))
	}
	if len(s.reached.byID)+len(s.reached.order) != 0 {
		t.Errorf("%v is remembered", s.reached.byID)
	}
}

// Alertmanagers before 0.27 refuse an alert with an annotation that is no name of
// theirs; a value is never mistaken for what we say of the warning.
func TestAlertOfValuesWithOtherNames(t *testing.T) {
	a := NewAlertmanager(AlertmanagerConfig{URL: "http://h"}, "1")
	w := warning("kim-long", 7, telemetry.Extreme)
	w.Values = map[string]float64{"mực_nước_m": 3.62, "2m_temp": 1, "n": 99}
	x := a.alert(&w, w.At)
	for name := range x.Annotations {
		if !regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`).MatchString(name) {
			t.Errorf("annotation %q", name)
		}
	}
	if x.Annotations["n"] != "7" || x.Annotations["_2m_temp"] != "1" {
		t.Errorf("%v", x.Annotations)
	}
}
