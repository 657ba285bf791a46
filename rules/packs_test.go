package rules

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/config"
	"haidang/gateway/scenario"
	"haidang/gateway/telemetry"
)

// strict decodes a YAML file into target as the gateway does.
func strict(t testing.TB, name string, text []byte, target any) {
	t.Helper()
	doc, err := config.Parse(name, text)
	if err != nil {
		t.Fatal(err)
	}
	if faults := doc.Decode(target); len(faults) > 0 {
		t.Fatal(faults)
	}
}

// readPacks returns the shipped packs by the name of their file, and their
// scenario files.
func readPacks(t testing.TB) (packs map[string]File, scenarios map[string]scenario.File) {
	t.Helper()
	packs, scenarios = map[string]File{}, map[string]scenario.File{}
	names, err := fs.Glob(Packs, "packs/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := Packs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		base := strings.TrimPrefix(name, "packs/")
		if strings.HasSuffix(base, ".test.yaml") {
			var f scenario.File
			strict(t, base, text, &f)
			scenarios[strings.TrimSuffix(base, ".test.yaml")+".yaml"] = f
			continue
		}
		var f File
		strict(t, base, text, &f)
		packs[base] = f
	}
	return packs, scenarios
}

// shipped is the document of a gateway without configuration: all packs and the
// built-in kinds, with these devices.
func shipped(t testing.TB, devices []telemetry.Device) Document {
	t.Helper()
	packs, _ := readPacks(t)
	doc := Document{Kinds: builtinKinds(t), Devices: devices}
	for _, name := range sortedKeys(packs) {
		doc.Rules = append(doc.Rules, packs[name].Rules...)
		doc.Limits = append(doc.Limits, packs[name].Limits...)
	}
	return doc
}

func builtinDevices(t testing.TB) []telemetry.Device {
	t.Helper()
	text, err := os.ReadFile("../gateway/builtin/devices.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Devices []telemetry.Device }
	strict(t, "devices.yaml", text, &file)
	return file.Devices
}

// scenarioDevices are the devices of all scenario files: a province that has
// every fact the packs name. A device that several files have is taken once,
// with the facts of all.
func scenarioDevices(t testing.TB) []telemetry.Device {
	t.Helper()
	_, scenarios := readPacks(t)
	byID := map[string]telemetry.Device{}
	for _, name := range sortedKeys(scenarios) {
		for _, d := range scenarios[name].Devices {
			facts := maps.Clone(byID[d.ID].Facts)
			if facts == nil {
				facts = map[string]any{}
			}
			maps.Copy(facts, d.Facts)
			d.Facts = facts
			byID[d.ID] = d
		}
	}
	var devices []telemetry.Device
	for _, id := range sortedKeys(byID) {
		devices = append(devices, byID[id])
	}
	return devices
}

func scenarioZones(t testing.TB) (zones json.RawMessage) {
	t.Helper()
	_, scenarios := readPacks(t)
	for _, name := range sortedKeys(scenarios) {
		var err error
		if zones, err = scenario.GeoJSON(zones, scenarios[name].Areas); err != nil {
			t.Fatal(err)
		}
	}
	return zones
}

// TestPacksCompile compiles each pack by itself, as an author may copy one, and
// all together: as `haidang run` loads them without configuration, with no
// device at all, and with devices that have every fact. There must be no fault,
// since a station without a fact is no mistake; with every fact no warning.
func TestPacksCompile(t *testing.T) {
	packs, _ := readPacks(t)
	for _, f := range packs {
		compile(t, Document{Kinds: builtinKinds(t), Rules: f.Rules, Limits: f.Limits})
	}
	for name, devices := range map[string][]telemetry.Device{"built-in": builtinDevices(t), "none": nil} {
		if set := compile(t, shipped(t, devices)); len(set.rules) < 60 {
			t.Errorf("%s: only %d rules", name, len(set.rules))
		}
	}
	doc := shipped(t, scenarioDevices(t))
	doc.Zones = scenarioZones(t)
	for _, w := range compile(t, doc).Warnings() {
		t.Errorf("a fact or name of the packs is in no scenario: %s", w)
	}
}

// TestPacksSpeakBothLanguages looks at what the operator reads: every rule and
// every title of a level has both languages, the device is named, and what is
// measured is the same in both.
func TestPacksSpeakBothLanguages(t *testing.T) {
	place := regexp.MustCompile(`\{[^{}]*\}`)
	word := regexp.MustCompile(`\\?"[^"]*"`)
	places := func(text string) []string {
		found := place.FindAllString(text, -1)
		for i := range found { // words within differ: "1 giờ", "1 hour"
			found[i] = word.ReplaceAllStringFunc(found[i], func(w string) string {
				if strings.ContainsAny(w, " ") {
					return "…"
				}
				return w
			})
		}
		slices.Sort(found)
		return found
	}
	for _, r := range shipped(t, nil).Rules {
		vi, en := r.Message.VI, r.Message.EN
		if vi == "" || en == "" || vi == en {
			t.Errorf("rule %s has no message in both languages", r.Name)
		}
		for _, text := range []string{vi, en} {
			if !strings.Contains(text, "{device.name}") && !strings.Contains(text, "{device.id}") {
				t.Errorf("rule %s does not say where: %s", r.Name, text)
			}
			if length := len([]rune(place.ReplaceAllString(text, ""))); length > 260 {
				t.Errorf("rule %s has a message of %d letters: %s", r.Name, length, text)
			}
		}
		if a, b := places(vi), places(en); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("rule %s tells different things:\n%v\n%v", r.Name, a, b)
		}
		for _, l := range r.Levels {
			if strings.Contains(vi, "{level}") && (l.Title.VI == "" || l.Title.EN == "") {
				t.Errorf("rule %s has a level without a title in both languages", r.Name)
			}
		}
	}
}

