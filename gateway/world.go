package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"haidang/drivers/modbus"
	"haidang/gateway/config"
	"haidang/gateway/intake"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// A world is what the gateway knows: kinds, devices, zones and rules, and the
// profiles of instruments.
type world struct {
	intake.Known
	document rules.Document    // what the engine runs on
	set      *rules.Set        // the document, compiled; nil while it has a fault
	parts    map[string][]part // where the document's lists came from
	doc      *config.Document  // gateway.yaml
	profiles *modbus.Profiles

	scenarios []scenarioFile // beside the rule files
	sources   []ruleSource   // the rule files, in their order
}

// A part is a run of entries of one list that came from one file: entry first+i
// of the list is entry i of the file.
type part struct {
	doc   *config.Document
	first int
}

// loadWorld reads the files that cfg names, or the built-in ones. Faults of
// cfg's own keys are placed in doc.
func loadWorld(in folder, cfg *Configuration, doc *config.Document) (*world, config.Faults) {
	l := loader{in: in, own: folder{inside: builtin}, doc: doc}
	w := &world{}
	kinds, kindParts := l.kinds(cfg.Kinds)
	devices, deviceParts := l.devices(cfg.Devices)
	sound := len(l.faults) == 0
	ruleList, ruleParts := l.rules(cfg.Rules)
	w.sources = l.sources
	w.document = rules.Document{Kinds: kinds, Devices: devices, Rules: ruleList, Limits: l.limits, Zones: l.zones(cfg.Zones)}
	w.profiles = l.profiles(cfg.Profiles)
	w.scenarios = l.scenarios

	var faults, more []telemetry.Fault
	w.Kinds, faults = telemetry.NewCatalogue(kinds)
	w.Devices, more = telemetry.NewRegistry(devices, w.Kinds)
	faults = append(faults, more...)
	parts := map[string][]part{"kinds": kindParts, "devices": deviceParts, "rules": ruleParts, "limits": l.limitParts}
	if len(faults) == 0 && sound {
		// Rules are compiled only against kinds and devices that hold: else each
		// of their faults would return as a fault of many rules.
		faults = w.compile()
	}
	if slices.ContainsFunc(faults, func(f telemetry.Fault) bool { return strings.HasPrefix(f.Path, "zones") }) {
		// GeoJSON is read as YAML only for the lines of its faults: it takes a while.
		if zones, err := in.open(cfg.Zones); err == nil {
			parts["zones"] = []part{{zones, 0}}
		}
	}
	w.parts, w.doc = parts, doc
	placed := placeAll(faults, parts, doc)
	return w, append(l.faults, unsaid(l.faults, placed)...)
}

// compile compiles the document. The devices are then those of the set: a registry
// may be large, and one copy of it is enough.
func (w *world) compile() (faults []telemetry.Fault) {
	w.set, faults = rules.Compile(w.document)
	if w.set != nil {
		w.Devices = w.set.Registry()
	}
	return faults
}

var listPath = regexp.MustCompile(`^(kinds|devices|rules|limits)(?:\[(\d+)\](.*))?$`)

func placeAll(faults []telemetry.Fault, parts map[string][]part, doc *config.Document) config.Faults {
	placed := make(config.Faults, len(faults))
	for i, f := range faults {
		placed[i] = place(f, parts, doc)
	}
	return placed
}

// place finds the file and line of a fault whose path is relative to the joined
// lists.
func place(f telemetry.Fault, parts map[string][]part, doc *config.Document) config.Fault {
	if zones := parts["zones"]; len(zones) > 0 && strings.HasPrefix(f.Path, "zones") {
		f.Path = strings.TrimPrefix(strings.TrimPrefix(f.Path, "zones"), ".")
		return zones[0].doc.Locate([]telemetry.Fault{f})[0]
	}
	m := listPath.FindStringSubmatch(f.Path)
	if m == nil {
		return doc.Locate([]telemetry.Fault{f})[0]
	}
	list := parts[m[1]]
	if len(list) == 0 {
		return config.Fault{Fault: f, File: doc.Name}
	}
	index, _ := strconv.Atoi(m[2])
	at := sort.Search(len(list), func(i int) bool { return list[i].first > index }) - 1
	f.Path = fmt.Sprintf("%s[%d]%s", m[1], index-list[at].first, m[3])
	return list[at].doc.Locate([]telemetry.Fault{f})[0]
}

