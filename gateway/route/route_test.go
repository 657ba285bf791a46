package route

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// A map is the places of the tests: kim-long lies in the zone Kim Long.
type places map[string]*telemetry.Device

func (p places) Device(id string) *telemetry.Device { return p[id] }

func (p places) Inside(zone string, lat, _ float64) bool { return zone == "Kim Long" && lat > 16 }

func ground() places {
	lat, south, lon := 16.45, 15.0, 107.56
	return places{
		"kim-long": {ID: "kim-long", Owner: "Đài KTTV", Lat: &lat, Lon: &lon, Facts: map[string]any{"basin": "huong", "class": 1.0}},
		"south":    {ID: "south", Lat: &south, Lon: &lon},
		"lost":     {ID: "lost"},
	}
}

func known() Known {
	return Known{Recipients: []string{"ioc", "chief", "sms", "night"}, Kinds: []string{"river", "air"}, Rules: []string{"flood-level", "bad-air"}, Zones: []string{"Kim Long"}}
}

func read(t *testing.T, text string) []Config {
	t.Helper()
	var file struct {
		Routes []Config `yaml:"routes"`
	}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	return file.Routes
}

func table(t *testing.T, text string) *Table {
	t.Helper()
	routes := read(t, text)
	if faults := Validate(routes, known()); len(faults) > 0 {
		t.Fatal(faults)
	}
	return New(routes, ground(), known().Recipients)
}

func warning(device string, severity telemetry.Severity, at string) telemetry.Warning {
	when, err := time.Parse(time.RFC3339, at)
	if err != nil {
		panic(err) // a mistake of the test
	}
	return telemetry.Warning{ID: "w", N: 1, Rule: "flood-level", Device: device, Site: device, Kind: "river", State: telemetry.Active, Severity: severity, At: when, Start: when}
}

func TestMatches(t *testing.T) {
	const monday, friday = "2025-10-27T09:00:00+07:00", "2025-10-31T23:30:00+07:00"
	for i, c := range []struct {
		match, device, at string
		want              bool
	}{
		{`{}`, "unknown", monday, true},
		{`{severity: severe}`, "kim-long", monday, true},
		{`{severity: extreme}`, "kim-long", monday, false},
		{`{kinds: [river]}`, "kim-long", monday, true},
		{`{kinds: [air]}`, "kim-long", monday, false},
		{`{rules: ["flood-*"]}`, "kim-long", monday, true},
		{`{devices: [south, "kim-*"]}`, "kim-long", monday, true},
		{`{devices: [south]}`, "kim-long", monday, false},
		{`{owners: ["Đài *"]}`, "kim-long", monday, true},
		{`{owners: ["Đài *"]}`, "south", monday, false},
		{`{facts: {basin: huong}}`, "kim-long", monday, true},
		{`{facts: {class: "1"}}`, "kim-long", monday, true},
		{`{facts: {basin: bo}}`, "kim-long", monday, false},
		{`{facts: {basin: huong}}`, "unknown", monday, false},
		{`{zones: [Kim Long]}`, "kim-long", monday, true},
		{`{zones: [Kim Long]}`, "south", monday, false},
		{`{zones: [Kim Long]}`, "lost", monday, false},
		{`{days: [mon]}`, "kim-long", monday, true},
		{`{days: [tue, sun]}`, "kim-long", monday, false},
		{`{hours: "07:30-17:00"}`, "kim-long", monday, true},
		{`{hours: "17:00-24:00"}`, "kim-long", monday, false},
		{`{hours: "22:00-05:00"}`, "kim-long", friday, true},
		{`{hours: "22:00-05:00", days: [fri]}`, "kim-long", "2025-11-01T04:59:00+07:00", true}, // Saturday, of Friday's night
		{`{hours: "22:00-05:00", days: [fri]}`, "kim-long", "2025-10-31T04:59:00+07:00", false},
		{`{hours: "22:00-05:00", days: [fri]}`, "kim-long", "2025-11-01T05:00:00+07:00", false},
		{`{hours: "09:00-10:00"}`, "kim-long", "2025-10-27T02:00:00Z", true}, // the clock of the province
		{`{exercise: true}`, "kim-long", monday, false},
		{`{exercise: false}`, "kim-long", monday, true},
	} {
		tab := table(t, fmt.Sprintf("routes: [{name: r, match: %s, to: [ioc]}]", c.match))
		w := warning(c.device, telemetry.Severe, c.at)
		e := tab.Explain(w, nil, w.At)
		if line := e.Lines[0]; line.Matches != c.want || len(line.Why) == 0 {
			t.Errorf("%d: %s of %s at %s: %+v", i, c.match, c.device, c.at, line)
		}
	}
}

