package spool

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestAwayServerIsNoWarning: what looks at the logs do not find while a server of the
// cluster is away is told once, when it lasts, and by whom it concerns.
func TestAwayServerIsNoWarning(t *testing.T) {
	away := errors.New("context deadline exceeded")
	for _, c := range []struct {
		name     string
		url      string
		part     Part
		at       time.Duration // of the last of the looks that fail, every five seconds
		warnings int
		says     string
	}{
		{"an election", "nats://a", Part{Role: RoleIngest}, 55 * time.Second, 0, ""},
		{"longer, ingest", "nats://a", Part{Role: RoleIngest}, 10 * time.Minute, 1, "not known how full"},
		{"longer, store", "nats://a", Part{Role: RoleStore}, 10 * time.Minute, 1, "not known how full"},
		{"longer, ioc", "nats://a", Part{Role: RoleIOC}, 10 * time.Minute, 1, "cannot be dropped"},
		{"longer, rules", "nats://a", Part{Role: RoleRules}, 10 * time.Minute, 1, "cannot be dropped"},
		{"longer, everything", "nats://a", Part{}, 10 * time.Minute, 1, "cannot be dropped"},
		{"the embedded log", "", Part{}, 5 * time.Second, 1, "cannot be dropped"},
	} {
		var out bytes.Buffer
		r := &room{spool: &Spool{config: Config{URL: c.url}, options: Options{Part: c.part}, logger: slog.New(slog.NewTextHandler(&out, nil))}}
		now := time.Unix(1_700_000_000, 0)
		for range 2 { // the second outage is told like the first
			out.Reset()
			for at := time.Duration(0); at <= c.at; at += 5 * time.Second {
				r.tell(away, now.Add(at))
			}
			if got := strings.Count(out.String(), "level=WARN"); got != c.warnings || !strings.Contains(out.String(), c.says) {
				t.Errorf("%s: %d warnings, want %d that say %q\n%s", c.name, got, c.warnings, c.says, &out)
			}
			now = now.Add(time.Hour)
			r.tell(nil, now)
			r.tell(nil, now)
			if got := strings.Count(out.String(), "level=INFO"); got != c.warnings {
				t.Errorf("%s: its end is told %d times, want %d\n%s", c.name, got, c.warnings, &out)
			}
		}
	}
}
