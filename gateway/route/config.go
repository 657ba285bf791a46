package route

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Bounds of the configuration.
const (
	MaxRoutes = 1000

	minAfter = time.Second
	maxAfter = 7 * 24 * time.Hour
	minAgain = time.Minute
)

// Config is one route: which warnings, who is told, and what happens when nobody
// acknowledges.
type Config struct {
	Name  string `yaml:"name"`  // unique; kept in the log with what the route did
	Match Match  `yaml:"match"` // left out: every warning
	// To are recipients, besides those that the rule and other routes name.
	To []string `yaml:"to"`
	// Escalate are further recipients when nobody has acknowledged, in order.
	Escalate []Step `yaml:"escalate"`
	// Remind is how often To, and those escalated to, are told again until
	// somebody acknowledges. Default: never. At least 1m.
	Remind telemetry.Duration `yaml:"remind"`
	// Else is who is told instead when one of To cannot be reached.
	Else *Fallback `yaml:"else"`
}

// A Step is one escalation.
type Step struct {
	After  telemetry.Duration `yaml:"after"`  // since the warning became active; 1s to 7d
	Unless string             `yaml:"unless"` // acknowledged: the default and only word
	To     []string           `yaml:"to"`     // recipients that are told then
}

// A Fallback is who is told instead of a recipient that has not taken a warning.
type Fallback struct {
	After telemetry.Duration `yaml:"after"` // since the warning was written down; 1s to 7d
	To    []string           `yaml:"to"`    // recipients that are told then
}

// A Match is what a warning must be like. Each key that is there must hold; of a
// list, one entry. Patterns know * and ?.
type Match struct {
	Severity telemetry.Severity `yaml:"severity"` // at least this grave
	Kinds    []string           `yaml:"kinds"`    // patterns
	Rules    []string           `yaml:"rules"`    // patterns
	Devices  []string           `yaml:"devices"`  // patterns
	Sites    []string           `yaml:"sites"`    // patterns
	Owners   []string           `yaml:"owners"`   // patterns, of the device's owner
	Zones    []string           `yaml:"zones"`    // names of zones that the device lies in
	Facts    map[string]string  `yaml:"facts"`    // patterns, of facts of the device
	Days     []string           `yaml:"days"`     // mon to sun, at UTC+07:00
	// Hours is a time of day at UTC+07:00, as in 22:00-05:00; a range over midnight
	// belongs to the day on which it begins.
	Hours string `yaml:"hours"`
	// Exercise chooses the warnings of drills, or leaves them out. Default: both.
	Exercise *bool `yaml:"exercise"`
}

// Known is what routes may name.
type Known struct {
	Recipients, Kinds, Rules, Devices, Zones []string
}

// Validate reports what is wrong with the routes; paths begin with the index.
func Validate(routes []Config, known Known) []telemetry.Fault {
	var faults []telemetry.Fault
	if len(routes) > MaxRoutes {
		faults = append(faults, telemetry.Faultf("", "there are %d routes; expected at most %d", len(routes), MaxRoutes))
	}
	first := map[string]int{}
	for i := range routes {
		at := fmt.Sprintf("[%d]", i)
		r := &routes[i]
		faults = append(faults, telemetry.Under(at, r.validate(&known))...)
		if j, ok := first[r.Name]; ok && r.Name != "" {
			faults = append(faults, telemetry.Faultf(at+".name", "route %q is there twice, first as number %d", r.Name, j+1))
		} else {
			first[r.Name] = i
		}
	}
	return faults
}

