package config

import (
	"strings"
	"testing"

	"haidang/gateway/telemetry"
)

// TestSpan looks at the letters that faults are placed under.
func TestSpan(t *testing.T) {
	const text = `data: x # a comment
facts:
  plain: levl_m >= 2 and mưa > 3
  single: 'it''s levl_m'
  double: "say \"levl_m\" now"
  folded: level_m > 1 and
      levl_m > 2
  literal: |
    level_m > 1 and
    levl_m > 2
  "a.b": &x [1, 2]
units: [{id: 300}]
wrong:
`
	doc, err := Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text, "\n")
	for _, c := range []struct {
		path, in string // from and to are those of levl_m in the value
		want     string
	}{
		{"facts.plain", "levl_m >= 2 and mưa > 3", "3 levl_m"},
		{"facts.single", "it's levl_m", "4 levl_m"},
		{"facts.double", `say "levl_m" now`, "5 levl_m"},
		{"facts.folded", "level_m > 1 and levl_m > 2", "7 levl_m"},
		{"facts.literal", "level_m > 1 and\nlevl_m > 2\n", "10 levl_m"},
		{"facts.plain", "", "3 levl_m >= 2 and mưa > 3"},
		{"units[0].id", "", "12 300"},
		{"units[0].profile", "", "12 {id: 300}]"},
		{"facts.none", "", "2 facts"},
		{"wrong", "", "13 wrong:"},
	} {
		f := telemetry.Faultf(c.path, "wrong")
		if at := strings.Index(c.in, "levl_m"); at >= 0 {
			f.From, f.To = len([]rune(c.in[:at])), len([]rune(c.in[:at]))+len("levl_m")
		}
		s := doc.Span(doc.Locate([]telemetry.Fault{f})[0])
		line := []rune(lines[s.Line-1])
		got := string(rune('0'+s.Line%10)) + " " + string(line[s.Column-1:min(len(line), s.EndColumn-1)])
		if s.Line >= 10 {
			got = "1" + got
		}
		if got != c.want || s.EndLine != s.Line {
			t.Errorf("%s: %q (%+v), want %q", c.path, got, s, c.want)
		}
	}
}

// TestSpanOfAnything wants places that are in the text, whatever it is.
func FuzzSpan(f *testing.F) {
	f.Add("facts: {a: \"\\u0041 x\"}\n", "facts.a", 1, 3)
	f.Add("facts:\n  a: >-\n\n    x\n     y\n", "facts.a", 0, 9)
	f.Fuzz(func(t *testing.T, text, path string, from, to int) {
		doc, err := Parse("x.yaml", []byte(text))
		if err != nil {
			return
		}
		if from < 0 || to <= from {
			from, to = 0, 0
		}
		s := doc.Span(doc.Locate([]telemetry.Fault{{Path: path, From: from, To: to}})[0])
		lines := len(strings.Split(text, "\n"))
		if s.Line < 1 || s.EndLine < s.Line || s.EndLine > lines+1 || s.Column < 1 || s.EndLine == s.Line && s.EndColumn < s.Column {
			t.Errorf("span %+v of %d lines", s, lines)
		}
	})
}
