package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Lifecycle is what the console tells of warnings beyond how they stand. Functions
// that are nil have no page; all are called by many goroutines at once.
type Lifecycle struct {
	// Orders returns what is out of service, Withheld what holds and is not raised
	// by design (inhibited or muted); both are slices to be written as JSON.
	Orders   func() any
	Withheld func() any
	// Order takes a device or a rule out of service, or puts it back. Its errors are
	// answered as those of Sources.Act.
	Order func(ctx context.Context, o telemetry.Order) (telemetry.Order, error)
	// Route says who is told of a warning, and why: of the one with this id, or with
	// id "" of one that might be raised, which query describes. Errors name the
	// field, or are telemetry.ErrUnknown.
	Route func(id string, query url.Values) (any, error)
	// Deliveries returns the attempts to tell recipients of a warning, the oldest
	// first.
	Deliveries func(ctx context.Context, id string) (any, error)
	// Reports returns a slice to be written as JSON, or as what its method CSV
	// gives; errors name the field.
	Reports func(ctx context.Context, query url.Values) (any, error)
	// Drill returns the exercise that runs, nil when there is none; ActOnDrill starts
	// or ends one, as the JSON body says.
	Drill      func() any
	ActOnDrill func(ctx context.Context, body []byte, by string) (any, error)
	// Audit returns who changed what, when and why, the newest first, as a slice to
	// be written as JSON; errors name the field.
	Audit func(ctx context.Context, query url.Values) (any, error)
	// Try sends a recipient a test; the error wraps telemetry.ErrUnknown, or
	// ErrUnreached with what the recipient answered.
	Try func(ctx context.Context, recipient, by, why string) (any, error)
	// Scenarios returns what an exercise can play, a slice to be written as JSON.
	Scenarios func() any
	// Accepted returns the newest transition of a warning that a recipient has
	// accepted, 0 for none.
	Accepted func(id, recipient string) int
}

func (c *Console) lifecycleRoutes() []route {
	var routes []route
	l := &c.sources.Lifecycle
	if l.Orders != nil && l.Withheld != nil {
		routes = append(routes, route{"/api/v1/out-of-service", http.MethodGet, nil, func(w http.ResponseWriter, _ *http.Request) error {
			return writeJSON(w, http.StatusOK, map[string]any{"orders": l.Orders(), "withheld": l.Withheld()})
		}})
	}
	if l.Order != nil {
		routes = append(routes, route{"/api/v1/out-of-service", http.MethodPost, nil, c.order})
	}
	if l.Route != nil {
		routes = append(routes,
			route{"/api/v1/route", http.MethodGet, []string{"device", "rule", "kind", "severity", "at", "exercise"}, c.routed},
			route{"/api/v1/warnings/{id}/route", http.MethodGet, nil, c.routed})
	}
	if l.Deliveries != nil {
		routes = append(routes, route{"/api/v1/warnings/{id}/deliveries", http.MethodGet, nil, c.deliveries})
	}
	if l.Reports != nil {
		routes = append(routes, route{"/api/v1/reports", http.MethodGet, []string{"from", "to", "by", "exercises", "format"}, c.reports})
	}
	if l.Try != nil {
		routes = append(routes, route{"/api/v1/recipients/{name}/test", http.MethodPost, nil, c.try})
	}
	if l.Audit != nil {
		routes = append(routes, route{auditPath, http.MethodGet, []string{"from", "to", "by", "do", "on", "limit"}, c.audit})
	}
	if l.Drill != nil && l.ActOnDrill != nil {
		routes = append(routes,
			route{"/api/v1/drill", http.MethodGet, nil, list("drill", l.Drill)},
			route{"/api/v1/drill", http.MethodPost, nil, c.drill})
	}
	if l.Scenarios != nil {
		routes = append(routes, route{"/api/v1/drill/scenarios", http.MethodGet, nil, list("scenarios", l.Scenarios)})
	}
	return routes
}

// order serves POST /api/v1/out-of-service.
func (c *Console) order(w http.ResponseWriter, r *http.Request) error {
	body, err := jsonBody(w, r)
	if err != nil {
		return err
	}
	var in struct {
		Out    *bool      `json:"out"`
		Device string     `json:"device"`
		Rule   string     `json:"rule"`
		N      int        `json:"n"`
		By     string     `json:"by"`
		Why    string     `json:"why"`
		Until  *time.Time `json:"until"`
	}
	if err := decodeStrictly(body, &in); err != nil {
		return problemf(http.StatusBadRequest, fieldOf(err), "the body is not an object of out, device, rule, n, by, why, until: %v", err)
	}
	if in.Out == nil {
		return problemf(http.StatusBadRequest, "out", "out is missing; expected true to take out of service, false to put back")
	}
	o := telemetry.Order{Out: *in.Out, Device: in.Device, Rule: in.Rule, N: in.N, At: time.Now().UTC(), Until: in.Until}
	if o.By, o.Why, err = whoAndWhy(actor(r, in.By), in.Why); err != nil {
		return err
	}
	done, err := c.sources.Lifecycle.Order(r.Context(), o)
	if err != nil {
		return lifecycleProblem(err)
	}
	return writeJSON(w, http.StatusOK, done)
}

