package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/spf13/pflag"

	"haidang/broker"
	"haidang/gateway/telemetry"
	"haidang/gateway/uplink"
)

// A health is how the gateway itself is: GET /api/v1/health. The figures are
// those of /metrics.
type health struct {
	Gateway string    `json:"gateway"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Ready   bool      `json:"ready"`
	// NotReady says why not, by what is not ready.
	NotReady map[string]string `json:"not_ready,omitempty"`
	// Degraded says what does not work while all is kept for it: an InfluxDB
	// elsewhere that is away.
	Degraded map[string]string `json:"degraded,omitempty"`

	Readings   float64           `json:"readings"` // accepted since the start
	Sources    []sourceHealth    `json:"sources"`
	Followers  []followerHealth  `json:"followers"`
	Recipients []recipientHealth `json:"recipients"`
	// Roles are those of a machine of a centre, Parts what of the log they are about.
	Roles []string     `json:"roles,omitempty"`
	Parts []partHealth `json:"parts,omitempty"`
	// Centre is which other machine has the part ioc, as far as is known.
	Centre string `json:"centre,omitempty"`
	// Subscribers are the accounts whose MQTT clients are owed messages or have lost
	// some, those that have lost most first; at most a hundred.
	Subscribers []broker.Backlog `json:"subscribers,omitempty"`
	// Uplink is how pushing to a centre goes, Gateways those that push here.
	Uplink   *uplinkHealth  `json:"uplink,omitempty"`
	Gateways []uplink.Guest `json:"gateways,omitempty"`
	// SetAside counts dead letters since the start, by reason.
	SetAside map[string]float64 `json:"set_aside,omitempty"`

	MemoryBytes   float64 `json:"memory_bytes"`
	DiskFreeBytes float64 `json:"disk_free_bytes,omitempty"` // of the embedded store's disk
}

// A sourceHealth is one source: false while it waits to be started again.
type sourceHealth struct {
	Name     string  `json:"name"`
	Running  bool    `json:"running"`
	Restarts float64 `json:"restarts"`
	// Link is whether it hears the other end, Cause why not; both as far as is known.
	Link  *bool  `json:"link,omitempty"`
	Cause string `json:"cause,omitempty"`
}

// A followerHealth is how far a follower is behind its log.
type followerHealth struct {
	Log        string  `json:"log"`
	Name       string  `json:"name"`
	LagFrames  float64 `json:"lag_frames"`
	LagSeconds float64 `json:"lag_seconds"`
	Retries    float64 `json:"retries"`
	Dropped    float64 `json:"dropped"` // frames that were gone before it had read them
}

// A recipientHealth is what became of the warnings for one recipient.
type recipientHealth struct {
	Name        string     `json:"name"`
	Delivered   float64    `json:"delivered"`
	Failed      float64    `json:"failed"` // attempts
	LastSuccess *time.Time `json:"last_success,omitempty"`
	WaitingFor  float64    `json:"waiting_s"`    // age of the oldest that it has not accepted
	By          string     `json:"by,omitempty"` // which other machine tells it, and counts
}

// health gathers the figures.
func (g *instance) health(ctx context.Context) (health, error) {
	h := health{Gateway: g.cfg.Gateway, Version: version, Started: g.since, Ready: true}
	h.NotReady, h.Degraded = failing(ctx, g.readiness()), failing(ctx, g.partners())
	h.Ready = len(h.NotReady) == 0
	families, err := g.reg.Gather()
	if err != nil {
		return h, fmt.Errorf("gather the metrics: %w", err)
	}
	h.fill(families)
	if g.machine != nil {
		h.Roles, h.Parts = g.cfg.Roles, g.machine.partHealths()
		h.tellElsewhere(g.machine.told())
	}
	if g.broker != nil {
		h.Subscribers = g.broker.Backlogs()
		h.Subscribers = h.Subscribers[:min(len(h.Subscribers), maxSubscribers)]
	}
	h.Uplink, h.Gateways = g.uplinkHealths()
	for i := range h.Sources {
		_, link, _ := strings.Cut(h.Sources[i].Name, ".")
		if heard, ok := g.intake.HeardOf(link); ok && link != "" {
			h.Sources[i].Link, h.Sources[i].Cause = heard.Up, heard.Cause
		}
	}
	return h, nil
}

// maxSubscribers is how many of them are told.
const maxSubscribers = 100

// failing returns why checks fail, by name; nil when none does.
func failing(ctx context.Context, checks map[string]func(context.Context) error) (why map[string]string) {
	for name, check := range checks {
		if err := check(ctx); err != nil {
			if why == nil {
				why = map[string]string{}
			}
			why[name] = err.Error()
		}
	}
	return why
}

// fill takes the figures out of gathered metrics.
func (h *health) fill(families []*dto.MetricFamily) {
	f := figures{}
	for _, family := range families {
		f[family.GetName()] = family.GetMetric()
	}
	h.Readings = f.sum("haidang_readings_accepted_total")
	h.MemoryBytes = f.sum("process_resident_memory_bytes")
	h.DiskFreeBytes = f.sum("haidang_influx_disk_free_bytes")
	for _, m := range f["haidang_set_aside_total"] {
		if n := number(m); n > 0 {
			if h.SetAside == nil {
				h.SetAside = map[string]float64{}
			}
			h.SetAside[label(m, "reason")] += n
		}
	}
	h.Sources, h.Followers, h.Recipients = []sourceHealth{}, []followerHealth{}, []recipientHealth{}
	for _, m := range f["haidang_source_running"] {
		name := label(m, "source")
		h.Sources = append(h.Sources, sourceHealth{Name: name, Running: number(m) > 0, Restarts: f.sum("haidang_source_restarts_total", "source", name)})
	}
	for _, m := range f["haidang_spool_follower_lag_frames"] {
		of := []string{"log", label(m, "log"), "follower", label(m, "follower")}
		if of[3] == followGuests {
			continue // it moves every ten seconds: how far pushes are is told by Gateways
		}
		h.Followers = append(h.Followers, followerHealth{
			Log: of[1], Name: of[3], LagFrames: number(m),
			LagSeconds: f.sum("haidang_spool_follower_lag_seconds", of...),
			Retries:    f.sum("haidang_spool_follower_retries_total", of...),
			Dropped:    f.sum("haidang_spool_follower_dropped_total", of...),
		})
	}
	for _, m := range f["haidang_ioc_delivered_total"] {
		name := label(m, "recipient")
		r := recipientHealth{
			Name: name, Delivered: number(m),
			Failed:     f.sum("haidang_ioc_failed_total", "recipient", name),
			WaitingFor: f.most("haidang_ioc_oldest_undelivered_seconds", "recipient", name),
		}
		if at := f.most("haidang_ioc_last_success_timestamp_seconds", "recipient", name); at > 0 {
			last := time.UnixMilli(int64(at * 1000)).UTC()
			r.LastSuccess = &last
		}
		h.Recipients = append(h.Recipients, r)
	}
}

// figures are gathered metrics by name.
type figures map[string][]*dto.Metric

// sum adds up the metrics of this name whose labels are the given names and
// values.
func (f figures) sum(name string, labels ...string) (sum float64) {
	for _, m := range f[name] {
		if has(m, labels) {
			sum += number(m)
		}
	}
	return sum
}

// most is the largest of what sum would add up, at least 0.
func (f figures) most(name string, labels ...string) (most float64) {
	for _, m := range f[name] {
		if has(m, labels) {
			most = max(most, number(m))
		}
	}
	return most
}

func has(m *dto.Metric, labels []string) bool {
	for pair := range slices.Chunk(labels, 2) {
		if label(m, pair[0]) != pair[1] {
			return false
		}
	}
	return true
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func number(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return m.GetUntyped().GetValue()
}

func healthVerb() verb {
	var running runningGateway
	var asJSON bool
	return verb{
		name: "health", args: "[--data DIR | --config FILE] [--json]",
		short:   "how a running gateway is: exit code 0 when it is ready, else 1",
		example: "haidang health --data /var/lib/haidang",
		flags: func(f *pflag.FlagSet) {
			running.flags(f)
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("health takes no arguments, not %q", args)
			}
			var h health
			if err := running.ask(ctx, "GET", "/api/v1/health", nil, nil, &h); err != nil {
				return err
			}
			if asJSON {
				if err := jsonLine(env.stdout, h); err != nil {
					return err
				}
			} else {
				h.print(env.stdout, time.Now())
			}
			if !h.Ready {
				return fmt.Errorf("the gateway %s is not ready", h.Gateway)
			}
			return nil
		},
	}
}

// print writes the health as a person reads it.
func (h *health) print(to io.Writer, now time.Time) {
	state := "ready"
	if len(h.Degraded) > 0 {
		state = "ready, degraded"
	}
	if !h.Ready {
		state = "NOT READY"
	}
	fmt.Fprintf(to, "%s  %s  version %s, up %s, %.0f readings, %s of memory\n", h.Gateway, state, h.Version,
		telemetry.Duration(now.Sub(h.Started).Round(time.Second)), h.Readings, inMiB(h.MemoryBytes))
	for _, name := range sortedNames(h.NotReady) {
		fmt.Fprintf(to, "  %s: %s\n", name, h.NotReady[name])
	}
	for _, name := range sortedNames(h.Degraded) {
		fmt.Fprintf(to, "  %s: %s; all is kept for it\n", name, h.Degraded[name])
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	defer w.Flush()
	if len(h.Roles) > 0 {
		fmt.Fprintf(w, "roles\t%s\t\t\n", strings.Join(h.Roles, ", "))
	}
	for i := range h.Parts {
		fmt.Fprintf(w, "part\t%s\t%s\t\n", h.Parts[i].Part, h.Parts[i].text())
	}
	for _, s := range h.Sources {
		word := "runs"
		if !s.Running {
			word = "DOWN, tried again"
		}
		fmt.Fprintf(w, "source\t%s\t%s\t%.0f restarts\n", s.Name, word, s.Restarts)
	}
	for _, f := range h.Followers {
		word := "up to date"
		if f.LagFrames > 0 {
			word = fmt.Sprintf("%.0f frames, %s behind", f.LagFrames, telemetry.Duration(time.Duration(f.LagSeconds*float64(time.Second)).Round(time.Second)))
		}
		if f.Dropped > 0 {
			word += fmt.Sprintf(", LOST %.0f frames", f.Dropped)
		}
		fmt.Fprintf(w, "follower\t%s of %s\t%s\t%.0f retries\n", f.Name, f.Log, word, f.Retries)
	}
	for _, r := range h.Recipients {
		word := fmt.Sprintf("%.0f delivered", r.Delivered)
		if r.By != "" {
			word = "told by " + plain(r.By)
		}
		if r.WaitingFor > 0 {
			word += fmt.Sprintf(", WAITS for %s", telemetry.Duration(time.Duration(r.WaitingFor*float64(time.Second)).Round(time.Second)))
		}
		fmt.Fprintf(w, "recipient\t%s\t%s\t%.0f failed attempts\n", r.Name, word, r.Failed)
	}
	for _, line := range h.uplinkLines(now) {
		fmt.Fprintln(w, line)
	}
	for _, s := range h.Subscribers {
		fmt.Fprintf(w, "subscriber\t%s\t%s\t\n", s.Account, backlogText(s))
	}
	for _, reason := range sortedNames(h.SetAside) {
		fmt.Fprintf(w, "set aside\t%s\t%.0f\t\n", reason, h.SetAside[reason])
	}
}

// backlogText says what the subscribers of an account are owed and have lost.
func backlogText(s broker.Backlog) string {
	text := fmt.Sprintf("messages that wait: %d", s.Messages)
	if s.Away > 0 {
		text += fmt.Sprintf(", clients away: %d", s.Away)
	}
	if s.Dropped > 0 {
		text += fmt.Sprintf(", DROPPED: %d", s.Dropped)
	}
	return text
}

func inMiB(bytes float64) string { return fmt.Sprintf("%.0f MiB", bytes/(1<<20)) }
