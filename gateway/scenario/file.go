package scenario

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"haidang/gateway/telemetry"
)

// A File is a scenario file. The keys above Scenarios say what is tested.
type File struct {
	Config   string             `yaml:"config"`   // gateway.yaml; its kinds, devices, zones and rules
	Kinds    string             `yaml:"kinds"`    // file; adds to the built-in kinds
	Registry string             `yaml:"registry"` // file of devices
	Zones    string             `yaml:"zones"`    // GeoJSON file
	Rules    []string           `yaml:"rules"`    // rule files; default the one of the same name
	Only     []string           `yaml:"only"`     // rules that are in force; default all
	Devices  []telemetry.Device `yaml:"devices"`  // in addition to Registry
	Areas    []Area             `yaml:"areas"`    // in addition to Zones

	Scenarios []Scenario `yaml:"scenarios"`
}

// An Area is a zone that is written in the file: a polygon, closed by itself,
// or a line. Positions are [longitude, latitude] in degrees (RFC 7946).
type Area struct {
	Name    string      `yaml:"name"`
	Polygon [][]float64 `yaml:"polygon"`
	Line    [][]float64 `yaml:"line"`
}

// A Scenario is one course of events.
type Scenario struct {
	Name     string             `yaml:"name"`
	Start    Start              `yaml:"start"`    // log time of offset 0
	Interval telemetry.Duration `yaml:"interval"` // of its series
	Only     []string           `yaml:"only"`     // instead of the file's
	Series   []Series           `yaml:"series"`
	Readings []Single           `yaml:"readings"`
	Events   []Event            `yaml:"events"`
	Until    *Moment            `yaml:"until"` // how far log time runs at least

	Expect  []Expectation `yaml:"expect"`
	Partial bool          `yaml:"partial"` // other transitions may happen too
	Never   []Never       `yaml:"never"`   // but not these
}

// A Series is what a device reports at regular times.
type Series struct {
	Device string             `yaml:"device"`
	Kind   string             `yaml:"kind"`
	From   Moment             `yaml:"from"`  // receipt of the first reading
	Every  telemetry.Duration `yaml:"every"` // default the scenario's interval, else the device's
	Delay  telemetry.Duration `yaml:"delay"` // receipt minus the reading's own time
	Values map[string]any     `yaml:"values"`
}

// A Single is one reading.
type Single struct {
	At      Moment             `yaml:"at"` // receipt
	Device  string             `yaml:"device"`
	Kind    string             `yaml:"kind"`
	Time    *Moment            `yaml:"time"`  // its own time; default receipt minus delay
	Delay   telemetry.Duration `yaml:"delay"` // receipt minus its own time
	Quality telemetry.Quality  `yaml:"quality"`
	Values  map[string]any     `yaml:"values"`
	Tags    map[string]string  `yaml:"tags"`
}

// An Event is what happens to the gateway, or what an operator does. It has one
// of Down, Clock, Restart, Rules and Do.
type Event struct {
	At      Moment             `yaml:"at"`
	Down    telemetry.Duration `yaml:"down"`    // the gateway is down from At for so long
	Clock   telemetry.Duration `yaml:"clock"`   // the clock jumps ahead from At by so much
	Restart bool               `yaml:"restart"` // the engine is stopped and restored
	Rules   []string           `yaml:"rules"`   // these rule files come into force

	Do     telemetry.Deed `yaml:"do"` // ack, shelve, unshelve, comment
	Device string         `yaml:"device"`
	Rule   string         `yaml:"rule"`
	By     string         `yaml:"by"`
	Text   string         `yaml:"text"`
	Until  *Moment        `yaml:"until"` // end of shelving
}

// An Expectation is a transition that is to happen. What is left out is not
// compared.
type Expectation struct {
	At        Moment             `yaml:"at"`
	Device    string             `yaml:"device"`
	Rule      string             `yaml:"rule"`
	State     telemetry.State    `yaml:"state"` // default active
	Severity  telemetry.Severity `yaml:"severity"`
	Values    map[string]float64 `yaml:"values"`
	Threshold *float64           `yaml:"threshold"`
	Message   string             `yaml:"message"` // part of the text in one of the languages
	Shadow    *bool              `yaml:"shadow"`  // whether the rule is in shadow
}

// Never is a kind of transition that must not happen.
type Never struct {
	Rule     string             `yaml:"rule"`
	Device   string             `yaml:"device"`
	State    telemetry.State    `yaml:"state"`
	Severity telemetry.Severity `yaml:"severity"`
}

// defaultStart is a Wednesday at midnight in Vietnam.
var defaultStart = time.Date(2025, 1, 1, 0, 0, 0, 0, vietnam)

// Begin returns the log time of offset 0.
func (s *Scenario) Begin() time.Time {
	if s.Start.IsZero() {
		return defaultStart
	}
	return s.Start.Time
}

// Validate returns what is wrong with the file, with paths from its top. What
// depends on devices and rules is told by Run.
func (f *File) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	for i := range f.Areas {
		faults = append(faults, telemetry.Under(fmt.Sprintf("areas[%d]", i), f.Areas[i].validate())...)
	}
	if len(f.Scenarios) == 0 {
		faults = append(faults, telemetry.Faultf("scenarios", "no scenario is there; want scenarios: [{name: ..., series: [...], expect: [...]}]"))
	}
	seen := map[string]bool{}
	for i := range f.Scenarios {
		s := &f.Scenarios[i]
		at := fmt.Sprintf("scenarios[%d]", i)
		switch {
		case s.Name == "":
			faults = append(faults, telemetry.Faultf(at+".name", "the scenario has no name"))
		case seen[s.Name]:
			faults = append(faults, telemetry.Faultf(at+".name", "scenario %q is there twice", s.Name))
		}
		seen[s.Name] = true
		faults = append(faults, telemetry.Under(at, s.validate())...)
	}
	return faults
}

