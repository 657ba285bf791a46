package console

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"haidang/gateway/telemetry"
)

const (
	anyQuery   = "*"
	eventsPath = "/api/v1/events"
	uplinkPath = "/api/v1/uplink/"
)

// A route is one path of the console: its methods, the query parameters it
// knows, and what answers. An error that answers returns is written as a
// problem.
type route struct {
	path    string // as of http.ServeMux, without a method
	method  string // GET serves HEAD as well
	query   []string
	answers func(w http.ResponseWriter, r *http.Request) error
}

func (c *Console) routes(reg Registry) []route {
	routes := []route{
		{"/healthz", http.MethodGet, nil, c.healthz},
		{"/readyz", http.MethodGet, nil, c.readyz},
		{"/metrics", http.MethodGet, []string{anyQuery}, metrics(reg)},
		{eventsPath, http.MethodGet, nil, c.events},
		{"/api/v1/warnings", http.MethodGet, []string{"state", "device", "rule", "severity"}, c.warnings},
		{"/api/v1/warnings/{id}", http.MethodGet, nil, c.warning},
	}
	if c.sources.History != nil {
		routes = append(routes, route{"/api/v1/warnings/{id}/history", http.MethodGet, nil, c.history})
	}
	if c.sources.Act != nil {
		for _, deed := range telemetry.Deeds() {
			routes = append(routes, route{"/api/v1/warnings/{id}/" + string(deed), http.MethodPost, nil, c.act(deed)})
		}
	}
	routes = append(routes, c.pageRoutes()...)
	routes = append(routes, c.deviceRoutes()...)
	routes = append(routes, c.letterRoutes()...)
	routes = append(routes, c.outgoingRoutes()...)
	routes = append(routes, c.lifecycleRoutes()...)
	routes = append(routes, c.modbusRoutes()...)
	routes = append(routes, c.ruleBookRoutes()...)
	if c.sources.Rules != nil {
		routes = append(routes, route{"/api/v1/rules", http.MethodGet, nil, list("rules", c.sources.Rules)})
	}
	if c.sources.RulesDocument != nil {
		routes = append(routes, route{"/api/v1/rules/document", http.MethodGet, nil, list("document", c.sources.RulesDocument)})
	}
	if c.sources.Reload != nil {
		routes = append(routes, route{"/api/v1/rules/reload", http.MethodPost, nil, c.reload})
	}
	if c.sources.Uplink != nil {
		routes = append(routes, route{uplinkPath, "", nil, func(w http.ResponseWriter, r *http.Request) error {
			c.sources.Uplink.ServeHTTP(w, r)
			return nil
		}})
	}
	if c.sources.Health != nil {
		routes = append(routes, route{"/api/v1/health", http.MethodGet, nil, c.health})
	}
	return routes
}

// mux joins the routes.
func (c *Console) mux(reg Registry) *http.ServeMux {
	requests := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "haidang_console_requests_total", Help: "Requests by path and class of status."}, []string{"path", "status"})
	mux := http.NewServeMux()
	of := map[string][]route{} // a path may have a route for each of several methods
	for _, r := range append(c.routes(reg), route{"/", "", []string{anyQuery}, unknownPath}) {
		of[r.path] = append(of[r.path], r)
	}
	for path, routes := range of {
		mux.Handle(path, c.serve(routes, requests))
	}
	return mux
}

// handler is what stands before the routes for those who come over a network.
func (c *Console) handler(host string, mux http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problemf(http.StatusForbidden, "", "changes are not taken from pages of another origin").in(r).write(w)
	}))
	return secured(c.desktop.tiles.policy(), origins.Handler(c.guarded(host, mux)))
}

func (c *Console) serve(routes []route, requests *prometheus.CounterVec) http.Handler {
	path := strings.TrimSuffix(routes[0].path, "{$}")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted := &statusWriter{ResponseWriter: w}
		defer func() { requests.WithLabelValues(path, counted.class()).Inc() }()
		route, err := choose(routes, counted, r)
		if err == nil {
			err = route.check(r)
		}
		if err == nil {
			err = route.answers(counted, r)
		}
		if err == nil {
			return
		}
		p, ok := errors.AsType[*problem](err)
		if !ok {
			c.log.Error("a request cannot be answered", "path", path, "error", err)
			p = problemf(http.StatusInternalServerError, "", "the gateway could not answer; its log says why")
		}
		p.in(r).write(counted)
	})
}

// choose returns the route for the method of the request.
func choose(routes []route, w http.ResponseWriter, r *http.Request) (*route, error) {
	var allowed []string
	for i := range routes {
		methods := []string{routes[i].method}
		if routes[i].method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		if routes[i].method == "" || slices.Contains(methods, r.Method) {
			return &routes[i], nil
		}
		allowed = append(allowed, methods...)
	}
	list := strings.Join(allowed, ", ")
	w.Header().Set("Allow", list)
	return nil, problemf(http.StatusMethodNotAllowed, "", "%s does not take %s; expected %s", r.URL.Path, r.Method, list)
}

// check refuses query parameters that the route does not know.
func (route *route) check(r *http.Request) error {
	if slices.Contains(route.query, anyQuery) {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problemf(http.StatusBadRequest, "", "the query cannot be read: %v", err)
	}
	for name, values := range query {
		if !slices.Contains(route.query, name) {
			return problemf(http.StatusBadRequest, name, "there is no query parameter %q; expected %s", name, oneOf(route.query))
		}
		if len(values) > 1 {
			return problemf(http.StatusBadRequest, name, "query parameter %q is there %d times; expected once", name, len(values))
		}
	}
	return nil
}

func oneOf(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return "one of " + strings.Join(names, ", ")
}

func unknownPath(_ http.ResponseWriter, r *http.Request) error {
	return problemf(http.StatusNotFound, "", "there is no %s here", r.URL.Path)
}

func metrics(reg prometheus.Gatherer) func(http.ResponseWriter, *http.Request) error {
	h := promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	return func(w http.ResponseWriter, r *http.Request) error {
		h.ServeHTTP(w, r)
		return nil
	}
}

// secured tells browsers to be strict; policy is the Content-Security-Policy.
func secured(policy string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

type administratorKey struct{}

// administrator marks the requests of a caller who may do everything.
func administrator(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), administratorKey{}, true)))
	})
}

// isAdministrator reports whether the request came over the attached listener.
func isAdministrator(r *http.Request) bool {
	is, _ := r.Context().Value(administratorKey{}).(bool)
	return is
}

// ours reports whether a Host header names this gateway. The port is not looked
// at: it may have been forwarded.
func ours(header, host string) bool {
	name := header
	if n, _, err := net.SplitHostPort(header); err == nil {
		name = n
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	switch strings.ToLower(name) {
	case "localhost", "127.0.0.1", "::1", "": // none: HTTP/1.0, which no browser speaks
		return true
	}
	return strings.EqualFold(name, host)
}

// A statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) class() string {
	switch w.status / 100 {
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	case 5:
		return "5xx"
	}
	return "2xx"
}