// TestPacksAreQuiet runs a calm day: the built-in stations, an unregistered
// vessel that sends navigation status 14 by mistake, a boat that leaves the
// coverage, a weather station without facts. Nothing is raised.
func TestPacksAreQuiet(t *testing.T) {
	devices := builtinDevices(t)
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(t, shipped(t, devices)))
	for at := time.Duration(0); at <= 24*time.Hour; at += 10 * time.Minute {
		now := epoch.Add(at)
		var frame []telemetry.Reading
		report := func(device, kind string, values map[string]float64) {
			r := telemetry.Reading{Device: device, Kind: kind, Site: device, Time: now}
			for _, name := range sortedKeys(values) {
				r.Values = append(r.Values, telemetry.Value{Name: name, Number: values[name]})
			}
			frame = append(frame, r)
		}
		for i := range devices {
			report(devices[i].ID, "river", map[string]float64{"level_m": 0.5, "battery_v": 9})
		}
		report("box", "weather", map[string]float64{"temperature_c": 31, "wind_speed_ms": 4})
		report("box", "air", map[string]float64{"pm25_ugm3": 20, "pm10_ugm3": 40, "so2_ugm3": 10, "co_ugm3": 900})
		report("box", "water", map[string]float64{"do_mgl": 3, "ph": 9, "cod_mgl": 40})
		report("box", "rain", map[string]float64{"rain_mm": 0.1, "rain_1h_mm": 0.6, "rain_24h_mm": 14})
		report("tu-1", "panel", map[string]float64{"alarm": 0, "fault": 0})
		report("mmsi-277315048", "position", map[string]float64{"lat": 16, "lon": 108, "nav_status": 14})
		if at < time.Hour {
			report("mmsi-574000001", "position", map[string]float64{"lat": 16, "lon": 108})
			report("line-9", "link", map[string]float64{"up": 0})
		}
		for _, x := range engine.Evaluate(now, frame) {
			t.Errorf("%s", describe(x))
		}
	}
}

