package ioc

import (
	"context"
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
)

// nowhere knows no devices, zones or values.
type nowhere struct{}

func (nowhere) Device(string) *telemetry.Device             { return nil }
func (nowhere) Zone(string) [][][2]float64                  { return nil }
func (nowhere) Quantity(string, string) *telemetry.Quantity { return nil }

func bulletins() Bulletins {
	return Bulletins{Chronicle: cap.NewChronicle(), Now: time.Now,
		Composer: cap.NewComposer(cap.Config{Sender: "haidang@test"}, nowhere{}, "box")}
}

// flooded is a step of a rule that the public is told of.
func flooded(device string, n int, severity telemetry.Severity) telemetry.Warning {
	w := warning(device, n, severity)
	w.Rule = "flood-level"
	return w
}

// A mailbox accepts CAP messages; answer decides, 0 accepts.
type mailbox struct {
	answer func(identifier string) int

	mu       sync.Mutex
	messages []cap.Message
	keys     []string
}

func (m *mailbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	var message cap.Message
	if err := xml.Unmarshal(text, &message); err != nil || r.Header.Get("Content-Type") != cap.MediaType+"; charset=utf-8" {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answer != nil {
		if status := m.answer(message.Identifier); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	m.messages = append(m.messages, message)
	m.keys = append(m.keys, r.Header.Get("Idempotency-Key"))
}

func (m *mailbox) got() (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.messages {
		out = append(out, m.messages[i].Type+" "+m.messages[i].Identifier)
	}
	return out
}

func TestCAPIsPostedAndFiled(t *testing.T) {
	box := &mailbox{}
	server := httptest.NewServer(box)
	defer server.Close()
	from, folder := bulletins(), t.TempDir()
	config := Config{Name: "centre", CAP: &CAPConfig{URL: server.URL, Folder: folder, Keep: minKeepFiles}}
	if faults := config.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	own := filepath.Join(folder, "notes.xml")
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sender := Open(config, Outside{Version: "1", Bulletins: from}, quick(nil)).Sender(All)
	ack := flooded("a", 3, telemetry.Extreme)
	ack.State = telemetry.Acknowledged
	over := flooded("a", 4, telemetry.Extreme)
	over.State = telemetry.Cleared
	battery := flooded("b", 1, telemetry.Severe)
	battery.Rule = "battery-low"
	list := []telemetry.Warning{flooded("a", 1, telemetry.Severe), flooded("a", 2, telemetry.Extreme), ack, over, battery}
	for n := range 12 {
		list = append(list, flooded("c", n+1, telemetry.Severity(1+n%4)))
	}
	for _, w := range list {
		from.Chronicle.Apply(w)
	}
	for range 2 { // delivered again after a restart, and dropped
		if err := sender.Accept(t.Context(), transitions(list...)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range box.got() {
		if strings.Contains(m, " a-") {
			got = append(got, m)
		}
	}
	want := []string{"Alert a-flood-3f9a2c1b.1", "Update a-flood-3f9a2c1b.2", "Cancel a-flood-3f9a2c1b.4"}
	if !slices.Equal(got, want) {
		t.Errorf("posted %q, want %q", got, want)
	}
	if len(box.got()) != 3+12 {
		t.Errorf("%d messages, want 15 without the battery's", len(box.got()))
	}
	for i, k := range box.keys {
		if k != box.messages[i].Identifier {
			t.Errorf("Idempotency-Key %s of %s", k, box.messages[i].Identifier)
		}
	}
	files, err := filepath.Glob(filepath.Join(folder, "2025*.xml"))
	if err != nil || len(files) != minKeepFiles {
		t.Errorf("%d files (%v), want the newest %d", len(files), err, minKeepFiles)
	}
	if _, err := os.Stat(own); err != nil {
		t.Errorf("a file of others: %v", err)
	}
	if entries, _ := os.ReadDir(folder); len(entries) != minKeepFiles+1 {
		t.Errorf("%d entries: parts of files are left", len(entries))
	}
}

// A warning that lasts is said again before it expires; one that is over, or
// was never for the recipient, is not.
func TestCAPIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &mailbox{}
		from := bulletins()
		r := NewCAP(CAPConfig{URL: "http://ioc.test/"}, from, "1")
		inMemory(t, &Webhook{endpoint: r.endpoint}, box)
		recipient := NewRecipient("centre", r, Options{Logger: slog.New(slog.DiscardHandler)})
		began := time.Now()
		lasting := func() (out []telemetry.Warning) {
			for _, rule := range []string{"flood-level", "battery-low"} {
				w := flooded("a", 1, telemetry.Severe)
				w.ID, w.Rule, w.At, w.Start = rule, rule, began, began
				from.Chronicle.Apply(w)
				out = append(out, w)
			}
			other := flooded("b", 1, telemetry.Severe)
			other.At, other.To = began, []string{"others"}
			from.Chronicle.Apply(other)
			return append(out, other)
		}
		ctx, stop := context.WithCancel(t.Context())
		kept := make(chan error)
		go func() { kept <- recipient.Keep(ctx, lasting) }()
		_ = sleep(t.Context(), 25*time.Hour)
		stop()
		if err := <-kept; err != nil {
			t.Error(err)
		}
		want := []string{"Update flood-level.1.r1", "Update flood-level.1.r2"}
		if got := box.got(); !slices.Equal(got, want) {
			t.Errorf("said again %q, want %q", got, want)
		}
	})
}

func TestCAPFolderThatIsGone(t *testing.T) {
	from, folder := bulletins(), filepath.Join(t.TempDir(), "gone")
	err := NewCAP(CAPConfig{Folder: folder}, from, "1").Deliver(t.Context(), flooded("a", 1, telemetry.Severe))
	if f := failureOf(t, err); f.Reason != reasonFile || f.OneWarning {
		t.Errorf("%+v", f)
	}
}
