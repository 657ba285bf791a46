package broker

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"haidang/broker/mapping"
)

func zipped(t testing.TB, payload string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(payload)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mappings(t testing.TB, text string) *mapping.Set {
	t.Helper()
	var file struct {
		Mappings []mapping.Mapping `yaml:"mappings"`
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	set, faults := mapping.Compile(file.Mappings)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return set
}

const someMappings = `
mappings:
  - {use: tasmota}
  - {topic: "raw/{device}/{value}", format: raw, device: "{device}", kind: weather, values: {"{value}": {}}}
  - {topic: "telegraf/{host}", format: influx, device: "{host}.{tag.sensor}"}
  - {topic: "gw/up", each: list, device: "{@.id}", kind: river, values: {level_m: v}}
`

// TestFormats sends each format over MQTT, plain and packed with gzip.
func TestFormats(t *testing.T) {
	for _, c := range []struct{ topic, payload, want string }{
		{"telemetry/d/river", `{"level_m":3.62}`, "d/river level_m=3.62"},
		{"influx/d", "river level_m=3.62", "d/river level_m=3.62"},
		{"senml/d", `[{"bn":"d/","n":"river/level","u":"mm","v":3620}]`, "d/river level_mm=3620"},
		{"tele/d/SENSOR", `{"AM2301":{"Temperature":24.5}}`, "d/weather temperature_c=24.5"},
		{"raw/d/temperature_c", "24.5", "d/weather temperature_c=24.5"},
		{"telegraf/d", "river,sensor=a level_m=3.62", "d.a/river level_m=3.62"},
		{"gw/up", `{"list":[{"id":"a","v":1},{"id":"b","v":2}]}`, "a/river level_m=1|b/river level_m=2"},
	} {
		h := newHouseWith(t, loopback(), []Option{WithMappings(mappings(t, someMappings))})
		w := h.connect(t, hello{version: 4, id: "c"})
		w.publish(1, 1, c.topic, c.payload)
		w.wants("40 0001")
		h.wants(t, strings.Split(c.want, "|")...)
		w.publish(1, 2, c.topic, string(zipped(t, c.payload)))
		w.wants("40 0002")
		h.wants(t, append(strings.Split(c.want, "|"), strings.Split(c.want, "|")...)...)
		if reasons := h.reasons(); len(reasons) > 0 {
			t.Errorf("%s: set aside: %v", c.topic, reasons)
		}
		if n := h.metric("haidang_broker_pending_messages", ""); n != 0 {
			t.Errorf("%s: %v pending", c.topic, n)
		}
	}
}

func TestBadPayloadsAreSetAside(t *testing.T) {
	h := newHouseWith(t, loopback(), []Option{WithMappings(mappings(t, someMappings))})
	w := h.connect(t, hello{version: 4, id: "c"})
	bomb := string(zipped(t, strings.Repeat(" ", maxPayloadBytes+1)))
	whole := string(zipped(t, `{"level_m":3.62}`))
	var want []string
	for i, c := range []struct{ topic, payload, reason string }{
		{"senml/d", `{}`, "bad_json"},
		{"senml/d", `[{"n":"a","v":1,"must_":1}]`, "bad_senml"},
		{"senml/d/e", `[]`, "bad_topic"},
		{"senml/d d", `[]`, "bad_name"},
		{"tele/d/SENSOR", `{"AM2301":{}}`, "no_values"},
		{"tele/d d/SENSOR", `{"AM2301":{"Temperature":1}}`, "bad_name"},
		{"telegraf/d", "river level_m=3.62", "no_device"},
		{"telemetry/d/k", bomb, "too_large"},
		{"telemetry/d/k", whole[:len(whole)-9], "bad_gzip"},
		{"telemetry/d/k", whole[:5], "bad_gzip"},
		{"telemetry/d/k", whole[:len(whole)-4] + "\x00\x00\x00\x00", "bad_gzip"},
	} {
		w.publish(1, uint16(i+1), c.topic, c.payload)
		w.wants(fmt.Sprintf("40 %04x", i+1))
		want = append(want, c.reason)
		eventually(t, strings.Join(want, " "), func() bool { return strings.Join(h.reasons(), " ") == strings.Join(want, " ") })
	}
	if got := h.written(false); len(got) > 0 {
		t.Error(got)
	}
	if l := h.aside[4]; l.Place != "tele/d/SENSOR" || l.Device != "d" || string(l.Bytes) != `{"AM2301":{}}` {
		t.Errorf("%+v", l)
	}
}

// TestMappedLinks follows the link of a device that the topic names, and none
// where only payloads do.
func TestMappedLinks(t *testing.T) {
	h := newHouseWith(t, loopback(), []Option{WithMappings(mappings(t, someMappings))})
	w := h.connect(t, hello{version: 4, id: "c"})
	w.publish(1, 1, "gw/up", `{"list":[{"id":"a","v":1}]}`)
	w.wants("40 0001")
	w.publish(1, 2, "raw/d/temperature_c", "1")
	w.wants("40 0002")
	eventually(t, "link", func() bool { return strings.Join(h.archive.written(true), "|") == "d/link up=1" })
}

// TestMappingsChange puts other mappings in force while a client is connected.
func TestMappingsChange(t *testing.T) {
	const text = `mappings: [{topic: "raw/{device}/level", format: raw, device: "{device}", kind: %s, values: {%s: {}}}]`
	h := newHouseWith(t, loopback(), []Option{WithMappings(mappings(t, fmt.Sprintf(text, "river", "level_m")))})
	w := h.connect(t, hello{id: "a"})
	say := func(id uint16) {
		w.publish(1, id, "raw/d/level", "3.62")
		w.wants(fmt.Sprintf("40 %04x", id))
	}
	say(1)
	h.SetMappings(mappings(t, fmt.Sprintf(text, "reservoir", "reservoir_level_m")))
	say(2)
	h.SetMappings(mappings(t, "mappings: []"))
	say(3) // an ordinary message
	h.SetMappings(nil)
	say(4)
	h.wants(t, "d/river level_m=3.62", "d/reservoir reservoir_level_m=3.62")
	h.counts(t, "haidang_broker_messages_total", "family=other,result=accepted", 2)
}

// TestReader reads as a message would be read, and tells what is no telemetry.
func TestReader(t *testing.T) {
	h := newHouseWith(t, loopback(), []Option{WithMappings(mappings(t, someMappings))})
	r := h.Broker.Reader(func(string, []byte) {})
	if readings, letters, known := r.Read("raw/d/a", []byte("1")); len(readings) != 1 || len(letters) != 0 || !known {
		t.Error(readings, letters, known)
	}
	if readings, letters, known := r.Read("telemetry/d/a", []byte("{")); len(readings) != 0 || len(letters) != 1 || !known {
		t.Error(readings, letters, known)
	}
	if _, _, known := r.Read("chat/x", []byte("hello")); known {
		t.Error("chat is telemetry")
	}
	if readings, err := h.Again("tele/d/SENSOR", []byte(`{"AM2301":{"Temperature":1}}`)); err != nil || len(readings) != 1 {
		t.Error(readings, err)
	}
}

var (
	fenced    = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")
	published = regexp.MustCompile(`(?m)^(?:echo (\S+) \| base64 -d \| )?mosquitto_pub .*-t '?([^' ]+)'? (?:-m '([^']*)'|-s)$`)
)

// TestDocumentation runs the examples of the pages about payloads: what a
// mosquitto_pub of a block sh sends becomes what the block text behind it says,
// by the mappings of the blocks yaml before it.
func TestDocumentation(t *testing.T) {
	pages, err := filepath.Glob("../docs/payloads/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatal(len(pages), err)
	}
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			h := newHouse(t, loopback())
			reader := h.Broker.Reader(func(string, []byte) {})
			examples, sent, got := 0, 0, ""
			for _, block := range fenced.FindAllStringSubmatch(string(text), -1) {
				switch block[1] {
				case "yaml":
					if strings.Contains(block[2], "mappings:") {
						h.SetMappings(mappings(t, block[2]))
					}
				case "sh":
					got, sent = "", 0
					for _, m := range published.FindAllStringSubmatch(block[2], -1) {
						sent++
						payload := []byte(m[3])
						if m[1] != "" {
							if payload, err = base64.StdEncoding.DecodeString(m[1]); err != nil {
								t.Fatal(err)
							}
						}
						readings, letters, known := reader.Read(m[2], payload)
						if !known {
							t.Errorf("topic %s is not known", m[2])
						}
						for _, r := range readings {
							got += written(r) + "\n"
						}
						for _, l := range letters {
							got += l.Reason + ": " + l.Detail + "\n"
						}
					}
				case "text":
					if sent == 0 {
						continue
					}
					examples++
					if got != block[2] {
						t.Errorf("the example before\n%s\ngives\n%s", block[2], got)
					}
				}
			}
			if examples == 0 {
				t.Error("the page has no example")
			}
		})
	}
}

