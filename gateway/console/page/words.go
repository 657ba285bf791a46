package page

import (
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// functions are what the templates of a language call.
func functions(lang string, assets *assetSet) template.FuncMap {
	in := func(vi, en string) string {
		if lang == "en" {
			return en
		}
		return vi
	}
	pick := func(t telemetry.Text) string { return Pick(lang, t) }
	return template.FuncMap{
		"t": in, "pick": pick, "asset": assets.url,
		"severity": func(s telemetry.Severity) string { return pick(severityText(s)) },
		"mark":     mark,
		"state":    func(s telemetry.State) string { return pick(stateText(s)) },
		"deed":     func(d telemetry.Deed) string { return pick(deedText(d)) },
		"quality":  func(q string) string { return pick(qualityText(q)) },
		"isTrue":   func(b *bool) bool { return b != nil && *b },
		"test":     func(name string) string { return pick(testText(name)) },
		"settled":  func(did string) string { return pick(settledText(did)) },
		"device":   func(s string) string { return pick(deviceText(s)) },
		"said":     func(text string) string { return Said(lang, text) },
		"local":    Local, "iso": iso,
		"number":  func(v float64) string { return Number(lang, v) },
		"span":    func(d time.Duration) string { return span(lang, d) },
		"bytes":   func(v float64) string { return Number(lang, math.Round(v/(1<<20))) + " MiB" },
		"join":    strings.Join,
		"json":    func(v any) (string, error) { return asJSON(v) },
		"chartOf": func(device string, f Figure) chart { return chart{device, f} },
		"other":   func() string { return in("en", "vi") },
		"lang":    func() string { return lang },
	}
}

// A chart is a figure of a device that has a history.
type chart struct {
	Device string
	Figure
}

// Pick returns the text of a language, else the other one.
func Pick(lang string, t telemetry.Text) string {
	if lang == "en" && t.EN != "" || t.VI == "" {
		return t.EN
	}
	return t.VI
}

func severityText(s telemetry.Severity) telemetry.Text {
	switch s {
	case telemetry.Extreme:
		return telemetry.Text{VI: "Đặc biệt nghiêm trọng", EN: "Extreme"}
	case telemetry.Severe:
		return telemetry.Text{VI: "Nghiêm trọng", EN: "Severe"}
	case telemetry.Moderate:
		return telemetry.Text{VI: "Trung bình", EN: "Moderate"}
	case telemetry.Minor:
		return telemetry.Text{VI: "Nhẹ", EN: "Minor"}
	}
	return telemetry.Text{VI: "Không rõ", EN: "None"}
}

// mark is the shape of a severity: it is told from the others without its
// colour. The map draws the same.
func mark(s telemetry.Severity) string {
	switch s {
	case telemetry.Extreme:
		return "⬢"
	case telemetry.Severe:
		return "▲"
	case telemetry.Moderate:
		return "◆"
	case telemetry.Minor:
		return "■"
	}
	return "●"
}

func stateText(s telemetry.State) telemetry.Text {
	switch s {
	case telemetry.Pending:
		return telemetry.Text{VI: "Đang theo dõi", EN: "Pending"}
	case telemetry.Active:
		return telemetry.Text{VI: "Chưa ai nhận", EN: "Not acknowledged"}
	case telemetry.Acknowledged:
		return telemetry.Text{VI: "Đã có người nhận", EN: "Acknowledged"}
	case telemetry.Shelved:
		return telemetry.Text{VI: "Tạm gác", EN: "Shelved"}
	case telemetry.Returned:
		return telemetry.Text{VI: "Đã hết, chưa ai nhận", EN: "Over, not acknowledged"}
	case telemetry.OutOfService:
		return telemetry.Text{VI: "Ngừng phục vụ", EN: "Out of service"}
	case telemetry.Cleared:
		return telemetry.Text{VI: "Đã hết", EN: "Cleared"}
	}
	return telemetry.Text{VI: string(s)}
}

func deedText(d telemetry.Deed) telemetry.Text {
	switch d {
	case telemetry.Ack:
		return telemetry.Text{VI: "nhận", EN: "acknowledged"}
	case telemetry.Shelve:
		return telemetry.Text{VI: "tạm gác", EN: "shelved"}
	case telemetry.Unshelve:
		return telemetry.Text{VI: "bỏ tạm gác", EN: "unshelved"}
	case telemetry.Comment:
		return telemetry.Text{VI: "ghi chú", EN: "commented"}
	case telemetry.Assign:
		return telemetry.Text{VI: "chuyển giao", EN: "handed over"}
	case telemetry.False:
		return telemetry.Text{VI: "đánh dấu báo động giả", EN: "marked as a false alarm"}
	case telemetry.Genuine:
		return telemetry.Text{VI: "bỏ dấu báo động giả", EN: "marked as genuine"}
	case telemetry.Escalate:
		return telemetry.Text{VI: "báo lên cấp trên", EN: "escalated"}
	case telemetry.Remind:
		return telemetry.Text{VI: "nhắc lại", EN: "reminded"}
	case telemetry.Failover:
		return telemetry.Text{VI: "gửi qua nơi dự phòng", EN: "sent to the fallback"}
	case telemetry.TakeOut:
		return telemetry.Text{VI: "ngừng phục vụ", EN: "taken out of service"}
	case telemetry.PutBack:
		return telemetry.Text{VI: "đưa vào phục vụ lại", EN: "put back in service"}
	}
	return telemetry.Text{VI: string(d)}
}

func qualityText(q string) telemetry.Text {
	switch q {
	case "suspect":
		return telemetry.Text{VI: "đáng ngờ", EN: "suspect"}
	case "bad":
		return telemetry.Text{VI: "hỏng", EN: "bad"}
	case "calibrating":
		return telemetry.Text{VI: "đang hiệu chuẩn", EN: "calibrating"}
	case "maintenance":
		return telemetry.Text{VI: "đang bảo trì", EN: "maintenance"}
	case "", "good":
		return telemetry.Text{VI: "tốt", EN: "good"}
	}
	return telemetry.Text{VI: q}
}

func deviceText(state string) telemetry.Text {
	switch state {
	case "measuring":
		return telemetry.Text{VI: "Đang đo", EN: "Measuring"}
	case "maintenance":
		return telemetry.Text{VI: "Bảo trì", EN: "Maintenance"}
	case "calibrating":
		return telemetry.Text{VI: "Hiệu chuẩn", EN: "Calibrating"}
	case "error":
		return telemetry.Text{VI: "Lỗi", EN: "Error"}
	case "unheard":
		return telemetry.Text{VI: "Chưa nghe thấy", EN: "Not heard"}
	}
	return telemetry.Text{VI: state}
}

// testText names a test of quality that a value did not pass.
func testText(name string) telemetry.Text {
	switch name {
	case "gross_range":
		return telemetry.Text{VI: "ngoài khoảng cho phép", EN: "out of range"}
	case "spike":
		return telemetry.Text{VI: "nhảy vọt", EN: "spike"}
	case "rate_of_change":
		return telemetry.Text{VI: "thay đổi quá nhanh", EN: "changes too fast"}
	case "flat_line":
		return telemetry.Text{VI: "đứng yên quá lâu", EN: "does not change"}
	}
	return telemetry.Text{VI: name, EN: name}
}

func settledText(did string) telemetry.Text {
	switch did {
	case "retried":
		return telemetry.Text{VI: "đã thử lại được", EN: "retried"}
	case "dropped":
		return telemetry.Text{VI: "đã bỏ", EN: "dropped"}
	case "retrying":
		return telemetry.Text{VI: "đang thử lại, chưa rõ kết quả", EN: "being retried, nobody knows yet"}
	}
	return telemetry.Text{VI: did, EN: did}
}

// Local writes a time as Vietnam's clocks show it: UTC+7, no summer time.
func Local(at any) string {
	var t time.Time
	switch at := at.(type) {
	case time.Time:
		t = at
	case *time.Time:
		if at != nil {
			t = *at
		}
	}
	if t.IsZero() {
		return "–"
	}
	return t.In(time.FixedZone("+07", 7*60*60)).Format("15:04:05 02/01/2006")
}

func iso(at any) string {
	switch at := at.(type) {
	case time.Time:
		return at.UTC().Format(time.RFC3339)
	case *time.Time:
		if at != nil {
			return at.UTC().Format(time.RFC3339)
		}
	}
	return ""
}

// span writes a length of time in its two largest units.
func span(lang string, d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	words := [4]string{" ngày", " giờ", " phút", " giây"}
	if lang == "en" {
		words = [4]string{" d", " h", " min", " s"}
	}
	var parts []string
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if n := d / unit; n > 0 {
			parts = append(parts, strconv.Itoa(int(n))+words[i])
			d -= n * unit
		} else if len(parts) > 0 {
			break
		}
		if len(parts) == 2 {
			break
		}
	}
	if len(parts) == 0 {
		return "0" + words[3]
	}
	return strings.Join(parts, " ")
}

