package config

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A Span is a place in a document: lines and columns from 1, columns in letters
// (Unicode code points), EndColumn not included.
type Span struct {
	Line      int `json:"line"`
	Column    int `json:"column"`
	EndLine   int `json:"end_line"`
	EndColumn int `json:"end_column"`
}

// maxColumn is beyond the end of any line.
const maxColumn = 1 << 16

// Span returns the letters that a fault of this document is about: the word of an
// expression where the fault says which, else the key or the value that it names,
// else the line.
func (d *Document) Span(f Fault) Span {
	if d.text == "" { // it could not be parsed: the end of a line is not known
		return Span{max(f.Line, 1), 1, max(f.Line, 1), maxColumn}
	}
	lines := strings.Split(d.text, "\n")
	line := min(max(f.Line, 1), len(lines))
	span := Span{line, 1, line, utf8.RuneCountInString(lines[line-1]) + 1}
	n := f.node
	if n == nil || n.Line < 1 || n.Line > len(lines) {
		return indented(span, lines)
	}
	if n.Kind != yaml.ScalarNode {
		return Span{n.Line, n.Column, n.Line, max(n.Column+1, utf8.RuneCountInString(lines[n.Line-1])+1)}
	}
	places := letters(n, lines)
	if len(places) == 0 && n.Value == "" {
		return indented(span, lines)
	}
	if len(places) == 0 {
		return Span{n.Line, n.Column, n.Line, max(n.Column+1, utf8.RuneCountInString(lines[n.Line-1])+1)}
	}
	from, to := 0, len(places)
	if f.To > 0 && f.To <= len(places) {
		from, to = f.From, f.To
	}
	first, last := places[from], places[to-1]
	return Span{first.line, first.column, last.line, last.column + 1}
}

// indented lets a span begin with the first letter of its line.
func indented(s Span, lines []string) Span {
	text := []rune(lines[s.Line-1])
	for s.Column < len(text) && (unicode.IsSpace(text[s.Column-1]) || text[s.Column-1] == '-') {
		s.Column++
	}
	return s
}

type place struct{ line, column int }

// letters returns where each letter of a scalar's value stands in the file, nil
// when that cannot be said: a variable stood in it, or an escape that is more
// than one letter.
func letters(n *yaml.Node, lines []string) []place {
	at := place{n.Line, n.Column}
	block := n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
	switch {
	case block:
		at = place{n.Line + 1, 1}
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		at.column++
	}
	raw := func() (rune, bool) {
		if at.line > len(lines) {
			return 0, false
		}
		text := []rune(lines[at.line-1])
		if at.column > len(text) {
			return '\n', true
		}
		return text[at.column-1], true
	}
	step := func() {
		if r, _ := raw(); r == '\n' {
			at = place{at.line + 1, 1}
			return
		}
		at.column++
	}
	var out []place
	for _, want := range n.Value {
		if unicode.IsSpace(want) {
			out = append(out, at)
			if r, ok := raw(); ok && unicode.IsSpace(r) {
				step()
			}
			continue
		}
		for { // indentation and folds are spaces that the value does not have
			r, ok := raw()
			if !ok {
				return nil
			}
			if !unicode.IsSpace(r) {
				break
			}
			step()
		}
		r, _ := raw()
		quoted := n.Style&yaml.DoubleQuotedStyle != 0 && r == '\\' || n.Style&yaml.SingleQuotedStyle != 0 && r == '\''
		if quoted {
			step()
			r, _ = raw()
		}
		if r != want {
			return nil
		}
		out = append(out, at)
		step()
	}
	return out
}
