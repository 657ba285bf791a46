package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/config"
	"haidang/gateway/route"
	"haidang/gateway/rulebook"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// A ruleSource is one rule file.
type ruleSource struct {
	name string // as the configuration names it; people see doc.Name
	doc  *config.Document
	file rules.File
}

// parseRules reads the text of a rule file that a person has written on the page.
func parseRules(name, text string) (ruleSource, config.Faults) {
	s := ruleSource{name: name, doc: &config.Document{Name: name}}
	if variable := config.Variable(text); variable != "" {
		return s, config.Faults{{File: name, Fault: telemetry.Faultf("", "${%s}: variables of the environment are for files of the configuration only: they may be secrets", variable)}}
	}
	doc, err := config.Parse(name, []byte(text))
	if err != nil {
		faults, ok := errors.AsType[config.Faults](err)
		if !ok {
			faults = config.Faults{{File: name, Fault: telemetry.Faultf("", "%v", err)}}
		}
		return s, faults
	}
	s.doc = doc
	return s, doc.Decode(&s.file)
}

// withRules returns the world with other rule files. With faults it is not
// compiled.
func (w *world) withRules(sources []ruleSource) (*world, config.Faults) {
	changed := *w
	changed.sources = sources
	changed.parts = maps.Clone(w.parts)
	var list []rules.Rule
	var limits []rules.Limit
	var parts, limitParts []part
	for _, s := range sources {
		parts, limitParts = append(parts, part{s.doc, len(list)}), append(limitParts, part{s.doc, len(limits)})
		list, limits = append(list, s.file.Rules...), append(limits, s.file.Limits...)
	}
	changed.document.Rules, changed.document.Limits = list, limits
	changed.parts["rules"], changed.parts["limits"] = parts, limitParts
	faults := changed.compile()
	return &changed, placeAll(faults, changed.parts, w.doc)
}

// withRule returns the world with one file changed or added.
func (w *world) withRule(s ruleSource) (*world, config.Faults) {
	sources := slices.Clone(w.sources)
	if at := slices.IndexFunc(sources, func(o ruleSource) bool { return o.name == s.name }); at >= 0 {
		sources[at] = s
	} else {
		sources = append(sources, s)
	}
	return w.withRules(sources)
}

// A ruleState is the rules in force as the page and its API see them.
type ruleState struct {
	cfg     Configuration
	world   *world // with what was changed at run time
	head    rulebook.Version
	files   []rulebook.Merged
	trouble string // why changes of the page are not in force, or cannot be made
}

func (s *ruleState) file(name string) *rulebook.Merged {
	for i := range s.files {
		if s.files[i].Name == name {
			return &s.files[i]
		}
	}
	return nil
}

// edits is the part of an instance that keeps the rules that were changed at run
// time.
type edits struct {
	book  *rulebook.Book // nil: it cannot be read
	disk  *world         // what the configuration's files say
	state atomic.Pointer[ruleState]
}

// openEdits reads what was changed of rule files at run time and puts it on top of
// the configuration's. Changes that cannot be in force are told and are not.
func (g *instance) openEdits() {
	g.measureEdits()
	g.edits.disk = g.world
	state := &ruleState{cfg: g.cfg, world: g.world, files: untouched(g.world)}
	book, err := rulebook.Open(g.cfg.Data)
	if err != nil {
		g.logger.Error("the rules that were changed on the page are not in force: those of the configuration are", "error", err)
		state.trouble = err.Error()
		g.edits.state.Store(state)
		return
	}
	g.edits.book = book
	head := g.adopt(g.world, book.Head())
	w, files, err := g.edited(g.world, head)
	if err != nil {
		g.logger.Error("the rules that were changed on the page do not fit the configuration and are not in force: see haidang rules history", "error", err)
		state.trouble = "the rules that were changed on the page do not fit the configuration and are not in force: " + err.Error()
		state.head = head
		g.edits.state.Store(state)
		return
	}
	for _, f := range conflicts(files) {
		g.logger.Error(f)
	}
	// Whom a recipient's going leaves without warnings is better off than who has the
	// rules of before.
	for _, f := range g.cfg.outOfReach(w) {
		g.logger.Error("a rule that was changed on the page names what the configuration does not have any more: " + f.String())
	}
	g.world = w
	g.edits.state.Store(&ruleState{cfg: g.cfg, world: w, head: head, files: files})
}

// measureEdits tells the metrics of what was changed of rules at run time.
func (g *instance) measureEdits() {
	gauge := func(name, help string, value func(*ruleState) int) {
		promauto.With(g.reg).NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value(g.edits.state.Load())) })
	}
	gauge("haidang_rules_edit_version", "Version of the rules that were changed on the page; 0: none was.", func(s *ruleState) int { return s.head.N })
	gauge("haidang_rules_edit_conflicts", "Rule files that were changed both in the configuration and on the page.", func(s *ruleState) int { return len(conflicts(s.files)) })
	gauge("haidang_rules_edit_trouble", "1 while the rules that were changed on the page cannot be in force.", func(s *ruleState) int {
		if s.trouble != "" {
			return 1
		}
		return 0
	})
}

