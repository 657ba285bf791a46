package cap

import (
	"fmt"
	"slices"
	"strings"

	"haidang/gateway/telemetry"
)

// An Event says what CAP calls the warnings of a rule or a kind. The events
// that match a warning are laid over one another, the first one on top: what one
// leaves out the next one gives.
type Event struct {
	// Which warnings it is for; what is left out matches all. A * at the end of
	// rule stands for any characters.
	Rule     string             `yaml:"rule"`
	Kind     string             `yaml:"kind"`     // of the warning; left out: every kind
	Severity telemetry.Severity `yaml:"severity"` // of the warning; left out: every severity

	// Public says whether the world outside is told of such warnings: the feed,
	// and CAP recipients that do not take all. Default: only those of the flood,
	// rain, reservoir and air quality rules of the shipped packs.
	Public      *bool             `yaml:"public"`
	Category    []string          `yaml:"category"`    // Geo, Met, Safety, ... (CAP 1.2, 3.2.2)
	Event       telemetry.Text    `yaml:"event"`       // what happens, in a word or two
	Codes       map[string]string `yaml:"codes"`       // eventCode by valueName
	Response    []string          `yaml:"response"`    // Prepare, Evacuate, Monitor, ...
	Urgency     string            `yaml:"urgency"`     // Immediate, Expected, Future, Unknown
	Certainty   string            `yaml:"certainty"`   // Observed, Likely, Possible, Unlikely, Unknown
	Instruction telemetry.Text    `yaml:"instruction"` // what people should do
}

func categories() []string {
	return []string{"Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other"}
}

func responses() []string {
	return []string{"Shelter", "Evacuate", "Prepare", "Execute", "Avoid", "Monitor", "Assess", "None"}
}

func urgencies() []string { return []string{"Immediate", "Expected", "Future", "Unknown"} }

func certainties() []string { return []string{"Observed", "Likely", "Possible", "Unlikely", "Unknown"} }

func (e *Event) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	words := func(path string, given, known []string) {
		for i, w := range given {
			if w == "" || !slices.Contains(known, w) {
				faults = append(faults, telemetry.Faultf(fmt.Sprintf("%s[%d]", path, i), "%q is not one of %s", w, strings.Join(known, ", ")))
			}
		}
	}
	words("category", e.Category, categories())
	words("response", e.Response, responses())
	if e.Urgency != "" && !slices.Contains(urgencies(), e.Urgency) {
		faults = append(faults, telemetry.Faultf("urgency", "%q is not one of %s", e.Urgency, strings.Join(urgencies(), ", ")))
	}
	if e.Certainty != "" && !slices.Contains(certainties(), e.Certainty) {
		faults = append(faults, telemetry.Faultf("certainty", "%q is not one of %s", e.Certainty, strings.Join(certainties(), ", ")))
	}
	for name, code := range e.Codes {
		if name == "" || code == "" {
			faults = append(faults, telemetry.Faultf("codes", "an event code %q: %q has an empty name or value", name, code))
		}
	}
	return faults
}

func (e *Event) matches(w *telemetry.Warning) bool {
	start, open := strings.CutSuffix(e.Rule, "*")
	return (e.Rule == "" || e.Rule == w.Rule || open && strings.HasPrefix(w.Rule, start)) && (e.Kind == "" || e.Kind == w.Kind) &&
		(e.Severity == telemetry.NoSeverity || e.Severity == w.Severity)
}

// under fills what e leaves out from another event.
func (e *Event) under(other *Event) {
	if e.Public == nil {
		e.Public = other.Public
	}
	if e.Category == nil {
		e.Category = other.Category
	}
	if e.Codes == nil {
		e.Codes = other.Codes
	}
	if e.Response == nil {
		e.Response = other.Response
	}
	fill(&e.Event.VI, other.Event.VI)
	fill(&e.Event.EN, other.Event.EN)
	fill(&e.Urgency, other.Urgency)
	fill(&e.Certainty, other.Certainty)
	fill(&e.Instruction.VI, other.Instruction.VI)
	fill(&e.Instruction.EN, other.Instruction.EN)
}

func fill(own *string, other string) {
	if *own == "" {
		*own = other
	}
}

// eventOf returns what CAP calls a warning.
func eventOf(own []Event, w *telemetry.Warning) Event {
	var e Event
	for _, list := range [][]Event{own, builtin()} {
		for i := range list {
			if list[i].matches(w) {
				e.under(&list[i])
			}
		}
	}
	fill(&e.Event.VI, w.Rule)
	fill(&e.Event.EN, w.Rule)
	return e
}

