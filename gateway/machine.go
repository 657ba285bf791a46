package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"haidang/gateway/account"
	"haidang/gateway/influx"
	"haidang/gateway/intake"
	"haidang/gateway/proof"
	"haidang/gateway/spool"
)

// A machine is one of several that are a centre together, with one log in a
// cluster. It does what its roles say, and has a spool for each part of the log
// that it works on. Parts of which there may be one only are taken when nobody
// has them, and given up when another does.
type machine struct {
	logger   *slog.Logger
	meters   *meters
	clock    *intake.Clock
	accounts *account.Store
	store    *influx.Store // nil: no role needs it
	proof    *proof.Log    // nil: it tells no recipients
	front    *front
	files    *sharer
	since    time.Time
	ready    chan struct{} // closed once it is known who has what

	duties []*duty
	turns  chan struct{} // one taken for each part that is being taken
	again  chan struct{} // capacity 1: it is to be asked at once who has what

	mu      sync.Mutex
	cfg     Configuration
	world   *world // what the files say
	load    func() (Configuration, *world, error)
	reached bool                    // the cluster has been asked with success
	holders map[string]spool.Holder // who has what; of a moment ago
	trouble error                   // why that is not known now
	uneven  map[string]time.Time    // since when this machine has too many parts, by role
	ingest  *instance               // while readings are taken in here
	centre  *instance               // while the part ioc is here
	leads   bool                    // the part ioc is here, or about to be
	posts   map[int]*instance       // while recipients are told here, by the number of their share
}

// How often it is asked who has what, while a part is waited for and while none is.
const (
	lookOften  = time.Second
	lookSeldom = 5 * time.Second
	lookTime   = 5 * time.Second

	takeAtOnce = 4 // parts
)

