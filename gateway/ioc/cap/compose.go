package cap

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"haidang/gateway/telemetry"
)

// A World knows where devices are and what values are called.
type World interface {
	// Device returns a registered device, or nil.
	Device(id string) *telemetry.Device
	// Zone returns the outer rings of a zone as [longitude, latitude] pairs, the
	// first one again at the end; none when there is no such zone.
	Zone(name string) [][][2]float64
	// Quantity returns what a value of a kind is, or nil.
	Quantity(kind, value string) *telemetry.Quantity
}

// A Composer writes messages. It is safe for concurrent use.
type Composer struct {
	words  atomic.Pointer[Config]
	world  World
	sender string
	source string
}

// NewComposer makes a composer of a valid configuration. gateway names this
// gateway where no sender does.
func NewComposer(cfg Config, world World, gateway string) *Composer {
	c := &Composer{world: world, sender: cfg.Sender, source: gateway}
	if c.sender == "" {
		c.sender = gateway
	}
	c.Configure(cfg)
	return c
}

// Configure puts another valid configuration in force, but for its sender: the
// references of a chain name that.
func (c *Composer) Configure(cfg Config) {
	if cfg.RadiusKM == 0 {
		cfg.RadiusKM = DefaultRadiusKM
	}
	if cfg.Feed.MinSeverity == telemetry.NoSeverity {
		cfg.Feed.MinSeverity = telemetry.Moderate
	}
	c.words.Store(&cfg)
}

func (c *Composer) cfg() *Config { return c.words.Load() }

// Public reports whether the world outside is told of such warnings.
func (c *Composer) Public(w *telemetry.Warning) bool {
	e := eventOf(c.cfg().Events, w)
	return e.Public != nil && *e.Public
}

// Message writes a bulletin as a CAP message.
func (c *Composer) Message(b *Bulletin) *Message {
	w := &b.Warning
	m := &Message{
		Identifier: b.Identifier, Sender: c.sender, Sent: Time(b.Sent), Status: c.cfg().status(), Type: b.Type,
		Source: c.source, Scope: "Public", Restriction: "", Incidents: b.incidents,
	}
	if c.cfg().Scope != "" {
		m.Scope = title(c.cfg().Scope)
	}
	switch m.Scope {
	case "Restricted":
		m.Restriction = c.cfg().Restriction
	case "Private":
		m.Addresses = addresses(c.cfg().Addresses)
	}
	if w.Exercise {
		// CAP 1.2, 3.2.1, status: the exercise should be named in note.
		m.Status, m.Note = "Exercise", "Diễn tập, không phải cảnh báo thật. Exercise, not a real warning."
	}
	references := make([]string, len(b.refers))
	for i, r := range b.refers {
		references[i] = c.sender + "," + r.identifier + "," + Time(r.sent)
	}
	m.References = strings.Join(references, " ")
	for _, language := range [...]string{"vi-VN", "en-US"} {
		m.Infos = append(m.Infos, c.info(b, m.Status, language))
	}
	return m
}

// addresses are set apart by spaces; one with a space is quoted (CAP 1.2,
// 3.2.1, addresses).
func addresses(list []string) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a
		if strings.ContainsAny(a, " \t") {
			out[i] = `"` + a + `"`
		}
	}
	return strings.Join(out, " ")
}

func (c *Composer) info(b *Bulletin, status, language string) Info {
	w := &b.Warning
	vi := language == "vi-VN"
	e := eventOf(c.cfg().Events, w)
	area := c.area(w)
	info := Info{
		Language: language, Categories: e.Category, Event: pick(e.Event, vi), Responses: e.Response,
		Urgency: e.Urgency, Severity: title(w.Severity.String()), Certainty: e.Certainty,
		Effective: Time(b.Sent), Onset: Time(w.Start), Expires: Time(b.Sent.Add(Lasts)),
		SenderName: pick(c.cfg().SenderName, vi), Web: c.cfg().Web, Contact: c.cfg().Contact,
		Instruction: pick(e.Instruction, vi), Areas: []Area{area},
	}
	if w.Severity == telemetry.NoSeverity {
		info.Severity = "Unknown"
	}
	for _, name := range slices.Sorted(maps.Keys(e.Codes)) {
		info.EventCodes = append(info.EventCodes, Pair{name, e.Codes[name]})
	}
	if b.Type == TypeCancel {
		info.end(w, vi)
	}
	info.Headline = mark(status, vi) + c.headline(b, info.Event, area.Desc, vi)
	info.Description = mark(status, vi) + c.description(b, vi)
	info.Parameters = c.parameters(b)
	return info
}

