package main

import "haidang/gateway/telemetry"

// Parts of the queries of the gateway's own measurements.
const (
	ownDevice = `"device" =~ /^$gateway$/`
	own       = `$timeFilter AND ` + ownDevice
	ownNow    = `time > ${__to}ms - 5m AND time <= ${__to}ms AND ` + ownDevice
)

// gateway is the dashboard of the gateway itself.
func gateway(b *builder) dashboard {
	b.gatewayNow()
	b.gatewayGraphs()
	running := timeline(telemetry.Text{VI: "Nguồn số liệu", EN: "Sources. Running, or waiting to be started again after an error."}, 12, 9,
		words(word{"0", "Đang chờ", severityColor(telemetry.Extreme)}, word{"1", "Đang chạy", severityColor(telemetry.NoSeverity)}))
	running.asks("$tag_source", `SELECT min("running") FROM "haidang_source" WHERE %s GROUP BY time($__interval), "source" fill(none)`, own)
	b.add(running)
	b.linksOfAll(12, 9)
	b.recipients()
	return b.board(scene{
		uid: "haidang-gateway", title: telemetry.Text{VI: "Cổng", EN: "Gateway. Throughput, lag, queues, dead letters, links, memory."},
		from: "now-1h", variables: []variable{pick("gateway", "Cổng / Gateway", `SHOW TAG VALUES FROM "haidang_gateway" WITH KEY = "device"`, everything())},
	})
}

// gatewayNow adds the row of large numbers.
func (b *builder) gatewayNow() {
	good, bad := severityColor(telemetry.NoSeverity), severityColor(telemetry.Extreme)
	add := func(title telemetry.Text, unit string, t thresholds, mapping object, format string) {
		p := stat(title, 4, 4)
		p.FieldConfig.Defaults.Unit, p.FieldConfig.Defaults.NoValue, p.FieldConfig.Defaults.Thresholds = unit, "—", t
		if mapping != nil {
			p.FieldConfig.Defaults.Mappings = []object{mapping}
		}
		p.asks("$tag_device", format, ownNow)
		b.add(p)
	}
	add(telemetry.Text{VI: "Tình trạng", EN: "State. Ready: log, store and gateway are well, as /readyz says. No value for 5 minutes: it does not run, or the store does not take its figures."}, "none", levels(step{Color: good}),
		words(word{"0", "Chưa sẵn sàng", bad}, word{"1", "Sẵn sàng", good}), `SELECT last("ready") FROM "haidang_gateway" WHERE %s GROUP BY "device"`)
	add(telemetry.Text{VI: "Chạy được", EN: "Uptime. Since the start."}, "s", levels(step{Color: "#1d4ed8"}), nil,
		`SELECT last("uptime_s") FROM "haidang_gateway" WHERE %s GROUP BY "device"`)
	add(telemetry.Text{VI: "Độ trễ lớn nhất", EN: "Largest lag. Of the follower that is furthest behind its log."}, "s", levels(step{Color: good}, at(10, severityColor(telemetry.Moderate)), at(60, bad)), nil,
		`SELECT max("lag_s") FROM (SELECT last("lag_s") AS "lag_s" FROM "haidang_follower" WHERE %s GROUP BY "device", "log", "follower") GROUP BY "device"`)
	add(telemetry.Text{VI: "Bộ nhớ", EN: "Memory. Resident memory of the process."}, "bytes", levels(step{Color: "#1d4ed8"}), nil,
		`SELECT last("memory_bytes") FROM "haidang_gateway" WHERE %s GROUP BY "device"`)
	add(telemetry.Text{VI: "Đĩa còn trống", EN: "Disk free. On the disk of the embedded store."}, "bytes", levels(step{Color: bad}, at(1<<30, severityColor(telemetry.Moderate)), at(4<<30, good)), nil,
		`SELECT last("disk_free_bytes") FROM "haidang_gateway" WHERE %s GROUP BY "device"`)
	add(telemetry.Text{VI: "Bị gạt ra", EN: "Set aside. Payloads and readings that could not be used, since the start; see haidang deadletter list."}, "none", levels(step{Color: good}, at(1, severityColor(telemetry.Moderate))), nil,
		`SELECT last("set_aside_total") FROM "haidang_gateway" WHERE %s GROUP BY "device"`)
}

