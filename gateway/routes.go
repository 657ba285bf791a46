package main

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/paulmach/orb"
	"github.com/paulmach/orb/planar"

	"haidang/gateway/ioc"
	"haidang/gateway/route"
	"haidang/gateway/telemetry"
)

// routable are the names that routes may use.
func (c *Configuration) routable(w *world) route.Known {
	known := route.Known{Recipients: c.recipientNames(), Zones: []string{}, Rules: []string{}, Kinds: []string{}}
	for i := range w.document.Kinds {
		known.Kinds = append(known.Kinds, w.document.Kinds[i].Name)
	}
	for i := range w.document.Rules {
		known.Rules = append(known.Rules, w.document.Rules[i].Name)
	}
	p := &places{}
	p.setZones(w.document.Zones)
	known.Zones = append(known.Zones, sortedNames(*p.zones.Load())...)
	return known
}

func (c *Configuration) recipientNames() []string {
	names := []string{}
	for i := range c.IOC {
		names = append(names, c.IOC[i].Name)
	}
	return names
}

// setRoutes puts routes in force. In a replay nobody is chased: the log time of a
// recording has nothing to do with whoever could acknowledge.
func (g *instance) setRoutes(list []route.Config, recipients []string, live bool) {
	table := route.New(list, g.out.places, recipients)
	g.routes.Store(table)
	switch {
	case len(list) == 0:
		g.centre.setRoutes(nil, nil)
	case !live || !table.Interested():
		g.centre.setRoutes(table.To, nil)
	default:
		g.centre.setRoutes(table.To, func(t *telemetry.Transition, now time.Time) []telling { return g.chased(table, t, now) })
	}
}

// chased is what a table has for a warning that nobody has acknowledged.
func (g *instance) chased(table *route.Table, t *telemetry.Transition, now time.Time) []telling {
	var out []telling
	for _, d := range table.Due(t, now, func(recipient string) bool {
		x := g.out.post.called(recipient)
		return x != nil && x.recipient.Wants(t.Warning) && g.proof.Accepted(t.ID, recipient) < t.Chase.N
	}) {
		out = append(out, telling{do: d.Do, done: d.Done, text: d.Text, to: d.To})
	}
	return out
}

// noteDelivery puts an attempt to tell a recipient on record.
func (g *instance) noteDelivery(w *telemetry.Warning, t ioc.Told) {
	g.proof.Note(telemetry.Attempt{
		ID: w.ID, N: w.N, Recipient: t.Recipient, Via: t.Via, At: t.At, Seconds: t.Took.Seconds(),
		Accepted: t.Accepted, Digest: t.Digest, Answer: t.Answer,
	})
}

// Inside reports whether a place lies in a zone.
func (p *places) Inside(zone string, lat, lon float64) bool {
	for _, outer := range p.Zone(zone) {
		ring := make(orb.Ring, len(outer))
		for i, at := range outer {
			ring[i] = at
		}
		if planar.RingContains(ring, orb.Point{lon, lat}) {
			return true
		}
	}
	return false
}

// A routing says who is told of a warning, and why.
type routing struct {
	Warning telemetry.Warning `json:"warning"`
	route.Explanation
	Told  []string         `json:"told,omitempty"` // of a warning that was raised: those whom its newest transition names
	Chase *telemetry.Chase `json:"chase,omitempty"`
	All   []string         `json:"recipients"` // those that there are
}

// explainRoute says who is told of the warning with this id, or of one that
// might be raised.
func (g *instance) explainRoute(id string, query url.Values) (any, error) {
	answer := routing{All: g.out.post.names()}
	if id != "" {
		t, ok := g.centre.Transition(id)
		if !ok {
			return nil, fmt.Errorf("warning %q: %w", id, telemetry.ErrUnknown)
		}
		answer.Warning, answer.Told, answer.Chase = t.Warning, t.To, t.Chase
		at := t.Start
		if t.Chase != nil {
			at = t.Chase.Since
		}
		answer.Explanation = g.routes.Load().Explain(t.Warning, g.namedBy(t.Rule), at)
		return answer, nil
	}
	w, at, err := g.imagined(query)
	if err != nil {
		return nil, err
	}
	answer.Warning = w
	answer.Explanation = g.routes.Load().Explain(w, g.namedBy(w.Rule), at)
	return answer, nil
}

// imagined is the warning that a query describes.
func (g *instance) imagined(query url.Values) (w telemetry.Warning, at time.Time, err error) {
	at = g.now()
	if text := query.Get("at"); text != "" {
		if at, err = moment(text); err != nil {
			return w, at, fmt.Errorf("at: %w", err)
		}
	}
	w = telemetry.Warning{Device: query.Get("device"), Rule: query.Get("rule"), Kind: query.Get("kind"), State: telemetry.Active,
		Severity: telemetry.Severe, Start: at, At: at, Exercise: query.Get("exercise") == "true"}
	if w.Device == "" {
		return w, at, errors.New("device: the device is missing")
	}
	w.Site = w.Device
	device := g.intake.Known().Devices.Device(w.Device)
	if device != nil && device.Site != "" {
		w.Site = device.Site
	}
	if text := query.Get("severity"); text != "" {
		if err := w.Severity.UnmarshalText([]byte(text)); err != nil {
			return w, at, fmt.Errorf("severity: %w", err)
		}
	}
	if w.Rule == "" {
		if w.Kind == "" && device != nil && len(device.Kinds) == 1 {
			w.Kind = device.Kinds[0]
		}
		return w, at, nil
	}
	r := g.ruleCalled(w.Rule)
	if r == nil {
		return w, at, fmt.Errorf("rule: there is no rule %q", w.Rule)
	}
	w.Kind = r.On
	return w, at, nil
}

// namedBy returns the recipients that a rule names.
func (g *instance) namedBy(rule string) []string {
	if r := g.ruleCalled(rule); r != nil {
		return r.To
	}
	return nil
}

// moment reads a time: RFC 3339, or a date and time of Asia/Ho_Chi_Minh.
func moment(text string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC(), nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, vietnam); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q is not like 2025-10-27T15:04:05+07:00, 2025-10-27 15:04 or 2025-10-27", text)
}
