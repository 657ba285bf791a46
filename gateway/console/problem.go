package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"haidang/gateway/console/page"
)

// A problem is an error as RFC 9457 writes it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"`  // query parameter or member of the body that is at fault
	N      int    `json:"n,omitempty"`      // of a conflict: where the warning stands now, or the version of the rules
	Faults any    `json:"faults,omitempty"` // of a text that was refused: each with its place
}

func problemf(status int, field, format string, args ...any) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// Error returns the detail.
func (p *problem) Error() string { return p.Detail }

// in returns the problem as it is told to who asks: a page of ours asks for its own
// language alone, programs get English.
func (p *problem) in(r *http.Request) *problem {
	lang := r.Header.Get("Accept-Language")
	if !slices.Contains(page.Languages(), lang) {
		return p
	}
	told := *p
	told.Detail = page.Said(lang, p.Detail)
	return &told
}

func (p *problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers only
		body = []byte(`{"status":500}`)
	}
	writeBody(w, p.Status, "application/problem+json", append(body, '\n'))
}

// writeJSON encodes before it writes, so that what cannot be encoded is a 500
// and not half an answer.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	writeBody(w, status, "application/json", body.Bytes())
	return nil
}

// writeBody sends an answer. An error of the connection concerns its other end
// only.
func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
