package ioc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
)

// TextConfig is what a recipient reads: a title and a body in both languages.
// What is left out keeps its default. Places for values are names in braces:
//
//	{headline} {event} {description} {instruction} {area} {message}
//	{grade}                  the severity in words, or that it is over
//	{severity} {state}       words, in the language of the text
//	{time} {start}           local time (Asia/Ho_Chi_Minh), as in 20:00 27/10/2025
//	{value.level_m}          a value that the rule saw; – where it saw none
//	{threshold} {acked_by} {rule} {device} {site} {kind} {id} {n} {gateway}
//
// A brace is written twice: {{ and }}. Nothing else is a program.
type TextConfig struct {
	Title telemetry.Text `yaml:"title"` // subject of a mail; left out: the built-in one
	Body  telemetry.Text `yaml:"body"`  // left out: the built-in one
}

// or returns the texts with those of other where they are empty.
func (c TextConfig) or(other TextConfig) TextConfig {
	for _, p := range [...]struct {
		own   *string
		other string
	}{{&c.Title.VI, other.Title.VI}, {&c.Title.EN, other.Title.EN}, {&c.Body.VI, other.Body.VI}, {&c.Body.EN, other.Body.EN}} {
		if *p.own == "" {
			*p.own = p.other
		}
	}
	return c
}

// Validate reports places for values that nothing can fill.
func (c TextConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	for _, t := range [...]struct{ path, text string }{
		{"title.vi", c.Title.VI}, {"title.en", c.Title.EN}, {"body.vi", c.Body.VI}, {"body.en", c.Body.EN},
	} {
		if _, err := parseText(t.text); err != nil {
			faults = append(faults, telemetry.Faultf(t.path, "%v", err))
		}
	}
	return faults
}

// values returns the values that the texts name, with the paths where they do.
func (c TextConfig) values() map[string]string {
	out := map[string]string{}
	for _, t := range [...]struct{ path, text string }{
		{"title.vi", c.Title.VI}, {"title.en", c.Title.EN}, {"body.vi", c.Body.VI}, {"body.en", c.Body.EN},
	} {
		pieces, _ := parseText(t.text) // Validate tells what is wrong
		for _, p := range pieces {
			if name, ok := strings.CutPrefix(p.place, valuePlace); ok {
				out[name] = t.path
			}
		}
	}
	return out
}

const (
	valuePlace = "value."
	missing    = "–" // a value that is not known
	localTime  = "15:04 02/01/2006"
)

func textPlaces() []string {
	return []string{"headline", "event", "description", "instruction", "area", "message", "grade", "severity", "state",
		"time", "start", "threshold", "acked_by", "rule", "device", "site", "kind", "id", "n", "gateway"}
}

// A textPiece is a run of text or a place for a value.
type textPiece struct{ text, place string }

