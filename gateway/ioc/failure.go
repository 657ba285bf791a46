package ioc

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Reasons of a Failure, as in the metrics.
const (
	reasonTimeout     = "timeout"
	reasonRefused     = "refused" // nothing listens there
	reasonDNS         = "dns"
	reasonTLS         = "tls"
	reasonConnection  = "connection" // broken off, or the answer is not HTTP
	reasonRedirect    = "redirect"
	reasonRateLimited = "rate_limited"
	reasonStatus4xx   = "status_4xx"
	reasonStatus5xx   = "status_5xx"
	reasonEncode      = "encode"  // the warning cannot be written in the recipient's format
	reasonLogin       = "login"   // the recipient does not know us
	reasonAddress     = "address" // whom it is for is not known there
	reasonFile        = "file"    // a folder does not take it
	reasonModem       = "modem"   // what a modem, or the network behind it, answers
	reasonOther       = "other"
)

var reasons = [...]string{reasonTimeout, reasonRefused, reasonDNS, reasonTLS, reasonConnection, reasonRedirect,
	reasonRateLimited, reasonStatus4xx, reasonStatus5xx, reasonEncode, reasonLogin, reasonAddress, reasonFile, reasonModem, reasonOther}

// A Failure says why one attempt did not deliver a warning.
type Failure struct {
	Reason string        // one word for counting
	After  time.Duration // how long the recipient asks to be left alone; 0 when it did not
	// OneWarning is true when the recipient finds fault with this warning, not
	// with everything it is sent.
	OneWarning bool
	Partly     bool   // some of those whom the recipient tells have it; of one warning
	Final      bool   // no further attempt can succeed
	Delivered  bool   // the recipient has the warning, but something is to be said
	Detail     string // the sentence for people: who answered what
}

// failureIn returns the Failure that an error is, or one of no known reason.
func failureIn(err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	return &Failure{Reason: reasonOther, Detail: err.Error()}
}

// Error returns the sentence for people.
func (f *Failure) Error() string { return f.Detail }

func transportFailure(host string, timeout time.Duration, timedOut bool, err error) *Failure {
	var address *url.Error
	if errors.As(err, &address) {
		err = address.Err // the address can carry a token: name the host only
	}
	f := &Failure{Reason: transportReason(err), Detail: fmt.Sprintf("post to %s: %v", host, err)}
	if timedOut {
		f.Reason = reasonTimeout
		f.Detail = fmt.Sprintf("post to %s: no status within %s", host, timeout)
	}
	return f
}

func transportReason(err error) string {
	var (
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		remote      *net.OpError
	)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return reasonRefused
	case errors.As(err, &dns):
		return reasonDNS
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert),
		errors.As(err, &remote) && remote.Op == "remote error": // a TLS alert of the other side
		return reasonTLS
	}
	return reasonConnection
}

func statusFailure(host string, resp *http.Response, answer []byte, now time.Time) *Failure {
	f := &Failure{
		Reason: statusReason(resp.StatusCode),
		After:  retryAfter(resp.Header.Get("Retry-After"), now),
		Detail: fmt.Sprintf("post to %s: status %d, expected 2xx", host, resp.StatusCode),
	}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		f.OneWarning = true
	}
	if f.Reason == reasonRedirect {
		f.Detail += fmt.Sprintf("; redirects are not followed, write the address it points to into url: %.200q", resp.Header.Get("Location"))
	}
	if len(answer) > 0 {
		f.Detail += fmt.Sprintf("; it says %q", answer)
	}
	return f
}

func statusReason(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return reasonRateLimited
	case status/100 == 3:
		return reasonRedirect
	case status/100 == 4:
		return reasonStatus4xx
	case status/100 == 5:
		return reasonStatus5xx
	}
	return reasonOther
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds or a date.
// What cannot be read, or lies in the past, is 0; the longest is MaxHold.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header == "" {
		return 0
	}
	if n, err := strconv.ParseUint(header, 10, 64); err == nil {
		return time.Duration(min(n, uint64(MaxHold/time.Second))) * time.Second
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), MaxHold)
}