// end says why a chain ends. Only the end of the danger is an all-clear (CAP 1.2,
// 3.2.2, responseType): nobody may go home because a gauge is being repaired.
func (i *Info) end(w *telemetry.Warning, vi bool) {
	switch {
	case w.State == telemetry.OutOfService:
		i.Responses, i.Urgency, i.Severity, i.Certainty = []string{"Monitor"}, "Unknown", "Unknown", "Unknown"
		i.Instruction = choose(vi, "Cảnh báo được rút lại vì trạm đo ngừng hoạt động. Điều đó không có nghĩa là đã hết nguy hiểm: hãy theo dõi các nguồn tin khác.",
			"The warning is withdrawn because the station is out of service. That does not mean that the danger is over: follow other sources.")
	case Withdrawn(w):
		i.Responses, i.Urgency, i.Severity, i.Certainty = []string{"AllClear"}, "Past", "Minor", "Unlikely"
		i.Instruction = choose(vi, "Cảnh báo được rút lại: đó là báo nhầm.", "The warning is withdrawn: it was a false alarm.")
	default:
		// The danger is past; Minor is for what threatens nobody.
		i.Responses, i.Urgency, i.Severity = []string{"AllClear"}, "Past", "Minor"
		i.Instruction = choose(vi, "Cảnh báo đã kết thúc.", "The warning is over.")
	}
}

// Withdrawn reports whether a warning that says no more that there is a danger does
// so although the danger may last, or was none.
func Withdrawn(w *telemetry.Warning) bool {
	return w.State == telemetry.OutOfService || w.FalseAlarm && w.State != telemetry.Cleared && w.State != telemetry.Returned
}

// mark begins every text that is not a real warning.
func mark(status string, vi bool) string {
	switch status {
	case "Exercise":
		return choose(vi, "DIỄN TẬP: ", "EXERCISE: ")
	case "Test":
		return choose(vi, "THỬ NGHIỆM: ", "TEST: ")
	}
	return ""
}

func (c *Composer) headline(b *Bulletin, event, area string, vi bool) string {
	switch {
	case b.Type == TypeCancel && Withdrawn(&b.Warning):
		return choose(vi, "Rút lại: ", "Withdrawn: ") + event + ", " + area
	case b.Type == TypeCancel:
		return choose(vi, "Kết thúc: ", "Over: ") + event + ", " + area
	case pick(b.Warning.Message, vi) == "":
		return event + ", " + area
	}
	return event + ": " + pick(b.Warning.Message, vi)
}

// description is what the rule says, then each value with its unit, what it was
// in the message before, and since when the warning lasts.
func (c *Composer) description(b *Bulletin, vi bool) string {
	w := &b.Warning
	var lines []string
	if m := pick(w.Message, vi); m != "" {
		lines = append(lines, m)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Values)) {
		if line := c.value(b, name, vi); line != "" {
			lines = append(lines, line)
		}
	}
	if b.Type != TypeAlert {
		lines = append(lines, choose(vi, "Cảnh báo từ ", "Warning since ")+w.Start.In(vietnam()).Format("15:04 02/01/2006"))
	}
	return strings.Join(lines, "\n")
}

func (c *Composer) value(b *Bulletin, name string, vi bool) string {
	w := &b.Warning
	q := c.world.Quantity(w.Kind, name)
	if q == nil {
		return "" // of a window or of another kind: the rule's message says what matters
	}
	line := strings.TrimSpace(pick(q.Title, vi) + ": " + brief(w.Values[name]) + " " + q.Unit)
	if b.before == nil {
		return line
	}
	before, ok := b.before.Values[name]
	if !ok {
		return line
	}
	trend := choose(vi, "không đổi", "unchanged")
	switch now := w.Values[name]; {
	case now > before:
		trend = choose(vi, "tăng", "rising")
	case now < before:
		trend = choose(vi, "giảm", "falling")
	}
	return line + fmt.Sprintf(choose(vi, " (%s, trước đó %s lúc %s)", " (%s, was %s at %s)"), trend, brief(before),
		b.before.At.In(vietnam()).Format("15:04 02/01"))
}

func (c *Composer) parameters(b *Bulletin) []Pair {
	w := &b.Warning
	out := []Pair{{"rule", w.Rule}, {"device", w.Device}}
	for _, name := range slices.Sorted(maps.Keys(w.Values)) {
		out = append(out, Pair{name, brief(w.Values[name])})
	}
	if w.Threshold != nil {
		out = append(out, Pair{"threshold", brief(*w.Threshold)})
	}
	return out
}

// maxRing bounds the pairs of one polygon; finer ones are thinned evenly.
const maxRing = 1000