// serveRoles runs a machine with roles until ctx ends.
func serveRoles(ctx context.Context, env environment, cfg Configuration, w *world, load func() (Configuration, *world, error), logger *slog.Logger) (err error) {
	m, err := openMachine(env, cfg, w, load, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.front.open(); err != nil {
		return err
	}
	m.greet(env)
	return m.run(ctx, env.reload)
}

// openMachine makes a machine; nothing runs yet.
func openMachine(env environment, cfg Configuration, w *world, load func() (Configuration, *world, error), logger *slog.Logger) (_ *machine, err error) {
	boundMemory()
	if err := os.MkdirAll(cfg.Data, 0o750); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	if err := openFormat(cfg.Data); err != nil {
		return nil, err
	}
	wall := env.wall
	if wall == nil {
		wall = time.Now
	}
	m := &machine{
		cfg: cfg, world: w, load: load, logger: logger, meters: newMeters(), since: time.Now().UTC(),
		clock: intake.NewClock(wall, time.Time{}), ready: make(chan struct{}), turns: make(chan struct{}, takeAtOnce), again: make(chan struct{}, 1), holders: map[string]spool.Holder{}, uneven: map[string]time.Time{}, posts: map[int]*instance{},
	}
	g := &instance{cfg: cfg, reg: m.meters, logger: logger} // for what all gateways open alike
	if err := g.openAccounts(); err != nil {
		return nil, err
	}
	m.accounts = g.accounts
	if cfg.has(roleStore) || cfg.has(roleIOC) {
		if m.store, err = influx.Open(filepath.Join(cfg.Data, "influx"), cfg.Influx, m.meters, nil); err != nil {
			return nil, err
		}
	}
	if cfg.has(roleIOC) {
		if m.proof, err = proof.OpenShared(filepath.Join(cfg.Data, deliveriesFolder), m.meters, logger); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	if err := m.openSharer(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	m.listDuties()
	if m.front, err = newFront(m); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *machine) close() error {
	var errs []error
	if m.front != nil {
		m.front.close()
	}
	if m.proof != nil {
		errs = append(errs, m.proof.Close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	return errors.Join(errs...)
}

// greet says where the machine is to be found.
func (m *machine) greet(env environment) {
	fmt.Fprintf(env.stdout, "Hải Đăng %s\n  roles     %s\n", version, strings.Join(m.cfg.Roles, ", "))
	if m.cfg.has(roleIngest) {
		fmt.Fprintf(env.stdout, "  MQTT      %s\n", m.cfg.Broker.Listen)
		if at := m.cfg.writePort(); at != "" {
			fmt.Fprintf(env.stdout, "  /write    %s://%s\n", scheme(m.cfg.Influx.TLS.Cert), at)
		}
	}
	fmt.Fprintf(env.stdout, "  console   %s://%s/  (for the others %s)\n  data      %s\n", scheme(m.cfg.Console.TLS.Cert), m.front.Addr(), m.ownURL(), m.cfg.Data)
}

// ownURL is where the other machines reach this one's console.
func (m *machine) ownURL() string {
	u, _ := m.cfg.advertised(m.cfg.Spool.URL) // it is valid
	return u
}

// run works until ctx ends.
func (m *machine) run(ctx context.Context, reload <-chan os.Signal) error {
	endGrowth := keepGrowth()
	defer func() { _ = endGrowth() }()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.accounts.Run(ctx) })
	group.Go(func() error { return m.keepClock(ctx) })
	group.Go(func() error { m.reloads(ctx, reload); return nil })
	group.Go(func() error { m.watch(ctx); return nil })
	if m.store != nil {
		group.Go(func() error { return m.store.Run(ctx) })
	}
	for _, p := range m.duties {
		group.Go(func() error { m.keep(ctx, p); return nil })
	}
	if manager := newNotifier(m.logger); manager != nil {
		group.Go(func() error { return manager.run(ctx, m.ready, func() { m.current() }) })
	}
	return group.Wait()
}

// current is the configuration and the files in force.
func (m *machine) current() (Configuration, *world) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg, m.world
}

// errSetBack ends a machine whose clock was set back.
var errSetBack = errors.New("the clock of this machine was set back by over a minute: its frames would be ahead of those of the others; it ends, and is right when it is started again")

// keepClock makes log time follow the wall clock. Log time never decreases in one
// run of the program, and several machines write one log: one whose clock was set
// back would hold its log time, and so the rules' timers, where it was.
func (m *machine) keepClock(ctx context.Context) error {
	for wait(ctx, lookEvery) {
		jump, jumped := m.clock.Check()
		switch {
		case !jumped:
		case jump.Wall < 0:
			return fmt.Errorf("%w (%s)", errSetBack, jump.Wall)
		default:
			m.logger.Warn("the clock jumped; machines of a centre need NTP", "by", jump.Wall)
			m.clock.Adopt(jump)
		}
	}
	return nil
}

// watch asks who has what until ctx ends.
func (m *machine) watch(ctx context.Context) {
	var roster *spool.Roster
	defer func() {
		if roster != nil {
			roster.Close()
		}
	}()
	said := ""
	for first := true; ; first = false {
		pause := lookOften
		if !first && !m.isWaiting() {
			pause = lookSeldom
		}
		if !first && !m.waitToLook(ctx, pause) {
			return
		}
		held, err := m.look(ctx, &roster)
		if ctx.Err() != nil {
			return
		}
		m.note(held, err)
		switch {
		case err == nil && said != "":
			m.logger.Info("the cluster answers again")
			said = ""
		case err != nil && err.Error() != said:
			said = err.Error()
			m.logger.Error("the parts of the log cannot be shared out; trying again", "error", err)
		}
	}
}

// waitToLook returns false when ctx ends first.
func (m *machine) waitToLook(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.again:
		return wait(ctx, lookOften/10)
	case <-ctx.Done():
		return false
	}
	return true
}

// errWhole says that a gateway without roles has the log.
var errWhole = errors.New("a gateway without roles has the whole log: stop it, or give it roles as well")

func (m *machine) look(ctx context.Context, roster **spool.Roster) (map[string]spool.Holder, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if *roster == nil {
		r, err := spool.OpenRoster(ctx, m.cfg.Spool, m.logger)
		if err != nil {
			return nil, err
		}
		*roster = r
	}
	held, err := (*roster).Holders(ctx)
	for _, role := range sharedRoles() {
		if err == nil && len(held) > 0 && m.does(role) {
			err = (*roster).Present(ctx, role, m.cfg.Gateway)
		}
	}
	if whole, is := held[spool.Part{}.String()]; err == nil && is {
		return nil, fmt.Errorf("%w: %s", errWhole, whole)
	}
	return held, err
}

// note keeps who has what. While that cannot be asked, what was known before holds.
func (m *machine) note(held map[string]spool.Holder, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = err
	if err != nil {
		return
	}
	m.holders = held
	for _, p := range m.duties {
		// One that is about to be opened here has our own lease already.
		if h, is := held[p.String()]; is && !p.held && !isUs(h) {
			p.met, p.fault = true, nil // another could take it
		}
	}
	m.even(time.Now())
	if !m.reached {
		m.reached = true
		close(m.ready)
	}
}

// isUs reports whether it is this process that has a part.
func isUs(h spool.Holder) bool {
	host, _ := os.Hostname() // as the lease has it
	return h.PID == os.Getpid() && h.Host == host
}

// holder returns who has a part, as far as is known.
func (m *machine) holder(lease string) (spool.Holder, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.holders[lease]
	return h, ok
}

// does reports whether this machine takes parts of a role.
func (m *machine) does(role string) bool {
	return m.cfg.has(role) || role == rolePost && m.cfg.has(roleIOC)
}

// isWaiting reports whether somebody here waits for a part, or hands on to who has
// one.
func (m *machine) isWaiting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg.has(roleConsole) || slices.ContainsFunc(m.duties, func(p *duty) bool { return !p.held })
}