func parseText(text string) ([]textPiece, error) {
	var out []textPiece
	var plain strings.Builder
	for text != "" {
		i := strings.IndexAny(text, "{}")
		if i < 0 {
			plain.WriteString(text)
			break
		}
		plain.WriteString(text[:i])
		brace, rest := text[i], text[i+1:]
		if rest != "" && rest[0] == brace {
			plain.WriteByte(brace)
			text = rest[1:]
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		name = strings.TrimSpace(name)
		switch value, isValue := strings.CutPrefix(name, valuePlace); {
		case brace == '}':
			return nil, fmt.Errorf("a } closes nothing; a brace itself is written }}")
		case !closed:
			return nil, fmt.Errorf("a { is not closed by }; a brace itself is written {{")
		case isValue && telemetry.ValidName(value), slices.Contains(textPlaces(), name):
		default:
			return nil, fmt.Errorf("{%s} is not known; expected one of %s, or value. and the name of a value", name, strings.Join(textPlaces(), ", "))
		}
		out = append(out, textPiece{text: plain.String()}, textPiece{place: name})
		plain.Reset()
		text = after
	}
	if plain.Len() > 0 {
		out = append(out, textPiece{text: plain.String()})
	}
	return out, nil
}

// A letter is one warning in words, in one language.
type letter struct{ Title, Body string }

// texts writes the words of warnings for one recipient.
type texts struct {
	from                             Bulletins
	titleVI, titleEN, bodyVI, bodyEN []textPiece
}

func newTexts(c TextConfig, from Bulletins) *texts {
	parse := func(text string) []textPiece {
		pieces, err := parseText(text)
		if err != nil {
			return []textPiece{{text: text}} // the configuration was validated
		}
		return pieces
	}
	return &texts{from: from, titleVI: parse(c.Title.VI), titleEN: parse(c.Title.EN), bodyVI: parse(c.Body.VI), bodyEN: parse(c.Body.EN)}
}

// picks reports whether a transition says something about the danger.
func (t *texts) picks(w *telemetry.Warning) bool {
	_, is := t.from.Chronicle.Of(*w)
	return is
}

// Offer returns, of the warnings that last, the transitions that are told.
func (t *texts) Offer(lasting []telemetry.Warning) []telemetry.Warning { return t.from.newest(lasting) }

// write says a bulletin in one language. That of a drill says so at the
// beginning, whatever the templates are.
func (t *texts) write(b *cap.Bulletin, vi bool) letter {
	title, body := t.titleEN, t.bodyEN
	if vi {
		title, body = t.titleVI, t.bodyVI
	}
	fill := t.filler(b, vi)
	l := letter{Title: oneLine(render(title, fill)), Body: render(body, fill)}
	if _, is := t.from.Chronicle.Of(b.Warning); !is && b.Warning.State == telemetry.Active {
		// It is told again, or to others, because nobody has taken it.
		again := choose(vi, "CHƯA AI NHẬN: ", "NOT ACKNOWLEDGED: ")
		l.Title, l.Body = again+l.Title, again+l.Body
	}
	if b.Warning.Exercise {
		l.Title, l.Body = cap.Mark(vi)+l.Title, cap.Mark(vi)+l.Body
	}
	return l
}

func render(pieces []textPiece, fill func(place string) string) string {
	var b strings.Builder
	for _, p := range pieces {
		b.WriteString(p.text)
		if p.place != "" {
			b.WriteString(fill(p.place))
		}
	}
	return strings.TrimSpace(b.String())
}

func (t *texts) filler(b *cap.Bulletin, vi bool) func(place string) string {
	w := &b.Warning
	said := t.from.Composer.Texts(b, vi)
	return func(place string) string {
		if name, ok := strings.CutPrefix(place, valuePlace); ok {
			v, ok := w.Values[name]
			return number(v, ok)
		}
		switch place {
		case "headline":
			return said.Headline
		case "event":
			return said.Event
		case "description":
			return said.Description
		case "instruction":
			return said.Instruction
		case "area":
			return said.Area
		case "message":
			if vi && w.Message.VI != "" || w.Message.EN == "" {
				return w.Message.VI
			}
			return w.Message.EN
		case "grade":
			return grade(b, vi)
		case "severity":
			return w.Severity.Text().In(vi)
		case "state":
			return stateWord(w.State, vi)
		case "time":
			return w.At.In(vietnam()).Format(localTime)
		case "start":
			return w.Start.In(vietnam()).Format(localTime)
		case "threshold":
			if w.Threshold == nil {
				return missing
			}
			return number(*w.Threshold, true)
		case "n":
			return strconv.Itoa(w.N)
		case "gateway":
			return t.from.Composer.Gateway()
		}
		return map[string]string{"acked_by": w.AckedBy, "rule": w.Rule, "device": w.Device, "site": w.Site, "kind": w.Kind, "id": w.ID}[place]
	}
}

// vietnam is UTC+7, without summer time.
func vietnam() *time.Location { return time.FixedZone("+07", 7*60*60) }

func number(v float64, known bool) string {
	if !known {
		return missing
	}
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(v, 'f', 3, 64), "0"), ".")
}

func grade(b *cap.Bulletin, vi bool) string {
	if b.Type != cap.TypeCancel {
		return b.Warning.Severity.Text().In(vi)
	}
	if cap.Withdrawn(&b.Warning) {
		return choose(vi, "rút lại", "withdrawn")
	}
	return choose(vi, "kết thúc", "over")
}

func stateWord(s telemetry.State, vi bool) string {
	if !vi {
		return string(s)
	}
	switch s {
	case telemetry.Active:
		return "đang cảnh báo"
	case telemetry.Acknowledged:
		return "đã tiếp nhận"
	case telemetry.Shelved:
		return "tạm gác"
	case telemetry.Returned:
		return "đã hết, chưa tiếp nhận"
	case telemetry.OutOfService:
		return "ngừng theo dõi"
	case telemetry.Cleared:
		return "đã kết thúc"
	}
	return string(s)
}

// oneLine makes a header of a text: line breaks and controls become spaces.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == ' ' || c == 0x85 || c == 0x2028 || c == 0x2029 }), " ")
}
