package scenario

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A Difference is one thing that is not as expected.
type Difference struct {
	At     time.Time
	Expect int    // index of the expectation, or -1
	Event  int    // index of an event that failed, when Expect is -1 and Want is not empty
	Never  int    // index+1 of the line of never that was broken
	Want   string // "" when nothing was expected
	Got    string
}

func sortDifferences(list []Difference) {
	slices.SortStableFunc(list, func(a, b Difference) int { return a.At.Compare(b.At) })
}

// A match joins expectations and transitions one to one.
type match struct {
	start time.Time
	want  []Expectation
	got   []telemetry.Transition
	wants []int // by expectation: the transition, or -1
	gots  []int // by transition: the expectation, or -1
}

// pair joins each expectation that is alone with the first transition that is
// alone and alike.
func (m *match) pair(alike func(x *Expectation, t *telemetry.Transition) bool) {
	for i := range m.want {
		if m.wants[i] >= 0 {
			continue
		}
		for j := range m.got {
			if m.gots[j] < 0 && alike(&m.want[i], &m.got[j]) {
				m.wants[i], m.gots[j] = j, i
				break
			}
		}
	}
}

// compare returns what is not as the scenario expects.
func compare(s *Scenario, c *course, g *Ground, got []telemetry.Transition) []Difference {
	m := &match{start: c.start, want: s.Expect, got: got}
	m.wants, m.gots = slices.Repeat([]int{-1}, len(s.Expect)), slices.Repeat([]int{-1}, len(got))
	about := func(x *Expectation, t *telemetry.Transition) bool { return x.Rule == t.Rule && x.Device == t.Device }
	then := func(x *Expectation, t *telemetry.Transition) bool { return x.At.From(c.start).Equal(t.At) }
	m.pair(func(x *Expectation, t *telemetry.Transition) bool {
		return about(x, t) && then(x, t) && len(unlike(x, t)) == 0
	})
	m.pair(func(x *Expectation, t *telemetry.Transition) bool { return about(x, t) && then(x, t) })
	if !s.Partial { // of those that may happen besides none is meant
		m.pair(func(x *Expectation, t *telemetry.Transition) bool {
			return about(x, t) && x.state() == t.State && (x.Severity == 0 || x.Severity == t.Severity)
		})
	}
	var out []Difference
	for i := range s.Expect {
		if d, ok := m.expectation(i, c, g); ok {
			out = append(out, d)
		}
	}
	for j := range got {
		t := &got[j]
		if n := slices.IndexFunc(s.Never, func(n Never) bool { return n.is(t) }); n >= 0 && m.gots[j] < 0 {
			out = append(out, Difference{At: t.At, Expect: -1, Never: n + 1, Got: tell(t)})
		} else if m.gots[j] < 0 && !s.Partial {
			out = append(out, Difference{At: t.At, Expect: -1, Got: tell(t)})
		}
	}
	return out
}

// expectation returns what is wrong with expectation i.
func (m *match) expectation(i int, c *course, g *Ground) (Difference, bool) {
	x := &m.want[i]
	at := x.At.From(m.start)
	d := Difference{At: at, Expect: i, Want: x.tell()}
	if m.wants[i] < 0 {
		d.Got = "nothing" + c.seen(at, x.Device, g.On[x.Rule])
		return d, true
	}
	t := &m.got[m.wants[i]]
	wrong := unlike(x, t)
	if !at.Equal(t.At) {
		wrong = append([]string{distance(t.At.Sub(at))}, wrong...)
	}
	if len(wrong) == 0 {
		return d, false
	}
	d.Got = tell(t) + " (" + strings.Join(wrong, "; ") + ")"
	return d, true
}

func distance(d time.Duration) string {
	if d > 0 {
		return telemetry.Duration(d).String() + " later"
	}
	return telemetry.Duration(-d).String() + " earlier"
}

