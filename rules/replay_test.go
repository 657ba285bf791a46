package rules

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

const propertyDocument = `
kinds:
  - {name: river, values: [{name: level_m, unit: m}, {name: flow_m3s, unit: m³/s}, {name: velocity_ms, unit: m/s}]}
  - {name: rain, values: [{name: rain_mm, unit: mm}]}
  - {name: position, values: [{name: lat, unit: °}, {name: lon, unit: °}]}
  - {name: air, values: [{name: pm25_ugm3, unit: µg/m³}, {name: pm10_ugm3, unit: µg/m³}, {name: o3_ugm3, unit: µg/m³}]}
  - {name: link, values: [{name: up}]}
devices:
  - {id: a, site: s, kinds: [river], interval: 10m, facts: {alarm_m: 2, line: line-1, zone: west}}
  - {id: b, site: s, kinds: [rain], interval: 10m}
  - {id: c, kinds: [river, rain, position], interval: 1m, facts: {alarm_m: 3, zone: east}}
  - {id: d, kinds: [river, air], facts: {line: line-1}}
  - {id: e, kinds: [river], interval: 5m, facts: {alarm_m: 2, line: line-2}}
  - {id: f, kinds: [river, air], interval: 5m, facts: {alarm_m: 4, gateway: stranger-1}}
  - {id: g, kinds: [river, rain], interval: 5m, facts: {alarm_m: 1}}
  - {id: line-1, kinds: [link]}
  - {id: line-2, kinds: [link]}
limits:
  - {name: pm, value: 30}
  - {name: pm, value: 10, from: 2025-10-27}
  - {name: pm, value: 50, from: 2025-10-28}
zones: |
  {"type": "FeatureCollection", "features": [
    {"properties": {"name": "west"}, "geometry": {"type": "Polygon", "coordinates": [[[0,0],[1,0],[1,2],[0,2],[0,0]]]}},
    {"properties": {"name": "east"}, "geometry": {"type": "Polygon", "coordinates": [[[1,0],[2,0],[2,2],[1,2],[1,0]]]}},
    {"properties": {"name": "middle"}, "geometry": {"type": "LineString", "coordinates": [[1,-1],[1,3]]}}]}
rules:
  - {name: flaps, on: river, flap: {raises: 3, within: 20m, quiet: 8m}, levels: [{severity: minor, when: level_m > 2}, {severity: severe, when: level_m > 4}]}
  - {name: unmuted, on: river, when: level_m > 1, clear_for: 2m, mute: [{from: "01:00", to: "02:30"}, {days: [mon], from: "11:00"}]}
  - {name: link-down, on: link, when: up == 0, clear_for: 1m}
  - {name: inhibited, on: river, inhibited_by: [link-down, near], levels: [{severity: minor, when: 'silent("11m")'}, {severity: severe, when: 'level_m > 3'}]}
  - {name: lost, on: river, inhibited_by: [quiet], when: 'silent(flow_m3s, "12m")', for: 2m}
  - {name: aged, on: river, when: 'age(level_m) > 2 * device.interval_s'}
  - {name: unheard, when: 'silent("5m") and not heard()'}
  - {name: fades, on: air, when: 'pm25_ugm3 > 50', clear: 'silent("9m")'}
  - {name: stepped, on: river, when: 'level_m - prev(level_m) > 4 || last(level_m, "20m") - first(level_m, "20m") > 4'}
  - {name: ranked, on: river, when: 'percentile(level_m, 80, "3h") > 4'}
  - {name: near, on: position, levels: [{severity: minor, when: 'distance_m("middle") < 30000'}, {severity: severe, when: 'crossed("middle")'}]}
  - {name: stays, on: position, levels: [{severity: minor, when: 'dwell("west") > 120'}, {severity: severe, when: 'dwell(device.zone) >= 300'}], shadow: true}
  - {name: strays, on: position, when: 'not inside(device.zone)', latch: true}
  - {name: index, on: air, levels: [{severity: minor, when: vn_aqi() > 50}, {severity: severe, when: 'nowcast(pm25_ugm3) > limit("pm")'}]}
  - {name: off, on: river, when: level_m > 0, disabled: true}
  - name: levels
    on: river
    for: 7m
    clear_for: 4m
    levels:
      - {severity: minor, when: level_m > 1, clear: level_m < 0.8, for: 0s}
      - {severity: severe, when: level_m > device.alarm_m}
      - {severity: extreme, when: 'level_m > 4 || rate(level_m, "30m") > 3', for: 2m}
  - {name: windows, on: river, when: 'avg(level_m, "20m") > 1.5 && max(level_m, "2h") - min(level_m, "2h") > 2 || stddev(level_m, "1h") > 1.4'}
  - {name: sums, on: rain, when: 'sum(rain_mm, "1h") > 12 and count(rain_mm, "3h") > 4'}
  - {name: together, on: river, when: 'level_m > 2 && (rain_mm > 3 || sum(rain_mm, "40m") > 9)', clear_for: 1m}
  - {name: ratio, on: river, when: flow_m3s / velocity_ms > 1}
  - {name: quiet, on: river, when: 'silent("25m")', for: 3m}
  - {name: last-bad, on: river, when: 'silent("25m") && quality != "good"'}
  - {name: whole, levels: [{severity: minor, when: 'silent("31m")'}, {severity: severe, when: 'silent("2h")'}]}
  - {name: quality, on: rain, when: quality == "bad", clear_for: 12m}
  - {name: night, on: river, when: hour() >= 20, where: device.alarm_m > 2}
`

