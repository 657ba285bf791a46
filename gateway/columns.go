package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// columns are rows of text that are written as a table. text/tabwriter counts
// letters; a terminal gives a combining mark no cell and an ideograph two.
type columns struct{ rows [][]string }

func (c *columns) add(cells ...string) { c.rows = append(c.rows, cells) }

// write writes the rows, the columns two spaces apart.
func (c *columns) write(out io.Writer) error {
	widths := c.widths()
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

func (c *columns) widths() (widths []int) {
	for _, row := range c.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], widthOf(cell))
		}
	}
	return widths
}

// writeWithin writes the rows for a terminal that is so many cells wide, 0 for
// none. Where the table is wider, its last column, the one of sentences, stands
// below each row.
func (c *columns) writeWithin(out io.Writer, width int) error {
	const indent = 4
	widths := c.widths()
	whole := 2 * (len(widths) - 1)
	for _, w := range widths {
		whole += w
	}
	if width <= 2*indent || whole <= width {
		return c.write(out)
	}
	var rows columns
	for _, row := range c.rows {
		rows.add(row[:min(len(row), len(widths)-1)]...)
	}
	var b strings.Builder
	if err := rows.write(&b); err != nil {
		return err
	}
	lines := strings.SplitAfter(b.String(), "\n")
	b.Reset()
	for i, row := range c.rows {
		b.WriteString(lines[i])
		if i == 0 || len(row) < len(widths) {
			continue // the heading of what stands below needs none
		}
		for _, line := range wrapped(row[len(row)-1], width-indent) {
			fmt.Fprintf(&b, "%*s%s\n", indent, "", line)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// wrapped cuts text into lines of at most so many cells, between words; a word
// that is longer is cut.
func wrapped(text string, most int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		word = clipped(word, most)
		switch {
		case line == "":
			line = word
		case widthOf(line)+1+widthOf(word) <= most:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// terminalSize returns the cells of the terminal that out is, 0 where it is none.
func terminalSize(out io.Writer) (width, height int) {
	file, ok := out.(*os.File)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// firstLines keeps the beginning of a text, and its last line, within so many
// lines, 0 for any number.
func firstLines(text string, most int) string {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	if most < 3 || len(lines) <= most {
		return text
	}
	left := len(lines) - most + 1
	return strings.Join(lines[:most-2], "") + fmt.Sprintf("… %s\n", tally(left, "line more", "lines more")) + lines[len(lines)-1] + "\n"
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
