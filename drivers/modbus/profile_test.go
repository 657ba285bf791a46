package modbus

import (
	"bytes"
	"context"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

func strictly(t testing.TB, text []byte, into any) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// wanted returns the sentence that a file expects in its first line.
func wanted(t *testing.T, text []byte) string {
	t.Helper()
	first, _, _ := strings.Cut(string(text), "\n")
	want, ok := strings.CutPrefix(first, "# want: ")
	if !ok {
		t.Fatal("the first line is not # want: ...")
	}
	return want
}

func files(t *testing.T, pattern string, each func(t *testing.T, path string, text []byte)) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no file %s: %v", pattern, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			each(t, path, text)
		})
	}
}

func TestBadProfiles(t *testing.T) {
	files(t, "testdata/bad-profiles/*.yaml", func(t *testing.T, path string, text []byte) {
		profile, faults := parseProfile(filepath.Base(path), text)
		if profile != nil || len(faults) == 0 {
			t.Fatal("it is accepted")
		}
		if want := wanted(t, text); !slices.ContainsFunc(faults, func(f telemetry.Fault) bool { return strings.Contains(f.String(), want) }) {
			t.Errorf("got %v\nwant %s", faults, want)
		}
	})
}

func TestBadLines(t *testing.T) {
	profiles := profilesOf(t)
	files(t, "testdata/bad-lines/*.yaml", func(t *testing.T, path string, text []byte) {
		var cfg Config
		strictly(t, text, &cfg)
		faults := cfg.Validate(profiles)
		if want := wanted(t, text); len(faults) != 1 || !strings.Contains(faults[0].String(), want) {
			t.Errorf("got %v\nwant one: %s", faults, want)
		}
		if _, err := New(cfg, profiles, newShelf(), nil, nil); err == nil {
			t.Error("New accepts it")
		}
	})
}

func TestLoadProfiles(t *testing.T) {
	p, faults := LoadProfiles(os.DirFS("testdata/profiles"))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	built, _ := LoadProfiles()
	added := slices.DeleteFunc(p.Names(), func(name string) bool { return built.Profile(name) != nil })
	if want := []string{"air-node", "yosemitech-y504"}; !slices.Equal(added, want) || !p.Profile("keller-acculevel").has("station.serial") {
		t.Errorf("names %v, want %v and another keller-acculevel", added, want)
	}
	mine := fstest.MapFS{
		"w.yaml":    {Data: []byte("name: weather-485\nregisters: [{value: weather.temperature_c, address: 7}]")},
		"README.md": {Data: []byte("not a profile")},
		"sub/x.yml": {Data: []byte("not: read")},
	}
	p, faults = LoadProfiles(mine)
	if len(faults) > 0 || !slices.Equal(p.Profile("weather-485").Values(), []string{"weather.temperature_c"}) {
		t.Errorf("the user's own weather-485 does not replace the built-in one: %v", faults)
	}
	mine["again.yml"] = mine["w.yaml"]
	if _, faults = LoadProfiles(mine); len(faults) != 1 || faults[0].String() != `w.yaml: profile "weather-485" is in again.yml already` {
		t.Errorf("a name twice in one folder: %v", faults)
	}
	if _, faults = LoadProfiles(os.DirFS("testdata/nowhere")); len(faults) != 1 {
		t.Errorf("a folder that is not there: %v", faults)
	}
	large := fstest.MapFS{"l.yaml": {Data: bytes.Repeat([]byte("#"), MaxProfileBytes+1)}}
	if _, faults = LoadProfiles(large); len(faults) != 1 || !strings.Contains(faults[0].Want, "larger than") {
		t.Errorf("a file that is too large: %v", faults)
	}
	if _, faults = LoadProfiles(unreadable{}); len(faults) != 1 {
		t.Errorf("a file that cannot be read: %v", faults)
	}
}

// unreadable is a folder whose files may not be opened.
type unreadable struct{}

func (unreadable) Open(name string) (fs.File, error) {
	if name == "." {
		return (fstest.MapFS{"a.yaml": {}}).Open(name)
	}
	return nil, fs.ErrPermission
}

func TestGoodLine(t *testing.T) {
	p, _ := LoadProfiles(os.DirFS("testdata/profiles"))
	var cfg Config
	strictly(t, []byte(`
name: line-1
connect: tcp://[::1]
interval: 10s
timeout: 500ms
units:
  - {id: 1, device: kim-long, profile: weather-485, interval: 1m, options: {wind_scale: 0.01}, omit: [weather.noise_db]}
  - {id: 0, device: phu-oc, profile: weather-485}
  - {id: 250, device: kim-long, profile: air-node, omit: [air.temperature_c]}
  - {id: 255, device: hue, profile: keller-acculevel}
`), &cfg)
	if faults := cfg.Validate(p); len(faults) > 0 {
		t.Fatal(faults)
	}
	if e, err := parseEndpoint(cfg.Connect); err != nil || e.target.Address != "[::1]:502" {
		t.Errorf("endpoint %v, %v", e, err)
	}
}

