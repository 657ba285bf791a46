package cap

import (
	"encoding/xml"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

var update = flag.Bool("update", false, "write the golden files anew")

// rivers are the two stations of the flood of October 2025.
type rivers struct{}

func (rivers) Device(id string) *telemetry.Device {
	lat, lon := 16.4531, 107.5631
	switch id {
	case "kim-long":
		return &telemetry.Device{ID: id, Name: "Trạm Kim Long (sông Hương)", Lat: &lat, Lon: &lon,
			Facts: map[string]any{"commune": "Kim Long", "commune_code": "19774", "radius_km": 8.0}}
	case "phu-oc":
		return &telemetry.Device{ID: id, Name: "Trạm Phú Ốc (sông Bồ)", Facts: map[string]any{"commune": "nowhere"}}
	}
	return nil
}

func (rivers) Zone(name string) [][][2]float64 {
	if name != "Kim Long" {
		return nil
	}
	return [][][2]float64{{{107.54, 16.44}, {107.59, 16.44}, {107.59, 16.47}, {107.54, 16.47}, {107.54, 16.44}}}
}

func (rivers) Quantity(kind, value string) *telemetry.Quantity {
	if kind == "river" && value == "level_m" {
		return &telemetry.Quantity{Name: value, Unit: "m", Title: telemetry.Text{VI: "Mực nước", EN: "Water level"}}
	}
	return nil
}

func hue(text string) time.Time {
	t, err := time.ParseInLocation("2006-01-02 15:04", text, vietnam())
	if err != nil {
		panic(err)
	}
	return t
}

// level is a step of flood-level: 0 clears it.
func level(device string, n int, at string, severity telemetry.Severity, m, alarm float64) telemetry.Warning {
	w := telemetry.Warning{
		ID: device + "-flood-level-3f9a2c1b7d", N: n, Rule: "flood-level", Device: device, Site: device, Kind: "river",
		State: telemetry.Active, Severity: severity, At: hue(at), Start: hue("2025-10-26 14:00"),
		Values: map[string]float64{"level_m": m}, Threshold: &alarm,
		Message: telemetry.Text{VI: fmt.Sprintf("Mực nước %v m, báo động là %v m", m, alarm), EN: fmt.Sprintf("Water level %v m, alarm level is %v m", m, alarm)},
	}
	if severity == telemetry.NoSeverity {
		w.State, w.Severity = telemetry.Cleared, telemetry.Moderate
	}
	return w
}

// flood is the flood at Kim Long as the scenario of the shipped pack draws it:
// 5.05 m on 27 October 2025 at 20:00, 4.57 m on 29 October at 15:00.
func flood() []telemetry.Warning {
	ack := level("kim-long", 4, "2025-10-27 09:05", telemetry.Extreme, 3.5, 3.5)
	ack.State, ack.AckedBy = telemetry.Acknowledged, "Nguyễn Văn An"
	return []telemetry.Warning{
		level("kim-long", 1, "2025-10-26 14:00", telemetry.Moderate, 1.066, 1),
		level("kim-long", 2, "2025-10-26 22:00", telemetry.Severe, 2.128, 2),
		level("kim-long", 3, "2025-10-27 09:00", telemetry.Extreme, 3.589, 3.5),
		ack,
		level("kim-long", 5, "2025-10-28 17:00", telemetry.Severe, 3.431, 2),
		level("kim-long", 6, "2025-10-29 01:00", telemetry.Extreme, 3.561, 3.5),
		level("kim-long", 7, "2025-10-30 02:00", telemetry.Severe, 3.418, 2),
		level("kim-long", 8, "2025-10-30 17:00", telemetry.Moderate, 1.847, 1),
		level("kim-long", 9, "2025-10-31 02:00", telemetry.NoSeverity, 0.905, 1),
	}
}

func configured() Config {
	return Config{
		Sender: "haidang@ioc.hue.gov.vn", SenderName: telemetry.Text{VI: "Trung tâm điều hành Huế", EN: "Hue operations centre"},
		Web: "https://hue.gov.vn/canhbao?muc=lu&x=1", Contact: "0234 1022", Geocodes: map[string]string{"commune": "commune_code"},
	}
}

// chain applies transitions and returns the messages that are due by a time.
func chain(c *Chronicle, list []telemetry.Warning, by time.Time) []Bulletin {
	for _, w := range list {
		c.Apply(w)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.incidents[list[0].ID].bulletins(by)
}

// The flood gives the chain of the golden files, whichever validates.
func TestFloodOfOctober2025(t *testing.T) {
	composer := NewComposer(configured(), rivers{}, "kim-long-box")
	var sent []*Message
	seen := map[string]string{}
	for _, b := range chain(NewChronicle(), flood(), hue("2025-11-01 00:00")) {
		m := composer.Message(&b)
		text, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		validate(t, b.Identifier, text)
		golden(t, fmt.Sprintf("flood-2025-10/%02d-%s.xml", len(sent)+1, m.Type), text)
		var want []string
		for _, earlier := range sent {
			want = append(want, earlier.Reference())
		}
		if m.References != strings.Join(want, " ") {
			t.Errorf("%s refers to\n%s\nwant every earlier message\n%s", m.Identifier, m.References, strings.Join(want, " "))
		}
		if seen[m.Identifier] != "" {
			t.Errorf("identifier %s is there twice", m.Identifier)
		}
		seen[m.Identifier] = m.Type
		sent = append(sent, m)
	}
	var types []string
	for _, m := range sent {
		types = append(types, m.Type+" "+m.Sent+" "+m.Infos[0].Severity)
	}
	want := []string{
		"Alert 2025-10-26T14:00:00+07:00 Moderate", "Update 2025-10-26T22:00:00+07:00 Severe",
		"Update 2025-10-27T09:00:00+07:00 Extreme", "Update 2025-10-27T21:00:00+07:00 Extreme", "Update 2025-10-28T09:00:00+07:00 Extreme",
		"Update 2025-10-28T17:00:00+07:00 Severe", "Update 2025-10-29T01:00:00+07:00 Extreme",
		"Update 2025-10-29T13:00:00+07:00 Extreme", "Update 2025-10-30T01:00:00+07:00 Extreme",
		"Update 2025-10-30T02:00:00+07:00 Severe", "Update 2025-10-30T14:00:00+07:00 Severe", "Update 2025-10-30T17:00:00+07:00 Moderate",
		"Cancel 2025-10-31T02:00:00+07:00 Minor",
	}
	if strings.Join(types, "\n") != strings.Join(want, "\n") {
		t.Errorf("the chain is\n%s\nwant\n%s", strings.Join(types, "\n"), strings.Join(want, "\n"))
	}
}

// A restart, and transitions that come twice, change nothing: each message is
// the same whether it is written when it is due or read from the log later.
func TestTheChainIsAFunctionOfTheLog(t *testing.T) {
	list := flood()
	composer := NewComposer(configured(), rivers{}, "box")
	live := NewChronicle()
	whole := map[string]string{}
	for _, b := range chain(NewChronicle(), append(append([]telemetry.Warning(nil), list...), list...), hue("2025-11-01 00:00")) {
		text, err := composer.Message(&b).Encode()
		if err != nil {
			t.Fatal(err)
		}
		whole[b.Identifier] = string(text)
	}
	for _, w := range list {
		b, is := live.Of(w) // before the chronicle knows of it
		live.Apply(w)
		after, stillIs := live.Of(w)
		if is != stillIs || b.Identifier != after.Identifier {
			t.Fatalf("%s: %v %q before, %v %q after it is applied", w.Key(), is, b.Identifier, stillIs, after.Identifier)
		}
		if is == (w.State == telemetry.Acknowledged) {
			t.Errorf("%s (%s) is a message: %v", w.Key(), w.State, is)
		}
		if !is {
			continue
		}
		text, err := composer.Message(&b).Encode()
		if err != nil || string(text) != whole[b.Identifier] {
			t.Errorf("%s: %v\n%s\nwant\n%s", b.Identifier, err, text, whole[b.Identifier])
		}
	}
}

func TestReturnedThenRaisedAgainIsANewChain(t *testing.T) {
	over := level("kim-long", 2, "2025-10-26 16:00", telemetry.NoSeverity, 0.9, 1)
	over.State = telemetry.Returned
	acked := level("kim-long", 3, "2025-10-26 16:30", telemetry.NoSeverity, 0.9, 1)
	again := level("kim-long", 4, "2025-10-26 17:00", telemetry.Severe, 2.1, 2)
	c := NewChronicle()
	for _, w := range []telemetry.Warning{level("kim-long", 1, "2025-10-26 14:00", telemetry.Moderate, 1.1, 1), over, acked} {
		c.Apply(w)
	}
	if _, is := c.Of(acked); is {
		t.Error("a second end is a message")
	}
	b, is := c.Of(again)
	if !is || b.Type != TypeAlert || len(b.refers) != 0 {
		t.Errorf("raised again: %v %+v, want an Alert without references", is, b)
	}
}

// An operator who says that there was nothing ends it for the public; if he was
// wrong, it begins anew.
func TestFalseAlarmIsACancel(t *testing.T) {
	c := NewChronicle()
	c.Apply(level("kim-long", 1, "2025-10-26 14:00", telemetry.Severe, 3, 2))
	for n, want := range []string{TypeCancel, "", TypeAlert, TypeCancel} {
		w := level("kim-long", n+2, "2025-10-26 15:00", telemetry.Severe, 3, 2)
		w.FalseAlarm = n < 2
		if n == 3 {
			w.State = telemetry.OutOfService
		}
		b, is := c.Of(w)
		if is != (want != "") || b.Type != want {
			t.Errorf("transition %d is %q, want %q", w.N, b.Type, want)
		}
		c.Apply(w)
	}
}

// Words change while the gateway runs, the sender does not: the references of a
// chain name it.
func TestConfigure(t *testing.T) {
	c := NewComposer(Config{Sender: "a@hue.example", SenderName: telemetry.Text{VI: "Cũ"}}, rivers{}, "box")
	c.Configure(Config{Sender: "b@hue.example", SenderName: telemetry.Text{VI: "Mới"}, Events: []Event{{Rule: "flood-level", Instruction: telemetry.Text{VI: "Lên đê"}}}})
	chain := NewChronicle()
	b, _ := chain.Of(level("kim-long", 1, "2025-10-26 14:00", telemetry.Severe, 3, 2))
	m := c.Message(&b)
	if m.Sender != "a@hue.example" || m.Infos[0].SenderName != "Mới" || m.Infos[0].Instruction != "Lên đê" || !strings.HasSuffix(m.Infos[0].Areas[0].Circles[0], " 8") {
		t.Errorf("%s %+v", m.Sender, m.Infos[0])
	}
}

// What is withdrawn while a station is repaired is no all-clear.
func TestWithdrawn(t *testing.T) {
	composer := NewComposer(Config{Sender: "haidang@ioc.hue.example"}, rivers{}, "box")
	for _, c := range []struct {
		state    telemetry.State
		mistake  bool
		headline string
		response string
		severity string
	}{
		{telemetry.OutOfService, false, "Rút lại: Lũ", "Monitor", "Unknown"},
		{telemetry.Active, true, "Rút lại: Lũ", "AllClear", "Minor"},
		{telemetry.Cleared, true, "Kết thúc: Lũ", "AllClear", "Minor"},
		{telemetry.Cleared, false, "Kết thúc: Lũ", "AllClear", "Minor"},
		{telemetry.Returned, false, "Kết thúc: Lũ", "AllClear", "Minor"},
	} {
		chain := NewChronicle()
		chain.Apply(level("kim-long", 1, "2025-10-26 14:00", telemetry.Severe, 3, 2))
		w := level("kim-long", 2, "2025-10-26 15:00", telemetry.Severe, 3, 2)
		w.State, w.FalseAlarm = c.state, c.mistake
		b, is := chain.Of(w)
		if !is || b.Type != TypeCancel {
			t.Fatalf("%s: %v %s", c.state, is, b.Type)
		}
		m := composer.Message(&b)
		info := m.Infos[0]
		if _, err := m.Encode(); err != nil || !strings.HasPrefix(info.Headline, c.headline) || info.Responses[0] != c.response || info.Severity != c.severity {
			t.Errorf("%s, false alarm %v: %v %q %v %s", c.state, c.mistake, err, info.Headline, info.Responses, info.Severity)
		}
		if over := strings.Contains(info.Instruction, "không có nghĩa là đã hết nguy hiểm"); over != (c.state == telemetry.OutOfService) {
			t.Errorf("%s: %s", c.state, info.Instruction)
		}
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	c := NewChronicle()
	for name, change := range map[string]func(*telemetry.Warning){
		"pending": func(w *telemetry.Warning) { w.State = telemetry.Pending },
		"shadow":  func(w *telemetry.Warning) { w.Shadow = true },
		"cleared before it was seen": func(w *telemetry.Warning) {
			w.State = telemetry.Cleared
		},
	} {
		w := level("kim-long", 1, "2025-10-26 14:00", telemetry.Severe, 2.1, 2)
		change(&w)
		if b, is := c.Of(w); is {
			t.Errorf("%s: %+v", name, b)
		}
		c.Apply(w)
	}
	if len(c.incidents) != 0 {
		t.Errorf("%d incidents are kept", len(c.incidents))
	}
}

func TestStatus(t *testing.T) {
	drill := level("kim-long", 1, "2025-10-26 14:00", telemetry.Extreme, 4, 3.5)
	drill.Exercise = true
	real := level("kim-long", 1, "2025-10-26 14:00", telemetry.Extreme, 4, 3.5)
	test := configured()
	test.Status = "test"
	for _, c := range []struct {
		name, status, mark string
		cfg                Config
		w                  telemetry.Warning
	}{
		{"drill", "Exercise", "DIỄN TẬP: |EXERCISE: ", configured(), drill},
		{"real", "Actual", "Lũ: |Flood: ", configured(), real},
		{"test", "Test", "THỬ NGHIỆM: |TEST: ", test, real},
		{"nobody has set a sender", "Test", "THỬ NGHIỆM: |TEST: ", Config{}, real},
	} {
		b, _ := NewChronicle().Of(c.w)
		m := NewComposer(c.cfg, rivers{}, "box").Message(&b)
		text, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		validate(t, c.name, text)
		vi, en, _ := strings.Cut(c.mark, "|")
		if m.Status != c.status || !strings.HasPrefix(m.Infos[0].Headline, vi) || !strings.HasPrefix(m.Infos[1].Headline, en) {
			t.Errorf("%s: %s %q %q", c.name, m.Status, m.Infos[0].Headline, m.Infos[1].Headline)
		}
	}
}

// Nothing that a rule, a device or an operator writes can leave its element.
func TestNothingIsInjected(t *testing.T) {
	w := level("kim-long", 1, "2025-10-26 14:00", telemetry.Extreme, 4, 3.5)
	evil := "</description></info><info>&entity; ]]> \x00\x1b\ufffe \xff \"'"
	w.Message = telemetry.Text{VI: evil, EN: evil}
	w.Rule, w.Device = "flood-level", "x<y&z"
	cfg := configured()
	cfg.SenderName.VI, cfg.Contact, cfg.Scope, cfg.Restriction = evil, evil, "restricted", evil
	b, _ := NewChronicle().Of(w)
	text, err := NewComposer(cfg, rivers{}, "box").Message(&b).Encode()
	if err != nil {
		t.Fatal(err)
	}
	validate(t, "injection", text)
	var back Message
	if err := xml.Unmarshal(text, &back); err != nil || len(back.Infos) != 2 || !strings.Contains(back.Infos[0].Description, "</description>") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestAreas(t *testing.T) {
	lat, lon := 91.0, 0.0
	for _, c := range []struct {
		w                       telemetry.Warning
		polygons, circles, code int
	}{
		{level("kim-long", 1, "2025-10-26 14:00", telemetry.Severe, 3, 2), 1, 1, 1},
		{level("phu-oc", 1, "2025-10-26 14:00", telemetry.Severe, 3, 2), 0, 0, 0},
		{telemetry.Warning{Device: "mmsi-1", Values: map[string]float64{"lat": 16, "lon": 108}}, 0, 1, 0},
		{telemetry.Warning{Device: "mmsi-1", Values: map[string]float64{"lat": lat, "lon": lon}}, 0, 0, 0},
	} {
		a := NewComposer(configured(), rivers{}, "box").area(&c.w)
		if err := a.check(); err != nil || len(a.Polygons) != c.polygons || len(a.Circles) != c.circles || len(a.Geocodes) != c.code {
			t.Errorf("%s: %+v %v", c.w.Device, a, err)
		}
	}
	ring := make([][2]float64, 0, 5001)
	for i := range 5000 {
		ring = append(ring, [2]float64{float64(i) / 100, 1})
	}
	if p := (Area{Desc: "x", Polygons: []string{polygon(append(ring, ring[0]))}}); p.check() != nil || len(strings.Fields(p.Polygons[0])) > maxRing+1 {
		t.Errorf("a fine ring: %d pairs, %v", len(strings.Fields(p.Polygons[0])), p.check())
	}
}

// Check finds what the schema does not.
func TestCheck(t *testing.T) {
	list := flood()
	good := func() *Message {
		c := NewChronicle()
		c.Apply(list[0])
		b, _ := c.Of(list[1])
		return NewComposer(configured(), rivers{}, "box").Message(&b)
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Message){
		"identifier and sender":   func(m *Message) { m.Sender = "a b" },
		"sent":                    func(m *Message) { m.Sent = "2025-10-26T22:00:00Z" },
		"has references":          func(m *Message) { m.References = "" },
		"is not sender,":          func(m *Message) { m.References = "a,b" },
		"to an earlier message":   func(m *Message) { m.References = "a,b,2026-10-26T22:00:00+07:00" },
		"there twice":             func(m *Message) { m.Infos[1].Language = "vi-VN" },
		"no info":                 func(m *Message) { m.Infos = nil },
		"category and event":      func(m *Message) { m.Infos[0].Categories = nil },
		"before it is sent":       func(m *Message) { m.Infos[0].Expires = m.Sent },
		"is not like":             func(m *Message) { m.Infos[0].Onset = "2025-10-26T22:00:00.5+07:00" },
		"not closed":              func(m *Message) { m.Infos[0].Areas[0].Polygons = []string{"1,1 2,2 3,3 4,4"} },
		"expected latitude":       func(m *Message) { m.Infos[0].Areas[0].Polygons = []string{"91,1 2,2 3,3 91,1"} },
		"not latitude,longitude ": func(m *Message) { m.Infos[0].Areas[0].Circles = []string{"1,1"} },
		"no description":          func(m *Message) { m.Infos[0].Areas[0].Desc = "" },
	} {
		m := good()
		change(m)
		if _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestForgetting(t *testing.T) {
	c := NewChronicle()
	for i := range keepEnded + 50 {
		w := level("kim-long", 1, "2025-10-26 14:00", telemetry.Severe, 3, 2)
		w.ID = fmt.Sprintf("w%d", i)
		c.Apply(w)
		w.N, w.State, w.At = 2, telemetry.Cleared, w.At.Add(time.Minute)
		c.Apply(w)
	}
	if len(c.incidents) != keepEnded || len(c.ended) != keepEnded {
		t.Errorf("%d incidents, %d ended; want %d", len(c.incidents), len(c.ended), keepEnded)
	}
	w := level("kim-long", 1, "2025-10-26 14:00", telemetry.Severe, 3, 2)
	for n := range 3 * keepSteps {
		w.N, w.Severity, w.At = n+1, telemetry.Severity(1+n%4), w.At.Add(time.Second)
		c.Apply(w)
	}
	if got := len(c.incidents[w.ID].steps); got != keepSteps {
		t.Errorf("%d steps, want %d", got, keepSteps)
	}
}

func validate(t *testing.T, name string, text []byte) {
	t.Helper()
	data := os.Getenv("HAIDANG_TESTDATA")
	lint, err := exec.LookPath("xmllint")
	if data == "" || err != nil {
		t.Logf("%s is not held against the schema: HAIDANG_TESTDATA or xmllint (Debian: libxml2-utils) is missing", name)
		return
	}
	cmd := exec.Command(lint, "--nonet", "--noout", "--schema", filepath.Join(data, "standards", "CAP-v1.2.xsd"), "-")
	cmd.Stdin = strings.NewReader(string(text))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s\n%s", name, err, out, text)
	}
}

func golden(t *testing.T, name string, text []byte) {
	t.Helper()
	path := filepath.Join("testdata", filepath.FromSlash(name))
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(text) {
		t.Errorf("%s differs (go test -update writes it):\n%s\nwant\n%s", name, text, want)
	}
}

func TestFeed(t *testing.T) {
	now := hue("2025-10-27 10:00")
	c := NewChronicle()
	f := NewFeed(c, NewComposer(configured(), rivers{}, "box"), "Kim Long", func() time.Time { return now })
	get := func(path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w
	}
	if w := get(FeedPath); w.Code != 200 || strings.Contains(w.Body.String(), "<entry>") {
		t.Fatalf("an empty feed: %d %s", w.Code, w.Body)
	}
	for _, w := range flood()[:4] {
		c.Apply(w)
	}
	battery := level("kim-long", 1, "2025-10-27 09:30", telemetry.Severe, 3, 2)
	battery.ID, battery.Rule = "battery", "battery-low"
	c.Apply(battery)
	drill := level("kim-long", 1, "2025-10-27 09:30", telemetry.Severe, 3, 2)
	drill.ID, drill.Exercise = "drill", true
	c.Apply(drill)
	answer := get(FeedPath)
	var feed struct {
		Entries []struct {
			ID, Title, Updated string
			Link               struct {
				Href string `xml:"href,attr"`
			} `xml:"link"`
		} `xml:"entry"`
	}
	if err := xml.Unmarshal(answer.Body.Bytes(), &feed); err != nil || len(feed.Entries) != 1 {
		t.Fatalf("%v: %d entries, want the flood alone\n%s", err, len(feed.Entries), answer.Body)
	}
	golden(t, "feed.atom", answer.Body.Bytes())
	e := feed.Entries[0]
	message := get("/cap/" + e.Link.Href)
	validate(t, e.Link.Href, message.Body.Bytes())
	if message.Header().Get("Content-Type") != MediaType+"; charset=utf-8" || !strings.Contains(message.Body.String(), "<msgType>Update") {
		t.Errorf("%s: %v %s", e.Link.Href, message.Header(), message.Body)
	}
	for _, header := range [][]string{{"If-None-Match", answer.Header().Get("ETag")}, {"If-Modified-Since", answer.Header().Get("Last-Modified")}} {
		if w := get(FeedPath, header...); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("%v: %d", header, w.Code)
		}
	}
	for _, path := range []string{"/cap/", "/cap/x", "/cap/drill.1.xml", "/cap/battery.1.xml", "/cap/..%2f..xml", "/cap/kim-long-flood-level-3f9a2c1b7d.99.xml"} {
		if w := get(path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	// Twelve hours later the message is said again, although nothing happened.
	now = now.Add(12 * time.Hour)
	if w := get(FeedPath, "If-None-Match", answer.Header().Get("ETag")); w.Code != 200 || !strings.Contains(w.Body.String(), ".3.r1.xml") {
		t.Errorf("the refresh: %d %s", w.Code, w.Body)
	}
}

func TestConfigFiles(t *testing.T) {
	for want, cfg := range map[string]Config{
		"": configured(),
		`sender: sender "a b" has a space, a comma, < or &; expected a name like haidang@ioc.hue.gov.vn`:                                     {Sender: "a b"},
		"status: status \"real\" is not one of actual, test, system, draft":                                                                  {Sender: "a", Status: "real"},
		"sender: messages with the status actual need a sender, a name like haidang@ioc.hue.gov.vn":                                          {Status: "actual"},
		"restriction: scope restricted needs restriction: who may read the messages":                                                         {Scope: "restricted"},
		"addresses: scope private needs addresses: whom the messages are for":                                                                {Scope: "private"},
		"scope: scope \"all\" is not one of public, restricted, private":                                                                     {Scope: "all"},
		`addresses[0]: address "" is empty or has a quotation mark`:                                                                          {Scope: "private", Addresses: []string{""}},
		"radius_km: radius 1000 km is not in 0.1..500":                                                                                       {RadiusKM: 1000},
		`feed.url: "x" is not an address like https://host/path`:                                                                             {Feed: FeedConfig{URL: "x"}},
		`events[0].category[0]: "Flood" is not one of Geo, Met, Safety, Security, Rescue, Fire, Health, Env, Transport, Infra, CBRNE, Other`: {Events: []Event{{Category: []string{"Flood"}}}},
		`events[0].urgency: "Now" is not one of Immediate, Expected, Future, Unknown`:                                                        {Events: []Event{{Urgency: "Now"}}},
	} {
		var got []string
		for _, f := range cfg.Validate() {
			got = append(got, f.String())
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
