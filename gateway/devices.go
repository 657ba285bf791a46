package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"haidang/gateway/intake"
	"haidang/gateway/registry"
	"haidang/gateway/telemetry"
)

// A deviceState is a device as /api/v1/devices shows it.
type deviceState struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Site       string         `json:"site"`
	Owner      string         `json:"owner,omitempty"`
	Registered bool           `json:"registered"`
	Kinds      []string       `json:"kinds"`
	Interval   string         `json:"interval,omitempty"`
	Lat        *float64       `json:"lat,omitempty"`
	Lon        *float64       `json:"lon,omitempty"`
	Facts      map[string]any `json:"facts,omitempty"`
	Changed    map[string]any `json:"changed,omitempty"` // at run time, on top of the files

	// State is measuring, maintenance, calibrating, error (its newest reading is
	// bad), or unheard since the start of the gateway.
	State        string                 `json:"state"`
	Period       *periodState           `json:"period,omitempty"`
	ValuePeriods map[string]periodState `json:"value_periods,omitempty"`

	// Problems are what an operator should look at, the gravest first.
	Problems     []string         `json:"problems"`
	ProblemTexts []telemetry.Text `json:"problem_texts,omitempty"` // the same in both languages
	rank         int              // of the gravest

	// Links are the ways by which it is configured to come; Cause is why its link is
	// down, as far as is known.
	Links []deviceLink `json:"links,omitempty"`
	Cause string       `json:"cause,omitempty"`

	// Since the start of the gateway.
	Heard    *time.Time `json:"heard,omitempty"` // of receipt; of a registered device before the start too
	Source   string     `json:"source,omitempty"`
	Quality  string     `json:"quality,omitempty"`
	Readings uint64     `json:"readings"`
	Up       *bool      `json:"up,omitempty"` // its link

	// FirstContact is when a device that is not registered was first heard, in this run
	// or an earlier one, Held how many of its readings were not taken since the start.
	FirstContact *time.Time `json:"first_contact,omitempty"`
	Held         uint64     `json:"held,omitempty"`

	// Refused says who keeps it out, where it is not registered.
	Refused *registry.Refusal `json:"refused,omitempty"`

	// Errors count what was set aside in the last 24 hours, by reason; LastError
	// is the newest.
	Errors    map[string]int `json:"errors,omitempty"`
	LastError *lastError     `json:"last_error,omitempty"`

	// Latest are the newest values by kind.
	Latest map[string]latestState `json:"latest,omitempty"`
}

// A periodState is a period of maintenance or calibration that is in force.
type periodState struct {
	State string     `json:"state"`
	Since time.Time  `json:"since"`
	Until *time.Time `json:"until,omitempty"`
	By    string     `json:"by"`
	Why   string     `json:"why"`
}

// A latestState is the newest reading of a kind; values that are not good are
// named in quality, and those of them that failed a test in failed.
type latestState struct {
	Time    time.Time         `json:"time"`
	Values  map[string]any    `json:"values"`
	Quality map[string]string `json:"quality,omitempty"`
	Failed  map[string]string `json:"failed,omitempty"`

	// Unknown are the values that the catalogue does not have; UnknownKind says
	// that it does not have the kind.
	Unknown     []string `json:"unknown,omitempty"`
	UnknownKind bool     `json:"unknown_kind,omitempty"`
}

// devices returns the registered devices and those that were heard, what is
// wrong first; those of a site or an owner where they are given.
func (g *instance) devices(site, owner string) []deviceState {
	heard := g.intake.Heard()
	known := g.intake.Known()
	out := make([]deviceState, 0, len(heard))
	for i := range known.Devices.Devices() {
		out = append(out, registeredState(&known.Devices.Devices()[i]))
	}
	strangers := maps.Clone(heard)
	for _, id := range g.letters.erring(time.Now()) { // what only sends what cannot be used
		strangers[id] = heard[id]
	}
	for _, c := range g.intake.Contacts() {
		strangers[c.Device] = heard[c.Device]
	}
	refused := g.registry.Refused()
	for id := range refused {
		strangers[id] = heard[id]
	}
	for id := range strangers {
		if known.Devices.Device(id) == nil {
			out = append(out, deviceState{ID: id, Name: id, Site: id})
		}
	}
	out = slices.DeleteFunc(out, func(d deviceState) bool {
		return site != "" && d.Site != site || owner != "" && d.Owner != owner
	})
	periods, now := g.registry.Periods(), time.Now().UTC()
	for i := range out {
		h, ok := heard[out[i].ID]
		g.fill(&out[i], h, ok, periods[out[i].ID], now)
		if r, isOut := refused[out[i].ID]; isOut && !out[i].Registered {
			out[i].Refused = &r
		}
	}
	slices.SortFunc(out, func(a, b deviceState) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), strings.Compare(a.ID, b.ID))
	})
	return out
}

