package main

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"

	"haidang/broker"
	"haidang/broker/mapping"
	"haidang/gateway/console"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// followCentre is the name under which the centre follows the steps of the engines.
const followCentre = "centre"

// lead is the part ioc: the centre, those who are told of warnings, the page and
// its API. It is made anew each time that this machine takes the part, and given
// back cleanly when another has it.
func (m *machine) lead(ctx context.Context, s *spool.Spool, reg console.Registry) (err error) {
	m.setLeads(true)
	defer m.setLeads(false)
	g, err := m.openCentre(ctx, s, reg)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, g.close())
		m.mu.Lock()
		m.centre = nil
		m.mu.Unlock()
		m.reopenFront(ctx)
	}()
	m.mu.Lock()
	m.centre = g
	m.mu.Unlock()
	m.front.close()
	if err := g.openConsole(); err != nil {
		return err
	}
	m.follows(spool.Part{Role: roleIOC}, func() uint64 { return s.Steps().Lag(followCentre) })
	return g.runCentre(ctx)
}

func (m *machine) setLeads(leads bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leads = leads
}

// reopenFront lets the front answer again; an address that is not free is tried
// until ctx ends.
func (m *machine) reopenFront(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.front.open()
		if err == nil {
			return
		}
		m.logger.Error("nobody can ask how this machine is, trying again", "error", err)
		wait(ctx, time.Second)
	}
}

// openCentre opens what the part ioc is made of, but for the console.
func (m *machine) openCentre(ctx context.Context, s *spool.Spool, reg console.Registry) (_ *instance, err error) {
	if _, err := m.files.fetch(ctx, s, m.setAside); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		m.logger.Error("what was changed at run time on other machines is not known here; what this one knows is in force", "error", err)
	}
	cfg, w := m.current()
	g := &instance{
		cfg: cfg, outside: outside{cfg.IOC, cfg.Routes, cfg.CAP}, world: w, logger: m.logger, reg: reg, since: time.Now().UTC(), ready: make(chan struct{}),
		machine: m, began: w, load: m.load, spool: s, clock: m.clock, accounts: m.accounts, store: m.store,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if err := g.openChanges(); err != nil {
		return nil, err
	}
	g.openIntake(s.Partitioned(), m.clock)
	g.intake.HearElsewhere() // see listen
	if err := g.openParser(); err != nil {
		return nil, err
	}
	if err := g.openArchive(true); err != nil {
		return nil, err
	}
	g.out.bulletins.Chronicle = cap.NewChronicle()
	if g.centre, err = openCentre(ctx, s.Warnings(), g.now, g.out.chronicle); err != nil {
		return nil, err
	}
	if err := g.openRecipients(); err != nil {
		return nil, err
	}
	g.setRoutes(g.cfg.Routes, g.cfg.recipientNames(), true)
	if g.roll, err = openRoll(ctx, s, rollCheckpoint, g.out.post.followers(g.cfg.IOC), g.logger); err != nil {
		return nil, err
	}
	g.evaluator = openReader(s.Partitioned(), m.clock.Now, reg, g)
	return g, g.openReceiver(ctx)
}

// openParser makes what reads again what the brokers of other machines have set
// aside. It listens nowhere and has no clients.
func (g *instance) openParser() (err error) {
	silent := g.cfg.Broker
	silent.Listen, silent.TLS, silent.Websocket = "", broker.TLS{}, broker.Websocket{}
	set, _ := mapping.Compile(g.cfg.Mappings) // they are valid
	if g.broker, err = broker.New(silent, g.intake, g.reg, g.logger, broker.WithAccounts(g.accounts), broker.WithMappings(set)); err != nil {
		return err
	}
	g.onClose(func() error { g.broker.Close(); return nil })
	return nil
}

