package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"haidang/gateway/console"
	"haidang/gateway/ioc"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// A posted recipient is one that is in force.
type posted struct {
	config    ioc.Config
	recipient *ioc.Recipient
	senders   []*ioc.Sender
	lease     *lease

	stop func() // ends what brings it warnings, and waits for that
}

// A post is the recipients in force. They can be changed while it runs: those
// whose configuration stays the same are not touched, and a changed one goes on
// where the one of its name was.
type post struct {
	g *instance
	// far returns how recipients fare that machines tell, by their names: nobody is
	// told from here, but for tests. nil: all are told from here.
	far func() map[string]toldElsewhere

	mu     sync.RWMutex
	list   []*posted
	before map[string][]ioc.Earlier // while the first ones are made
	run    context.Context          // while recipients are told; nil before and after
	ended  bool
	failed chan error
}

// A lease is the metrics of one recipient, to be taken back with it.
type lease struct {
	prometheus.Registerer
	mu    sync.Mutex
	taken []prometheus.Collector
}

// Register registers and remembers a collector.
func (l *lease) Register(c prometheus.Collector) error {
	err := l.Registerer.Register(c)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.taken = append(l.taken, c)
	}
	return err
}

// MustRegister registers collectors; it panics where the one below does.
func (l *lease) MustRegister(list ...prometheus.Collector) {
	l.Registerer.MustRegister(list...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = append(l.taken, list...)
}

// end takes the metrics back.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.taken {
		l.Unregister(c)
	}
	l.taken = nil
}

// make opens a recipient; nothing runs yet.
func (p *post) make(c ioc.Config) *posted {
	g := p.g
	outside := ioc.Outside{Version: version, Gateway: g.cfg.Gateway, Bulletins: g.out.bulletins, Dial: dialModem, Switch: g.switchSiren, Past: g.pastFor(c.Name)}
	l := &lease{Registerer: g.reg}
	if p.far != nil {
		l.Registerer = prometheus.NewRegistry() // whoever tells it has its metrics
	}
	x := &posted{config: c, lease: l, recipient: ioc.Open(c, outside, ioc.Options{Registerer: l, Logger: g.logger, Told: g.noteDelivery})}
	for _, class := range []ioc.Class{ioc.Grave, ioc.Rest} {
		x.senders = append(x.senders, x.recipient.Sender(class))
	}
	x.recipient.Resume(p.before[c.Name])
	x.stop = func() {}
	return x
}

// toldBefore is what each recipient has accepted lately, by its name, so that
// bounds and threads of messages go on where they were.
func (g *instance) toldBefore(recipients []ioc.Config) map[string][]ioc.Earlier {
	list, err := g.proof.Since(context.Background(), time.Now().Add(-ioc.Remembered(recipients)))
	if err != nil {
		g.logger.Error("what recipients were told lately cannot be read: bounds and threads of messages begin anew", "error", err)
	}
	out := map[string][]ioc.Earlier{}
	for i := range list {
		a := &list[i]
		w, _ := g.centre.Warning(a.ID)
		out[a.Recipient] = append(out[a.Recipient], ioc.Earlier{At: a.At, Key: a.Digest, Device: w.Device, Exercise: w.Exercise})
	}
	return out
}

// open makes the recipients of a configuration.
func (p *post) open(list []ioc.Config) {
	p.before = p.g.toldBefore(list)
	for _, c := range list {
		p.list = append(p.list, p.make(c))
	}
	p.before = nil
}

// Run tells the recipients until ctx ends.
func (p *post) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	p.run, p.failed = ctx, make(chan error, 1)
	for _, x := range p.list {
		p.start(x)
	}
	p.mu.Unlock()
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-p.failed:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run, p.ended = nil, true
	cancel()
	for _, x := range p.list {
		x.stop()
	}
	return failed
}

// start brings warnings to a recipient, once Run is at work. It is called with mu held.
func (p *post) start(x *posted) {
	if p.far != nil || p.run == nil {
		return
	}
	ctx, cancel := context.WithCancel(p.run)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return x.recipient.Keep(ctx, p.g.lasting) })
	for _, sender := range x.senders {
		offer := x.recipient.Offer(p.g.lasting())
		group.Go(func() error { return p.follow(ctx, x.recipient.Name(), sender, offer) })
	}
	ended := make(chan struct{})
	failed := p.failed
	go func() {
		defer close(ended)
		if err := group.Wait(); err != nil {
			select {
			case failed <- err:
			default: // the first one ends the gateway
			}
		}
	}()
	x.stop = func() { cancel(); <-ended }
}

// offerPatience bounds how long the note of an accepted offer holds up the end.
const offerPatience = 5 * time.Second

// follow brings the warnings of one class to a recipient.
func (p *post) follow(ctx context.Context, name string, sender *ioc.Sender, offer []telemetry.Transition) error {
	g := p.g
	if g.roll.owes(sender.Name()) {
		err := sender.Accept(ctx, offer)
		if err != nil && ctx.Err() != nil {
			return nil // it is still owed the offer
		}
		if err != nil {
			g.logger.Error("a new recipient refuses warnings that last", "recipient", sender.Name(), "error", err)
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), offerPatience) // also when the end came just then
		g.roll.offered(last, sender.Name())
		cancel()
	}
	accept := transitions(isFor(name), sender.Accept)
	return g.spool.Warnings().Follow(ctx, spool.FollowOptions{Name: sender.Name()}, func(ctx context.Context, b *spool.Batch[telemetry.Transition]) error {
		if err := g.centre.await(ctx, b.Last()); err != nil {
			return err
		}
		return accept(ctx, b)
	})
}

