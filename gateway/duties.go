package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/console"
	"haidang/gateway/spool"
)

// A duty is one part of the log that this machine works on, or waits for.
type duty struct {
	spool.Part
	work func(ctx context.Context, s *spool.Spool, reg console.Registry) error

	order uint64 // in which the parts of a role are taken here
	has   prometheus.Gauge
	taken prometheus.Counter

	// Guarded by the machine's mu.
	held   bool
	met    bool // it was held here, or elsewhere, since the start
	since  time.Time
	fault  error              // why it cannot be had, or why it was given up
	health func() error       // of its log while it is held
	leave  func()             // gives it up while it is held
	after  time.Time          // when it may be taken here again
	lag    func() (n float64) // frames that it is behind; nil: it follows nothing
}

// Pauses before a part is tried again that could not be had for another reason than
// that somebody has it.
const (
	partPause  = time.Second
	partAtMost = 15 * time.Second
)

// Of the parts of a role, a machine takes the next one the later, the more it has
// already, so that machines that start together share them.
const (
	sharePause  = 250 * time.Millisecond
	shareAtMost = 2 * time.Second
)

// listDuties makes the parts that the roles say.
func (m *machine) listDuties() {
	with := promauto.With(m.meters)
	held := with.NewGaugeVec(prometheus.GaugeOpts{Name: "haidang_part_held", Help: "1 while this machine has the part of the log, 0 while it waits for it."}, []string{"part", "partition"})
	taken := with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_part_taken_total", Help: "How often this machine has taken the part of the log."}, []string{"part", "partition"})
	add := func(p spool.Part, work func(context.Context, *spool.Spool, console.Registry) error) {
		m.duties = append(m.duties, &duty{Part: p, work: work, order: rand.Uint64(), has: held.WithLabelValues(p.Role, partitionLabel(p)), taken: taken.WithLabelValues(p.Role, partitionLabel(p))})
	}
	if m.cfg.has(roleIngest) {
		add(spool.Part{Role: roleIngest}, m.takeIn)
	}
	for _, role := range []string{roleRules, roleStore} {
		for n := range max(m.cfg.Spool.Partitions, 1) {
			p := spool.Part{Role: role, Partition: n}
			switch {
			case !m.cfg.has(role):
			case role == roleRules:
				add(p, m.evaluate)
			default:
				add(p, m.keepReadings)
			}
		}
	}
	if m.cfg.has(roleIOC) {
		add(spool.Part{Role: roleIOC}, m.lead)
		for n := range max(m.cfg.Spool.Partitions, 1) {
			add(spool.Part{Role: rolePost, Partition: n}, m.tell)
		}
	}
}

// keep works on a part until ctx ends, as often as it can be had.
func (m *machine) keep(ctx context.Context, p *duty) {
	for pause := partPause; ; {
		s, end, err := m.take(ctx, p)
		if err == nil {
			pause = partPause
			within, leave := context.WithCancel(ctx)
			m.mu.Lock()
			p.leave = leave
			m.mu.Unlock()
			err = m.work(within, p, s)
			leave()
			err = errors.Join(err, s.Close())
			end()
		}
		if ctx.Err() != nil {
			if p.isHeld(m) {
				m.lose(p, nil)
			}
			if err != nil && !errors.Is(err, ctx.Err()) {
				m.logger.Error("a part of the log did not end well", "part", p, "error", err)
			}
			return
		}
		m.lose(p, err)
		if errors.Is(err, spool.ErrTaken) {
			continue // it is waited for as for any that somebody has
		}
		if !wait(ctx, pause/2+rand.N(pause)) {
			return
		}
		pause = min(2*pause, partAtMost)
	}
}