// reloads reads the configuration again at each signal.
func (m *machine) reloads(ctx context.Context, reload <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
		}
		if err := m.reload(ctx); err != nil {
			tellReload(m.logger, err)
		}
	}
}

// reload reads the configuration again, and puts in force what of it a reload does.
func (m *machine) reload(ctx context.Context) error {
	m.mu.Lock()
	centre := m.centre
	m.mu.Unlock()
	if centre != nil {
		return centre.reload(ctx) // which has the other parts of this machine adopt it
	}
	cfg, w, err := m.load()
	if err != nil {
		return err
	}
	if keys := m.cfg.differs(&cfg); len(keys) > 0 {
		m.logger.Warn("these keys are put in force by a restart only", "keys", strings.Join(keys, ", "))
	}
	return m.adopt(ctx, &cfg, w)
}

// adopt puts a configuration that was read again in force for the parts that this
// machine has, the centre excepted.
func (m *machine) adopt(ctx context.Context, cfg *Configuration, w *world) error {
	m.mu.Lock()
	m.cfg.Kinds, m.cfg.Devices, m.cfg.Zones, m.cfg.Rules = cfg.Kinds, cfg.Devices, cfg.Zones, cfg.Rules
	m.cfg.IOC, m.cfg.Routes, m.cfg.Mappings = cfg.IOC, cfg.Routes, cfg.Mappings
	m.world = w
	m.cfg.CAP = cfg.CAP
	ingest, posts := m.ingest, maps.Clone(m.posts)
	m.mu.Unlock()
	var errs []error
	if ingest != nil {
		errs = append(errs, ingest.adoptFiles(cfg, w))
	}
	for n, g := range posts {
		errs = append(errs, g.adoptRecipients(ctx, n, cfg, w))
	}
	return errors.Join(errs...)
}

// health is how a machine is that has not the part ioc; see instance.health.
func (m *machine) health(ctx context.Context) (health, error) {
	cfg, _ := m.current()
	h := health{Gateway: cfg.Gateway, Version: version, Started: m.since, Roles: cfg.Roles, Parts: m.partHealths()}
	if leader, ok := m.holder(roleIOC); ok {
		h.Centre = fmt.Sprintf("%s (%s)", leader, leader.Console)
	}
	h.NotReady = failing(ctx, m.checks())
	h.Ready = len(h.NotReady) == 0
	if m.store != nil {
		h.Degraded = failing(ctx, map[string]func(context.Context) error{"store": m.store.Ready})
	}
	families, err := m.meters.Gather()
	if err != nil {
		return h, fmt.Errorf("gather the metrics: %w", err)
	}
	h.fill(families)
	m.mu.Lock()
	ingest := m.ingest
	m.mu.Unlock()
	if ingest != nil {
		h.Subscribers = ingest.broker.Backlogs()
		h.Subscribers = h.Subscribers[:min(len(h.Subscribers), maxSubscribers)]
		for i := range h.Sources {
			_, link, _ := strings.Cut(h.Sources[i].Name, ".")
			if heard, ok := ingest.intake.HeardOf(link); ok && link != "" {
				h.Sources[i].Link, h.Sources[i].Cause = heard.Up, heard.Cause
			}
		}
	}
	return h, nil
}