// A record is one reading of the log with its receipt time.
type record struct {
	received time.Time
	reading  telemetry.Reading
}

// randomLog makes a log as hostile as the gateway lets it be.
func randomLog(t testing.TB, rng *rand.Rand, n int) []record {
	doc := readDocument(t, propertyDocument)
	changed := readDocument(t, propertyDocument)
	for i := range changed.Rules {
		switch r := &changed.Rules[i]; r.Name {
		case "windows":
			r.When = "level_m > 2"
		case "night":
			r.Message.EN = "other words"
		case "flaps":
			r.Flap = &Flap{}
		case "unmuted":
			r.Mute = nil
		case "lost":
			r.InhibitedBy = nil
		case "stays":
			r.Shadow = false
		case "off":
			r.Disabled = false
		}
	}
	changed.Devices[0].Facts = nil
	changed.Limits = changed.Limits[:2]
	now := epoch
	var log []record
	for _, r := range control(t, doc) {
		log = append(log, record{now, r})
	}
	devices := []string{"a", "a", "b", "c", "c", "d", "stranger-0", "stranger-1", "line-1", "e", "f", "g", "line-2"}
	for len(log) < n {
		now = now.Add(time.Duration(rng.ExpFloat64() * float64(90*time.Second)))
		if rng.IntN(60) == 0 {
			now = now.Add(time.Duration(rng.IntN(200)) * time.Minute)
		}
		burst := 1 + rng.IntN(3)
		if rng.IntN(40) == 0 {
			burst = 30
		}
		for range burst {
			device := devices[rng.IntN(len(devices))]
			if rng.IntN(12) == 0 {
				device = fmt.Sprintf("stranger-%d", rng.IntN(40))
			}
			log = append(log, record{now, randomReading(rng, now, device)})
		}
		switch rng.IntN(80) {
		case 0:
			down := time.Duration(rng.IntN(7200)) * time.Second
			now = now.Add(down + time.Second)
			kind, name := telemetry.KindStart, "down_s"
			if rng.IntN(2) == 0 {
				kind, name = telemetry.KindClock, "jump_s"
			}
			log = append(log, record{now, telemetry.Reading{Device: "box", Kind: kind, Time: now, Values: []telemetry.Value{{Name: name, Number: down.Seconds() - float64(rng.IntN(2)*100)}}}})
		case 1:
			next := doc
			if rng.IntN(2) == 0 {
				next = changed
			}
			for _, r := range control(t, next) {
				log = append(log, record{now, r})
			}
		}
	}
	return log
}

func randomReading(rng *rand.Rand, now time.Time, device string) telemetry.Reading {
	r := telemetry.Reading{Device: device, Site: device, Kind: "river", Time: now}
	names, scale := []string{"level_m", "flow_m3s", "velocity_ms"}, 0.1
	switch {
	case device == "b" || (device == "c" || device == "g") && rng.IntN(3) == 0:
		r.Kind, names = "rain", []string{"rain_mm"}
	case (device == "c" || strings.HasPrefix(device, "stranger")) && rng.IntN(2) == 0:
		r.Kind, names, scale = "position", []string{"lat", "lon"}, 0.04
	case (device == "d" || device == "f") && rng.IntN(2) == 0:
		r.Kind, names, scale = "air", []string{"pm25_ugm3", "pm10_ugm3", "o3_ugm3"}, 2
	case strings.HasPrefix(device, "line"):
		r.Kind, names, scale = "link", []string{"up"}, 0.04
	}
	for _, name := range names {
		if rng.IntN(8) == 0 {
			continue
		}
		v := telemetry.Value{Name: name, Number: float64(rng.IntN(60)) * scale}
		if r.Kind == "link" {
			v.Number = math.Round(v.Number / 2)
		}
		if rng.IntN(10) == 0 {
			v.Quality = telemetry.Quality(rng.IntN(5))
			r.Quality = max(r.Quality, v.Quality)
		}
		r.Values = append(r.Values, v)
	}
	r.Source = []string{"", "broker", "broker", "modbus.line-1"}[rng.IntN(4)]
	switch rng.IntN(20) {
	case 0:
		r.Delay = time.Duration(rng.IntN(40)) * time.Minute
		r.Time = now.Add(-r.Delay)
	case 1:
		r.Time = now.Add(time.Duration(rng.IntN(600)-300) * time.Second).Truncate(time.Minute)
	case 2:
		r.Time = now.Add(time.Duration(rng.IntN(20)) * time.Hour)
	case 3:
		r.Tags = []telemetry.Tag{{Key: "probe", Value: "2"}}
	}
	return r
}

