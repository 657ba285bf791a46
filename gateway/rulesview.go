package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"haidang/gateway/console"
	"haidang/gateway/rulebook"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// ruleBook is what the console reads and changes of rule files.
func (g *instance) ruleBook() console.RuleBook {
	return console.RuleBook{
		Files: func() (any, error) { return g.ruleFiles(), nil }, File: g.ruleFile,
		Versions: g.ruleVersions, Version: g.ruleVersion, Words: g.ruleWords,
		Check: g.checkDraft, Try: g.tryDraft, Backtest: g.backtestDraft,
		Save: g.saveRules, Return: g.returnRules,
	}
}

// A toldVersion is a version as the API tells it.
type toldVersion struct {
	Version int       `json:"version"`
	At      time.Time `json:"at,omitzero"`
	By      string    `json:"by,omitempty"`
	Why     string    `json:"why,omitempty"`
	Do      string    `json:"do,omitempty"`
	To      int       `json:"to,omitempty"`
	Files   []string  `json:"files,omitempty"` // whose text it changed
}

func tellVersion(v rulebook.Version) toldVersion {
	return toldVersion{Version: v.N, At: v.At, By: v.By, Why: v.Why, Do: v.Do, To: v.To, Files: v.Changed}
}

// A toldFile is a rule file as the API tells it.
type toldFile struct {
	Name     string       `json:"name"`
	Origin   string       `json:"origin"` // configuration or page
	Conflict bool         `json:"conflict,omitempty"`
	Rules    []string     `json:"rules"`
	Changed  *toldVersion `json:"changed,omitempty"` // the newest change on the page

	Version int     `json:"version,omitempty"` // of all rules: for If-Match
	Text    *string `json:"text,omitempty"`
	Theirs  *string `json:"theirs,omitempty"` // of a conflict: the configuration's text

	Lines []rulebook.Line `json:"lines,omitempty"` // of a conflict: from the configuration's text to the page's
}

type toldFiles struct {
	toldVersion
	Trouble string     `json:"trouble,omitempty"`
	Files   []toldFile `json:"rule_files"`
}

func (g *instance) ruleFiles() toldFiles {
	state := g.edits.state.Load()
	out := toldFiles{toldVersion: tellVersion(state.head), Trouble: state.trouble, Files: []toldFile{}}
	for _, f := range state.files {
		out.Files = append(out.Files, g.tellFile(state, f))
	}
	return out
}

func (g *instance) tellFile(state *ruleState, f rulebook.Merged) toldFile {
	out := toldFile{Name: f.Name, Origin: f.Origin, Conflict: f.Conflict, Rules: []string{}}
	if f.Conflict {
		out.Lines = rulebook.Around(rulebook.Diff(f.Theirs, f.Text), contextLines)
	}
	for _, s := range state.world.sources {
		if s.name == f.Name {
			for _, r := range s.file.Rules {
				out.Rules = append(out.Rules, r.Name)
			}
		}
	}
	if g.edits.book != nil {
		if last := g.edits.book.Last(state.head, f.Name); last.N > 0 {
			changed := tellVersion(last)
			out.Changed = &changed
		}
	}
	return out
}

// ruleFile tells a file as it is now, or as it was in a version.
func (g *instance) ruleFile(name string, version int) (any, error) {
	state := g.edits.state.Load()
	if version >= 0 {
		text, err := g.textAt(name, version)
		if err != nil {
			return nil, err
		}
		return toldFile{Name: name, Origin: rulebook.FromPage, Rules: []string{}, Version: version, Text: &text}, nil
	}
	f := state.file(name)
	if f == nil {
		return nil, fmt.Errorf("%w: there is no rule file %q", console.ErrNoRuleFile, name)
	}
	out := g.tellFile(state, *f)
	out.Version, out.Text = state.head.N, &f.Text
	if f.Conflict {
		out.Theirs = &f.Theirs
	}
	return out, nil
}

// textAt returns a file's text in a version.
func (g *instance) textAt(name string, version int) (string, error) {
	if g.edits.book == nil {
		return "", errNoBook
	}
	var files []rulebook.Text
	for _, f := range g.edits.state.Load().files {
		if f.Origin == rulebook.FromConfiguration {
			files = append(files, rulebook.Text{Name: f.Name, Text: f.Text})
		}
	}
	text, err := textAt(g.edits.book, files, name, version)
	if errors.Is(err, rulebook.ErrNoVersion) {
		err = fmt.Errorf("%w: %w", console.ErrNoRuleFile, err)
	}
	return text, err
}

