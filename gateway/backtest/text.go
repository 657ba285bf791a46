package backtest

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"haidang/gateway/telemetry"
)

// vietnam is the zone in which times are shown; it has no summer time.
var vietnam = time.FixedZone("+07", 7*60*60)

// Write prints the report for people: a table by rule and device, and under it
// the warnings, at most listed of each row (0: all).
func (r *Report) Write(w io.Writer, listed int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %s (+07:00): %d readings of %s\n", minute(r.From), minute(r.To), r.Readings, plural(r.Devices, "device"))
	if len(r.Rows) == 0 {
		b.WriteString("no warning would have been raised\n")
	} else {
		b.WriteString("\n")
		r.table(&b)
	}
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "\n%s %s\n", row.Rule, row.Device)
		list(&b, row.Episodes, listed)
	}
	if len(r.Unheard) > 0 {
		fmt.Fprintf(&b, "\nno reading of %s; what silence raised for them is left out\n", strings.Join(r.Unheard, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "rule\tdevice\traised\tflaps\tin alarm\tlongest\tseverity")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", row.Rule, row.Device, row.Raised, row.Flaps, length(row.Minutes), length(row.Longest), row.Severity)
	}
	t.Flush()
}

func list(w io.Writer, episodes []*Episode, listed int) {
	for i, e := range episodes {
		if listed > 0 && i == listed {
			fmt.Fprintf(w, "  and %d more\n", len(episodes)-i)
			return
		}
		fmt.Fprintf(w, "  %s\n", e.line())
	}
}

// line tells an episode: when, how long, how grave, what the rule saw.
func (e *Episode) line() string {
	long := length(e.Minutes)
	if e.End == nil {
		long += " and on"
	}
	severity := e.Severity.String()
	if e.Shadow {
		severity += " (shadow)"
	}
	return strings.TrimRight(fmt.Sprintf("%s  %-14s  %-8s  %s", minute(e.Start), long, severity, strings.Join(numbers(e.Values), " ")), " ")
}

func numbers(values map[string]float64) []string {
	var words []string
	for name, v := range values {
		words = append(words, name+"="+strconv.FormatFloat(v, 'g', 6, 64))
	}
	slices.Sort(words)
	return words
}

// Write prints the comparison: what only one of both sets of rules raises.
func (c *Comparison) Write(w io.Writer, listed int) error {
	var b strings.Builder
	from := ""
	if c.Against != "" {
		from = ", " + c.Against
	}
	fmt.Fprintf(&b, "\nagainst the rules that are live now%s: %d the same, %d changed, %d only now, %d only new\n", from, c.Same, len(c.Changed), len(c.OnlyOld), len(c.OnlyNew))
	part := func(title string, n int, line func(i int) string) {
		if n == 0 {
			return
		}
		fmt.Fprintf(&b, "%s\n", title)
		for i := range n {
			if listed > 0 && i == listed {
				fmt.Fprintf(&b, "  and %d more\n", n-i)
				break
			}
			fmt.Fprintf(&b, "  %s\n", line(i))
		}
	}
	part("only with the rules that are live now:", len(c.OnlyOld), func(i int) string { return c.OnlyOld[i].named() })
	part("only with the new rules:", len(c.OnlyNew), func(i int) string { return c.OnlyNew[i].named() })
	part("changed:", len(c.Changed), func(i int) string {
		return c.Changed[i].New.named() + "\n    now: " + c.Changed[i].Old.line()
	})
	_, err := io.WriteString(w, b.String())
	return err
}

func (e *Episode) named() string { return fmt.Sprintf("%s %s  %s", e.Rule, e.Device, e.line()) }

func minute(t time.Time) string { return t.In(vietnam).Format("2006-01-02 15:04") }

// length writes minutes as 35s, 40m, 12h10m or 40h.
func length(minutes float64) string {
	d := time.Duration(minutes * float64(time.Minute))
	if d >= time.Minute {
		d = d.Round(time.Minute)
	} else {
		d = d.Round(time.Second)
	}
	s := telemetry.Duration(d).String()
	if d%(24*time.Hour) == 0 && d > 0 {
		s = fmt.Sprintf("%dh", d/time.Hour)
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