// change puts other recipients in force, and says what that changes. What it
// returns an error for has changed nothing.
func (p *post) change(ctx context.Context, list []ioc.Config) (changes []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, fmt.Errorf("%w: recipients are not told at present", console.ErrUnavailable)
	}
	var next []*posted
	stay := map[string]bool{}
	for _, c := range list {
		if i := p.index(c.Name); i >= 0 && reflect.DeepEqual(p.list[i].config, c) {
			stay[c.Name] = true
		}
	}
	if err := p.g.roll.set(ctx, p.followers(list)); err != nil {
		return nil, err
	}
	for _, x := range p.list {
		if stay[x.config.Name] {
			continue
		}
		x.stop() // what is under way to it is broken off, and told again by the one that follows
		x.lease.end()
		if !slices.ContainsFunc(list, func(c ioc.Config) bool { return c.Name == x.config.Name }) {
			changes = append(changes, fmt.Sprintf("recipient %s is taken out, with %s not delivered", x.config.Name, tally(x.recipient.Health().Backlog, "warning", "warnings")))
		}
	}
	p.before = p.g.toldBefore(list)
	for _, c := range list {
		i := p.index(c.Name)
		if stay[c.Name] {
			next = append(next, p.list[i])
			continue
		}
		x := p.make(c)
		p.start(x)
		next = append(next, x)
		changes = append(changes, "recipient "+c.Name+map[bool]string{true: " is new", false: " is changed"}[i < 0])
	}
	p.list, p.before = next, nil
	return changes, nil
}

func (p *post) index(name string) int {
	return slices.IndexFunc(p.list, func(x *posted) bool { return x.config.Name == name })
}

// called returns a recipient, or nil.
func (p *post) called(name string) *posted {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if i := p.index(name); i >= 0 {
		return p.list[i]
	}
	return nil
}

// names returns those of the recipients.
func (p *post) names() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	names := make([]string, len(p.list))
	for i, x := range p.list {
		names[i] = x.config.Name
	}
	return names
}

// healths returns how each recipient fares.
func (p *post) healths() []console.Recipient {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.healthsLocked()
}

// healthsNow is healths for who must not wait while recipients are being changed; not
// ok then.
func (p *post) healthsNow() (list []console.Recipient, ok bool) {
	if !p.mu.TryRLock() {
		return nil, false
	}
	defer p.mu.RUnlock()
	return p.healthsLocked(), true
}

func (p *post) healthsLocked() []console.Recipient {
	list := make([]console.Recipient, len(p.list))
	for i, x := range p.list {
		list[i] = console.Recipient(x.recipient.Health())
	}
	if p.far == nil {
		return list
	}
	far := p.far()
	for i := range list {
		if one, known := far[list[i].Recipient]; known {
			list[i] = one.Recipient
		} else {
			list[i].LastError = errUntold.Error()
		}
	}
	return list
}

// errUntold is what is said of a recipient that no machine tells.
var errUntold = errors.New("no machine tells it now: it begins where it was when one has its share, see haidang health")

// untold says which recipients no machine tells.
func (p *post) untold() error {
	far := p.far()
	names := slices.DeleteFunc(p.names(), func(name string) bool { _, told := far[name]; return told })
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%s: no machine tells of warnings now; each machine with the role ioc needs the same recipients in its gateway.yaml, and a SIGHUP after a change", strings.Join(names, ", "))
}

// followers are the names of the followers of the warnings log that begin at its
// end, those of a list of recipients among them where they are told from here.
func (p *post) followers(list []ioc.Config) []string {
	switch {
	case p.far != nil:
		return ownFollowers()
	case p.g.machine != nil:
		return followersFor(list)
	}
	return p.g.cfg.warningFollowers(append(ownFollowers(), followersFor(list)...))
}

func ownFollowers() []string { return []string{"mqtt", "influx"} }

// followersFor are those that tell recipients.
func followersFor(list []ioc.Config) (names []string) {
	for _, c := range list {
		for _, class := range []ioc.Class{ioc.Grave, ioc.Rest} {
			names = append(names, "ioc."+c.Name+"."+class.String())
		}
	}
	return names
}

// An unknownRecipient is the error for a name that no recipient has.
type unknownRecipient struct {
	name  string
	known []string
}

// Error names those that there are.
func (u unknownRecipient) Error() string {
	return fmt.Sprintf("there is no recipient %q; expected one of %s", u.name, strings.Join(u.known, ", "))
}

// Is reports that it is a telemetry.ErrUnknown.
func (u unknownRecipient) Is(target error) bool { return target == telemetry.ErrUnknown }

// try sends a recipient a test.
func (g *instance) try(ctx context.Context, name, by, why string) (any, error) {
	x := g.out.post.called(name)
	if x == nil {
		return nil, unknownRecipient{name, g.out.post.names()}
	}
	if err := g.first(auditEntry{At: g.now(), By: by, Do: "recipient.test", On: name, Why: why}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime*3/4)
	defer cancel()
	began := time.Now()
	answer, err := x.recipient.Try(ctx, g.cfg.Gateway, by)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", console.ErrUnreached, err)
	}
	return map[string]any{"answer": answer, "seconds": time.Since(began).Seconds()}, nil
}
