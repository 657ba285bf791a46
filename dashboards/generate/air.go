package main

import (
	"fmt"
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// A pollutant is a value of kind air, with the limits of QCVN 05:2023/BTNMT that
// are drawn and the breakpoints of VN_AQI (Decision 1459/QD-TCMT).
type pollutant struct {
	value   string
	hours   int     // of the mean that the limit is for
	limit   float64 // µg/m³
	column  string  // its name in the table of the index
	most    bool    // the index of a day is of the highest hour; else of the day's mean
	aqi     []float64
	comment string
}

// indexSteps are the values of the index at the breakpoints.
func indexSteps() []float64 { return []float64{0, 50, 100, 150, 200, 300, 400, 500} }

func pollutants() []pollutant {
	return []pollutant{
		{value: "pm25_ugm3", hours: 24, limit: 45, column: "PM2.5", aqi: []float64{0, 25, 50, 80, 150, 250, 350, 500}, comment: "45 since 2026-01-01, 50 before"},
		{value: "pm10_ugm3", hours: 24, limit: 100, column: "PM10", aqi: []float64{0, 50, 150, 250, 350, 420, 500, 600}},
		{value: "tsp_ugm3", hours: 1, limit: 300},
		{value: "so2_ugm3", hours: 1, limit: 350, column: "SO2", most: true, aqi: []float64{0, 125, 350, 550, 800, 1600, 2100, 2630}},
		{value: "no2_ugm3", hours: 1, limit: 200, column: "NO2", most: true, aqi: []float64{0, 100, 200, 700, 1200, 2350, 3100, 3850}},
		{value: "co_ugm3", hours: 1, limit: 30000, column: "CO", most: true, aqi: []float64{0, 10000, 30000, 45000, 60000, 90000, 120000, 150000}},
		{value: "o3_ugm3", hours: 1, limit: 200, column: "O3", most: true, aqi: []float64{0, 160, 200, 300, 400, 800, 1000, 1200}},
	}
}

// A limited is a value of kind water with the limits of QCVN 08:2023/BTNMT, table
// 2 (rivers), that are drawn: classes A and B where the standard has them.
type limited struct {
	value string
	a, b  *float64
	least bool // the limits are lower ones
}

func limits() []limited {
	of := func(v float64) *float64 { return &v }
	return []limited{
		{value: "ph"},
		{value: "do_mgl", b: of(5), least: true},
		{value: "bod5_mgl", a: of(4), b: of(6)},
		{value: "cod_mgl", a: of(10), b: of(15)},
		{value: "tss_mgl", a: of(25)},
		{value: "total_p_mgl", a: of(0.1), b: of(0.3)},
		{value: "total_n_mgl", a: of(0.6), b: of(1.5)},
		{value: "coliform_100ml", a: of(1000), b: of(5000)},
		{value: "nh4_mgl"},
		{value: "turbidity_ntu"},
		{value: "conductivity_mscm"},
		{value: "salinity_ppt"},
	}
}

// air is the dashboard of air and water.
func air(b *builder) dashboard {
	b.index()
	for _, p := range pollutants() {
		b.pollutant(p)
	}
	b.qualityOf("air", "không khí", "air")
	b.qualityOf("water", "nước", "water")
	for _, l := range limits() {
		b.water(l)
	}
	return b.board(scene{
		uid: "haidang-air", title: telemetry.Text{VI: "Không khí và nước", EN: "Air and water. VN_AQI, pollutants against the limits of QCVN, quality of each series."},
		from: "now-24h", annotated: true, variables: append(sitesAndDevices(` FROM "air", "water"`, everything()), severityVariable()),
	})
}

// aqiSteps are the official colours of VN_AQI.
func aqiSteps() thresholds {
	return levels(step{Color: "rgb(0,228,0)"}, at(51, "rgb(255,255,0)"), at(101, "rgb(255,126,0)"), at(151, "rgb(255,0,0)"), at(201, "rgb(143,63,151)"), at(301, "rgb(126,0,35)"))
}

// index adds VN_AQI of the last 24 hours, and the index of each pollutant. It is
// the index of a day over a day that ends with the range: particles by their
// mean of 24 hours, gases by their highest hour.
func (b *builder) index() {
	const what = "of the 24 hours before the end of the range: particles by the mean of 24 hours, gases by the highest hour (Decision 1459/QD-TCMT, daily). O3 over 8 hours is left out; the hourly index with NowCast is what rules reckon (vn_aqi)."
	all := gauges(telemetry.Text{VI: "VN_AQI 24 giờ", EN: "VN_AQI of 24 h. The highest index of all pollutants, " + what}, 8, 7)
	all.FieldConfig.Defaults.Max = at(500, "").Value
	all.Options["reduceOptions"] = object{"calcs": []string{"lastNotNull"}, "fields": "/^VN_AQI$/", "values": true}
	list := table(telemetry.Text{VI: "Chỉ số từng chất", EN: "Index by pollutant. The VN_AQI of each " + what}, 16, 7, "PM2.5", column{name: "Time", title: "Từ lúc"}, column{name: "device", title: "Trạm"}, column{name: "site", title: "Điểm đo"})
	list.FieldConfig.Defaults.Custom["displayMode"] = "color-background-solid"
	list.FieldConfig.Overrides = append(list.FieldConfig.Overrides,
		override{Matcher: object{"id": "byRegexp", "options": "/Time|device|site/"}, Properties: []property{{"custom.displayMode", "auto"}}})
	for _, p := range []*panel{&all, &list} {
		p.FieldConfig.Defaults.Decimals = places(0)
		p.FieldConfig.Defaults.Thresholds = aqiSteps()
		p.FieldConfig.Defaults.NoValue = "—"
		p.asks("", "%s", b.indexQuery())
	}
	all.Transformations = []object{{"id": "calculateField", "options": object{
		"mode": "reduceRow", "alias": "VN_AQI", "replaceFields": false,
		"reduce": object{"reducer": "max", "include": indexColumns()}}}}
	b.add(all)
	b.add(list)
}

func indexColumns() []string {
	var names []string
	for _, p := range pollutants() {
		if p.aqi != nil {
			names = append(names, p.column)
		}
	}
	return names
}

// indexQuery reckons the index of each pollutant: hourly means, then the mean or
// the highest of them, then the line through the breakpoints.
func (b *builder) indexQuery() string {
	var hourly, daily, index []string
	for _, p := range pollutants() {
		b.unit("air", p.value) // it must be in the catalogue
		if p.aqi == nil {
			continue
		}
		of := "mean"
		if p.most {
			of = "max"
		}
		hourly = append(hourly, fmt.Sprintf(`mean("%s") AS "%s"`, p.value, p.value))
		daily = append(daily, fmt.Sprintf(`%s("%s") AS "%s"`, of, p.value, p.value))
		index = append(index, fmt.Sprintf(`round(%s) AS "%s"`, brokenLine(`"`+p.value+`"`, p.aqi, indexSteps()), p.column))
	}
	return fmt.Sprintf(`SELECT %s FROM (SELECT %s FROM (SELECT %s FROM "air" WHERE time > ${__to}ms - 24h AND time <= ${__to}ms AND %s AND %s GROUP BY time(1h), "device", "site" fill(none)) GROUP BY "device", "site") GROUP BY "device", "site"`,
		strings.Join(index, ", "), strings.Join(daily, ", "), strings.Join(hourly, ", "), scope, trusted)
}

// brokenLine is the line through the points (x, y), level behind the last one, as
// an expression of InfluxQL, which knows no conditions: half of (v-x) + |v-x| is
// what v is above x.
func brokenLine(v string, x, y []float64) string {
	number := func(f float64) string { return strconv.FormatFloat(f, 'g', 12, 64) }
	var b strings.Builder
	before := 0.0
	for i := range x {
		slope := 0.0
		if i+1 < len(x) {
			slope = (y[i+1] - y[i]) / (x[i+1] - x[i])
		}
		if i == 0 { // what is measured is never below 0
			fmt.Fprintf(&b, "%s * %s", number(slope), v)
		} else if change := (slope - before) / 2; change > 0 {
			fmt.Fprintf(&b, " + %s * (%s - %s + abs(%s - %s))", number(change), v, number(x[i]), v, number(x[i]))
		} else if change < 0 {
			fmt.Fprintf(&b, " - %s * (%s - %s + abs(%s - %s))", number(-change), v, number(x[i]), v, number(x[i]))
		}
		before = slope
	}
	return b.String()
}

// pollutant adds the graph of one pollutant with its limit.
func (b *builder) pollutant(p pollutant) {
	q := b.quantity("air", p.value)
	about := fmt.Sprintf("%s. Mean of each hour. Line: %v %s, limit of QCVN 05:2023/BTNMT for the mean of %d h", q.Title.EN, p.limit, q.Unit, p.hours)
	if p.hours > 1 {
		about += ", which the second series is (from 24 whole hours on)"
	}
	if p.comment != "" {
		about += "; " + p.comment
	}
	graph := b.graph(telemetry.Text{VI: q.Title.VI, EN: about + "."}, 8, 7, "air", p.value)
	graph.FieldConfig.Defaults.Decimals = places(0)
	graph.FieldConfig.Defaults.Thresholds = levels(step{Color: "transparent"}, at(p.limit, severityColor(telemetry.Extreme)))
	graph.FieldConfig.Defaults.Custom["thresholdsStyle"] = object{"mode": "line"}
	graph.FieldConfig.Defaults.Min = new(float64)
	graph.asks("$tag_device", `SELECT mean("%s") FROM "air" WHERE %s AND %s GROUP BY time(1h), "device" fill(null)`, p.value, chosen, trusted)
	if p.hours > 1 {
		graph.asks("$tag_device "+strconv.Itoa(p.hours)+" h", `SELECT moving_average(mean("%s"), %d) FROM "air" WHERE %s AND %s GROUP BY time(1h), "device"`, p.value, p.hours, chosen, trusted)
	}
	b.add(graph)
}

// water adds the graph of one value of water.
func (b *builder) water(l limited) {
	q := b.quantity("water", l.value)
	about := q.Title.EN + ". Mean in every interval"
	steps := []step{{Color: "transparent"}}
	for _, class := range []struct {
		name  string
		limit *float64
		color string
	}{{"A", l.a, severityColor(telemetry.Moderate)}, {"B", l.b, severityColor(telemetry.Extreme)}} {
		if class.limit != nil {
			word := "at most"
			if l.least {
				word = "at least"
			}
			about += fmt.Sprintf("; class %s of QCVN 08:2023/BTNMT, rivers: %s %v %s", class.name, word, *class.limit, q.Unit)
			steps = append(steps, at(*class.limit, class.color))
		}
	}
	if l.value == "ph" {
		about += "; class A of QCVN 08:2023/BTNMT, rivers: 6.5 to 8.5, class B 6.0 to 8.5"
		steps = append(steps, at(6, severityColor(telemetry.Extreme)), at(6.5, severityColor(telemetry.Moderate)), at(8.5, severityColor(telemetry.Extreme)))
	}
	graph := b.graph(telemetry.Text{VI: q.Title.VI, EN: about + "."}, 8, 7, "water", l.value)
	graph.FieldConfig.Defaults.Thresholds = levels(steps...)
	if len(steps) > 1 {
		graph.FieldConfig.Defaults.Custom["thresholdsStyle"] = object{"mode": "line"}
	}
	graph.asks("$tag_device", `SELECT mean("%s") FROM "water" WHERE %s AND %s GROUP BY time($__interval), "device" fill(null)`, l.value, chosen, trusted)
	b.add(graph)
}

// quantity is a value of the catalogue; a fault when it is not there.
func (b *builder) quantity(kind, value string) telemetry.Quantity {
	b.unit(kind, value)
	if k := b.catalogue.Kind(kind); k != nil && k.Quantity(value) != nil {
		return *k.Quantity(value)
	}
	return telemetry.Quantity{}
}

// qualityOf adds the quality of every series of a kind over time.
func (b *builder) qualityOf(kind, vi, en string) {
	p := timeline(telemetry.Text{VI: "Chất lượng số liệu " + vi, EN: "Quality, " + en + ". Of the last reading of each station in every interval: good, suspect, bad, calibrating, maintenance."}, 12, 6, qualities())
	p.asks("$tag_device", `SELECT last("quality") FROM "%s" WHERE %s GROUP BY time($__interval), "device" fill(none)`, kind, chosen)
	b.add(p)
}
