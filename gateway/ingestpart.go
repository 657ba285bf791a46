package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"haidang/gateway/console"
	"haidang/gateway/ioc"
	"haidang/gateway/registry"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// ingestFolder is where, in the data folder, a machine with the role ingest
// remembers what it needs for itself: it may have the part ioc as well, whose files
// are in the data folder.
const ingestFolder = "ingest"

// takeIn is the part ingest: broker, sources and /write bring readings, which go to
// the partition of their site. Warnings are published to the clients of this
// machine's broker.
func (m *machine) takeIn(ctx context.Context, s *spool.Spool, reg console.Registry) (err error) {
	if !m.awaitRules(ctx, s) {
		return nil
	}
	g, devices, err := m.openIngest(ctx, s, reg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	m.mu.Lock()
	m.ingest = g
	cfg, w := m.cfg, m.world
	m.mu.Unlock()
	if w != g.files { // it was read again meanwhile
		if err := g.adoptFiles(&cfg, w); err != nil {
			tellReload(m.logger, err)
		}
	}
	defer func() {
		m.mu.Lock()
		m.ingest = nil
		m.mu.Unlock()
	}()
	close(g.ready)

	behindCtx, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	behind, behindCtx := errgroup.WithContext(behindCtx)
	behind.Go(func() error { return g.publishFromLog(behindCtx) })
	beforeCtx, stopBefore := context.WithCancel(ctx)
	defer stopBefore()
	context.AfterFunc(behindCtx, stopBefore)
	before, beforeCtx := errgroup.WithContext(beforeCtx)
	before.Go(func() error { return g.intake.Run(beforeCtx) })
	before.Go(func() error { return g.broker.Run(beforeCtx) })
	for _, src := range g.sources {
		before.Go(func() error { return g.supervisor.keep(beforeCtx, src) })
	}
	before.Go(func() error { g.keepContacts(beforeCtx); return nil })
	before.Go(func() error { m.fetchForIngest(beforeCtx, s, g, devices); return nil })
	before.Go(func() error { return g.serveWrites(beforeCtx, m.cfg.writePort()) })
	failed := before.Wait()
	stopBehind()
	return errors.Join(ended(ctx, failed), behind.Wait())
}

// errNoRules is the answer of a machine with the role ingest before the first centre.
var errNoRules = errors.New("no readings are taken in before the centre has put its rules in force for the first time: start a machine with the role ioc")

// awaitRules waits until there was a centre, once in the life of a cluster: readings
// that come before are evaluated by nobody. It returns false when ctx ends.
func (m *machine) awaitRules(ctx context.Context, s *spool.Spool) bool {
	said := ""
	for ctx.Err() == nil {
		hash, err := s.LoadCheckpoint(ctx, announced)
		if err == nil && hash != nil {
			m.blame(roleIngest, nil)
			return true
		}
		if err == nil {
			err = errNoRules
		}
		m.blame(roleIngest, err)
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			m.logger.Warn("this machine waits", "reason", err)
		}
		wait(ctx, time.Second/2)
	}
	return false
}

// openIngest makes the parts of a gateway that take readings in, and what shares
// with them what was changed of devices.
func (m *machine) openIngest(ctx context.Context, s *spool.Spool, reg console.Registry) (_ *instance, devices *sharer, err error) {
	cfg, w := m.current()
	cfg.Data = filepath.Join(cfg.Data, ingestFolder)
	if err := os.MkdirAll(cfg.Data, 0o750); err != nil {
		return nil, nil, fmt.Errorf("make the folder of the ingest: %w", err)
	}
	if devices, err = newSharer(cfg.Data, groupDevices); err != nil {
		return nil, nil, err
	}
	if err := m.fetchOnce(ctx, s, devices, nil); err != nil {
		m.logger.Error("what the centre has changed of accounts and devices is not known here; it is as it was before", "error", err)
	}
	g := &instance{
		cfg: cfg, world: w, files: w, logger: m.logger, reg: reg, since: time.Now().UTC(), ready: make(chan struct{}),
		machine: m, spool: s, clock: m.clock, accounts: m.accounts,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if g.registry, err = registry.Open(cfg.Data, g.logger); err != nil {
		return nil, nil, err
	}
	if merged, err := g.changed(w); err != nil {
		g.logger.Error("what was changed of devices at run time does not fit the configuration and is not in force", "error", err)
	} else {
		g.world = merged
	}
	g.openIntake(s.Partitioned(), m.clock)
	if err := g.openSources(); err != nil {
		return nil, nil, err
	}
	return g, devices, nil
}

// adoptFiles puts devices, kinds and mappings that were read again in force for
// what comes in.
func (g *instance) adoptFiles(cfg *Configuration, files *world) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	w, err := g.changed(files)
	if err != nil {
		return err
	}
	g.files, g.world = files, w
	g.intake.SetKnown(w.Known)
	g.setMappings(cfg)
	return nil
}

// publishFromLog sends warnings over MQTT as the log has them, those that last
// first. Each machine that takes readings in does: its clients know no other.
func (g *instance) publishFromLog(ctx context.Context) error {
	from := g.spool.Warnings().Last() + 1
	board := telemetry.NewBoard()
	if err := g.spool.Warnings().Replay(ctx, func(t telemetry.Transition) { board.Apply(t) }); err != nil {
		return ended(ctx, fmt.Errorf("read the warnings log: %w", err))
	}
	mqtt := ioc.NewMQTT(g.broker, g.reg)
	if err := mqtt.Republish(public(board.Warnings(false))); err != nil {
		g.logger.Warn("active warnings could not be published again", "error", err)
	}
	return g.spool.Warnings().Follow(ctx, spool.FollowOptions{From: from}, transitions(isPublic, mqtt.Accept))
}
