package main

import "haidang/gateway/telemetry"

// fleet is the dashboard of vessels: where they are and were, who is silent.
func fleet(b *builder) dashboard {
	b.add(vesselCount(6, 4))
	silent := stat(telemetry.Text{VI: "Tàu đăng ký im lặng", EN: "Registered boats silent. AIS is not the monitoring device (VMS): a boat may be silent because no receiver hears it."}, 6, 4)
	silent.FieldConfig.Defaults.NoValue = "0"
	silent.FieldConfig.Defaults.Thresholds = levels(step{Color: severityColor(telemetry.NoSeverity)}, at(1, silentColor))
	silent.asks("silent", `SELECT sum("silent") FROM %s WHERE "owner_text" <> ''`, newestStates)
	b.add(silent)
	b.add(activeCount(6, 4))
	fastest := stat(telemetry.Text{VI: "Nhanh nhất", EN: "Fastest. Highest speed over ground in the time range."}, 6, 4)
	fastest.FieldConfig.Defaults.Unit, fastest.FieldConfig.Defaults.Decimals = b.unit("position", "speed_kn"), places(1)
	fastest.FieldConfig.Defaults.Thresholds = levels(step{Color: "#1d4ed8"})
	fastest.asks("speed", `SELECT max("speed_kn") FROM "position" WHERE %s AND %s`, chosen, trusted)
	b.add(fastest)

	b.fleetMap()
	b.owners()
	b.zones()
	speed := b.graph(telemetry.Text{VI: "Tốc độ", EN: "Speed. Mean speed over ground in every interval."}, 12, 9, "position", "speed_kn")
	speed.FieldConfig.Defaults.Decimals = places(1)
	speed.asks("$tag_device", `SELECT mean("speed_kn") FROM "position" WHERE %s AND %s GROUP BY time($__interval), "device" fill(null)`, chosen, trusted)
	b.add(speed)
	return b.board(scene{
		uid: "haidang-fleet", title: telemetry.Text{VI: "Đội tàu", EN: "Fleet. Boats on the map with their tracks, silence, zones, owners."},
		from: "now-6h", annotated: true, variables: append(sitesAndDevices(` FROM "position"`, everything()), severityVariable()),
	})
}

// fleetMap adds the map with the tracks, and the table of the newest positions.
func (b *builder) fleetMap() {
	const newest = `SELECT last("lat") AS "lat", "lon", "speed_kn", "course_deg" FROM "position" WHERE ` + chosen + ` GROUP BY "device", "site"`
	columns := []column{
		{name: "Time", title: "Lúc"},
		{name: "device", title: "Tàu", link: "haidang-warnings"},
		{name: "site", title: "Điểm đo"},
		{name: "speed_kn", title: "Tốc độ", unit: b.unit("position", "speed_kn"), decimals: 1},
		{name: "course_deg", title: "Hướng đi", unit: b.unit("position", "course_deg")},
		{name: "lat", title: "Vĩ độ", unit: b.unit("position", "lat"), decimals: 4},
		{name: "lon", title: "Kinh độ", unit: b.unit("position", "lon"), decimals: 4},
	}
	chart := newPanel("geomap", telemetry.Text{VI: "Vị trí và vết tàu", EN: "Positions and tracks. Newest position of each vessel in the time range, turned by its course, coloured by its speed; dots are where it was. The base map needs no internet."}, 14, 14)
	// The layer finds its columns by name: they keep theirs, and have units only.
	for _, c := range columns {
		if c.unit != "" {
			chart.FieldConfig.Overrides = append(chart.FieldConfig.Overrides, override{
				Matcher: object{"id": "byName", "options": c.name}, Properties: []property{{"unit", c.unit}, {"decimals", c.decimals}}})
		}
	}
	chart.FieldConfig.Defaults.Thresholds = levels(step{Color: "#6b7280"}, at(0.5, "#2563eb"), at(5, "#15803d"), at(10, "#ea580c"))
	boats := marker("Tàu", "A", "speed_kn", "img/icons/marker/triangle.svg", 7)
	boats["config"].(object)["style"].(object)["rotation"] = object{"field": "course_deg", "fixed": 0, "min": -360, "max": 360, "mode": "mod"}
	track := marker("Vết", "B", "", "img/icons/marker/circle.svg", 2)
	chart.Options = mapOptions(track, boats)
	chart.asks("", "%s", newest)
	chart.asks("", `SELECT last("lat") AS "lat", last("lon") AS "lon" FROM "position" WHERE %s AND %s GROUP BY time($__interval), "device" fill(none)`, chosen, trusted)
	b.add(chart)

	list := table(telemetry.Text{VI: "Đội tàu", EN: "Vessels. Newest position of each in the time range."}, 10, 14, "Lúc", columns...)
	list.asks("", "%s", newest)
	b.add(list)
}

