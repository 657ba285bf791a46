package sparkplug

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"haidang/gateway/telemetry"
)

var now = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

type asked struct {
	topics   []string
	payloads [][]byte
}

func newTestHost() (*Host, *asked) {
	a := &asked{}
	return NewHost(DefaultConfig(), func(topic string, payload []byte) {
		a.topics, a.payloads = append(a.topics, topic), append(a.payloads, payload)
	}), a
}

func outcome(readings []telemetry.Reading, letters []telemetry.DeadLetter) string {
	var out []string
	for _, r := range readings {
		s := r.Device + "/" + r.Kind
		for _, v := range r.Values {
			if v.Text != "" {
				s += fmt.Sprintf(" %s=%q", v.Name, v.Text)
			} else {
				s += fmt.Sprintf(" %s=%.10g", v.Name, v.Number)
			}
			if v.Quality != telemetry.Good {
				s += "!" + v.Quality.String()
			}
		}
		if !r.Time.IsZero() {
			s += r.Time.Format(" @15:04:05")
		}
		out = append(out, s)
	}
	for _, l := range letters {
		out = append(out, l.Reason)
	}
	return strings.Join(out, "|")
}

func (h *Host) send(t testing.TB, topic string, raw []byte, at time.Time) string {
	t.Helper()
	parsed, ours := ParseTopic(topic)
	if !ours || parsed == nil {
		t.Fatalf("topic %s", topic)
	}
	return outcome(h.Take(parsed, raw, at))
}

// A sample is a metric of a test: of a template when it has parts.
type sample struct {
	name       string
	datatype   uint64
	value      uint64
	definition bool
	parts      []sample
}

func (s sample) encode() []byte {
	var m []byte
	m = protowire.AppendTag(m, 1, protowire.BytesType)
	m = protowire.AppendString(m, s.name)
	if s.datatype > 0 {
		m = protowire.AppendTag(m, 4, protowire.VarintType)
		m = protowire.AppendVarint(m, s.datatype)
	}
	if s.parts == nil {
		m = protowire.AppendTag(m, fieldInt, protowire.VarintType)
		return protowire.AppendVarint(m, s.value)
	}
	var body []byte
	for _, part := range s.parts {
		body = protowire.AppendTag(body, 2, protowire.BytesType)
		body = protowire.AppendBytes(body, part.encode())
	}
	body = protowire.AppendTag(body, 4, protowire.BytesType)
	body = protowire.AppendString(body, "Pump")
	body = protowire.AppendTag(body, 5, protowire.VarintType)
	body = protowire.AppendVarint(body, protowire.EncodeBool(s.definition))
	m = protowire.AppendTag(m, fieldTemplate, protowire.BytesType)
	return protowire.AppendBytes(m, body)
}

func encode(seq uint64, samples ...sample) []byte {
	var p []byte
	for _, s := range samples {
		p = protowire.AppendTag(p, 2, protowire.BytesType)
		p = protowire.AppendBytes(p, s.encode())
	}
	p = protowire.AppendTag(p, 3, protowire.VarintType)
	return protowire.AppendVarint(p, seq)
}

