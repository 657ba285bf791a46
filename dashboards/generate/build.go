package main

import (
	"fmt"
	"strconv"
	"strings"

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

	// activeWarnings are those not cleared, from the severity chosen on; a cleared
	// one has severity 0.
	activeWarnings = `(SELECT last("severity") AS "severity", "state", "n", "id" FROM "warning" WHERE ` + standing + ` GROUP BY "device", "rule", "site") WHERE "severity" >= $severity`
	// newestStates are how the registered devices are at the end of the range: the
	// gateway writes it at least every few minutes.
	newestStates = `(SELECT last("state") AS "state", "silent", "severity", "heard_ago_s", "lat", "lon", "name_text", "owner_text", "problem_text" FROM "haidang_device" WHERE time > ${__to}ms - 30m AND time <= ${__to}ms AND ` + scope + ` GROUP BY "device", "site")`
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

// newPanel returns a panel with what all have. The first sentence of the English
// text is the title's second half, all of it is behind the (i).
func newPanel(kind string, title telemetry.Text, w, h int) panel {
	return panel{
		Type: kind, Title: bilingual(title), Description: title.EN,
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

// bilingual is a title in both languages.
func bilingual(title telemetry.Text) string {
	english, _, _ := strings.Cut(title.EN, ". ")
	return title.VI + " / " + strings.TrimSuffix(english, ".")
}

// asks gives the panel a query, or one more; series are named by alias, without
// one the answer is a table.
func (p *panel) asks(alias, format string, args ...any) {
	t := target{RefID: string(rune('A' + len(p.Targets))), Datasource: store(), RawQuery: true, ResultFormat: "table", Query: fmt.Sprintf(format, args...)}
	if alias != "" {
		t.ResultFormat, t.Alias = "time_series", alias
	}
	p.Targets = append(p.Targets, t)
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

// row begins a row with a title of its own: what is added from here on belongs to
// it. With a variable to repeat the row is shown once for each of its values.
func (b *builder) row(title, about, repeat string) {
	open := false
	p := newPanel("row", telemetry.Text{VI: title, EN: about}, 24, 1)
	p.Title, p.Repeat, p.Collapsed, p.Panels, p.Targets, p.Options = title, repeat, &open, &[]panel{}, []target{}, object{}
	b.x = 24 // the row begins below
	b.add(p)
}

// beside places the panel below the last one, within the height of its row.
func (b *builder) beside(p panel) {
	last := b.panels[len(b.panels)-1].GridPos
	p.ID, p.GridPos.X, p.GridPos.Y = len(b.panels)+1, last.X, last.Y+last.H
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

// gauges returns a panel of horizontal bars, one for each series.
func gauges(title telemetry.Text, w, h int) panel {
	p := newPanel("bargauge", title, w, h)
	p.FieldConfig.Defaults.Min = new(float64)
	p.FieldConfig.Defaults.NoValue = "—"
	p.Options = object{
		"displayMode": "basic", "orientation": "horizontal", "showUnfilled": true, "minVizWidth": 0, "minVizHeight": 16,
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
	link        string // dashboard that a click on the device opens
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
		if c.link != "" {
			o.Properties = append(o.Properties, property{"links", []object{{"title": "Chi tiết / Details", "url": "/d/" + c.link + "?var-device=${__value.text}&${__url_time_range}"}}})
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

func severityText(s telemetry.Severity) string {
	return [...]string{"Không", "Nhẹ", "Trung bình", "Nghiêm trọng", "Đặc biệt nghiêm trọng"}[s]
}

func severities() object {
	var list []word
	for s := telemetry.NoSeverity; s <= telemetry.Extreme; s++ {
		list = append(list, word{strconv.Itoa(int(s)), severityText(s), severityColor(s)})
	}
	return words(list...)
}

// deviceStates are those of field state of haidang_device: a silent device, a
// device that is well, and the severities of warnings.
func deviceStates() object {
	list := []word{{"-1", "Im lặng", silentColor}, {"0", "Bình thường", severityColor(telemetry.NoSeverity)}}
	for s := telemetry.Minor; s <= telemetry.Extreme; s++ {
		list = append(list, word{strconv.Itoa(int(s)), severityText(s), severityColor(s)})
	}
	return words(list...)
}

// stateSteps colours field state where words do not reach: on a map.
func stateSteps() thresholds {
	steps := []step{{Color: silentColor}, at(0, severityColor(telemetry.NoSeverity))}
	for s := telemetry.Minor; s <= telemetry.Extreme; s++ {
		steps = append(steps, at(float64(s), severityColor(s)))
	}
	return levels(steps...)
}

const silentColor = "#7c3aed"

// qualities are the words of field quality.
func qualities() object {
	return words(
		word{"good", "Tốt", "#15803d"}, word{"suspect", "Nghi ngờ", "#ca8a04"}, word{"bad", "Sai", "#dc2626"},
		word{"calibrating", "Hiệu chuẩn", "#6b7280"}, word{"maintenance", "Bảo trì", "#6b7280"})
}

// A scene is what a dashboard is besides its panels.
type scene struct {
	uid       string
	title     telemetry.Text
	from      string // the time range when it is opened
	variables []variable
	// annotated draws the warnings into every graph.
	annotated bool
}

// board is a dashboard of the panels added so far.
func (b *builder) board(s scene) dashboard {
	annotations := []object{}
	if s.annotated {
		annotations = append(annotations, warningAnnotation())
	}
	return dashboard{
		UID: s.uid, Title: bilingual(s.title), Description: s.title.EN, Tags: []string{"haidang"},
		Timezone: "Asia/Ho_Chi_Minh", WeekStart: "monday", GraphTooltip: 1, Refresh: "10s", SchemaVersion: schemaVersion,
		Time:       timeRange{From: s.from, To: "now"},
		Timepicker: object{"refresh_intervals": []string{"5s", "10s", "30s", "1m", "5m", "15m", "1h"}},
		Links: []object{{
			"type": "dashboards", "tags": []string{"haidang"}, "title": "Hải Đăng", "asDropdown": false,
			"includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link",
		}},
		Annotations: object{"list": annotations},
		Templating:  templating{List: s.variables},
		Panels:      b.panels,
	}
}

// warningAnnotation marks each change of a warning of the devices chosen, in the
// form that Grafana's InfluxDB source reads: the columns are named in the target.
func warningAnnotation() object {
	return object{
		"name": "Cảnh báo / Warnings", "enable": true, "hide": false, "iconColor": severityColor(telemetry.Extreme),
		"datasource": store(),
		"target": object{
			"refId": "warnings", "rawQuery": true, "fromAnnotations": true, "resultFormat": "table",
			"query":      `SELECT "state", "severity", "device", "rule" FROM "warning" WHERE ` + chosen + ` AND "severity" >= $severity`,
			"textColumn": "state", "tagsColumn": "device,rule", "titleColumn": "", "timeEndColumn": "",
		},
	}
}

// pick is a variable of which several values, or all, can be chosen. Without a
// value of its own for all, all are the values listed.
func pick(name, label, query string, allValue *string) variable {
	source := store()
	return variable{
		Name: name, Label: label, Type: "query", Datasource: &source, Query: query, Definition: query,
		Refresh: 1, Sort: 1, Multi: true, IncludeAll: true, AllValue: allValue,
		Current: object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}},
	}
}

// choose is a variable with one value; the dashboard opens with the first.
func choose(name, label, query string) variable {
	v := pick(name, label, query, nil)
	v.Multi, v.IncludeAll, v.Current = false, false, object{}
	return v
}

// sitesAndDevices are the variables site and device; from is the measurements whose
// devices can be chosen, "" for all.
func sitesAndDevices(from string, allValue *string) []variable {
	return []variable{
		pick("site", "Điểm đo / Site", `SHOW TAG VALUES`+from+` WITH KEY = "site"`, allValue),
		pick("device", "Thiết bị / Device", `SHOW TAG VALUES`+from+` WITH KEY = "device" WHERE "site" =~ /^$site$/`, allValue),
	}
}

// severityVariable chooses from which severity on warnings are shown.
func severityVariable() variable {
	v := variable{Name: "severity", Label: "Từ mức / From severity", Type: "custom", Current: object{"selected": true, "text": severityText(telemetry.Minor), "value": "1"}}
	var list []string
	for s := telemetry.Minor; s <= telemetry.Extreme; s++ {
		value := strconv.Itoa(int(s))
		list = append(list, severityText(s)+" : "+value)
		v.Options = append(v.Options, object{"text": severityText(s), "value": value, "selected": s == telemetry.Minor})
	}
	v.Query = strings.Join(list, ", ")
	return v
}

func warningStates() object {
	return words(
		word{"active", "Chưa ai nhận", "#dc2626"}, word{"acknowledged", "Đã có người nhận", "#2563eb"}, word{"shelved", "Tạm gác", "#6b7280"},
		word{"returned", "Đã hết, chờ xác nhận", "#ca8a04"}, word{"cleared", "Đã hết", "#15803d"})
}

// warningTable lists the warnings that are not cleared.
func warningTable(w, h int) panel {
	p := table(telemetry.Text{VI: "Cảnh báo đang hiệu lực", EN: "Active warnings. Those not cleared at the end of the time range, with their last change; begun up to 90 days before."}, w, h, "Lúc",
		column{name: "Time", title: "Lúc"},
		column{name: "severity", title: "Mức độ", mapping: severities()},
		column{name: "device", title: "Thiết bị", link: "haidang-warnings"},
		column{name: "site", title: "Điểm đo"},
		column{name: "rule", title: "Quy tắc"},
		column{name: "state", title: "Trạng thái", mapping: warningStates()},
		column{name: "n", title: "Lần đổi", unit: "none"},
		column{name: "id", title: "Mã"})
	p.asks("", `SELECT "severity", "state", "n", "id" FROM %s GROUP BY "device", "rule", "site"`, activeWarnings)
	return p
}