func (c *Composer) area(w *telemetry.Warning) Area {
	area := Area{Desc: w.Device}
	d := c.world.Device(w.Device)
	if d == nil {
		d = &telemetry.Device{ID: w.Device}
	}
	if d.Name != "" {
		area.Desc = d.Name
	}
	for _, fact := range [...]string{"zone", "commune"} {
		name, _ := d.Facts[fact].(string)
		rings := c.world.Zone(name)
		if name == "" || len(rings) == 0 {
			continue
		}
		area.Desc += ", " + name
		for _, ring := range rings {
			if p := polygon(ring); p != "" {
				area.Polygons = append(area.Polygons, p)
			}
		}
		break
	}
	if at, ok := position(d, w); ok {
		radius := c.cfg().RadiusKM
		if r, ok := d.Fact("radius_km"); ok {
			if km, ok := r.(float64); ok && km > 0 {
				radius = km
			}
		}
		area.Circles = []string{pair(at) + " " + strconv.FormatFloat(radius, 'f', -1, 64)}
	}
	for _, name := range slices.Sorted(maps.Keys(c.cfg().Geocodes)) {
		if code, ok := d.Fact(c.cfg().Geocodes[name]); ok {
			area.Geocodes = append(area.Geocodes, Pair{name, fmt.Sprint(code)})
		}
	}
	return area
}

// position is where the device stands, or where the rule saw it.
func position(d *telemetry.Device, w *telemetry.Warning) ([2]float64, bool) {
	if d.Lat != nil && d.Lon != nil {
		return [2]float64{*d.Lon, *d.Lat}, true
	}
	lat, hasLat := w.Values["lat"]
	lon, hasLon := w.Values["lon"]
	return [2]float64{lon, lat}, hasLat && hasLon && math.Abs(lat) <= 90 && math.Abs(lon) <= 180
}

func polygon(ring [][2]float64) string {
	if len(ring) < 4 {
		return ""
	}
	every := (len(ring) + maxRing - 1) / maxRing
	var pairs []string
	for i := 0; i < len(ring)-1; i += every {
		pairs = append(pairs, pair(ring[i]))
	}
	return strings.Join(append(pairs, pairs[0]), " ")
}

// pair writes latitude,longitude to about a metre.
func pair(at [2]float64) string {
	return strconv.FormatFloat(at[1], 'f', 5, 64) + "," + strconv.FormatFloat(at[0], 'f', 5, 64)
}

// brief writes a number with at most three decimals.
func brief(v float64) string {
	return strconv.FormatFloat(math.Round(v*1000)/1000+0, 'f', -1, 64)
}

// pick returns the text in one language, or in the other one.
func pick(t telemetry.Text, vi bool) string {
	if vi && t.VI != "" || t.EN == "" {
		return t.VI
	}
	return t.EN
}

func choose(vi bool, inVietnamese, inEnglish string) string {
	if vi {
		return inVietnamese
	}
	return inEnglish
}

// idOf is the warning's id within an identifier: what comes before its numbers.
func idOf(identifier string) string {
	id, _, _ := strings.Cut(identifier, ".")
	return id
}

// File returns what a message is called in a folder: in order of time.
func (b *Bulletin) File() string { return fileName(b.Sent, b.Identifier) }

// Texts are what a bulletin says in one language.
type Texts struct {
	Event       string // what happens, in a word or two
	Headline    string
	Description string // with each value and its trend, in lines
	Instruction string // what people should do
	Area        string
}

// Texts returns what a bulletin says, in Vietnamese (vi) or English. Whoever uses
// it puts Mark before what is of a drill.
func (c *Composer) Texts(b *Bulletin, vi bool) Texts {
	info := c.info(b, "", choose(vi, "vi-VN", "en-US"))
	return Texts{Event: info.Event, Headline: info.Headline, Description: info.Description,
		Instruction: info.Instruction, Area: info.Areas[0].Desc}
}

// Earlier returns the identifiers of the messages before this one, the oldest
// first.
func (b *Bulletin) Earlier() []string {
	out := make([]string, len(b.refers))
	for i, r := range b.refers {
		out[i] = r.identifier
	}
	return out
}

// Gateway is the name of this gateway.
func (c *Composer) Gateway() string { return c.source }

// Mark is what the texts of a drill begin with.
func Mark(vi bool) string { return mark("Exercise", vi) }

// Region is the river or the area of a device, as its facts river, area, commune
// or zone say; warnings of one are told together when there are many.
func (c *Composer) Region(device string) telemetry.Text {
	if d := c.world.Device(device); d != nil {
		for _, fact := range [...]string{"river", "area", "commune", "zone"} {
			name, _ := d.Facts[fact].(string)
			switch {
			case name == "":
			case fact == "river":
				return telemetry.Text{VI: "Sông " + name, EN: name + " river"}
			default:
				return telemetry.Text{VI: name, EN: name}
			}
		}
	}
	return telemetry.Text{VI: "Nơi khác", EN: "Elsewhere"}
}
