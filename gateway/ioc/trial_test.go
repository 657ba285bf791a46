package ioc

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
)

// TestResume: a restart goes on with threads and bounds where they were.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		ago := func(d time.Duration) time.Time { return now.Add(-d) }
		l := &listener{}
		r := stormy(l, nil)
		r.meter = newMeter(RateConfig{Most: 10, Per: telemetry.Duration(time.Hour)})
		r.Resume([]Earlier{
			{At: ago(7 * time.Hour), Key: "digest-old", Device: "Huong-1"},
			{At: ago(2 * time.Hour), Key: "digest-1", Device: "Huong-1"},
			{At: ago(2 * time.Hour), Key: "digest-1", Device: "Huong-2"},
			{At: ago(30 * time.Minute), Key: "digest-2", Device: "Huong-2"},
			{At: ago(20 * time.Minute), Key: "digest-b", Device: "Bo-2"},
			{At: ago(20 * time.Minute), Key: "digest-drill", Device: "Huong-2", Exercise: true},
			{At: ago(10 * time.Minute), Device: "Huong-9"},
			{At: ago(5 * time.Minute), Key: "digest-gone"},
		})
		var batch []telemetry.Transition
		for i := range 10 {
			batch = append(batch, transitions(flooded(fmt.Sprintf("Huong-%d", i), 1, telemetry.Severe))...)
		}
		if err := r.Sender(All).Accept(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if len(l.digests) != 1 || !slices.Equal(l.digests[0].Earlier, []string{"digest-1", "digest-2"}) {
			t.Errorf("the thread goes on after %+v", l.digests)
		}
		// Five of the last hour had been used, some have come back since; one more went.
		if got := r.meter.tokens; got < 4 || got > 9 {
			t.Errorf("%v tokens are left", got)
		}
	})
}

// TestResumeStorm: a storm that has just begun goes on as one.
func TestResumeStorm(t *testing.T) {
	s := newStorm(DigestConfig{}, cap.NewComposer(cap.Config{}, basin{}, "box").Region)
	now := time.Now()
	s.resume([]Earlier{{At: now.Add(-20 * time.Second), Key: "digest-1", Device: "Huong-1"}}, now)
	if !s.rages(1, now) {
		t.Error("after a digest 20 s ago the next warning goes by itself")
	}
	s = newStorm(DigestConfig{}, s.region)
	s.resume([]Earlier{{At: now.Add(-20 * time.Second)}, {At: now.Add(-2 * time.Minute), Key: "digest-1", Device: "Huong-1"}}, now)
	if s.rages(DefaultMoreThan-1, now) || !s.rages(DefaultMoreThan, now) {
		t.Error("one message of before is not counted as one")
	}
}

// TestWebhookDigest: a webhook that asks for it gets a list, signed, under the
// digest's own key; one that does not ask gets each warning.
func TestWebhookDigest(t *testing.T) {
	var mu sync.Mutex
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		fmt.Fprintf(&b, "%s ", r.Header.Get("Idempotency-Key"))
		var any json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&any)
		b.Write(any)
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, b.String())
		if !strings.HasPrefix(r.Header.Get(SignatureHeader), "t=") {
			t.Error("it is not signed")
		}
	}))
	defer server.Close()
	composer := cap.NewComposer(cap.Config{}, basin{}, "box")
	var batch []telemetry.Transition
	for i := range 20 {
		severity := telemetry.Moderate
		if i == 17 {
			severity = telemetry.Extreme
		}
		batch = append(batch, transitions(flooded(fmt.Sprintf("Huong-%02d", i), 1, severity))...)
	}
	for _, c := range []struct {
		digest *DigestConfig
		want   int
	}{{nil, 20}, {&DigestConfig{Every: telemetry.Duration(time.Millisecond)}, 1}, {&DigestConfig{Off: true}, 20}} {
		bodies = nil
		r := Open(Config{Name: "ioc", Webhook: &WebhookConfig{URL: server.URL, Secret: "x"}, Digest: c.digest},
			Outside{Bulletins: Bulletins{Chronicle: cap.NewChronicle(), Composer: composer, Now: time.Now}}, Options{Logger: slog.New(slog.DiscardHandler)})
		if err := r.Sender(All).Accept(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if len(bodies) != c.want {
			t.Errorf("digest %+v: %d messages, want %d", c.digest, len(bodies), c.want)
		}
		if c.want > 1 {
			continue
		}
		key, text, _ := strings.Cut(bodies[0], " ")
		var d wireDigest
		if err := json.Unmarshal([]byte(text), &d); err != nil || d.Digest != key || !strings.HasPrefix(key, "digest-") || len(d.Warnings) != 20 ||
			d.Warnings[0].Severity != telemetry.Extreme || d.Region.VI != "Sông Huong" {
			t.Errorf("%v %s %s", err, key, text)
		}
	}
}

// TestSirenTrial: a test sounds for a moment and leaves the siren as it should be;
// the end of its recipient switches it off.
func TestSirenTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := &relay{}
		siren := NewSiren(SirenConfig{Line: "l", Unit: "5", Setting: "s"}, relay.write, nil)
		r := NewRecipient("siren", siren, Options{Logger: slog.New(slog.DiscardHandler)})
		began := time.Now()
		if _, err := r.Try(t.Context(), "box", "lan"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != sirenPulse || !slices.Equal(relay.writes, []string{"l/5/s=1", "l/5/s=0"}) {
			t.Errorf("%v in %v", relay.writes, took)
		}
		w := warning("a", 1, telemetry.Extreme)
		w.At = time.Now()
		if err := r.Sender(All).Accept(t.Context(), transitions(w)); err != nil || !relay.on {
			t.Fatalf("%v, %v", err, relay.writes)
		}
		if _, err := r.Try(t.Context(), "box", "lan"); err != nil || !relay.on {
			t.Errorf("a test while it sounds silences it: %v, %v", err, relay.writes)
		}
		siren.Close()
		if relay.on {
			t.Errorf("it sounds for ever: %v", relay.writes)
		}
		relay.down = true
		if _, err := r.Try(t.Context(), "box", "lan"); err == nil || !strings.Contains(err.Error(), "unit 5 does not answer") {
			t.Errorf("a relay that does not answer: %v", err)
		}
		if h := r.Health(); h.Since == nil || !strings.Contains(h.LastError, "switch s of unit 5 on l") {
			t.Errorf("%+v", h)
		}
	})
}