// ownGraph is a graph of one of the gateway's own measurements.
func ownGraph(title telemetry.Text, w, h int, unit string) panel {
	p := newPanel("timeseries", title, w, h)
	p.FieldConfig.Defaults.Unit = unit
	p.FieldConfig.Defaults.Color = object{"mode": "palette-classic"}
	p.FieldConfig.Defaults.Min = new(float64)
	p.FieldConfig.Defaults.Custom = object{"drawStyle": "line", "lineWidth": 2, "fillOpacity": 8, "showPoints": "auto", "pointSize": 4, "spanNulls": 60 * 1000, "thresholdsStyle": object{"mode": "off"}}
	p.Options = object{
		"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
	return p
}

// gatewayGraphs adds throughput, lag, queues, dead letters and memory over time.
func (b *builder) gatewayGraphs() {
	rate := ownGraph(telemetry.Text{VI: "Số liệu nhận được", EN: "Throughput. Readings accepted in a second."}, 12, 8, "suffix:/s")
	rate.asks("$tag_device", `SELECT non_negative_derivative(last("readings_total"), 1s) FROM "haidang_gateway" WHERE %s GROUP BY time($__interval), "device"`, own)
	b.add(rate)

	lag := ownGraph(telemetry.Text{VI: "Độ trễ của bên đọc", EN: "Lag. How far each follower is behind its log, by log time."}, 12, 8, "s")
	lag.asks("$tag_log · $tag_follower", `SELECT max("lag_s") FROM "haidang_follower" WHERE %s GROUP BY time($__interval), "log", "follower" fill(null)`, own)
	b.add(lag)

	queue := ownGraph(telemetry.Text{VI: "Khung chờ", EN: "Queues. Frames that a follower has not accepted yet."}, 12, 8, "none")
	queue.asks("$tag_log · $tag_follower", `SELECT max("lag_frames") FROM "haidang_follower" WHERE %s GROUP BY time($__interval), "log", "follower" fill(null)`, own)
	b.add(queue)

	aside := ownGraph(telemetry.Text{VI: "Bị gạt ra theo lý do", EN: "Dead letters by reason. Set aside since the start; nothing here is good."}, 12, 8, "none")
	aside.FieldConfig.Defaults.NoValue = "0"
	aside.asks("$tag_reason", `SELECT max("letters_total") FROM "haidang_set_aside" WHERE %s GROUP BY time($__interval), "reason" fill(null)`, own)
	b.add(aside)

	memory := ownGraph(telemetry.Text{VI: "Bộ nhớ theo thời gian", EN: "Memory over time. Resident memory of the process."}, 12, 8, "bytes")
	memory.asks("$tag_device", `SELECT max("memory_bytes") FROM "haidang_gateway" WHERE %s GROUP BY time($__interval), "device" fill(null)`, own)
	b.add(memory)

	disk := ownGraph(telemetry.Text{VI: "Đĩa còn trống theo thời gian", EN: "Disk free over time. On the disk of the embedded store."}, 12, 8, "bytes")
	disk.asks("$tag_device", `SELECT min("disk_free_bytes") FROM "haidang_gateway" WHERE %s GROUP BY time($__interval), "device" fill(null)`, own)
	b.add(disk)
}

// linksOfAll adds the links of every device, since nothing but the gateway is
// chosen here.
func (b *builder) linksOfAll(w, h int) {
	p := timeline(telemetry.Text{VI: "Kết nối của thiết bị", EN: "Links of devices. Connected or not, of every device and source."}, w, h,
		words(word{"0", "Mất", severityColor(telemetry.Extreme)}, word{"1", "Đang nối", severityColor(telemetry.NoSeverity)}))
	p.asks("$tag_device", `SELECT "up" FROM "link" WHERE time > ${__from}ms - 90d AND time <= ${__to}ms GROUP BY "device"`)
	b.add(p)
}

// recipients adds what became of the warnings for each recipient.
func (b *builder) recipients() {
	waiting := ownGraph(telemetry.Text{VI: "Cảnh báo chờ gửi", EN: "Undelivered. Age of the oldest transition that a recipient has not accepted."}, 12, 8, "s")
	waiting.asks("$tag_recipient", `SELECT max("waiting_s") FROM "haidang_recipient" WHERE %s GROUP BY time($__interval), "recipient" fill(null)`, own)
	b.add(waiting)

	list := table(telemetry.Text{VI: "Bên nhận cảnh báo", EN: "Recipients. What each has accepted, and attempts that failed, since the start."}, 12, 8, "Chờ",
		column{name: "Time", title: "Lúc"},
		column{name: "recipient", title: "Bên nhận"},
		column{name: "delivered_total", title: "Đã nhận", unit: "none"},
		column{name: "failed_total", title: "Lần hỏng", unit: "none"},
		column{name: "waiting_s", title: "Chờ", unit: "s"})
	list.asks("", `SELECT last("delivered_total") AS "delivered_total", "failed_total", "waiting_s" FROM "haidang_recipient" WHERE %s GROUP BY "recipient"`, ownNow)
	b.add(list)
}
