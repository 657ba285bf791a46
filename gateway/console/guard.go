package console

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// An Authenticator says who sends a request.
type Authenticator interface {
	// Request returns the account that a request comes from; while there are no
	// accounts, that of anyone, without a name. Its error is a *telemetry.Denial.
	Request(r *http.Request) (*telemetry.Account, error)
}

// TLS names the certificate of the console's listener; without one it is plain
// HTTP.
type TLS struct {
	Cert string `yaml:"cert"` // PEM file with the certificate chain
	Key  string `yaml:"key"`  // PEM file with its key
}

// Guard makes the console ask who sends a request; it is called before Run. What
// comes over the attached listener is not asked.
func (c *Console) Guard(a Authenticator) { c.accounts = a }

// Encrypt makes Run serve HTTPS; it is called before Run.
func (c *Console) Encrypt(t *tls.Config) { c.encryption = t }

// front is the listener that Run serves.
func (c *Console) front() net.Listener {
	if c.encryption == nil {
		return c.listener
	}
	return tls.NewListener(c.listener, c.encryption)
}

// needs is the right that a request needs; "" is none. What is not known to need
// less changes something, and needs an administrator.
func needs(method, path string) telemetry.Right {
	switch {
	case path == "/healthz", path == "/readyz", path == "/login", path == "/logout", strings.HasPrefix(path, "/assets/"):
		return ""
	case strings.HasPrefix(path, uplinkPath):
		return telemetry.Push
	case path == auditPath:
		return telemetry.Administer
	case method == http.MethodGet, method == http.MethodHead, path == "/api/v1/session":
		return telemetry.Read
	case strings.HasPrefix(path, "/api/v1/warnings/"), path == "/api/v1/out-of-service", path == "/api/v1/drill",
		strings.HasPrefix(path, "/api/v1/recipients/"):
		return telemetry.Operate
	case strings.HasPrefix(path, "/api/v1/devices/") && strings.HasSuffix(path, "/state"):
		return telemetry.Operate
	case strings.HasPrefix(path, "/api/v1/rules"):
		return telemetry.Rule
	}
	return telemetry.Administer
}

// guarded lets requests through to next whose account has the right. While there
// are no accounts, the Host header must name this gateway: a page of the internet
// whose name resolves to 127.0.0.1 (DNS rebinding) still sends its own name.
func (c *Console) guarded(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		right := needs(r.Method, r.URL.Path)
		if right == telemetry.Read && c.sources.CAPPublic && strings.HasPrefix(r.URL.Path, "/cap/") {
			right = "" // the feed is for everybody
		}
		account := &telemetry.Account{}
		if c.accounts != nil && right != "" {
			var err error
			if account, err = c.who(r); err != nil {
				if !toLogin(w, r, err) {
					denied(w, r, err)
				}
				return
			}
		}
		if account.Name == "" {
			if !ours(r.Host, host) && (c.accounts == nil || right != "") {
				problemf(http.StatusMisdirectedRequest, "", "Host %q is not this gateway; expected localhost, 127.0.0.1 or [::1]", r.Host).in(r).write(w)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		if right != "" && !account.May(right, "") {
			problemf(http.StatusForbidden, "", "account %q (%s) has no right to %s here", account.Name, account.Role, right).in(r).write(w)
			return
		}
		// What lasts, such as the stream of events, ends with the account.
		ctx, cancel := context.WithCancel(telemetry.WithAccount(r.Context(), account))
		defer cancel()
		defer context.AfterFunc(account.Life, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// denied answers who did not say well who he is.
func denied(w http.ResponseWriter, r *http.Request, err error) {
	denial, ok := errors.AsType[*telemetry.Denial](err)
	if !ok {
		denial = &telemetry.Denial{Reason: telemetry.DeniedBusy, Detail: err.Error()}
	}
	status := denial.Status()
	// For a script of the page no dialog of the browser. Sec-Fetch-Dest is sent over
	// TLS and on loopback only.
	script := r.Header.Get("Sec-Fetch-Dest") == "empty" || r.Header.Get(quietHeader) != "" || r.URL.Path == eventsPath || r.URL.Path == "/login"
	if status == http.StatusUnauthorized && !script {
		w.Header().Set("WWW-Authenticate", `Basic realm="Hai Dang", charset="UTF-8"`)
	}
	if denial.After > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(denial.After.Seconds())+1))
	}
	problemf(status, "", "%s", denial.Detail).in(r).write(w)
}

// actor is the name of who acts: that of the account when there is one, whatever
// the body says.
func actor(r *http.Request, said string) string {
	if a := telemetry.AccountOf(r.Context()); a != nil && a.Name != "" {
		return a.Name
	}
	return said
}