// builtin are the events of the built-in kinds and of the shipped packs, then
// what follows from the severity alone. Only rules that are named here are for
// the public: a rule on the same kind can be about a battery.
func builtin() []Event {
	offline := telemetry.Text{VI: "Mất số liệu", EN: "Data missing"}
	doubtful := telemetry.Text{VI: "Số liệu không tin cậy", EN: "Doubtful data"}
	infra, private := []string{"Infra"}, new(bool)
	events := []Event{
		{Rule: "silent-*", Public: private, Category: infra, Event: offline, Instruction: keepers()},
		{Rule: "sensor-*", Public: private, Category: infra, Event: doubtful, Instruction: keepers()},
		{Rule: "quality-*", Public: private, Category: infra, Event: doubtful, Instruction: keepers()},
		{Rule: "battery-*", Public: private, Category: infra, Event: telemetry.Text{VI: "Điện áp ắc quy thấp", EN: "Battery low"}, Instruction: keepers()},
		{Rule: "test", Public: private, Event: telemetry.Text{VI: "Tin thử", EN: "Test"}, Response: []string{"None"}},
		{Rule: "rapid-rise", Event: telemetry.Text{VI: "Nước sông lên nhanh", EN: "Rapid river rise"}},
		{Rule: "distress-*", Category: []string{"Rescue", "Transport"}, Event: telemetry.Text{VI: "Tín hiệu cấp cứu trên biển", EN: "Distress signal at sea"}},
		{Kind: "link", Category: infra, Event: telemetry.Text{VI: "Mất liên lạc thiết bị", EN: "Device offline"}, Instruction: keepers()},
		{Kind: "panel", Category: []string{"Fire", "Safety"}, Event: telemetry.Text{VI: "Báo cháy", EN: "Fire alarm"}},
		{Kind: "position", Category: []string{"Transport", "Safety"}, Event: telemetry.Text{VI: "An toàn tàu thuyền", EN: "Vessel safety"}},
	}
	open := true
	for _, rule := range []string{"flood-level", "rapid-rise", "heavy-rain", "heavy-rain-sum", "cloudburst", "reservoir-level", "vn-aqi"} {
		events = append(events, Event{Rule: rule, Public: &open})
	}
	events = append(events, floods()...)
	events = append(events, hazards()...)
	return append(events,
		Event{Severity: telemetry.Extreme, Urgency: "Immediate", Response: []string{"Execute"}},
		Event{Severity: telemetry.Severe, Urgency: "Immediate", Response: []string{"Prepare"}},
		Event{Severity: telemetry.Moderate, Urgency: "Expected", Response: []string{"Prepare"}},
		// What a rule compares was measured: it is observed.
		Event{Urgency: "Expected", Response: []string{"Monitor"}, Certainty: "Observed", Category: []string{"Other"}},
	)
}

func keepers() telemetry.Text {
	return telemetry.Text{VI: "Người quản lý trạm kiểm tra thiết bị, nguồn điện và đường truyền.",
		EN: "Station keepers: check the instrument, its power and its line."}
}

// floods is what people by a river should do, by severity.
func floods() []Event {
	return []Event{
		{Kind: "river", Category: []string{"Met", "Geo"}, Event: telemetry.Text{VI: "Lũ", EN: "Flood"}},
		{Kind: "river", Severity: telemetry.Extreme, Instruction: telemetry.Text{
			VI: "Rời khỏi vùng trũng thấp và ven sông, thực hiện ngay lệnh sơ tán của chính quyền. Không đi qua chỗ nước chảy xiết.",
			EN: "Leave low ground and river banks and follow evacuation orders of the authorities at once. Do not cross running water."}},
		{Kind: "river", Severity: telemetry.Severe, Instruction: telemetry.Text{
			VI: "Chuẩn bị sơ tán khỏi vùng trũng thấp và ven sông; đưa người già, trẻ em và tài sản lên cao; theo dõi thông báo của chính quyền.",
			EN: "Prepare to leave low ground and river banks; move the old, children and goods to higher places; follow the authorities' notices."}},
		{Kind: "river", Instruction: telemetry.Text{
			VI: "Theo dõi mực nước và thông báo của chính quyền; không vớt củi, đánh cá trên sông.",
			EN: "Watch the water level and the authorities' notices; do not fish or gather driftwood on the river."}},
	}
}

// hazards are the other kinds of which the public is told.
func hazards() []Event {
	return []Event{
		{Kind: "rain", Category: []string{"Met"}, Event: telemetry.Text{VI: "Mưa lớn", EN: "Heavy rain"}, Instruction: telemetry.Text{
			VI: "Đề phòng ngập úng, lũ quét và sạt lở đất; tránh xa sườn dốc và suối.",
			EN: "Beware of flooding, flash floods and landslides; keep away from steep slopes and streams."}},
		{Kind: "reservoir", Category: []string{"Infra", "Met"}, Event: telemetry.Text{VI: "Mực nước hồ chứa cao", EN: "High reservoir level"}, Instruction: telemetry.Text{
			VI: "Người dân ở hạ du theo dõi thông báo xả lũ và tránh xa lòng sông.",
			EN: "People downstream: follow notices of releases and keep away from the river bed."}},
		{Kind: "air", Category: []string{"Env", "Health"}, Event: telemetry.Text{VI: "Ô nhiễm không khí", EN: "Air pollution"}, Instruction: telemetry.Text{
			VI: "Hạn chế hoạt động ngoài trời và đeo khẩu trang, nhất là người già, trẻ em và người bệnh hô hấp.",
			EN: "Limit activity outdoors and wear a mask, above all the old, children and people with respiratory diseases."}},
		{Kind: "water", Category: []string{"Env", "Health"}, Event: telemetry.Text{VI: "Ô nhiễm nước mặt", EN: "Surface water pollution"}, Instruction: telemetry.Text{
			VI: "Không lấy nước sông để sinh hoạt và nuôi trồng cho đến khi có thông báo mới.",
			EN: "Do not take river water for households or fish ponds until further notice."}},
		{Kind: "weather", Category: []string{"Met"}, Event: telemetry.Text{VI: "Thời tiết nguy hiểm", EN: "Severe weather"}},
	}
}
