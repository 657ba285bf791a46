package console

import (
	"net/http"
	"time"
)

// A Recipient says how one recipient of warnings fares.
type Recipient struct {
	Recipient   string     `json:"recipient"`
	Via         string     `json:"via"`                    // webhook, cap, smtp, ...
	Circuit     string     `json:"circuit"`                // closed: it is called; open: it is left alone for a while
	Backlog     int        `json:"backlog"`                // transitions that it was offered and has not accepted
	OldestS     float64    `json:"oldest_s"`               // age of the oldest of them, in seconds
	LastSuccess *time.Time `json:"last_success,omitempty"` // since the start of the gateway, as the two below
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	Since       *time.Time `json:"failing_since,omitempty"` // it fails without a success in between
}

// outgoingRoutes are the paths about warnings that leave the gateway.
func (c *Console) outgoingRoutes() []route {
	var routes []route
	if c.sources.Recipients != nil {
		routes = append(routes, route{"/api/v1/recipients", http.MethodGet, nil, list("recipients", func() any { return c.sources.Recipients() })})
	}
	if c.sources.CAP != nil {
		routes = append(routes, route{"/cap/", http.MethodGet, nil, func(w http.ResponseWriter, r *http.Request) error {
			c.sources.CAP.ServeHTTP(w, r)
			return nil
		}})
	}
	return routes
}