// unlike names what of a transition is not as expected, its time apart.
func unlike(x *Expectation, t *telemetry.Transition) []string {
	var wrong []string
	if x.state() != t.State {
		wrong = append(wrong, "state "+string(t.State))
	}
	if x.Severity != telemetry.NoSeverity && x.Severity != t.Severity {
		wrong = append(wrong, "severity "+t.Severity.String())
	}
	for _, name := range sortedKeys(x.Values) {
		v, ok := t.Values[name]
		switch {
		case !ok:
			wrong = append(wrong, "the rule names no "+name)
		case !near(x.Values[name], v):
			wrong = append(wrong, name+" is "+number(v))
		}
	}
	switch {
	case x.Threshold == nil:
	case t.Threshold == nil:
		wrong = append(wrong, "no threshold")
	case !near(*x.Threshold, *t.Threshold):
		wrong = append(wrong, "threshold is "+number(*t.Threshold))
	}
	if x.Shadow != nil && *x.Shadow != t.Shadow {
		wrong = append(wrong, fmt.Sprintf("shadow is %t", t.Shadow))
	}
	if !strings.Contains(t.Message.VI, x.Message) && !strings.Contains(t.Message.EN, x.Message) {
		wrong = append(wrong, fmt.Sprintf("the message is %q", t.Message.EN))
	}
	return wrong
}

// near compares as people who write three decimals do.
func near(want, got float64) bool {
	return math.Abs(want-got) <= 1e-6*max(1, math.Abs(want))
}

func (n Never) is(t *telemetry.Transition) bool {
	return (n.Rule == "" || n.Rule == t.Rule) && (n.Device == "" || n.Device == t.Device) &&
		(n.State == "" || n.State == t.State) && (n.Severity == telemetry.NoSeverity || n.Severity == t.Severity)
}

func (x *Expectation) tell() string {
	words := []string{x.Rule, x.Device, string(x.state())}
	if x.Severity != telemetry.NoSeverity {
		words = append(words, x.Severity.String())
	}
	words = append(words, numbers(x.Values, x.Threshold)...)
	if x.Message != "" {
		words = append(words, strconv.Quote(x.Message))
	}
	return strings.Join(words, " ")
}

// tell writes a transition in one line: rule, device, state, severity, the
// values that the rule saw and the message.
func tell(t *telemetry.Transition) string {
	words := []string{t.Rule, t.Device, string(t.State), t.Severity.String()}
	for _, is := range []struct {
		so   bool
		word string
	}{{t.Shadow, "(shadow)"}, {t.Flapping, "(flapping)"}} {
		if is.so {
			words = append(words, is.word)
		}
	}
	words = append(words, numbers(t.Values, t.Threshold)...)
	if t.Message.EN != "" {
		words = append(words, strconv.Quote(t.Message.EN))
	}
	return strings.Join(words, " ")
}

// Tell writes a transition in one line.
func Tell(t *telemetry.Transition) string { return tell(t) }

func numbers(values map[string]float64, threshold *float64) []string {
	var words []string
	for _, name := range sortedKeys(values) {
		words = append(words, name+"="+number(values[name]))
	}
	if threshold != nil {
		words = append(words, "threshold="+number(*threshold))
	}
	return words
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', 7, 64) }

// seen tells the newest reading of the device that the rule had at that time.
func (c *course) seen(at time.Time, device, kind string) string {
	for i := len(c.steps) - 1; i >= 0; i-- {
		st := &c.steps[i]
		r := st.reading
		if r == nil || st.at.After(at) || r.Device != device || kind != "" && r.Kind != kind {
			continue
		}
		words := []string{}
		for _, v := range r.Values {
			word := v.Name + "=" + number(v.Number)
			if v.Text != "" {
				word = fmt.Sprintf("%s=%q", v.Name, v.Text)
			}
			if v.Quality != telemetry.Good {
				word += " (" + v.Quality.String() + ")"
			}
			words = append(words, word)
		}
		late := ""
		if r.Delay > 0 {
			late = ", " + telemetry.Duration(r.Delay).String() + " late"
		}
		if r.Quality != telemetry.Good {
			late += ", quality " + r.Quality.String()
		}
		return fmt.Sprintf("; the last reading of %s was %s at %s%s: %s", device, r.Kind, Offset(c.start, st.at), late, strings.Join(words, " "))
	}
	what := "reading"
	if kind != "" {
		what = kind + " reading"
	}
	return fmt.Sprintf("; %s had sent no %s", device, what)
}

// Offset writes a time as authors write it: the offset from the start.
func Offset(start, at time.Time) string { return telemetry.Duration(at.Sub(start)).String() }
