package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

const (
	maxRuleBody   = 600 << 10 // a rule file of at most 256 KiB as JSON
	maxVersions   = 500       // of the history in one answer
	checkTime     = 5 * time.Second
	tryTime       = 15 * time.Second
	backtestTime  = 2 * time.Minute
	backtestWrite = 10 * time.Second // for one line of its answer
	maxBacktests  = 2                // at a time, of all
	maxChecks     = 2                // at a time, of all; others wait
	maxPast       = 400 * 24 * time.Hour
)

// A RuleBook is what people read and change of rule files while the gateway runs.
// Save is required, and then all of it.
type RuleBook struct {
	// Files tells the files and the version in force, File one of them: as it is
	// now (version -1) or was.
	Files func() (any, error)
	File  func(name string, version int) (any, error)
	// Versions tells the history, the newest first, of a file or of all (""), and
	// Version one with what it changed.
	Versions func(name string, limit int) (any, error)
	Version  func(n int) (any, error)
	// Words are what may stand in a rule file, for completion.
	Words func() any
	// Check compiles a draft. Try judges its rule by the newest readings, Backtest
	// by those of the past: it calls progress with the share that is done.
	Check    func(ctx context.Context, d RuleDraft) (any, error)
	Try      func(ctx context.Context, d RuleDraft) (any, error)
	Backtest func(ctx context.Context, t RuleTrial, progress func(share float64)) (any, error)
	// Save puts a text in force; Return an earlier version, or the configuration's
	// files.
	Save   func(ctx context.Context, e RuleEdit) (any, error)
	Return func(ctx context.Context, r RuleReturn) (any, error)
}

// A RuleDraft is a rule file as somebody writes it.
type RuleDraft struct {
	File string `json:"file"`
	Text string `json:"text"`
	Rule string `json:"rule"` // at hand
}

// A RuleTrial is a draft and the past on which it is tried.
type RuleTrial struct {
	RuleDraft
	Device string    `json:"device"` // "": all
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
}

// A RuleEdit is a change of a rule file: another text, or (Text nil) the marks of
// a rule only.
type RuleEdit struct {
	File     string
	Text     *string
	Rule     string // whose marks are set
	Shadow   *bool
	Disabled *bool
	Seen     int // version that the author saw
	By, Why  string
}

// A RuleReturn puts back one file, or all (""), as of version To; 0: what the
// configuration says.
type RuleReturn struct {
	File    string
	To      int
	Seen    int
	By, Why string
}

// ErrNoRuleFile is wrapped by errors about a file, rule or version that is not
// there.
var ErrNoRuleFile = errors.New("not there")

// A RuleStale is the error of an edit whose author did not see the newest version.
type RuleStale struct {
	Version int
	By, Why string
	At      time.Time
}

// Error tells who was faster.
func (s *RuleStale) Error() string {
	return fmt.Sprintf("%s has changed the rules meanwhile, at %s (version %d: %s): look at that first", s.By, s.At.UTC().Format(time.RFC3339), s.Version, s.Why)
}

// RuleFaults is the error of a text that cannot be put in force.
type RuleFaults struct {
	First  string
	Faults any // as Check tells them
}

// Error tells the first of them.
func (f *RuleFaults) Error() string { return f.First }

// backtests are those that run, by session.
type backtests struct {
	mu      sync.Mutex
	running map[string]bool
	checks  chan struct{}
}

func (c *Console) ruleBookRoutes() []route {
	book := &c.sources.RuleBook
	if book.Save == nil {
		return nil
	}
	get, post := http.MethodGet, http.MethodPost
	return []route{
		{"/api/v1/rules/files", get, nil, c.ruleFiles},
		{"/api/v1/rules/file", get, []string{"name", "version"}, c.ruleFile},
		{"/api/v1/rules/file", http.MethodPut, []string{"name"}, c.saveRules},
		{"/api/v1/rules/{rule}", http.MethodPatch, nil, c.markRule},
		{"/api/v1/rules/history", get, []string{"name", "limit"}, c.ruleVersions},
		{"/api/v1/rules/history/{n}", get, nil, c.ruleVersion},
		{"/api/v1/rules/words", get, nil, list("words", book.Words)},
		{"/api/v1/rules/check", post, nil, c.draft(checkTime, book.Check)},
		{"/api/v1/rules/try", post, nil, c.draft(tryTime, book.Try)},
		{"/api/v1/rules/backtest", post, nil, c.backtest},
		{"/api/v1/rules/revert", post, nil, c.revertRules},
	}
}

func ruleProblem(err error) error {
	var stale *RuleStale
	var faults *RuleFaults
	switch {
	case errors.As(err, &stale):
		p := problemf(http.StatusPreconditionFailed, "If-Match", "%v", err)
		p.N = stale.Version
		return p
	case errors.As(err, &faults):
		p := problemf(http.StatusUnprocessableEntity, "text", "%v", err)
		p.Faults = faults.Faults
		return p
	case errors.Is(err, ErrNoRuleFile):
		return problemf(http.StatusNotFound, "", "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusServiceUnavailable, "", "this took too long and was given up")
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled):
		return problemf(http.StatusServiceUnavailable, "", "%v", err)
	}
	return problemf(http.StatusBadRequest, "", "%v", err)
}