// take waits until nobody has the part, and takes it; end takes its metrics back. An
// ErrTaken says that another was faster.
func (m *machine) take(ctx context.Context, p *duty) (_ *spool.Spool, end func(), err error) {
	for !m.isFree(p) {
		if !wait(ctx, lookOften/4) {
			return nil, nil, ctx.Err()
		}
	}
	if !wait(ctx, m.patience(p)) {
		return nil, nil, ctx.Err()
	}
	select {
	case m.turns <- struct{}{}:
		defer func() { <-m.turns }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if !m.isFree(p) {
		return nil, nil, spool.ErrTaken
	}
	cfg, _ := m.current()
	reg, end := m.meters.part(p.Part)
	s, err := spool.Open(ctx, spool.Options{
		Dir: filepath.Join(cfg.Data, "spool"), Config: cfg.Spool, Now: m.clock.Now, Gateway: cfg.Gateway,
		Part: p.Part, Console: m.ownURL(), Status: m.statusOf(p.Part), Registerer: reg, Logger: m.logger,
		// A partition is emptied up to the slowest one, wherever that is.
		Followers: append([]string{followStore, followRules}, cfg.uplinkFollowers()...),
	})
	if err != nil {
		end()
		return nil, nil, err
	}
	m.mu.Lock()
	p.held, p.met, p.since, p.fault, p.health = true, true, time.Now().UTC(), nil, s.Health
	m.mu.Unlock()
	p.has.Set(1)
	p.taken.Inc()
	return s, end, nil
}

// patience is how long a part that is free is left to machines that have fewer. The
// order in which a machine takes those that are free is its own.
func (m *machine) patience(p *duty) time.Duration {
	if p.isShared() {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := 0
	for _, other := range m.duties {
		_, taken := m.holders[other.String()]
		if other.Role == p.Role && (other.held || !taken && other.order < p.order) {
			before++
		}
	}
	return max(time.Until(p.after), 0) + min(time.Duration(before)*sharePause, shareAtMost)
}

// How long a machine looks on while another has fewer parts of a role than it, and
// for how long it leaves a part to others that it has given up.
const (
	evenAfter = 15 * time.Second
	evenPause = 10 * time.Second
)

// sharedRoles are those whose parts are shared out evenly.
func sharedRoles() []string { return []string{roleRules, roleStore, rolePost} }

// even gives parts up that others are to have: those of a role that are more than a
// fair share of all that are taken. It is called with mu held.
func (m *machine) even(now time.Time) {
	for _, role := range sharedRoles() {
		var here []*duty
		all, free := 0, false
		for _, p := range m.duties {
			if p.Role != role {
				continue
			}
			_, taken := m.holders[p.String()]
			if all++; p.held {
				here = append(here, p)
			} else if !taken {
				free = true
			}
		}
		machines := spool.Machines(m.holders, role)
		fair := (all + max(machines, 1) - 1) / max(machines, 1)
		if free || len(here) <= fair {
			delete(m.uneven, role)
			continue
		}
		since, known := m.uneven[role]
		if !known {
			m.uneven[role] = now
			continue
		}
		if now.Sub(since) < evenAfter {
			continue
		}
		delete(m.uneven, role)
		for _, p := range here[:(len(here)-fair+1)/2] {
			if p.leave != nil {
				m.logger.Info("this machine leaves a part of the log to one that has fewer", "part", p)
				p.after = now.Add(evenPause)
				p.leave()
			}
		}
	}
}

// work does what a part is for. Its metrics are taken back when it ends.
func (m *machine) work(ctx context.Context, p *duty, s *spool.Spool) error {
	reg, end := m.meters.part(p.Part)
	defer end()
	if !p.isShared() {
		m.logger.Info("this machine has a part of the log", "part", p)
	}
	return p.work(ctx, s, reg)
}

// lose notes that a part is not here any more, and why.
func (m *machine) lose(p *duty, err error) {
	m.mu.Lock()
	was, isNews := p.held, err != nil
	for _, other := range m.duties { // what keeps all of them out is told once
		isNews = isNews && (other.fault == nil || other.fault.Error() != err.Error())
	}
	p.held, p.health, p.lag, p.leave = false, nil, nil, nil
	if p.fault = err; errors.Is(err, spool.ErrTaken) {
		p.fault, isNews = nil, false
	}
	if delete(m.holders, p.String()); errors.Is(err, spool.ErrTaken) {
		m.holders[p.String()] = spool.Holder{Gateway: "another machine"} // until it is asked which
	}
	m.mu.Unlock()
	select {
	case m.again <- struct{}{}: // who has it now is asked for
	default:
	}
	p.has.Set(0)
	if isNews {
		m.logger.Error("a part of the log cannot be worked on; trying again", "part", p, "error", err)
	}
	if was && errors.Is(err, spool.ErrTaken) {
		m.logger.Warn("another machine has a part of the log now; this one waits for it", "part", p, "error", err)
	}
}

// blame notes why a part that is here does not work; nil: it does.
func (m *machine) blame(role string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.duties {
		if p.Role == role {
			p.fault = err
		}
	}
}

func (p *duty) isHeld(m *machine) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.held
}

// isShared reports whether any number of machines have the part at once.
func (p *duty) isShared() bool { return p.Role == roleIngest }

// isFree reports whether nobody has the part, as far as is known.
func (m *machine) isFree(p *duty) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.isShared() {
		return m.reached
	}
	_, taken := m.holders[p.String()]
	return m.reached && m.trouble == nil && !taken
}

