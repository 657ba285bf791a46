// Package page renders the operators' pages and holds their assets.
//
// Every page is whole without script: lists, histories and forms' contents are
// in the HTML. Script adds what HTML cannot: it follows the events, draws map and
// charts, and sends what the operator does to the JSON API. There is no inline
// script or style, and nothing is asked of another host, so that the strictest
// Content-Security-Policy holds and the pages work with the centre's line cut.
//
// Pages are Vietnamese or English; both texts stand side by side in the
// templates. What comes from devices, rules and people is escaped by
// html/template and never marked as safe.
//
// The libraries under assets/vendor are pinned in npm/package.json and copied by
// npm/build.mjs; their licences are in assets/vendor/LICENSES.txt.
package page

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"time"
)

//go:embed templates/*.html
var templates embed.FS

// Languages are those that there are pages in; the first is the default.
func Languages() []string { return []string{"vi", "en"} }

// Names of the pages.
const (
	Now     = "now"
	Warning = "warning"
	Devices = "devices"
	Device  = "device"
	Health  = "health"
	Rules   = "rules"
	Login   = "login"
	Missing = "missing"
	Drills  = "drill"
	Keys    = "keys"
)

func names() []string {
	return []string{Now, Warning, Devices, Device, Health, Rules, Login, Missing, Drills, Keys, RuleEdit, RuleHistory, RuleVersion}
}

// A View is what every page shows around its content.
type View struct {
	Lang             string // one of Languages
	Name             string // of the page
	Path             string // of the request, where the other language is
	Gateway, Version string
	Now              time.Time
	Account, Role    string // who looks; "" while there are no accounts
	// What who looks may do. The API decides; the page leaves out what would be
	// refused.
	Operate, Rule, Administer bool
	Has                       Sections
	Drill                     *Drill
	IdleS                     int    // after so long without an act the session ends; 0: never
	Tiles                     string // URL of map tiles, as https://tiles.example.vn/{z}/{x}/{y}.png; "": none
	TilesCredit               string

	Content any
}

// Sections are the pages that there are besides Now.
type Sections struct{ Devices, Rules, Health, DeadLetters, Recipients, CAP, Series, Change, Drill, State, Admit bool }

// A Drill is the exercise that runs.
type Drill struct {
	Scenario string    `json:"scenario"`
	By       string    `json:"by"`
	Why      string    `json:"why"`
	Began    time.Time `json:"began"`
	Ends     time.Time `json:"ends"`
	Speed    float64   `json:"speed"`
	Steps    int       `json:"steps"`
	Done     int       `json:"done"`
}

// Pages renders pages. It is safe for concurrent use.
type Pages struct {
	assets *assetSet
	pages  map[string]map[string]*template.Template // by language and name
}

// New reads templates and assets.
func New() (*Pages, error) {
	assets, err := readAssets()
	if err != nil {
		return nil, err
	}
	p := &Pages{assets: assets, pages: map[string]map[string]*template.Template{}}
	for _, lang := range Languages() {
		layout, err := template.New("layout.html").Funcs(functions(lang, assets)).ParseFS(templates, "templates/layout.html", "templates/parts.html")
		if err != nil {
			return nil, fmt.Errorf("read the layout of the pages: %w", err)
		}
		p.pages[lang] = map[string]*template.Template{}
		for _, name := range names() {
			whole, err := layout.Clone()
			if err == nil {
				whole, err = whole.ParseFS(templates, "templates/"+name+".html")
			}
			if err != nil {
				return nil, fmt.Errorf("read the page %s: %w", name, err)
			}
			p.pages[lang][name] = whole
		}
	}
	return p, nil
}

// Render writes the page that the view names.
func (p *Pages) Render(v View) ([]byte, error) {
	in, ok := p.pages[v.Lang]
	if !ok {
		in = p.pages[Languages()[0]]
		v.Lang = Languages()[0]
	}
	page, ok := in[v.Name]
	if !ok {
		return nil, fmt.Errorf("there is no page %q", v.Name)
	}
	var body bytes.Buffer
	if err := page.Execute(&body, v); err != nil {
		return nil, fmt.Errorf("write the page %s: %w", v.Name, err)
	}
	return body.Bytes(), nil
}

// Asset returns an asset by its path below /assets/.
func (p *Pages) Asset(name string) (*Asset, bool) {
	a, ok := p.assets.byName[name]
	return a, ok
}
