package dashboards

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"haidang/gateway/influx"
	"haidang/gateway/ioc"
	"haidang/gateway/telemetry"
	"haidang/gateway/vitals"
)

// A board is a dashboard as far as the tests look into it.
type board struct {
	file string

	UID, Title, Description, Timezone string
	SchemaVersion                     int
	Panels                            []boardPanel
	Templating                        struct {
		List []struct{ Name, Type, Query string }
	}
	Links       []struct{ Tags []string }
	Tags        []string
	Annotations struct {
		List []struct {
			Name   string
			Target struct {
				Query, TextColumn, TagsColumn string
				FromAnnotations               bool
			}
		}
	}
}

type boardPanel struct {
	ID                       int
	Type, Title, Description string
	Repeat                   string
	Datasource               struct{ UID string }
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []struct{ RefID, Query, ResultFormat string }
	Options                  struct {
		Basemap struct {
			Type   string
			Config struct{ Src string }
		}
		Layers []struct {
			FilterData struct{ Options string }
			Location   struct{ Latitude, Longitude string }
		}
	}
	FieldConfig struct {
		Defaults  struct{ Unit string }
		Overrides []struct {
			Properties []struct {
				ID    string
				Value any
			}
		}
	}
}

// units are all units of the panel: of all fields and of single columns.
func (p *boardPanel) units() []string {
	units := []string{p.FieldConfig.Defaults.Unit}
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if property.ID == "unit" {
				units = append(units, fmt.Sprint(property.Value))
			}
		}
	}
	return units
}

func load(t *testing.T) []board {
	t.Helper()
	files, err := filepath.Glob("provisioning/dashboards/haidang/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	var boards []board
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b := board{file: filepath.Base(file)}
		if err := json.Unmarshal(text, &b); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		boards = append(boards, b)
	}
	return boards
}

// The time range of the tests: a day of last year's flood.
func testRange() (from, to time.Time) {
	to = time.Date(2025, 10, 27, 14, 0, 0, 0, time.UTC)
	return to.Add(-24 * time.Hour), to
}

// replaced puts in what Grafana puts in, with all sites and devices chosen.
func replaced(query string) string {
	from, to := testRange()
	return replacer(from, to).Replace(query)
}

func replacer(from, to time.Time) *strings.Replacer {
	return strings.NewReplacer(
		"$timeFilter", fmt.Sprintf("time >= %dms and time <= %dms", from.UnixMilli(), to.UnixMilli()),
		"${__from}", fmt.Sprint(from.UnixMilli()), "${__to}", fmt.Sprint(to.UnixMilli()),
		"$__interval", "1m", "$severity", "1",
		"/^$site$/", "/^(kim-long|phu-oc|nam-dong|hue|mmsi-574990001|mmsi-574990002)$/", "/^$device$/", "/^.*$/",
		"/^$gateway$/", "/^.*$/", "/^$upstream$/", "/^(nam-dong|phu-oc)$/", "/^$downstream$/", "/^kim-long$/", "/^$river$/", "/^kim-long$/",
	)
}