// TestPackScenarios plays the scenarios beside the packs, twice: the second
// time the engine is stopped and restored from its checkpoint on the way. Every rule of a pack must be raised in one of them.
func TestPackScenarios(t *testing.T) {
	packs, scenarios := readPacks(t)
	kinds := builtinKinds(t)
	for _, name := range sortedKeys(packs) {
		file, ok := scenarios[name]
		if !ok {
			t.Errorf("%s has no scenarios", name)
			continue
		}
		for _, f := range file.Validate() {
			t.Errorf("%s: %s", name, f)
		}
		raised := map[string]bool{}
		for i := range file.Scenarios {
			s := &file.Scenarios[i]
			t.Run(strings.TrimSuffix(name, ".yaml")+"/"+s.Name, func(t *testing.T) {
				g := ground(t, kinds, packs, name, &file, s)
				for _, x := range play(t, s, g) {
					raised[x.Rule] = raised[x.Rule] || x.State == telemetry.Active
				}
				fresh := g.New
				g.New = func() scenario.Engine { return &restless{t: t, engine: fresh().(*Engine)} }
				play(t, s, g)
			})
		}
		for _, r := range packs[name].Rules {
			if !raised[r.Name] && !t.Failed() {
				t.Errorf("%s: no scenario raises %s", name, r.Name)
			}
		}
	}
}

// play runs a scenario and reports its differences.
func play(t *testing.T, s *scenario.Scenario, g *scenario.Ground) []telemetry.Transition {
	t.Helper()
	outcome, faults, err := scenario.Run(s, g)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Errorf("%s", f)
	}
	if outcome == nil {
		t.FailNow()
	}
	for _, d := range outcome.Differences {
		t.Errorf("at %s\nwant %s\ngot  %s", d.At.Sub(outcome.Start), d.Want, d.Got)
	}
	if len(outcome.Differences) > 0 {
		for _, x := range outcome.Transitions {
			t.Logf("%s %s %s %s %s %v | %s", x.At.Sub(outcome.Start), x.State, x.Severity, x.Rule, x.Device, x.Values, x.Message.VI)
		}
	}
	return outcome.Transitions
}

// ground is what a pack's scenario is played on.
func ground(t *testing.T, kinds []telemetry.Kind, packs map[string]File, name string, file *scenario.File, s *scenario.Scenario) *scenario.Ground {
	t.Helper()
	names := file.Rules
	if len(names) == 0 {
		names = []string{name}
	}
	only := file.Only
	if len(s.Only) > 0 {
		only = s.Only
	}
	doc := Document{Kinds: kinds, Devices: file.Devices}
	g := &scenario.Ground{On: map[string]string{}}
	for _, n := range names {
		doc.Limits = append(doc.Limits, packs[n].Limits...)
		for _, r := range packs[n].Rules {
			g.On[r.Name] = r.On
			if len(only) == 0 {
				doc.Rules = append(doc.Rules, r)
			} else if slices.Contains(only, r.Name) {
				r.InhibitedBy = slices.DeleteFunc(slices.Clone(r.InhibitedBy), func(by string) bool { return !slices.Contains(only, by) })
				doc.Rules = append(doc.Rules, r)
			}
		}
	}
	var err error
	if doc.Zones, err = scenario.GeoJSON(nil, file.Areas); err != nil {
		t.Fatal(err)
	}
	compile(t, doc)
	g.Control = control(t, doc)
	g.Kinds, _ = telemetry.NewCatalogue(doc.Kinds)
	g.Devices, _ = telemetry.NewRegistry(doc.Devices, g.Kinds)
	g.New = func() scenario.Engine { return NewEngine(Options{}) }
	g.Restart = func(e scenario.Engine) (scenario.Engine, error) {
		if r, ok := e.(*restless); ok {
			return r, nil
		}
		return restart(t, e.(*Engine)), nil
	}
	return g
}

// A restless engine is stopped and restored after its second, fifth and every
// 29th frame: a restart costs some thousand times what a frame does.
type restless struct {
	t      *testing.T
	engine *Engine
	frames int
}

func (r *restless) Evaluate(received time.Time, readings []telemetry.Reading) []telemetry.Transition {
	out := r.engine.Evaluate(received, readings)
	if r.frames++; r.frames == 2 || r.frames == 5 || r.frames%29 == 0 {
		r.engine = restart(r.t, r.engine)
	}
	return out
}
