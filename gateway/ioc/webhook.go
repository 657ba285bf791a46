package ioc

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"haidang/gateway/telemetry"
)

const (
	// maxAnswerBytes is how much of an answer is read so that its connection can
	// be used again; a longer answer costs the connection.
	maxAnswerBytes = 64 << 10
	// maxAnswerTime is how long the body of an answer may take after its status.
	maxAnswerTime = time.Second
	// shownAnswerBytes is how much of an answer an error repeats.
	shownAnswerBytes = 200
)

// SignatureHeader carries the signature of a webhook's body.
const SignatureHeader = "X-Haidang-Signature"

// A Webhook posts warnings as JSON. It is safe for concurrent use.
type Webhook struct {
	url, host string
	secret    []byte
	agent     string
	timeout   time.Duration
	client    *http.Client
}

// NewWebhook makes a webhook of a valid configuration. version is the program's
// own, for the User-Agent.
func NewWebhook(c WebhookConfig, version string) *Webhook {
	timeout := c.Timeout.Std()
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	h := &Webhook{url: c.URL, secret: []byte(c.Secret), agent: "haidang/" + version, timeout: timeout}
	if u, err := url.Parse(c.URL); err == nil {
		h.host = u.Host
	}
	h.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: timeout, KeepAlive: 15 * time.Second}).DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    2 * DefaultConcurrency, // one Sender for each class
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    timeout,
			MaxResponseHeaderBytes: maxAnswerBytes,
		},
		// A 301 or 302 would turn the POST into a GET without a body, and any
		// redirect would take a signed warning to a place nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h
}

// Deliver makes one attempt to post the warning. nil means that the recipient
// answered with a 2xx status. The error is a *Failure, or the context's own
// when that ended.
func (h *Webhook) Deliver(ctx context.Context, w telemetry.Warning) error {
	body, err := json.Marshal(&w)
	if err != nil {
		return &Failure{Reason: reasonEncode, OneWarning: true, Final: true, Detail: fmt.Sprintf("write the warning as JSON: %v", err)}
	}
	attempt, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	req, err := h.request(attempt, &w, body)
	if err != nil {
		return &Failure{Reason: reasonOther, Detail: fmt.Sprintf("make a request to %s: %v", h.host, err)}
	}
	resp, err := h.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return transportFailure(h.host, h.timeout, attempt.Err() != nil, err)
	}
	defer resp.Body.Close()
	// The status decides. A body that trickles must not hold the next warning.
	answer := readAnswer(resp.Body, cancel)
	if resp.StatusCode/100 == 2 {
		return nil
	}
	return statusFailure(h.host, resp, answer, time.Now())
}

func (h *Webhook) request(ctx context.Context, w *telemetry.Warning, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", h.agent)
	// With this header net/http also repeats the request by itself when a kept
	// connection turns out to be closed.
	req.Header.Set("Idempotency-Key", w.Key())
	if len(h.secret) > 0 {
		req.Header.Set(SignatureHeader, Sign(h.secret, time.Now(), body))
	}
	return req, nil
}

// Sign returns the value of SignatureHeader for a body sent at a time.
func Sign(secret []byte, at time.Time, body []byte) string {
	unix := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(unix))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return "t=" + unix + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// readAnswer reads an answer to its end, within bounds, and returns how it
// begins. stop aborts the exchange.
func readAnswer(body io.Reader, stop func()) []byte {
	timer := time.AfterFunc(maxAnswerTime, stop)
	defer timer.Stop()
	shown, _ := io.ReadAll(io.LimitReader(body, shownAnswerBytes)) // what came before an error is worth showing
	_, _ = io.Copy(io.Discard, io.LimitReader(body, maxAnswerBytes))
	return shown
}
