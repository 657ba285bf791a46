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
// the log read, on however many cores. The engine never asks the time, and no
// goroutine of its own outlives a call.
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
// silent, age, dwell, flap, mute, limit, hour and weekday use it. Event time is
// the reading's own; windows use it, over (t-w, t], and so do prev, vn_aqi and
// nowcast. A timer fires stamped with its deadline, before any record received at
// or after it, in the order of deadlines (then causes before what they inhibit,
// then rule, then device). `_tick` only advances log time. `_start` and `_clock`
// are gaps: timers that were pending shift by the gap, and dwell does not count
// it; after a gap of more than MinGap silence and age are counted anew, with one
// expected interval of grace. The times of mute and limit are those of the
// calendar and shift with nothing.
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
//	avg(level_m, "1h")           windows: avg min max sum count delta rate stddev first last
//	percentile(level_m, 95, "1d") of every sample; up to 24 h
//	prev(level_m)                the sample before the one at hand
//	age(level_m)                 whole seconds since the newest usable sample was received
//	silent("6h")                 nothing of the kind was received for so long
//	silent(level_m, "30m")       this value was missing for so long while the device went on
//	heard()                      a reading of the kind has come since the device was registered
//	inside("zone")               the reading's lat and lon lie in the zone, its edge included
//	distance_m("zone")           metres to the edge of the zone or to the line; 0 inside
//	crossed("line")              the step from the position before crosses or reaches the line
//	dwell("zone")                whole seconds continuously inside; 0 outside
//	vn_aqi() nowcast(pm25_ugm3)  of the last whole clock hour; see Air
//	limit("pm25_24h")            the limit of this name that is in force
//	hour() weekday()             of log time at UTC+07:00; 0-23, and 1 Monday to 7 Sunday
//	abs ceil floor round len lower upper trim, + - * / ** == != < <= > >=
//	and or not in ?: contains startsWith endsWith matches
//
// delta is last minus first of the window, rate is delta per hour between the
// two. A value of another kind is the newest usable one at the site, received
// not longer ago than twice its device's interval (one hour when the interval
// is not known).
//
// A place is the name of a zone in quotes, or a fact of the device that names one:
// inside(device.zone). Zones are Polygons and MultiPolygons, lines LineStrings
// and MultiLineStrings; their edges are straight on a map of longitude and
// latitude, distances are along great circles of the sphere of WGS 84's mean
// radius. A step that begins on a line does not cross it.
//
// silent, age and dwell fire by themselves, without a reading. So that the engine
// knows when to look, a condition compares age and dwell with a number or with
// facts of the device: dwell("port") > 3600 fires 3601 s after the entry, >= 3600
// at 3600 s. age of a value of another kind is looked at with the readings of the
// rule's own kind. A rule whose when has silent is for registered devices only.
// silent of a value concerns values that were there before: it holds once
// something else came more than one expected interval after the last of them, so
// that a device that stops altogether is silent, and none of its values are.
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
// Panes panes. Windows of percentile keep every sample, up to MaxRanked, and are
// thinned evenly beyond that. A window that is cut says so in the log of the
// program and in a counter. sum, count, min, max and last answer at once; the others once the
// window is covered by half: from its oldest to its newest sample, and one
// expected interval. The same time again is a correction: the last one wins (in
// panes only when it was the newest). The window "1h" of a gauge that reports
// every hour holds one sample: delta and rate need "2h" there.
//
// # Air
//
// vn_aqi() is the index of Decision 1459/QD-TCMT from pm25_ugm3, pm10_ugm3,
// o3_ugm3, co_ugm3, so2_ugm3 and no2_ugm3, as far as the kind has them: the
// highest sub-index, rounded half up, one of the two kinds of dust being
// mandatory. Dust counts as NowCast over 12 hours, gases with the mean of one
// hour, O3 also with that of 8 hours, of which 6 must be there: the table has a
// column for each, the index is the highest of all, and ozone that stays between
// 100 and 160 µg/m³ for a day shows only in the second. A portal that gives the
// index of the hour from the first column alone shows less then, never more. That
// 6 of the 8 hours suffice is our choice. A clock hour is
// (h-1, h] of event time and counts once a reading at or after its end has come;
// late readings still enter it. An hour's mean is that of its readings, however
// few.
//
// # Warnings
//
// Each level has its latch and its for; the warning has the severity of the
// highest that is latched, from its raise to its clearing under one id.
//
//   - flap, on by default (DefaultFlap): rises to one severity too often within
//     a time make the warning stay at its highest severity, marked Flapping and
//     with a remark in its message, until nothing changed for the quiet time.
//   - inhibited_by and mute withhold: rules are evaluated and counted all the
//     same, what is raised already stays and may end, nothing rises; what still
//     holds when that is over is raised then. A rule is inhibited while a warning
//     of one of the named rules is active for a device of the same site, or for
//     the device that the fact line or gateway of the device names. Warnings of
//     rules in shadow inhibit nothing.
//   - What an instant of log time has released is raised at its end, when log
//     time moves on: a condition that ends at the same instant as what inhibits
//     it raises nothing.
//   - latch marks the warning: telemetry.Board keeps it in the state returned
//     until somebody has acknowledged it. The engine knows nothing of that.
//   - shadow gives the transitions, marked Shadow, to Options.Shadow and not to
//     Evaluate's caller. disabled checks a rule and evaluates it for no device.
//
// A warning tells how it came about: RuleVersion is a hash of all that decides
// (conditions, limits and zones that they name, and the keys above), Expression
// the condition of the level in force, Quality that of the values it names where
// it is not good, Source and Sources who delivered them. Its message when it ends
// is cleared, or the message after "Đã hết: " and "Over: ", with the values of
// then.
//
// While on, where, conditions, severities, for, clear_for, shadow and disabled
// are the same, a change of the document leaves the rule's state as it is.
//
// # Shards
//
// Devices are divided into Options.Shards shards, each with the timers, counts and
// windows of its devices, so that a frame with much to do is evaluated on as many
// cores; a frame with little is not (see worthFork). What devices see of each
// other stays in one shard: those of a site, because a rule names values of other
// kinds there, and, once some rule is inhibited, a device with those that its
// facts gateway and line name. Shards then share nothing that changes, and each
// does what one alone would do with its devices. (Instead, the warnings of one
// instant could be settled in a second step for all shards. But a message tells
// the values at that reading, and what is inhibited may be the next reading of the
// same frame: the step would have to keep a copy of the values of each.) The price
// is that devices behind one gateway are one part when rules are inhibited by it;
// where there is a single gateway, one core evaluates.
//
// The order of transitions is that of one shard, see order: timers by deadline,
// then causes before what they inhibit, rule and device; at the end of each
// instant what it has released; then the readings in the order of the frame, and
// of each the rules, causes first. Each shard finds its own in this order, and
// they are merged. Records of the log itself (documents, starts, clocks) are
// reached by all shards before any goes on. What must be counted over all devices
// (MaxDevices) is done while readings are dealt out, one after the other. A
// checkpoint has nothing of shards.
//
// # Checkpoints
//
// "HDRS", a version byte, the body, and a CRC-32C of all before it. The body is
// varints, 8-byte floats and strings that are written once and then referred to
// by number; it carries the document, pending parts of the next one, log time,
// and for each device its values, windows, places and alarm states, sorted by
// name, so that the same state is the same bytes. A checkpoint of another version
// is refused: the log is then evaluated from its start.
package rules