func (r *Config) validate(known *Known) []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	recipients := func(path string, names []string) {
		for i, name := range names {
			if !slices.Contains(known.Recipients, name) {
				fault(fmt.Sprintf("%s[%d]", path, i), "there is no recipient %q under ioc; there are %s", name, orNone(known.Recipients))
			}
		}
	}
	if !telemetry.ValidName(r.Name) {
		fault("name", "route name %q is not a name of letters, digits and ._:- that begins with a letter or digit", r.Name)
	}
	if len(r.To) == 0 {
		fault("to", "route %q tells nobody; expected recipients", r.Name)
	}
	recipients("to", r.To)
	last := time.Duration(0)
	for i, s := range r.Escalate {
		at := fmt.Sprintf("escalate[%d]", i)
		if d := s.After.Std(); d < minAfter || d > maxAfter {
			fault(at+".after", "after %s is not in 1s..7d", s.After)
		} else if d < last {
			fault(at+".after", "after %s is before that of the step above", s.After)
		} else {
			last = d
		}
		if s.Unless != "" && s.Unless != "acknowledged" {
			fault(at+".unless", "unless %q is not acknowledged", s.Unless)
		}
		if len(s.To) == 0 {
			fault(at+".to", "nobody is told; expected recipients")
		}
		recipients(at+".to", s.To)
	}
	if d := r.Remind.Std(); d != 0 && (d < minAgain || d > maxAfter) {
		fault("remind", "remind %s is not in 1m..7d", r.Remind)
	}
	if e := r.Else; e != nil {
		if d := e.After.Std(); d < minAfter || d > maxAfter {
			fault("else.after", "after %s is not in 1s..7d", e.After)
		}
		if len(e.To) == 0 {
			fault("else.to", "nobody is told; expected recipients")
		}
		recipients("else.to", e.To)
	}
	return append(faults, telemetry.Under("match", r.Match.validate(known))...)
}

func (m *Match) validate(known *Known) []telemetry.Fault {
	var faults []telemetry.Fault
	for _, l := range []struct {
		key      string
		patterns []string
		names    []string // nil: not known here
	}{
		{"kinds", m.Kinds, known.Kinds}, {"rules", m.Rules, known.Rules}, {"devices", m.Devices, nil}, // vessels are not registered
		{"sites", m.Sites, nil}, {"owners", m.Owners, nil}, {"zones", m.Zones, known.Zones},
	} {
		for i, p := range l.patterns {
			at := fmt.Sprintf("%s[%d]", l.key, i)
			if _, err := path.Match(p, ""); err != nil || p == "" {
				faults = append(faults, telemetry.Faultf(at, "pattern %q cannot be read; expected a name, with * and ? for any letters", p))
			} else if l.names != nil && !slices.ContainsFunc(l.names, func(name string) bool { return like(p, name) }) {
				faults = append(faults, telemetry.Faultf(at, "%q is none of %s", p, orNone(l.names)))
			}
		}
	}
	for name, p := range m.Facts {
		if _, err := path.Match(p, ""); err != nil {
			faults = append(faults, telemetry.Faultf("facts."+name, "pattern %q cannot be read", p))
		}
	}
	for i, day := range m.Days {
		if !slices.Contains(dayNames(), day) {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("days[%d]", i), "day %q is not one of %s", day, strings.Join(dayNames(), " ")))
		}
	}
	if _, _, ok := hours(m.Hours); !ok {
		faults = append(faults, telemetry.Faultf("hours", "hours %q is not like 22:00-05:00", m.Hours))
	}
	return faults
}

// orNone lists names, the first of them when there are many.
func orNone(names []string) string {
	const shown = 20
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > shown:
		return strings.Join(names[:shown], ", ") + fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return strings.Join(names, ", ")
}

func dayNames() []string { return []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} } // as time.Weekday

// hours reads a range of minutes of the day; to is after from. "" is all day.
func hours(text string) (from, to int, ok bool) {
	if text == "" {
		return 0, dayMinutes, true
	}
	first, second, ok := strings.Cut(text, "-")
	from, begins := minuteOf(first)
	to, ends := minuteOf(second)
	if !ok || !begins || !ends || from == to || from == dayMinutes {
		return 0, 0, false
	}
	if to < from {
		to += dayMinutes
	}
	return from, to, true
}

// minuteOf reads a time of day, 00:00 to 24:00.
func minuteOf(text string) (minute int, ok bool) {
	if text == "24:00" {
		return dayMinutes, true
	}
	at, err := time.Parse("15:04", text)
	return at.Hour()*60 + at.Minute(), err == nil
}

const dayMinutes = 24 * 60

// like reports whether a name fits a pattern.
func like(pattern, name string) bool {
	ok, err := path.Match(pattern, strings.ReplaceAll(name, "/", "_")) // a slash is a letter like others
	return ok && err == nil || pattern == name
}