// textAt returns a file's text in a version of a book; that of a file that was not
// changed then is what the next change was made of, else the configuration's.
func textAt(book *rulebook.Book, files []rulebook.Text, name string, version int) (string, error) {
	v, err := book.Version(version)
	if err != nil {
		return "", err
	}
	if f, changed := v.Files[name]; changed {
		return book.Text(f.Text)
	}
	for n := version + 1; n <= book.Head().N; n++ {
		next, err := book.Version(n)
		if err != nil {
			return "", err
		}
		if f, changed := next.Files[name]; changed {
			return book.Text(f.Base)
		}
	}
	for _, f := range files {
		if f.Name == name {
			return f.Text, nil
		}
	}
	return "", nil
}

// ruleVersions tells the history, the newest first.
func (g *instance) ruleVersions(name string, limit int) (any, error) {
	out := []toldVersion{}
	if g.edits.book == nil {
		return out, nil
	}
	for _, v := range g.edits.book.Versions(name, limit) {
		out = append(out, tellVersion(v))
	}
	return out, nil
}

// A fileChange is what a version changed in a file.
type fileChange struct {
	Name  string          `json:"name"`
	Lines []rulebook.Line `json:"lines"` // of both texts, around what differs; @ stands for what is left out
}

// contextLines is how many lines are told around each that differs.
const contextLines = 4

// ruleVersion tells a version with what it changed.
func (g *instance) ruleVersion(n int) (any, error) {
	if g.edits.book == nil {
		return nil, errNoBook
	}
	v, err := g.edits.book.Version(n)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("%w: there is no version %d of the rules", console.ErrNoRuleFile, n)
	}
	out := struct {
		toldVersion
		Changes []fileChange `json:"changes"`
		Newest  int          `json:"newest"`
	}{tellVersion(v), []fileChange{}, g.edits.book.Head().N}
	for _, name := range v.Changed {
		before, err := g.textAt(name, n-1)
		if err != nil {
			return nil, err
		}
		after, err := g.textAt(name, n)
		if err != nil {
			return nil, err
		}
		out.Changes = append(out.Changes, fileChange{name, rulebook.Around(rulebook.Diff(before, after), contextLines)})
	}
	return out, nil
}

// ruleWords are what may stand in a rule file, for completion.
type ruleWords struct {
	Kinds      []telemetry.Kind `json:"kinds"`
	Functions  []rules.Function `json:"functions"`
	Facts      []factWord       `json:"facts"`
	Zones      []string         `json:"zones"`
	Limits     []string         `json:"limits"`
	Recipients []string         `json:"recipients"`
	Rules      []string         `json:"rules"`
}

// A factWord is a fact of devices.
type factWord struct {
	Name    string `json:"name"`
	Devices int    `json:"devices"` // that have it
	Example any    `json:"example"`
}

// zoneNames returns the names of the areas and lines of a GeoJSON document that the
// rules have accepted.
func zoneNames(text json.RawMessage) []string {
	var c struct {
		Features []struct {
			Properties struct{ Name string }
		}
	}
	names := []string{}
	if json.Unmarshal(text, &c) == nil {
		for _, f := range c.Features {
			names = append(names, f.Properties.Name)
		}
	}
	sort.Strings(names)
	return slices.Compact(names)
}

func (g *instance) ruleWords() any {
	state := g.edits.state.Load()
	w := state.world
	out := ruleWords{Kinds: w.document.Kinds, Functions: rules.Functions(), Facts: []factWord{}, Zones: []string{}, Limits: []string{}, Recipients: state.cfg.recipientNames(), Rules: []string{}}
	facts := map[string]*factWord{}
	for _, name := range []string{"id", "name", "site", "owner", "lat", "lon", "interval_s"} {
		facts[name] = &factWord{Name: name}
	}
	for i := range w.document.Devices {
		d := &w.document.Devices[i]
		for _, name := range append(slices.Collect(maps.Keys(d.Facts)), "id", "name", "site", "owner", "lat", "lon", "interval_s") {
			v, has := d.Fact(name)
			if !has {
				continue
			}
			if facts[name] == nil {
				facts[name] = &factWord{Name: name}
			}
			facts[name].Devices++
			facts[name].Example = v
		}
	}
	for _, name := range sortedNames(facts) {
		out.Facts = append(out.Facts, *facts[name])
	}
	out.Zones = append(out.Zones, zoneNames(w.document.Zones)...)
	for _, l := range w.document.Limits {
		out.Limits = append(out.Limits, l.Name)
	}
	for _, r := range w.document.Rules {
		out.Rules = append(out.Rules, r.Name)
	}
	sort.Strings(out.Limits)
	out.Limits = slices.Compact(out.Limits)
	sort.Strings(out.Rules)
	return out
}
