package mapping

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/tidwall/gjson"
)

// A scope is what paths and templates are looked up in.
type scope struct {
	levels      map[string]string // of the topic
	whole, here gjson.Result      // the payload and the element of each
	key         string            // of the element
	measurement string            // in line protocol
	tags        map[string]string // likewise; those that were used are taken out by Fold
	used        map[string]bool
}

// A path leads to a value of the payload.
type path struct {
	text  string // within whole or here; "" is all of it
	whole bool
}

func parsePath(text string) path {
	switch {
	case text == "$":
		return path{whole: true}
	case text == "@":
		return path{}
	}
	if within, ok := strings.CutPrefix(text, "$."); ok {
		return path{text: within, whole: true}
	}
	if within, ok := strings.CutPrefix(text, "@."); ok {
		return path{text: within}
	}
	return path{text: text}
}

// String returns the path as it is written.
func (p path) String() string {
	switch {
	case p.whole && p.text == "":
		return "$"
	case p.whole:
		return "$." + p.text
	case p.text == "":
		return "@"
	}
	return p.text
}

func (p path) find(s *scope) gjson.Result {
	at := s.here
	if p.whole {
		at = s.whole
	}
	if p.text == "" {
		return at
	}
	if !at.IsObject() && !at.IsArray() {
		return gjson.Result{} // gjson would look into a word
	}
	return at.Get(p.text)
}

// A template is a word with parts that are filled in.
type template struct {
	text  string
	parts []part
}

type part struct {
	word   string // as it is
	level  string // of the topic
	key    bool
	name   bool   // the measurement
	tag    string // of line protocol
	path   *path
	filter func(string) string
}

// String returns the template as it is written.
func (t *template) String() string { return t.text }

// fixed reports whether the template needs no payload.
func (t *template) fixed() bool {
	for _, p := range t.parts {
		if p.key || p.name || p.tag != "" || p.path != nil {
			return false
		}
	}
	return true
}

// parseTemplate reads a template; the error says what is wrong with it.
func parseTemplate(text string, topic *pattern, format string) (*template, error) {
	t := &template{text: text}
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{")
		if before != "" {
			t.parts = append(t.parts, part{word: before})
		}
		if !found {
			break
		}
		inner, behind, closed := strings.Cut(after, "}")
		if !closed {
			return nil, fmt.Errorf("%q: { without }", text)
		}
		p, err := parsePart(inner, topic, format)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		t.parts = append(t.parts, p)
		rest = behind
	}
	return t, nil
}

func parsePart(inner string, topic *pattern, format string) (part, error) {
	var p part
	// A path of gjson may have a bar of its own; a filter is behind the last one.
	if at := strings.LastIndexByte(inner, '|'); at >= 0 {
		switch name := strings.TrimSpace(inner[at+1:]); name {
		case "slug":
			p.filter = func(s string) string { return slug(s, '-') }
		case "lower":
			p.filter = strings.ToLower
		case "upper":
			p.filter = strings.ToUpper
		default:
			return p, fmt.Errorf("filter %q is not one of slug, lower, upper", name)
		}
		inner = inner[:at]
	}
	inner = strings.TrimSpace(inner)
	tag, isTag := strings.CutPrefix(inner, "tag.")
	switch {
	case topic.names(inner):
		p.level = inner
	case inner == "measurement" && format == FormatInflux:
		p.name = true
	case isTag && tag != "" && format == FormatInflux:
		p.tag = tag
	case inner == "key" && format == FormatJSON:
		p.key = true
	case strings.HasPrefix(inner, "$.") && format == FormatJSON, strings.HasPrefix(inner, "@.") && format == FormatJSON, inner == "@" && format == FormatJSON:
		at := parsePath(inner)
		p.path = &at
	default:
		want := map[string]string{
			FormatJSON: "key, or a path that begins with $. or @.", FormatInflux: "measurement, or tag.x", FormatRaw: "nothing else in a raw payload",
		}[format]
		return p, fmt.Errorf("{%s} is not a named level of the topic %s, nor %s", inner, topic, want)
	}
	return p, nil
}

// fill returns the word, or what it lacks.
func (t *template) fill(s *scope) (word, lacks string) {
	if len(t.parts) == 1 && t.parts[0].word != "" {
		return t.text, ""
	}
	var b strings.Builder
	for i := range t.parts {
		p := &t.parts[i]
		word, ok := p.word, true
		switch {
		case p.level != "":
			word = s.levels[p.level]
		case p.key:
			word = s.key
		case p.name:
			word = s.measurement
		case p.tag != "":
			if word, ok = s.tags[p.tag]; ok {
				s.used[p.tag] = true
			}
			if !ok {
				return "", "tag " + p.tag
			}
		case p.path != nil:
			found := p.path.find(s)
			if !found.Exists() || found.Type == gjson.Null || found.Type == gjson.JSON {
				return "", p.path.String()
			}
			word = found.String()
		}
		if p.filter != nil {
			word = p.filter(word)
		}
		b.WriteString(word)
	}
	return b.String(), ""
}

// slug makes a name of a word: every run of characters that a name cannot have
// becomes one glue, none at the ends.
func slug(s string, glue byte) string {
	var b strings.Builder
	gap := false
	for _, c := range s {
		switch {
		case unicode.IsLetter(c) || unicode.IsNumber(c),
			b.Len() > 0 && (c == '.' || c == '_' || c == ':' || c == '-'):
			if gap && b.Len() > 0 {
				b.WriteByte(glue)
			}
			gap = false
			b.WriteRune(c)
		default:
			gap = true
		}
	}
	return strings.TrimRight(b.String(), "._:-")
}
