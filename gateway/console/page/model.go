package page

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"haidang/gateway/telemetry"
)

// A Row is a warning in the list of Now.
type Row struct {
	telemetry.Warning
	DeviceName string
	Figures    []Figure
	Told       []Told
}

// Told says whether a recipient has accepted the warning.
type Told struct {
	Name     string
	Accepted bool
}

// NowContent is the content of Now.
type NowContent struct {
	Rows       []Row
	Count      int // of all; the page lists Rows
	More       int
	Counts     []Count // by severity, the gravest first
	Unacked    int
	Recipients []Recipient
	Silent     []DeviceState
	SilentMore int
	Devices    int
}

// A Count is how many warnings of a severity there are.
type Count struct {
	Severity telemetry.Severity
	N        int
}

// A Recipient says how one recipient of warnings fares.
type Recipient struct {
	Name, Via   string
	Backlog     int
	LastSuccess *time.Time
	LastError   string
	LastErrorAt *time.Time
	Since       *time.Time // it fails since then
}

// WarningContent is the content of Warning.
type WarningContent struct {
	Row
	Transitions []telemetry.Transition // the newest first
	Deliveries  []Delivery
	Acts        bool // there is an API for acts
}

// A Delivery is an attempt to tell a recipient.
type Delivery struct {
	At        time.Time `json:"at"`
	Recipient string    `json:"recipient"`
	N         int       `json:"n"`
	Attempt   int       `json:"attempt"`
	OK        bool      `json:"ok"`
	Accepted  bool      `json:"accepted"`
	Answer    string    `json:"answer"`
	Error     string    `json:"error"`
}

// A DeviceState is what a page shows of /api/v1/devices.
type DeviceState struct {
	ID         string                 `json:"id"`
	Name       string                 `json:"name"`
	Site       string                 `json:"site"`
	Owner      string                 `json:"owner"`
	Registered bool                   `json:"registered"`
	Kinds      []string               `json:"kinds"`
	Interval   string                 `json:"interval"`
	Lat        *float64               `json:"lat"`
	Lon        *float64               `json:"lon"`
	Facts      map[string]any         `json:"facts"`
	Changed    map[string]any         `json:"changed"`
	State      string                 `json:"state"`
	Problems   []string               `json:"problems"`
	Heard      *time.Time             `json:"heard"`
	Source     string                 `json:"source"`
	Quality    string                 `json:"quality"`
	Readings   uint64                 `json:"readings"`
	Up         *bool                  `json:"up"`
	Errors     map[string]int         `json:"errors"`
	Latest     map[string]LatestState `json:"latest"`

	ProblemTexts []telemetry.Text `json:"problem_texts"`
	FirstContact *time.Time       `json:"first_contact"`
	Held         uint64           `json:"held"`
	Refused      *Change          `json:"refused"`
	Period       *Period          `json:"period"`
	Links        []Link           `json:"links"`
	Cause        string           `json:"cause"`
	LastError    *LastError       `json:"last_error"`

	Severity telemetry.Severity `json:"-"` // of its gravest warning
}

// A Period is one of maintenance or calibration.
type Period struct {
	State string     `json:"state"`
	Until *time.Time `json:"until"`
}

// A Link is a way by which a device is configured to come.
type Link struct {
	Source  string `json:"source"`
	Connect string `json:"connect"`
	Unit    *int   `json:"unit"`
	Profile string `json:"profile"`
	Format  string `json:"format"`
	Modem   string `json:"modem"`
	Account string `json:"account"`
}

// A LastError is what was set aside of a device last.
type LastError struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	Detail string    `json:"detail"`
}

// Waits reports whether somebody is to decide about the device: it came by itself
// and is neither registered nor refused.
func (d DeviceState) Waits() bool {
	return d.FirstContact != nil && !d.Registered && d.Refused == nil
}

// Told returns the problems in both languages; of a gateway that does not have
// them so, as it tells them.
func (d DeviceState) Told() []telemetry.Text {
	if len(d.ProblemTexts) == len(d.Problems) {
		return d.ProblemTexts
	}
	out := make([]telemetry.Text, len(d.Problems))
	for i, p := range d.Problems {
		out[i] = telemetry.Text{VI: p, EN: p}
	}
	return out
}

