package console

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"haidang/gateway/console/page"
	"haidang/gateway/telemetry"
)

// rulePageRoutes are the pages of rules.
func (c *Console) rulePageRoutes(lang []string) []route {
	routes := []route{{"/rules", http.MethodGet, lang, c.rulesPage}}
	if c.sources.RuleBook.Save != nil {
		routes = append(routes,
			route{"/rules/edit/{rule}", http.MethodGet, lang, c.ruleEditPage},
			route{"/rules/new", http.MethodGet, lang, c.ruleEditPage},
			route{"/rules/history", http.MethodGet, lang, c.ruleHistoryPage},
			route{"/rules/history/{n}", http.MethodGet, lang, c.ruleVersionPage},
		)
	}
	return routes
}

// ruleFilesKnown returns the rule files for the pages, nil where they cannot be
// changed.
func (c *Console) ruleFilesKnown() (*page.RuleFiles, error) {
	if c.sources.RuleBook.Save == nil {
		return nil, nil
	}
	files, err := c.sources.RuleBook.Files()
	if err != nil {
		return nil, err
	}
	var book page.RuleFiles
	return &book, decode(files, &book)
}

// rulesPage serves GET /rules.
func (c *Console) rulesPage(w http.ResponseWriter, r *http.Request) error {
	known, err := c.known()
	if err != nil {
		return err
	}
	texts := map[string]page.RuleText{}
	for _, text := range known.Rules {
		texts[text.Name] = text
	}
	var counts []page.RuleCount
	if err := decode(c.sources.Rules(), &counts); err != nil {
		return err
	}
	var content page.RulesContent
	if content.Book, err = c.ruleFilesKnown(); err != nil {
		return err
	}
	for _, count := range counts {
		text := texts[count.Rule]
		if text.Severity == telemetry.NoSeverity {
			text.Severity = telemetry.Moderate // the default of a rule without levels
		}
		content.Rules = append(content.Rules, page.RuleRow{RuleCount: count, Text: text, File: fileOf(content.Book, count.Rule)})
		content.Totals.Add(count)
	}
	v := c.view(w, r, page.Rules)
	v.Content = content
	return c.writePage(w, r, http.StatusOK, v)
}

func fileOf(book *page.RuleFiles, rule string) *page.RuleFile {
	if book == nil {
		return nil
	}
	i := slices.IndexFunc(book.Files, func(f page.RuleFile) bool { return slices.Contains(f.Rules, rule) })
	if i < 0 {
		return nil
	}
	return &book.Files[i]
}

// ruleEditPage serves GET /rules/edit/{rule} and /rules/new.
func (c *Console) ruleEditPage(w http.ResponseWriter, r *http.Request) error {
	book, err := c.ruleFilesKnown()
	if err != nil {
		return err
	}
	rule := r.PathValue("rule")
	content := page.RuleEditContent{Rule: rule, Nonce: rand.Text(), RuleFile: page.RuleFile{Version: book.Version}}
	for _, f := range book.Files {
		content.Other = append(content.Other, f.Name)
	}
	if rule != "" {
		f := fileOf(book, rule)
		if f == nil {
			return c.missing(w, r, rule)
		}
		file, err := c.sources.RuleBook.File(f.Name, -1)
		if err != nil {
			return ruleProblem(err)
		}
		if err := decode(file, &content.RuleFile); err != nil {
			return err
		}
	}
	v := c.view(w, r, page.RuleEdit)
	v.Content = content
	// The editor makes its own style sheet; nothing else that is inline gets in.
	policy := c.desktop.tiles.policy()
	w.Header().Set("Content-Security-Policy", policy+"; style-src 'self' 'nonce-"+content.Nonce+"'")
	return c.writePage(w, r, http.StatusOK, v)
}

// maxHistoryPage is how many versions the page lists; the API has more.
const maxHistoryPage = 200

// ruleHistoryPage serves GET /rules/history.
func (c *Console) ruleHistoryPage(w http.ResponseWriter, r *http.Request) error {
	book, err := c.ruleFilesKnown()
	if err != nil {
		return err
	}
	versions, err := c.sources.RuleBook.Versions("", maxHistoryPage)
	if err != nil {
		return ruleProblem(err)
	}
	content := page.RuleHistoryContent{Book: book}
	if err := decode(versions, &content.Versions); err != nil {
		return err
	}
	v := c.view(w, r, page.RuleHistory)
	v.Content = content
	return c.writePage(w, r, http.StatusOK, v)
}

// ruleVersionPage serves GET /rules/history/{n}.
func (c *Console) ruleVersionPage(w http.ResponseWriter, r *http.Request) error {
	n, err := strconv.Atoi(strings.TrimSpace(r.PathValue("n")))
	if err != nil {
		return c.missing(w, r, r.PathValue("n"))
	}
	version, err := c.sources.RuleBook.Version(n)
	if err != nil {
		return c.missing(w, r, err.Error())
	}
	var content page.RuleVersionContent
	if err := decode(version, &content); err != nil {
		return err
	}
	v := c.view(w, r, page.RuleVersion)
	v.Content = content
	return c.writePage(w, r, http.StatusOK, v)
}
