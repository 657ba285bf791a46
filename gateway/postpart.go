package main

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"haidang/gateway/console"
	"haidang/gateway/intake"
	"haidang/gateway/ioc"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/registry"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// tell is the part post: the recipients of one share are told of warnings. Machines
// with the role ioc have the shares among them, whichever of them is the centre; it
// knows from their leases how recipients fare, and from the attempts that all of them
// put into the cluster who was told of what.
func (m *machine) tell(ctx context.Context, s *spool.Spool, reg console.Registry) (err error) {
	share := partitionHeld(s)
	joinCtx, leave := context.WithCancel(context.WithoutCancel(ctx))
	joined := make(chan error, 1)
	go func() { joined <- m.proof.Join(joinCtx, sharedAttempts{s.Attempts()}) }()
	defer func() { leave(); err = errors.Join(err, <-joined) }()
	m.awaitAttempts(ctx, s)
	g, err := m.openPost(ctx, s, reg, share)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.posts[share] = g
	cfg, w := m.cfg, m.world
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.posts, share)
	}()
	if w != g.files { // it was read again meanwhile
		if err := g.adoptRecipients(ctx, share, &cfg, w); err != nil {
			return err
		}
	}
	m.follows(spool.Part{Role: rolePost, Partition: share}, g.postLag)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.centre.listen(ctx) })
	group.Go(func() error { return g.out.post.Run(ctx) })
	group.Go(func() error { m.fetchForPost(ctx, s, g); return nil })
	return group.Wait()
}

// attemptsPatience is how long a share waits to learn what others have told: bounds
// and threads of messages go on from there.
const attemptsPatience = 5 * time.Second

func (m *machine) awaitAttempts(ctx context.Context, s *spool.Spool) {
	within, cancel := context.WithTimeout(ctx, attemptsPatience)
	defer cancel()
	if !m.proof.Await(within, s.Attempts().Last()) && ctx.Err() == nil {
		m.logger.Warn("what other machines have told recipients lately is not known here yet: bounds and threads of messages begin without it")
	}
}

// openPost makes what tells the recipients of a share.
func (m *machine) openPost(ctx context.Context, s *spool.Spool, reg console.Registry, share int) (*instance, error) {
	cfg, w := m.current()
	cfg.IOC = recipientsOf(cfg.IOC, share, s.Partitions())
	g := &instance{
		cfg: cfg, outside: outside{ioc: cfg.IOC, cap: cfg.CAP}, world: w, files: w, logger: m.logger, reg: reg, since: time.Now().UTC(),
		machine: m, spool: s, clock: m.clock, proof: m.proof,
	}
	g.readKnown()
	g.out.bulletins.Chronicle = cap.NewChronicle()
	var err error
	if g.centre, err = openListener(ctx, s.Warnings(), g.now, g.out.chronicle); err != nil {
		return nil, err
	}
	g.openWords(func() intake.Known { return *g.known.Load() })
	g.out.post.g = g
	g.out.post.open(cfg.IOC)
	g.roll, err = openRoll(ctx, s, postCheckpoint, g.out.post.followers(cfg.IOC), g.logger)
	return g, err
}

// recipientsOf returns the recipients of one share.
func recipientsOf(list []ioc.Config, share, shares int) (out []ioc.Config) {
	for _, c := range list {
		if spool.PartitionOf(c.Name, shares) == share {
			out = append(out, c)
		}
	}
	return out
}

// readKnown reads what messages say of devices: what the files say, with what was
// changed at run time.
func (g *instance) readKnown() {
	w := g.files
	r, err := registry.Look(g.cfg.Data) // it is the centre's, which may be on this machine
	if err == nil {
		g.registry = r
		w, err = g.changed(g.files)
	}
	if err != nil {
		g.logger.Error("what was changed of devices at run time is not in messages to recipients", "error", err)
		w = g.files
	}
	g.known.Store(&w.Known)
}

// fetchForPost takes over what the centre has changed of devices, until ctx ends.
func (m *machine) fetchForPost(ctx context.Context, s *spool.Spool, g *instance) {
	failing, marks := false, ""
	for wait(ctx, fetchEvery) {
		m.mu.Lock()
		leads := m.leads
		m.mu.Unlock()
		if !leads { // else its files are the newest
			_, err := m.files.fetch(ctx, s, m.setAside)
			if err != nil && ctx.Err() == nil && !failing {
				m.logger.Error("what the centre changes of devices is not known here, trying again", "error", err)
			}
			failing = err != nil
		}
		if now := marksOf(g.cfg.Data, groupDevices); now != marks {
			marks = now
			g.reloading.Lock()
			g.readKnown()
			g.reloading.Unlock()
		}
	}
}

