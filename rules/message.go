package rules

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// Decimals is how many decimals a number in a message has at most.
const Decimals = 3

// A template is a message with places for values.
type template []piece

type piece struct {
	text    string
	program *program // a number or a word
	special string   // severity, level, threshold, rule
}

// missing stands in a message for a value that is not known.
const missing = "–"

func (c *builder) messages(r *rule) (vi, en template) {
	vi, en = c.template(r, "message.vi", r.Message.VI), c.template(r, "message.en", r.Message.EN)
	if r.Message.VI == "" {
		vi = en
	}
	if r.Message.EN == "" {
		en = vi
	}
	if len(vi) == 0 && len(c.faults) == 0 {
		vi = c.template(r, "message", r.Name+": {device.name}")
		en = vi
	}
	return vi, en
}

// endings are the messages of a warning that ends. Without a text of their own
// they say so before the rule's message: "Kim Long at 0.92 m" alone reads as if
// it had begun.
func (c *builder) endings(r *rule) (vi, en template) {
	vi, en = c.template(r, "cleared.vi", r.Cleared.VI), c.template(r, "cleared.en", r.Cleared.EN)
	switch {
	case r.Cleared.VI == "" && r.Cleared.EN == "":
		return append(template{{text: "Đã hết: "}}, r.vi...), append(template{{text: "Over: "}}, r.en...)
	case r.Cleared.VI == "":
		vi = en
	case r.Cleared.EN == "":
		en = vi
	}
	return vi, en
}

func (c *builder) template(r *rule, path, text string) (t template) {
	whole := text
	for text != "" {
		before, rest, open := strings.Cut(text, "{")
		if before != "" {
			t = append(t, piece{text: before})
		}
		if !open {
			return t
		}
		source, after, err := placeholder(rest)
		if err != nil {
			c.fault(path, "%v", err)
			return t
		}
		text = after
		switch source {
		case "severity", "level", "threshold", "rule":
			t = append(t, piece{special: source})
			continue
		}
		said := len(c.faults)
		p := c.compile(path, source, r.plan, false, kindOther)
		if len(c.faults) > said { // counted within the braces as yet
			shift(&c.faults[said], whole[:len(whole)-len(rest)], rest)
		}
		t = append(t, piece{program: p})
	}
	return t
}

// placeholder reads up to the closing brace; braces in quotes do not count.
func placeholder(s string) (source, rest string, err error) {
	var quote rune
	for i, c := range s {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == '}':
			source = strings.TrimSpace(s[:i])
			if source == "" {
				return "", "", errors.New("{} is empty: expected a name, such as {level_m}")
			}
			return source, s[i+1:], nil
		}
	}
	return "", "", errors.New("a { in the message is not closed by }")
}

// render writes the message for the frame, in Vietnamese (vi) or English.
func (t template) render(f *frame, r *rule, severity telemetry.Severity, threshold *float64, vi bool) string {
	var b strings.Builder
	for _, p := range t {
		switch {
		case p.program != nil:
			b.WriteString(p.program.show(f))
		case p.special == "severity":
			b.WriteString(severity.Text().In(vi))
		case p.special == "level":
			b.WriteString(r.title(severity, vi))
		case p.special == "rule":
			b.WriteString(r.Name)
		case p.special == "threshold" && threshold != nil:
			b.WriteString(brief(*threshold))
		case p.special == "threshold":
			b.WriteString(missing)
		default:
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// show writes a program's number or word for a message.
func (p *program) show(f *frame) string {
	if !p.applies(f.device) || !p.present(f) {
		return missing
	}
	f.unknown = false
	text := ""
	if p.number != nil {
		text = brief(p.number(f))
	} else {
		text = p.word(f)
	}
	if f.unknown {
		return missing
	}
	return text
}

// brief writes a number with at most Decimals decimals.
func brief(v float64) string {
	scale := math.Pow10(Decimals)
	if rounded := math.Round(v*scale) / scale; telemetry.Finite(rounded) {
		v = rounded
	}
	if v == 0 {
		v = 0 // not -0
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// title returns what people call the level of this severity.
func (r *rule) title(s telemetry.Severity, vi bool) string {
	for i := range r.levels {
		l := &r.levels[i]
		switch {
		case l.severity != s:
		case vi && l.title.VI != "":
			return l.title.VI
		case !vi && l.title.EN != "":
			return l.title.EN
		}
	}
	return s.Text().In(vi)
}

// warningID names the warning that a rule raises for a device at start (log
// time, Unix ns): both names as far as they are readable, and a hash that tells
// it from all others. again counts warnings of the same start.
func warningID(rule, device string, start int64, again uint32) string {
	b := append([]byte(rule), 0)
	b = append(b, device...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(start))
	if again > 0 {
		b = binary.BigEndian.AppendUint32(b, again)
	}
	sum := sha256.Sum256(b)
	return slug(device) + "-" + slug(rule) + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:10])
}

const slugBytes = 24

// slug writes a name with a-z, 0-9 and single hyphens; it is never empty.
func slug(name string) string {
	var b strings.Builder
	hyphen := false
	for _, c := range strings.ToLower(name) {
		c = plain(c)
		if c < 'a' || c > 'z' {
			if c < '0' || c > '9' {
				hyphen = b.Len() > 0
				continue
			}
		}
		if b.Len() >= slugBytes || hyphen && b.Len() >= slugBytes-1 {
			break
		}
		if hyphen {
			b.WriteByte('-')
			hyphen = false
		}
		b.WriteRune(c)
	}
	if b.Len() == 0 {
		return "x"
	}
	return b.String()
}

// plain takes the marks off a Vietnamese letter.
func plain(c rune) rune {
	if c < 0x80 {
		return c
	}
	for _, letters := range [...]string{
		"aàáảãạăằắẳẵặâầấẩẫậ", "dđ", "eèéẻẽẹêềếểễệ", "iìíỉĩị", "oòóỏõọôồốổỗộơờớởỡợ", "uùúủũụưừứửữự", "yỳýỷỹỵ",
	} {
		if strings.ContainsRune(letters, c) {
			return rune(letters[0])
		}
	}
	return c
}
