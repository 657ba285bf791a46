package cap

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MediaType is that of a CAP message.
const MediaType = "application/cap+xml"

// Namespace is that of CAP 1.2.
const Namespace = "urn:oasis:names:tc:emergency:cap:1.2"

// Values of msgType that this package writes.
const (
	TypeAlert  = "Alert"
	TypeUpdate = "Update"
	TypeCancel = "Cancel"
)

// timeLayout is the only form of time that the schema takes: a numeric zone, no
// fractions, no Z.
const timeLayout = "2006-01-02T15:04:05-07:00"

// Time writes a time as CAP has it, on Vietnam's clock.
func Time(t time.Time) string { return t.In(vietnam()).Format(timeLayout) }

// parseTime reads what the schema takes; time.Parse alone takes fractions too.
func parseTime(text string) (time.Time, bool) {
	t, err := time.Parse(timeLayout, text)
	return t, err == nil && t.Format(timeLayout) == text
}

// vietnam is UTC+7, without summer time.
func vietnam() *time.Location { return time.FixedZone("+07", 7*60*60) }

// A Message is one CAP alert. Its fields are in the order of the schema.
type Message struct {
	XMLName     xml.Name `xml:"urn:oasis:names:tc:emergency:cap:1.2 alert"`
	Identifier  string   `xml:"identifier"`
	Sender      string   `xml:"sender"`
	Sent        string   `xml:"sent"`
	Status      string   `xml:"status"`
	Type        string   `xml:"msgType"`
	Source      string   `xml:"source,omitempty"`
	Scope       string   `xml:"scope"`
	Restriction string   `xml:"restriction,omitempty"`
	Addresses   string   `xml:"addresses,omitempty"`
	Note        string   `xml:"note,omitempty"`
	References  string   `xml:"references,omitempty"`
	Incidents   string   `xml:"incidents,omitempty"`
	Infos       []Info   `xml:"info"`
}

// An Info says the message in one language.
type Info struct {
	Language    string   `xml:"language"`
	Categories  []string `xml:"category"`
	Event       string   `xml:"event"`
	Responses   []string `xml:"responseType,omitempty"`
	Urgency     string   `xml:"urgency"`
	Severity    string   `xml:"severity"`
	Certainty   string   `xml:"certainty"`
	EventCodes  []Pair   `xml:"eventCode,omitempty"`
	Effective   string   `xml:"effective,omitempty"`
	Onset       string   `xml:"onset,omitempty"`
	Expires     string   `xml:"expires,omitempty"`
	SenderName  string   `xml:"senderName,omitempty"`
	Headline    string   `xml:"headline,omitempty"`
	Description string   `xml:"description,omitempty"`
	Instruction string   `xml:"instruction,omitempty"`
	Web         string   `xml:"web,omitempty"`
	Contact     string   `xml:"contact,omitempty"`
	Parameters  []Pair   `xml:"parameter,omitempty"`
	Areas       []Area   `xml:"area,omitempty"`
}

// A Pair is a named value.
type Pair struct {
	Name  string `xml:"valueName"`
	Value string `xml:"value"`
}

// An Area is where the message holds.
type Area struct {
	Desc     string   `xml:"areaDesc"`
	Polygons []string `xml:"polygon,omitempty"` // "lat,lon lat,lon ...", the first pair again at the end
	Circles  []string `xml:"circle,omitempty"`  // "lat,lon radius", in kilometres
	Geocodes []Pair   `xml:"geocode,omitempty"`
}