// TestTemplates reads instances as folders of metrics, templates in templates too,
// and passes over definitions.
func TestTemplates(t *testing.T) {
	const typeTemplate = 19
	h, _ := newTestHost()
	pump := func(definition bool, name string, flow uint64, datatype uint64) sample {
		return sample{name: name, datatype: typeTemplate, definition: definition, parts: []sample{
			{name: "flow_m3h", datatype: datatype, value: flow},
			{name: "motor", datatype: typeTemplate, parts: []sample{{name: "temperature_c", datatype: datatype, value: 0xfffffffe}}},
		}}
	}
	got := h.send(t, "spBv1.0/hue/NBIRTH/kim-long", encode(0, pump(true, "_types_/Pump", 0, typeInt32), pump(false, "Pumps/1", 120, typeInt32)), now)
	if want := "kim-long/link up=1|kim-long/Pumps.1 flow_m3h=120|kim-long/Pumps.1.motor temperature_c=-2"; got != want {
		t.Errorf("birth\n got %s\nwant %s", got, want)
	}
	if n := h.Definitions(); n != 1 {
		t.Errorf("%d definitions", n)
	}
	got = h.send(t, "spBv1.0/hue/NDATA/kim-long", encode(1, pump(false, "Pumps/1", 130, 0)), now) // types are those of the birth
	if want := "kim-long/Pumps.1 flow_m3h=130|kim-long/Pumps.1.motor temperature_c=-2"; got != want {
		t.Errorf("data\n got %s\nwant %s", got, want)
	}
	deep := sample{name: "x", value: 1}
	for range maxDepth + 1 {
		deep = sample{name: "x", datatype: typeTemplate, parts: []sample{deep}}
	}
	if got := h.send(t, "spBv1.0/hue/NDATA/kim-long", encode(2, deep), now); got != "bad_sparkplug" {
		t.Errorf("templates without end: %s", got)
	}
}

// messages are those of npm's sparkplug-payload, by their order.
func messages(t testing.TB) (topics []string, payloads [][]byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		at := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line[at+1:]))
		if err != nil {
			t.Fatal(err)
		}
		topics, payloads = append(topics, line[:at]), append(payloads, raw)
	}
	return topics, payloads
}

// TestPeerMessages reads a life of a node as npm's sparkplug-payload writes it.
func TestPeerMessages(t *testing.T) {
	h, asked := newTestHost()
	topics, payloads := messages(t)
	want := []string{
		`kim-long/link up=1|kim-long/river level_m=3.62 flow_m3s=120.5 @01:00:00|kim-long/sparkplug rssi_dbm=-71 @01:00:00|kim-long/Properties Hardware_Make="Hải Đăng" @01:00:00`,
		`kim-long.pump-1/link up=1|kim-long.pump-1/pump running=1 starts=123456789 temperature_c=-5 at=1.7637732e+12 @01:00:00|complicated`,
		`kim-long/river level_m=3.7 @01:00:01|kim-long/sparkplug rssi_dbm=-70 @01:00:01`,
		`kim-long.pump-1/pump temperature_c=-6 @01:00:02|kim-long.pump-1/pump starts=5 @00:59:00`,
		`kim-long.pump-1/link up=0 cause="the node said that it is gone"`,
		`kim-long/link up=0 cause="the node said that it is gone"`,
	}
	for i := range want {
		if got := h.send(t, topics[i], payloads[i], now); got != want[i] {
			t.Errorf("%s\n got %s\nwant %s", topics[i], got, want[i])
		}
	}
	if len(asked.topics) > 0 {
		t.Error("a rebirth was asked for:", asked.topics)
	}
}