// A LatestState is the newest reading of a kind.
type LatestState struct {
	Time    time.Time         `json:"time"`
	Values  map[string]any    `json:"values"`
	Quality map[string]string `json:"quality"`
	Failed  map[string]string `json:"failed"`
}

// Silent reports whether the device does not report as it should, or never did.
func (d *DeviceState) Silent(now time.Time) bool {
	if !d.Registered || d.State == "maintenance" {
		return false
	}
	interval, err := telemetry.ParseDuration(d.Interval)
	if err != nil || interval <= 0 {
		return false
	}
	return d.Heard == nil || now.Sub(*d.Heard) > 2*interval.Std()+5*time.Second
}

// DevicesContent is the content of Devices.
type DevicesContent struct {
	Waiting []DeviceState // for somebody to decide
	Refused []DeviceState
	Devices []DeviceState
	Wrong   int // of all that have problems
	Count   int
	More    int
}

// DeviceContent is the content of Device.
type DeviceContent struct {
	DeviceState
	Blocks   []Block
	Facts    []Fact
	Warnings []Row
	Changes  []Change
	Letters  []Letter // dead letters of it, the newest
}

// A Block is the newest reading of a kind on the page of a device.
type Block struct {
	Kind    string
	Title   telemetry.Text
	Time    time.Time
	Figures []Figure
}

// figure writes places with the five decimals that make a metre.
func figure(lang, name string, v float64) string {
	if name == "lat" || name == "lon" {
		return decimal(lang, strconv.FormatFloat(v, 'f', 5, 64))
	}
	return Number(lang, v)
}

// Plain reports whether there are numbers without thresholds: their charts are
// drawn when they are asked for.
func (b Block) Plain() bool {
	return slices.ContainsFunc(b.Figures, func(f Figure) bool { return f.Number && len(f.Thresholds) == 0 })
}

// A Fact is one of a device's facts.
type Fact struct {
	Name, Text string
	Changed    bool // at run time
}

// A Change is something that somebody changed of a device.
type Change struct {
	At  time.Time `json:"at"`
	By  string    `json:"by"`
	Why string    `json:"why"`
}

// Blocks are the newest values of a device by kind, in the order of the
// catalogue.
func (k *Known) Blocks(lang string, d *DeviceState) []Block {
	var out []Block
	for _, kind := range slices.Sorted(maps.Keys(d.Latest)) {
		latest := d.Latest[kind]
		b := Block{Kind: kind, Title: telemetry.Text{VI: kind, EN: kind}, Time: latest.Time}
		rank := map[string]int{}
		if in := k.kinds[kind]; in != nil {
			if in.Title.VI != "" {
				b.Title = in.Title
			}
			for i, q := range in.Values {
				rank[q.Name] = i + 1
			}
		}
		for name, v := range latest.Values {
			_, q := k.Quantity(kind, name)
			f := Figure{Kind: kind, Name: name, Title: titled(q), Unit: q.Unit, Quality: latest.Quality[name], Failed: latest.Failed[name]}
			switch v := v.(type) {
			case float64:
				f.Number, f.Text, f.Thresholds = true, figure(lang, name, v), thresholds(d.Facts, name, nil)
			default:
				f.Text = fmt.Sprint(v)
			}
			if f.Quality == "good" {
				f.Quality = ""
			}
			b.Figures = append(b.Figures, f)
		}
		slices.SortFunc(b.Figures, func(a, c Figure) int {
			if a, c := rank[a.Name], rank[c.Name]; a != c && a != 0 && c != 0 {
				return a - c
			}
			return compare(a.Name, c.Name)
		})
		out = append(out, b)
	}
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// FactsOf are a device's facts by name.
func FactsOf(d *DeviceState) []Fact {
	var out []Fact
	for _, name := range slices.Sorted(maps.Keys(d.Facts)) {
		_, changed := d.Changed["facts."+name]
		out = append(out, Fact{Name: name, Text: factText(d.Facts[name]), Changed: changed})
	}
	return out
}

func factText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	if word, ok := v.(string); ok {
		return word
	}
	return string(text)
}