// samples are readings as the log writes them, warnings, and what the gateway
// says of itself.
func samples() []byte {
	from, to := testRange()
	var b bytes.Buffer
	line := func(at time.Time, kind, device, fields string) {
		fmt.Fprintf(&b, "%s,device=%s,site=%s %s %d\n", kind, device, device, fields, at.UnixNano())
	}
	for at := from.Add(-24 * time.Hour); at.Before(to); at = at.Add(time.Hour) { // a moving mean begins before the range
		line(at, "air", "hue", `pm25_ugm3=20.3,pm10_ugm3=100,tsp_ugm3=120,so2_ugm3=350,no2_ugm3=50,co_ugm3=30000,o3_ugm3=160,quality="good"`)
	}
	line(to.Add(-90*time.Minute), "air", "hue", `no2_ugm3=350,quality="good"`) // the mean of its hour is 200
	for at := from; at.Before(to); at = at.Add(time.Hour) {
		line(at, "river", "kim-long", `level_m=3.62,quality="good"`)
		line(at, "river", "phu-oc", `level_m=4.97,quality="suspect"`)
		line(at, "rain", "nam-dong", `rain_1h_mm=10,rain_24h_mm=240,quality="good"`)
		line(at, "position", "mmsi-574990001", `lat=16.6,lon=107.9,speed_kn=6.1,course_deg=45,quality="good"`)
		line(at, "position", "mmsi-574990002", `lat=16.7,lon=108,quality="good"`) // says neither speed nor course
		line(at, "water", "hue", `ph=7.1,do_mgl=6,bod5_mgl=4,cod_mgl=9,tss_mgl=20,total_p_mgl=0.1,total_n_mgl=0.5,coliform_100ml=900,nh4_mgl=0.2,turbidity_ntu=12,conductivity_mscm=0.3,salinity_ppt=0.1,quality="calibrating"`)
		line(at, "water", "hue", `ph=7.2,do_mgl=6,bod5_mgl=4,cod_mgl=9,tss_mgl=20,total_p_mgl=0.1,total_n_mgl=0.5,coliform_100ml=900,nh4_mgl=0.2,turbidity_ntu=12,conductivity_mscm=0.3,salinity_ppt=0.1,quality="good"`)
	}
	line(to.Add(-10*time.Minute), "rain", "nam-dong", `rain_1h_mm=12,quality="good"`)
	line(to.Add(-time.Minute), "river", "kim-long", `level_m=99,quality="bad"`) // not in the graphs
	line(from.Add(-48*time.Hour), "link", "kim-long", `up=0,cause_text="i/o timeout",quality="good"`)
	line(from, "link", "phu-oc", `up=1,quality="good"`)
	lines := own(b.Bytes(), to)
	w := telemetry.Warning{ID: "a", N: 1, Rule: "flood-level", Device: "kim-long", Site: "kim-long", State: telemetry.Active, Severity: telemetry.Severe, At: from.Add(-72 * time.Hour)}
	w.Start = w.At
	lines = ioc.Line(lines, &w)
	w.ID, w.Device, w.Site, w.At = "b", "phu-oc", "phu-oc", from.Add(time.Hour)
	w.Start = w.At
	lines = ioc.Line(lines, &w)
	w.N, w.State, w.At = 2, telemetry.Acknowledged, w.At.Add(4*time.Minute)
	lines = ioc.Line(lines, &w)
	w.N, w.State, w.At = 3, telemetry.Cleared, from.Add(2*time.Hour)
	lines = ioc.Line(lines, &w)
	w = telemetry.Warning{ID: "c", N: 1, Rule: "boat-silent", Device: "mmsi-574990001", Site: "mmsi-574990001", State: telemetry.Active, Severity: telemetry.Minor, Start: to.Add(-2 * time.Hour), At: to.Add(-2 * time.Hour)}
	lines = ioc.Line(lines, &w)
	w.N, w.State, w.At = 2, telemetry.Cleared, to.Add(-time.Hour)
	return ioc.Line(lines, &w)
}

// own are lines as the gateway writes them of itself.
func own(dst []byte, to time.Time) []byte {
	for i := range 3 {
		at := to.Add(time.Duration(i-3) * time.Minute)
		line := func(measurement string) *vitals.Line { return vitals.NewLine(measurement, "box", "box") }
		for _, l := range []*vitals.Line{
			line(vitals.Gateway).Number("readings_total", float64(i*600)).Number("set_aside_total", 3).Number("memory_bytes", 80<<20).Number("disk_free_bytes", 9<<30).Number("ready", 1).Number("uptime_s", float64(60*i)),
			line(vitals.Source).Tag("source", "broker").Number("running", 1).Number("restarts_total", 0),
			line(vitals.Follower).Tag("log", "readings").Tag("follower", "influx").Number("lag_s", 2).Number("lag_frames", 5).Number("retries_total", 0).Number("dropped_total", 0),
			line(vitals.Recipient).Tag("recipient", "ioc").Number("delivered_total", 7).Number("failed_total", 1).Number("waiting_s", 0),
			line(vitals.SetAside).Tag("reason", "payload").Number("letters_total", 3),
			vitals.NewLine(vitals.Device, "mmsi-574990001", "mmsi-574990001").Number("state", vitals.Silent).Number("silent", 1).Number("severity", 0).Number("heard_ago_s", 4000).Number("lat", 16.6).Number("lon", 107.9).Word("name", "TTH 99901 TS").Word("owner", "Nguyễn Văn An").Word("problem", "silent for 1h"),
			vitals.NewLine(vitals.Device, "kim-long", "kim-long").Number("state", 3).Number("silent", 0).Number("severity", 3).Number("lat", 16.45).Number("lon", 107.56).Number("alarm1_m", 1).Number("alarm2_m", 2).Number("alarm3_m", 3.5).Number("level_m", 3.62).Number("alarm", 3).Word("name", "Kim Long").Word("owner", "").Word("problem", ""),
		} {
			dst = l.AppendTo(dst, at)
		}
	}
	return dst
}

