package main

// The part of Grafana's dashboard model that is used here. What depends on the
// type of a panel (options, custom) stays an object: Grafana's own schema of it
// differs between versions.

// schemaVersion is the newest that Grafana 9.4 and all later ones read alike: 38
// only renamed displayMode of tables, which newer ones still understand.
const schemaVersion = 37

type object = map[string]any

type dashboard struct {
	UID           string     `json:"uid"`
	Title         string     `json:"title"`
	Description   string     `json:"description"`
	Tags          []string   `json:"tags"`
	Timezone      string     `json:"timezone"`
	WeekStart     string     `json:"weekStart"`
	Editable      bool       `json:"editable"`
	GraphTooltip  int        `json:"graphTooltip"` // 1: one crosshair in all panels
	Refresh       string     `json:"refresh"`
	SchemaVersion int        `json:"schemaVersion"`
	Time          timeRange  `json:"time"`
	Timepicker    object     `json:"timepicker"`
	Links         []object   `json:"links"`
	Annotations   object     `json:"annotations"`
	Templating    templating `json:"templating"`
	Panels        []panel    `json:"panels"`
}

type timeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type templating struct {
	List []variable `json:"list"`
}

type variable struct {
	Name       string      `json:"name"`
	Label      string      `json:"label"`
	Type       string      `json:"type"`
	Datasource *datasource `json:"datasource,omitempty"` // nil: a custom variable
	Query      string      `json:"query"`
	Definition string      `json:"definition,omitempty"`
	Options    []object    `json:"options,omitempty"` // of a custom variable
	Refresh    int         `json:"refresh"`           // 1: when the dashboard loads
	Sort       int         `json:"sort"`              // 1: alphabetical
	Multi      bool        `json:"multi"`
	IncludeAll bool        `json:"includeAll"`
	AllValue   *string     `json:"allValue"` // null: all is the list of them
	Current    object      `json:"current"`
	Hide       int         `json:"hide"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description"`
	Datasource  datasource  `json:"datasource"`
	GridPos     gridPos     `json:"gridPos"`
	Repeat      string      `json:"repeat,omitempty"`    // a row: a variable, once for each of whose values it is shown
	Collapsed   *bool       `json:"collapsed,omitempty"` // of a row
	Panels      *[]panel    `json:"panels,omitempty"`    // of a collapsed row; [] of another
	Targets     []target    `json:"targets"`
	FieldConfig fieldConfig `json:"fieldConfig"`
	Options     object      `json:"options"`

	Transformations []object `json:"transformations,omitempty"`
}

// gridPos is in units of a grid that is 24 wide; a unit of height is 30 px.
type gridPos struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type target struct {
	RefID        string     `json:"refId"`
	Datasource   datasource `json:"datasource"`
	RawQuery     bool       `json:"rawQuery"`
	Query        string     `json:"query"`
	ResultFormat string     `json:"resultFormat"`
	Alias        string     `json:"alias,omitempty"`
}

type fieldConfig struct {
	Defaults  fieldDefaults `json:"defaults"`
	Overrides []override    `json:"overrides"`
}

type fieldDefaults struct {
	Unit       string     `json:"unit"`
	Decimals   *int       `json:"decimals,omitempty"`
	Min        *float64   `json:"min,omitempty"`
	Max        *float64   `json:"max,omitempty"`
	NoValue    string     `json:"noValue,omitempty"`
	Color      object     `json:"color"`
	Thresholds thresholds `json:"thresholds"`
	Mappings   []object   `json:"mappings"`
	Custom     object     `json:"custom,omitempty"`
}

type thresholds struct {
	Mode  string `json:"mode"`
	Steps []step `json:"steps"`
}

type step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"` // null: from minus infinity
}

type override struct {
	Matcher    object     `json:"matcher"`
	Properties []property `json:"properties"`
}

type property struct {
	ID    string `json:"id"`
	Value any    `json:"value"`
}
