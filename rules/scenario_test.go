package rules

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

var update = flag.Bool("update", false, "write what the engine does into the scenario files")

// epoch is the log time at which scenarios begin: Monday 2025-10-27 00:00 in
// Vietnam.
var epoch = time.Date(2025, 10, 26, 17, 0, 0, 0, time.UTC)

// testDocument is a Document as the tests write it in YAML.
type testDocument struct {
	Kinds   []telemetry.Kind   `yaml:"kinds"`
	Devices []telemetry.Device `yaml:"devices"`
	Zones   string             `yaml:"zones"`
	Rules   []Rule             `yaml:"rules"`
	Limits  []Limit            `yaml:"limits"`
	Packs   []string           `yaml:"packs"` // shipped packs that come in addition
}

func readDocument(t testing.TB, text string) Document {
	t.Helper()
	var d testDocument
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil {
		t.Fatalf("document: %v", err)
	}
	if d.Kinds == nil {
		d.Kinds = builtinKinds(t)
	}
	for _, name := range d.Packs {
		text, err := Packs.ReadFile("packs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		d.Rules = append(d.Rules, readDocument(t, string(text)).Rules...)
	}
	return Document{Kinds: d.Kinds, Devices: d.Devices, Zones: json.RawMessage(d.Zones), Rules: d.Rules, Limits: d.Limits}
}

func builtinKinds(t testing.TB) []telemetry.Kind {
	t.Helper()
	text, err := os.ReadFile("../gateway/builtin/kinds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Kinds []telemetry.Kind }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Kinds
}

func control(t testing.TB, doc Document) []telemetry.Reading {
	t.Helper()
	readings, err := ControlReadings("box", doc)
	if err != nil {
		t.Fatal(err)
	}
	return readings
}

func compile(t testing.TB, doc Document) *Set {
	t.Helper()
	set, faults := Compile(doc)
	for _, f := range faults {
		t.Errorf("%s", f)
	}
	if faults != nil {
		t.FailNow()
	}
	return set
}

// TestScenarios runs the files of testdata/scenarios. A file has sections that
// begin with "--- document" (YAML) or "--- log". A line of the log is
//
//	OFFSET DEVICE KIND name=value... [quality=bad] [time=OFFSET] [delay=1h] [name=2!bad] [#tag=x]
//	OFFSET restart
//
// and the lines after it that begin with "=>" are the transitions it brings.
// A document section after the first one is applied at the time "at OFFSET".
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScenario(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			diffLines(t, string(text), got)
		})
	}
}

func diffLines(t *testing.T, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; i < len(w) || i < len(g); i++ {
		a, b := "(end)", "(end)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			t.Fatalf("line %d:\nwant %s\ngot  %s\n\n%s", i+1, a, b, got)
		}
	}
}

// runScenario returns the file as it would be if every expectation held.
func runScenario(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	tell := func(transitions []telemetry.Transition) {
		for _, x := range transitions {
			out.WriteString("=> " + describe(x) + "\n")
		}
	}
	options := Options{Shadow: func(x telemetry.Transition) { tell([]telemetry.Transition{x}) }}
	engine := NewEngine(options)
	section, document, at := "", "", time.Duration(0)
	apply := func() {
		if section == "document" {
			tell(engine.Evaluate(epoch.Add(at), control(t, readDocument(t, document))))
			document = ""
		}
	}
	scanner := bufio.NewScanner(strings.NewReader(text))
	for scanner.Scan() {
		line := scanner.Text()
		switch {
		case strings.HasPrefix(line, "--- "):
			apply()
			fields := strings.Fields(line)
			section = fields[1]
			if len(fields) == 4 {
				at = offset(t, fields[3])
			}
		case section == "document" && !strings.HasPrefix(line, "=>"):
			document += line + "\n"
		case strings.HasPrefix(line, "=>"):
			continue
		case section == "log" && line != "" && line[0] != '#':
			out.WriteString(line + "\n")
			fields := strings.Fields(line)
			if fields[1] == "restart" {
				engine = restart(t, engine, options)
				continue
			}
			received := epoch.Add(offset(t, fields[0]))
			tell(engine.Evaluate(received, []telemetry.Reading{parseReading(t, received, fields[1:])}))
			continue
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

func restart(t testing.TB, engine *Engine, options ...Options) *Engine {
	t.Helper()
	return goOn(t, engine, NewEngine(append(options, Options{})[0]))
}

// goOn has another engine go on from where one stands.
func goOn(t testing.TB, engine, next *Engine) *Engine {
	t.Helper()
	checkpoint, err := engine.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	next.bounds = engine.bounds
	if err := next.Restore(checkpoint); err != nil {
		t.Fatal(err)
	}
	again, err := next.Checkpoint()
	if err != nil || !bytes.Equal(checkpoint, again) {
		t.Fatalf("a restored engine's checkpoint differs: %v", err)
	}
	return next
}

func offset(t testing.TB, s string) time.Duration {
	t.Helper()
	negative := strings.HasPrefix(s, "-")
	d, err := telemetry.ParseDuration(strings.TrimPrefix(s, "-"))
	if err != nil {
		t.Fatal(err)
	}
	if negative {
		return -d.Std()
	}
	return d.Std()
}

func parseReading(t testing.TB, received time.Time, fields []string) telemetry.Reading {
	t.Helper()
	r := telemetry.Reading{Device: fields[0], Kind: fields[1], Site: fields[0], Time: received}
	for _, f := range fields[2:] {
		name, value, _ := strings.Cut(f, "=")
		value, quality, judged := strings.Cut(value, "!")
		v := telemetry.Value{Name: name}
		var err error
		switch {
		case name == "quality":
			r.Quality, err = telemetry.ParseQuality(value)
		case name == "time":
			r.Time = epoch.Add(offset(t, value))
		case name == "delay":
			r.Delay = offset(t, value)
			r.Time = received.Add(-r.Delay)
		case name[0] == '#':
			r.Tags = append(r.Tags, telemetry.Tag{Key: name[1:], Value: value})
		default:
			if judged {
				v.Quality, err = telemetry.ParseQuality(quality)
				r.Quality = max(r.Quality, v.Quality)
			}
			if number, bad := strconv.ParseFloat(value, 64); bad == nil {
				v.Number = number
			} else {
				v.Text = value
			}
			r.Values = append(r.Values, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func describe(x telemetry.Transition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s %s #%d", telemetry.Duration(x.At.Sub(epoch)), x.State, x.Severity, x.Rule, x.Device, x.N)
	names := make([]string, 0, len(x.Values))
	for name := range x.Values {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(&b, " %s=%s", name, strconv.FormatFloat(x.Values[name], 'g', 6, 64))
	}
	if x.Threshold != nil {
		fmt.Fprintf(&b, " threshold=%g", *x.Threshold)
	}
	for _, name := range sortedKeys(x.Quality) {
		fmt.Fprintf(&b, " %s:%s", name, x.Quality[name])
	}
	for _, mark := range []struct {
		is   bool
		name string
	}{{x.Flapping, "flapping"}, {x.Latch, "latch"}, {x.Shadow, "shadow"}} {
		if mark.is {
			b.WriteString(" (" + mark.name + ")")
		}
	}
	fmt.Fprintf(&b, " | %s", x.Message.EN)
	return b.String()
}