// tight makes an engine of so many shards fork whenever it can, and keep the
// state of few devices.
func tight(engine *Engine) *Engine {
	engine.bounds = bounds{devices: 25, work: 0, timers: 1}
	return engine
}

// replay runs the log over so many shards and returns its transitions as JSON
// lines and the final checkpoint. With a generator it splits frames, adds ticks,
// restarts at random and has another number of shards after each restart.
func replay(t testing.TB, log []record, shards int, rng *rand.Rand) (transitions string, checkpoint []byte) {
	t.Helper()
	var out, shadows bytes.Buffer
	encoder, shadow := json.NewEncoder(&out), json.NewEncoder(&shadows)
	options := Options{Shards: shards, Shadow: func(x telemetry.Transition) {
		if !x.Shadow || shadow.Encode(x) != nil {
			t.Fatalf("%+v", x)
		}
	}}
	engine := tight(NewEngine(options))
	feed := func(received time.Time, readings ...telemetry.Reading) {
		for _, x := range engine.Evaluate(received, readings) {
			if err := encoder.Encode(x); err != nil {
				t.Fatal(err)
			}
		}
	}
	chance := func(n int) bool { return rng != nil && rng.IntN(n) == 0 }
	known := compile(t, readDocument(t, propertyDocument)) // several engines use it
	if chance(2) {
		engine.Know(known)
	}
	for i := 0; i < len(log); {
		j := i + 1
		for j < len(log) && log[j].received.Equal(log[i].received) && !chance(2) {
			j++
		}
		frame := make([]telemetry.Reading, 0, j-i)
		for _, r := range log[i:j] {
			frame = append(frame, r.reading)
		}
		feed(log[i].received, frame...)
		if chance(16) {
			options.Shards = 1 + rng.IntN(MaxShards)
			next := NewEngine(options)
			if chance(2) {
				next.Know(known)
			}
			engine = goOn(t, engine, next)
		}
		// A gap has no ticks: the gateway was not there.
		if j < len(log) && log[j].reading.Kind != telemetry.KindStart && log[j].reading.Kind != telemetry.KindClock && chance(3) {
			between := log[j].received.Sub(log[i].received)
			if between > 0 {
				feed(log[i].received.Add(time.Duration(rng.Int64N(int64(between)+1))), telemetry.Reading{Device: "box", Kind: telemetry.KindTick})
			}
		}
		i = j
	}
	feed(log[len(log)-1].received.Add(48 * time.Hour))
	checkpoint, err := engine.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	return out.String() + shadows.String(), checkpoint
}

