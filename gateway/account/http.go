package account

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A Door asks requests over HTTP who sends them.
type Door struct {
	store *Store
	query bool
}

// Door returns what asks requests. It takes Basic (RFC 7617), Bearer with a
// token (RFC 6750), and what InfluxDB's clients send: Token with a token, or
// with name:secret; and with query the parameters u and p of InfluxDB 1.x, which
// end up in logs and so are taken on its own paths only.
func (s *Store) Door(query bool) Door { return Door{store: s, query: query} }

// maxWaiting is how many requests with wrong secrets wait for their answer;
// others are answered at once.
const maxWaiting = 64

// Request returns the account that a request comes from. Its error is a
// *telemetry.Denial; a wrong secret waits for its answer.
func (d Door) Request(r *http.Request) (*telemetry.Account, error) {
	a, err := d.ask(r)
	denial, ok := errors.AsType[*telemetry.Denial](err)
	if !ok || denial.Until.IsZero() {
		return a, err
	}
	select {
	case d.store.waiting <- struct{}{}:
	default:
		return nil, err
	}
	defer func() { <-d.store.waiting }()
	pause := time.NewTimer(time.Until(denial.Until))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-r.Context().Done():
	}
	return nil, err
}

func (d Door) ask(r *http.Request) (*telemetry.Account, error) {
	if !d.store.On() {
		return d.store.state.Load().anyone, nil
	}
	from := address(r)
	if user, password, ok := r.BasicAuth(); ok {
		return d.store.Authenticate(r.Context(), user, password, from)
	}
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	value = strings.TrimSpace(value)
	switch {
	case value == "":
	case strings.EqualFold(scheme, "Bearer"):
		return d.store.Token(value, from)
	case strings.EqualFold(scheme, "Token"):
		if user, password, pair := strings.Cut(value, ":"); pair {
			return d.store.Authenticate(r.Context(), user, password, from)
		}
		return d.store.Token(value, from)
	}
	if d.query {
		if q := r.URL.Query(); q.Has("u") || q.Has("p") {
			return d.store.Authenticate(r.Context(), q.Get("u"), q.Get("p"), from)
		}
	}
	return d.store.Authenticate(r.Context(), "", "", from)
}

// address is where a request comes from; what a proxy claims is not believed.
func address(r *http.Request) netip.Addr {
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return at.Addr()
	}
	return netip.Addr{}
}