// ruleFiles serves GET /api/v1/rules/files.
func (c *Console) ruleFiles(w http.ResponseWriter, _ *http.Request) error {
	files, err := c.sources.RuleBook.Files()
	if err != nil {
		return ruleProblem(err)
	}
	return writeJSON(w, http.StatusOK, files)
}

// ruleFile serves GET /api/v1/rules/file. Its ETag is for If-Match.
func (c *Console) ruleFile(w http.ResponseWriter, r *http.Request) error {
	version := -1
	if text := r.URL.Query().Get("version"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return problemf(http.StatusBadRequest, "version", "version %q is not a number from 0", text)
		}
		version = n
	}
	file, err := c.sources.RuleBook.File(r.URL.Query().Get("name"), version)
	if err != nil {
		return ruleProblem(err)
	}
	var seen struct{ Version int }
	if err := decode(file, &seen); err != nil {
		return err
	}
	w.Header().Set("ETag", etag(seen.Version))
	return writeJSON(w, http.StatusOK, file)
}

func etag(version int) string { return `"` + strconv.Itoa(version) + `"` }

// seen reads If-Match: the version that the author saw. Without it two authors
// would overwrite each other.
func seen(r *http.Request) (int, error) {
	text := r.Header.Get("If-Match")
	if text == "" {
		return 0, problemf(http.StatusPreconditionRequired, "If-Match", `If-Match is missing: expected the version that was seen, such as "7"`)
	}
	n, err := strconv.Atoi(strings.Trim(text, `"`))
	if err != nil || n < 0 {
		return 0, problemf(http.StatusBadRequest, "If-Match", `If-Match %s is not a version such as "7"`, text)
	}
	return n, nil
}

// ruleBody reads the body of a change into into, and who sends it and why.
func ruleBody(w http.ResponseWriter, r *http.Request, into any, expected string) error {
	if err := jsonType(r); err != nil {
		return err
	}
	body, err := readBodyUpTo(w, r, maxRuleBody)
	if err != nil {
		return err
	}
	if err := decodeStrictly(body, into); err != nil {
		return problemf(http.StatusBadRequest, fieldOf(err), "the body is not an object of %s: %v", expected, err)
	}
	return nil
}

// saveRules serves PUT /api/v1/rules/file.
func (c *Console) saveRules(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Text     *string `json:"text"`
		Rule     string  `json:"rule"`
		Shadow   *bool   `json:"shadow"`
		Disabled *bool   `json:"disabled"`
		By       string  `json:"by"`
		Why      string  `json:"why"`
	}
	if err := ruleBody(w, r, &in, "text, by, why (and rule with shadow or disabled)"); err != nil {
		return err
	}
	if in.Text == nil {
		return problemf(http.StatusBadRequest, "text", "text is missing: expected the whole file")
	}
	return c.save(w, r, RuleEdit{File: r.URL.Query().Get("name"), Text: in.Text, Rule: in.Rule, Shadow: in.Shadow, Disabled: in.Disabled, By: in.By, Why: in.Why})
}

// markRule serves PATCH /api/v1/rules/{rule}.
func (c *Console) markRule(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Shadow   *bool  `json:"shadow"`
		Disabled *bool  `json:"disabled"`
		By       string `json:"by"`
		Why      string `json:"why"`
	}
	if err := ruleBody(w, r, &in, "shadow or disabled, by, why"); err != nil {
		return err
	}
	if in.Shadow == nil && in.Disabled == nil {
		return problemf(http.StatusBadRequest, "", "nothing is to be changed: expected shadow or disabled")
	}
	return c.save(w, r, RuleEdit{Rule: r.PathValue("rule"), Shadow: in.Shadow, Disabled: in.Disabled, By: in.By, Why: in.Why})
}

func (c *Console) save(w http.ResponseWriter, r *http.Request, e RuleEdit) (err error) {
	if e.Seen, err = seen(r); err != nil {
		return err
	}
	if e.By, e.Why, err = whoAndWhy(actor(r, e.By), e.Why); err != nil {
		return err
	}
	return c.changed(w, func() (any, error) { return c.sources.RuleBook.Save(r.Context(), e) })
}

// changed answers a change of the rules; pages show the new ones from now on.
func (c *Console) changed(w http.ResponseWriter, change func() (any, error)) error {
	answer, err := change()
	if err != nil {
		return ruleProblem(err)
	}
	c.desktop.edits.Add(1)
	var now struct{ Version int }
	if err := decode(answer, &now); err != nil {
		return err
	}
	w.Header().Set("ETag", etag(now.Version))
	return writeJSON(w, http.StatusOK, answer)
}

