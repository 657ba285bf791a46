package mapping

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// written is a reading as cases write it.
func written(r telemetry.Reading) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s", r.Device, r.Kind)
	for _, t := range r.Tags {
		fmt.Fprintf(&b, " #%s=%s", t.Key, t.Value)
	}
	for _, v := range r.Values {
		if v.Text != "" {
			fmt.Fprintf(&b, " %s=%q", v.Name, v.Text)
		} else {
			fmt.Fprintf(&b, " %s=%.10g", v.Name, v.Number)
		}
	}
	if !r.Time.IsZero() {
		fmt.Fprintf(&b, " @%s", r.Time.UTC().Format(time.RFC3339Nano))
	}
	return b.String()
}

func decodeAll(route *Route, payload string) []string {
	if route == nil {
		return []string{"no mapping"}
	}
	readings, letters := route.Decode([]byte(payload))
	out := []string{}
	for _, r := range readings {
		out = append(out, written(r))
	}
	for _, l := range letters {
		out = append(out, l.Reason+": "+l.Detail)
	}
	return out
}

func parse(t testing.TB, text []byte, into any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// TestCases runs testdata/cases: mappings, and messages with what becomes of them.
func TestCases(t *testing.T) {
	names, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(names) < 8 {
		t.Fatal(len(names), err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var c struct {
				Mappings []Mapping `yaml:"mappings"`
				Messages []struct {
					Topic   string   `yaml:"topic"`
					Payload string   `yaml:"payload"`
					Device  *string  `yaml:"device"` // of the topic
					Want    []string `yaml:"want"`
				} `yaml:"messages"`
			}
			parse(t, text, &c)
			set, faults := Compile(c.Mappings)
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			for _, m := range c.Messages {
				route := set.Match(m.Topic)
				if got := decodeAll(route, m.Payload); strings.Join(got, "\n") != strings.Join(m.Want, "\n") {
					t.Errorf("%s\n%s\n got %s\nwant %s", m.Topic, m.Payload, strings.Join(got, "\n     "), strings.Join(m.Want, "\n     "))
				}
				if m.Device != nil && route.Device() != *m.Device {
					t.Errorf("%s: device of the topic %q, want %q", m.Topic, route.Device(), *m.Device)
				}
			}
		})
	}
}

// TestBad finds each fault that the lines "# want: " of a file name, at its path,
// and no other.
func TestBad(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(len(names), err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			Mappings []Mapping `yaml:"mappings"`
		}
		parse(t, text, &c)
		var want, got []string
		for line := range strings.Lines(string(text)) {
			if w, ok := strings.CutPrefix(line, "# want: "); ok {
				want = append(want, strings.TrimSpace(w))
			}
		}
		for _, f := range Validate(c.Mappings) {
			got = append(got, f.String())
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d faults, want %d:\n%s", name, len(got), len(want), strings.Join(got, "\n"))
			continue
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s:\n got %s\nwant %s", name, got[i], want[i])
			}
		}
	}
}

func TestBuiltinsCompile(t *testing.T) {
	if len(BuiltinNames()) < 6 {
		t.Fatal(BuiltinNames())
	}
	for _, name := range BuiltinNames() {
		text, _ := BuiltinText(name)
		var file struct {
			Mappings []Mapping `yaml:"mappings"`
		}
		parse(t, text, &file)
		if _, faults := Compile([]Mapping{{Use: name}}); len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
		}
		cases, err := os.ReadFile("testdata/cases/" + name + ".yaml")
		if err != nil || !bytes.Contains(cases, []byte("use: "+name)) {
			t.Errorf("%s has no examples in testdata/cases: %v", name, err)
		}
	}
}

