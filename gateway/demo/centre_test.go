package demo

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"haidang/gateway/telemetry"
)

// post sends a body to the centre as the gateway's webhook does.
func post(t *testing.T, url, key, secret string, body []byte) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	if secret != "" {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(append([]byte("1761570000."), body...))
		req.Header.Set("X-Haidang-Signature", "t=1761570000,v1="+hex.EncodeToString(mac.Sum(nil)))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

type receivedList struct {
	Received, Duplicates, Refused uint64
	Warnings                      []telemetry.Warning
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func warningJSON(t *testing.T, w telemetry.Warning) []byte {
	t.Helper()
	body, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestCentre(t *testing.T) {
	var mu sync.Mutex
	var got []string
	c, err := newCentre("127.0.0.1:0", "s3cret", func(w telemetry.Warning) {
		mu.Lock()
		got = append(got, w.Key())
		mu.Unlock()
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	base := "http://" + c.listener.Addr().String()

	w := telemetry.Warning{ID: "kim-long-flood-abc", N: 2, Device: "demo-kim-long", State: telemetry.Active, Severity: telemetry.Severe}
	body := warningJSON(t, w)
	for _, step := range []struct {
		name, key, secret string
		body              []byte
		want              int
	}{
		{"first", w.Key(), "s3cret", body, 204},
		{"again", w.Key(), "s3cret", body, 204},
		{"no key", "", "s3cret", body, 400},
		{"key of another", "kim-long-flood-abc/3", "s3cret", body, 400},
		{"wrong secret", w.Key(), "guess", body, 401},
		{"not signed", w.Key(), "", body, 401},
		{"not JSON", "x/1", "s3cret", []byte("level_m=3"), 400},
		{"no warning", "/0", "s3cret", []byte("{}"), 400},
		{"unknown severity", "x/1", "s3cret", []byte(`{"id":"x","n":1,"severity":"huge"}`), 400},
		{"too large", "x/1", "s3cret", []byte(`{"id":"` + strings.Repeat("x", maxWarningBytes) + `"}`), 413},
	} {
		if status, answer := post(t, base+"/warnings", step.key, step.secret, step.body); status != step.want {
			t.Errorf("%s: status %d (%s), want %d", step.name, status, strings.TrimSpace(answer), step.want)
		}
	}

	var list receivedList
	if err := json.Unmarshal(get(t, base+"/received"), &list); err != nil {
		t.Fatal(err)
	}
	if list.Received != 1 || list.Duplicates != 1 || list.Refused != 8 || len(list.Warnings) != 1 || list.Warnings[0].Key() != w.Key() {
		t.Errorf("received %+v", list)
	}
	if len(got) != 1 || got[0] != w.Key() {
		t.Errorf("told of %v, want %s once", got, w.Key())
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCentreBoundsWhatItRemembers(t *testing.T) {
	c := &centre{keys: map[string]bool{}}
	for n := 1; n <= keepKeys+10; n++ {
		if !c.keep(&telemetry.Warning{ID: "x", N: n}, []byte("{}")) {
			t.Fatalf("key %d is not new", n)
		}
	}
	if len(c.keys) != keepKeys || len(c.order) != keepKeys || len(c.latest) != keepReceived {
		t.Errorf("%d keys, %d in order, %d warnings kept", len(c.keys), len(c.order), len(c.latest))
	}
}
