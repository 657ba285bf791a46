package main

import "haidang/gateway/telemetry"

// overview is the dashboard of the whole gateway: warnings, links and the fleet.
func overview(b *builder, _ []telemetry.Device) dashboard {
	b.counts()
	warnings := timeline(telemetry.Text{VI: "Diễn biến cảnh báo", EN: "Severity of each warning over time, by device and rule. Warnings begun up to 90 days before the range are shown too."}, 24, 9, severities())
	warnings.asks("$tag_device · $tag_rule", `SELECT "severity" FROM "warning" WHERE %s GROUP BY "device", "rule"`, running)
	b.add(warnings)
	b.add(warningTable(24, 8))

	links := timeline(telemetry.Text{VI: "Kết nối", EN: "Links of devices and sources: connected or not."}, 14, 9,
		words(word{"0", "Mất", severityColor(telemetry.Extreme)}, word{"1", "Đang nối", severityColor(telemetry.NoSeverity)}))
	links.asks("$tag_device", `SELECT "up" FROM "link" WHERE %s GROUP BY "device"`, running)
	b.add(links)
	down := table(telemetry.Text{VI: "Kết nối đang mất", EN: "Links that are down at the end of the time range, since when and why."}, 10, 9, "Từ lúc",
		column{name: "Time", title: "Từ lúc"},
		column{name: "device", title: "Thiết bị"},
		column{name: "site", title: "Điểm đo"},
		column{name: "cause_text", title: "Nguyên nhân"})
	down.asks("", `SELECT "cause_text" FROM %s GROUP BY "device", "site"`, downLinks)
	b.add(down)

	b.fleet()
	everything := ".*" // also what has no device of that name, and a short query
	return b.board("haidang-overview", telemetry.Text{VI: "Tổng quan", EN: "Overview of the gateway: warnings, links, fleet."}, "now-6h", "", &everything)
}

// counts adds the row of large numbers.
func (b *builder) counts() {
	active := stat(telemetry.Text{VI: "Cảnh báo đang hiệu lực", EN: "Number of warnings not cleared at the end of the time range."}, 6, 4)
	active.FieldConfig.Defaults.NoValue = "0"
	active.FieldConfig.Defaults.Thresholds = levels(step{Color: severityColor(telemetry.NoSeverity)}, at(1, severityColor(telemetry.Severe)))
	active.asks("warnings", `SELECT count("severity") FROM %s`, activeWarnings)
	b.add(active)

	worst := stat(telemetry.Text{VI: "Mức cao nhất", EN: "Highest severity of the warnings not cleared."}, 6, 4)
	worst.FieldConfig.Defaults.NoValue = "Không"
	worst.FieldConfig.Defaults.Mappings = []object{severities()}
	worst.asks("severity", `SELECT max("severity") FROM %s`, activeWarnings)
	b.add(worst)

	down := stat(telemetry.Text{VI: "Kết nối đang mất", EN: "Number of links that are down at the end of the time range."}, 6, 4)
	down.FieldConfig.Defaults.NoValue = "0"
	down.FieldConfig.Defaults.Thresholds = levels(step{Color: severityColor(telemetry.NoSeverity)}, at(1, severityColor(telemetry.Extreme)))
	down.asks("links", `SELECT count("up") FROM %s`, downLinks)
	b.add(down)

	vessels := stat(telemetry.Text{VI: "Tàu nghe được", EN: "Vessels that sent a position in the time range."}, 6, 4)
	vessels.FieldConfig.Defaults.NoValue = "0"
	vessels.FieldConfig.Defaults.Thresholds = levels(step{Color: "#1d4ed8"})
	vessels.asks("vessels", `SELECT count("lat") FROM (SELECT last("lat") AS "lat" FROM "position" WHERE %s GROUP BY "device")`, chosen)
	b.add(vessels)
}

// fleet adds the map and the table of the newest positions.
func (b *builder) fleet() {
	const newest = `SELECT last("lat") AS "lat", "lon", "speed_kn", "course_deg" FROM "position" WHERE ` + chosen + ` GROUP BY "device", "site"`
	columns := []column{
		{name: "Time", title: "Lúc"},
		{name: "device", title: "Tàu"},
		{name: "site", title: "Điểm đo"},
		{name: "speed_kn", title: "Tốc độ", unit: b.unit("position", "speed_kn"), decimals: 1},
		{name: "course_deg", title: "Hướng đi", unit: b.unit("position", "course_deg")},
		{name: "lat", title: "Vĩ độ", unit: b.unit("position", "lat"), decimals: 4},
		{name: "lon", title: "Kinh độ", unit: b.unit("position", "lon"), decimals: 4},
	}
	chart := newPanel("geomap", telemetry.Text{VI: "Vị trí tàu", EN: "Newest position of each vessel in the time range, turned by its course, coloured by its speed. The base map needs no internet."}, 14, 14)
	// The layer finds its columns by name: they keep theirs, and have units only.
	for _, c := range columns {
		if c.unit != "" {
			chart.FieldConfig.Overrides = append(chart.FieldConfig.Overrides, override{
				Matcher: object{"id": "byName", "options": c.name}, Properties: []property{{"unit", c.unit}, {"decimals", c.decimals}}})
		}
	}
	chart.FieldConfig.Defaults.Thresholds = levels(step{Color: "#6b7280"}, at(0.5, "#2563eb"), at(5, "#15803d"), at(10, "#ea580c"))
	chart.Options = mapOptions()
	chart.asks("", "%s", newest)
	b.add(chart)

	list := table(telemetry.Text{VI: "Đội tàu", EN: "Newest position of each vessel in the time range."}, 10, 14, "Lúc", columns...)
	list.asks("", "%s", newest)
	b.add(list)
}

// mapOptions are the layers of the fleet's map. The base map is a file that
// Grafana ships: with tiles of the internet the map would be empty in a storm.
func mapOptions() object {
	return object{
		"view": object{"id": "coords", "lat": 16.6, "lon": 107.9, "zoom": 8},
		"basemap": object{
			"type": "geojson", "name": "Bản đồ nền",
			"config": object{
				"src": "public/maps/countries.geojson", "rules": []object{},
				"style": object{"color": object{"fixed": "#9ca3af"}, "opacity": 0.25, "lineWidth": 1},
			},
		},
		"layers": []object{{
			"type": "markers", "name": "Tàu", "tooltip": true,
			"location": object{"mode": "coords", "latitude": "lat", "longitude": "lon"},
			"config": object{
				"showLegend": true,
				"style": object{
					"color":    object{"field": "speed_kn", "fixed": "#2563eb"},
					"opacity":  0.9,
					"rotation": object{"field": "course_deg", "fixed": 0, "min": -360, "max": 360, "mode": "mod"},
					"size":     object{"fixed": 7, "min": 2, "max": 15},
					"symbol":   object{"fixed": "img/icons/marker/triangle.svg", "mode": "fixed"},
				},
			},
		}},
		"controls": object{"showZoom": true, "mouseWheelZoom": true, "showScale": true, "showAttribution": true, "showMeasure": true, "showDebug": false},
		"tooltip":  object{"mode": "details"},
	}
}