// TestSparkplug lets a node publish data before its birth, be born and die of its
// will, with a rebirth that is asked for in between.
func TestSparkplug(t *testing.T) {
	var messages [][]byte
	text, err := os.ReadFile("sparkplug/testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]))
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, raw)
	}
	birth, early, death := string(messages[0]), string(messages[2]), string(messages[5])
	h := newHouse(t, loopback())
	w := h.connect(t, hello{version: 4, id: "node", willTopic: "spBv1.0/hue/NDEATH/kim-long", willPayload: death})
	w.subscribe(1, "spBv1.0/hue/NCMD/kim-long", 0)
	w.publish(0, 0, "spBv1.0/hue/NDATA/kim-long", early)
	_, _, topic, payload := w.delivery()
	if topic != "spBv1.0/hue/NCMD/kim-long" || !strings.Contains(payload, "Node Control/Rebirth") {
		t.Fatalf("%s %q", topic, payload)
	}
	eventually(t, "two letters", func() bool { return strings.Join(h.reasons(), " ") == "awaits_birth awaits_birth" })
	w.publish(0, 0, "spBv1.0/hue/NBIRTH/kim-long", birth)
	eventually(t, "born", func() bool { return strings.Join(h.archive.written(true), "|") == "kim-long/link up=1" })
	if readings, err := h.Again("spBv1.0/hue/NDATA/kim-long", []byte(early)); err != nil || len(readings) != 2 {
		t.Errorf("the letter cannot be retried after the birth: %v %v", readings, err)
	}
	_ = w.Close()
	eventually(t, "dead", func() bool {
		return strings.Join(h.archive.written(true), "|") == `kim-long/link up=1|kim-long/link up=0 cause="the node said that it is gone"`
	})
	h.counts(t, "haidang_broker_messages_total", "family=sparkplug,result=set_aside", 1)
}

