package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"haidang/gateway/console/page"
	"haidang/gateway/telemetry"
)

const (
	maxRows       = 200 // warnings that the page lists; the API has them all
	maxSilent     = 30  // silent devices on the same page
	maxTable      = 3000
	maxLetters    = 100
	maxOwnLetters = 20 // on the page of a device
	// knownTime and stateTime are how old what pages show of kinds and devices
	// may be, so that two hundred open pages cost what one costs.
	knownTime = 5 * time.Second
	stateTime = 2 * time.Second
	// renderTime is how old a page of warnings may be although a warning has
	// changed since: less than the 100 ms that a page waits after an event
	// before it reads the list again.
	renderTime = 90 * time.Millisecond
	maxKept    = 64 // renderings by language, account and rights
)

// A desktop is what the pages share: renderings and what they are made of.
type desktop struct {
	pages   *page.Pages
	tiles   MapConfig
	version atomic.Uint64 // counts transitions
	edits   atomic.Uint64 // counts changes of the rules

	known   kept[*page.Known]
	devices kept[[]page.DeviceState]
	mapped  kept[rendering]
	trends  kept[rendering]

	mu     sync.Mutex
	now    map[string]rendering
	series chan struct{} // one for each query of the store that runs
}

func newDesktop(cfg MapConfig) (*desktop, error) {
	pages, err := page.New()
	if err != nil {
		return nil, err
	}
	return &desktop{pages: pages, tiles: cfg, now: map[string]rendering{}, series: make(chan struct{}, maxSeriesQueries)}, nil
}

// kept is a value that is made again when it is old.
type kept[T any] struct {
	mu      sync.Mutex
	at      time.Time
	version uint64
	value   T
}

func (k *kept[T]) get(version uint64, most time.Duration, fresh func() (T, error)) (T, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	began := time.Now()
	age := began.Sub(k.at)
	if !k.at.IsZero() && (age < renderTime || k.version == version && age < most) {
		return k.value, nil
	}
	value, err := fresh()
	if err != nil {
		return value, err
	}
	k.value, k.at, k.version = value, began, version
	return value, nil
}

// stale makes the next get make the value again.
func (k *kept[T]) stale() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = time.Time{}
}

// changed is called after a device was changed: who did it sees it at once.
func (d *desktop) changed() {
	d.devices.stale()
	d.mapped.stale()
}

// A rendering is an answer that is ready to be sent.
type rendering struct {
	at         time.Time
	version    uint64
	body, gzip []byte
}

func newRendering(body []byte, at time.Time, version uint64) (rendering, error) {
	packed, err := page.Compress(body)
	return rendering{at: at, version: version, body: body, gzip: packed}, err
}

// decode makes what a source returned into what pages show; both are told by
// their JSON.
func decode(from, into any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return fmt.Errorf("encode for a page: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("decode for a page: %w", err)
	}
	return nil
}

// known returns kinds, devices, rules and zones.
func (c *Console) known() (*page.Known, error) {
	return c.desktop.known.get(c.desktop.edits.Load(), knownTime, func() (*page.Known, error) {
		var document struct {
			Kinds   []telemetry.Kind   `json:"kinds"`
			Devices []telemetry.Device `json:"devices"`
			Rules   []page.RuleText    `json:"rules"`
			Zones   json.RawMessage    `json:"zones"`
		}
		if c.sources.RulesDocument != nil {
			if from := c.sources.RulesDocument(); from != nil {
				if err := decode(from, &document); err != nil {
					return nil, err
				}
			}
		}
		known := &page.Known{Kinds: document.Kinds, Devices: document.Devices, Rules: document.Rules, Zones: document.Zones}
		known.Index()
		return known, nil
	})
}

// states returns the devices as they stand, with the gravest severity of their
// warnings.
func (c *Console) states() ([]page.DeviceState, error) {
	if c.sources.Devices == nil {
		return nil, nil
	}
	return c.desktop.devices.get(0, stateTime, func() ([]page.DeviceState, error) {
		var devices []page.DeviceState
		return devices, decode(c.sources.Devices("", ""), &devices)
	})
}

