package route

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// zone is Asia/Ho_Chi_Minh, which has had no summer time since 1975.
func zone() *time.Location { return time.FixedZone("+07", 7*3600) }

// matches reports whether a warning is one of those that m describes, at a time;
// why tells each condition, the first that fails last.
func (t *Table) matches(m *Match, w *telemetry.Warning, at time.Time) (ok bool, why []string) {
	look := func(holds bool, format string, args ...any) bool {
		text := fmt.Sprintf(format, args...)
		if !holds {
			text = "no: " + text
		}
		why = append(why, text)
		return holds
	}
	if m.Severity > 0 && !look(w.Severity >= m.Severity, "severity %s, at least %s", w.Severity, m.Severity) {
		return false, why
	}
	if m.Exercise != nil && !look(w.Exercise == *m.Exercise, "exercise %v, of %v", w.Exercise, *m.Exercise) {
		return false, why
	}
	device := t.places.Device(w.Device)
	owner := ""
	if device != nil {
		owner = device.Owner
	}
	for _, l := range []struct {
		what, is string
		patterns []string
	}{
		{"kind", w.Kind, m.Kinds}, {"rule", w.Rule, m.Rules}, {"device", w.Device, m.Devices}, {"site", w.Site, m.Sites}, {"owner", owner, m.Owners},
	} {
		if len(l.patterns) == 0 {
			continue
		}
		fits := slices.ContainsFunc(l.patterns, func(p string) bool { return like(p, l.is) })
		if !look(fits, "%s %q, of %s", l.what, l.is, strings.Join(l.patterns, ", ")) {
			return false, why
		}
	}
	if !t.fits(m, device, look) || !inTime(m, at, look) {
		return false, why
	}
	if len(why) == 0 {
		why = []string{"it is for every warning"}
	}
	return true, why
}

// fits looks at what a match asks of the device.
func (t *Table) fits(m *Match, device *telemetry.Device, look func(bool, string, ...any) bool) bool {
	names := make([]string, 0, len(m.Facts))
	for name := range m.Facts {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		is := ""
		if device != nil {
			if fact, ok := device.Fact(name); ok {
				is = word(fact)
			}
		}
		if !look(like(m.Facts[name], is), "fact %s is %q, of %s", name, is, m.Facts[name]) {
			return false
		}
	}
	if len(m.Zones) == 0 {
		return true
	}
	if device == nil || device.Lat == nil || device.Lon == nil {
		return look(false, "the place of the device is not known, in zone %s", strings.Join(m.Zones, ", "))
	}
	for _, name := range m.Zones {
		if t.places.Inside(name, *device.Lat, *device.Lon) {
			return look(true, "in zone %s", name)
		}
	}
	return look(false, "in zone %s", strings.Join(m.Zones, ", "))
}

// word writes a fact as routes match it.
func word(fact any) string {
	if number, ok := fact.(float64); ok {
		return strconv.FormatFloat(number, 'g', -1, 64)
	}
	return fmt.Sprint(fact)
}

// inTime looks at the time of the week.
func inTime(m *Match, at time.Time, look func(bool, string, ...any) bool) bool {
	if m.Hours == "" && len(m.Days) == 0 {
		return true
	}
	local := at.In(zone())
	from, to, _ := hours(m.Hours)
	minute := local.Hour()*60 + local.Minute()
	onDay := func(day time.Weekday) bool {
		return len(m.Days) == 0 || slices.Contains(m.Days, dayNames()[day])
	}
	yesterday := (local.Weekday() + 6) % 7
	holds := onDay(local.Weekday()) && minute >= from && minute < to || onDay(yesterday) && minute+dayMinutes < to
	days, times := strings.Join(m.Days, " "), m.Hours
	return look(holds, "%s %s, in %s", dayNames()[local.Weekday()], local.Format("15:04"), strings.TrimSpace(days+" "+times))
}