// owners adds the registered boats with whom to call.
func (b *builder) owners() {
	p := table(telemetry.Text{VI: "Tàu theo chủ tàu", EN: "Boats by owner. Registered boats that have an owner, how long ago they were heard and what is wrong."}, 12, 12, "Mức độ",
		column{name: "Time", title: "Lúc"},
		column{name: "owner_text", title: "Chủ tàu"},
		column{name: "name_text", title: "Tàu"},
		column{name: "device", title: "Mã", link: "haidang-warnings"},
		column{name: "site", title: "Điểm đo"},
		column{name: "state", title: "Mức độ", mapping: deviceStates()},
		column{name: "heard_ago_s", title: "Nghe được cách đây", unit: "s"},
		column{name: "problem_text", title: "Vấn đề"})
	p.asks("", `SELECT "owner_text", "name_text", "state", "heard_ago_s", "problem_text" FROM %s WHERE "owner_text" <> '' GROUP BY "device", "site"`, newestStates)
	b.add(p)
}

// zones adds the warnings of vessels: zones, boundaries, silence, distress.
func (b *builder) zones() {
	p := timeline(telemetry.Text{VI: "Cảnh báo của tàu: vùng, ranh giới, im lặng, cấp cứu", EN: "Warnings of vessels. Zones, boundaries, silence, distress: each warning of a device mmsi-..., over time."}, 12, 12, severities())
	p.asks("$tag_device · $tag_rule", `SELECT "severity" FROM "warning" WHERE %s AND "device" =~ /^mmsi-/ GROUP BY "device", "rule"`, running)
	b.add(p)
	b.add(warningTable(12, 9))
}

// marker is a layer of symbols at lat and lon of the query refID, coloured by a
// field, or grey without one.
func marker(name, refID, field, symbol string, size int) object {
	color := object{"fixed": "#6b7280"}
	if field != "" {
		color = object{"field": field, "fixed": "#2563eb"}
	}
	return object{
		"type": "markers", "name": name, "tooltip": true,
		"filterData": object{"id": "byRefId", "options": refID},
		"location":   object{"mode": "coords", "latitude": "lat", "longitude": "lon"},
		"config": object{
			"showLegend": field != "",
			"style": object{
				"color": color, "opacity": 0.9,
				"rotation": object{"fixed": 0, "min": -360, "max": 360, "mode": "mod"},
				"size":     object{"fixed": size, "min": 2, "max": 15},
				"symbol":   object{"fixed": symbol, "mode": "fixed"},
			},
		},
	}
}

// mapOptions are the options of a map with these layers. The base map is a file
// that Grafana ships: with tiles of the internet the map would be empty in a
// storm.
func mapOptions(layers ...object) object {
	return object{
		"view": object{"id": "coords", "lat": 16.6, "lon": 107.9, "zoom": 8},
		"basemap": object{
			"type": "geojson", "name": "Bản đồ nền",
			"config": object{
				"src": "public/maps/countries.geojson", "rules": []object{},
				"style": object{"color": object{"fixed": "#9ca3af"}, "opacity": 0.25, "lineWidth": 1},
			},
		},
		"layers":   layers,
		"controls": object{"showZoom": true, "mouseWheelZoom": true, "showScale": true, "showAttribution": true, "showMeasure": true, "showDebug": false},
		"tooltip":  object{"mode": "details"},
	}
}
