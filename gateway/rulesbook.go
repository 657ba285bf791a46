package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/config"
	"haidang/gateway/console"
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

var (
	ruleFileName = regexp.MustCompile(`^[\p{L}\p{N}][\p{L}\p{N} ._-]*(/[\p{L}\p{N}][\p{L}\p{N} ._-]*)*\.ya?ml$`)
	errNoBook    = fmt.Errorf("%w: the history of the rules cannot be read", console.ErrUnavailable)
)

// saveRules puts another text of a rule file in force: checked, in the log, and in
// the history.
func (g *instance) saveRules(ctx context.Context, e console.RuleEdit) (any, error) {
	if err := g.mayEdit(ctx); err != nil {
		return nil, err
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	state := g.edits.state.Load()
	if err := state.fresh(e.Seen); err != nil {
		return nil, err
	}
	text, err := state.textOf(&e)
	if err != nil {
		return nil, err
	}
	had := state.file(e.File)
	if had == nil && !newRuleFile(e.File) {
		return nil, fmt.Errorf("%w: %q is no rule file; the name of a new one is like rules/flood.yaml, of letters, digits and ._-", console.ErrNoRuleFile, e.File)
	}
	if had != nil && had.Text == text && !had.Conflict {
		return nil, errors.New("nothing is to be changed: the text is the one in force")
	}
	s, faults := parseRules(e.File, text)
	if len(faults) > 0 {
		return nil, refusedText(s.doc, faults)
	}
	if _, faults := state.world.withRule(s); len(faults) > 0 { // with the place of each in the text
		return nil, refusedText(s.doc, faults)
	}
	next := rulebook.Version{At: g.now(), By: e.By, Why: e.Why, Do: rulebook.Edit, Changed: []string{e.File}, Files: clonedFiles(state.head)}
	theirs := textIn(g.edits.disk, e.File)
	placeText(next.Files, e.File, text, theirs)
	return g.putInForce(ctx, state, next, []string{text, theirs})
}

// placeText notes a file's text on top of the configuration's.
func placeText(files map[string]rulebook.File, name, text, theirs string) {
	f := rulebook.File{Text: textSum(text), Base: textSum(theirs)}
	if f.Text == f.Base {
		delete(files, name)
		return
	}
	files[name] = f
}

// textSum names a text; a file without a text is one that is not there.
func textSum(text string) string {
	if text == "" {
		return ""
	}
	return rulebook.Sum(text)
}

func clonedFiles(v rulebook.Version) map[string]rulebook.File {
	if v.Files == nil {
		return map[string]rulebook.File{}
	}
	return maps.Clone(v.Files)
}

func textIn(w *world, name string) string {
	for _, s := range w.sources {
		if s.name == name {
			return s.doc.Text()
		}
	}
	return ""
}

func newRuleFile(name string) bool {
	return len(name) <= 200 && ruleFileName.MatchString(name) && path.Clean(name) == name && !strings.HasSuffix(name, ".test.yaml")
}

func (g *instance) mayEdit(ctx context.Context) error {
	if err := g.started(ctx); err != nil {
		return fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	if g.edits.book == nil {
		return errNoBook
	}
	return nil
}

// fresh wants that the author saw the newest version.
func (s *ruleState) fresh(seen int) error {
	if seen == s.head.N {
		return nil
	}
	if s.head.N == 0 {
		return &console.RuleStale{By: "the configuration", Why: "the history was begun anew"}
	}
	return &console.RuleStale{Version: s.head.N, By: s.head.By, Why: s.head.Why, At: s.head.At}
}

// textOf returns the text that an edit asks for; without a file it finds that of
// the rule.
func (s *ruleState) textOf(e *console.RuleEdit) (text string, err error) {
	if e.File == "" {
		for _, source := range s.world.sources {
			if slices.ContainsFunc(source.file.Rules, func(r rules.Rule) bool { return r.Name == e.Rule }) {
				e.File = source.name
			}
		}
		if e.File == "" {
			return "", fmt.Errorf("%w: there is no rule %q", console.ErrNoRuleFile, e.Rule)
		}
	}
	if e.Text != nil {
		text = *e.Text
	} else if f := s.file(e.File); f != nil {
		text = f.Text
	}
	if len(text) > rulebook.MaxText {
		return "", fmt.Errorf("text: %d bytes are more than the %d that a rule file may have", len(text), rulebook.MaxText)
	}
	for _, mark := range []struct {
		key string
		is  *bool
	}{{"shadow", e.Shadow}, {"disabled", e.Disabled}} {
		if mark.is == nil {
			continue
		}
		if text, err = rulebook.Mark(text, e.Rule, mark.key, *mark.is); err != nil {
			return "", err
		}
	}
	return text, nil
}

// putInForce puts a version in force. The log first, as with devices: what cannot
// be told to the rules is not changed. g.reloading is held.
func (g *instance) putInForce(ctx context.Context, state *ruleState, next rulebook.Version, texts []string) (any, error) {
	files, merged, err := g.edited(g.edits.disk, next, texts...)
	if faults, ok := errors.AsType[config.Faults](err); ok {
		return nil, refusedText(nil, faults)
	}
	if err != nil {
		return nil, err
	}
	cfg := g.current()
	if faults := cfg.outOfReach(files); len(faults) > 0 {
		return nil, refusedText(nil, faults)
	}
	w, err := g.changed(files)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changePatience)
	defer cancel()
	if err := g.evaluator.announce(ctx, g.cfg.Gateway, g.now(), w.set); err != nil {
		return nil, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	kept := slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return text == "" })
	done, err := g.edits.book.Commit(state.head.N, next, kept...)
	if err != nil {
		again := g.evaluator.announce(ctx, g.cfg.Gateway, g.now(), g.world.set)
		return nil, errors.Join(fmt.Errorf("%w: %w", console.ErrUnavailable, err), again)
	}
	g.files, g.world = files, w
	g.noteRules(merged)
	entry := auditEntry{At: done.At, By: done.By, Do: "rules." + done.Do, On: strings.Join(done.Changed, ", "), Why: done.Why, Key: fmt.Sprintf("rules/%d", done.N)}
	entry.Changes = append(entry.Changes, fmt.Sprintf("version %d of the rules (haidang rules history)", done.N))
	g.record(entry)
	g.logger.Info("rules changed", "version", done.N, "by", done.By, "why", done.Why, "files", strings.Join(done.Changed, ", "))
	g.awaitRules(ctx, w.set.Hash())
	return toldVersion{Version: done.N, At: done.At, By: done.By, Why: done.Why, Files: done.Changed}, nil
}

