package main

import (
	"fmt"

	"haidang/gateway/telemetry"
)

// Severities that alarm levels I, II and III are drawn in.
func alarmColor(i int) string { return severityColor(telemetry.Moderate + telemetry.Severity(i)) }

// alarms are the words of field alarm of haidang_device.
func alarms() object {
	return words(word{"0", "Dưới báo động", severityColor(telemetry.NoSeverity)},
		word{"1", "Trên báo động I", alarmColor(0)}, word{"2", "Trên báo động II", alarmColor(1)}, word{"3", "Trên báo động III", alarmColor(2)})
}

// flood is the dashboard of rivers and rain. Alarm levels are the facts of the
// registered devices, so that a station that somebody adds is drawn as the built-in
// ones are.
func flood(b *builder) dashboard {
	b.stations()
	all := b.graph(telemetry.Text{VI: "Mực nước các trạm", EN: "Water levels. The highest of each river station in every interval; bad readings are left out."}, 12, 9, "river", "level_m")
	all.FieldConfig.Defaults.Decimals = places(2)
	all.asks("$tag_device", `SELECT max("level_m") FROM "river" WHERE %s AND %s GROUP BY time($__interval), "device" fill(null)`, chosen, trusted)
	b.add(all)

	last := table(telemetry.Text{VI: "Mực nước mới nhất", EN: "Newest levels. The newest reading of each river station, of any quality."}, 12, 9, "Lúc",
		column{name: "Time", title: "Lúc"},
		column{name: "device", title: "Trạm"},
		column{name: "site", title: "Điểm đo"},
		column{name: "level_m", title: "Mực nước", unit: b.unit("river", "level_m"), decimals: 2},
		column{name: "quality", title: "Chất lượng", mapping: qualities()})
	last.asks("", `SELECT last("level_m") AS "level_m", "quality" FROM "river" WHERE %s GROUP BY "device", "site"`, chosen)
	b.add(last)

	b.rise()
	b.rainSums()
	b.rain()
	b.add(warningTable(24, 8))
	b.row("$river", "A river station. Its level and its alarm levels.", "river")
	b.station()
	// Without a value of its own, all are the devices listed: rivers and rain, so
	// that the warnings are theirs and not those of boats.
	return b.board(scene{
		uid: "haidang-flood", title: telemetry.Text{VI: "Lũ và mưa", EN: "Flood and rain. River levels with their alarm levels, rain, warnings."},
		from: "now-24h", annotated: true,
		variables: append(sitesAndDevices(` FROM "river", "rain"`, nil),
			choose("upstream", "Thượng lưu / Upstream", `SHOW TAG VALUES FROM "rain", "river" WITH KEY = "device"`),
			choose("downstream", "Hạ lưu / Downstream", `SHOW TAG VALUES FROM "river" WITH KEY = "device"`),
			pick("river", "Trạm sông / River station", `SHOW TAG VALUES FROM "river" WITH KEY = "device" WHERE "site" =~ /^$site$/`, nil),
			severityVariable()),
	})
}

// stations adds what every registered river station with alarm levels stands at.
func (b *builder) stations() {
	unit := b.unit("river", "level_m")
	list := table(telemetry.Text{VI: "Mực nước và báo động", EN: "Levels and alarms. Of every registered river station that has alarm levels (facts alarm1_m, alarm2_m, alarm3_m): the newest level, while it reports, and the highest alarm level that it has reached."}, 14, 9, "Báo động",
		column{name: "Time", title: "Lúc"},
		column{name: "device", title: "Trạm", link: "haidang-warnings"},
		column{name: "site", title: "Điểm đo"},
		column{name: "name_text", title: "Tên"},
		column{name: "level_m", title: "Mực nước", unit: unit, decimals: 2},
		column{name: "alarm", title: "Báo động", mapping: alarms()},
		column{name: "alarm1_m", title: "I", unit: unit, decimals: 2},
		column{name: "alarm2_m", title: "II", unit: unit, decimals: 2},
		column{name: "alarm3_m", title: "III", unit: unit, decimals: 2})
	list.asks("", `SELECT "name_text", "level_m", "alarm", "alarm1_m", "alarm2_m", "alarm3_m" FROM (SELECT last("alarm1_m") AS "alarm1_m", "alarm2_m", "alarm3_m", "level_m", "alarm", "name_text" FROM "haidang_device" WHERE time > ${__to}ms - 30m AND time <= ${__to}ms AND %s GROUP BY "device", "site") GROUP BY "device", "site"`, scope)
	b.add(list)

	over := timeline(telemetry.Text{VI: "Diễn biến báo động", EN: "Alarm levels over time. The highest that each station had reached."}, 10, 9, alarms())
	over.asks("$tag_device", `SELECT max("alarm") FROM "haidang_device" WHERE %s GROUP BY time($__interval), "device" fill(none)`, chosen)
	b.add(over)
}