// TestReplayIsTheSame: the same log gives the same transitions and the same
// state, whatever the frame boundaries, ticks and restarts.
func TestReplayIsTheSame(t *testing.T) {
	total, seeds := 0, 3
	seen := map[string]int{}
	if s := os.Getenv("HAIDANG_RULES_SEEDS"); s != "" { // for a long run
		var err error
		if seeds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(seeds) {
		log := randomLog(t, rand.New(rand.NewPCG(seed, 1)), 800)
		want, state := replay(t, log, 1, nil)
		total += bytes.Count([]byte(want), []byte("\n"))
		for line := range strings.Lines(want) {
			var x telemetry.Transition
			if err := json.Unmarshal([]byte(line), &x); err != nil {
				t.Fatal(err)
			}
			seen[x.Rule]++
			if x.Flapping {
				seen["flapping"]++
			}
			if len(x.Quality) > 0 {
				seen["quality"]++
			}
			if x.Source != "" && len(x.Sources) > 0 {
				seen["sources"]++
			}
		}
		for variant, shards := range []int{2, 3, 8, 1, 2} {
			var random *rand.Rand
			if variant > 2 {
				random = rand.New(rand.NewPCG(seed, uint64(variant)))
			}
			got, gotState := replay(t, log, shards, random)
			if got != want {
				t.Logf("seed %d, variant %d", seed, variant)
				diffLines(t, want, got)
			}
			if !bytes.Equal(state, gotState) {
				t.Fatalf("seed %d: the final checkpoint differs", seed)
			}
		}
	}
	for _, name := range append(ruleNames(readDocument(t, propertyDocument)), "flapping", "quality", "sources") {
		if seen[name] == 0 {
			t.Errorf("%s is never seen: the test shows nothing of it", name)
		}
	}
	if total < 100*seeds {
		t.Errorf("only %d transitions: the test shows little", total)
	}
}

func ruleNames(doc Document) (names []string) {
	for i := range doc.Rules {
		names = append(names, doc.Rules[i].Name)
	}
	return names
}

// TestWarningsAreWellFormed: each warning is raised once, counts its steps from
// 1, ends cleared, never repeats a severity, and has an id of its own.
func TestWarningsAreWellFormed(t *testing.T) {
	log := randomLog(t, rand.New(rand.NewPCG(7, 7)), 2500)
	engine := NewEngine(Options{})
	last := map[string]telemetry.Transition{}
	active := map[string]string{}
	at := time.Time{}
	for _, r := range log {
		for _, x := range engine.Evaluate(r.received, []telemetry.Reading{r.reading}) {
			before, known := last[x.ID]
			key := x.Rule + "\x00" + x.Device
			switch {
			case x.Step != before.Step+1 || x.N != x.Step:
				t.Fatalf("%s: step %d after %d", x.ID, x.Step, before.Step)
			case known && (before.State == telemetry.Cleared || x.State == telemetry.Active && x.Severity == before.Severity && x.Flapping == before.Flapping):
				t.Fatalf("%s: %s %s after %s %s", x.ID, x.State, x.Severity, before.State, before.Severity)
			case !known && (x.State != telemetry.Active || !x.Start.Equal(x.At) || active[key] != ""):
				t.Fatalf("%s begins with %+v while %q is active", x.ID, x, active[key])
			case known && !x.Start.Equal(before.Start):
				t.Fatalf("%s: start changed", x.ID)
			case x.At.Before(at) || x.At.After(r.received):
				t.Fatalf("%s at %s, after %s, received %s", x.ID, x.At, at, r.received)
			}
			at, last[x.ID] = x.At, x
			active[key] = x.ID
			if x.State == telemetry.Cleared {
				active[key] = ""
			}
		}
	}
}

func TestSeveralWarningsOfOneInstant(t *testing.T) {
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(t, readDocument(t, "rules: [{name: high, on: river, when: level_m > 1}]")))
	keys := map[string]bool{}
	for i := range 6 {
		r := telemetry.Reading{Device: "a", Kind: "river", Time: epoch.Add(time.Duration(i)), Values: []telemetry.Value{{Name: "level_m", Number: float64(2 - i%2*2)}}}
		for _, x := range engine.Evaluate(epoch.Add(time.Second), []telemetry.Reading{r}) {
			keys[x.Key()] = true
		}
		engine = restart(t, engine)
	}
	if len(keys) != 6 {
		t.Errorf("%d keys of 6 transitions: %v", len(keys), keys)
	}
}

func TestForgetsDevicesOfLongAgo(t *testing.T) {
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(t, readDocument(t, `
devices: [{id: known, kinds: [position]}]
rules: [{name: fast, on: position, when: speed_kn > 20}]`)))
	for i := range 100 {
		speed := 5.0
		if i == 0 {
			speed = 30
		}
		engine.Evaluate(epoch.Add(time.Duration(i)*time.Second), []telemetry.Reading{{Device: fmt.Sprintf("mmsi-%d", i), Kind: "position", Values: []telemetry.Value{{Name: "speed_kn", Number: speed}}}})
	}
	engine.Evaluate(epoch.Add(time.Hour), []telemetry.Reading{{Device: "known", Kind: "position", Values: []telemetry.Value{{Name: "speed_kn"}}}})
	engine.Evaluate(epoch.Add(6*24*time.Hour), nil)
	if n := len(engine.devices); n != 101 {
		t.Fatalf("%d devices after 6 days", n)
	}
	engine.Evaluate(epoch.Add(9*24*time.Hour), nil)
	if n := len(engine.devices); n != 2 { // the registered one, and the one whose warning is active
		t.Errorf("%d devices after 9 days", n)
	}
	if n := engine.Rules()[0].Devices; n != 2 {
		t.Errorf("the rule counts %d devices", n)
	}
}

