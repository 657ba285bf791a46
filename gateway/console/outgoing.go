package console

import "net/http"

// outgoingRoutes are the paths about warnings that leave the gateway.
func (c *Console) outgoingRoutes() []route {
	var routes []route
	if c.sources.Recipients != nil {
		routes = append(routes, route{"/api/v1/recipients", http.MethodGet, nil, list("recipients", c.sources.Recipients)})
	}
	if c.sources.CAP != nil {
		routes = append(routes, route{"/cap/", http.MethodGet, nil, func(w http.ResponseWriter, r *http.Request) error {
			c.sources.CAP.ServeHTTP(w, r)
			return nil
		}})
	}
	return routes
}