// station adds the number and the graph of one station, in a row that is repeated.
// The alarm levels are series, since they differ from station to station.
func (b *builder) station() {
	const only = `$timeFilter AND "device" =~ /^$river$/`
	now := stat(telemetry.Text{VI: "Mực nước $river", EN: "Level. Newest water level, and the highest alarm level that it has reached; without alarm levels only the first."}, 5, 9)
	now.FieldConfig.Defaults.Unit = b.unit("river", "level_m")
	now.FieldConfig.Defaults.Decimals = places(2)
	now.FieldConfig.Defaults.NoValue = "—"
	now.FieldConfig.Defaults.Thresholds = levels(step{Color: "#1d4ed8"})
	now.FieldConfig.Overrides = append(now.FieldConfig.Overrides, override{
		Matcher:    object{"id": "byName", "options": "Báo động"},
		Properties: []property{{"unit", "none"}, {"mappings", []object{alarms()}}},
	})
	now.asks("$tag_device", `SELECT last("level_m") FROM "river" WHERE %s AND %s GROUP BY "device"`, only, trusted)
	now.asks("Báo động", `SELECT last("alarm") FROM "haidang_device" WHERE %s`, only)
	b.add(now)

	graph := b.graph(telemetry.Text{VI: "$river: mực nước và báo động I, II, III", EN: "Level and alarms. Highest water level in every interval; broken lines are the alarm levels of devices.yaml (confirm them for your station)."}, 19, 9, "river", "level_m")
	graph.FieldConfig.Defaults.Decimals = places(2)
	graph.FieldConfig.Defaults.Custom["axisSoftMin"] = 0
	graph.asks("$tag_device", `SELECT max("level_m") FROM "river" WHERE %s AND %s GROUP BY time($__interval), "device" fill(null)`, only, trusted)
	graph.asks("$col", `SELECT last("alarm1_m") AS "Báo động I", last("alarm2_m") AS "Báo động II", last("alarm3_m") AS "Báo động III" FROM "haidang_device" WHERE %s GROUP BY time($__interval) fill(previous)`, only)
	for i, name := range []string{"I", "II", "III"} {
		graph.FieldConfig.Overrides = append(graph.FieldConfig.Overrides, override{
			Matcher: object{"id": "byName", "options": "Báo động " + name},
			Properties: []property{
				{"color", object{"mode": "fixed", "fixedColor": alarmColor(i)}}, {"custom.lineStyle", object{"fill": "dash", "dash": []int{10, 6}}},
				{"custom.fillOpacity", 0}, {"custom.showPoints", "never"}, {"custom.lineWidth", 2}},
		})
	}
	b.add(graph)
}

// rise adds how fast levels change, and a station beside the one below it.
func (b *builder) rise() {
	rate := b.graph(telemetry.Text{VI: "Tốc độ lên, xuống", EN: "Rate of rise. Change of the level in an hour, from the mean of one interval to that of the next: over a longer range it is smoother. Line: half a metre in an hour."}, 12, 8, "river", "level_m")
	rate.FieldConfig.Defaults.Unit = b.unit("river", "level_m") + "/h"
	rate.FieldConfig.Defaults.Decimals = places(2)
	rate.FieldConfig.Defaults.Thresholds = levels(step{Color: "transparent"}, at(0.5, severityColor(telemetry.Severe)))
	rate.FieldConfig.Defaults.Custom["thresholdsStyle"] = object{"mode": "line"}
	rate.asks("$tag_device", `SELECT derivative(mean("level_m"), 1h) FROM "river" WHERE %s AND %s GROUP BY time($__interval), "device"`, chosen, trusted)
	b.add(rate)

	both := b.graph(telemetry.Text{VI: "Thượng lưu và hạ lưu", EN: "Upstream and downstream. Rain and level of the station chosen as upstream beside the level of the one downstream."}, 12, 8, "river", "level_m")
	both.FieldConfig.Defaults.Decimals = places(2)
	both.FieldConfig.Overrides = append(both.FieldConfig.Overrides, override{
		Matcher: object{"id": "byRegexp", "options": "/^Mưa/"},
		Properties: []property{
			{"unit", b.unit("rain", "rain_1h_mm")}, {"custom.axisPlacement", "right"}, {"custom.drawStyle", "bars"},
			{"custom.fillOpacity", 40}, {"min", 0}, {"color", object{"mode": "fixed", "fixedColor": "#2563eb"}}},
	})
	both.asks("Mưa 1 giờ $tag_device", `SELECT max("rain_1h_mm") FROM "rain" WHERE $timeFilter AND "device" =~ /^$upstream$/ AND %s GROUP BY time($__interval), "device" fill(null)`, trusted)
	both.asks("Thượng lưu $tag_device", `SELECT max("level_m") FROM "river" WHERE $timeFilter AND "device" =~ /^$upstream$/ AND %s GROUP BY time($__interval), "device" fill(null)`, trusted)
	both.asks("Hạ lưu $tag_device", `SELECT max("level_m") FROM "river" WHERE $timeFilter AND "device" =~ /^$downstream$/ AND %s GROUP BY time($__interval), "device" fill(null)`, trusted)
	b.add(both)
}

