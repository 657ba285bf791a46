package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A schedule is the times of the week at which a rule is muted.
type schedule []period

// A period begins on some days of the week; minutes are counted from midnight
// at UTC+07:00, and to is after from, on the next day beyond 24 h.
type period struct {
	days     [7]bool // Monday first
	from, to int64   // minutes
}

const (
	minute     = int64(time.Minute)
	dayMinutes = 24 * 60
)

func dayNames() []string { return []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"} }

// mute checks a rule's times and makes a schedule of them.
func (c *builder) mute(r *rule) {
	faults := len(c.faults)
	for i, m := range r.Mute {
		at := fmt.Sprintf("mute[%d]", i)
		p := period{to: dayMinutes}
		for j, name := range m.Days {
			n := slices.Index(dayNames(), name)
			if n < 0 {
				c.fault(fmt.Sprintf("%s.days[%d]", at, j), "day %q is not one of %s%s", name, strings.Join(dayNames(), " "), telemetry.DidYouMean(name, dayNames()))
				continue
			}
			p.days[n] = true
		}
		if len(m.Days) == 0 {
			p.days = [7]bool{true, true, true, true, true, true, true}
		}
		c.timeOfDay(at+".from", m.From, &p.from)
		c.timeOfDay(at+".to", m.To, &p.to)
		if p.to <= p.from {
			p.to += dayMinutes
		}
		r.schedule = append(r.schedule, p)
	}
	if len(c.faults) == faults && len(r.schedule) > 0 && r.schedule.end(0) == never {
		c.fault("mute", "the rule is muted for the whole week: write disabled: true, or shadow: true")
	}
}

func (c *builder) timeOfDay(path, text string, into *int64) {
	if text == "" {
		return
	}
	h, m, ok := strings.Cut(text, ":")
	hours, err1 := strconv.ParseUint(h, 10, 8)
	minutes, err2 := strconv.ParseUint(m, 10, 8)
	if !ok || err1 != nil || err2 != nil || len(m) != 2 || minutes > 59 || hours*60+minutes > dayMinutes {
		c.fault(path, "%q is not a time of the day such as \"22:00\"", text)
		return
	}
	*into = int64(hours*60 + minutes)
}

// until returns when the period that holds at now ends, and now when none does.
func (p *period) until(now int64) int64 {
	local := now + vietnam
	today := local / day
	if local%day < 0 {
		today--
	}
	weekday := int((today%7 + 7 + 3) % 7) // 1970-01-01 was a Thursday
	for _, since := range []int64{0, 1} {
		from, to := (today-since)*day+p.from*minute, (today-since)*day+p.to*minute
		if p.days[(weekday-int(since)+7)%7] && from <= local && local < to {
			return to - vietnam
		}
	}
	return now
}

// end returns when the schedule lets go of a rule: now when it is not muted,
// never when that does not happen within a week.
func (s schedule) end(now int64) int64 {
	t := now
	for again := true; again; {
		again = false
		for i := range s {
			if u := s[i].until(t); u > t {
				t, again = u, true
			}
		}
		if t-now > 8*day {
			return never
		}
	}
	return t
}

// mutes reports whether the rule is muted now, and until when.
func (r *rule) mutes(now int64) (until int64, muted bool) {
	if len(r.schedule) == 0 {
		return never, false
	}
	until = r.schedule.end(now)
	return until, until > now
}

func (c *builder) flap(r *rule) {
	r.flap = DefaultFlap()
	if r.Flap == nil {
		return
	}
	f := *r.Flap
	if f.Within == 0 {
		f.Within = r.flap.Within
	}
	if f.Quiet == 0 {
		f.Quiet = f.Within / 2
	}
	if f.Raises != 0 && (f.Raises < 2 || f.Raises > 100) {
		c.fault("flap.raises", "raises %d is not in 2..100, or 0 for never", f.Raises)
	}
	for _, d := range []struct {
		name string
		is   telemetry.Duration
	}{{"within", f.Within}, {"quiet", f.Quiet}} {
		if d.is.Std() < time.Second || d.is.Std() > MaxHold {
			c.fault("flap."+d.name, "%s %s is not in 1s..%s", d.name, d.is, telemetry.Duration(MaxHold))
		}
	}
	r.flap = f
}
