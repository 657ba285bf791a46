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
	"time"

	"haidang/gateway/config"
	"haidang/gateway/console"
	"haidang/gateway/rulebook"
	"haidang/rules"
)

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
	_, s, faults, err := state.readDraft(console.RuleDraft{File: e.File, Text: text})
	if err != nil {
		return nil, err
	}
	if len(faults) > 0 { // with the place of each in the text
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
