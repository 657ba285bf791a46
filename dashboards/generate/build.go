package main

import (
	"fmt"
	"strconv"

	"haidang/gateway/telemetry"
)

// Parts of queries. The names of fields in them are checked by the tests.
const (
	// chosen are the readings of the time range, sites and devices chosen above.
	chosen = `$timeFilter AND ` + scope
	scope  = `"site" =~ /^$site$/ AND "device" =~ /^$device$/`
	// trusted leaves out bad readings, calibration and maintenance: a peak that
	// is none would dwarf the flood.
	trusted = `("quality" = 'good' OR "quality" = 'suspect')`
	// standing is what held at the end of the time range, however long before it
	// began: a warning or a broken link is written once, when it changes.
	standing = `time > ${__to}ms - 90d AND time <= ${__to}ms AND ` + scope
	// running is what held in the range or before it.
	running = `time > ${__from}ms - 90d AND time <= ${__to}ms AND ` + scope

	// activeWarnings are those not cleared; a cleared one has severity 0.
	activeWarnings = `(SELECT last("severity") AS "severity", "state", "n", "id" FROM "warning" WHERE ` + standing + ` GROUP BY "device", "rule", "site") WHERE "severity" > 0`
	// downLinks are the devices and sources whose last link reading says 0.
	downLinks = `(SELECT last("up") AS "up", "cause_text" FROM "link" WHERE ` + standing + ` GROUP BY "device", "site") WHERE "up" < 1`
)

// A builder makes the panels of one dashboard and places them row by row.
type builder struct {
	catalogue *telemetry.Catalogue
	panels    []panel
	faults    []error

	x, y, rowH int
}

// store is the data source of provisioning/datasources/haidang.yaml.
func store() datasource { return datasource{Type: "influxdb", UID: "haidang"} }

// unit is the unit of a kind's value as Grafana writes it behind the number. Its
// own "lengthm" is not used: it would write 0.85 m as 850 mm.
func (b *builder) unit(kind, value string) string {
	k := b.catalogue.Kind(kind)
	if k == nil || k.Quantity(value) == nil {
		b.faults = append(b.faults, fmt.Errorf("there is no %s.%s in the kinds", kind, value))
		return "none"
	}
	return "suffix:" + k.Quantity(value).Unit
}

// newPanel returns a panel with what all have.
func newPanel(kind string, title telemetry.Text, w, h int) panel {
	return panel{
		Type: kind, Title: title.VI, Description: title.EN,
		Datasource: store(),
		GridPos:    gridPos{W: w, H: h},
		FieldConfig: fieldConfig{
			Defaults: fieldDefaults{
				Unit:       "none",
				Color:      object{"mode": "thresholds"},
				Thresholds: levels(step{Color: "green"}),
				Mappings:   []object{},
			},
			Overrides: []override{},
		},
	}
}

// asks gives the panel its query; series are named by alias, without one the
// answer is a table.
func (p *panel) asks(alias, format string, args ...any) {
	t := target{RefID: "A", Datasource: store(), RawQuery: true, ResultFormat: "table", Query: fmt.Sprintf(format, args...)}
	if alias != "" {
		t.ResultFormat, t.Alias = "time_series", alias
	}
	p.Targets = []target{t}
}

// add numbers the panel and places it to the right of the last one, or below.
func (b *builder) add(p panel) {
	if b.x+p.GridPos.W > 24 {
		b.x, b.y, b.rowH = 0, b.y+b.rowH, 0
	}
	p.ID, p.GridPos.X, p.GridPos.Y = len(b.panels)+1, b.x, b.y
	b.x, b.rowH = b.x+p.GridPos.W, max(b.rowH, p.GridPos.H)
	b.panels = append(b.panels, p)
}

// graph returns a panel of lines over time, one for each device.
func (b *builder) graph(title telemetry.Text, w, h int, kind, value string) panel {
	p := newPanel("timeseries", title, w, h)
	p.FieldConfig.Defaults.Unit = b.unit(kind, value)
	p.FieldConfig.Defaults.Color = object{"mode": "palette-classic"}
	p.FieldConfig.Defaults.Custom = object{
		"drawStyle": "line", "lineWidth": 2, "fillOpacity": 8, "showPoints": "auto", "pointSize": 4,
		// Stations report every ten minutes or every hour; longer is a gap. ms.
		"spanNulls":       2 * 3600 * 1000,
		"thresholdsStyle": object{"mode": "off"},
	}
	p.Options = object{
		"legend":  object{"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": []string{"lastNotNull", "max"}},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
	return p
}

// timeline returns a panel of states over time, one row for each series.
func timeline(title telemetry.Text, w, h int, mapping object) panel {
	p := newPanel("state-timeline", title, w, h)
	p.FieldConfig.Defaults.Mappings = []object{mapping}
	p.FieldConfig.Defaults.Custom = object{"fillOpacity": 80, "lineWidth": 0, "spanNulls": false}
	p.Options = object{
		"alignValue": "left", "mergeValues": true, "rowHeight": 0.9, "showValue": "auto",
		"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": false},
		"tooltip": object{"mode": "single", "sort": "none"},
	}
	return p
}