// HealthContent is the content of Health: what /api/v1/health answers.
type HealthContent struct {
	Gateway    string             `json:"gateway"`
	Version    string             `json:"version"`
	Started    time.Time          `json:"started"`
	Ready      bool               `json:"ready"`
	NotReady   map[string]string  `json:"not_ready"`
	Readings   float64            `json:"readings"`
	Sources    []SourceHealth     `json:"sources"`
	Followers  []FollowerHealth   `json:"followers"`
	SetAside   map[string]float64 `json:"set_aside"`
	Memory     float64            `json:"memory_bytes"`
	DiskFree   float64            `json:"disk_free_bytes"`
	Recipients []Recipient        `json:"-"`
	Letters    []Letter           `json:"-"`
	MoreThere  bool               `json:"-"` // more letters than are listed
	Reason     string             `json:"-"` // of the letters that are listed; "": any
	All        bool               `json:"-"` // settled ones too
}

// A SourceHealth is one source of readings.
type SourceHealth struct {
	Name     string  `json:"name"`
	Running  bool    `json:"running"`
	Restarts float64 `json:"restarts"`
	Link     *bool   `json:"link"`
	Cause    string  `json:"cause"`
}

// A FollowerHealth is how far a follower is behind its log.
type FollowerHealth struct {
	Log        string  `json:"log"`
	Name       string  `json:"name"`
	LagFrames  float64 `json:"lag_frames"`
	LagSeconds float64 `json:"lag_seconds"`
	Retries    float64 `json:"retries"`
	Dropped    float64 `json:"dropped"`
}

// A Letter is a dead letter.
type Letter struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Source  string    `json:"source"`
	Device  string    `json:"device"`
	Place   string    `json:"place"`
	Reason  string    `json:"reason"`
	Detail  string    `json:"detail"`
	Text    string    `json:"text"`
	NoRetry string    `json:"no_retry"`
	Settled *Settled  `json:"settled"`
}

// Settled is what became of a letter.
type Settled struct {
	Did string    `json:"did"`
	By  string    `json:"by"`
	At  time.Time `json:"at"`
}

// DrillContent is the content of Drills.
type DrillContent struct {
	Scenarios []Playable
	Devices   []DeviceState // of which a plain exercise can be
}

// A Playable is a scenario that an exercise can play.
type Playable struct {
	File    string   `json:"file"`
	Name    string   `json:"name"`
	Devices []string `json:"devices"`
}

// A RuleCount is what /api/v1/rules says of a rule.
type RuleCount struct {
	Rule        string `json:"rule"`
	On          string `json:"on"`
	Devices     int    `json:"devices"`
	Active      int    `json:"active"`
	Evaluations uint64 `json:"evaluations"`
	Raised      uint64 `json:"raised"`
	Errors      uint64 `json:"errors"`
	Withheld    int    `json:"withheld"`
	Disabled    bool   `json:"disabled"`
	Shadow      bool   `json:"shadow"`
}

// A RuleText is what a rule says.
type RuleText struct {
	Name     string             `json:"name"`
	On       string             `json:"on"`
	Where    string             `json:"where"`
	When     string             `json:"when"`
	Clear    string             `json:"clear"`
	Severity telemetry.Severity `json:"severity"`
	Levels   []struct {
		Severity telemetry.Severity `json:"severity"`
		When     string             `json:"when"`
		Clear    string             `json:"clear"`
	} `json:"levels"`
	To []string `json:"to"`
}

// LoginContent is the content of Login.
type LoginContent struct {
	To      string // where to go afterwards: a path of ours
	Name    string // as it was entered
	Refused string // why not
}

// MissingContent is the content of Missing.
type MissingContent struct {
	Status int
	Detail string
}

func asJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode for the page: %w", err)
	}
	return string(text), nil
}
