package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/console/page"
	"haidang/gateway/telemetry"
)

const hostile = `"><script>alert(1)</script>'&amp;`

// full is a desk with every source, and devices, rules and letters of hostile
// names.
func full(d *desk) Sources {
	s := d.sources()
	lat, lon, heard := 16.45, 107.56, time.Now()
	device := map[string]any{
		"id": "kim-long", "name": hostile, "registered": true, "state": "measuring", "interval": "10s", "heard": heard, "lat": lat, "lon": lon,
		"problems": []string{hostile}, "problem_texts": []telemetry.Text{{VI: hostile + "mất", EN: hostile + "lost"}}, "cause": hostile, "up": false,
		"links": []map[string]any{{"source": "modbus.line-1", "connect": "tcp://" + hostile, "unit": 7, "profile": "weather-485"}, {"source": "broker", "account": hostile}}, "facts": map[string]any{"alarm1_m": 1.0, "note": hostile}, "changed": map[string]any{"facts.note": 1},
		"latest": map[string]any{"river": map[string]any{"time": heard, "values": map[string]any{"level_m": 3.62, "word": hostile}, "quality": map[string]string{"level_m": "suspect"}}},
	}
	boat := map[string]any{"id": "mmsi-574000001", "name": "mmsi-574000001", "heard": heard,
		"latest": map[string]any{"position": map[string]any{"values": map[string]any{"lat": 16.9, "lon": 108.1, "course_deg": 90.0, "speed_kn": 6.5}}, "vessel": map[string]any{"values": map[string]any{"name": hostile}}}}
	quiet := map[string]any{"id": "phu-oc", "name": "Phú Ốc", "registered": true, "interval": "10s", "heard": heard.Add(-time.Hour), "lat": 16.53, "lon": 107.47}
	stranger := map[string]any{"id": "tram-la", "name": "tram-la", "first_contact": heard, "held": 3, "problems": []string{}}
	outside := map[string]any{"id": "tram-gia", "name": "tram-gia", "first_contact": heard, "refused": map[string]any{"by": hostile, "why": hostile, "at": heard}}
	s.Devices = func(string, string) any { return []any{device, boat, quiet, stranger, outside} }
	s.Device = func(id string) (any, bool) { return device, id == "kim-long" }
	s.DeviceChanges = func(string, int) (any, error) {
		return []map[string]any{{"at": heard, "by": hostile, "why": hostile}}, nil
	}
	s.ChangeDevice = func(context.Context, telemetry.DeviceChange) error { return nil }
	s.Rules = func() any { return []map[string]any{{"rule": "flood-alarm", "devices": 2, "raised": 7}} }
	s.RulesDocument = func() any {
		return map[string]any{
			"kinds":   []telemetry.Kind{{Name: "river", Title: telemetry.Text{VI: "Sông", EN: "River"}, Values: []telemetry.Quantity{{Name: "level_m", Unit: "m", Title: telemetry.Text{VI: "Mực nước", EN: "Water level"}}}}},
			"devices": []telemetry.Device{{ID: "kim-long", Name: hostile, Facts: map[string]any{"alarm1_m": 1.0, "alarm2_m": 2.0}}},
			"rules":   []map[string]any{{"name": "flood-alarm", "when": `level_m > 1 && "<script>" != ""`, "severity": "severe"}},
			"zones":   map[string]any{"type": "FeatureCollection", "features": []any{}},
		}
	}
	s.Recipients = func() []Recipient {
		return []Recipient{{Recipient: hostile, Via: "webhook", LastError: hostile, Since: &heard, Backlog: 3}}
	}
	s.History = func(_ context.Context, id string) ([]telemetry.Transition, error) {
		w, _ := d.warning(id)
		return []telemetry.Transition{{Warning: w, Act: &telemetry.Act{By: hostile, Do: telemetry.Comment, Text: hostile}}}, nil
	}
	s.Health = func(context.Context) (any, error) {
		return map[string]any{"ready": true, "sources": []any{map[string]any{"name": hostile, "running": false}}, "not_ready": map[string]string{"log": hostile}}, nil
	}
	s.DeadLetters = func(_ context.Context, q LetterQuery) (any, error) {
		return []map[string]any{{"id": "17-0", "reason": "bad_json", "detail": hostile, "text": hostile, "device": hostile}}, nil
	}
	s.Series = func(_ context.Context, q SeriesQuery) ([]SeriesPoint, error) {
		if q.Device == "broken" {
			return nil, errors.New("the store is away")
		}
		return []SeriesPoint{{float64(q.From.Unix()), 1, 0.5, 2}}, nil
	}
	s.Lifecycle.Drill = func() any { return map[string]any{"scenario": hostile, "by": "Lan", "began": heard} }
	s.Lifecycle.Scenarios = func() any {
		return []map[string]any{{"file": "flood.test.yaml", "name": hostile, "devices": []string{"kim-long"}}}
	}
	s.Lifecycle.Accepted = func(_, recipient string) int { return map[string]int{"ioc": 1}[recipient] }
	s.SetState = func(context.Context, telemetry.StateChange) error { return nil }
	s.Admit = func(context.Context, Admission) (any, error) { return nil, nil }
	s.Lifecycle.ActOnDrill = func(context.Context, []byte, string) (any, error) { return nil, nil }
	s.Lifecycle.Deliveries = func(context.Context, string) (any, error) {
		return []map[string]any{{"recipient": hostile, "n": 1, "answer": hostile}}, nil
	}
	return s
}