// serve runs the embedded engine with the samples and returns its URL.
func serve(t *testing.T) string {
	if racing {
		// Several iterators of a subquery write the same interval into its statement
		// (influxql v1.4.1, GroupByInterval): harmless, and not ours.
		t.Skip("InfluxDB's subqueries race with themselves")
	}
	t.Helper()
	cfg := influx.DefaultConfig()
	cfg.Listen, cfg.MinFree = "127.0.0.1:0", 1
	store, err := influx.Open(t.TempDir(), cfg, prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.Write(t.Context(), samples()); err != nil {
		t.Fatal(err)
	}
	return "http://" + store.Addr().String()
}

// ask sends a query as Grafana does, and returns the series.
func ask(t *testing.T, base, query string) ([]influx.Series, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/query?"+url.Values{"db": {influx.Database}, "epoch": {"ms"}, "q": {query}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth("", "") // what Grafana sends where its account is not set
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Error   string
		Results []struct {
			Error  string
			Series []influx.Series
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if len(answer.Results) != 1 || answer.Error+answer.Results[0].Error != "" {
		return nil, fmt.Errorf("%s: %+v", response.Status, answer)
	}
	return answer.Results[0].Series, nil
}

func TestQueriesReturnRows(t *testing.T) {
	base := serve(t)
	for _, d := range load(t) {
		for name, query := range queries(&d) {
			series, err := ask(t, base, replaced(query))
			if err != nil || !filled(series) {
				t.Errorf("%s, %s: %v, %d series, want rows with a value: %s", d.file, name, err, len(series), replaced(query))
			}
		}
	}
}

// queries are all of a dashboard, by where they are.
func queries(d *board) map[string]string {
	all := map[string]string{}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			all["variable "+v.Name] = v.Query
		}
	}
	for _, a := range d.Annotations.List {
		all["annotation "+a.Name] = a.Target.Query
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all[fmt.Sprintf("panel %d %s, %s", p.ID, p.Title, target.RefID)] = target.Query
		}
	}
	return all
}

// filled reports whether there is a row with something besides its time.
func filled(series []influx.Series) bool {
	for _, s := range series {
		for _, row := range s.Values {
			if slices.ContainsFunc(row[1:], func(cell any) bool { return cell != nil }) {
				return true
			}
		}
	}
	return false
}

// TestWhatStands holds the queries of what was written long before the range to
// what they are to say.
func TestWhatStands(t *testing.T) {
	base := serve(t)
	seen := map[string]bool{}
	wants := map[string]string{
		"table Active warnings":                "kim-long flood-level kim-long 3 active 1 a",
		"stat Active warnings":                 "1",
		"stat Highest severity":                "3",
		"state-timeline Warnings over time":    "kim-long flood-level 3; mmsi-574990001 boat-silent 1; mmsi-574990001 boat-silent 0; phu-oc flood-level 3; phu-oc flood-level 3; phu-oc flood-level 0",
		"table Links down":                     "kim-long kim-long i/o timeout",
		"stat Links down":                      "1",
		"state-timeline Links":                 "kim-long 0; phu-oc 1",
		"table Newest levels":                  "kim-long kim-long 99 bad; phu-oc phu-oc 4.97 suspect",
		"stat Level":                           "kim-long 3.62",
		"table Levels and alarms":              "kim-long kim-long Kim Long 3.62 3 1 2 3.5",
		"stat Vessels heard":                   "2",
		"table Vessels":                        "mmsi-574990001 mmsi-574990001 16.6 107.9 6.1 45; mmsi-574990002 mmsi-574990002 16.7 108 <nil> <nil>",
		"geomap Stations and boats":            "kim-long kim-long 3 16.45 107.56 Kim Long  <nil>; mmsi-574990001 mmsi-574990001 -1 16.6 107.9 TTH 99901 TS silent for 1h 4000",
		"table Silent now":                     "mmsi-574990001 mmsi-574990001 TTH 99901 TS 4000 silent for 1h",
		"stat Silent devices":                  "1",
		"table Boats by owner":                 "mmsi-574990001 mmsi-574990001 Nguyễn Văn An TTH 99901 TS -1 4000 silent for 1h",
		"bargauge Rain in the last 1 h":        "nam-dong 12",
		"bargauge Rain in the last 3 h":        "nam-dong 22", // 10 in the hour of 12:00, then 12 in that of 13:00
		"bargauge Rain in the last 24 h":       "nam-dong 232",
		"stat Raised":                          "2",
		"stat Time to acknowledge, median":     "240",
		"bargauge Most frequent rules":         "boat-silent 1; flood-level 1",
		"stat Largest lag":                     "box 2",
		"table Recipients":                     "ioc 7 1 0",
		"table Index by pollutant":             "hue hue 41 75 100 100 100 50",
		"timeseries Time to acknowledge, each": "flood-level 240",
	}
	for _, d := range load(t) {
		for _, p := range d.Panels {
			_, english, _ := strings.Cut(p.Title, " / ")
			name := p.Type + " " + english
			want, ok := wants[name]
			if !ok {
				continue
			}
			series, err := ask(t, base, replaced(p.Targets[0].Query))
			if err != nil {
				t.Fatal(err)
			}
			if got := shown(series); got != want {
				t.Errorf("%s, %s shows %q, want %q", d.file, name, got, want)
			}
			seen[name] = true
		}
	}
	if len(seen) != len(wants) {
		t.Errorf("only the panels %v were found, want all of %v", seen, wants)
	}
}

