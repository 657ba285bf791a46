package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"haidang/broker"
	"haidang/broker/mapping"
	"haidang/drivers/ais"
	"haidang/drivers/modbus"
	"haidang/drivers/serial"
	"haidang/gateway/account"
	"haidang/gateway/console"
	"haidang/gateway/influx"
	"haidang/gateway/intake"
	"haidang/gateway/ioc"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/proof"
	"haidang/gateway/registry"
	"haidang/gateway/route"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// An instance is one running gateway: the log in the middle, sources before
// it, followers behind it.
type instance struct {
	cfg    Configuration
	world  *world
	logger *slog.Logger
	reg    console.Registry

	spool      *spool.Spool
	accounts   *account.Store
	store      *influx.Store
	clock      *intake.Clock
	intake     *intake.Intake
	centre     *centre
	evaluator  *evaluator
	broker     *broker.Broker // nil in a replay
	console    *console.Console
	supervisor *supervisor
	sources    []source
	bridges    []forwarding // those that follow the readings
	uplinks    uplinks
	lines      []*modbus.Line
	roll       *roll // the followers of the warnings log
	out        outgoing
	registry   *registry.Registry
	drill      drill                       // the exercise that runs
	proof      *proof.Log                  // which recipient was told of what
	routes     atomic.Pointer[route.Table] // who is
	outside    outside                     // who is told, and how; g.reloading guards it
	annals     annals                      // what has become of warnings
	audit      *audit                      // who changed what; nil in a replay
	files      *world                      // what the files say, with the rules of the page; world has what was changed of devices as well
	edits      edits                       // what was changed of rules at run time
	letters    *letterbox                  // what was set aside
	heard      *remembrance

	known        atomic.Pointer[intake.Known] // of what only tells recipients
	keptContacts int                          // first contacts that are on disk, when readings begin to come

	machine *machine // whose parts these are; nil: it is a gateway by itself
	began   *world   // then: what the files said when this part was opened

	load      func() (Configuration, *world, error) // reads the configuration again; nil: there is none
	reloading sync.Mutex

	closers []func() error
	since   time.Time     // of the start
	ready   chan struct{} // closed when everything runs
}

// A mode is what a replay does otherwise than a gateway that runs for real.
type mode struct {
	recording *recordingClock // the clock of the recording; nil: the machine's
}

// open makes the parts of a gateway and takes its ports; nothing runs yet.
func open(ctx context.Context, cfg Configuration, w *world, m mode, logger *slog.Logger) (_ *instance, err error) {
	boundMemory()
	g := &instance{cfg: cfg, outside: outside{cfg.IOC, cfg.Routes, cfg.CAP}, world: w, logger: logger, reg: prometheus.NewRegistry(), since: time.Now().UTC(), ready: make(chan struct{})}
	g.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	g.onClose(keepGrowth())
	if err := g.openLog(ctx, m); err != nil {
		return nil, err
	}
	if err := g.openAccounts(); err != nil {
		return nil, err
	}
	if g.store, err = influx.Open(filepath.Join(cfg.Data, "influx"), cfg.Influx, g.reg, g.ingest()); err != nil {
		return nil, err
	}
	g.onClose(g.store.Close)
	if err := g.guardStore(); err != nil {
		return nil, err
	}
	if err := g.openArchive(m.recording == nil); err != nil {
		return nil, err
	}
	g.out.bulletins.Chronicle = cap.NewChronicle()
	if g.centre, err = openCentre(ctx, g.spool.Warnings(), g.now, g.out.chronicle); err != nil {
		return nil, err
	}
	if err := g.openRecipients(); err != nil {
		return nil, err
	}
	g.setRoutes(g.cfg.Routes, g.cfg.recipientNames(), m.recording == nil)
	if g.roll, err = openRoll(ctx, g.spool, rollCheckpoint, g.out.post.followers(g.cfg.IOC), logger); err != nil {
		return nil, err
	}
	if g.evaluator, err = openEvaluator(ctx, g.spool, g.centre, g.world.set, g.reg, logger); err != nil {
		return nil, err
	}
	g.evaluator.ticks = m.recording == nil
	if m.recording == nil {
		if err := g.openSources(); err != nil {
			return nil, err
		}
		if err := g.openUplink(ctx); err != nil {
			return nil, err
		}
	}
	if g.console, err = console.New(cfg.Console, g.consoleSources(), g.reg, logger); err != nil {
		return nil, err
	}
	g.onClose(g.console.Close)
	if err := g.guardConsole(); err != nil {
		return nil, err
	}
	if err := g.openSocket(); err != nil {
		return nil, err
	}
	g.centre.observe(g.console.Notify)
	return g, nil
}