func TestDecode(t *testing.T) {
	text, err := os.ReadFile("testdata/decode.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Register                  Register
		Words, Text, Absent, Note string
		Want                      float64
	}
	strictly(t, text, &cases)
	for _, c := range cases {
		c.Register.Value = "test.value"
		p := &Profile{Name: "test", Registers: []Register{c.Register}}
		p.fill()
		if faults := p.validate(); len(faults) > 0 {
			t.Errorf("%+v: %v", c.Register, faults)
			continue
		}
		words, err := hex.DecodeString(strings.ReplaceAll(c.Words, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		u := newUnit(&Unit{}, DefaultInterval, p)
		if len(words) != 2*u.blocks[0].count {
			t.Errorf("%+v: %d bytes for %d words", c.Register, len(words), u.blocks[0].count)
			continue
		}
		v, why := u.blocks[0].fields[0].value(&u.blocks[0], words)
		if absenceNames[why] != c.Absent || why == none && (v.Number != c.Want || v.Text != c.Text) {
			t.Errorf("%s %s scale %v of %s gives %v %q %s, want %v %q %s", c.Register.Type, c.Register.Order, c.Register.Scale.Number, c.Words,
				v.Number, v.Text, absenceNames[why], c.Want, c.Text, c.Absent)
		}
	}
}

func TestPlan(t *testing.T) {
	type read struct {
		table        string
		first, count int
		fields       int
	}
	for _, c := range []struct {
		name, profile string
		want          []read
	}{
		{"adjacent", "registers: [{value: a.b, address: 4}, {value: a.c, address: 5, type: float32}, {value: a.d, address: 3}]",
			[]read{{Holding, 3, 4, 3}}},
		{"a gap that is not allowed", "registers: [{value: a.b, address: 4}, {value: a.c, address: 6}]",
			[]read{{Holding, 4, 1, 1}, {Holding, 6, 1, 1}}},
		{"a gap that is allowed", "max_gap: 1\nregisters: [{value: a.b, address: 4}, {value: a.c, address: 6}, {value: a.d, address: 9}]",
			[]read{{Holding, 4, 3, 2}, {Holding, 9, 1, 1}}},
		{"a forbidden range in the gap", "max_gap: 9\nforbidden: [{first: 5, last: 5}]\nregisters: [{value: a.b, address: 4}, {value: a.c, address: 6}]",
			[]read{{Holding, 4, 1, 1}, {Holding, 6, 1, 1}}},
		{"a forbidden range of another table", "max_gap: 9\nforbidden: [{table: input, first: 5, last: 5}]\nregisters: [{value: a.b, address: 4}, {value: a.c, address: 6}]",
			[]read{{Holding, 4, 3, 2}}},
		{"no field is torn", "max_words: 3\nregisters: [{value: a.b, address: 4, type: uint32}, {value: a.c, address: 6, type: uint32}]",
			[]read{{Holding, 4, 2, 1}, {Holding, 6, 2, 1}}},
		{"the same word twice", "registers: [{value: a.b, address: 4, mask: 1}, {value: a.c, address: 4, mask: 2}, {value: a.d, address: 3, type: uint64}]",
			[]read{{Holding, 3, 4, 3}}},
		{"tables", "registers: [{value: a.b, address: 4}, {value: a.c, address: 5, table: input}, {value: a.d, address: 4, table: coil}, {value: a.e, address: 5, table: coil}, {value: a.f, address: 6, table: discrete}]",
			[]read{{Coil, 4, 2, 2}, {Discrete, 6, 1, 1}, {Holding, 4, 1, 1}, {Input, 5, 1, 1}}},
		{"the longest read", "max_gap: 124\nregisters: [{value: a.b, address: 0}, {value: a.c, address: 124}, {value: a.d, address: 125}]",
			[]read{{Holding, 0, 125, 2}, {Holding, 125, 1, 1}}},
	} {
		p := profilesOf(t, "name: p\n"+c.profile).Profile("p")
		var got []read
		for _, b := range newUnit(&Unit{}, DefaultInterval, p).blocks {
			got = append(got, read{b.table, b.first, b.count, len(b.fields)})
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// The built-in weather station: one read, and a whole answer by hand.
func TestWeather485(t *testing.T) {
	p := profilesOf(t).Profile("weather-485")
	u := newUnit(&Unit{Device: "hue"}, DefaultInterval, p)
	if len(u.blocks) != 1 || u.blocks[0].first != 0x01F4 || u.blocks[0].count != 15 {
		t.Fatalf("reads %+v, want one of 15 words from 0x01F4", u.blocks)
	}
	answer, _ := hex.DecodeString("0077" + "0003" + "0001" + "002D" + "0381" + "FFDD" + "01C7" + "0023" + "0041" + "03F5" + "00012345" + "02E9" + "007B" + "0159")
	line := bareLine(t, DefaultTimeout, "127.0.0.1")
	h := u.harvest()
	line.buses[0].decode(&u.blocks[0], answer, h)
	readings := h.judged(u)
	want := map[string]map[string]float64{
		"weather": {"wind_speed_ms": 11.9, "wind_force_bft": 3, "wind_sector": 1, "wind_direction_deg": 45, "humidity_pct": 89.7, "temperature_c": -3.5,
			"noise_db": 45.5, "pressure_hpa": 1013, "illuminance_lx": 74565, "rain_total_mm": 12.3, "radiation_wm2": 345},
		"air": {"pm25_ugm3": 35, "pm10_ugm3": 65},
	}
	for _, r := range readings {
		got := map[string]float64{}
		for _, v := range r.Values {
			got[v.Name] = v.Number
		}
		if r.Device != "hue" || !reflect.DeepEqual(got, want[r.Kind]) {
			t.Errorf("%s of %s: %v, want %v", r.Kind, r.Device, got, want[r.Kind])
		}
	}
	if len(readings) != 2 {
		t.Errorf("%d readings, want 2", len(readings))
	}
	u = newUnit(&Unit{Options: map[string]float64{"wind_scale": 0.01}, Omit: []string{"air.pm25_ugm3", "air.pm10_ugm3"}}, DefaultInterval, p)
	h = u.harvest()
	line.buses[0].decode(&u.blocks[0], answer, h)
	readings = h.judged(u)
	if wind, _ := readings[0].Number("wind_speed_ms"); wind != 1.19 || len(readings) != 1 {
		t.Errorf("wind %v with hundredths and %d readings without air, want 1.19 and 1", wind, len(readings))
	}
}

// Each built-in profile against a captured or computed exchange: exactly these
// requests, and these values from their answers.
func TestFrames(t *testing.T) {
	profiles := profilesOf(t)
	tested := map[string]bool{}
	files(t, "testdata/frames/*.yaml", func(t *testing.T, _ string, text []byte) {
		var c struct {
			Profile   string
			Unit      int
			Options   map[string]float64
			Exchanges []struct{ Request, Response string }
			Values    map[string]float64
			Quality   telemetry.Quality
		}
		strictly(t, text, &c)
		tested[c.Profile] = true
		answers := map[string][]byte{}
		for _, e := range c.Exchanges {
			answers[string(unhex(t, e.Request))] = unhex(t, e.Response)
		}
		shelf := newShelf()
		cfg := Config{Name: "line", Connect: "rtu+tcp://h:1", Units: []Unit{{ID: c.Unit, Device: "a", Profile: c.Profile, Options: c.Options}}}
		line, _ := newLine(t, cfg, profiles, shelf)
		b := line.buses[0]
		b.medium = recorded{t, answers}
		if err := b.poll(t.Context(), b.units[0]); err != nil {
			t.Fatal(err)
		}
		if len(answers) > 0 {
			t.Errorf("%d of %d exchanges did not take place", len(answers), len(c.Exchanges))
		}
		got := map[string]float64{}
		for _, r := range shelf.all() {
			for _, v := range r.Values {
				if r.Kind == telemetry.KindLink {
					continue
				}
				if got[r.Kind+"."+v.Name] = v.Number; v.Quality != c.Quality || r.Quality != c.Quality {
					t.Errorf("%s has quality %s, its reading %s, want %s", v.Name, v.Quality, r.Quality, c.Quality)
				}
			}
		}
		if !reflect.DeepEqual(got, c.Values) {
			t.Errorf("got  %v\nwant %v", got, c.Values)
		}
	})
	for _, name := range profiles.Names() {
		if !tested[name] {
			t.Errorf("profile %s has no file in testdata/frames", name)
		}
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// recorded is a medium that answers what was recorded, each exchange once.
type recorded struct {
	t       *testing.T
	answers map[string][]byte
}

func (r recorded) Open(context.Context) error { return nil }
func (r recorded) Watch() <-chan error        { return nil }
func (r recorded) Close()                     {}

func (r recorded) Exchange(_ context.Context, request []byte) ([]byte, error) {
	found := scanRTU(r.answers[string(request)], request)
	if found.answer == nil {
		r.t.Errorf("request % X has no valid recorded answer", request)
		return nil, errBadAnswer
	}
	delete(r.answers, string(request))
	return found.answer, nil
}