// shown writes rows as Grafana's table: tags, then columns, without the time.
func shown(series []influx.Series) string {
	var rows []string
	for _, s := range series {
		var tags []string
		for _, key := range []string{"device", "rule", "site", "recipient"} {
			if s.Tags[key] != "" {
				tags = append(tags, s.Tags[key])
			}
		}
		for _, row := range s.Values {
			cells := slices.Clone(tags)
			for _, cell := range row[1:] {
				cells = append(cells, fmt.Sprint(cell))
			}
			rows = append(rows, strings.Join(cells, " "))
		}
	}
	return strings.Join(rows, "; ")
}

func TestForm(t *testing.T) {
	uids := map[string]bool{}
	core := []string{"row", "timeseries", "stat", "table", "state-timeline", "geomap", "bargauge"}
	for _, d := range load(t) {
		if d.UID == "" || len(d.UID) > 40 || uids[d.UID] {
			t.Errorf("%s: uid %q is empty, longer than 40 or there twice", d.file, d.UID)
		}
		uids[d.UID] = true
		if d.SchemaVersion > 37 || d.Timezone != "Asia/Ho_Chi_Minh" || d.Title == "" || d.Description == "" {
			t.Errorf("%s: schemaVersion %d, timezone %q, title %q, description %q", d.file, d.SchemaVersion, d.Timezone, d.Title, d.Description)
		}
		if len(d.Links) != 1 || !slices.Equal(d.Links[0].Tags, d.Tags) {
			t.Errorf("%s: links %v do not lead to the dashboards with tags %v", d.file, d.Links, d.Tags)
		}
		if !strings.Contains(d.Title, " / ") {
			t.Errorf("%s: the title %q is not in two languages", d.file, d.Title)
		}
		for _, a := range d.Annotations.List {
			for _, column := range append(strings.Split(a.Target.TagsColumn, ","), a.Target.TextColumn) {
				if !a.Target.FromAnnotations || !strings.Contains(a.Target.Query, `"`+column+`"`) {
					t.Errorf("%s, annotation %s: %+v", d.file, a.Name, a.Target)
				}
			}
		}
		taken := map[[2]int]string{}
		ids := map[int]bool{}
		for _, p := range d.Panels {
			if p.ID == 0 || ids[p.ID] {
				t.Errorf("%s, %s: id %d is 0 or there twice", d.file, p.Title, p.ID)
			}
			ids[p.ID] = true
			if p.Type == "row" {
				if !slices.ContainsFunc(d.Templating.List, func(v struct{ Name, Type, Query string }) bool { return v.Name == p.Repeat }) {
					t.Errorf("%s, row %s is repeated by %q, which is no variable", d.file, p.Title, p.Repeat)
				}
			} else if !slices.Contains(core, p.Type) || p.Datasource.UID != "haidang" || p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" {
				t.Errorf("%s, panel %d: type %q, data source %q, title %q, description %q, unit %q", d.file, p.ID, p.Type, p.Datasource.UID, p.Title, p.Description, p.FieldConfig.Defaults.Unit)
			}
			if p.Type != "row" && !strings.Contains(p.Title, " / ") || strings.HasSuffix(p.Title, " / ") {
				t.Errorf("%s: the title %q is not in two languages", d.file, p.Title)
			}
			for _, layer := range p.Options.Layers {
				if i := slices.IndexFunc(p.Targets, func(target struct{ RefID, Query, ResultFormat string }) bool {
					return target.RefID == layer.FilterData.Options
				}); i < 0 ||
					!strings.Contains(p.Targets[i].Query, `"`+layer.Location.Latitude+`"`) || !strings.Contains(p.Targets[i].Query, `"`+layer.Location.Longitude+`"`) {
					t.Errorf("%s, %s: a layer finds no place in query %q", d.file, p.Title, layer.FilterData.Options)
				}
			}
			if p.Type == "geomap" && (p.Options.Basemap.Type != "geojson" || p.Options.Basemap.Config.Src != "public/maps/countries.geojson") {
				t.Errorf("%s, %s: the base map is %+v", d.file, p.Title, p.Options.Basemap)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if x > 23 || taken[[2]int{x, y}] != "" {
						t.Fatalf("%s: %s lies outside or on %s", d.file, p.Title, taken[[2]int{x, y}])
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

func TestProvisioning(t *testing.T) {
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access, URL, Database string
			BasicAuth                              bool   `yaml:"basicAuth"`
			BasicAuthUser                          string `yaml:"basicAuthUser"`
			IsDefault                              bool   `yaml:"isDefault"`
			Secure                                 struct {
				Password string `yaml:"basicAuthPassword"`
			} `yaml:"secureJsonData"`
			Editable bool
			JSONData struct {
				Version      string
				DBName       string `yaml:"dbName"`
				HTTPMode     string `yaml:"httpMode"`
				TimeInterval string `yaml:"timeInterval"`
			} `yaml:"jsonData"`
		}
	}
	strict(t, "provisioning/datasources/haidang.yaml", &sources)
	if sources.APIVersion != 1 || len(sources.Datasources) != 1 {
		t.Fatalf("data sources: %+v", sources)
	}
	s := sources.Datasources[0]
	if s.UID != "haidang" || s.Type != "influxdb" || s.Access != "proxy" || s.JSONData.Version != "InfluxQL" ||
		s.URL != "http://"+influx.DefaultConfig().Listen || s.Database != influx.Database || s.JSONData.DBName != influx.Database {
		t.Errorf("data source: %+v", s)
	}
	if !s.BasicAuth || s.BasicAuthUser != "${HAIDANG_GRAFANA_USER}" || s.Secure.Password != "${HAIDANG_GRAFANA_SECRET}" {
		t.Errorf("the account of the data source: %+v", s)
	}

	var providers struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Folder, Type string
			OrgID              int    `yaml:"orgId"`
			FolderUID          string `yaml:"folderUid"`
			DisableDeletion    bool   `yaml:"disableDeletion"`
			AllowUIUpdates     bool   `yaml:"allowUiUpdates"`
			UpdateSeconds      int    `yaml:"updateIntervalSeconds"`
			Options            struct {
				Path             string
				FoldersFromFiles bool `yaml:"foldersFromFilesStructure"`
			}
		}
	}
	strict(t, "provisioning/dashboards/haidang.yaml", &providers)
	if providers.APIVersion != 1 || len(providers.Providers) != 1 || providers.Providers[0].Type != "file" || providers.Providers[0].OrgID != 1 {
		t.Fatalf("providers: %+v", providers)
	}
	path := os.Expand(providers.Providers[0].Options.Path, func(name string) string {
		return map[string]string{"GF_PATHS_PROVISIONING": "provisioning"}[name]
	})
	if files, err := os.ReadDir(path); err != nil || len(files) != len(load(t)) {
		t.Errorf("the provider's folder %q has %d files: %v", path, len(files), err)
	}
}