// revertRules serves POST /api/v1/rules/revert.
func (c *Console) revertRules(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		File string `json:"file"`
		To   *int   `json:"to"`
		By   string `json:"by"`
		Why  string `json:"why"`
	}
	err := ruleBody(w, r, &in, "to, file, by, why")
	if err != nil {
		return err
	}
	if in.To == nil || *in.To < 0 {
		return problemf(http.StatusBadRequest, "to", "to is missing: expected a version from 1, or 0 for what the configuration says")
	}
	back := RuleReturn{File: in.File, To: *in.To}
	if back.Seen, err = seen(r); err != nil {
		return err
	}
	if back.By, back.Why, err = whoAndWhy(actor(r, in.By), in.Why); err != nil {
		return err
	}
	return c.changed(w, func() (any, error) { return c.sources.RuleBook.Return(r.Context(), back) })
}

// ruleVersions serves GET /api/v1/rules/history.
func (c *Console) ruleVersions(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r, 100, maxVersions)
	if err != nil {
		return err
	}
	versions, err := c.sources.RuleBook.Versions(r.URL.Query().Get("name"), limit)
	if err != nil {
		return ruleProblem(err)
	}
	return writeJSON(w, http.StatusOK, map[string]any{"versions": versions})
}

// ruleVersion serves GET /api/v1/rules/history/{n}.
func (c *Console) ruleVersion(w http.ResponseWriter, r *http.Request) error {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil {
		return problemf(http.StatusBadRequest, "n", "%q is not the number of a version", r.PathValue("n"))
	}
	version, err := c.sources.RuleBook.Version(n)
	if err != nil {
		return ruleProblem(err)
	}
	return writeJSON(w, http.StatusOK, version)
}

// draft serves what is done with a draft within some seconds, by few at a time.
func (c *Console) draft(most time.Duration, do func(context.Context, RuleDraft) (any, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var in RuleDraft
		if err := ruleBody(w, r, &in, "file, text, rule"); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(r.Context(), most)
		defer cancel()
		select {
		case c.backtests.checks <- struct{}{}:
			defer func() { <-c.backtests.checks }()
		case <-ctx.Done():
			return problemf(http.StatusServiceUnavailable, "", "too many drafts are looked at; try again")
		}
		answer, err := do(ctx, in)
		if err != nil {
			return ruleProblem(err)
		}
		return writeJSON(w, http.StatusOK, answer)
	}
}

// begin notes that a session runs a backtest; the error says why it may not.
func (b *backtests) begin(session string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.running[session]:
		return problemf(http.StatusConflict, "", "a backtest of yours runs already: end it first")
	case len(b.running) >= maxBacktests:
		return problemf(http.StatusTooManyRequests, "", "%d backtests of others run: try again in a minute", len(b.running))
	}
	b.running[session] = true
	return nil
}

func (b *backtests) end(session string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, session)
}

// sessionOf names who runs a backtest: the browser, else the account.
func sessionOf(r *http.Request) string {
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		return "session " + cookie.Value
	}
	if a := telemetry.AccountOf(r.Context()); a != nil {
		return "account " + a.Name
	}
	return ""
}

// backtest serves POST /api/v1/rules/backtest: a line of JSON with the share that
// is done now and then, and one with the result or the error at the end. It ends
// when who asked goes away.
func (c *Console) backtest(w http.ResponseWriter, r *http.Request) error {
	var in RuleTrial
	if err := ruleBody(w, r, &in, "file, text, rule, device, from, to"); err != nil {
		return err
	}
	if in.To.IsZero() {
		in.To = time.Now()
	}
	if length := in.To.Sub(in.From); in.From.IsZero() || length <= 0 || length > maxPast {
		return problemf(http.StatusBadRequest, "from", "from %s to %s is not a time of at most 400 days", in.From.Format(time.RFC3339), in.To.Format(time.RFC3339))
	}
	session := sessionOf(r)
	if err := c.backtests.begin(session); err != nil {
		return err
	}
	defer c.backtests.end(session)
	ctx, cancel := context.WithTimeout(r.Context(), backtestTime)
	defer cancel()
	line := http.NewResponseController(w)
	// It outlives the server's own timeouts; each line has one.
	if err := line.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("begin the answer of a backtest: %w", err)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	tell := func(v any) {
		text, err := json.Marshal(v)
		if err == nil {
			err = line.SetWriteDeadline(time.Now().Add(backtestWrite))
		}
		if err == nil {
			_, err = w.Write(append(text, '\n'))
		}
		if err == nil {
			err = line.Flush()
		}
		if err != nil {
			cancel() // nobody reads it
		}
	}
	told := time.Now()
	tell(map[string]any{"share": 0})
	report, err := c.sources.RuleBook.Backtest(ctx, in, func(share float64) {
		if now := time.Now(); now.Sub(told) >= 200*time.Millisecond {
			told = now
			tell(map[string]any{"share": share})
		}
	})
	switch {
	case err == nil:
		tell(map[string]any{"report": report})
	case errors.Is(err, context.DeadlineExceeded):
		tell(map[string]any{"error": problemf(0, "", "it took longer than %s: choose a shorter time or one device", telemetry.Duration(backtestTime)).in(r).Detail})
	default:
		tell(map[string]any{"error": problemf(0, "", "%v", err).in(r).Detail})
	}
	return nil
}
