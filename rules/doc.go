// Package rules turns Readings into Warnings: rule files, the expressions in
// them, windows over the readings, and the engine that evaluates them.
//
// # Contract
//
// The engine's state is a function of the log. Evaluate is called with each
// frame of the readings log in order; it returns the transitions of warnings
// that the frame brought about. The same log gives the same transitions, ids
// and numbers, whatever the frame boundaries, however many ticks lie between,
// and wherever the engine was stopped, its Checkpoint restored, and the rest of
// the log read. The engine never asks the time and starts no goroutine.
//
// What the engine runs on is a Document: kinds, devices, zones and rules. It
// arrives in the log itself, as `_control` records made by ControlReadings, and
// takes effect at its last part. An engine without a document evaluates
// nothing. A document of the log that this program cannot compile is counted
// and reported, and the one before stays in force.
//
// # Two clocks
//
// Log time is a frame's receipt time and never decreases; for, clear_for,
// silent, hour and weekday use it. Event time is the reading's own; windows use
// it, over (t-w, t]. A timer fires stamped with its deadline, before any record
// received at or after it, in the order of deadlines (then rule, then device).
// `_tick` only advances log time. `_start` and `_clock` are gaps: timers that
// were pending shift by the gap; after a gap of more than MinGap silence is
// counted anew, with one expected interval of grace.
//
// # Late readings
//
// A reading is late when its Delay is over max(2 x the device's interval, 5 min)
// or when it is older than the newest of its device and kind. It enters windows
// and never changes a warning. The newest is never taken as later than its
// receipt: one reading from a clock that runs ahead does not make the next ones
// late, and windows drop what lies after a reading that is not late.
//
// # Expressions
//
// Expressions are parsed, checked and optimised by expr-lang/expr and run as
// closures. Numbers are float64. There are:
//
//	level_m                      a value of the reading
//	rain_1h_mm, rain.rain_1h_mm  a value of another kind at the same site
//	water["do-mgl"]              a value whose name is not an identifier
//	device.alarm2_m              a fact of the device; also id name site owner lat lon interval_s
//	quality                      the reading's quality as a word
//	avg(level_m, "1h")           windows: avg min max sum count delta rate stddev
//	silent("6h")                 nothing of the kind was received for so long
//	inside("zone")               the reading's lat and lon lie in the zone
//	hour() weekday()             of log time at UTC+07:00; 0-23, and 1 Monday to 7 Sunday
//	abs ceil floor round len lower upper trim, + - * / ** == != < <= > >=
//	and or not in ?: contains startsWith endsWith matches
//
// delta is last minus first of the window, rate is delta per hour between the
// two. A value of another kind is the newest usable one at the site, received
// not longer ago than twice its device's interval (one hour when the interval
// is not known).
//
// A condition is evaluated only when every value and fact that it names is
// there and usable; otherwise it holds its state. A window that does not answer
// yet, and a result that is not finite, make the part of the condition unknown
// in which they stand: "unknown or true" is true, "unknown and false" is false,
// and a condition that stays unknown neither raises nor clears.
//
// # Windows
//
// A window belongs to device, value and width and is shared by all rules. It is
// exact up to one hour and up to MaxSamples readings, beyond that it consists of
// Panes panes. sum, count, min and max answer at once; the others once the
// window is covered by half: from its oldest to its newest sample, and one
// expected interval. The same time again is a correction: the last one wins (in
// panes only when it was the newest). The window "1h" of a gauge that reports
// every hour holds one sample: delta and rate need "2h" there.
//
// # Checkpoints
//
// "HDRS", a version byte, the body, and a CRC-32C of all before it. The body is
// varints, 8-byte floats and strings that are written once and then referred to
// by number; it carries the document, pending parts of the next one, log time,
// and for each device its windows and alarm states, sorted by name, so that the
// same state is the same bytes.
package rules