func untouched(w *world) []rulebook.Merged {
	files := make([]rulebook.Merged, len(w.sources))
	for i, s := range w.sources {
		files[i] = rulebook.Merged{Name: s.name, Text: s.doc.Text(), Origin: rulebook.FromConfiguration}
	}
	return files
}

// conflicts says of files that were changed on both sides what holds.
func conflicts(files []rulebook.Merged) []string {
	var out []string
	for _, f := range files {
		if f.Conflict {
			out = append(out, fmt.Sprintf("%s was changed in the configuration and on the page: the page's text is in force until somebody decides (haidang rules revert, or the page of the rules)", f.Name))
		}
	}
	return out
}

// adopt forgets the page's text of files that the configuration has taken over:
// from now on its changes count.
func (g *instance) adopt(files *world, head rulebook.Version) rulebook.Version {
	merged, err := g.edits.book.Apply(head, files.texts())
	if err != nil {
		return head // edited tells it
	}
	next := rulebook.Version{At: time.Now(), By: g.cfg.Gateway, Why: "the configuration says the same now", Do: rulebook.Follow, Files: maps.Clone(head.Files)}
	for _, m := range merged {
		if m.Same {
			next.Changed = append(next.Changed, m.Name)
			delete(next.Files, m.Name)
		}
	}
	if len(next.Changed) == 0 {
		return head
	}
	if next, err = g.edits.book.Commit(head.N, next); err != nil {
		g.logger.Warn("what the configuration has taken over of the page's rules cannot be noted", "error", err)
		return head
	}
	return next
}

// edited returns the files of the configuration with version v on top, whose new
// texts are given.
func (g *instance) edited(files *world, v rulebook.Version, given ...string) (*world, []rulebook.Merged, error) {
	return files.withBook(g.edits.book, v, given...)
}

// withBook returns files of the configuration with version v of a book on top,
// whose new texts are given.
func (w *world) withBook(book *rulebook.Book, v rulebook.Version, given ...string) (*world, []rulebook.Merged, error) {
	if len(v.Files) == 0 {
		return w, untouched(w), nil
	}
	byName := map[string]ruleSource{}
	for _, s := range w.sources {
		byName[s.name] = s
	}
	merged, err := book.Apply(v, w.texts(), given...)
	if err != nil {
		return nil, nil, err
	}
	var sources []ruleSource
	for _, m := range merged {
		if m.Origin == rulebook.FromConfiguration {
			sources = append(sources, byName[m.Name])
			continue
		}
		s, faults := parseRules(m.Name, m.Text)
		if len(faults) > 0 {
			return nil, nil, faults
		}
		sources = append(sources, s)
	}
	changed, faults := w.withRules(sources)
	if len(faults) > 0 {
		return nil, nil, faults
	}
	return changed, merged, nil
}

// texts are the rule files of the configuration as they are written.
func (w *world) texts() []rulebook.Text {
	texts := make([]rulebook.Text, len(w.sources))
	for i, s := range w.sources {
		texts[i] = rulebook.Text{Name: s.name, Text: s.doc.Text()}
	}
	return texts
}

// current is the configuration with what a reload has changed of it.
func (g *instance) current() Configuration {
	cfg := g.cfg
	if g.outside.ioc != nil || g.outside.routes != nil {
		cfg.IOC, cfg.Routes = g.outside.ioc, g.outside.routes
	}
	return cfg
}

// noteRules keeps what is in force now for the page. g.reloading is held.
func (g *instance) noteRules(files []rulebook.Merged) {
	before := g.edits.state.Load()
	next := &ruleState{cfg: g.current(), world: g.world, files: before.files, head: before.head, trouble: before.trouble}
	if files != nil && g.edits.book != nil {
		next.files, next.head, next.trouble = files, g.edits.book.Head(), ""
	}
	g.edits.state.Store(next)
}

// withEdits returns files that were read again, and with them the configuration cfg,
// with what was changed on the page. g.reloading is held.
func (g *instance) withEdits(cfg *Configuration, disk *world) (*world, []rulebook.Merged, error) {
	if g.edits.book == nil {
		return disk, untouched(disk), nil
	}
	w, merged, err := g.edited(disk, g.adopt(disk, g.edits.book.Head()))
	if err != nil {
		return nil, nil, fmt.Errorf("with the rules that were changed on the page (haidang rules history): %w", err)
	}
	if faults := cfg.outOfReach(w); w != disk && len(faults) > 0 {
		return nil, nil, fmt.Errorf("with the rules that were changed on the page (haidang rules history): %w", faults)
	}
	for _, said := range conflicts(merged) {
		g.logger.Error(said)
	}
	return w, merged, nil
}

// outOfReach reports routes that name a rule which would be gone, and rules that
// name a recipient which is not there.
func (c *Configuration) outOfReach(w *world) config.Faults {
	faults := w.doc.Locate(telemetry.Under("routes", route.Validate(c.Routes, c.routable(w))))
	return append(faults, placeAll(c.unknownRecipients(w), w.parts, w.doc)...)
}
