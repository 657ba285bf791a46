package rules

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/expr-lang/expr/file"

	"haidang/gateway/telemetry"
)

// locate notes which letters of an expression an error is about: from where expr
// places it to the end of the name or number that stands there.
func locate(f *telemetry.Fault, source string, err error) {
	located, ok := errors.AsType[*file.Error](err)
	letters := []rune(source)
	if !ok || located.Line == 0 || len(letters) == 0 {
		return
	}
	// Line and column: the parser's own errors have no range.
	from := located.Column
	for line, rest := 1, source; line < located.Line; line++ {
		before, after, _ := strings.Cut(rest, "\n")
		from += utf8.RuneCountInString(before) + 1
		rest = after
	}
	from = min(from, len(letters)-1) // what is missing is missing after the last letter
	to := max(located.To, from+1)
	if located.From != from || to > len(letters) {
		to = from + 1
	}
	for ; to < len(letters) && named(letters[to-1]) && named(letters[to]); to++ {
	}
	f.From, f.To = from, to
}

func named(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// shift makes the letters of an expression those of the message in which it
// stands: before is the message up to its opening brace, rest what follows.
func shift(f *telemetry.Fault, before, rest string) {
	if f.To == 0 {
		return
	}
	spaces := rest[:len(rest)-len(strings.TrimLeftFunc(rest, unicode.IsSpace))]
	at := utf8.RuneCountInString(before) + utf8.RuneCountInString(spaces)
	f.From, f.To = f.From+at, f.To+at
}
