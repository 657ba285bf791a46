package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// columns are rows of text that are written as a table. text/tabwriter counts
// letters; a terminal gives a combining mark no cell and an ideograph two.
type columns struct{ rows [][]string }

func (c *columns) add(cells ...string) { c.rows = append(c.rows, cells) }

// write writes the rows, the columns two spaces apart.
func (c *columns) write(out io.Writer) error {
	var widths []int
	for _, row := range c.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], widthOf(cell))
		}
	}
	var b strings.Builder
	for _, row := range c.rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-widthOf(cell)+2))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// widthOf is how many cells of a terminal the text takes.
func widthOf(text string) int {
	n := 0
	for _, r := range text {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana),
			r >= 0xFF01 && r <= 0xFF60,   // fullwidth forms
			r >= 0x1F300 && r <= 0x1FAFF: // pictures
			n += 2
		default:
			n++
		}
	}
	return n
}

// clipped cuts text to so many cells, and takes out what would move the cursor.
func clipped(text string, most int) string {
	text = plain(text)
	if widthOf(text) <= most {
		return text
	}
	var b strings.Builder
	left := most - 1
	for _, r := range text {
		if left -= widthOf(string(r)); left < 0 {
			break
		}
		b.WriteRune(r)
	}
	return b.String() + "…"
}

// plain makes one line of text that a terminal only shows: devices choose some
// of what is written there.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case !unicode.IsPrint(r) && !unicode.In(r, unicode.Mn, unicode.Me):
			return '?'
		}
		return r
	}, text)
}

// tally writes how many there are of something.
func tally(n int, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", one)
	}
	return fmt.Sprintf("%d %s", n, many)
}
