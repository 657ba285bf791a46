package main

import (
	"fmt"
	"regexp"

	"haidang/gateway/telemetry"
)

// flood is the dashboard of rivers and rain. Stations of the built-in devices
// whose three alarm levels are known have a number and a graph with the levels;
// those of the demo, demo-<id>, are shown in the same panels.
func flood(b *builder, devices []telemetry.Device) dashboard {
	for _, d := range devices {
		if steps, ok := alarmLevels(&d); ok {
			b.station(&d, steps)
		}
	}
	all := b.graph(telemetry.Text{VI: "Mực nước các trạm", EN: "Highest water level of each river station in every interval. Bad readings are left out."}, 12, 9, "river", "level_m")
	all.FieldConfig.Defaults.Decimals = places(2)
	all.asks("$tag_device", `SELECT max("level_m") FROM "river" WHERE %s AND %s GROUP BY time($__interval), "device" fill(null)`, chosen, trusted)
	b.add(all)

	last := table(telemetry.Text{VI: "Mực nước mới nhất", EN: "The newest reading of each river station, of any quality."}, 12, 9, "Lúc",
		column{name: "Time", title: "Lúc"},
		column{name: "device", title: "Trạm"},
		column{name: "site", title: "Điểm đo"},
		column{name: "level_m", title: "Mực nước", unit: b.unit("river", "level_m"), decimals: 2},
		column{name: "quality", title: "Chất lượng", mapping: words(
			word{"good", "Tốt", "#15803d"}, word{"suspect", "Nghi ngờ", "#ca8a04"}, word{"bad", "Sai", "#dc2626"},
			word{"calibrating", "Hiệu chuẩn", "#6b7280"}, word{"maintenance", "Bảo trì", "#6b7280"})})
	last.asks("", `SELECT last("level_m") AS "level_m", "quality" FROM "river" WHERE %s GROUP BY "device", "site"`, chosen)
	b.add(last)

	b.rain()
	b.add(warningTable(24, 8))
	// Without a value of its own, all are the devices listed: rivers and rain, so
	// that the warnings are theirs and not those of boats.
	return b.board("haidang-flood", telemetry.Text{VI: "Lũ và mưa", EN: "Flood: river levels with their alarm levels, rain, warnings."}, "now-24h", ` FROM "river", "rain"`, nil)
}

// alarmLevels returns the device's three alarm levels as thresholds.
func alarmLevels(d *telemetry.Device) ([]step, bool) {
	steps := []step{{Color: severityColor(telemetry.NoSeverity)}}
	for i, name := range []string{"alarm1_m", "alarm2_m", "alarm3_m"} {
		fact, _ := d.Fact(name)
		level, ok := fact.(float64)
		if !ok {
			return nil, false
		}
		steps = append(steps, at(level, severityColor(telemetry.Moderate+telemetry.Severity(i))))
	}
	return steps, true
}

// station adds the number and the graph of one station.
func (b *builder) station(d *telemetry.Device, steps []step) {
	alarms := fmt.Sprintf("Alarm levels I, II, III: %.2f, %.2f, %.2f m (built-in devices; confirm them for your station). Shown whatever is chosen above.", *steps[1].Value, *steps[2].Value, *steps[3].Value)
	only := `"device" =~ /^(demo-)?` + regexp.QuoteMeta(d.ID) + `$/`

	now := stat(telemetry.Text{VI: d.Name, EN: "Newest water level. " + alarms}, 4, 8)
	now.FieldConfig.Defaults.Unit = b.unit("river", "level_m")
	now.FieldConfig.Defaults.Decimals = places(2)
	now.FieldConfig.Defaults.NoValue = "—"
	now.FieldConfig.Defaults.Thresholds = levels(steps...)
	now.asks("$tag_device", `SELECT last("level_m") FROM "river" WHERE $timeFilter AND %s AND %s GROUP BY "device"`, only, trusted)
	b.add(now)

	graph := b.graph(telemetry.Text{VI: d.Name + ": mực nước và báo động I, II, III", EN: "Highest water level in every interval. " + alarms}, 8, 8, "river", "level_m")
	graph.FieldConfig.Defaults.Decimals = places(2)
	graph.FieldConfig.Defaults.Thresholds = levels(steps...)
	graph.FieldConfig.Defaults.Custom["thresholdsStyle"] = object{"mode": "line"}
	// So that the levels are in sight also when the water is low.
	graph.FieldConfig.Defaults.Custom["axisSoftMax"] = *steps[3].Value * 1.1
	graph.FieldConfig.Defaults.Custom["axisSoftMin"] = 0
	graph.asks("$tag_device", `SELECT max("level_m") FROM "river" WHERE $timeFilter AND %s AND %s GROUP BY time($__interval), "device" fill(null)`, only, trusted)
	b.add(graph)
}

// rain adds the graphs of rain. The classes are those of the national forecast.
func (b *builder) rain() {
	hour := b.graph(telemetry.Text{VI: "Mưa 1 giờ", EN: "Rain in the hour before, as the station sums it."}, 12, 8, "rain", "rain_1h_mm")
	hour.FieldConfig.Defaults.Custom["drawStyle"] = "bars"
	hour.FieldConfig.Defaults.Custom["fillOpacity"] = 60
	day := b.graph(telemetry.Text{VI: "Mưa 24 giờ", EN: "Rain in the 24 hours before, as the station sums it. Lines: moderate from 16 mm, heavy from 51 mm, very heavy above 100 mm."}, 12, 8, "rain", "rain_24h_mm")
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