// TestProvisioningOf2 is the data source for an InfluxDB 2.x: read by InfluxQL, with
// a token in a header, under the uid that the dashboards name.
func TestProvisioningOf2(t *testing.T) {
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access, URL, Database string
			IsDefault                              bool `yaml:"isDefault"`
			Editable                               bool
			JSONData                               struct {
				Version      string
				DBName       string `yaml:"dbName"`
				HTTPMode     string `yaml:"httpMode"`
				TimeInterval string `yaml:"timeInterval"`
				Header       string `yaml:"httpHeaderName1"`
			} `yaml:"jsonData"`
			Secure struct {
				Header string `yaml:"httpHeaderValue1"`
			} `yaml:"secureJsonData"`
		}
	}
	strict(t, "../deploy/container/grafana/haidang.yaml", &sources)
	if len(sources.Datasources) != 1 {
		t.Fatalf("data sources: %+v", sources)
	}
	s := sources.Datasources[0]
	if s.UID != "haidang" || s.Type != "influxdb" || s.JSONData.Version != "InfluxQL" || s.Database != influx.Database || s.JSONData.DBName != influx.Database ||
		s.JSONData.Header != "Authorization" || s.Secure.Header != "Token ${INFLUX_TOKEN}" {
		t.Errorf("data source: %+v", s)
	}
}

func strict(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if err := decoder.Decode(into); err != io.EOF {
		t.Errorf("%s: more than one document: %v", file, err)
	}
}