// TestPeer lets npm's sparkplug-payload encode the messages again, and decode our
// request for a rebirth.
func TestPeer(t *testing.T) {
	packages, err := filepath.Abs("../../.ci/npm/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if _, missing := os.Stat(filepath.Join(packages, "sparkplug-payload")); err != nil || missing != nil {
		if os.Getenv("HAIDANG_E2E") != "" {
			t.Fatal("node or the npm package sparkplug-payload is not installed: run .ci/peers")
		}
		t.Skip("node or the npm package sparkplug-payload is not installed (.ci/peers installs it)")
	}
	run := func(args ...string) []byte {
		cmd := exec.Command(node, args...)
		cmd.Env = append(os.Environ(), "NODE_PATH="+packages)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	made := run("testdata/make.js")
	if kept, _ := os.ReadFile("testdata/messages.txt"); !bytes.Equal(made, kept) {
		t.Errorf("the peer encodes otherwise than testdata/messages.txt:\n%s", made)
	}
	out := run("-e", `console.log(JSON.stringify(require("sparkplug-payload").get("spBv1.0").decodePayload(Buffer.from(process.argv[1], "base64"))))`,
		base64.StdEncoding.EncodeToString(rebirth(1763773200000)))
	if text := string(out); !strings.Contains(text, `"name":"Node Control/Rebirth"`) || !strings.Contains(text, `"value":true`) || !strings.Contains(text, `"type":"Boolean"`) {
		t.Error(text)
	}
}

// message writes a message with metrics of doubles; a name "#5" is alias 5.
func message(seq int, at uint64, metrics ...any) []byte {
	var b []byte
	if at > 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), at)
	}
	for i := 0; i < len(metrics); i += 2 {
		var m []byte
		name := metrics[i].(string)
		if alias := uint64(0); strings.HasPrefix(name, "#") {
			fmt.Sscanf(name, "#%d", &alias)
			m = protowire.AppendVarint(protowire.AppendTag(m, 2, protowire.VarintType), alias)
		} else {
			text, alias, aliased := strings.Cut(name, "#")
			m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), text)
			if aliased {
				n := uint64(0)
				fmt.Sscan(alias, &n)
				m = protowire.AppendVarint(protowire.AppendTag(m, 2, protowire.VarintType), n)
			}
		}
		switch v := metrics[i+1].(type) {
		case int:
			m = protowire.AppendVarint(protowire.AppendTag(m, fieldLong, protowire.VarintType), uint64(v))
		case string:
			m = protowire.AppendString(protowire.AppendTag(m, fieldString, protowire.BytesType), v)
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), m)
	}
	if seq >= 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(seq))
	}
	return b
}

// TestGaps loses messages and counts the requests for a rebirth.
func TestGaps(t *testing.T) {
	h, asked := newTestHost()
	const nbirth, ndata, dbirth, ddata, ndeath = "spBv1.0/g/NBIRTH/e", "spBv1.0/g/NDATA/e", "spBv1.0/g/DBIRTH/e/d", "spBv1.0/g/DDATA/e/d", "spBv1.0/g/NDEATH/e"
	step := func(at time.Duration, topic string, raw []byte, want string, requests int) {
		t.Helper()
		if got := h.send(t, topic, raw, now.Add(at)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if len(asked.topics) != requests {
			t.Errorf("%d rebirths asked for, want %d", len(asked.topics), requests)
		}
	}
	const s = time.Second
	step(0, ndata, message(5, 0, "a", 1, "#1", 2), "e/sparkplug a=1|awaits_birth", 1) // before its birth
	step(9*s, ndata, message(6, 0, "#1", 2), "awaits_birth", 1)                       // not so soon again
	step(11*s, ndata, message(7, 0, "#1", 2), "awaits_birth", 2)
	step(25*s, ndata, message(8, 0, "#1", 2), "awaits_birth", 2) // and then later
	if asked.topics[0] != "spBv1.0/g/NCMD/e" || len(asked.payloads[0]) == 0 {
		t.Error(asked.topics)
	}
	step(30*s, nbirth, message(0, 0, "bdSeq", 3, "a#1", 1), "e/link up=1|e/sparkplug a=1", 2)
	step(30*s, dbirth, message(1, 0, "b#2", 1), "e.d/link up=1|e.d/sparkplug b=1", 2)
	step(31*s, ddata, message(2, 0, "#2", 7), "e.d/sparkplug b=7", 2)
	step(31*s, ddata, message(2, 0, "#2", 7), "e.d/sparkplug b=7", 2) // delivered twice
	step(31*s, ddata, message(3, 0, "#1", 7), "awaits_birth", 3)      // an alias of the node, not of the device
	step(32*s, nbirth, message(0, 0, "bdSeq", 4, "a#1", 1), "e/link up=1|e/sparkplug a=1", 3)
	step(33*s, ndata, message(2, 0, "#1", 9), "awaits_birth", 4) // 1 was lost
	step(34*s, ndata, message(3, 0, "#1", 9), "awaits_birth", 4)
	step(35*s, nbirth, message(0, 0, "bdSeq", 5, "a#1", 1), "e/link up=1|e/sparkplug a=1", 4)
	for i := range 300 { // the sequence wraps
		step(36*s, ndata, message((i+1)%256, 0, "#1", i), fmt.Sprintf("e/sparkplug a=%d", i), 4)
	}
	step(40*s, ndeath, message(-1, 0, "bdSeq", 4), "", 4) // of an earlier session
	readings := strings.Split(h.send(t, ndeath, message(-1, 0, "bdSeq", 5), now), "|")
	if len(readings) != 2 || !strings.HasPrefix(readings[0], "e/link up=0") || !strings.HasPrefix(readings[1], "e.d/link up=0") {
		t.Error(readings)
	}
	topic, _ := ParseTopic(ndata)
	if got := outcome(h.Again(topic, message(2, 0, "#1", 9), now)); got != "awaits_birth" || len(asked.topics) != 4 {
		t.Error(got, asked.topics)
	}
}

func TestTopicsAndNames(t *testing.T) {
	for _, c := range []struct {
		topic string
		ours  bool
		name  string
	}{
		{"spBv1.0/hue/NDATA/kim long", true, "kim-long"},
		{"spBv1.0/hue/DDATA/e/d/x", true, ""},
		{"spBv1.0/hue/NDATA", true, ""},
		{"spBv1.0/hue/NDATA/e/d", true, ""},
		{"spBv1.0/hue/NCMD/e", false, ""},
		{"spBv1.0/STATE/scada", false, ""},
		{"spBv1.0/hue/DDATA/e/máy bơm", true, "e.máy-bơm"},
	} {
		topic, ours := ParseTopic(c.topic)
		name := ""
		if topic != nil {
			cfg := DefaultConfig()
			name = cfg.Name(topic)
		}
		if ours != c.ours || name != c.name {
			t.Errorf("%s: %v %q", c.topic, ours, name)
		}
	}
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{DefaultConfig(), ""},
		{Config{Node: "n", Device: "{device}", Kind: "k"}, "node"},
		{Config{Node: "{edge}{device}", Device: "{device}", Kind: "k"}, "node"},
		{Config{Node: "{edge}", Device: "{group}/{device}", Kind: "k"}, "device"},
		{Config{Node: "{edge}", Device: "{device}", Kind: "a b"}, "kind"},
	} {
		faults := c.cfg.Validate()
		if (c.want == "") != (len(faults) == 0) || len(faults) > 0 && faults[0].Path != c.want {
			t.Errorf("%+v: %v", c.cfg, faults)
		}
	}
}