// view is what every page shows to who asks.
func (c *Console) view(w http.ResponseWriter, r *http.Request, name string) page.View {
	v := page.View{
		Lang: c.language(w, r), Name: name, Path: r.URL.Path, Gateway: c.sources.Gateway, Version: c.sources.Version, Now: time.Now(),
		Operate: true, Rule: true, Administer: true, Tiles: c.desktop.tiles.Tiles, TilesCredit: c.desktop.tiles.Credit,
		Has: page.Sections{
			Devices: c.sources.Devices != nil && c.sources.Device != nil, Rules: c.sources.Rules != nil, Health: c.sources.Health != nil,
			DeadLetters: c.sources.DeadLetters != nil, Recipients: c.sources.Recipients != nil, CAP: c.sources.CAP != nil,
			Series: c.sources.Series != nil, Change: c.sources.ChangeDevice != nil, Drill: c.sources.Lifecycle.ActOnDrill != nil,
			State: c.sources.SetState != nil, Admit: c.sources.Admit != nil,
		},
	}
	if a := telemetry.AccountOf(r.Context()); a != nil && a.Name != "" {
		v.Account, v.Role = a.Name, string(a.Role)
		v.IdleS = int((c.sessions.idleOf(a) + time.Second - 1) / time.Second)
		v.Operate, v.Rule, v.Administer = a.May(telemetry.Operate, ""), a.May(telemetry.Rule, ""), a.May(telemetry.Administer, "")
	}
	v.Operate = v.Operate && c.sources.Act != nil
	if c.sources.Lifecycle.Drill != nil {
		var drill *page.Drill
		if err := decode(c.sources.Lifecycle.Drill(), &drill); err == nil { // in words that the page does not know it is still told
			v.Drill = drill
		} else {
			v.Drill = &page.Drill{}
		}
	}
	if v.Drill == nil && slices.ContainsFunc(c.sources.Warnings(false), func(w telemetry.Warning) bool { return w.Exercise }) {
		v.Drill = &page.Drill{} // what an exercise has raised may outlast it
	}
	return v
}

// language is that of the query, which is remembered, of the cookie, or of the
// browser.
func (c *Console) language(w http.ResponseWriter, r *http.Request) string {
	if lang := r.URL.Query().Get("lang"); slices.Contains(page.Languages(), lang) {
		http.SetCookie(w, &http.Cookie{Name: "lang", Value: lang, Path: "/", MaxAge: 365 * 24 * 3600, SameSite: http.SameSiteLaxMode})
		return lang
	}
	if cookie, err := r.Cookie("lang"); err == nil && slices.Contains(page.Languages(), cookie.Value) {
		return cookie.Value
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		lang, _, _ := strings.Cut(strings.TrimSpace(part), "-")
		if lang, _, _ = strings.Cut(lang, ";"); slices.Contains(page.Languages(), lang) {
			return lang
		}
	}
	return page.Languages()[0]
}

func (c *Console) writePage(w http.ResponseWriter, r *http.Request, status int, v page.View) error {
	body, err := c.desktop.pages.Render(v)
	if err != nil {
		return err
	}
	packed, err := page.Compress(body)
	if err != nil {
		return err
	}
	writePacked(w, r, status, "text/html; charset=utf-8", body, packed)
	return nil
}

// writePacked sends what there is packed to who takes it.
func writePacked(w http.ResponseWriter, r *http.Request, status int, contentType string, body, packed []byte) {
	w.Header().Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		body = packed
	}
	writeBody(w, status, contentType, body)
}

// home serves GET /. What is the same for many is rendered once.
func (c *Console) home(w http.ResponseWriter, r *http.Request) error {
	v := c.view(w, r, page.Now)
	key := fmt.Sprintf("%s %q %t %t %t", v.Lang, v.Account, v.Operate, v.Rule, v.Administer)
	d := c.desktop
	d.mu.Lock()
	defer d.mu.Unlock()
	version := d.version.Load()
	done, ok := d.now[key]
	if age := v.Now.Sub(done.at); !ok || age >= renderTime && (done.version != version || age >= stateTime) {
		content, err := c.nowContent(v)
		if err != nil {
			return err
		}
		v.Content = content
		body, err := d.pages.Render(v)
		if err != nil {
			return err
		}
		if done, err = newRendering(body, v.Now, version); err != nil {
			return err
		}
		if len(d.now) >= maxKept {
			clear(d.now)
		}
		d.now[key] = done
	}
	writePacked(w, r, http.StatusOK, "text/html; charset=utf-8", done.body, done.gzip)
	return nil
}

