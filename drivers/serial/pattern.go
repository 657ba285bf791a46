package serial

import (
	"bytes"
	"regexp"
	"strconv"
	"time"

	"haidang/gateway/telemetry"
)

// maxColumns bounds the columns of a line that are looked at.
const maxColumns = 256

// pattern reads lines by a regular expression with named groups, or by columns.
type pattern struct {
	match     *regexp.Regexp // nil: columns
	groups    []int          // of each field
	separator []byte
	columns   []int // of each field, from 0
	fields    []field
}

func newPattern(c *Config) *pattern {
	p := &pattern{fields: newFields(c.Values), separator: []byte(c.Separator)}
	if c.Match != "" {
		p.match = regexp.MustCompile(c.Match) // it is valid
	}
	for _, f := range p.fields {
		if p.match != nil {
			p.groups = append(p.groups, p.match.SubexpIndex(f.from))
			continue
		}
		column, _ := strconv.Atoi(f.from) // it is valid
		p.columns = append(p.columns, column-1)
	}
	return p
}

func (p *pattern) decode(line []byte, _ time.Time, out sink) verdict {
	line = bytes.Trim(line, "\x00 \t\r\n")
	if p.match != nil {
		return p.byGroups(line, out)
	}
	return p.byColumns(line, out)
}

func (p *pattern) byGroups(line []byte, out sink) verdict {
	found := p.match.FindSubmatchIndex(line)
	if found == nil {
		return malformed
	}
	for i := range p.fields {
		from, to := found[2*p.groups[i]], found[2*p.groups[i]+1]
		if from < 0 {
			continue // a group that is optional
		}
		take(&p.fields[i], string(line[from:to]), out)
	}
	return used
}

func (p *pattern) byColumns(line []byte, out sink) verdict {
	var columns [][]byte
	if len(bytes.TrimSpace(p.separator)) == 0 && len(p.separator) == 1 {
		columns = bytes.Fields(line) // several blanks are one
	} else {
		columns = bytes.SplitN(line, p.separator, maxColumns+1)
	}
	whole := 0
	for i := range p.fields {
		if p.columns[i] >= len(columns) {
			out.lost(lostMissing)
			continue
		}
		text := string(bytes.TrimSpace(columns[p.columns[i]]))
		if take(&p.fields[i], text, out) {
			whole++
		}
	}
	if whole == 0 {
		return malformed
	}
	return used
}

// take gives the number in text, and reports whether there was one or a text
// that says that there is none.
func take(f *field, text string, out sink) bool {
	if f.absent(text) {
		return true
	}
	number, ok := parseNumber(text)
	if !ok {
		out.lost(lostField)
		return false
	}
	out.value(f.kind, telemetry.Value{Name: f.name, Number: f.fixed.of(number)})
	return true
}