// now is log time.
func (g *instance) now() time.Time {
	if g.clock == nil {
		return time.Now().UTC() // a replay: operators act now
	}
	return g.clock.Now()
}

// followers of the readings, by the names of their positions.
const (
	followStore = "influx"
	followRules = "rules"
)

func (g *instance) openLog(ctx context.Context, m mode) (err error) {
	if err := os.MkdirAll(g.cfg.Data, 0o750); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	used := hasFormat(g.cfg.Data)
	if err := openFormat(g.cfg.Data); err != nil {
		return err
	}
	now := func() time.Time { return g.clock.Now() } // not asked before the first append
	if m.recording != nil {
		now = m.recording.Now
	}
	followers := []string{followStore, followRules}
	if m.recording == nil {
		followers = append(append(followers, g.cfg.bridgeFollowers()...), g.cfg.uplinkFollowers()...)
	}
	g.spool, err = g.openSpool(ctx, spool.Options{
		Dir: filepath.Join(g.cfg.Data, "spool"), Config: g.cfg.Spool, Now: now, Scratch: m.recording != nil, Gateway: g.cfg.Gateway,
		Followers: followers, Paced: followRules, Used: used,
		Registerer: g.reg, Logger: g.logger,
	})
	if err != nil {
		return err
	}
	g.onClose(g.spool.Close)
	if err := g.openChanges(); err != nil {
		return err
	}
	if m.recording != nil {
		m.recording.log = g.spool.Readings()
		g.openIntake(m.recording, m.recording)
		return nil
	}
	g.clock = intake.NewClock(time.Now, g.spool.Readings().LastReceived())
	g.openIntake(g.spool.Readings(), g.clock)
	return nil
}

// openChanges reads what was changed at run time, and what was remembered.
func (g *instance) openChanges() (err error) {
	g.openEdits()
	if err := g.openRegistry(); err != nil {
		return err
	}
	if g.letters, err = openLetters(g); err != nil {
		return err
	}
	if g.heard, err = openRemembrance(g.cfg.Data); err != nil {
		g.logger.Warn("ages of devices from before this start are not known", "error", err)
	}
	return nil
}

// openIntake makes the door into the log.
func (g *instance) openIntake(log intake.ReadingLog, clock intake.Receipt) {
	g.intake = intake.New(intake.Options{
		Readings: log, Letters: g.spool.DeadLetters(), Clock: clock,
		Known: g.world.Known, Strict: g.cfg.Strict, Unknown: g.cfg.UnknownDevices, Registerer: g.reg, Logger: g.logger,
	})
	if err := g.rememberContacts(); err != nil {
		g.logger.Warn("first contacts with devices may be told again", "error", err)
	}
	g.intake.SetPeriods(g.registry.Periods())
	g.refuse()
}

// ingest takes what is written to InfluxDB's own endpoints into the log.
func (g *instance) ingest() http.Handler {
	return ingestHandler{
		intake:  func() telemetry.Intake { return g.intake },
		started: func() bool { return g.started(context.Background()) == nil },
		slots:   make(chan struct{}, maxWrites),
	}
}