// rainSums adds the rain of the last 1 to 24 hours before the end of the range.
// Colours of 12 and 24 hours are the classes of the national forecast.
func (b *builder) rainSums() {
	for _, sum := range []struct {
		hours  int
		w      int
		limits []float64
	}{{1, 5, nil}, {3, 5, nil}, {6, 5, nil}, {12, 5, []float64{8, 26, 50}}, {24, 4, []float64{16, 51, 100}}} {
		p := gauges(telemetry.Text{VI: fmt.Sprintf("Mưa %d giờ qua", sum.hours), EN: fmt.Sprintf("Rain in the last %d h. Sum of what each station reported as the rain of an hour (rain_1h_mm), the last report of every clock hour.", sum.hours)}, sum.w, 7)
		p.FieldConfig.Defaults.Unit, p.FieldConfig.Defaults.Decimals = b.unit("rain", "rain_1h_mm"), places(1)
		steps := []step{{Color: "#2563eb"}}
		for i, limit := range sum.limits {
			steps = append(steps, at(limit, severityColor(telemetry.Minor+telemetry.Severity(i))))
		}
		p.FieldConfig.Defaults.Thresholds = levels(steps...)
		within := fmt.Sprintf("time > ${__to}ms - %dh AND time <= ${__to}ms AND %s AND %s", sum.hours, scope, trusted)
		if sum.hours == 1 {
			p.asks("$tag_device", `SELECT last("rain_1h_mm") FROM "rain" WHERE %s GROUP BY "device"`, within)
		} else {
			p.asks("$tag_device", `SELECT sum("mm") FROM (SELECT last("rain_1h_mm") AS "mm" FROM "rain" WHERE %s GROUP BY time(1h), "device") GROUP BY "device"`, within)
		}
		b.add(p)
	}
}

// rain adds the graphs of rain. The classes are those of the national forecast.
func (b *builder) rain() {
	hour := b.graph(telemetry.Text{VI: "Mưa 1 giờ", EN: "Rain, 1 h. Rain in the hour before, as the station sums it."}, 12, 8, "rain", "rain_1h_mm")
	hour.FieldConfig.Defaults.Custom["drawStyle"] = "bars"
	hour.FieldConfig.Defaults.Custom["fillOpacity"] = 60
	day := b.graph(telemetry.Text{VI: "Mưa 24 giờ", EN: "Rain, 24 h. Rain in the 24 hours before, as the station sums it. Lines: moderate from 16 mm, heavy from 51 mm, very heavy above 100 mm."}, 12, 8, "rain", "rain_24h_mm")
	day.FieldConfig.Defaults.Custom["thresholdsStyle"] = object{"mode": "line"}
	day.FieldConfig.Defaults.Thresholds = levels(step{Color: "transparent"},
		at(16, severityColor(telemetry.Minor)), at(51, severityColor(telemetry.Moderate)), at(100, severityColor(telemetry.Severe)))
	for p, value := range map[*panel]string{&hour: "rain_1h_mm", &day: "rain_24h_mm"} {
		p.FieldConfig.Defaults.Decimals = places(1)
		p.FieldConfig.Defaults.Min = new(float64)
		p.asks("$tag_device", `SELECT max("%s") FROM "rain" WHERE %s AND %s GROUP BY time($__interval), "device" fill(null)`, value, chosen, trusted)
	}
	b.add(hour)
	b.add(day)
}

func places(n int) *int { return &n }