// openReader makes an evaluator that evaluates nothing: the engines are on other
// machines. It writes documents to every partition, and knows the one in force.
func openReader(log *spool.Partitioned, now func() time.Time, reg prometheus.Registerer, g *instance) *evaluator {
	e := &evaluator{engine: rules.NewEngine(rules.Options{Registerer: reg, Logger: g.logger}), logger: g.logger}
	e.append = func(ctx context.Context, records []telemetry.Reading) error {
		if err := log.AppendAll(ctx, records); err != nil {
			return err
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.engine.Evaluate(now(), records)
		return nil
	}
	return e
}

// openConsole takes the console's address and the control socket.
func (g *instance) openConsole() (err error) {
	if g.console, err = console.New(g.cfg.Console, g.consoleSources(), g.reg, g.logger); err != nil {
		return err
	}
	g.onClose(g.console.Close)
	if err := g.guardConsole(); err != nil {
		return err
	}
	if err := g.openSocket(); err != nil {
		return err
	}
	g.centre.observe(g.console.Notify)
	return nil
}

// runCentre works until ctx ends or another machine has the part.
func (g *instance) runCentre(ctx context.Context) error {
	behindCtx, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	behind, behindCtx := errgroup.WithContext(behindCtx)
	g.followForCentre(behindCtx, behind)

	beforeCtx, stopBefore := context.WithCancel(ctx)
	defer stopBefore()
	context.AfterFunc(behindCtx, stopBefore)
	before, beforeCtx := errgroup.WithContext(beforeCtx)
	before.Go(func() error { return g.console.Run(beforeCtx) })
	before.Go(func() error { return g.begin(beforeCtx, before) })
	before.Go(func() error { g.machine.share(beforeCtx, g.spool); return nil })

	failed := before.Wait()
	if g.started(ctx) == nil {
		g.record(auditEntry{At: g.now(), Do: "gateway.stop", On: g.cfg.Gateway})
	}
	stopBehind()
	return errors.Join(ended(ctx, failed), behind.Wait())
}

// announced is a checkpoint that is there once every partition has had rules: what is
// taken in before is evaluated by nobody. It holds the hash of those announced last.
const announced = "announced"

// begin puts the rules in force in every partition, and starts what needs them.
func (g *instance) begin(ctx context.Context, group *errgroup.Group) error {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		err := g.evaluator.announce(ctx, g.cfg.Gateway, g.now(), g.world.set)
		if err == nil {
			err = g.spool.SaveCheckpoint(ctx, announced, []byte(g.evaluator.engine.Hash()))
		}
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			g.logger.Error("the rules cannot be put in force, trying again", "error", err)
		}
		if !wait(ctx, pause) {
			return nil
		}
	}
	close(g.ready)
	if _, w := g.machine.current(); w != g.began { // it was read again meanwhile
		if err := g.reload(ctx); err != nil {
			tellReload(g.logger, err)
		}
	}
	g.record(auditEntry{At: g.now(), Do: "gateway.start", On: g.cfg.Gateway, Changes: []string{"version " + version}})
	group.Go(func() error { g.keepHeard(ctx); return nil })
	group.Go(func() error { g.keepContacts(ctx); return nil })
	group.Go(func() error { return newSelfWatch(g).run(ctx) })
	return nil
}

// followForCentre starts what the centre follows, and what follows it.
func (g *instance) followForCentre(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error {
		return g.spool.Steps().Follow(ctx, spool.FollowOptions{Name: followCentre}, g.takeSteps)
	})
	group.Go(func() error { g.centre.Run(ctx); return nil })
	group.Go(func() error { return g.proof.Join(ctx, sharedAttempts{g.spool.Attempts()}) })
	group.Go(func() error { return g.fillArchive(ctx) })
	group.Go(func() error { g.keepArchive(ctx); return nil })
	group.Go(func() error { g.runDrills(ctx); return nil })
	group.Go(func() error { return g.letters.Run(ctx) })
	g.followUplinks(ctx, group)
	group.Go(func() error {
		return g.spool.Warnings().Follow(ctx, spool.FollowOptions{Name: "influx"}, transitions(isOfWarning, g.storeWarnings))
	})
	group.Go(func() error { return g.out.post.Run(ctx) })
	skipped := promauto.With(g.reg).NewCounter(prometheus.CounterOpts{
		Name: "haidang_heard_skipped_frames_total", Help: "Frames of readings that the list of devices was not told of, because it was too far behind.",
	})
	for n := range g.spool.Partitions() {
		group.Go(func() error { return g.listen(ctx, g.spool.ReadingsOf(n), skipped) })
	}
}

// takeSteps takes up the steps of the engines. One that cannot be written costs no
// other.
func (g *instance) takeSteps(ctx context.Context, b *spool.Batch[telemetry.Transition]) error {
	steps, err := b.Records()
	if err != nil {
		return err
	}
	err = g.centre.Step(ctx, steps)
	var unwritable *telemetry.Rejection
	if errors.As(err, &unwritable) {
		g.logger.Error("a warning cannot be written and is lost", "error", err)
		return nil
	}
	return err
}

// What the list of devices looks at of the readings of a partition: when it begins,
// and at most how far it may be behind, in frames.
const (
	listenBack   = 256
	listenBehind = 1024
)

// listen tells the list of devices what machines take in, until ctx ends. It is to
// show the newest, and so skips what there is too much of.
func (g *instance) listen(ctx context.Context, log *spool.Log[telemetry.Reading], skipped prometheus.Counter) error {
	from := log.Last() - min(log.Last(), listenBack) + 1
	for ctx.Err() == nil {
		within, stop := context.WithCancel(ctx)
		next := uint64(0)
		err := log.Follow(within, spool.FollowOptions{From: from}, func(_ context.Context, b *spool.Batch[telemetry.Reading]) error {
			if last := log.Last(); next == 0 && last > b.Last()+listenBehind {
				next = last - listenBack
				skipped.Add(float64(next - b.Last() - 1))
				stop()
			}
			for i := range b.Frames {
				readings, err := b.Frames[i].Records()
				if err != nil {
					continue // its followers with a name tell of it
				}
				g.intake.Hear(readings, b.Frames[i].Received)
			}
			return nil
		})
		stop()
		if err != nil || next == 0 {
			return err
		}
		from = next
	}
	return nil
}
