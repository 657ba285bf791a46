// Package vitals writes what a gateway knows of itself and of its devices as
// lines for InfluxDB, so that a dashboard needs nothing but the store:
//
//	haidang_gateway    throughput, memory, disk, warnings; one series
//	haidang_source     each source: whether it runs, how often it was started
//	haidang_follower   each follower of a log: how far it is behind
//	haidang_recipient  each recipient of warnings: what it accepted, what waits
//	haidang_set_aside  dead letters by reason
//	haidang_device     each registered device: where it is, how it is
//
// All have the tags device and site, which for all but haidang_device are the
// gateway's own name. Numbers are floats, words are fields that end in _text,
// times are counted in seconds and end in _s, and what is counted since the
// start of the gateway ends in _total.
//
// They are no readings: they go to the store alone and not through the log, so
// that rules, replays and backtests never see them, and a point that the store
// does not take is not sent again.
package vitals

import (
	"strconv"
	"strings"
	"time"
)

// Prefix begins the name of every measurement of this package.
const Prefix = "haidang_"

// The measurements.
const (
	Gateway   = Prefix + "gateway"
	Source    = Prefix + "source"
	Follower  = Prefix + "follower"
	Recipient = Prefix + "recipient"
	SetAside  = Prefix + "set_aside"
	Device    = Prefix + "device"
)

// A Measurement is what one of them holds.
type Measurement struct {
	Name   string
	Tags   []string // besides device and site
	Fields []string
}

// Measurements returns all of them. Lines with other fields are not written.
func Measurements() []Measurement {
	return []Measurement{
		{Gateway, nil, []string{"readings_total", "set_aside_total", "memory_bytes", "disk_free_bytes", "devices", "silent", "warnings", "uptime_s", "ready"}},
		{Source, []string{"source"}, []string{"running", "restarts_total"}},
		{Follower, []string{"log", "follower"}, []string{"lag_frames", "lag_s", "retries_total", "dropped_total"}},
		{Recipient, []string{"recipient"}, []string{"delivered_total", "failed_total", "waiting_s"}},
		{SetAside, []string{"reason"}, []string{"letters_total"}},
		{Device, nil, []string{"state", "silent", "severity", "heard_ago_s", "interval_s", "lat", "lon", "alarm1_m", "alarm2_m", "alarm3_m", "level_m", "alarm", "name_text", "owner_text", "problem_text"}},
	}
}

// States of a device, field state of haidang_device. A severity of a warning
// that is not cleared (1 minor to 4 extreme) stands above them.
const (
	Silent = -1 // it does not report, or its link is down
	Well   = 0
)

// Alarms are the facts of a river station that are written with it, from the
// lowest: its alarm levels I, II and III. Beside them stand level_m, its newest
// level, and alarm, how many of them that one has reached.
func Alarms() []string { return []string{"alarm1_m", "alarm2_m", "alarm3_m"} }

// A Line is one point. Tags and fields are written in the order in which they
// were added.
type Line struct {
	text   []byte
	fields int
}

// NewLine begins a point of a measurement. Empty tags are left out.
func NewLine(measurement, device, site string) *Line {
	l := &Line{text: append(make([]byte, 0, 256), measurement...)}
	return l.Tag("device", device).Tag("site", site)
}

// Tag adds a tag; it is called before the first field.
func (l *Line) Tag(name, value string) *Line {
	value = strings.TrimRight(clean(value), `\ `)
	if value == "" {
		return l
	}
	l.text = append(append(append(l.text, ','), name...), '=')
	for i := 0; i < len(value); i++ {
		if c := value[i]; c == ',' || c == '=' || c == ' ' {
			l.text = append(l.text, '\\')
		}
		l.text = append(l.text, value[i])
	}
	return l
}

// Number adds a field; what is not finite is left out.
func (l *Line) Number(name string, value float64) *Line {
	if value-value != 0 { // infinite or not a number
		return l
	}
	l.field(name)
	l.text = strconv.AppendFloat(l.text, value, 'f', -1, 64)
	return l
}

// Word adds a field that is a word; it is written as <name>_text.
func (l *Line) Word(name, value string) *Line {
	l.field(name + "_text")
	value = clean(value)
	l.text = append(l.text, '"')
	for i := 0; i < len(value); i++ {
		if c := value[i]; c == '"' || c == '\\' {
			l.text = append(l.text, '\\')
		}
		l.text = append(l.text, value[i])
	}
	l.text = append(l.text, '"')
	return l
}

// clean makes text of what may be a message of a device: without control
// characters, and without bytes that are no text.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func (l *Line) field(name string) {
	if l.fields++; l.fields == 1 {
		l.text = append(l.text, ' ')
	} else {
		l.text = append(l.text, ',')
	}
	l.text = append(append(l.text, name...), '=')
}

// AppendTo ends the line with its time and appends it to dst; without a field
// there is nothing to append.
func (l *Line) AppendTo(dst []byte, at time.Time) []byte {
	if l.fields == 0 {
		return dst
	}
	dst = append(append(dst, l.text...), ' ')
	return append(strconv.AppendInt(dst, at.UnixNano(), 10), '\n')
}