// checkPage holds a page to what every page must keep.
func checkPage(t *testing.T, path, body string) {
	t.Helper()
	for _, bad := range []string{"<script>alert", `"><script`, " style=", "<style", "onclick=", "onload=", "javascript:", "http://", "ZgotmplZ", "<no value>"} {
		if i := strings.Index(body, bad); i >= 0 {
			t.Errorf("%s has %q: %s", path, bad, body[max(0, i-80):min(len(body), i+80)])
		}
	}
	for part := range strings.SplitSeq(body, "<script") {
		if src, _, _ := strings.Cut(part, ">"); part != body && !strings.HasPrefix(part, "<!DOCTYPE") && !strings.Contains(src, `src="/assets/`) {
			t.Errorf("%s has a script that is not an asset: %s", path, src)
		}
	}
	if strings.Count(body, "<main") != 1 || !strings.Contains(body, "</html>") {
		t.Errorf("%s is not whole", path)
	}
}

func TestPagesInBothLanguages(t *testing.T) {
	_, base, _ := start(t, full(newDesk()))
	for path, words := range map[string][2]string{
		"/":                          {"Đặc biệt nghiêm trọng|Mực nước Kim Long &lt;3,62&gt; m|Đã có người nhận</b>: Lan|(4) Cảnh báo|09:30:00 27/10/2025|Mất tín hiệu|Phú Ốc|Không gửi được từ|Mực nước <b>3,62 m", "Extreme|Kim Long at &lt;3.62&gt; m|Acknowledged|Failing since|Water level <b>3.62 m"},
		"/warnings/kim-long-flood-1": {"Diễn biến|ghi chú|&lt;script&gt;|Chuyển giao|Đã báo cho ai|alarm2_m", "Story|commented|Hand over|Who was told"},
		"/devices":                   {"Thiết bị|&lt;script&gt;|chưa đăng ký|chờ duyệt|3 số đo chưa nhận|Đã từ chối|amp;mất", "Devices|not registered|wait for approval|Approve|Refuse|amp;lost"},
		"/devices/kim-long":          {"Mực nước|đáng ngờ|alarm1_m|đã sửa|địa chỉ <b>7</b>|tài khoản|amp;mất|bad_json|Bảo trì", "Water level|suspect|changed|unit <b>7</b>|weather-485|amp;lost|Maintenance"},
		"/drill":                     {"Đang diễn tập|Theo kịch bản|flood.test.yaml|Một cảnh báo thử", "An exercise runs|With a scenario|One warning only"},
		"/keys":                      {"Phím tắt|<kbd>j</kbd>", "Keyboard|Next and previous warning"},
		"/rules":                     {"Quy tắc|level_m &gt; 1|Nghiêm trọng", "Rules|Severe"},
		"/health":                    {"CHƯA SẴN SÀNG|bad_json|dừng, đang thử lại|Thử lại các thư", "NOT READY|down, tried again|Retry those"},
		"/login":                     {"Đăng nhập|Mật khẩu", "Log in|Password"},
	} {
		for i, lang := range page.Languages() {
			status, h, body := call(t, "GET", base+path+"?lang="+lang, "")
			if path == "/health" {
				words[i] = strings.ReplaceAll(words[i], "CHƯA SẴN SÀNG", "Sẵn sàng")
				words[i] = strings.ReplaceAll(words[i], "NOT READY", "Ready")
			}
			if status != 200 || h.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Fatalf("%s: status %d %v", path, status, h)
			}
			checkPage(t, path, body)
			for word := range strings.SplitSeq(words[i]+`|<html lang="`+lang+`"`, "|") {
				if !strings.Contains(body, word) {
					t.Errorf("%s in %s lacks %q", path, lang, word)
				}
			}
			if drill := map[string]string{"vi": "DIỄN TẬP", "en": "EXERCISE"}[lang]; !strings.Contains(body, "<title>"+drill) || !strings.Contains(body, "<strong>"+drill) {
				t.Errorf("%s in %s does not say that there is an exercise", path, lang)
			}
		}
	}
}