func FuzzTake(f *testing.F) {
	topics, payloads := messages(f)
	for i := range topics {
		f.Add(uint8(i), payloads[i], payloads[0])
	}
	kinds := []string{"NBIRTH/e", "DBIRTH/e/d", "NDATA/e", "DDATA/e/d", "DDEATH/e/d", "NDEATH/e"}
	f.Fuzz(func(t *testing.T, kind uint8, first, second []byte) {
		h, _ := newTestHost()
		for _, raw := range [][]byte{first, second} {
			topic, _ := ParseTopic("spBv1.0/g/" + kinds[int(kind)%len(kinds)])
			readings, letters := h.Take(topic, raw, now)
			if len(letters) > maxLetters {
				t.Fatal(len(letters))
			}
			for _, r := range readings {
				if !telemetry.ValidName(r.Device) || !telemetry.ValidName(r.Kind) || len(r.Values) == 0 || len(r.Values) > telemetry.MaxValues {
					t.Fatalf("%+v", r)
				}
				for _, v := range r.Values {
					if !telemetry.ValidName(v.Name) || telemetry.Reserved(v.Name) || !telemetry.Finite(v.Number) {
						t.Fatalf("%+v", v)
					}
				}
			}
		}
	})
}

func BenchmarkTake(b *testing.B) {
	h, _ := newTestHost()
	topics, payloads := messages(b)
	h.send(b, topics[0], payloads[0], now)
	topic, _ := ParseTopic(topics[2])
	b.ReportAllocs()
	for b.Loop() {
		if readings, _ := h.Again(topic, payloads[2], now); len(readings) != 2 {
			b.Fatal(readings)
		}
	}
}
