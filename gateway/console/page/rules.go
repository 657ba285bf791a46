package page

import "time"

// Names of the pages of rules besides Rules.
const (
	RuleEdit    = "ruleedit"
	RuleHistory = "rulehistory"
	RuleVersion = "ruleversion"
)

// A RuleChange is a version of the rule files: who changed them, when and why.
type RuleChange struct {
	Version int       `json:"version"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Why     string    `json:"why"`
	Do      string    `json:"do"` // edit, revert or follow
	To      int       `json:"to"`
	Files   []string  `json:"files"`
}

// A RuleFile is a rule file as the pages show it.
type RuleFile struct {
	Name     string      `json:"name"`
	Origin   string      `json:"origin"` // configuration or page
	Conflict bool        `json:"conflict"`
	Rules    []string    `json:"rules"`
	Changed  *RuleChange `json:"changed"`
	Version  int         `json:"version"`
	Text     string      `json:"text"`
	Theirs   string      `json:"theirs"`
	Lines    []DiffLine  `json:"lines"` // of a conflict: from the configuration's text to the page's
}

// A DiffLine is a line of a comparison: its mark is a space for both texts, - for
// the old one, + for the new one, and @ for what is left out.
type DiffLine struct {
	Mark string `json:"mark"`
	Text string `json:"text"`
}

// RuleFiles are all of them, with the version in force.
type RuleFiles struct {
	RuleChange
	Trouble string     `json:"trouble"`
	Files   []RuleFile `json:"rule_files"`
}

// RulesContent is the content of Rules.
type RulesContent struct {
	Rules  []RuleRow
	Totals RuleTotals
	Book   *RuleFiles // nil: rules cannot be changed here
}

// RuleTotals are the figures of all rules together.
type RuleTotals struct {
	Raised, Errors                     uint64
	Active, Shadow, Disabled, Withheld int
}

// A RuleRow is a rule with what it did.
type RuleRow struct {
	RuleCount
	Text RuleText
	File *RuleFile // in which it stands; nil: not known
}

// RuleEditContent is the content of RuleEdit.
type RuleEditContent struct {
	RuleFile
	Rule  string   // at hand; "" of a new file
	Nonce string   // lets the editor's styles in
	Other []string // files that there are already, for a new one
}

// RuleHistoryContent is the content of RuleHistory.
type RuleHistoryContent struct {
	Versions []RuleChange
	Book     *RuleFiles
}

// RuleVersionContent is the content of RuleVersion.
type RuleVersionContent struct {
	RuleChange
	Newest  int `json:"newest"`
	Changes []struct {
		Name  string     `json:"name"`
		Lines []DiffLine `json:"lines"`
	} `json:"changes"`
}

// Add counts a rule.
func (t *RuleTotals) Add(r RuleCount) {
	t.Raised += r.Raised
	t.Errors += r.Errors
	t.Active += r.Active
	t.Withheld += r.Withheld
	if r.Shadow {
		t.Shadow++
	}
	if r.Disabled {
		t.Disabled++
	}
}
