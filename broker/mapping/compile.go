package mapping

import (
	"fmt"
	pathpkg "path"
	"sort"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A rule is one mapping, ready for use.
type rule struct {
	at     string // its place in the configuration
	name   string
	topic  *pattern
	format string
	parts  []*reading
	pass   bool // over payloads without a value
}

// A reading says how one reading is made.
type reading struct {
	each   *path
	keys   string
	when   []condition
	device *template
	kind   *template // nil: the measurement
	at     *moment   // nil: the time of receipt
	values []*value  // by name, templates last
	all    *path
	except map[string]bool
	rename map[string]string
}

type condition struct {
	path path
	want string
	not  bool
}

type moment struct {
	path   path
	zone   *time.Location
	layout string
}

func compile(m *Mapping) (*rule, []telemetry.Fault) {
	r := &rule{name: m.Name, format: m.Format, pass: m.PassOver}
	var faults []telemetry.Fault
	topic, fault := parsePattern(m.Topic)
	if fault != nil {
		return nil, []telemetry.Fault{*fault}
	}
	r.topic = topic
	if r.name == "" {
		r.name = m.Topic
	}
	switch m.Format {
	case "":
		r.format = FormatJSON
	case FormatJSON, FormatRaw, FormatInflux:
	default:
		return nil, []telemetry.Fault{telemetry.Faultf("format", "format %q is not one of json, raw, influx", m.Format)}
	}
	if len(m.Parts) == 0 {
		part, more := r.compilePart(&m.Part)
		r.parts = []*reading{part}
		return r, append(faults, more...)
	}
	if r.format != FormatJSON {
		return nil, []telemetry.Fault{telemetry.Faultf("readings", "only a JSON payload can be several readings")}
	}
	for i := range m.Parts {
		p := m.Parts[i]
		if p.Device == "" {
			p.Device = m.Device
		}
		if p.Kind == "" {
			p.Kind = m.Kind
		}
		if p.Time == (Time{}) {
			p.Time = m.Time
		}
		part, more := r.compilePart(&p)
		faults = append(faults, telemetry.Under(fmt.Sprintf("readings[%d]", i), more)...)
		r.parts = append(r.parts, part)
	}
	return r, faults
}

func (r *rule) compilePart(p *Part) (*reading, []telemetry.Fault) {
	out := &reading{rename: p.Rename, except: map[string]bool{}, keys: p.Keys}
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	name := func(key, text string, optional bool) *template {
		if text == "" {
			if !optional {
				fault(key, "the %s is missing: a name, or a template such as {%s}", key, key)
			}
			return nil
		}
		t, err := parseTemplate(text, r.topic, r.format)
		switch {
		case err != nil:
			fault(key, "%v", err)
		case t.fixed() && len(t.parts) == 1 && t.parts[0].word != "" && (!telemetry.ValidName(text) || key == "kind" && text == "warning"):
			fault(key, "%s %q is not a name of letters, digits and ._:- (nor the kind warning)", key, text)
		}
		return t
	}
	out.device = name("device", p.Device, false)
	out.kind = name("kind", p.Kind, r.format == FormatInflux)
	if r.format != FormatJSON {
		faults = append(faults, r.onlyJSON(p)...)
	}
	if p.Each != "" {
		at := parsePath(p.Each)
		at.whole = true // there is nothing around it
		out.each = &at
	} else if p.Keys != "" {
		fault("keys", "keys are of the elements of each, which is missing")
	}
	if _, err := pathpkg.Match(p.Keys, ""); err != nil {
		fault("keys", "pattern %q: want words with * and ?", p.Keys)
	}
	for _, text := range sorted(p.When) {
		want, not := strings.CutPrefix(p.When[text], "!")
		out.when = append(out.when, condition{path: parsePath(text), want: want, not: not})
	}
	out.at = p.Time.compile(fault)
	faults = append(faults, r.compileValues(p, out)...)
	return out, faults
}

// onlyJSON reports keys that mean nothing for other payloads.
func (r *rule) onlyJSON(p *Part) (faults []telemetry.Fault) {
	for _, key := range []struct {
		name string
		set  bool
	}{{"each", p.Each != ""}, {"when", len(p.When) > 0}, {"all", p.All != ""}, {"time", p.Time != (Time{})}, {"values", r.format == FormatInflux && len(p.Values) > 0}} {
		if key.set {
			faults = append(faults, telemetry.Faultf(key.name, "%s is for JSON, not for format %s", key.name, r.format))
		}
	}
	return faults
}

func (t *Time) compile(fault func(string, string, ...any)) *moment {
	if t.Path == "" {
		if *t != (Time{}) {
			fault("time.path", "the path of the time is missing")
		}
		return nil
	}
	m := &moment{path: parsePath(t.Path), layout: t.Layout}
	if t.Zone != "" {
		zone, err := time.LoadLocation(t.Zone)
		if err != nil {
			fault("time.zone", "time zone %q is not known; want one such as Asia/Ho_Chi_Minh", t.Zone)
		}
		m.zone = zone
	}
	return m
}

func (r *rule) compileValues(p *Part, out *reading) (faults []telemetry.Fault) {
	if len(p.Values) == 0 && p.All == "" && r.format != FormatInflux {
		faults = append(faults, telemetry.Faultf("values", "the values are missing: a path for each, as {level_m: water.level}"))
	}
	if p.All != "" {
		at := parsePath(p.All)
		out.all = &at
	}
	for _, name := range p.Except {
		out.except[name] = true
	}
	seen := map[string]bool{}
	for _, text := range sorted(p.Values) {
		at := "values." + text
		v, more := parseValue(at, p.Values[text], r.format)
		faults = append(faults, more...)
		t, err := parseTemplate(text, r.topic, r.format)
		switch {
		case err != nil:
			faults = append(faults, telemetry.Faultf(at, "%v", err))
			continue
		case !strings.Contains(text, "{") && (!telemetry.ValidName(text) || telemetry.Reserved(text)):
			faults = append(faults, telemetry.Faultf(at, "value %q is not a name of letters, digits and ._:-, or is reserved (time, device, site, quality, delay_s)", text))
		}
		seen[text] = true
		v.name = t
		out.values = append(out.values, v)
	}
	if r.format == FormatRaw && len(out.values) > 1 {
		faults = append(faults, telemetry.Faultf("values", "a raw payload is one value, not %d", len(out.values)))
	}
	for _, from := range sorted(p.Rename) {
		if to := p.Rename[from]; !telemetry.ValidName(to) || telemetry.Reserved(to) {
			faults = append(faults, telemetry.Faultf("rename."+from, "value %q is not a name of letters, digits and ._:-, or is reserved", to))
		} else if seen[to] {
			faults = append(faults, telemetry.Faultf("rename."+from, "value %q is one of values already", to))
		}
	}
	return faults
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