func (c *Console) nowContent(v page.View) (page.NowContent, error) {
	known, err := c.known()
	if err != nil {
		return page.NowContent{}, err
	}
	devices, err := c.states()
	if err != nil {
		return page.NowContent{}, err
	}
	warnings := c.sources.Warnings(false)
	all := c.recipients()
	content := page.NowContent{Count: len(warnings), More: max(0, len(warnings)-maxRows), Recipients: all, Devices: len(devices)}
	for s := telemetry.Extreme; s > telemetry.NoSeverity; s-- {
		content.Counts = append(content.Counts, page.Count{Severity: s})
	}
	for i := range warnings {
		w := &warnings[i]
		if w.Severity > telemetry.NoSeverity && w.Severity <= telemetry.Extreme {
			content.Counts[telemetry.Extreme-w.Severity].N++
		}
		if i < maxRows {
			row := rowOf(v.Lang, known, w)
			row.Told = c.told(w, all)
			content.Rows = append(content.Rows, row)
		}
	}
	for i := range devices {
		if !devices[i].Silent(v.Now) {
			continue
		}
		if len(content.Silent) == maxSilent {
			content.SilentMore++
			continue
		}
		content.Silent = append(content.Silent, devices[i])
	}
	return content, nil
}

func rowOf(lang string, known *page.Known, w *telemetry.Warning) page.Row {
	return page.Row{Warning: *w, DeviceName: known.Name(w.Device), Figures: known.Figures(lang, w)}
}

// told says which of those that a warning is for have accepted it.
func (c *Console) told(w *telemetry.Warning, all []page.Recipient) []page.Told {
	if c.sources.Lifecycle.Accepted == nil || w.State == telemetry.Pending || w.Quiet || w.Shadow {
		return nil
	}
	names := w.To
	if len(names) == 0 { // none named means all
		for i := range all {
			names = append(names, all[i].Name)
		}
	}
	var out []page.Told
	for _, name := range names {
		out = append(out, page.Told{Name: name, Accepted: c.sources.Lifecycle.Accepted(w.ID, name) > 0})
	}
	return out
}

// recipients returns how the recipients fare, for the pages.
func (c *Console) recipients() []page.Recipient {
	if c.sources.Recipients == nil {
		return nil
	}
	var out []page.Recipient
	for _, r := range c.sources.Recipients() {
		out = append(out, page.Recipient{Name: r.Recipient, Via: r.Via, Backlog: r.Backlog, LastSuccess: r.LastSuccess, LastError: r.LastError, LastErrorAt: r.LastErrorAt, Since: r.Since})
	}
	return out
}

// missing answers a page about something that is not there.
func (c *Console) missing(w http.ResponseWriter, r *http.Request, detail string) error {
	v := c.view(w, r, page.Missing)
	v.Content = page.MissingContent{Status: http.StatusNotFound, Detail: detail}
	return c.writePage(w, r, http.StatusNotFound, v)
}

// asset serves GET /assets/: styles, scripts and the base map. Pages name them
// with their hash.
func (c *Console) asset(w http.ResponseWriter, r *http.Request) error {
	asset, ok := c.desktop.pages.Asset(r.PathValue("name"))
	if !ok {
		return unknownPath(w, r)
	}
	packed, err := asset.Gzip()
	if err != nil {
		return err
	}
	writePacked(&forever{w, r.URL.Query().Get("v") == asset.Hash}, r, http.StatusOK, asset.Type, asset.Body, packed)
	return nil
}

// forever lets an answer be kept when its URL names its content.
type forever struct {
	http.ResponseWriter
	named bool
}

// WriteHeader says how long the answer may be kept.
func (f *forever) WriteHeader(status int) {
	if f.named {
		f.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	f.ResponseWriter.WriteHeader(status)
}

// warningPage serves GET /warnings/{id}.
func (c *Console) warningPage(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	warning, ok := c.sources.Warning(id)
	if !ok {
		return c.missing(w, r, id)
	}
	known, err := c.known()
	if err != nil {
		return err
	}
	v := c.view(w, r, page.Warning)
	content := page.WarningContent{Row: rowOf(v.Lang, known, &warning), Acts: c.sources.Act != nil}
	content.Told = c.told(&warning, c.recipients())
	if c.sources.History != nil {
		if content.Transitions, err = c.sources.History(r.Context(), id); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		content.Transitions = slices.Clone(content.Transitions)
		slices.Reverse(content.Transitions)
	}
	if c.sources.Lifecycle.Deliveries != nil {
		answer, err := c.sources.Lifecycle.Deliveries(r.Context(), id)
		if err == nil {
			err = decode(answer, &content.Deliveries)
		}
		if err != nil {
			c.log.Warn("a page lacks the deliveries of its warning", "warning", id, "error", err)
		}
	}
	v.Content = content
	return c.writePage(w, r, http.StatusOK, v)
}
