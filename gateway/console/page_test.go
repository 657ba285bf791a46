package console

import (
	"strings"
	"testing"

	"haidang/gateway/telemetry"
)

func TestPage(t *testing.T) {
	_, base, _ := start(t, newDesk().sources())
	status, h, body := call(t, "GET", base+"/", "")
	if status != 200 || h.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("status %d %v", status, h)
	}
	if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'self'") {
		t.Errorf("policy %q", csp)
	}
	for _, part := range []string{
		`<html lang="vi">`, "Đặc biệt nghiêm trọng", "Mực nước Kim Long &lt;3,62&gt; m", "Kim Long at &lt;3.62&gt; m",
		"09:30:00 27/10/2025", "Đã có người nhận: Lan", "/api/v1/warnings/kim-long-flood-1", "kim-long-box", "/readyz", "(4) Cảnh báo",
	} {
		if !strings.Contains(body, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	for _, part := range []string{"<3,62>", "a-luoi-rain-1", "style=", "onclick", "<script>"} {
		if strings.Contains(body, part) {
			t.Errorf("the page has %q", part)
		}
	}
}

func TestPageIsBounded(t *testing.T) {
	many := make([]telemetry.Warning, 1000)
	_, base, _ := start(t, Sources{Warnings: func(bool) []telemetry.Warning { return many },
		Warning: func(string) (telemetry.Warning, bool) { return telemetry.Warning{}, false }})
	_, _, body := call(t, "GET", base+"/", "")
	if rows := strings.Count(body, "<tr class"); rows != maxRows || !strings.Contains(body, "Còn 800 cảnh báo") {
		t.Errorf("%d rows", rows)
	}
	if _, _, body = call(t, "GET", base+"/api/v1/warnings", ""); strings.Count(body, `"id"`) != 1000 {
		t.Error("the API has them all")
	}
}