// Encode writes the message as an XML document. It refuses one that breaks a
// rule of the standard which the schema does not check.
func (m *Message) Encode() ([]byte, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	encoder := xml.NewEncoder(&b)
	encoder.Indent("", "  ")
	if err := encoder.Encode(m); err != nil {
		return nil, fmt.Errorf("write CAP message %s: %w", m.Identifier, err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Reference is how later messages refer to this one.
func (m *Message) Reference() string { return m.Sender + "," + m.Identifier + "," + m.Sent }

// Check reports the first rule that the message breaks, of those that the
// schema does not check: characters of names, times, references, closed
// polygons, one info for each language.
func (m *Message) Check() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("CAP message %q: %s", m.Identifier, fmt.Sprintf(format, args...))
	}
	// CAP 1.2, 3.2.1: no spaces, commas or restricted characters (< and &).
	if !validName(m.Identifier) || !validName(m.Sender) {
		return fault("identifier and sender %q have to be without space, comma, < and &", m.Sender)
	}
	sent, ok := parseTime(m.Sent)
	if !ok {
		return fault("sent %q is not like 2025-10-27T20:00:00+07:00", m.Sent)
	}
	if (m.Type == TypeAlert) != (m.References == "") {
		return fault("an %s has references %q; expected none on an Alert, and some on the others", m.Type, m.References)
	}
	for reference := range strings.FieldsSeq(m.References) {
		parts := strings.Split(reference, ",")
		if len(parts) != 3 || !validName(parts[0]) || !validName(parts[1]) {
			return fault("reference %q is not sender,identifier,sent", reference)
		}
		if at, ok := parseTime(parts[2]); !ok || at.After(sent) || parts[1] == m.Identifier {
			return fault("reference %q is not to an earlier message", reference)
		}
	}
	if len(m.Infos) == 0 {
		return fault("has no info")
	}
	languages := map[string]bool{}
	for i := range m.Infos {
		info := &m.Infos[i]
		if languages[info.Language] {
			return fault("language %s is there twice", info.Language)
		}
		languages[info.Language] = true
		if err := info.check(sent); err != nil {
			return fault("info %s: %v", info.Language, err)
		}
	}
	return nil
}

func (i *Info) check(sent time.Time) error {
	if len(i.Categories) == 0 || i.Event == "" {
		return fmt.Errorf("category and event are missing")
	}
	for _, t := range [...]string{i.Effective, i.Onset, i.Expires} {
		if _, ok := parseTime(t); t != "" && !ok {
			return fmt.Errorf("time %q is not like 2025-10-27T20:00:00+07:00", t)
		}
	}
	if expires, ok := parseTime(i.Expires); ok && !expires.After(sent) {
		return fmt.Errorf("it expires at %s, before it is sent", i.Expires)
	}
	for a := range i.Areas {
		if err := i.Areas[a].check(); err != nil {
			return err
		}
	}
	return nil
}

func (a *Area) check() error {
	if a.Desc == "" {
		return fmt.Errorf("an area has no description")
	}
	for _, polygon := range a.Polygons {
		pairs := strings.Fields(polygon)
		if len(pairs) < 4 || pairs[0] != pairs[len(pairs)-1] {
			return fmt.Errorf("the polygon of %s is not closed, or has less than 4 pairs", a.Desc)
		}
		for _, pair := range pairs {
			if !validPair(pair) {
				return fmt.Errorf("the polygon of %s has %q; expected latitude,longitude", a.Desc, pair)
			}
		}
	}
	for _, circle := range a.Circles {
		pair, radius, ok := strings.Cut(circle, " ")
		if r, err := strconv.ParseFloat(radius, 64); !ok || err != nil || !(r >= 0) || !validPair(pair) {
			return fmt.Errorf("circle %q of %s is not latitude,longitude radius", circle, a.Desc)
		}
	}
	return nil
}

// validPair reports whether pair is latitude,longitude in decimal degrees,
// without exponents.
func validPair(pair string) bool {
	lat, lon, ok := strings.Cut(pair, ",")
	return ok && validDegrees(lat, 90) && validDegrees(lon, 180)
}

func validDegrees(text string, most float64) bool {
	v, err := strconv.ParseFloat(text, 64)
	return err == nil && v >= -most && v <= most && !strings.ContainsAny(text, "eExX_")
}

func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return c == ',' || c == '<' || c == '&' || unicode.IsSpace(c) || unicode.IsControl(c) || c == unicode.ReplacementChar
	})
}

// fileName is what a message is called in a folder: in order of time.
func fileName(sent time.Time, identifier string) string {
	return sent.In(vietnam()).Format("20060102T150405") + "-" + identifier + ".xml"
}

// IsFile reports whether a file's name is one that File makes.
func IsFile(name string) bool { return filePattern().MatchString(name) }

func filePattern() *regexp.Regexp {
	return regexp.MustCompile(`^\d{8}T\d{6}-[a-z0-9.-]+\.xml$`)
}