// Number writes a number for people, with at most three decimals, or with three
// significant digits where it is small; the decimal sign is that of the language.
func Number(lang string, v float64) string {
	text := strconv.FormatFloat(v, 'f', 3, 64)
	if a := math.Abs(v); a != 0 && a < 0.01 {
		text = strconv.FormatFloat(v, 'g', 3, 64)
	}
	if strings.Contains(text, ".") && !strings.Contains(text, "e") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	if text == "-0" {
		text = "0"
	}
	return decimal(lang, text)
}

func decimal(lang, text string) string {
	if lang == "vi" {
		text = strings.Replace(text, ".", ",", 1)
	}
	return text
}

// A Known is what the gateway knows: kinds, devices, rules and zones.
type Known struct {
	Kinds   []telemetry.Kind
	Devices []telemetry.Device
	Rules   []RuleText
	Zones   []byte // GeoJSON

	devices map[string]*telemetry.Device
	kinds   map[string]*telemetry.Kind
}

// Index makes what Device and Quantity look into; it is called once, before them.
func (k *Known) Index() {
	k.devices, k.kinds = map[string]*telemetry.Device{}, map[string]*telemetry.Kind{}
	for i := range k.Devices {
		k.devices[k.Devices[i].ID] = &k.Devices[i]
	}
	for i := range k.Kinds {
		k.kinds[k.Kinds[i].Name] = &k.Kinds[i]
	}
}

