package main

import "haidang/gateway/telemetry"

// everything is what a variable's all stands for where there may be values
// without a device of that name; it also keeps the query short.
func everything() *string {
	all := ".*"
	return &all
}

// overview is the dashboard of the whole gateway: warnings, devices, links.
func overview(b *builder) dashboard {
	b.counts()
	b.places()
	b.add(warningTimeline(24, 9))
	b.links(14, 9)
	b.down(10, 9)
	return b.board(scene{
		uid: "haidang-overview", title: telemetry.Text{VI: "Tổng quan", EN: "Overview. Warnings, devices on a map, what is silent, links."},
		from: "now-6h", variables: append(sitesAndDevices("", everything()), severityVariable()),
	})
}

func warningTimeline(w, h int) panel {
	p := timeline(telemetry.Text{VI: "Diễn biến cảnh báo", EN: "Warnings over time. Severity of each warning, by device and rule; those begun up to 90 days before the range are shown too."}, w, h, severities())
	p.asks("$tag_device · $tag_rule", `SELECT "severity" FROM "warning" WHERE %s GROUP BY "device", "rule"`, running)
	return p
}

// links adds the states of links over time.
func (b *builder) links(w, h int) {
	p := timeline(telemetry.Text{VI: "Kết nối", EN: "Links. Of devices and sources: connected or not."}, w, h,
		words(word{"0", "Mất", severityColor(telemetry.Extreme)}, word{"1", "Đang nối", severityColor(telemetry.NoSeverity)}))
	p.asks("$tag_device", `SELECT "up" FROM "link" WHERE %s GROUP BY "device"`, running)
	b.add(p)
}

// down adds the links that are down now.
func (b *builder) down(w, h int) {
	p := table(telemetry.Text{VI: "Kết nối đang mất", EN: "Links down. At the end of the time range, since when and why."}, w, h, "Từ lúc",
		column{name: "Time", title: "Từ lúc"},
		column{name: "device", title: "Thiết bị"},
		column{name: "site", title: "Điểm đo"},
		column{name: "cause_text", title: "Nguyên nhân"})
	p.asks("", `SELECT "cause_text" FROM %s GROUP BY "device", "site"`, downLinks)
	b.add(p)
}

// activeCount is how many warnings are not cleared.
func activeCount(w, h int) panel {
	p := stat(telemetry.Text{VI: "Cảnh báo đang hiệu lực", EN: "Active warnings. Number of those not cleared at the end of the time range."}, w, h)
	p.FieldConfig.Defaults.NoValue = "0"
	p.FieldConfig.Defaults.Thresholds = levels(step{Color: severityColor(telemetry.NoSeverity)}, at(1, severityColor(telemetry.Severe)))
	p.asks("warnings", `SELECT count("severity") FROM %s`, activeWarnings)
	return p
}

// worstSeverity is the highest severity now.
func worstSeverity(w, h int) panel {
	p := stat(telemetry.Text{VI: "Mức cao nhất", EN: "Highest severity. Of the warnings not cleared."}, w, h)
	p.FieldConfig.Defaults.NoValue = "Không"
	p.FieldConfig.Defaults.Mappings = []object{severities()}
	p.asks("severity", `SELECT max("severity") FROM %s`, activeWarnings)
	return p
}

// counts adds the row of large numbers.
func (b *builder) counts() {
	b.add(activeCount(5, 4))
	b.add(worstSeverity(5, 4))

	silent := stat(telemetry.Text{VI: "Thiết bị im lặng", EN: "Silent devices. Registered devices that do not report as often as they should."}, 5, 4)
	silent.FieldConfig.Defaults.NoValue = "0"
	silent.FieldConfig.Defaults.Thresholds = levels(step{Color: severityColor(telemetry.NoSeverity)}, at(1, silentColor))
	silent.asks("silent", `SELECT sum("silent") FROM %s`, newestStates)
	b.add(silent)

	down := stat(telemetry.Text{VI: "Kết nối đang mất", EN: "Links down. Number of links that are down at the end of the time range."}, 5, 4)
	down.FieldConfig.Defaults.NoValue = "0"
	down.FieldConfig.Defaults.Thresholds = levels(step{Color: severityColor(telemetry.NoSeverity)}, at(1, severityColor(telemetry.Extreme)))
	down.asks("links", `SELECT count("up") FROM %s`, downLinks)
	b.add(down)
	b.add(vesselCount(4, 4))
}

func vesselCount(w, h int) panel {
	p := stat(telemetry.Text{VI: "Tàu nghe được", EN: "Vessels heard. Those that sent a position in the time range."}, w, h)
	p.FieldConfig.Defaults.NoValue = "0"
	p.FieldConfig.Defaults.Thresholds = levels(step{Color: "#1d4ed8"})
	p.asks("vessels", `SELECT count("lat") FROM (SELECT last("lat") AS "lat" FROM "position" WHERE %s GROUP BY "device")`, chosen)
	return p
}

// places adds the map of what is registered, what is silent, and the warnings.
func (b *builder) places() {
	chart := newPanel("geomap", telemetry.Text{VI: "Trạm và tàu", EN: "Stations and boats. Registered devices whose place is known, coloured by their state: purple silent, green well, else the severity of their gravest warning. The base map needs no internet."}, 14, 16)
	chart.FieldConfig.Defaults.Thresholds = stateSteps()
	chart.FieldConfig.Overrides = []override{
		{Matcher: object{"id": "byName", "options": "state"}, Properties: []property{{"mappings", []object{deviceStates()}}}},
		{Matcher: object{"id": "byName", "options": "heard_ago_s"}, Properties: []property{{"unit", "s"}}},
	}
	chart.Options = mapOptions(marker("Thiết bị", "A", "state", "img/icons/marker/circle.svg", 8))
	chart.asks("", `SELECT "state", "lat", "lon", "name_text", "problem_text", "heard_ago_s" FROM %s GROUP BY "device", "site"`, newestStates)
	b.add(chart)

	silent := table(telemetry.Text{VI: "Đang im lặng", EN: "Silent now. Registered devices that do not report as often as they should, or have not been heard since the gateway started."}, 10, 8, "Im lặng",
		column{name: "Time", title: "Lúc"},
		column{name: "device", title: "Thiết bị", link: "haidang-warnings"},
		column{name: "site", title: "Điểm đo"},
		column{name: "name_text", title: "Tên"},
		column{name: "heard_ago_s", title: "Im lặng", unit: "s"},
		column{name: "problem_text", title: "Vấn đề"})
	silent.asks("", `SELECT "name_text", "heard_ago_s", "problem_text" FROM %s WHERE "silent" > 0 GROUP BY "device", "site"`, newestStates)
	b.add(silent)
	// Beside the map's lower half.
	b.beside(warningTable(10, 8))
}
