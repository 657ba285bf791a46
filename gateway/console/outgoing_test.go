package console

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The page names a recipient that cannot be reached, and what its error says
// stays text.
func TestRecipientsOnThePage(t *testing.T) {
	since := time.Date(2025, 10, 27, 13, 0, 0, 0, time.UTC)
	sources := newDesk().sources()
	sources.Recipients = func() []Recipient {
		return []Recipient{
			{Recipient: "sms", Via: "sms", Since: &since, LastErrorAt: &since, LastError: "<script>alert(1)</script>", Backlog: 3},
			{Recipient: "ioc", Via: "webhook", LastSuccess: &since},
		}
	}
	sources.CAP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })
	_, base, _ := start(t, sources)
	get := func(path string) string {
		t.Helper()
		status, _, answer := call(t, http.MethodGet, base+path, "")
		if status != http.StatusOK {
			t.Errorf("%s: %d", path, status)
		}
		return answer
	}
	page := get("/")
	for _, want := range []string{"Không gửi được từ 20:00:00 27/10/2025", "<td>3</td>", "&lt;script&gt;", "Gửi được lúc 20:00:00 27/10/2025", "/cap/feed.atom"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if got := get("/api/v1/recipients"); !strings.Contains(got, `"failing_since":"2025-10-27T13:00:00Z"`) {
		t.Error(got)
	}
	if got := get("/cap/feed.atom"); got != "/cap/feed.atom" {
		t.Error(got)
	}
}