// stat returns a panel of large numbers.
func stat(title telemetry.Text, w, h int) panel {
	p := newPanel("stat", title, w, h)
	p.Options = object{
		"colorMode": "background", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
		"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
	}
	return p
}

// A column of a table: its name in the answer and what people read.
type column struct {
	name, title string
	unit        string // "" for words
	decimals    int
	mapping     object // values to words and colours
}

func table(title telemetry.Text, w, h int, newest string, columns ...column) panel {
	p := newPanel("table", title, w, h)
	p.FieldConfig.Defaults.NoValue = "—"
	p.FieldConfig.Defaults.Custom = object{"align": "auto", "displayMode": "auto", "filterable": true}
	p.FieldConfig.Overrides = columnOverrides(columns)
	p.Options = object{"showHeader": true, "footer": object{"show": false}, "sortBy": []object{{"displayName": newest, "desc": true}}}
	return p
}

// columnOverrides names the columns, and gives them units and colours.
func columnOverrides(columns []column) []override {
	out := []override{}
	for _, c := range columns {
		o := override{Matcher: object{"id": "byName", "options": c.name}, Properties: []property{{"displayName", c.title}}}
		if c.unit != "" {
			o.Properties = append(o.Properties, property{"unit", c.unit}, property{"decimals", c.decimals})
		}
		if c.mapping != nil {
			o.Properties = append(o.Properties, property{"mappings", []object{c.mapping}}, property{"custom.displayMode", "color-background"})
		}
		out = append(out, o)
	}
	return out
}

// levels are thresholds; the first has no value.
func levels(steps ...step) thresholds { return thresholds{Mode: "absolute", Steps: steps} }

func at(value float64, color string) step { return step{Color: color, Value: &value} }

// A word is how a value of a field is shown.
type word struct{ value, text, color string }

func words(list ...word) object {
	options := object{}
	for i, w := range list {
		options[w.value] = object{"text": w.text, "color": w.color, "index": i}
	}
	return object{"type": "value", "options": options}
}

// severityColor has the colours of the console's page.
func severityColor(s telemetry.Severity) string {
	return [...]string{"#15803d", "#6b7280", "#ca8a04", "#ea580c", "#dc2626"}[s]
}

func severities() object {
	text := [...]string{"Không", "Nhẹ", "Trung bình", "Nghiêm trọng", "Đặc biệt nghiêm trọng"}
	var list []word
	for s := telemetry.NoSeverity; s <= telemetry.Extreme; s++ {
		list = append(list, word{strconv.Itoa(int(s)), text[s], severityColor(s)})
	}
	return words(list...)
}

// board is a dashboard of the panels added so far. devices are the measurements
// whose devices can be chosen, "" for all.
func (b *builder) board(uid string, title telemetry.Text, from, devices string, allValue *string) dashboard {
	pick := func(name, label, query string) variable {
		return variable{
			Name: name, Label: label, Type: "query", Datasource: store(), Query: query, Definition: query,
			Refresh: 1, Sort: 1, Multi: true, IncludeAll: true, AllValue: allValue,
			Current: object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}},
		}
	}
	return dashboard{
		UID: uid, Title: title.VI, Description: title.EN, Tags: []string{"haidang"},
		Timezone: "Asia/Ho_Chi_Minh", WeekStart: "monday", GraphTooltip: 1, Refresh: "10s", SchemaVersion: schemaVersion,
		Time:       timeRange{From: from, To: "now"},
		Timepicker: object{"refresh_intervals": []string{"5s", "10s", "30s", "1m", "5m", "15m", "1h"}},
		Links: []object{{
			"type": "dashboards", "tags": []string{"haidang"}, "title": "Hải Đăng", "asDropdown": false,
			"includeVars": false, "keepTime": true, "targetBlank": false, "icon": "external link",
		}},
		Annotations: object{"list": []object{}},
		Templating: templating{List: []variable{
			pick("site", "Điểm đo / Site", `SHOW TAG VALUES`+devices+` WITH KEY = "site"`),
			pick("device", "Thiết bị / Device", `SHOW TAG VALUES`+devices+` WITH KEY = "device" WHERE "site" =~ /^$site$/`),
		}},
		Panels: b.panels,
	}
}

// warningTable lists the warnings that are not cleared.
func warningTable(w, h int) panel {
	p := table(telemetry.Text{VI: "Cảnh báo đang hiệu lực", EN: "Warnings not cleared at the end of the time range, with their last change. Begun up to 90 days before."}, w, h, "Lúc",
		column{name: "Time", title: "Lúc"},
		column{name: "severity", title: "Mức độ", mapping: severities()},
		column{name: "device", title: "Thiết bị"},
		column{name: "site", title: "Điểm đo"},
		column{name: "rule", title: "Quy tắc"},
		column{name: "state", title: "Trạng thái", mapping: words(
			word{"active", "Chưa ai nhận", "#dc2626"}, word{"acknowledged", "Đã có người nhận", "#2563eb"}, word{"shelved", "Tạm gác", "#6b7280"})},
		column{name: "n", title: "Lần đổi", unit: "none"},
		column{name: "id", title: "Mã"})
	p.asks("", `SELECT "severity", "state", "n", "id" FROM %s GROUP BY "device", "rule", "site"`, activeWarnings)
	return p
}
