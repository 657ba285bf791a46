package main

import (
	"context"
	"errors"
	"slices"
	"sort"
	"time"

	"haidang/gateway/console"
	"haidang/gateway/intake"
	"haidang/gateway/telemetry"
)

// consoleSources is what the console shows of this gateway.
func (g *instance) consoleSources() console.Sources {
	return console.Sources{
		Warnings: g.centre.Warnings,
		Warning:  g.centre.Warning,
		History:  newHistorian(g.spool.Warnings()).of,
		Act:      g.centre.Act,
		Reload:   g.reload,
		Devices:  func() any { return g.devices() },
		Rules:    func() any { return g.evaluator.engine.Rules() },
		Ready: map[string]func(context.Context) error{
			"log":     func(context.Context) error { return g.spool.Health() },
			"store":   g.store.Ready,
			"gateway": g.started,
		},
		DeadLetters: g.deadLetters,
		Gateway:     g.cfg.Gateway, Version: version,
	}
}

// started is the readiness of everything that has no check of its own.
func (g *instance) started(context.Context) error {
	select {
	case <-g.ready:
		return nil
	default:
		return errStarting
	}
}

// errStarting is the answer while the gateway starts.
var errStarting = errors.New("the gateway is starting")

// deadLetters returns the newest of what was set aside.
func (g *instance) deadLetters(ctx context.Context, limit int) ([]telemetry.DeadLetter, error) {
	return g.spool.DeadLetters().Newest(ctx, limit)
}

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

	// Since the start of the gateway.
	Heard    *time.Time `json:"heard,omitempty"` // of receipt
	Source   string     `json:"source,omitempty"`
	Quality  string     `json:"quality,omitempty"`
	Readings uint64     `json:"readings"`
	Up       *bool      `json:"up,omitempty"` // its link

	// Latest are the newest values by kind.
	Latest map[string]latestState `json:"latest,omitempty"`
}

// A latestState is the newest reading of a kind; values that are not good are
// named in quality.
type latestState struct {
	Time    time.Time         `json:"time"`
	Values  map[string]any    `json:"values"`
	Quality map[string]string `json:"quality,omitempty"`

	// Unknown are the values that the catalogue does not have; UnknownKind says
	// that it does not have the kind.
	Unknown     []string `json:"unknown,omitempty"`
	UnknownKind bool     `json:"unknown_kind,omitempty"`
}

// devices returns the registered devices and those that were heard.
func (g *instance) devices() []deviceState {
	heard := g.intake.Heard()
	registry := g.intake.Known().Devices
	out := make([]deviceState, 0, len(heard))
	for _, d := range registry.Devices() {
		state := deviceState{ID: d.ID, Name: d.Name, Site: d.Site, Owner: d.Owner, Registered: true, Kinds: d.Kinds, Lat: d.Lat, Lon: d.Lon, Facts: d.Facts}
		if d.Interval > 0 {
			state.Interval = d.Interval.String()
		}
		out = append(out, state)
	}
	for id := range heard {
		if registry.Device(id) == nil {
			out = append(out, deviceState{ID: id, Name: id, Site: id})
		}
	}
	for i := range out {
		h, ok := heard[out[i].ID]
		if !ok {
			continue
		}
		out[i].Up = h.Up
		out[i].addLatest(h.Latest, g.intake.Known().Kinds)
		if h.Count > 0 {
			out[i].Heard, out[i].Source, out[i].Quality, out[i].Readings = &h.At, h.Source, h.Quality.String(), h.Count
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

func (d *deviceState) addLatest(list []intake.Latest, kinds *telemetry.Catalogue) {
	for _, l := range list {
		if !slices.Contains(d.Kinds, l.Kind) {
			d.Kinds = append(slices.Clone(d.Kinds), l.Kind)
		}
		kind := kinds.Kind(l.Kind)
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
			if v.Quality != telemetry.Good {
				if state.Quality == nil {
					state.Quality = map[string]string{}
				}
				state.Quality[v.Name] = v.Quality.String()
			}
		}
		if d.Latest == nil {
			d.Latest = map[string]latestState{}
		}
		d.Latest[l.Kind] = state
	}
}
