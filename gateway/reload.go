package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"

	"haidang/gateway/config"
)

// reloads puts changed rules, devices and kinds in force at each signal.
func (g *instance) reloads(ctx context.Context, reload <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
		}
		if err := g.reload(ctx); err != nil {
			tellReload(g.logger, err)
		}
	}
}

// reload reads rules, devices and kinds again and puts them in force. Files with
// a fault, or a log that does not take them, change nothing.
func (g *instance) reload(ctx context.Context) error {
	if g.load == nil || g.started(ctx) != nil {
		return errors.New("there is nothing to read again")
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	cfg, disk, err := g.load()
	if err != nil {
		return err
	}
	files, merged, err := g.withEdits(&cfg, disk)
	if err != nil {
		return err
	}
	w, err := g.changed(files)
	if err != nil {
		return err
	}
	entry := g.reloadEntry(ctx, g.world, w)
	if err := g.first(entry); err != nil {
		return err
	}
	if err := g.evaluator.announce(ctx, g.cfg.Gateway, g.clock.Now(), w.set); err != nil {
		return err
	}
	g.files, g.world, g.edits.disk = files, w, disk
	g.noteRules(merged)
	g.intake.SetKnown(w.Known)
	g.setMappings(&cfg)
	g.out.places.setZones(w.document.Zones)
	if err := g.repost(ctx, &cfg, entry); err != nil {
		return err
	}
	g.noteRules(merged) // with the recipients of now
	g.logger.Info("reloaded", "rules", len(w.document.Rules), "devices", len(w.document.Devices))
	if keys := g.cfg.differs(&cfg); len(keys) > 0 {
		g.logger.Warn("these keys are put in force by a restart only", "keys", strings.Join(keys, ", "))
	}
	if g.machine != nil {
		return g.machine.adopt(ctx, &cfg, disk)
	}
	return nil
}

// tellReload says why what was read again is not in force.
func tellReload(logger *slog.Logger, err error) {
	if faults, ok := errors.AsType[config.Faults](err); ok {
		for _, f := range faults {
			logger.Error("reload: "+f.String(), "file", f.File, "line", f.Line)
		}
		logger.Error("reload refused, nothing was changed", "faults", len(faults))
		return
	}
	logger.Error("reload refused, nothing was changed", "error", err)
}
