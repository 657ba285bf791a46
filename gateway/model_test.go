package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/console"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// A life is the reference: what a warning is, said in facts of which each is
// plain, and how it stands, which follows from them.
type life struct {
	latch    bool
	severity telemetry.Severity
	holds    bool // the condition
	waits    bool // over, and to be acknowledged
	acked    string
	shelved  time.Time // until
	assigned string
	mistake  bool
	silent   bool // nobody was told
	n        int
}

func (l *life) state(out bool, now time.Time) telemetry.State {
	switch {
	case !l.holds && l.waits:
		return telemetry.Returned
	case !l.holds:
		return telemetry.Cleared
	case out:
		return telemetry.OutOfService
	case l.shelved.After(now):
		return telemetry.Shelved
	case l.acked != "":
		return telemetry.Acknowledged
	}
	return telemetry.Active
}

// A province is the part under test, a centre with its log and an engine with
// its checkpoint, beside the reference.
type province struct {
	t      *testing.T
	random *rand.Rand
	dir    string
	now    time.Time
	spool  *spool.Spool
	centre *centre

	engine   *rules.Engine
	kept     []byte // its checkpoint
	since    []frame
	levels   map[string]float64             // by device
	current  map[string]string              // id of the warning that holds, by rule and device
	lives    map[string]*life               // by id
	of       map[string][2]string           // device and rule of a warning
	orders   map[[2]string]*telemetry.Order // by device and rule
	acts     map[string]int                 // what happened, for the report
	document rules.Document
}

type frame struct {
	at       time.Time
	readings []telemetry.Reading
}

const modelRules = `
devices: [{id: a, kinds: [river]}, {id: b, kinds: [river]}]
rules:
  - {name: flood, on: river, levels: [{severity: moderate, when: level_m >= 1}, {severity: severe, when: level_m >= 2}, {severity: extreme, when: level_m >= 3}]}
  - {name: latched, on: river, when: level_m >= 2, latch: true, severity: severe}
`

