package influx

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"

	"haidang/gateway/telemetry"
)

// An Authenticator says who sends a request.
type Authenticator interface {
	// Request returns the account that a request comes from; while there are no
	// accounts, that of anyone. Its error is a *telemetry.Denial.
	Request(r *http.Request) (*telemetry.Account, error)
}

// TLS names the certificate of the port; without one it is plain HTTP.
type TLS struct {
	Cert string `yaml:"cert"` // PEM file with the certificate chain
	Key  string `yaml:"key"`  // PEM file with its key
}

// Guard makes the port ask who sends a request: reading needs the right to read,
// writing that to write. It is called before Run.
func (s *Store) Guard(a Authenticator) { s.accounts = a }

// Encrypt makes the port serve HTTPS; it is called before Run.
func (s *Store) Encrypt(t *tls.Config) { s.encryption = t }

// front is the listener that is served.
func (s *Store) front() net.Listener {
	if s.encryption == nil {
		return s.listener
	}
	return tls.NewListener(s.listener, s.encryption)
}

// guarded lets requests through to next whose account has the right.
func (s *Store) guarded(next http.Handler) http.Handler {
	if s.accounts == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		right := telemetry.Read
		switch r.URL.Path {
		case "/ping", "/health": // for who only wants to know whether it lives
			next.ServeHTTP(w, r)
			return
		case "/write", "/api/v2/write":
			right = telemetry.Write
		}
		account, err := s.accounts.Request(r)
		if err == nil && !account.May(right, "") {
			err = telemetry.Forbidden("account " + strconv.Quote(account.Name) + " (" + string(account.Role) + ") has no right to " + string(right) + " here")
		}
		if err != nil {
			refuseCaller(w, err)
			return
		}
		ctx, cancel := context.WithCancel(telemetry.WithAccount(r.Context(), account))
		defer cancel()
		defer context.AfterFunc(account.Life, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// refuseCaller answers in the shape that clients of 1.x and of 2.x read.
func refuseCaller(w http.ResponseWriter, err error) {
	denial, ok := errors.AsType[*telemetry.Denial](err)
	if !ok {
		denial = &telemetry.Denial{Reason: telemetry.DeniedBusy, Detail: err.Error()}
	}
	code := "unauthorized"
	switch status := denial.Status(); status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="InfluxDB"`)
	case http.StatusForbidden:
		code = "forbidden"
	default:
		code = "unavailable"
	}
	if denial.After > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(denial.After.Seconds())+1))
	}
	refuseWrite(w, denial.Status(), code, denial.Detail)
}
