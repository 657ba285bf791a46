package demo

import (
	"fmt"
	"math"
	"strings"
)

const (
	barMaxM     = 5.5 // the right end of the bar, metres
	barMinCells = 8
	barMaxCells = 30
)

// alarmNames are the levels of Decision 05/2020/QD-TTg.
var alarmNames = [...]string{"below alarm I", "above alarm I", "above alarm II", "above alarm III"}

// alarmStyles paint the water below and above the alarm levels.
var alarmStyles = [...]style{green, yellow, orange, alarmRed}

// statusLine fits the numbers and the bar into the terminal's width; what has no
// room is left out from the right.
func (v *View) statusLine() string {
	t, s := v.terminal, v.last
	room := t.columns() - 1 // some terminals wrap when the last column is written
	pieces := []string{
		fmt.Sprintf("%s readings, %.0f/s", thousands(s.ReadingsTotal), v.rate),
		plural(uint64(max(0, s.ActiveWarnings)), "warning", "warnings"),
	}
	if s.LevelM != nil {
		pieces = append(pieces, fmt.Sprintf("Kim Long %.2f m", *s.LevelM))
	}
	line, width := "", 0
	add := func(text string, painted string) bool {
		if w := cells(text); width+w+2 <= room {
			line += "  " + painted
			width += w + 2
			return true
		}
		return false
	}
	fits := true
	for _, p := range pieces {
		fits = fits && add(p, p)
	}
	boats := plural(uint64(max(0, s.BoatsHeard)), "boat", "boats")
	if s.LevelM != nil {
		bar := min(barMaxCells, room-width-2-(cells(boats)+2))
		if fits && bar >= barMinCells {
			add(strings.Repeat(" ", bar), v.bar(*s.LevelM, bar))
		}
	}
	if fits {
		add(boats, boats)
	}
	return line
}

// bar draws the water level against the alarm levels, which stand as lines.
func (v *View) bar(levelM float64, width int) string {
	inner := width - 2
	alarms := v.alarmsM()
	water := alarmStyles[above(levelM, alarms)]
	filled := int(math.Round(math.Min(1, math.Max(0, levelM/barMaxM)) * float64(inner)))
	bar := []rune(strings.Repeat("█", filled) + strings.Repeat("·", inner-filled))
	// The line of a level goes under when the water reaches it, not when the
	// rounded bar does.
	for _, a := range alarms {
		i := int(math.Min(a, barMaxM) / barMaxM * float64(inner))
		switch {
		case i >= inner:
		case levelM < a:
			bar[i] = '|'
		default:
			bar[i] = '█'
		}
	}
	return "[" + v.terminal.paintRuns(bar, map[rune]style{'█': water, '·': dim}) + "]"
}

// plainStatus is the status in words, for a place without a status line.
func (v *View) plainStatus() string {
	s := v.last
	text := fmt.Sprintf("%s readings, %.0f/s; %s active; %s heard", thousands(s.ReadingsTotal), v.rate,
		plural(uint64(max(0, s.ActiveWarnings)), "warning", "warnings"),
		plural(uint64(max(0, s.BoatsHeard)), "boat", "boats"))
	if s.LevelM != nil {
		text += fmt.Sprintf("; Kim Long %.2f m, %s", *s.LevelM, alarmNames[above(*s.LevelM, v.alarmsM())])
	}
	return text
}

// alarmsM returns the alarm levels I, II and III of Kim Long in metres.
func (v *View) alarmsM() [3]float64 {
	var alarms [3]float64
	d := v.devices[kimLong]
	for i := range alarms {
		fact, ok := d.Fact(fmt.Sprintf("alarm%d_m", i+1))
		level, isNumber := fact.(float64)
		if !ok || !isNumber {
			level = math.Inf(1)
		}
		alarms[i] = level
	}
	return alarms
}

// above returns how many of the alarm levels the water has reached.
func above(levelM float64, alarms [3]float64) int {
	n := 0
	for _, a := range alarms {
		if levelM >= a {
			n++
		}
	}
	return n
}