func TestTopicsThatAreShared(t *testing.T) {
	all := func(topics ...string) []Mapping {
		var list []Mapping
		for _, topic := range topics {
			list = append(list, Mapping{Topic: topic, Part: Part{Device: "d", Kind: "k", Values: map[string]any{"a": "a"}}})
		}
		return list
	}
	for _, c := range []struct {
		first, second string
		never, odd    bool
	}{
		{"a/{x}", "a/{y}", true, false},
		{"a/#", "a/b/c", true, false},
		{"a/#", "a", true, false},
		{"a/b", "a/{x}", false, true},
		{"a/{x}/c", "a/b/{y}", false, true},
		{"a/{x}/c", "a/{x}/d", false, false},
		{"a/b/#", "a/{x}", false, true},
		{"a/{x}", "a/{x}/#", false, true},
		{"a/{x}/c", "a/{x}", false, false},
		{"+/events/rpc", "a/{x}/{y}", false, true},
	} {
		set, faults := Compile(all(c.first, c.second))
		if (len(faults) > 0) != c.never {
			t.Errorf("%s, %s: %v", c.first, c.second, faults)
		}
		if set != nil && (len(set.Odd()) > 0) != c.odd {
			t.Errorf("%s, %s: odd %v", c.first, c.second, set.Odd())
		}
	}
}

func TestFold(t *testing.T) {
	set, faults := Compile([]Mapping{{Topic: "telegraf/{host}", Format: FormatInflux, Part: Part{Device: "{host}.{tag.sensor}", Kind: "{measurement|lower}", Rename: map[string]string{"temp": "temperature_c"}}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	route := set.Match("telegraf/hue-1")
	r := telemetry.Reading{Kind: "Weather", Values: []telemetry.Value{{Name: "temp", Number: 21}}, Tags: []telemetry.Tag{{Key: "sensor", Value: "a"}, {Key: "room", Value: "b"}}}
	if letter := route.Fold(&r); letter != nil || written(r) != "hue-1.a/weather #room=b temperature_c=21" {
		t.Error(letter, written(r))
	}
	r.Tags = nil
	if letter := route.Fold(&r); letter == nil || letter.Reason != "no_device" {
		t.Error(letter)
	}
}

// FuzzDecode gives payloads to every built-in mapping and to one with every key.
func FuzzDecode(f *testing.F) {
	cases, _ := filepath.Glob("testdata/cases/*.yaml")
	for _, name := range cases {
		text, _ := os.ReadFile(name)
		var c struct {
			Messages []struct {
				Topic, Payload string
			} `yaml:"messages"`
		}
		_ = yaml.Unmarshal(text, &c) // TestCases reads it strictly
		for _, m := range c.Messages {
			f.Add(m.Topic, []byte(m.Payload))
		}
	}
	list := []Mapping{{
		Topic: "x/{d}/#", Part: Part{Each: "list", Device: "{d}.{key}.{@.id|slug}", Kind: "k", Time: Time{Path: "t", Zone: "Asia/Ho_Chi_Minh"},
			All: "@", Values: map[string]any{"a": map[string]any{"path": []any{"a", "$.a"}, "scale": 2.0, "none": []any{-1.0, "x"}}, "w": map[string]any{"path": "w", "words": map[string]any{"on": 1.0}}}},
	}, {Topic: "y/{d}/{v}", Format: FormatRaw, Part: Part{Device: "{d}", Kind: "k", Values: map[string]any{"{v}": nil}}}}
	for _, name := range BuiltinNames() {
		list = append(list, Mapping{Use: name})
	}
	set, faults := Compile(list)
	if len(faults) > 0 {
		f.Fatal(faults)
	}
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		route := set.Match(topic)
		if route == nil {
			return
		}
		readings, letters := route.Decode(payload)
		if len(readings) > maxReadings+1 || len(letters) > maxFaults {
			t.Fatalf("%d readings, %d letters", len(readings), len(letters))
		}
		for _, r := range readings {
			if !telemetry.ValidName(r.Device) || !telemetry.ValidName(r.Kind) || len(r.Values) == 0 || len(r.Values) > telemetry.MaxValues {
				t.Fatalf("%+v", r)
			}
			for _, v := range r.Values {
				if !telemetry.ValidName(v.Name) || !telemetry.Finite(v.Number) || telemetry.Reserved(v.Name) {
					t.Fatalf("%+v", v)
				}
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	set, _ := Compile([]Mapping{{Use: "tasmota"}})
	route := set.Match("tele/hue/SENSOR")
	payload := []byte(`{"Time":"2026-11-22T08:00:00","AM2301":{"Temperature":24.6,"Humidity":81.2,"DewPoint":21.1},"TempUnit":"C"}`)
	b.ReportAllocs()
	for b.Loop() {
		if readings, _ := route.Decode(payload); len(readings) != 1 {
			b.Fatal(readings)
		}
	}
}
