package ioc

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

// alerts is an Alertmanager as far as its state goes: an alert is known by its
// labels, and fires until its end.
type alerts struct {
	mu     sync.Mutex
	known  map[string]alert
	posted int
}

func (a *alerts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var list []alert
	if err := json.NewDecoder(r.Body).Decode(&list); err != nil || r.URL.Path != "/prefix/api/v2/alerts" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.posted++
	for _, x := range list {
		if !x.EndsAt.After(x.StartsAt) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		key, _ := json.Marshal(x.Labels)
		a.known[string(key)] = x
	}
}

// firing returns device and severity of those that fire.
func (a *alerts) firing() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []string{}
	for _, x := range a.known {
		if x.EndsAt.After(time.Now()) {
			out = append(out, x.Labels["device"]+" "+x.Labels["severity"])
		}
	}
	slices.Sort(out)
	return out
}

func TestAlertsFireAsLongAsTheirWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manager := &alerts{known: map[string]alert{}}
		a := NewAlertmanager(AlertmanagerConfig{URL: "http://ioc.test/prefix/", Labels: map[string]string{"province": "hue"}}, "1")
		inMemory(t, &Webhook{endpoint: a.endpoint}, manager)
		recipient := NewRecipient("am", a, Options{Logger: slog.New(slog.DiscardHandler)})
		sender := recipient.Sender(All)
		var mu sync.Mutex
		lasting := map[string]telemetry.Warning{}
		ctx, stop := context.WithCancel(t.Context())
		kept := make(chan error)
		go func() {
			kept <- recipient.Keep(ctx, func() (out []telemetry.Warning) {
				mu.Lock()
				defer mu.Unlock()
				for _, w := range lasting {
					out = append(out, w)
				}
				return out
			})
		}()
		step := func(device string, n int, s telemetry.Severity, state telemetry.State) {
			w := warning(device, n, s)
			w.State, w.Start, w.At = state, time.Now().Add(-time.Duration(n)*time.Minute), time.Now()
			mu.Lock()
			lasting[w.ID] = w
			if state == telemetry.Cleared {
				delete(lasting, w.ID)
			}
			mu.Unlock()
			if err := sender.Accept(t.Context(), transitions(w)); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(what string, want ...string) {
			t.Helper()
			if got := manager.firing(); !slices.Equal(got, want) {
				t.Errorf("%s: %q fire, want %q", what, got, want)
			}
		}
		step("a", 1, telemetry.Severe, telemetry.Active)
		step("b", 1, telemetry.Minor, telemetry.Active)
		_ = sleep(t.Context(), 3*time.Hour)
		expect("three hours later", "a severe", "b minor")
		step("a", 2, telemetry.Extreme, telemetry.Active)
		expect("one alert, not one of each severity", "a extreme", "b minor")
		step("a", 3, telemetry.Extreme, telemetry.Acknowledged)
		step("b", 2, telemetry.Minor, telemetry.Shelved)
		expect("acknowledged and shelved", "a extreme")
		_ = sleep(t.Context(), time.Hour)
		expect("an hour later", "a extreme")
		step("a", 4, telemetry.Extreme, telemetry.Cleared)
		_ = sleep(t.Context(), time.Hour)
		expect("over")
		stop()
		if err := <-kept; err != nil {
			t.Error(err)
		}
		if len(a.told) != 1 {
			t.Errorf("%d are remembered, want the shelved one", len(a.told))
		}
		// The gateway is gone: what fires resolves by itself.
		step("c", 1, telemetry.Severe, telemetry.Active)
		_ = sleep(t.Context(), 3*time.Minute)
		expect("the gateway is gone for 3 minutes", "c severe")
		_ = sleep(t.Context(), 2*time.Minute)
		expect("the gateway is gone for 5 minutes")
	})
}

func TestAnAlert(t *testing.T) {
	a := NewAlertmanager(AlertmanagerConfig{URL: "http://h", Labels: map[string]string{"province": "hue"}}, "1")
	w := warning("kim-long", 2, telemetry.Extreme)
	w.Exercise, w.Site = true, ""
	x := a.alert(&w, w.At)
	if x.Labels["exercise"] != "true" || x.Labels["province"] != "hue" || x.Labels["alertname"] != "flood-alarm" || x.Annotations["summary"] != "DIỄN TẬP: Mực nước Kim Long 3,62 m" {
		t.Errorf("%+v", x)
	}
	if _, there := x.Labels["site"]; there {
		t.Error("an empty label")
	}
	w.State = telemetry.Cleared
	w.Start = w.At
	if x := a.alert(&w, w.At); !x.EndsAt.After(x.StartsAt) {
		t.Errorf("it ends at %s, before it starts", x.EndsAt)
	}
}
