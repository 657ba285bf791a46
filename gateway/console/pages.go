package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"haidang/gateway/console/page"
)

// pageRoutes are the pages and what only pages ask for.
func (c *Console) pageRoutes() []route {
	lang := []string{"lang"}
	routes := []route{
		{"/{$}", http.MethodGet, []string{"lang", "kiosk"}, c.home},
		{"/keys", http.MethodGet, lang, func(w http.ResponseWriter, r *http.Request) error {
			return c.writePage(w, r, http.StatusOK, c.view(w, r, page.Keys))
		}},
		{"/assets/{name...}", http.MethodGet, []string{"v"}, c.asset},
		{"/warnings/{id}", http.MethodGet, lang, c.warningPage},
		{"/login", http.MethodGet, []string{"lang", "to"}, c.loginPage},
		{"/login", http.MethodPost, nil, c.login},
		{"/logout", http.MethodPost, nil, c.logout},
		{"/api/v1/session", http.MethodGet, nil, c.session},
		{"/api/v1/session", http.MethodPost, nil, c.session},
		{"/api/v1/map", http.MethodGet, nil, c.mapped},
		{"/api/v1/zones", http.MethodGet, nil, c.zones},
	}
	if c.sources.Devices != nil && c.sources.Device != nil {
		routes = append(routes, route{"/devices", http.MethodGet, lang, c.devicesPage}, route{"/devices/{id}", http.MethodGet, lang, c.devicePage})
	}
	if c.sources.Series != nil {
		routes = append(routes, route{"/api/v1/trends", http.MethodGet, nil, c.trends}, route{"/api/v1/devices/{id}/series", http.MethodGet, []string{"kind", "value", "from", "to", "points"}, c.series})
	}
	if c.sources.Rules != nil {
		routes = append(routes, c.rulePageRoutes(lang)...)
	}
	if c.sources.Health != nil {
		routes = append(routes, route{"/health", http.MethodGet, []string{"lang", "reason", "letters"}, c.healthPage})
	}
	if c.sources.Lifecycle.ActOnDrill != nil {
		routes = append(routes, route{"/drill", http.MethodGet, lang, c.drillPage})
	}
	return routes
}

// drillPage serves GET /drill.
func (c *Console) drillPage(w http.ResponseWriter, r *http.Request) error {
	v := c.view(w, r, page.Drills)
	var content page.DrillContent
	if c.sources.Lifecycle.Scenarios != nil {
		if err := decode(c.sources.Lifecycle.Scenarios(), &content.Scenarios); err != nil {
			return err
		}
	}
	devices, err := c.states()
	if err != nil {
		return err
	}
	for i := range devices {
		if devices[i].Registered && len(content.Devices) < maxTable {
			content.Devices = append(content.Devices, devices[i])
		}
	}
	slices.SortFunc(content.Devices, func(a, b page.DeviceState) int { return strings.Compare(a.Name, b.Name) })
	v.Content = content
	return c.writePage(w, r, http.StatusOK, v)
}

// devicesPage serves GET /devices.
func (c *Console) devicesPage(w http.ResponseWriter, r *http.Request) error {
	devices, err := c.states()
	if err != nil {
		return err
	}
	v := c.view(w, r, page.Devices)
	shown := devices[:min(len(devices), maxTable)]
	content := page.DevicesContent{Devices: shown, Count: len(devices), More: len(devices) - len(shown)}
	for i := range devices {
		switch d := &devices[i]; {
		case d.Waits() && len(content.Waiting) < maxRows:
			content.Waiting = append(content.Waiting, *d)
		case d.Refused != nil && len(content.Refused) < maxRows:
			content.Refused = append(content.Refused, *d)
		}
		if len(devices[i].Problems) > 0 {
			content.Wrong++
		}
	}
	v.Content = content
	return c.writePage(w, r, http.StatusOK, v)
}

// devicePage serves GET /devices/{id}.
func (c *Console) devicePage(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	found, ok := c.sources.Device(id)
	if !ok {
		return c.missing(w, r, id)
	}
	known, err := c.known()
	if err != nil {
		return err
	}
	v := c.view(w, r, page.Device)
	content := page.DeviceContent{}
	if err := decode(found, &content.DeviceState); err != nil {
		return err
	}
	content.Blocks, content.Facts = known.Blocks(v.Lang, &content.DeviceState), page.FactsOf(&content.DeviceState)
	for _, warning := range c.sources.Warnings(false) {
		if warning.Device == id && len(content.Warnings) < maxRows {
			row := rowOf(v.Lang, known, &warning)
			row.Told = c.told(&warning, c.recipients())
			content.Warnings = append(content.Warnings, row)
		}
	}
	if c.sources.DeadLetters != nil {
		letters, err := c.sources.DeadLetters(r.Context(), LetterQuery{Device: id, Limit: maxOwnLetters})
		if err == nil {
			err = decode(letters, &content.Letters)
		}
		if err != nil {
			return err
		}
	}
	if c.sources.DeviceChanges != nil {
		changes, err := c.sources.DeviceChanges(id, 20)
		if err == nil {
			err = decode(changes, &content.Changes)
		}
		if err != nil {
			return err
		}
	}
	v.Content = content
	return c.writePage(w, r, http.StatusOK, v)
}

// healthPage serves GET /health.
func (c *Console) healthPage(w http.ResponseWriter, r *http.Request) error {
	health, err := c.sources.Health(r.Context())
	if err != nil {
		return err
	}
	var content page.HealthContent
	if err := decode(health, &content); err != nil {
		return err
	}
	content.Recipients = c.recipients()
	if c.sources.DeadLetters != nil {
		content.Reason, content.All = r.URL.Query().Get("reason"), r.URL.Query().Get("letters") == "all"
		letters, err := c.sources.DeadLetters(r.Context(), LetterQuery{Reason: content.Reason, All: content.All, Limit: maxLetters + 1})
		if err == nil {
			err = decode(letters, &content.Letters)
		}
		if err != nil {
			return err
		}
		content.MoreThere = len(content.Letters) > maxLetters
		content.Letters = content.Letters[:min(len(content.Letters), maxLetters)]
	}
	v := c.view(w, r, page.Health)
	v.Content = content
	return c.writePage(w, r, http.StatusOK, v)
}

// loginPage serves GET /login.
func (c *Console) loginPage(w http.ResponseWriter, r *http.Request) error {
	v := c.view(w, r, page.Login)
	v.Content = page.LoginContent{To: ownPath(r.URL.Query().Get("to"))}
	return c.writePage(w, r, http.StatusOK, v)
}

// ownPath returns a path of this gateway, whatever was asked for: a link to
// /login must not lead to another host.
func ownPath(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.ContainsAny(to, "\\\r\n\t") {
		return "/"
	}
	return u.EscapedPath()
}

// zones serves GET /api/v1/zones: the areas and lines that rules know, as
// GeoJSON.
func (c *Console) zones(w http.ResponseWriter, _ *http.Request) error {
	known, err := c.known()
	if err != nil {
		return err
	}
	body := known.Zones
	if len(body) == 0 || string(body) == "null" {
		body = []byte(`{"type":"FeatureCollection","features":[]}`)
	}
	writeBody(w, http.StatusOK, "application/geo+json", body)
	return nil
}