func (a *Area) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	switch {
	case a.Name == "":
		faults = append(faults, telemetry.Faultf("name", "the area has no name"))
	case len(a.Polygon) < 3 && len(a.Line) < 2, len(a.Polygon) > 0 && len(a.Line) > 0:
		faults = append(faults, telemetry.Faultf("polygon", "an area has a polygon of at least 3 positions or a line of at least 2"))
	}
	for _, p := range slices.Concat(a.Polygon, a.Line) {
		if len(p) != 2 {
			faults = append(faults, telemetry.Faultf("polygon", "position %v is not [longitude, latitude]", p))
		}
	}
	return faults
}

func (s *Scenario) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if s.Interval < 0 {
		faults = append(faults, telemetry.Faultf("interval", "interval %s is negative", s.Interval))
	}
	for i := range s.Series {
		faults = append(faults, telemetry.Under(fmt.Sprintf("series[%d]", i), named(s.Series[i].Device, s.Series[i].Kind, len(s.Series[i].Values)))...)
	}
	for i := range s.Readings {
		r := &s.Readings[i]
		at := fmt.Sprintf("readings[%d]", i)
		faults = append(faults, telemetry.Under(at, named(r.Device, r.Kind, len(r.Values)))...)
		if r.Time != nil && r.Delay != 0 {
			faults = append(faults, telemetry.Faultf(at+".delay", "a reading has time or delay, not both"))
		}
	}
	for i := range s.Events {
		faults = append(faults, telemetry.Under(fmt.Sprintf("events[%d]", i), s.Events[i].validate())...)
	}
	for i := range s.Expect {
		faults = append(faults, telemetry.Under(fmt.Sprintf("expect[%d]", i), s.Expect[i].validate())...)
	}
	for i := range s.Never {
		if n := s.Never[i]; n == (Never{}) {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("never[%d]", i), "it names nothing; want rule, device, state or severity"))
		}
	}
	return faults
}

func named(device, kind string, values int) []telemetry.Fault {
	var faults []telemetry.Fault
	if !telemetry.ValidName(device) {
		faults = append(faults, telemetry.Faultf("device", "device %q is not a name", device))
	}
	if !telemetry.ValidName(kind) {
		faults = append(faults, telemetry.Faultf("kind", "kind %q is not a name", kind))
	}
	if values == 0 {
		faults = append(faults, telemetry.Faultf("values", "no value is there, as in values: {level_m: 1.2}"))
	}
	return faults
}

func (e *Event) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	n := 0
	for _, is := range []bool{e.Down != 0, e.Clock != 0, e.Restart, len(e.Rules) > 0, e.Do != ""} {
		if is {
			n++
		}
	}
	if n != 1 {
		faults = append(faults, telemetry.Faultf("", "an event has one of down, clock, restart, rules and do; this one has %d", n))
	}
	if e.Down < 0 || e.Clock < 0 {
		faults = append(faults, telemetry.Faultf("", "down and clock are above 0: log time never goes back"))
	}
	if e.Do != "" && (e.Device == "" || e.Rule == "" || e.By == "") {
		faults = append(faults, telemetry.Faultf("do", "an operator's act needs device, rule and by"))
	}
	return faults
}

var states = []telemetry.State{"", telemetry.Active, telemetry.Acknowledged, telemetry.Shelved, telemetry.Returned, telemetry.Cleared}

func (x *Expectation) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if x.Device == "" {
		faults = append(faults, telemetry.Faultf("device", "device is missing"))
	}
	if x.Rule == "" {
		faults = append(faults, telemetry.Faultf("rule", "rule is missing"))
	}
	if !slices.Contains(states, x.State) {
		faults = append(faults, telemetry.Faultf("state", "state %q is not one of active, acknowledged, shelved, returned, cleared", x.State))
	}
	return faults
}

// state returns the state that is expected.
func (x *Expectation) state() telemetry.State {
	if x.State == "" {
		return telemetry.Active
	}
	return x.State
}

// GeoJSON returns base, a FeatureCollection or nothing, with the areas added.
func GeoJSON(base json.RawMessage, areas []Area) (json.RawMessage, error) {
	if len(areas) == 0 {
		return base, nil
	}
	collection := struct {
		Type     string            `json:"type"`
		Features []json.RawMessage `json:"features"`
	}{Type: "FeatureCollection"}
	if len(base) > 0 {
		if err := json.Unmarshal(base, &collection); err != nil {
			return nil, fmt.Errorf("add areas to the zones: %w", err)
		}
	}
	for _, a := range areas {
		geometry := map[string]any{"type": "LineString", "coordinates": a.Line}
		if len(a.Polygon) > 0 {
			ring := a.Polygon
			if !slices.Equal(ring[0], ring[len(ring)-1]) {
				ring = append(slices.Clone(ring), ring[0])
			}
			geometry = map[string]any{"type": "Polygon", "coordinates": [][][]float64{ring}}
		}
		feature, err := json.Marshal(map[string]any{"type": "Feature", "properties": map[string]string{"name": a.Name}, "geometry": geometry})
		if err != nil {
			return nil, fmt.Errorf("write area %q as GeoJSON: %w", a.Name, err)
		}
		collection.Features = append(collection.Features, feature)
	}
	text, err := json.Marshal(collection)
	if err != nil {
		return nil, fmt.Errorf("write the areas as GeoJSON: %w", err)
	}
	return text, nil
}
