package main

import (
	"context"
	"errors"
	"maps"
	"net/http"

	"haidang/gateway/console"
)

// consoleSources is what the console shows of this gateway.
func (g *instance) consoleSources() console.Sources {
	return console.Sources{
		Warnings: g.centre.Warnings,
		Warning:  g.centre.Warning,
		History:  newHistorian(&g.annals).of,
		Act:      g.centre.Act,
		Reload:   g.reload,
		Devices:  func(site, owner string) any { return g.devices(site, owner) },
		Device:   g.device,
		Rules:    g.ruleCounts,
		RulesDocument: func() any {
			if document, ok := g.evaluator.engine.Document(); ok {
				return document
			}
			return nil
		},
		Recipients: g.out.post.healths, CAP: g.out.feed, CAPPublic: g.cfg.CAP.Feed.Public,
		Ready:       g.readiness(),
		Health:      func(ctx context.Context) (any, error) { return g.health(ctx) },
		DeadLetters: g.letters.list,
		DeadLetter:  g.letters.show,
		ActOnLetter: g.actOnLetterAudited,
		Modbus:      g.modbusByHand,
		Lifecycle:   g.lifecycle(),
		Uplink:      g.uplinkHandler(),
		RuleBook:    g.ruleBook(),

		DeviceChanges: func(id string, limit int) (any, error) { return g.registry.History(id, limit) },
		SetState:      g.setStateAudited,
		ChangeDevice:  g.changeDeviceAudited,
		Admit:         g.admitAudited,
		Series:        g.series,
		Gateway:       g.cfg.Gateway, Version: version,
		Local: map[string]http.Handler{
			"POST " + backupPath: http.HandlerFunc(g.serveBackup),
			"GET " + verifyPath:  http.HandlerFunc(g.serveVerify),
		},
	}
}

// readiness are the checks of /readyz by name: whether readings are taken and kept.
// An InfluxDB elsewhere is none of them, since the log keeps all until it returns;
// see partners.
func (g *instance) readiness() map[string]func(context.Context) error {
	checks := map[string]func(context.Context) error{
		"log":     func(context.Context) error { return g.spool.Health() },
		"gateway": g.started,
	}
	if g.cfg.Influx.URL == "" {
		checks["store"] = g.store.Ready
	}
	if g.machine != nil {
		maps.Copy(checks, g.machine.checks())
	}
	return checks
}

// partners are the checks of what is waited for while the gateway is ready.
func (g *instance) partners() map[string]func(context.Context) error {
	checks := map[string]func(context.Context) error{}
	if g.cfg.Influx.URL != "" {
		checks["store"] = g.store.Ready
	}
	if g.machine != nil {
		checks["recipients"] = func(context.Context) error { return g.out.post.untold() }
	}
	if g.annals.archive != nil {
		checks["archive"] = func(context.Context) error { return errors.Join(g.annals.archive.Health(), g.audit.archive.Health()) }
	}
	return checks
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