// TestStateOfASparkplugHost sees what nodes see of their primary host, in both ages
// of Sparkplug, and that nobody else says it.
func TestStateOfASparkplugHost(t *testing.T) {
	cfg := loopback()
	cfg.Sparkplug.Host = "haidang"
	h := newHouse(t, cfg)
	node := h.connect(t, hello{version: 5, id: "node"})
	node.subscribe(1, "spBv1.0/STATE/haidang", 1)
	_, id, _, payload := node.delivery()
	if !regexp.MustCompile(`^\{"online":true,"timestamp":\d{13}\}$`).MatchString(payload) {
		t.Errorf("STATE is %s", payload)
	}
	node.puback(id)
	node.subscribe(2, "STATE/haidang", 1)
	node.wantsDelivery(0x33, 2, "STATE/haidang", "ONLINE")
	node.puback(2)
	for i, topic := range []string{"spBv1.0/STATE/haidang", "STATE/haidang"} {
		node.publish(1, uint16(i+1), topic, "OFFLINE")
		node.wants(fmt.Sprintf("40 %04x87", i+1))
	}
	node.publish(1, 3, "STATE/another", "ONLINE")
	node.wants("40 0003")
	go h.stop()
	_, _, _, payload = node.delivery()
	if !strings.HasPrefix(payload, `{"online":false,`) {
		t.Errorf("STATE is %s", payload)
	}
	node.wantsDelivery(0x32, 4, "STATE/haidang", "OFFLINE")
	node.wantsDisconnect(0x8b)
}

// FuzzInflate unpacks what may be gzip: never more than may be read, and what was
// packed comes back.
func FuzzInflate(f *testing.F) {
	f.Add([]byte(`{"level_m":3.62}`))
	f.Add(zipped(f, `{"level_m":3.62}`))
	f.Add(append(zipped(f, "a"), zipped(f, "b")...))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if out, fault := inflate(payload); fault == nil && len(out) > maxPayloadBytes || fault != nil && out != nil {
			t.Fatalf("%d bytes, %v", len(out), fault)
		}
		out, fault := inflate(zipped(t, string(payload)))
		if len(payload) <= maxPayloadBytes && (fault != nil || !bytes.Equal(out, payload)) {
			t.Fatalf("%v, %d bytes of %d", fault, len(out), len(payload))
		}
	})
}