// checks are those of the machine's /readyz: the cluster answers, and each of its
// roles works or stands by.
func (m *machine) checks() map[string]func(context.Context) error {
	checks := map[string]func(context.Context) error{"cluster": func(context.Context) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.reached && m.trouble == nil {
			return errStarting
		}
		return m.trouble
	}}
	for _, role := range m.cfg.Roles {
		if role != roleConsole {
			checks[role] = func(context.Context) error { return m.works(role) }
		}
	}
	return checks
}

// works says why the parts of a role do not work. One that another machine has is
// none of them.
func (m *machine) works(role string) error {
	m.mu.Lock()
	var parts []duty
	for _, p := range m.duties {
		if p.Role == role || p.Role == rolePost && role == roleIOC {
			parts = append(parts, *p)
		}
	}
	at := map[string]*instance{roleIngest: m.ingest, roleIOC: m.centre}[role]
	m.mu.Unlock()
	var said []string
	for i := range parts {
		if err := parts[i].works(at); err != nil {
			said = append(said, fmt.Sprintf("%s: %v", &parts[i], err))
		}
	}
	if len(said) > 0 {
		return errors.New(strings.Join(said, "; "))
	}
	return nil
}

// errUntaken is the answer while a machine that starts has not come to a part.
var errUntaken = errors.New("nobody has it yet")

// works says why the part does not work; at is what runs of it, where that takes a
// while to start.
func (p *duty) works(at *instance) error {
	switch {
	case p.fault != nil:
		return p.fault
	case !p.met:
		return errUntaken
	case !p.held:
		return nil
	case p.Role == roleIngest || p.Role == roleIOC:
		if at == nil || at.started(context.Background()) != nil {
			return errStarting
		}
	}
	err := p.health()
	if errors.Is(err, spool.ErrFull) && p.Role != roleIngest {
		return nil // those who take readings in say so; here it is worked off
	}
	return err
}

// A partHealth is a part of the log as a machine sees it.
type partHealth struct {
	Part      string    `json:"part"` // ingest, rules.0 ..., store.0 ..., ioc, post.0 ...
	Here      bool      `json:"here"`
	By        string    `json:"by,omitempty"` // which other machine has it
	Since     time.Time `json:"since,omitzero"`
	LagFrames float64   `json:"lag_frames"` // while it is here
	Fault     string    `json:"fault,omitempty"`
}

// partHealths are the parts of this machine's roles.
func (m *machine) partHealths() []partHealth {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]partHealth, 0, len(m.duties))
	for _, p := range m.duties {
		h := partHealth{Part: p.String(), Here: p.held, Since: p.since}
		if p.fault != nil {
			h.Fault = p.fault.Error()
		}
		switch other, is := m.holders[p.String()]; {
		case p.held:
			if p.lag != nil {
				h.LagFrames = p.lag()
			}
		case is:
			h.By, h.Since = other.String(), other.Since
		default:
			h.Since = time.Time{}
		}
		out = append(out, h)
	}
	return out
}

// text says where a part is.
func (p *partHealth) text() string {
	text := "free"
	switch {
	case p.Here:
		text = "here since " + clockTime(p.Since)
		if p.LagFrames > 0 {
			text += fmt.Sprintf(", %.0f frames behind", p.LagFrames)
		}
	case p.By != "":
		text = "with " + p.By + "; this machine stands by"
	}
	if p.Fault != "" {
		text += ", FAILS: " + p.Fault
	}
	return text
}

// follows tells how far a part is behind what it follows.
func (m *machine) follows(p spool.Part, lag func() uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.duties {
		if one.Part == p {
			one.lag = func() float64 { return float64(lag()) }
		}
	}
}