// adoptRecipients puts the recipients of a share, and the words of messages, of a
// configuration that was read again in force.
func (g *instance) adoptRecipients(ctx context.Context, share int, cfg *Configuration, w *world) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	g.files = w
	g.readKnown()
	g.out.places.setZones(w.document.Zones)
	if before := g.outside.cap; !reflect.DeepEqual(before, cfg.CAP) {
		after := cfg.CAP
		after.Sender, after.Feed.Public = before.Sender, before.Feed.Public
		g.out.bulletins.Composer.Configure(after)
		g.outside.cap = after
	}
	list := recipientsOf(cfg.IOC, share, g.spool.Partitions())
	changes, err := g.out.post.change(ctx, list)
	if err != nil {
		return err
	}
	g.outside.ioc = list
	for _, one := range changes {
		g.logger.Info("recipients are changed", "change", one)
	}
	return nil
}

// postLag is how far the recipient that is last is behind the warnings, in frames.
func (g *instance) postLag() (lag uint64) {
	for _, name := range followersFor(g.outside.ioc) {
		lag = max(lag, g.spool.Warnings().Lag(name))
	}
	return lag
}

// A toldElsewhere is how a recipient fares that a machine tells, and which.
type toldElsewhere struct {
	console.Recipient
	by string
}

// maxStatus bounds what a lease tells of the recipients of a share, in bytes.
const maxStatus = 64 << 10

// statusOf returns what the lease of a part tells, or nil.
func (m *machine) statusOf(p spool.Part) func() json.RawMessage {
	if p.Role != rolePost {
		return nil
	}
	var told json.RawMessage // last
	return func() json.RawMessage {
		m.mu.Lock()
		g := m.posts[p.Partition]
		m.mu.Unlock()
		if g == nil {
			return nil
		}
		list, ok := g.out.post.healthsNow()
		if !ok {
			return told // the lease is not to wait
		}
		text, err := json.Marshal(list)
		if len(text) > maxStatus {
			for i := range list {
				list[i] = console.Recipient{Recipient: list[i].Recipient, Via: list[i].Via, Circuit: list[i].Circuit, Backlog: list[i].Backlog}
			}
			text, err = json.Marshal(list)
		}
		if err != nil || len(text) > maxStatus {
			text = nil
		}
		told = text
		return told
	}
}

// told returns how recipients fare that machines tell, this one's as it is and the
// others' as they were a moment ago.
func (m *machine) told() map[string]toldElsewhere {
	m.mu.Lock()
	leases := map[string]spool.Holder{}
	for _, p := range m.duties {
		if h, is := m.holders[p.String()]; is && p.Role == rolePost && m.posts[p.Partition] == nil {
			leases[p.String()] = h
		}
	}
	var here []*instance
	for _, g := range m.posts {
		here = append(here, g)
	}
	m.mu.Unlock()
	out := map[string]toldElsewhere{}
	for _, h := range leases {
		var list []console.Recipient
		if json.Unmarshal(h.Status, &list) == nil {
			for _, r := range list {
				out[r.Recipient] = toldElsewhere{r, h.String()}
			}
		}
	}
	for _, g := range here {
		for _, r := range g.out.post.healths() {
			out[r.Recipient] = toldElsewhere{Recipient: r}
		}
	}
	return out
}

// tellElsewhere adds those whom other machines tell to how the recipients fare.
func (h *health) tellElsewhere(far map[string]toldElsewhere) {
	for _, name := range sortedNames(far) {
		one := far[name]
		if one.by == "" || slices.ContainsFunc(h.Recipients, func(r recipientHealth) bool { return r.Name == name }) {
			continue
		}
		h.Recipients = append(h.Recipients, recipientHealth{Name: name, LastSuccess: one.LastSuccess, WaitingFor: one.OldestS, By: one.by})
	}
}

// sharedAttempts is the log of what recipients were told, as machines share it.
type sharedAttempts struct{ *spool.Log[telemetry.Attempt] }

// Follow calls take with each frame from one on.
func (s sharedAttempts) Follow(ctx context.Context, from uint64, take func(uint64, []telemetry.Attempt)) error {
	return s.Log.Follow(ctx, spool.FollowOptions{From: from}, func(_ context.Context, b *spool.Batch[telemetry.Attempt]) error {
		for i := range b.Frames {
			records, err := b.Frames[i].Records()
			if err != nil {
				records = nil // what cannot be read is counted by the log
			}
			take(b.Frames[i].Seq, records)
		}
		return nil
	})
}