func TestPending(t *testing.T) {
	engine := NewEngine(Options{})
	engine.Evaluate(epoch, control(t, readDocument(t, `rules: [{name: high, on: river, when: level_m > 2, for: 10m, severity: severe}]`)))
	reading := func(device string) []telemetry.Reading {
		return []telemetry.Reading{{Device: device, Kind: "river", Values: []telemetry.Value{{Name: "level_m", Number: 3}}}}
	}
	engine.Evaluate(epoch.Add(time.Minute), reading("b"))
	engine.Evaluate(epoch.Add(2*time.Minute), reading("a"))
	pending := engine.Pending()
	if len(pending) != 2 || pending[0].Device != "b" || pending[1].Device != "a" {
		t.Fatalf("%+v", pending)
	}
	w := pending[0]
	if w.State != telemetry.Pending || w.Severity != telemetry.Severe || !w.Start.Equal(epoch.Add(time.Minute)) || w.Values["level_m"] != 3 || w.N != 0 {
		t.Errorf("%+v", w)
	}
	raised := engine.Evaluate(epoch.Add(12*time.Minute), nil)
	if len(raised) != 2 || raised[0].ID != w.ID || len(engine.Pending()) != 0 {
		t.Errorf("%+v", raised)
	}
	counts := engine.Rules()
	if len(counts) != 1 || counts[0].Evaluations != 2 || counts[0].Raised != 2 || counts[0].Active != 2 || counts[0].Devices != 2 {
		t.Errorf("%+v", counts)
	}
}

func TestDocumentInParts(t *testing.T) {
	doc := readDocument(t, `rules: [{name: high, on: river, when: level_m > 2}]`)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 1500 { // words that do not compress well
		doc.Devices = append(doc.Devices, telemetry.Device{ID: fmt.Sprintf("d%d", i), Kinds: []string{"river"}, Owner: randomWord(rng, 300)})
	}
	parts := control(t, doc)
	if len(parts) < 2 {
		t.Fatalf("%d parts", len(parts))
	}
	for _, p := range parts {
		size := 0
		for _, v := range p.Values {
			size += len(v.Text)
			if len(v.Text) > telemetry.MaxTextBytes {
				t.Fatalf("word %s has %d bytes", v.Name, len(v.Text))
			}
		}
		if size > 192<<10+64 {
			t.Fatalf("part has %d bytes", size)
		}
	}
	engine := NewEngine(Options{})
	for i, p := range parts {
		if engine.Hash() != "" {
			t.Fatal("applied before its last part")
		}
		engine.Evaluate(epoch, []telemetry.Reading{p})
		if i == 0 {
			engine = restart(t, engine)
		}
	}
	if engine.Hash() != Hash(doc) {
		t.Fatalf("hash %q, want %q", engine.Hash(), Hash(doc))
	}
	// A part that is missing leaves what was in force.
	other := doc
	other.Rules = slices.Clone(doc.Rules)
	other.Rules[0].When = "level_m > 3"
	rest := control(t, other)
	engine.Evaluate(epoch, rest[1:])
	if engine.Hash() != Hash(doc) {
		t.Error("a document without its first part was applied")
	}
	rest[0].Values[3].Text = rest[0].Values[3].Text[:100] + "AAAA" + rest[0].Values[3].Text[104:]
	engine.Evaluate(epoch, rest)
	if engine.Hash() != Hash(doc) {
		t.Error("a damaged document was applied")
	}
	engine.Evaluate(epoch, control(t, other))
	if engine.Hash() != Hash(other) {
		t.Error("a whole document was not applied")
	}
}

func randomWord(rng *rand.Rand, letters int) string {
	b := make([]byte, letters)
	for i := range b {
		b[i] = byte('!' + rng.IntN(90))
	}
	return string(b)
}

func TestDocumentThatDoesNotCompile(t *testing.T) {
	engine := NewEngine(Options{})
	good := readDocument(t, `rules: [{name: high, on: river, when: level_m > 2}]`)
	bad := readDocument(t, `rules: [{name: high, on: river, when: level_x > 2}]`)
	engine.Evaluate(epoch, control(t, bad))
	if engine.Hash() != "" || len(engine.Rules()) != 0 {
		t.Error("applied")
	}
	engine.Evaluate(epoch, append(control(t, good), control(t, bad)...))
	if engine.Hash() != Hash(good) {
		t.Error("the document before is not in force")
	}
}