func TestLanguageIsRemembered(t *testing.T) {
	_, base, _ := start(t, newDesk().sources())
	_, h, _ := call(t, "GET", base+"/?lang=en", "")
	if !strings.HasPrefix(h.Get("Set-Cookie"), "lang=en;") {
		t.Errorf("cookie %q", h.Get("Set-Cookie"))
	}
	for header, want := range map[[2]string]string{
		{"Cookie", "lang=en"}:                      "en",
		{"Cookie", "lang=xx"}:                      "vi",
		{"Accept-Language", "en-GB,en;q=0.9"}:      "en",
		{"Accept-Language", "fr, vi-VN;q=0.8, en"}: "vi",
		{"Accept-Language", "fr"}:                  "vi",
		{"Accept-Language", "en;q=0.5"}:            "en",
	} {
		if _, _, body := call(t, "GET", base+"/", "", header[0], header[1]); !strings.Contains(body, `<html lang="`+want+`"`) {
			t.Errorf("%v is not answered in %s", header, want)
		}
	}
}

func TestPagesWithNothing(t *testing.T) {
	none := Sources{Warnings: func(bool) []telemetry.Warning { return nil }, Warning: func(string) (telemetry.Warning, bool) { return telemetry.Warning{}, false }}
	_, base, _ := start(t, none)
	_, _, body := call(t, "GET", base+"/", "")
	checkPage(t, "/", body)
	if !strings.Contains(body, "Không có cảnh báo nào") || strings.Contains(body, `href="/devices"`) || strings.Contains(body, "data-operate") {
		t.Error("the page of nothing is wrong")
	}
	for _, path := range []string{"/devices", "/rules", "/health", "/api/v1/devices/x/series"} {
		if status, _, _ := call(t, "GET", base+path, ""); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
	status, _, body := call(t, "GET", base+"/warnings/%3Cscript%3Ealert(1)", "")
	if status != 404 || !strings.Contains(body, "Không tìm thấy") {
		t.Errorf("a warning that is not there: %d", status)
	}
	checkPage(t, "/warnings/", body)
	for path, want := range map[string]string{"/api/v1/map": `{"devices":[]}`, "/api/v1/zones": `{"type":"FeatureCollection","features":[]}`} {
		if _, _, body := call(t, "GET", base+path, ""); body != want {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestPageIsBounded(t *testing.T) {
	many := make([]telemetry.Warning, 1000)
	_, base, _ := start(t, Sources{Warnings: func(bool) []telemetry.Warning { return many },
		Warning: func(string) (telemetry.Warning, bool) { return telemetry.Warning{}, false }})
	_, _, body := call(t, "GET", base+"/", "")
	if rows := strings.Count(body, "<article"); rows != maxRows || !strings.Contains(body, "Còn 800 cảnh báo") {
		t.Errorf("%d rows", rows)
	}
	if _, _, body = call(t, "GET", base+"/api/v1/warnings", ""); strings.Count(body, `"id"`) != 1000 {
		t.Error("the API has them all")
	}
}

// TestHomeIsFresh: what is rendered once for many never hides a transition from
// who was told of it.
func TestHomeIsFresh(t *testing.T) {
	d := newDesk()
	c, base, _ := start(t, d.sources())
	call(t, "GET", base+"/", "")
	warning, err := d.act(t.Context(), telemetry.Act{ID: "kim-long-flood-1", N: 3, Do: telemetry.Ack, By: "Minh", At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	c.Notify(warning)
	deadline := time.After(2 * time.Second)
	for began := time.Now(); ; {
		if _, _, body := call(t, "GET", base+"/", ""); strings.Contains(body, "Minh") {
			if late := time.Since(began); late > stateTime/2 {
				t.Errorf("seen only after %s", late)
			}
			return
		}
		select {
		case <-deadline:
			t.Fatal("the page does not show the transition")
		default:
		}
	}
}

func TestMap(t *testing.T) {
	_, base, _ := start(t, full(newDesk()))
	_, _, body := call(t, "GET", base+"/api/v1/map", "")
	var got struct{ Devices []mappedDevice }
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	by := map[string]mappedDevice{}
	for _, d := range got.Devices {
		by[d.ID] = d
	}
	if d := by["kim-long"]; d.Grave != 4 || d.Boat || d.Silent || d.Lat != 16.45 || d.Text.VI != "Mực nước Kim Long <3,62> m" || len(d.Warnings) != 1 {
		t.Errorf("%+v", d)
	}
	if d := by["mmsi-574000001"]; !d.Boat || d.Grave != 1 || d.Heading == nil || *d.Heading != 90 || d.Name != hostile {
		t.Errorf("%+v", d)
	}
	if d := by["phu-oc"]; !d.Silent || d.Grave != 2 {
		t.Errorf("%+v", d)
	}
}

func TestSeries(t *testing.T) {
	_, base, _ := start(t, full(newDesk()))
	for query, want := range map[string]string{
		"?kind=river&value=level_m&from=2025-10-27T00:00:00Z&to=2025-10-27T10:00:00Z": `"every_s":60,"from":"2025-10-27T00:00:00Z","kind":"river","points":[[1761523200,1,0.5,2]]`,
		"?kind=river&value=level_m&from=2025-10-27T00:00:00Z&to=2025-10-27T00:01:00Z": `"every_s":1,`,
		"?kind=river":                    `"field":"value"`,
		"?kind=a'b&value=level_m":        `"field":"kind"`,
		`?kind=river&value=x%22y`:        `"field":"value"`,
		"?kind=river&value=a&from=x":     `"field":"from"`,
		"?kind=river&value=a&points=1":   `"field":"points"`,
		"?kind=river&value=a&points=1e9": `"field":"points"`,
		"?kind=river&value=a&from=2025-10-27T00:00:00Z&to=2025-10-26T00:00:00Z": `"field":"from"`,
		"?kind=river&value=a&from=2015-10-27T00:00:00Z":                         `"field":"from"`,
	} {
		if _, _, body := call(t, "GET", base+"/api/v1/devices/kim-long/series"+query, ""); !strings.Contains(body, want) {
			t.Errorf("%s: %s", query, body)
		}
	}
	if status, _, body := call(t, "GET", base+"/api/v1/devices/broken/series?kind=river&value=a", ""); status != 503 || !strings.Contains(body, "the store is away") {
		t.Errorf("%d %s", status, body)
	}
}

// TestFirstPaint holds the page to 500 kB over the wire.
func TestFirstPaint(t *testing.T) {
	_, base, _ := start(t, full(newDesk()))
	_, h, _ := call(t, "GET", base+"/", "", "Accept-Encoding", "gzip")
	if h.Get("Content-Encoding") != "gzip" {
		t.Fatal("the page is not packed")
	}
	_, _, body := call(t, "GET", base+"/", "")
	total := 0
	for part := range strings.SplitSeq(body, `"/assets/`) {
		name, _, _ := strings.Cut(part, `"`)
		if !strings.Contains(name, "?v=") || strings.Contains(name, "LICENSES") {
			continue
		}
		status, h, packed := call(t, "GET", base+"/assets/"+name, "", "Accept-Encoding", "gzip")
		if status != 200 || h.Get("Cache-Control") != "public, max-age=31536000, immutable" {
			t.Errorf("%s: %d %s", name, status, h.Get("Cache-Control"))
		}
		total += len(packed)
	}
	t.Logf("%d bytes of assets", total)
	if total < 50_000 || total > 500_000 {
		t.Errorf("%d bytes of assets; expected at most 500000", total)
	}
	if status, _, _ := call(t, "GET", base+"/assets/../page.go", ""); status == 200 {
		t.Error("a file that is no asset is served")
	}
}

func TestTilesOfOnesOwn(t *testing.T) {
	m := MapConfig{Tiles: "https://tiles.example.vn/{z}/{x}/{y}.png"}
	if faults := m.validate(); len(faults) > 0 || !strings.HasSuffix(m.policy(), "; img-src 'self' data: https://tiles.example.vn") {
		t.Errorf("%v %s", faults, m.policy())
	}
	for _, bad := range []string{"tiles", "ftp://x/{z}", "https://*/{z}", "https://a; script-src x/{z}", "https://tiles.example.vn/"} {
		if faults := (Config{Map: MapConfig{Tiles: bad}}).Validate(); len(faults) != 1 || faults[0].Path != "map.tiles" {
			t.Errorf("%q: %v", bad, faults)
		}
	}
}

func BenchmarkHome(b *testing.B) {
	d := newDesk()
	c, err := New(Config{Listen: "127.0.0.1:0"}, full(d), prometheus.NewPedanticRegistry(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	r, _ := http.NewRequest("GET", "/", nil)
	for b.Loop() {
		if err := c.home(&discard{h: http.Header{}}, r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMap2500 makes the map of 2,000 boats and 500 stations anew.
func BenchmarkMap2500(b *testing.B) {
	devices := make([]map[string]any, 2500)
	now := time.Now()
	for i := range devices {
		devices[i] = map[string]any{"id": fmt.Sprintf("mmsi-%d", 574000000+i), "name": "TTH 90001 TS", "registered": true, "interval": "3m", "heard": now,
			"latest": map[string]any{"position": map[string]any{"time": now, "values": map[string]any{"lat": 16.9, "lon": 108.1 + float64(i)/1e4, "course_deg": 90.0, "speed_kn": 6.5}}}}
	}
	for b.Loop() {
		var states []page.DeviceState
		if err := decode(devices, &states); err != nil {
			b.Fatal(err)
		}
		body, err := json.Marshal(mapOf(states, nil, now))
		if err != nil {
			b.Fatal(err)
		}
		r, err := newRendering(body, now, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(r.gzip)), "B/answer")
	}
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header            { return d.h }
func (d *discard) Write(text []byte) (int, error) { return len(text), nil }
func (d *discard) WriteHeader(int)                {}

// TestTold: the list says who has accepted a warning and who has not.
func TestTold(t *testing.T) {
	s := full(newDesk())
	s.Recipients = func() []Recipient { return []Recipient{{Recipient: "ioc"}, {Recipient: "flood-committee"}} }
	_, base, _ := start(t, s)
	_, _, body := call(t, "GET", base+"/?lang=en", "")
	if !strings.Contains(body, `ioc <span class="well-text">✓</span>`) || !strings.Contains(body, `flood-committee <span class="waits">… not yet</span>`) {
		t.Error("the page does not say who was told")
	}
}

// TestAnExerciseIsToldWhileItsWarningsLast, on every page and in its title, even
// when none runs any more.
func TestAnExerciseIsToldWhileItsWarningsLast(t *testing.T) {
	s := newDesk().sources()
	exercise := true
	s.Warnings = func(bool) []telemetry.Warning { return []telemetry.Warning{{ID: "drill-1", Exercise: exercise}} }
	_, base, _ := start(t, s)
	if _, _, body := call(t, "GET", base+"/keys?lang=en", ""); !strings.Contains(body, "<title>EXERCISE") || !strings.Contains(body, "warnings of an exercise are left") {
		t.Error("a warning of an exercise is not told")
	}
	exercise = false
	if _, _, body := call(t, "GET", base+"/keys?lang=en", ""); strings.Contains(body, "EXERCISE") {
		t.Error("an exercise is told that there is not")
	}
}

func TestTrends(t *testing.T) {
	s := full(newDesk())
	asked := make(chan SeriesQuery, 1000)
	s.Series = func(_ context.Context, q SeriesQuery) ([]SeriesPoint, error) {
		asked <- q
		if q.Device == "a-luoi" && q.To.Sub(q.From) == trendLength {
			return nil, nil
		}
		return []SeriesPoint{{1, 2, 0, 9}, {91, 3, 0, 9}, {181, 3, 0, 9}, {271, 3, 0, 9}, {361, 3, 0, 9}}, nil
	}
	_, base, _ := start(t, s)
	for range 50 { // as many pages
		_, _, body := call(t, "GET", base+"/api/v1/trends", "")
		if !strings.Contains(body, `"kim-long-flood-1":{"points":[[1,2],[91,3],[181,3],[271,3],[361,3]]`) {
			t.Fatal(body)
		}
	}
	if n := len(asked); n != 5 {
		t.Errorf("the store was asked %d times for 4 warnings, one of which has no past", n)
	}
	if q := <-asked; q.Device != "kim-long" || q.Kind != "river" || q.Value != "level_m" || q.To.Sub(q.From) != trendLength || q.Every != 90*time.Second {
		t.Errorf("asked for %+v", q)
	}
	s.Series = func(context.Context, SeriesQuery) ([]SeriesPoint, error) {
		return nil, errors.New("the store is away")
	}
	_, base, _ = start(t, s)
	if status, _, body := call(t, "GET", base+"/api/v1/trends", ""); status != 503 || !strings.Contains(body, "the store is away") {
		t.Errorf("%d %s", status, body)
	}
}