func newProvince(t *testing.T, seed uint64) *province {
	p := &province{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), now: time.Date(2025, 10, 27, 0, 0, 0, 0, time.UTC),
		levels: map[string]float64{}, current: map[string]string{}, lives: map[string]*life{}, of: map[string][2]string{},
		orders: map[[2]string]*telemetry.Order{}, acts: map[string]int{},
	}
	dir := t.TempDir()
	devices, ruleText, _ := strings.Cut(modelRules, "rules:")
	for name, text := range map[string]string{
		"gateway.yaml": "devices: devices.yaml\nrules: [rules.yaml]\n", "devices.yaml": devices, "rules.yaml": "rules:" + ruleText,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, w, err := loadConfiguration(folder{dir: dir}, "gateway.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.document = w.document
	p.open()
	p.engine = rules.NewEngine(rules.Options{})
	control, err := rules.ControlReadings("box", p.document)
	if err != nil {
		t.Fatal(err)
	}
	for i := range control {
		control[i].Time = p.now
	}
	p.feed(control)
	p.keep()
	return p
}

func (p *province) open() {
	p.spool = spoolIn(p.t, p.dir, nil)
	p.fold()
}

// fold is a restart of the centre: it knows what the log says.
func (p *province) fold() {
	var err error
	if p.centre, err = openCentre(p.t.Context(), p.spool.Warnings(), func() time.Time { return p.now }); err != nil {
		p.t.Fatal(err)
	}
}

func (p *province) keep() {
	var err error
	if p.kept, err = p.engine.Checkpoint(); err != nil {
		p.t.Fatal(err)
	}
	p.since = nil
}

func (p *province) feed(readings []telemetry.Reading) []telemetry.Transition {
	p.since = append(p.since, frame{p.now, readings})
	return p.engine.Evaluate(p.now, readings)
}

func (p *province) out(id string) bool {
	at := p.of[id]
	for _, scope := range [][2]string{at, {at[0], ""}, {"", at[1]}} {
		if o := p.orders[scope]; o != nil && o.Out && (o.Until == nil || p.now.Before(*o.Until)) {
			return true
		}
	}
	return false
}

// pass lets time go on, and what is due happen.
func (p *province) pass(d time.Duration) {
	p.now = p.now.Add(d)
	if err := p.centre.due(p.t.Context(), p.now); err != nil {
		p.t.Fatal(err)
	}
	for _, o := range p.orders {
		if o.Out && o.Until != nil && !p.now.Before(*o.Until) {
			o.Out = false
			o.N++
		}
	}
	for id, l := range p.lives {
		if l.holds && p.out(id) {
			l.shelved = time.Time{} // being out of service takes its place
		} else if l.holds {
			l.silent = false
		}
	}
}

// reading is a level of a device, through the engine into the centre.
func (p *province) reading() {
	device := []string{"a", "b"}[p.random.IntN(2)]
	level := float64(p.random.IntN(5)) * 0.9
	p.levels[device] = level
	steps := p.feed([]telemetry.Reading{{Device: device, Site: device, Kind: "river", Time: p.now, Values: []telemetry.Value{{Name: "level_m", Number: level}}}})
	if err := p.centre.Step(p.t.Context(), steps); err != nil {
		p.t.Fatal(err)
	}
	ids := map[string]string{}
	for _, s := range steps {
		ids[s.Rule] = s.ID
	}
	flood := telemetry.NoSeverity
	for i, at := range []float64{1, 2, 3} {
		if level >= at {
			flood = telemetry.Moderate + telemetry.Severity(i)
		}
	}
	latched := telemetry.NoSeverity
	if level >= 2 {
		latched = telemetry.Severe
	}
	p.judge(device, "flood", flood, ids)
	p.judge(device, "latched", latched, ids)
}

// judge is what the reference makes of a severity.
func (p *province) judge(device, rule string, severity telemetry.Severity, ids map[string]string) {
	key := device + "/" + rule
	l := p.lives[p.current[key]]
	switch {
	case l == nil && severity > 0:
		id := ids[rule]
		p.current[key], p.of[id] = id, [2]string{device, rule}
		p.lives[id] = &life{latch: rule == "latched", severity: severity, holds: true, silent: p.out(id)}
	case l == nil:
	case severity == 0:
		out := p.out(p.current[key])
		l.holds, l.waits = false, l.latch && l.acked == "" && !out
		delete(p.current, key)
	case severity != l.severity:
		if severity > l.severity {
			l.acked = ""
		}
		l.severity = severity
	}
}

// operate is an act of somebody, who may have looked too long ago.
func (p *province) operate() {
	ids := sortedNames(p.lives)
	if len(ids) == 0 {
		return
	}
	id := ids[p.random.IntN(len(ids))]
	if lasting := p.centre.Warnings(false); len(lasting) > 0 && p.random.IntN(8) > 0 {
		id = lasting[p.random.IntN(len(lasting))].ID
	}
	l := p.lives[id]
	deeds := telemetry.Deeds()
	seen, _ := p.centre.Warning(id) // shelving may just have ended
	act := telemetry.Act{ID: id, N: seen.N, By: []string{"lan", "minh"}[p.random.IntN(2)], Do: deeds[p.random.IntN(len(deeds))], Text: "x"}
	stale := p.random.IntN(8) == 0
	if stale {
		act.N--
	}
	until := p.now.Add(time.Duration(1+p.random.IntN(20)) * time.Minute)
	switch act.Do {
	case telemetry.Shelve:
		act.Until = &until
	case telemetry.Assign:
		act.To = "chi cục"
	}
	_, err := p.centre.Act(p.t.Context(), act)
	allowed := p.allows(l, id, act.Do)
	switch {
	case stale:
		if !errors.Is(err, telemetry.ErrConflict) {
			p.t.Fatalf("%s of %s with n %d: %v, want a conflict", act.Do, id, act.N, err)
		}
		p.acts["conflict"]++
		return
	case (err == nil) != allowed:
		p.t.Fatalf("%s of %s, %s: %v; the reference allows it: %v", act.Do, id, l.state(p.out(id), p.now), err, allowed)
	case err != nil:
		p.acts["refused"]++
		return
	}
	p.acts[string(act.Do)]++
	switch act.Do {
	case telemetry.Ack:
		l.acked, l.shelved, l.waits = act.By, time.Time{}, false
	case telemetry.Shelve:
		l.shelved = until
	case telemetry.Unshelve:
		l.shelved = time.Time{}
	case telemetry.Assign:
		l.assigned = act.To
	case telemetry.False, telemetry.Genuine:
		l.mistake = act.Do == telemetry.False
	}
}

// allows says what an operator may do with a warning.
func (p *province) allows(l *life, id string, do telemetry.Deed) bool {
	state := l.state(p.out(id), p.now)
	switch do {
	case telemetry.Comment:
		return true
	case telemetry.False, telemetry.Genuine:
		return l.mistake == (do == telemetry.Genuine)
	case telemetry.Assign:
		return state != telemetry.Cleared
	case telemetry.Unshelve:
		return state == telemetry.Shelved
	case telemetry.Ack:
		return state != telemetry.Cleared && state != telemetry.OutOfService
	}
	return slices.Contains([]telemetry.State{telemetry.Active, telemetry.Acknowledged, telemetry.Shelved}, state) // shelve
}

// order takes something out of service or puts it back.
func (p *province) order() {
	scope := [][2]string{{"a", ""}, {"b", "flood"}, {"", "latched"}}[p.random.IntN(3)]
	before := p.orders[scope]
	o := telemetry.Order{Device: scope[0], Rule: scope[1], Out: p.random.IntN(2) == 0, By: "lan", Why: "x"}
	isOut := before != nil && before.Out
	if before != nil {
		o.N = before.N
	}
	if o.Out && p.random.IntN(4) > 0 {
		until := p.now.Add(time.Duration(1+p.random.IntN(5)) * time.Minute)
		o.Until = &until
	}
	done, err := p.centre.Order(p.t.Context(), o)
	if (err == nil) != (o.Out || isOut) {
		p.t.Fatalf("order %+v after %+v: %v", o, before, err)
	}
	if err == nil {
		p.orders[scope] = &done
		p.acts[map[bool]string{true: "out", false: "in"}[o.Out]]++
	}
	p.pass(0)
}

// restart is a crash: the engine goes back to its checkpoint and gives again the
// steps since then. Sometimes the log is closed first, and an act comes too late.
func (p *province) restart() {
	p.acts["restart"]++
	if p.random.IntN(3) == 0 {
		if err := p.spool.Close(); err != nil {
			p.t.Fatal(err)
		}
		for id, l := range p.lives {
			_, err := p.centre.Act(p.t.Context(), telemetry.Act{ID: id, N: l.n, By: "lan", Do: telemetry.Comment, Text: "x"})
			if !errors.Is(err, console.ErrUnavailable) {
				p.t.Fatalf("an act while the log is closed: %v", err)
			}
			p.acts["outage"]++
			break
		}
		p.open()
	} else {
		p.fold()
	}
	p.engine = rules.NewEngine(rules.Options{})
	if err := p.engine.Restore(p.kept); err != nil {
		p.t.Fatal(err)
	}
	for _, f := range p.since {
		if err := p.centre.Step(p.t.Context(), p.engine.Evaluate(f.at, f.readings)); err != nil {
			p.t.Fatal(err)
		}
	}
}

// compare holds every warning against the reference.
func (p *province) compare(step int) {
	p.t.Helper()
	for id, l := range p.lives {
		w, ok := p.centre.Warning(id)
		got := fmt.Sprintf("%s %s by %q with %q mistake %v quiet %v", w.State, w.Severity, w.AckedBy, w.AssignedTo, w.FalseAlarm, w.Quiet)
		want := fmt.Sprintf("%s %s by %q with %q mistake %v quiet %v", l.state(p.out(id), p.now), l.severity, l.acked, l.assigned, l.mistake, l.silent)
		if !ok || got != want || w.N < l.n {
			p.t.Fatalf("after %d steps %s is\n%s, n %d\nwant\n%s, n from %d", step, id, got, w.N, want, l.n)
		}
		l.n = w.N
	}
	if open := len(p.centre.Warnings(true)); open != len(p.lives) {
		p.t.Fatalf("after %d steps there are %d warnings, want %d", step, open, len(p.lives))
	}
}

// TestLifecycleModel drives operators, readings, restarts and outages at random
// against the reference.
func TestLifecycleModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		p := newProvince(t, seed)
		for step := range 300 {
			p.pass(time.Duration(1+p.random.IntN(240)) * time.Second)
			switch n := p.random.IntN(20); {
			case n < 6:
				p.reading()
			case n < 17:
				p.operate()
			case n < 18:
				p.order()
			case n < 19:
				p.keep()
			default:
				p.restart()
			}
			p.compare(step)
		}
		p.numbered()
		t.Logf("seed %d: %d warnings, %v", seed, len(p.lives), p.acts)
	}
}

// numbered checks that the log has each transition of each warning once, in order.
func (p *province) numbered() {
	p.t.Helper()
	last := map[string]telemetry.Transition{}
	err := p.spool.Warnings().Replay(p.t.Context(), func(t telemetry.Transition) {
		before := last[t.ID]
		if t.Order == nil && (t.N != before.N+1 || !t.At.After(before.At)) {
			p.t.Errorf("%s follows n %d of %v at %v", t.Key(), before.N, before.At, t.At)
		}
		last[t.ID] = t
	})
	if err != nil {
		p.t.Fatal(err)
	}
	for id, l := range p.lives {
		if last[id].N != l.n {
			p.t.Errorf("the log ends with %s/%d, want %d", id, last[id].N, l.n)
		}
	}
}