// ruleSwitch is how long an edit waits until the engine has come to it in the log.
const ruleSwitch = 2 * time.Second

// awaitRules waits until the engine runs on the document, so that who changed it
// sees it in force; the change itself is certain already.
func (g *instance) awaitRules(ctx context.Context, hash string) {
	deadline := time.Now().Add(ruleSwitch)
	for g.evaluator.engine.Hash() != hash && time.Now().Before(deadline) && wait(ctx, 5*time.Millisecond) {
	}
}

// returnRules puts back one file or all as they were in a version.
func (g *instance) returnRules(ctx context.Context, r console.RuleReturn) (any, error) {
	if err := g.mayEdit(ctx); err != nil {
		return nil, err
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	state := g.edits.state.Load()
	if err := state.fresh(r.Seen); err != nil {
		return nil, err
	}
	old, err := g.edits.book.Version(r.To)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", console.ErrNoRuleFile, err)
	}
	next := rulebook.Version{At: g.now(), By: r.By, Why: r.Why, Do: rulebook.Revert, To: r.To, Files: clonedFiles(state.head)}
	if r.To == 0 {
		next.Do = rulebook.Follow
	}
	names := slices.Sorted(maps.Keys(state.head.Files))
	names = append(names, slices.Sorted(maps.Keys(old.Files))...)
	slices.Sort(names)
	names = slices.Compact(names)
	if r.File != "" {
		names = []string{r.File}
	}
	var texts []string
	for _, name := range names {
		theirs := textIn(g.edits.disk, name)
		text := theirs // a file that the version does not have follows the configuration
		if f, changed := old.Files[name]; changed {
			if text, err = g.edits.book.Text(f.Text); err != nil {
				return nil, err
			}
		}
		before := next.Files[name]
		placeText(next.Files, name, text, theirs)
		if next.Files[name] != before {
			next.Changed = append(next.Changed, name)
			texts = append(texts, text, theirs)
		}
	}
	if len(next.Changed) == 0 {
		return nil, errors.New("nothing is to be changed: the rules are as they were then")
	}
	return g.putInForce(ctx, state, next, texts)
}

// withEdits returns files that were read again with what was changed on the page.
// g.reloading is held.
func (g *instance) withEdits(disk *world) (*world, []rulebook.Merged, error) {
	if g.edits.book == nil {
		return disk, untouched(disk), nil
	}
	w, merged, err := g.edited(disk, g.adopt(disk, g.edits.book.Head()))
	if err != nil {
		return nil, nil, fmt.Errorf("with the rules that were changed on the page (haidang rules history): %w", err)
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