const routes = `
routes:
  - {name: all-day, match: {severity: moderate}, to: [ioc], remind: 30m, else: {after: 5m, to: [sms]}}
  - name: extreme
    match: {severity: extreme}
    to: [chief]
    escalate: [{after: 15m, unless: acknowledged, to: [night]}, {after: 1h, to: [sms]}]
`

// TestTo: who heard of a warning hears of what follows; a warning that no route
// is for goes to all.
func TestTo(t *testing.T) {
	tab := table(t, routes)
	const at = "2025-10-27T09:00:00+07:00"
	told := func(w telemetry.Warning, before *telemetry.Warning, want ...string) telemetry.Warning {
		t.Helper()
		w.To = tab.To(&w, before)
		if !slices.Equal(w.To, want) {
			t.Errorf("%s: told %q, want %q", w.Severity, w.To, want)
		}
		return w
	}
	first := told(warning("a", telemetry.Extreme, at), nil, "ioc", "chief")
	told(warning("a", telemetry.Minor, at), &first, "ioc", "chief")
	all := told(warning("a", telemetry.Minor, at), nil)
	told(warning("a", telemetry.Extreme, at), &all) // all know of it, and hear of what follows
	quiet := all
	quiet.Quiet = true
	told(warning("a", telemetry.Extreme, at), &quiet, "ioc", "chief")
	named := warning("a", telemetry.Moderate, at)
	named.To = []string{"night", "ioc"}
	told(named, nil, "night", "ioc")
}

func TestDue(t *testing.T) {
	tab := table(t, routes)
	w := telemetry.Transition{Warning: warning("a", telemetry.Extreme, "2025-10-27T09:00:00+07:00")}
	w.To = []string{"ioc", "chief"}
	w.Chase = &telemetry.Chase{N: 1, At: w.At, Since: w.At}
	missed := func(string) bool { return false }
	due := func(after time.Duration) string {
		var words []string
		for _, d := range tab.Due(&w, w.At.Add(after), missed) {
			words = append(words, fmt.Sprintf("%s %s to %s", d.Do, d.Done, strings.Join(d.To, "+")))
		}
		return strings.Join(words, ", ")
	}
	expect := func(after time.Duration, want string) {
		t.Helper()
		if got := due(after); got != want {
			t.Errorf("after %s: %q, want %q", after, got, want)
		}
	}
	expect(14*time.Minute, "")
	expect(15*time.Minute, "escalate extreme/0 to night")
	w.Chase.Done = []string{"extreme/0"}
	expect(16*time.Minute, "")
	expect(30*time.Minute, "remind  to ioc+chief")
	w.Chase.Reminded = w.At.Add(31 * time.Minute)
	expect(60*time.Minute, "escalate extreme/1 to sms")
	expect(61*time.Minute, "escalate extreme/1 to sms, remind  to ioc+chief+sms")
	missed = func(name string) bool { return name == "ioc" }
	w.Chase.Reminded = w.At.Add(time.Hour)
	w.Chase.Done = []string{"extreme/0", "extreme/1"}
	expect(4*time.Minute, "")
	expect(5*time.Minute, "failover all-day/else/ioc/1 to sms")
	w.State = telemetry.Acknowledged
	expect(10*time.Hour, "")
}

// TestExplain tells every line, and who is told when nobody is named.
func TestExplain(t *testing.T) {
	tab := table(t, routes)
	w := warning("a", telemetry.Minor, "2025-10-27T09:00:00+07:00")
	e := tab.Explain(w, nil, w.At)
	if len(e.To) != 4 || len(e.Lines) != 3 || e.Lines[2].Route != "all" || e.Lines[0].Why[0] != "no: severity minor, at least moderate" {
		t.Errorf("%+v", e)
	}
	e = tab.Explain(warning("a", telemetry.Extreme, "2025-10-27T09:00:00+07:00"), []string{"sms"}, w.At)
	if !slices.Equal(e.To, []string{"sms", "ioc", "chief"}) || len(e.Lines[2].Next) != 2 || e.Lines[0].Route != "rule" {
		t.Errorf("%+v", e)
	}
}

func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range Validate(read(t, string(text)), known()) {
			got = append(got, f.String())
		}
		var want []string
		for line := range strings.Lines(string(text)) {
			if w, ok := strings.CutPrefix(line, "# want: "); ok {
				want = append(want, strings.TrimSpace(w))
			}
		}
		for _, w := range want {
			if !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, w) }) {
				t.Errorf("%s: no fault %q in\n%s", file, w, strings.Join(got, "\n"))
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d faults, want %d:\n%s", file, len(got), len(want), strings.Join(got, "\n"))
		}
	}
}
