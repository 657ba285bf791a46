package main

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/gateway/ioc"
	"haidang/gateway/ioc/cap"
)

// TestCAPSurvivesKill lets a river rise, kills the gateway, and lets it rise
// further: the chain of messages in the folder is that of one incident, and the
// feed has its newest.
func TestCAPSurvivesKill(t *testing.T) {
	folder := t.TempDir()
	g := prepare(t, `
devices: devices.yaml
zones: zones.geojson
cap: {sender: haidang@ioc.hue.example, sender_name: {vi: Trung tâm điều hành}, feed: {public: true, url: "https://canhbao.hue.example/cap"}}
ioc: [{name: centre, cap: {folder: "`+folder+`"}}]
`)
	g.write("devices.yaml", `devices: [{id: kim-long, name: Trạm Kim Long, kinds: [river], interval: 10m, lat: 16.4531, lon: 107.5631,
  facts: {alarm1_m: 1.00, alarm2_m: 2.00, alarm3_m: 3.50, commune: Kim Long}}]
`)
	g.write("zones.geojson", `{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"name": "Kim Long"}, "geometry":
  {"type": "Polygon", "coordinates": [[[107.54, 16.44], [107.59, 16.44], [107.59, 16.47], [107.54, 16.44]]]}}]}`)
	g.start()
	files := func(n int) (list []string) {
		t.Helper()
		eventually(t, "messages in the folder", 5*time.Second, func() bool {
			list, _ = filepath.Glob(filepath.Join(folder, "*.xml"))
			return len(list) == n
		})
		return list
	}
	c := g.client("station")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":1.2}`)
	files(1)
	g.publish(c, "telemetry/kim-long/river", `{"level_m":2.2}`)
	files(2)
	g.kill()
	g.start()
	c = g.client("station-again")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":3.6}`)
	files(3)
	g.publish(c, "telemetry/kim-long/river", `{"level_m":0.5}`)
	var types, references []string
	for i, m := range chainOf(t, files(4)) {
		types = append(types, m.Type)
		if m.References != strings.Join(references, " ") {
			t.Errorf("message %d refers to %q, want %q", i, m.References, references)
		}
		references = append(references, m.Reference())
		if a := m.Infos[0].Areas[0]; m.Status != "Actual" || len(a.Polygons) != 1 || len(a.Circles) != 1 {
			t.Errorf("message %d: %s %+v", i, m.Status, a)
		}
	}
	if got := strings.Join(types, " "); got != "Alert Update Update Cancel" {
		t.Errorf("the chain is %s", got)
	}
	request, _ := http.NewRequest(http.MethodGet, "http://"+g.ports.console+cap.FeedPath, nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var feed struct {
		Entries []struct {
			Link struct {
				Href string `xml:"href,attr"`
			} `xml:"link"`
		} `xml:"entry"`
	}
	if err := xml.NewDecoder(response.Body).Decode(&feed); err != nil || len(feed.Entries) != 1 || !strings.HasPrefix(feed.Entries[0].Link.Href, "https://canhbao.hue.example/cap/kim-long-") {
		t.Fatalf("%v %+v", err, feed)
	}
	status, text := g.try("/cap/" + filepath.Base(feed.Entries[0].Link.Href))
	if status != http.StatusOK || !strings.Contains(text, "<msgType>Cancel</msgType>") {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := g.try("/cap/feed.atom?x=1"); status != http.StatusBadRequest {
		t.Errorf("a query that is not known: %d", status)
	}
	var health struct{ Recipients []ioc.Health }
	status, text = g.try("/api/v1/recipients")
	if err := json.Unmarshal([]byte(text), &health); err != nil || status != http.StatusOK || len(health.Recipients) != 1 ||
		health.Recipients[0].Via != "cap" || health.Recipients[0].LastSuccess == nil || health.Recipients[0].Backlog != 0 {
		t.Errorf("%d %s %v", status, text, err)
	}
}

// chainOf reads CAP files and holds them against the schema, where that is
// there.
func chainOf(t *testing.T, files []string) (chain []cap.Message) {
	t.Helper()
	if lint, err := exec.LookPath("xmllint"); err == nil && os.Getenv("HAIDANG_TESTDATA") != "" {
		schema := filepath.Join(os.Getenv("HAIDANG_TESTDATA"), "standards", "CAP-v1.2.xsd")
		if out, err := exec.Command(lint, append([]string{"--nonet", "--noout", "--schema", schema}, files...)...).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	} else {
		t.Log("the messages are not held against the schema: HAIDANG_TESTDATA or xmllint (Debian: libxml2-utils) is missing")
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var m cap.Message
		if err := xml.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		if err := m.Check(); err != nil {
			t.Error(err)
		}
		chain = append(chain, m)
	}
	return chain
}