// ErrUnreached is wrapped by an error about a recipient that did not take a test.
var ErrUnreached = errors.New("the test did not come through")

// lifecycleProblem answers an error of Lifecycle.
func lifecycleProblem(err error) error {
	conflict, isConflict := errors.AsType[*telemetry.Conflict](err)
	switch {
	case isConflict:
		p := problemf(http.StatusConflict, "n", "%v", err)
		p.N = conflict.N
		return p
	case errors.Is(err, telemetry.ErrConflict):
		return problemf(http.StatusConflict, "", "%v", err)
	case errors.Is(err, telemetry.ErrUnknown):
		return problemf(http.StatusNotFound, "id", "%v", err)
	case errors.Is(err, ErrUnreached):
		return problemf(http.StatusBadGateway, "", "%v", err)
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusServiceUnavailable, "", "%v", err)
	}
	field, _, ok := strings.Cut(err.Error(), ":")
	if !ok || strings.Contains(field, " ") {
		field = ""
	}
	return problemf(http.StatusBadRequest, field, "%v", err)
}

// routed serves GET /api/v1/route and /api/v1/warnings/{id}/route.
func (c *Console) routed(w http.ResponseWriter, r *http.Request) error {
	answer, err := c.sources.Lifecycle.Route(r.PathValue("id"), r.URL.Query())
	if err != nil {
		return lifecycleProblem(err)
	}
	return writeJSON(w, http.StatusOK, answer)
}

// deliveries serves GET /api/v1/warnings/{id}/deliveries.
func (c *Console) deliveries(w http.ResponseWriter, r *http.Request) error {
	list, err := c.sources.Lifecycle.Deliveries(r.Context(), r.PathValue("id"))
	if err != nil {
		return lifecycleProblem(err)
	}
	return writeJSON(w, http.StatusOK, map[string]any{"deliveries": list})
}

// reports serves GET /api/v1/reports.
func (c *Console) reports(w http.ResponseWriter, r *http.Request) error {
	list, err := c.sources.Lifecycle.Reports(r.Context(), r.URL.Query())
	if err != nil {
		return lifecycleProblem(err)
	}
	table, ok := list.(interface{ CSV() ([]byte, error) })
	switch format := r.URL.Query().Get("format"); {
	case format == "csv" && ok:
		text, err := table.CSV()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Disposition", `attachment; filename="warnings.csv"`)
		writeBody(w, http.StatusOK, "text/csv; charset=utf-8; header=present", text)
		return nil
	case format == "", format == "json":
		return writeJSON(w, http.StatusOK, map[string]any{"reports": list})
	default:
		return problemf(http.StatusBadRequest, "format", "format %q is not one of json, csv", format)
	}
}

// auditPath is for administrators: it tells who acknowledged and who came in.
const auditPath = "/api/v1/audit"

// audit serves GET /api/v1/audit.
func (c *Console) audit(w http.ResponseWriter, r *http.Request) error {
	list, err := c.sources.Lifecycle.Audit(r.Context(), r.URL.Query())
	if err != nil {
		return lifecycleProblem(err)
	}
	return writeJSON(w, http.StatusOK, map[string]any{"audit": list})
}

// try serves POST /api/v1/recipients/{name}/test.
func (c *Console) try(w http.ResponseWriter, r *http.Request) error {
	body, err := jsonBody(w, r)
	if err != nil {
		return err
	}
	var in struct {
		By  string `json:"by"`
		Why string `json:"why"`
	}
	if err := decodeStrictly(body, &in); err != nil {
		return problemf(http.StatusBadRequest, fieldOf(err), "the body is not an object of by, why: %v", err)
	}
	by, why, err := whoAndWhy(actor(r, in.By), in.Why)
	if err != nil {
		return err
	}
	answer, err := c.sources.Lifecycle.Try(r.Context(), r.PathValue("name"), by, why)
	if err != nil {
		return lifecycleProblem(err)
	}
	return writeJSON(w, http.StatusOK, answer)
}

// drill serves POST /api/v1/drill.
func (c *Console) drill(w http.ResponseWriter, r *http.Request) error {
	body, err := jsonBody(w, r)
	if err != nil {
		return err
	}
	answer, err := c.sources.Lifecycle.ActOnDrill(r.Context(), body, actor(r, ""))
	if err != nil {
		return lifecycleProblem(err)
	}
	return writeJSON(w, http.StatusOK, map[string]any{"drill": answer})
}