func (g *instance) openSources() (err error) {
	guard, err := g.guardBroker()
	if err != nil {
		return err
	}
	set, _ := mapping.Compile(g.cfg.Mappings) // they are valid
	guard = append(guard, broker.WithMappings(set))
	if g.broker, err = broker.New(g.cfg.Broker, g.intake, g.reg, g.logger, guard...); err != nil {
		return err
	}
	g.onClose(func() error { g.broker.Close(); return nil })
	g.supervisor = newSupervisor(g.intake, g.isDown, g.reg, g.logger)
	for _, c := range g.cfg.Modbus {
		line, err := modbus.New(c, g.world.profiles, g.intake, g.reg, g.logger)
		if err != nil {
			return fmt.Errorf("modbus %q: %w", c.Name, err)
		}
		g.lines = append(g.lines, line)
		g.sources = append(g.sources, source{name: "modbus." + c.Name, link: c.Name, run: line.Run})
	}
	for _, c := range g.cfg.Serial {
		line, err := serial.New(c, g.intake, g.reg, g.logger)
		if err != nil {
			return err // it names the line
		}
		g.sources = append(g.sources, source{name: line.Source(), link: c.Name, run: line.Run})
	}
	g.openBridges()
	fleet := ais.NewFleet(g.reg)
	for _, c := range g.cfg.AIS {
		if err := tryListen(c); err != nil {
			return err
		}
		receiver, err := ais.New(c, fleet, g.intake, g.reg, g.logger)
		if err != nil {
			return fmt.Errorf("ais %q: %w", c.Name, err)
		}
		g.sources = append(g.sources, source{name: "ais." + c.Name, link: c.Name, run: receiver.Run})
	}
	return nil
}

// isDown reports whether the newest link reading of a device says that it is
// down.
func (g *instance) isDown(device string) bool {
	heard, ok := g.intake.HeardOf(device)
	return ok && heard.Up != nil && !*heard.Up
}

// tryListen tells an occupied port at the start, where somebody reads it: later
// the source would only be tried again and again.
func tryListen(c ais.Config) error {
	address, ok := strings.CutPrefix(c.Connect, "listen://")
	if !ok {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("ais %q: connect: %w", c.Name, err)
	}
	return listener.Close()
}

func (g *instance) onClose(f func() error) { g.closers = append(g.closers, f) }

// close closes what was opened, the last first.
func (g *instance) close() error {
	var errs []error
	for i := len(g.closers) - 1; i >= 0; i-- {
		errs = append(errs, g.closers[i]())
	}
	g.closers = nil
	return errors.Join(errs...)
}

// run works until ctx ends, then stops in the order in which readings flow: the
// sources first, then the followers, then the log. deliver starts what brings
// readings.
func (g *instance) run(ctx context.Context, deliver func(context.Context, *errgroup.Group)) (err error) {
	defer func() { err = errors.Join(err, g.close()) }()
	behindCtx, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	behind, behindCtx := errgroup.WithContext(behindCtx)
	g.follow(behindCtx, behind)

	beforeCtx, stopBefore := context.WithCancel(ctx)
	defer stopBefore()
	context.AfterFunc(behindCtx, stopBefore) // a follower that fails ends the sources too
	before, beforeCtx := errgroup.WithContext(beforeCtx)
	before.Go(func() error { return g.console.Run(beforeCtx) })
	before.Go(func() error { return g.accounts.Run(beforeCtx) })
	deliver(beforeCtx, before)

	failed := before.Wait()
	if g.clock != nil && g.started(ctx) == nil {
		g.record(auditEntry{At: g.clock.Now(), Do: "gateway.stop", On: g.cfg.Gateway})
	}
	stopBehind()
	return errors.Join(ended(ctx, failed), behind.Wait())
}