// Device returns a registered device, or nil.
func (k *Known) Device(id string) *telemetry.Device { return k.devices[id] }

// Name returns what people call a device.
func (k *Known) Name(id string) string {
	if d := k.devices[id]; d != nil && d.Name != "" {
		return d.Name
	}
	return id
}

// Quantity returns what is known of a value of a kind; of a value that is not
// known its name alone. Values of other kinds are called kind.value.
func (k *Known) Quantity(kind, value string) (of string, q telemetry.Quantity) {
	if other, name, ok := strings.Cut(value, "."); ok {
		kind, value = other, name
	}
	if in := k.kinds[kind]; in != nil {
		if q := in.Quantity(value); q != nil {
			return kind, *q
		}
	}
	for i := range k.Kinds {
		if q := k.Kinds[i].Quantity(value); q != nil {
			return k.Kinds[i].Name, *q
		}
	}
	return "", telemetry.Quantity{Name: value, Title: telemetry.Text{VI: value, EN: value}}
}

// A Figure is a value as a page shows it.
type Figure struct {
	Kind, Name string
	Title      telemetry.Text
	Unit       string
	Number     bool   // not a word
	Text       string // as people read it
	Quality    string // "" is good
	Failed     string // the test that it did not pass
	Thresholds []Threshold
}

// A Threshold is a level of a value that a chart draws.
type Threshold struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// Figures are the values that a warning's rule saw, the one that was compared
// first.
func (k *Known) Figures(lang string, w *telemetry.Warning) []Figure {
	var out []Figure
	for name, v := range w.Values {
		kind, q := k.Quantity(w.Kind, name)
		out = append(out, Figure{
			Kind: kind, Name: q.Name, Title: titled(q), Unit: q.Unit, Number: true, Text: Number(lang, v),
			Quality: qualityOf(w, name), Thresholds: thresholds(k.facts(w.Device), q.Name, w.Threshold),
		})
	}
	slices.SortFunc(out, func(a, b Figure) int {
		if first := order(w, a) - order(w, b); first != 0 {
			return first
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// order is small for a value that the expression names early.
func order(w *telemetry.Warning, f Figure) int {
	if at := strings.Index(w.Expression, f.Name); at >= 0 {
		return at
	}
	return math.MaxInt32
}

func qualityOf(w *telemetry.Warning, name string) string {
	if q, ok := w.Quality[name]; ok && q != telemetry.Good {
		return q.String()
	}
	return ""
}

func titled(q telemetry.Quantity) telemetry.Text {
	if q.Title.VI == "" && q.Title.EN == "" {
		return telemetry.Text{VI: q.Name, EN: q.Name}
	}
	return q.Title
}

func (k *Known) facts(device string) map[string]any {
	if d := k.devices[device]; d != nil {
		return d.Facts
	}
	return nil
}

// thresholds are those of a device's facts that are levels of the value: their
// names begin with alarm, and end in the same unit.
func thresholds(facts map[string]any, value string, compared *float64) []Threshold {
	var out []Threshold
	_, unit, _ := cutLast(value, "_")
	if unit != "" {
		for name, fact := range facts {
			_, of, _ := cutLast(name, "_")
			v, ok := fact.(float64)
			if ok && of == unit && strings.HasPrefix(name, "alarm") {
				out = append(out, Threshold{name, v})
			}
		}
	}
	if compared != nil && !slices.ContainsFunc(out, func(t Threshold) bool { return t.Value == *compared }) {
		out = append(out, Threshold{"threshold", *compared})
	}
	slices.SortFunc(out, func(a, b Threshold) int {
		switch {
		case a.Value < b.Value:
			return -1
		case a.Value > b.Value:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
