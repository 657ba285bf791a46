package influx

import (
	"bytes"
	"strings"
)

// A line is one line of line protocol and its place in the batch.
type line struct {
	index int // of the lines that are not empty, from 0
	text  []byte
}

// splitLines cuts line protocol into its lines as InfluxDB does: a newline
// inside the quotes of a string field does not end a line. Lines whose
// measurement begins with "_" are records of the log itself; they are counted
// and left out.
func splitLines(text []byte) []line {
	lines := make([]line, 0, bytes.Count(text, []byte{'\n'})+1)
	for index := 0; len(text) > 0; {
		n := lineEnd(text)
		l := text[:n]
		text = text[min(n+1, len(text)):]
		inked := bytes.TrimLeft(l, " \t\r\x00")
		if len(inked) == 0 {
			continue
		}
		if inked[0] != '_' {
			lines = append(lines, line{index, l})
		}
		index++
	}
	return lines
}

// lineEnd returns the length of the first line of text, without its newline.
func lineEnd(text []byte) int {
	n := bytes.IndexByte(text, '\n')
	if n < 0 {
		n = len(text)
	}
	if bytes.IndexByte(text[:n], '"') < 0 && bytes.IndexByte(text[:n], '\\') < 0 {
		return n
	}
	return markedLineEnd(text)
}

// markedLineEnd is lineEnd for a line with quotes or backslashes. A quote has a
// meaning only in the field set, where a value begins: after an = that no comma
// follows. A backslash takes the next byte with it, a newline too.
func markedLineEnd(text []byte) int {
	fields, quoted := false, false
	equals, commas := 0, 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c > '=' && c != '\\' || c >= '-' && c < '=' { // most bytes mean nothing here
			continue
		}
		switch {
		case c == '\\' && i+2 < len(text):
			i++
		case c == '\n' && !quoted:
			return i
		case c == ' ':
			fields = true
		case !fields:
		case c == '=' && !quoted:
			equals++
		case c == ',' && !quoted:
			commas++
		case c == '"' && equals > commas:
			quoted = !quoted
		}
	}
	return len(text)
}

// join puts the lines together for one request.
func join(lines []line) string {
	size := 0
	for _, l := range lines {
		size += len(l.text) + 1
	}
	var b strings.Builder
	b.Grow(size)
	for _, l := range lines {
		b.Write(l.text)
		b.WriteByte('\n')
	}
	return b.String()
}