// live starts the sources of a gateway that runs for real, once the log has its
// start and its rules.
func (g *instance) live(ctx context.Context, group *errgroup.Group, reload <-chan os.Signal) {
	beat := &pulse{name: g.cfg.Gateway, clock: g.clock, log: g.spool.Readings(), last: g.spool.Readings().Last, logger: g.logger}
	group.Go(func() error {
		if !beat.begin(ctx, g.downFor()) {
			return nil
		}
		for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
			err := g.evaluator.announce(ctx, g.cfg.Gateway, g.clock.Now(), g.world.set)
			if err == nil {
				break
			}
			g.logger.Error("the rules cannot be put in force, trying again", "error", err)
			if !wait(ctx, pause) {
				return nil
			}
		}
		group.Go(func() error { return g.intake.Run(ctx) })
		group.Go(func() error { return g.broker.Run(ctx) })
		for _, src := range g.sources {
			group.Go(func() error { return g.supervisor.keep(ctx, src) })
		}
		if reload != nil {
			group.Go(func() error { g.reloads(ctx, reload); return nil })
		}
		close(g.ready)
		g.record(auditEntry{At: g.clock.Now(), Do: "gateway.start", On: g.cfg.Gateway, Changes: []string{"version " + version}})
		group.Go(func() error { g.keepHeard(ctx); return nil })
		group.Go(func() error { g.keepContacts(ctx); return nil })
		group.Go(func() error { return newSelfWatch(g).run(ctx) })
		return beat.Run(ctx)
	})
}

// longAgo is longer than any gap: the engine cuts it to the gap that it sees.
const longAgo = 10 * 365 * 24 * time.Hour

// downFor is how long the gateway did not write to its log.
func (g *instance) downFor() time.Duration {
	last := g.spool.Readings().LastReceived()
	switch {
	case !last.IsZero():
		return g.clock.Now().Sub(last)
	case g.spool.Readings().Last() > 0:
		return longAgo // all that was in the log has gone by its age
	}
	return 0
}

// follow starts the followers of both logs.
func (g *instance) follow(ctx context.Context, group *errgroup.Group) {
	readings, warnings := g.spool.Readings(), g.spool.Warnings()
	group.Go(func() error { return g.store.Run(ctx) })
	group.Go(func() error {
		return readings.Follow(ctx, spool.FollowOptions{Name: followStore}, func(ctx context.Context, b *spool.Batch[telemetry.Reading]) error {
			return b.FromStore(g.store.Write(ctx, b.StoreLines()))
		})
	})
	g.followBridges(ctx, group)
	g.followUplinks(ctx, group)
	group.Go(func() error { return g.evaluator.Run(ctx) })
	group.Go(func() error { g.centre.Run(ctx); return nil })
	group.Go(func() error { g.proof.Run(ctx); return nil })
	group.Go(func() error { return g.fillArchive(ctx) })
	group.Go(func() error { g.keepArchive(ctx); return nil })
	group.Go(func() error { g.runDrills(ctx); return nil })
	group.Go(func() error { return g.letters.Run(ctx) })

	if g.broker != nil {
		group.Go(func() error { return g.publish(ctx) })
	}
	group.Go(func() error {
		return warnings.Follow(ctx, spool.FollowOptions{Name: "influx"}, transitions(isOfWarning, g.storeWarnings))
	})
	group.Go(func() error { return g.out.post.Run(ctx) })
}

// transitions makes a follower of the warnings log of what takes those
// transitions that keep chooses.
func transitions(keep func(*telemetry.Transition) bool, accept func(context.Context, []telemetry.Transition) error) func(context.Context, *spool.Batch[telemetry.Transition]) error {
	return func(ctx context.Context, b *spool.Batch[telemetry.Transition]) error {
		records, err := b.Records()
		if err != nil {
			return err
		}
		return sift(records, keep, func(kept []telemetry.Transition) error { return accept(ctx, kept) })
	}
}

func (g *instance) storeWarnings(ctx context.Context, list []telemetry.Transition) error {
	var lines []byte
	for i := range list {
		lines = ioc.Line(lines, &list[i].Warning)
	}
	return g.store.Write(ctx, lines)
}

// publish sends warnings over MQTT, those that last first: the broker has
// forgotten them.
func (g *instance) publish(ctx context.Context) error {
	mqtt := ioc.NewMQTT(g.broker, g.reg)
	if err := mqtt.Republish(g.public()); err != nil {
		g.logger.Warn("active warnings could not be published again", "error", err)
	}
	return g.spool.Warnings().Follow(ctx, spool.FollowOptions{Name: "mqtt"}, transitions(isPublic, mqtt.Accept))
}
