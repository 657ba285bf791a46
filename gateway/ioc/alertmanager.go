package ioc

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

const (
	// DefaultResend is how often Alertmanager is told that a warning lasts.
	DefaultResend = time.Minute

	// alertLasts is after how many resends Alertmanager takes an alert for
	// resolved when it hears nothing: as Prometheus has it, four.
	alertLasts = 4
	// maxAlerts is how many alerts one request carries.
	maxAlerts = 256

	minResend = 10 * time.Second
	maxResend = 10 * time.Minute
)

// AlertmanagerConfig is an Alertmanager of Prometheus, which groups, routes and
// silences (API v2). Several that form a cluster are a recipient each.
//
// An alert has the labels alertname (the rule), device, site, kind, severity and
// those of Labels, and exercise="true" in a drill. It is resolved when the
// warning is over or shelved. While it lasts it is sent again each Resend;
// otherwise Alertmanager would take it for resolved.
type AlertmanagerConfig struct {
	URL     string             `yaml:"url"`     // of its API, as in http://127.0.0.1:9093; /api/v2/alerts is added
	Timeout telemetry.Duration `yaml:"timeout"` // of one attempt, 1s to 1m; default DefaultTimeout
	Access  `yaml:",inline"`
	Resend  telemetry.Duration `yaml:"resend"` // 10s to 10m; default DefaultResend
	Labels  map[string]string  `yaml:"labels"` // added to each alert
}

// Validate reports what is wrong.
func (c AlertmanagerConfig) Validate() []telemetry.Fault {
	faults := validHTTP(c.URL, c.Access, c.Timeout)
	if u, err := url.Parse(c.URL); err == nil && u.RawQuery != "" {
		faults = append(faults, telemetry.Faultf("url", "url has a query, which the API does not know"))
	}
	if r := c.Resend.Std(); r != 0 && (r < minResend || r > maxResend) {
		faults = append(faults, telemetry.Faultf("resend", "%s is not in %s..%s", c.Resend, telemetry.Duration(minResend), telemetry.Duration(maxResend)))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Labels)) {
		if !validLabel(name) || slices.Contains(ownLabels(), name) {
			faults = append(faults, telemetry.Faultf("labels", "%q is not a label's name of letters, digits and _, or is one of ours: %s", name, strings.Join(ownLabels(), ", ")))
		}
	}
	return faults
}

func ownLabels() []string {
	return []string{"alertname", "device", "site", "kind", "severity", "exercise"}
}

func validLabel(name string) bool {
	for i, c := range name {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// Alertmanager posts warnings to an Alertmanager. It is safe for concurrent use.
type Alertmanager struct {
	*endpoint
	resend time.Duration
	labels map[string]string

	mu   sync.Mutex      // held over a request: what is older never comes after what is newer
	told map[string]told // of each warning, what Alertmanager was told last
}

type told struct {
	n        int
	severity telemetry.Severity
	firing   bool
}

// NewAlertmanager makes a recipient of a valid configuration.
func NewAlertmanager(c AlertmanagerConfig, version string) *Alertmanager {
	a := &Alertmanager{resend: c.Resend.Std(), labels: c.Labels, told: map[string]told{}}
	if a.resend == 0 {
		a.resend = DefaultResend
	}
	a.endpoint = newEndpoint(strings.TrimSuffix(c.URL, "/")+"/api/v2/alerts", c.Access, c.Timeout.Std(), version)
	return a
}

// An alert is a postableAlert of Alertmanager's API v2.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

func fires(w *telemetry.Warning) bool {
	return (w.State == telemetry.Active || w.State == telemetry.Acknowledged) && !w.FalseAlarm
}

// alert writes a warning; one that fires ends some time after now, unless it is
// sent again.
func (a *Alertmanager) alert(w *telemetry.Warning, now time.Time) alert {
	x := alert{
		Labels:      map[string]string{"alertname": w.Rule, "device": w.Device, "site": w.Site, "kind": w.Kind, "severity": w.Severity.String()},
		Annotations: map[string]string{},
		StartsAt:    w.Start, EndsAt: now.Add(alertLasts * a.resend),
	}
	maps.Copy(x.Labels, a.labels)
	for name, v := range w.Values {
		x.Annotations[annotation(name)] = number(v, true)
	}
	maps.Copy(x.Annotations, map[string]string{"summary": w.Message.VI, "summary_en": w.Message.EN, "id": w.ID, "n": fmt.Sprint(w.N),
		"acked_by": w.AckedBy})
	if w.Exercise {
		x.Labels["exercise"] = "true"
		x.Annotations["summary"], x.Annotations["summary_en"] = "DIỄN TẬP: "+w.Message.VI, "EXERCISE: "+w.Message.EN
	}
	// Prometheus leaves out empty ones, and Alertmanager's API wants that.
	maps.DeleteFunc(x.Labels, func(_, v string) bool { return v == "" })
	maps.DeleteFunc(x.Annotations, func(_, v string) bool { return v == "" })
	if !fires(w) {
		x.EndsAt = later(w.At, w.Start)
	}
	return x
}

// annotation is the name of a value as every Alertmanager takes it: one with other
// letters than a label's may have would cost the whole alert.
func annotation(name string) string {
	if name != "" && name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return strings.Map(func(c rune) rune {
		if c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return '_'
	}, name)
}

// later returns the time, or just after start where that is later: Alertmanager
// refuses an end before the start.
func later(at, start time.Time) time.Time {
	if !at.After(start) {
		return start.Add(time.Millisecond)
	}
	return at
}

// Deliver makes one attempt to tell a transition.
func (a *Alertmanager) Deliver(ctx context.Context, w telemetry.Warning) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	alerts := []alert{a.alert(&w, now)}
	before := a.told[w.ID]
	if before.firing && before.severity != w.Severity {
		// The severity is a label, and with other labels it is another alert.
		gone := w
		gone.Severity, gone.State = before.severity, telemetry.Cleared
		alerts = append(alerts, a.alert(&gone, now))
	}
	if err := a.postAlerts(ctx, alerts); err != nil {
		return err
	}
	a.told[w.ID] = told{n: w.N, severity: w.Severity, firing: fires(&w)}
	return nil
}

// Every is how often those that last are told again.
func (a *Alertmanager) Every() time.Duration { return a.resend }

// Keep tells Alertmanager again which warnings fire.
func (a *Alertmanager) Keep(ctx context.Context, lasting func() []telemetry.Warning) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	var alerts []alert
	last := map[string]bool{}
	for _, w := range lasting() {
		last[w.ID] = true
		// What was told already can be newer than what is known to last.
		if before, ok := a.told[w.ID]; fires(&w) && (!ok || before.n <= w.N) {
			alerts = append(alerts, a.alert(&w, now))
		}
	}
	for id, t := range a.told {
		if !last[id] && !t.firing {
			delete(a.told, id)
		}
	}
	for at := 0; at < len(alerts); at += maxAlerts {
		if err := a.postAlerts(ctx, alerts[at:min(at+maxAlerts, len(alerts))]); err != nil {
			return err
		}
	}
	return nil
}

func (a *Alertmanager) postAlerts(ctx context.Context, alerts []alert) error {
	body, err := json.Marshal(alerts)
	if err != nil {
		return &Failure{Reason: reasonEncode, OneWarning: true, Final: true, Detail: fmt.Sprintf("write alerts as JSON: %v", err)}
	}
	header := http.Header{}
	header.Set("Content-Type", "application/json")
	return a.post(ctx, header, body)
}
