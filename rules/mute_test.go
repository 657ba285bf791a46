package rules

import (
	"testing"
	"time"
)

// TestSchedule compares schedules with a plain reading of them, minute by minute
// over two weeks.
func TestSchedule(t *testing.T) {
	type plain struct {
		days     string
		from, to int
	}
	for name, test := range map[string]struct {
		mute []Mute
		want []plain
	}{
		"night":     {[]Mute{{From: "22:00", To: "06:00"}}, []plain{{"mon tue wed thu fri sat sun", 1320, 1800}}},
		"weekend":   {[]Mute{{Days: []string{"sat", "sun"}}}, []plain{{"sat sun", 0, 1440}}},
		"sun night": {[]Mute{{Days: []string{"sun"}, From: "23:30", To: "05:15"}}, []plain{{"sun", 1410, 1755}}},
		"two":       {[]Mute{{Days: []string{"fri"}, From: "12:00"}, {Days: []string{"sat"}, To: "00:01"}}, []plain{{"fri", 720, 1440}, {"sat", 0, 1}}},
		"same":      {[]Mute{{Days: []string{"wed"}, From: "08:00", To: "08:00"}}, []plain{{"wed", 480, 1920}}},
	} {
		c := &builder{}
		r := &rule{Rule: Rule{Mute: test.mute}}
		c.mute(r)
		if len(c.faults) > 0 {
			t.Fatalf("%s: %v", name, c.faults)
		}
		start := time.Date(2025, 10, 26, 17, 0, 0, 0, time.UTC) // Monday 00:00 in Vietnam
		holds := func(m int) bool {
			for _, p := range test.want {
				for day, word := range dayNames() {
					for week := -1; week < 3; week++ {
						from := (week*7+day)*1440 + p.from
						if contains(p.days, word) && from <= m && m < from+p.to-p.from {
							return true
						}
					}
				}
			}
			return false
		}
		for m := range 14 * 1440 {
			now := start.Add(time.Duration(m) * time.Minute).UnixNano()
			until, muted := r.mutes(now)
			if muted != holds(m) {
				t.Fatalf("%s at minute %d: muted %v", name, m, muted)
			}
			if muted && m%37 == 0 {
				end := m
				for holds(end) {
					end++
				}
				if until != start.Add(time.Duration(end)*time.Minute).UnixNano() {
					t.Fatalf("%s at minute %d: ends at %v, want minute %d", name, m, time.Unix(0, until), end)
				}
			}
		}
	}
}

func contains(days, day string) bool {
	for i := 0; i+3 <= len(days); i += 4 {
		if days[i:i+3] == day {
			return true
		}
	}
	return false
}
