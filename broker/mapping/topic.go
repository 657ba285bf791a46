package mapping

import (
	"strings"

	"haidang/gateway/telemetry"
)

// A pattern is a topic filter whose levels may be named.
type pattern struct {
	text   string
	levels []level
	rest   bool // it ends with #
}

type level struct {
	word string // what it must be; "" for any
	name string // of {name}
}

func (l level) any() bool { return l.word == "" }

// String returns the pattern as it is written.
func (p *pattern) String() string { return p.text }

// own are the first levels whose meaning the broker knows itself.
var own = [...]string{"telemetry", "influx", "senml", "spBv1.0", "warnings"}

func parsePattern(text string) (*pattern, *telemetry.Fault) {
	fault := func(format string, args ...any) (*pattern, *telemetry.Fault) {
		f := telemetry.Faultf("topic", format, args...)
		return nil, &f
	}
	if text == "" {
		return fault("the topic is missing: a filter such as farm/{device}/data")
	}
	p := &pattern{text: text}
	names := map[string]bool{}
	words := strings.Split(text, "/")
	for i, word := range words {
		switch {
		case word == "#" && i == len(words)-1:
			p.rest = true
		case word == "+":
			p.levels = append(p.levels, level{})
		case strings.HasPrefix(word, "{") && strings.HasSuffix(word, "}"):
			name := word[1 : len(word)-1]
			if !telemetry.ValidName(name) || strings.ContainsAny(name, ".:") || name == "key" || name == "measurement" {
				return fault("topic %q: {%s} is not the name of a level: letters, digits, _ and -, not key or measurement", text, name)
			}
			if names[name] {
				return fault("topic %q: the level {%s} is there twice", text, name)
			}
			names[name] = true
			p.levels = append(p.levels, level{name: name})
		case strings.ContainsAny(word, "+#{}"):
			return fault("topic %q: + # and {name} must each fill a level, and # the last one", text)
		case word == "":
			return fault("topic %q has an empty level", text)
		default:
			p.levels = append(p.levels, level{word: word})
		}
	}
	if strings.HasPrefix(text, "$") {
		return fault("topic %q: topics that begin with $ are the broker's own", text)
	}
	if len(p.levels) == 0 {
		return fault("topic %q takes everything; give at least one level before #", text)
	}
	for _, word := range own {
		if words[0] == word {
			return fault("topic %q: topics under %s have their own meaning", text, word)
		}
	}
	return p, nil
}

// match returns the named levels of a topic that fits.
func (p *pattern) match(topic string) (map[string]string, bool) {
	if strings.HasPrefix(topic, "$") {
		return nil, false // [MQTT-4.7.2-1]
	}
	words := strings.Split(topic, "/")
	if len(words) < len(p.levels) || len(words) > len(p.levels) && !p.rest {
		return nil, false
	}
	for i, l := range p.levels {
		if !l.any() && l.word != words[i] {
			return nil, false
		}
	}
	named := map[string]string{}
	for i, l := range p.levels {
		if l.name != "" {
			named[l.name] = strings.Clone(words[i]) // a topic may be a view of its packet
		}
	}
	return named, true
}

// filter is the pattern as an MQTT topic filter.
func (p *pattern) filter() string {
	words := make([]string, 0, len(p.levels)+1)
	for _, l := range p.levels {
		if l.any() {
			l.word = "+"
		}
		words = append(words, l.word)
	}
	if p.rest {
		words = append(words, "#")
	}
	return strings.Join(words, "/")
}

func (p *pattern) names(name string) bool {
	for _, l := range p.levels {
		if l.name == name && name != "" {
			return true
		}
	}
	return false
}

// covers reports whether every topic of q is one of p.
func (p *pattern) covers(q *pattern) bool {
	if len(q.levels) < len(p.levels) || q.rest && !p.rest || len(q.levels) > len(p.levels) && !p.rest {
		return false
	}
	for i, l := range p.levels {
		if !l.any() && l.word != q.levels[i].word {
			return false
		}
	}
	return true
}

// meets reports whether some topic is one of both.
func (p *pattern) meets(q *pattern) bool {
	for i := range min(len(p.levels), len(q.levels)) {
		if a, b := p.levels[i], q.levels[i]; !a.any() && !b.any() && a.word != b.word {
			return false
		}
	}
	return len(p.levels) == len(q.levels) ||
		len(p.levels) < len(q.levels) && p.rest || len(q.levels) < len(p.levels) && q.rest
}