// A loader reads files and gathers their faults.
type loader struct {
	in, own folder
	doc     *config.Document // gateway.yaml
	faults  config.Faults

	limits     []rules.Limit // of the rule files
	limitParts []part

	scenarios []scenarioFile
	sources   []ruleSource
}

func (l *loader) open(from folder, name string, target any) *config.Document {
	text, err := from.text(name)
	if err != nil {
		l.fail(err)
		return nil
	}
	called := from.path(name)
	if from.inside != nil {
		called = packName(name)
	}
	doc, faults := config.Read(called, text, target)
	l.faults = append(l.faults, faults...)
	return doc
}

func (l *loader) fail(err error) {
	if faults, ok := err.(config.Faults); ok {
		l.faults = append(l.faults, faults...)
		return
	}
	l.faults = append(l.faults, config.Fault{Fault: telemetry.Faultf("", "%v", err)})
}

type kindFile struct {
	Kinds []telemetry.Kind `yaml:"kinds"`
}

// kinds returns the built-in kinds, those of the file added or put in their
// place.
func (l *loader) kinds(name string) ([]telemetry.Kind, []part) {
	var own, added kindFile
	ownDoc := l.open(l.own, "builtin/kinds.yaml", &own)
	if name == "" {
		return own.Kinds, []part{{ownDoc, 0}}
	}
	doc := l.open(l.in, name, &added)
	if doc == nil {
		return own.Kinds, []part{{ownDoc, 0}}
	}
	replaced := map[string]bool{}
	for _, k := range added.Kinds {
		replaced[k.Name] = true
	}
	list := added.Kinds
	for _, k := range own.Kinds {
		if !replaced[k.Name] {
			list = append(list, k)
		}
	}
	return list, []part{{doc, 0}, {ownDoc, len(added.Kinds)}}
}

type deviceFile struct {
	Devices []telemetry.Device `yaml:"devices"`
}

func (l *loader) devices(name string) ([]telemetry.Device, []part) {
	var file deviceFile
	from := l.in
	if name == "" {
		from, name = l.own, "builtin/devices.yaml"
	}
	doc := l.open(from, name, &file)
	if doc == nil {
		return nil, nil
	}
	return file.Devices, []part{{doc, 0}}
}

// rules reads the rule files; none named means the packs within the binary.
func (l *loader) rules(patterns []string) ([]rules.Rule, []part) {
	from := l.in
	if patterns == nil {
		from, patterns = folder{inside: rules.Packs}, []string{"packs/*.yaml"}
	}
	var list []rules.Rule
	var parts []part
	for i, pattern := range patterns {
		names, err := from.match(pattern)
		if err == nil && len(names) == 0 {
			err = fmt.Errorf("no file matches %q", from.path(pattern))
		}
		if err != nil {
			l.faults = append(l.faults, l.doc.Locate([]telemetry.Fault{telemetry.Faultf(fmt.Sprintf("rules[%d]", i), "%v", err)})...)
		}
		for _, name := range names {
			if strings.HasSuffix(name, ".test.yaml") {
				l.scenarios = append(l.scenarios, scenarioFile{from, name})
				continue // beside the rules that it tests
			}
			var file rules.File
			if doc := l.open(from, name, &file); doc != nil {
				parts = append(parts, part{doc, len(list)})
				list = append(list, file.Rules...)
				l.sources = append(l.sources, ruleSource{name: name, doc: doc, file: file})
				l.limitParts = append(l.limitParts, part{doc, len(l.limits)})
				l.limits = append(l.limits, file.Limits...)
			}
		}
	}
	return list, parts
}

func (l *loader) zones(name string) json.RawMessage {
	if name == "" {
		return nil
	}
	text, err := l.in.read(name)
	if err == nil && !json.Valid(text) {
		err = fmt.Errorf("not JSON; want a GeoJSON FeatureCollection")
	}
	if err != nil {
		l.faults = append(l.faults, config.Fault{File: l.in.path(name), Fault: telemetry.Faultf("", "%v", pathless(err))})
		return nil
	}
	return text
}

func (l *loader) profiles(name string) *modbus.Profiles {
	var own []fs.FS
	if name != "" {
		dir, err := l.in.at(name)
		if err != nil {
			l.fail(err)
		} else {
			own = append(own, dir)
		}
	}
	profiles, faults := modbus.LoadProfiles(own...)
	for _, f := range faults { // their paths begin with file and line
		l.faults = append(l.faults, config.Fault{Fault: f})
	}
	return profiles
}