// device returns one device.
func (g *instance) device(id string) (any, bool) {
	known := g.intake.Known()
	d := deviceState{ID: id, Name: id, Site: id}
	registered := known.Devices.Device(id)
	if registered != nil {
		d = registeredState(registered)
	}
	h, heard := g.intake.HeardOf(id)
	_, stranger := g.intake.ContactOf(id)
	refusal, refused := g.registry.Refused()[id]
	if registered == nil && !heard && !stranger && !refused && !slices.Contains(g.letters.erring(time.Now()), id) {
		return nil, false
	}
	g.fill(&d, h, heard, g.registry.Periods()[id], time.Now().UTC())
	if refused && registered == nil {
		d.Refused = &refusal
	}
	d.Links = g.linksOf(id)
	return d, true
}

func registeredState(d *telemetry.Device) deviceState {
	state := deviceState{ID: d.ID, Name: d.Name, Site: d.Site, Owner: d.Owner, Registered: true, Kinds: d.Kinds, Lat: d.Lat, Lon: d.Lon, Facts: d.Facts}
	if d.Interval > 0 {
		state.Interval = d.Interval.String()
	}
	return state
}

// fill adds what the gateway has seen of the device.
func (g *instance) fill(d *deviceState, h intake.Heard, heard bool, periods []telemetry.Period, now time.Time) {
	d.Changed = g.registry.Changed(d.ID)
	d.Errors, d.LastError = g.letters.errorsOf(d.ID, now)
	d.addPeriods(periods, now)
	if c, ok := g.intake.ContactOf(d.ID); ok {
		d.FirstContact, d.Held = &c.First, c.Held
	}
	if heard {
		d.Up, d.Cause = h.Up, h.Cause
		d.addLatest(h, g.intake.Known().Kinds)
		if h.Count > 0 {
			at := h.At
			d.Heard, d.Source, d.Quality, d.Readings = &at, h.Source, h.Quality.String(), h.Count
		}
	}
	if d.Heard == nil && g.heard != nil {
		d.Heard = g.heard.of(d.ID)
	}
	d.State = "measuring"
	switch {
	case d.Period != nil:
		d.State = d.Period.State
	case d.Readings == 0:
		d.State = "unheard"
	case h.Quality == telemetry.Bad:
		d.State = "error"
	}
	d.judge(h, now, now.Sub(g.since))
}

func (d *deviceState) addPeriods(periods []telemetry.Period, now time.Time) {
	for _, p := range periods {
		if !p.Covers(now) {
			continue
		}
		state := periodState{p.State.String(), p.Since, p.Until, p.By, p.Why}
		if p.Value == "" {
			d.Period = &state
			continue
		}
		if d.ValuePeriods == nil {
			d.ValuePeriods = map[string]periodState{}
		}
		d.ValuePeriods[p.Value] = state
	}
}

func (d *deviceState) addLatest(h intake.Heard, kinds *telemetry.Catalogue) {
	for _, l := range h.Latest {
		if !slices.Contains(d.Kinds, l.Kind) {
			d.Kinds = append(slices.Clone(d.Kinds), l.Kind)
		}
		if d.Latest == nil {
			d.Latest = map[string]latestState{}
		}
		d.Latest[l.Kind] = latestOf(l, h.Failed, kinds.Kind(l.Kind))
	}
}

func latestOf(l intake.Latest, failed map[string]intake.Failed, kind *telemetry.Kind) latestState {
	state := latestState{Time: l.Time, Values: map[string]any{}, UnknownKind: kind == nil}
	for _, v := range l.Values {
		if kind != nil && kind.Quantity(v.Name) == nil {
			state.Unknown = append(state.Unknown, v.Name)
		}
		if v.Text != "" {
			state.Values[v.Name] = v.Text
		} else {
			state.Values[v.Name] = v.Number
		}
		if v.Quality == telemetry.Good {
			continue
		}
		if state.Quality == nil {
			state.Quality, state.Failed = map[string]string{}, map[string]string{}
		}
		state.Quality[v.Name] = v.Quality.String()
		if f, ok := failed[l.Kind+"."+v.Name]; ok && f.Quality == v.Quality {
			state.Failed[v.Name] = f.Test
		}
	}
	return state
}

// ago writes a length of time in its largest unit.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
