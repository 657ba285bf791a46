package ioc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
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

// Access is how a recipient over HTTP or SMTP knows us, and we it.
type Access struct {
	Token string `yaml:"token"` // sent as Authorization: Bearer; HTTP only
	// CA is a PEM file of the authorities that may vouch for the recipient, read
	// again when it changes; default: those of the system.
	CA string `yaml:"ca"`
	// Cert and Key are PEM files of a client certificate (mTLS). They are read
	// again at each connection.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Validate reports files that cannot be used.
func (a Access) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if strings.ContainsAny(a.Token, "\r\n\x00") {
		faults = append(faults, telemetry.Faultf("token", "the token has a line break in it"))
	}
	if a.CA != "" {
		if _, err := a.authorities(); err != nil {
			faults = append(faults, telemetry.Faultf("ca", "%v", err))
		}
	}
	switch {
	case a.Cert == "" && a.Key == "":
	case a.Cert == "":
		faults = append(faults, telemetry.Faultf("cert", "there is a key and no cert; expected both"))
	case a.Key == "":
		faults = append(faults, telemetry.Faultf("key", "there is a cert and no key; expected both"))
	default:
		if _, err := tls.LoadX509KeyPair(a.Cert, a.Key); err != nil {
			faults = append(faults, telemetry.Faultf("cert", "certificate %s with key %s cannot be used: %v", a.Cert, a.Key, err))
		}
	}
	return faults
}

func (a Access) authorities() (*x509.CertPool, error) {
	pem, err := os.ReadFile(a.CA)
	if err != nil {
		return nil, fmt.Errorf("read the authorities' certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", a.CA)
	}
	return pool, nil
}

// tls returns how a connection to a server is made.
func (a Access) tls(server string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: server}
	if a.CA != "" {
		pool, err := a.authorities()
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = pool
	}
	if a.Cert != "" {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(a.Cert, a.Key)
			if err != nil {
				return nil, fmt.Errorf("load the client certificate %s: %w", a.Cert, err)
			}
			return &cert, nil
		}
	}
	return cfg, nil
}

// An endpoint is where things are posted over HTTP. It is safe for concurrent
// use.
type endpoint struct {
	url, host string
	token     string
	agent     string
	timeout   time.Duration
	trust     *trust
}

func newEndpoint(address string, access Access, timeout time.Duration, version string) *endpoint {
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	e := &endpoint{url: address, token: access.Token, agent: "haidang/" + version, timeout: timeout}
	if u, err := url.Parse(address); err == nil {
		e.host = u.Host
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: timeout, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    2 * DefaultConcurrency, // one Sender for each class
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    timeout,
		MaxResponseHeaderBytes: maxAnswerBytes,
	}
	e.trust = newTrust(access, transport)
	return e
}

// post makes one attempt to post body. nil means that the recipient answered
// with a 2xx status. The error is a *Failure, or the context's own when that
// ended.
func (e *endpoint) post(ctx context.Context, header http.Header, body []byte) error {
	client, distrust := e.trust.now()
	if client == nil {
		return &Failure{Reason: reasonTLS, Detail: fmt.Sprintf("post to %s: %v", e.host, distrust)}
	}
	attempt, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(attempt, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return &Failure{Reason: reasonOther, Detail: fmt.Sprintf("make a request to %s: %v", e.host, err)}
	}
	req.Header = header
	req.Header.Set("User-Agent", e.agent)
	if e.token != "" {
		req.Header.Set("Authorization", "Bearer "+e.token)
	}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f := transportFailure(e.host, e.timeout, attempt.Err() != nil, err)
		if distrust != nil && f.Reason == reasonTLS {
			f.Detail += "; " + distrust.Error()
		}
		return f
	}
	defer resp.Body.Close()
	// The status decides. A body that trickles must not hold the next warning.
	answer := readAnswer(resp.Body, cancel)
	if resp.StatusCode/100 == 2 {
		answered(ctx, strings.TrimSpace(resp.Status+" "+string(answer)))
		return nil
	}
	return statusFailure(e.host, resp, answer, time.Now())
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

// validAddress reports what is wrong with the address of an endpoint. It can
// carry a password or a token: messages do not repeat it.
func validAddress(address string) []telemetry.Fault {
	fault := func(format string, args ...any) []telemetry.Fault {
		return []telemetry.Fault{telemetry.Faultf("url", format, args...)}
	}
	u, err := url.Parse(address)
	switch {
	case address == "":
		return fault("url is missing; expected https://host/path")
	case err != nil:
		return fault("url cannot be read; expected https://host/path")
	case u.Scheme != "http" && u.Scheme != "https":
		return fault("url begins with %q; expected http:// or https://", u.Scheme)
	case u.Hostname() == "":
		return fault("url has no host; expected https://host/path")
	case u.Fragment != "":
		return fault("url has a fragment (#%s), which is never sent", u.Fragment)
	}
	return nil
}

// validHTTP reports what is wrong with an endpoint.
func validHTTP(address string, access Access, timeout telemetry.Duration) []telemetry.Fault {
	faults := validAddress(address)
	u, err := url.Parse(address)
	if err == nil && u.Scheme == "http" && (access.CA != "" || access.Cert != "") {
		faults = append(faults, telemetry.Faultf("url", "ca and cert are for https://, and url begins with http://"))
	}
	if err == nil && u.User != nil && access.Token != "" {
		faults = append(faults, telemetry.Faultf("token", "url has a user already; expected one of the two"))
	}
	faults = append(faults, access.Validate()...)
	return append(faults, validTimeout(timeout)...)
}

func validTimeout(timeout telemetry.Duration) []telemetry.Fault {
	if t := timeout.Std(); t != 0 && (t < minTimeout || t > maxTimeout) {
		return []telemetry.Fault{telemetry.Faultf("timeout", "timeout %s is not in %s..%s", timeout,
			telemetry.Duration(minTimeout), telemetry.Duration(maxTimeout))}
	}
	return nil
}
