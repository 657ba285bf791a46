package main

import (
	"context"
	"errors"
	"net/http"

	"haidang/gateway/console"
)

// consoleSources is what the console shows of this gateway.
func (g *instance) consoleSources() console.Sources {
	return console.Sources{
		Warnings: g.centre.Warnings,
		Warning:  g.centre.Warning,
		History:  newHistorian(g.spool.Warnings()).of,
		Act:      g.centre.Act,
		Reload:   g.reload,
		Devices:  func(site, owner string) any { return g.devices(site, owner) },
		Device:   g.device,
		Rules:    func() any { return g.evaluator.engine.Rules() },
		RulesDocument: func() any {
			if document, ok := g.evaluator.engine.Document(); ok {
				return document
			}
			return nil
		},
		Recipients: g.out.healths, CAP: g.out.feed, CAPPublic: g.cfg.CAP.Feed.Public,
		Ready:       g.readiness(),
		Health:      func(ctx context.Context) (any, error) { return g.health(ctx) },
		DeadLetters: g.letters.list,
		DeadLetter:  g.letters.show,
		ActOnLetter: g.letters.act,
		Modbus:      g.modbusByHand,
		Lifecycle:   g.lifecycle(),

		DeviceChanges: func(id string, limit int) (any, error) { return g.registry.History(id, limit) },
		SetState:      g.setState,
		ChangeDevice:  g.changeDevice,
		Series:        g.series,
		Gateway:       g.cfg.Gateway, Version: version,
		Local: map[string]http.Handler{
			"POST " + backupPath: http.HandlerFunc(g.serveBackup),
			"GET " + verifyPath:  http.HandlerFunc(g.serveVerify),
		},
	}
}

// readiness are the checks of /readyz by name.
func (g *instance) readiness() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"log":     func(context.Context) error { return g.spool.Health() },
		"store":   g.store.Ready,
		"gateway": g.started,
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
