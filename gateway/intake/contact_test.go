package intake

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"haidang/gateway/telemetry"
)

// TestUnknownDevices sends readings of devices that nobody registered, and
// registers one of them.
func TestUnknownDevices(t *testing.T) {
	for _, c := range []struct {
		mode          string
		taken, aside  int
		reasons       string
		afterRegister int
	}{
		{"", 4, 0, "", 1},
		{UnknownAccept, 4, 0, "", 1},
		{UnknownHold, 0, 3, "held held held", 1},
		{UnknownRefuse, 0, 2, "unknown_device unknown_device", 1},
	} {
		t.Run(c.mode, func(t *testing.T) {
			b := setup(t, false)
			var log bytes.Buffer
			b.opts.Unknown, b.opts.Logger = c.mode, slog.New(slog.NewTextHandler(&log, nil))
			stranger := func(device string) telemetry.Reading {
				r := river(1)
				r.Device = device
				return r
			}
			results := make(chan error, 1)
			send := func(source string, r ...telemetry.Reading) int {
				before := len(b.readings.records)
				b.Accept(source, r, func(err error) { results <- err })
				if err := <-results; err != nil {
					t.Error(err)
				}
				return len(b.readings.records) - before
			}
			taken := send("broker", stranger("a")) + send("broker", stranger("a"), telemetry.Link("a", true, nil)) + send("bridge.x", stranger("b"))
			if taken != c.taken || len(b.letters.records) != c.aside {
				t.Errorf("%d taken, %d set aside; want %d and %d", taken, len(b.letters.records), c.taken, c.aside)
			}
			var reasons []string
			for _, l := range b.letters.records {
				reasons = append(reasons, l.Reason)
			}
			if got := strings.Join(reasons, " "); got != c.reasons {
				t.Errorf("reasons %q, want %q", got, c.reasons)
			}
			if n := send("ais.coast", stranger("574000001")); n != 1 {
				t.Error("a vessel is not taken")
			}
			if n := send("broker", river(1)); n != 1 {
				t.Error("a registered device is not taken")
			}
			if n := strings.Count(log.String(), "first contact"); n != 2 || len(b.Contacts()) != 2 {
				t.Errorf("%d first contacts told, %d listed", n, len(b.Contacts()))
			}
			r := stranger("a")
			if reason, _ := b.Refusal(&r); (reason != "") != (c.aside > 0) {
				t.Errorf("refusal %q", reason)
			}

			devices, faults := telemetry.NewRegistry([]telemetry.Device{{ID: "a"}}, b.Known().Kinds)
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			b.SetKnown(Known{b.Known().Kinds, devices})
			if n := send("broker", stranger("a")); n != c.afterRegister {
				t.Errorf("%d taken once it is registered", n)
			}
			if reason, _ := b.Refusal(&r); reason != "" {
				t.Errorf("refusal %q once it is registered", reason)
			}
			if _, is := b.ContactOf("a"); is {
				t.Error("a registered device is a contact still")
			}
			if c.mode == UnknownHold {
				if again, ok := ParseAside(&b.letters.records[0]); !ok || again.Device != "a" {
					t.Error("what is held cannot be taken in again")
				}
			}
		})
	}
}

// TestContactsAreBounded meets more strangers than are remembered.
func TestContactsAreBounded(t *testing.T) {
	b := setup(t, false)
	b.opts.Unknown, b.opts.Logger = UnknownRefuse, slog.New(slog.NewTextHandler(io.Discard, nil))
	for i := range MaxContacts + 10 {
		r := river(1)
		r.Device = fmt.Sprintf("d%d", i)
		b.Accept("broker", []telemetry.Reading{r}, nil)
	}
	if len(b.Contacts()) != MaxContacts || len(b.letters.records) != MaxContacts {
		t.Errorf("%d contacts, %d letters", len(b.Contacts()), len(b.letters.records))
	}
}
