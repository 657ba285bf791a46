package demo

import (
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"

	"haidang/gateway/telemetry"
)

// defaultColumns is the width where nothing tells it.
const defaultColumns = 80

// A Terminal says what the place where the View writes can show.
type Terminal struct {
	// Live: a status line can be refreshed in place.
	Live bool
	// Colour: ANSI colours may be used.
	Colour bool
	// Columns returns the width in cells; nil: 80, or unlimited when not Live.
	Columns func() int
}

// TerminalOf tells what a file can show: nothing but plain lines unless it is a
// terminal, no colour when the environment has NO_COLOR (no-color.org) or TERM
// is dumb.
func TerminalOf(file *os.File) Terminal {
	fd := int(file.Fd())
	if !term.IsTerminal(fd) || os.Getenv("TERM") == "dumb" {
		return Terminal{}
	}
	return Terminal{
		Live:   true,
		Colour: os.Getenv("NO_COLOR") == "",
		Columns: func() int {
			width, _, err := term.GetSize(fd)
			if err != nil || width < 1 {
				return defaultColumns
			}
			return width
		},
	}
}

func (t Terminal) columns() int {
	if t.Columns == nil {
		return defaultColumns
	}
	return t.Columns()
}

// A style is an ANSI SGR sequence (ECMA-48, 8.3.117).
type style string

const (
	plain     style = ""
	bold      style = "\x1b[1m"
	dim       style = "\x1b[2m"
	green     style = "\x1b[32m"
	yellow    style = "\x1b[33m"
	orange    style = "\x1b[38;5;208m"
	cyan      style = "\x1b[36m"
	alarmRed  style = "\x1b[1;31m"
	styleEnd        = "\x1b[0m"
	clearLine       = "\r\x1b[K"
)

// paint returns text in a style where the terminal has colours.
func (t Terminal) paint(s style, text string) string {
	if !t.Colour || s == plain || text == "" {
		return text
	}
	return string(s) + text + styleEnd
}

// paintRuns paints runs of equal cells, each in the style of its rune.
func (t Terminal) paintRuns(text []rune, styles map[rune]style) string {
	out := ""
	for len(text) > 0 {
		n := 1
		for n < len(text) && text[n] == text[0] {
			n++
		}
		out += t.paint(styles[text[0]], string(text[:n]))
		text = text[n:]
	}
	return out
}

// severityStyles are indexed by telemetry.Severity.
var severityStyles = [...]style{plain, cyan, yellow, orange, alarmRed}

func severityStyle(s telemetry.Severity) style {
	if int(s) < len(severityStyles) {
		return severityStyles[s]
	}
	return plain
}

// cells returns how many cells of a terminal the text takes. A letter with
// diacritics is one cell, composed or not.
func cells(text string) int {
	n := 0
	for _, c := range text {
		if !unicode.In(c, unicode.Mn, unicode.Me, unicode.Cf) {
			n++
		}
	}
	return n
}

// pad fills the text with spaces to a width in cells.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-cells(text)))
}

// wrap breaks the text at spaces into lines of at most width cells; a word that
// is longer has a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case cells(line)+1+cells(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// printable replaces control characters, so that a message cannot move the
// cursor.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, text)
}
