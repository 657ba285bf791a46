package ioc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"haidang/gateway/telemetry"
)

// SignatureHeader carries the signature of a webhook's body.
const SignatureHeader = "X-Haidang-Signature"

// WebhookConfig is where and how warnings are posted.
type WebhookConfig struct {
	URL     string             `yaml:"url"`     // http or https; a user and a password in it are sent as basic authentication
	Secret  string             `yaml:"secret"`  // key of X-Haidang-Signature; empty: not signed
	Timeout telemetry.Duration `yaml:"timeout"` // of one attempt, 1s to 1m; default DefaultTimeout
	Access  `yaml:",inline"`
}

// Validate reports what is wrong with the webhook.
func (c WebhookConfig) Validate() []telemetry.Fault { return validHTTP(c.URL, c.Access, c.Timeout) }

// A Webhook posts warnings as JSON. It is safe for concurrent use.
type Webhook struct {
	*endpoint
	secret []byte
}

// NewWebhook makes a webhook of a valid configuration. version is the program's
// own, for the User-Agent.
func NewWebhook(c WebhookConfig, version string) *Webhook {
	return &Webhook{endpoint: newEndpoint(c.URL, c.Access, c.Timeout.Std(), version), secret: []byte(c.Secret)}
}

// Deliver makes one attempt to post the warning. nil means that the recipient
// answered with a 2xx status. The error is a *Failure, or the context's own
// when that ended.
func (h *Webhook) Deliver(ctx context.Context, w telemetry.Warning) error {
	body, err := json.Marshal(&w)
	if err != nil {
		return &Failure{Reason: reasonEncode, OneWarning: true, Final: true, Detail: fmt.Sprintf("write the warning as JSON: %v", err)}
	}
	return h.send(ctx, w.Key(), body)
}

// send makes one attempt to post a body under a key.
func (h *Webhook) send(ctx context.Context, key string, body []byte) error {
	header := http.Header{}
	header.Set("Content-Type", "application/json")
	// With this header net/http also repeats the request by itself when a kept
	// connection turns out to be closed.
	header.Set("Idempotency-Key", key)
	if len(h.secret) > 0 {
		header.Set(SignatureHeader, Sign(h.secret, time.Now(), body))
	}
	return h.post(ctx, header, body)
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
