package main

import "haidang/gateway/telemetry"

// warnings is the dashboard of what was raised, and how soon people took it.
func warnings(b *builder) dashboard {
	b.add(activeCount(4, 4))
	b.add(worstSeverity(5, 4))

	raised := stat(telemetry.Text{VI: "Đã phát trong kỳ", EN: "Raised. Number of warnings that were active in the time range."}, 5, 4)
	raised.FieldConfig.Defaults.NoValue = "0"
	raised.FieldConfig.Defaults.Thresholds = levels(step{Color: "#1d4ed8"})
	raised.asks("raised", `SELECT count(distinct("id")) FROM "warning" WHERE %s AND "state" = 'active' AND "severity" >= $severity`, chosen)
	b.add(raised)
	for _, p := range []struct {
		title telemetry.Text
		part  int
	}{
		{telemetry.Text{VI: "Thời gian nhận, trung vị", EN: "Time to acknowledge, median. From raising to the first acknowledgement, of the warnings acknowledged in the time range."}, 50},
		{telemetry.Text{VI: "Thời gian nhận, 95 %", EN: "Time to acknowledge, 95 %. 95 of 100 were acknowledged sooner."}, 95},
	} {
		ack := stat(p.title, 5, 4)
		ack.FieldConfig.Defaults.Unit, ack.FieldConfig.Defaults.NoValue = "s", "—"
		ack.FieldConfig.Defaults.Thresholds = levels(step{Color: severityColor(telemetry.NoSeverity)}, at(300, severityColor(telemetry.Moderate)), at(900, severityColor(telemetry.Extreme)))
		ack.asks("ack", `SELECT percentile("age_s", %d) FROM "warning" WHERE %s AND "state" = 'acknowledged' AND "severity" >= $severity`, p.part, chosen)
		b.add(ack)
	}

	b.add(warningTimeline(24, 10))
	b.add(warningTable(24, 8))
	b.often()
	b.history()
	return b.board(scene{
		uid: "haidang-warnings", title: telemetry.Text{VI: "Cảnh báo", EN: "Warnings. What is active, what was raised, how soon it was acknowledged."},
		from: "now-24h", annotated: true, variables: append(sitesAndDevices(` FROM "warning"`, everything()), severityVariable()),
	})
}

// often adds how many warnings there were, over time and by rule, and how long
// people took.
func (b *builder) often() {
	count := newPanel("timeseries", telemetry.Text{VI: "Số cảnh báo theo quy tắc", EN: "Warnings by rule. Number of changes to active in every interval."}, 10, 8)
	count.FieldConfig.Defaults.Unit, count.FieldConfig.Defaults.Decimals = "none", places(0)
	count.FieldConfig.Defaults.Color = object{"mode": "palette-classic"}
	count.FieldConfig.Defaults.Custom = object{"drawStyle": "bars", "fillOpacity": 70, "lineWidth": 1, "stacking": object{"mode": "normal", "group": "A"}}
	count.Options = object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	count.asks("$tag_rule", `SELECT count("n") FROM "warning" WHERE %s AND "state" = 'active' AND "severity" >= $severity GROUP BY time($__interval), "rule" fill(null)`, chosen)
	b.add(count)

	rules := gauges(telemetry.Text{VI: "Quy tắc hay báo", EN: "Most frequent rules. Number of warnings of each rule in the time range."}, 7, 8)
	rules.FieldConfig.Defaults.Decimals = places(0)
	rules.FieldConfig.Defaults.Thresholds = levels(step{Color: "#1d4ed8"})
	rules.asks("$tag_rule", `SELECT count(distinct("id")) FROM "warning" WHERE %s AND "state" = 'active' AND "severity" >= $severity GROUP BY "rule"`, chosen)
	b.add(rules)

	ack := newPanel("timeseries", telemetry.Text{VI: "Thời gian nhận từng cảnh báo", EN: "Time to acknowledge, each. From raising to acknowledgement. Lines: 5 and 15 minutes."}, 7, 8)
	ack.FieldConfig.Defaults.Unit = "s"
	ack.FieldConfig.Defaults.Color = object{"mode": "palette-classic"}
	ack.FieldConfig.Defaults.Thresholds = levels(step{Color: "transparent"}, at(300, severityColor(telemetry.Moderate)), at(900, severityColor(telemetry.Extreme)))
	ack.FieldConfig.Defaults.Custom = object{"drawStyle": "points", "pointSize": 8, "showPoints": "always", "thresholdsStyle": object{"mode": "line"}}
	ack.Options = object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	ack.asks("$tag_rule", `SELECT "age_s" FROM "warning" WHERE %s AND "state" = 'acknowledged' AND "severity" >= $severity GROUP BY "rule"`, chosen)
	b.add(ack)
}

// history adds every change of a warning in the range.
func (b *builder) history() {
	p := table(telemetry.Text{VI: "Nhật ký cảnh báo", EN: "History. Every change of a warning in the time range, the newest 1,000."}, 24, 10, "Lúc",
		column{name: "Time", title: "Lúc"},
		column{name: "device", title: "Thiết bị"},
		column{name: "site", title: "Điểm đo"},
		column{name: "rule", title: "Quy tắc"},
		column{name: "severity", title: "Mức độ", mapping: severities()},
		column{name: "state", title: "Trạng thái", mapping: warningStates()},
		column{name: "age_s", title: "Sau khi phát", unit: "s"},
		column{name: "n", title: "Lần đổi", unit: "none"},
		column{name: "id", title: "Mã"})
	p.asks("", `SELECT "device", "site", "rule", "severity", "state", "age_s", "n", "id" FROM "warning" WHERE %s AND ("severity" >= $severity OR "state" = 'cleared') ORDER BY time DESC LIMIT 1000`, chosen)
	b.add(p)
}
