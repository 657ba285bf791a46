package spool

import (
	"fmt"
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// sourcesHeader tells who delivered the records of a frame; see the package.
const sourcesHeader = "Haidang-Sources"

// maxSourcesBytes bounds the header. Of the records beyond it the source is not
// known any more.
const maxSourcesBytes = 8 << 10

// A run is so many records in a row of one source.
type run struct {
	source string
	n      int
}

func addRun(runs []run, source string, n int) []run {
	if last := len(runs) - 1; last >= 0 && runs[last].source == source {
		runs[last].n += n
		return runs
	}
	return append(runs, run{source, n})
}

// takeRuns moves the first n records of from to the end of to.
func takeRuns(to, from []run, n int) (longer, rest []run) {
	for n > 0 && len(from) > 0 {
		k := min(n, from[0].n)
		to = addRun(to, from[0].source, k)
		n -= k
		if from[0].n -= k; from[0].n == 0 {
			from = from[1:]
		}
	}
	return to, from
}

// writeRuns writes the header: broker*12 modbus.line-1*3 #1*4, where #1 is the
// first name. "" when no source is known.
func writeRuns(runs []run) string {
	if len(runs) == 0 || len(runs) == 1 && !telemetry.ValidName(runs[0].source) {
		return ""
	}
	var b strings.Builder
	numbers := map[string]int{}
	for i, r := range runs {
		word := ""
		if k := numbers[r.source]; k > 0 {
			word = "#" + strconv.Itoa(k)
		} else if telemetry.ValidName(r.source) {
			word = r.source
			numbers[r.source] = len(numbers) + 1
		}
		word += "*" + strconv.Itoa(r.n)
		if b.Len()+1+len(word) > maxSourcesBytes {
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
	}
	return b.String()
}

// nameSources sets the sources of a frame's readings from its header.
func nameSources(readings []telemetry.Reading, header string) error {
	var names []string
	for word := range strings.SplitSeq(header, " ") {
		name, count, ok := strings.Cut(word, "*")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 0 || n > len(readings) {
			return fmt.Errorf("header %s: %q is not like \"broker*12\", with as many records as the frame has", sourcesHeader, word)
		}
		if number, is := strings.CutPrefix(name, "#"); is {
			k, err := strconv.Atoi(number)
			if err != nil || k < 1 || k > len(names) {
				return fmt.Errorf("header %s: %q names none of the %d sources before it", sourcesHeader, word, len(names))
			}
			name = names[k-1]
		} else if name != "" {
			names = append(names, name)
		}
		for i := range n {
			readings[i].Source = name
		}
		readings = readings[n:]
	}
	return nil
}
