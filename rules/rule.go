package rules

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"haidang/gateway/telemetry"
)

// Bounds of rules.
const (
	MaxExpressionBytes = 4096                 // length of one expression
	MaxNodes           = 200                  // nodes in the tree of one expression
	MaxHold            = 400 * 24 * time.Hour // for, clear_for and silent
	MinWindow          = time.Second
	MaxWindow          = 30 * 24 * time.Hour
)

// A File is a rule file.
type File struct {
	Rules  []Rule  `json:"rules" yaml:"rules"`
	Limits []Limit `json:"limits,omitempty" yaml:"limits"`
}

// A Limit is a threshold that is in force from a day on, for limit("pm25_24h").
// Limits of one name follow each other.
type Limit struct {
	Name  string  `json:"name" yaml:"name"`           // see telemetry.ValidName
	Value float64 `json:"value" yaml:"value"`         // in the unit of what it is compared with
	From  string  `json:"from,omitempty" yaml:"from"` // first day at UTC+07:00, such as 2026-01-01; left out: always
}

// A Rule raises one warning per device. It has either when (and clear) or
// levels.
type Rule struct {
	Name string `json:"name" yaml:"name"` // see telemetry.ValidName

	// On is the kind whose readings trigger the rule. Without it the rule is
	// about the device as a whole: any kind but link triggers it, and its
	// conditions name no values.
	On string `json:"on,omitempty" yaml:"on"`

	// Where selects devices by their facts; it is decided once per device.
	Where string `json:"where,omitempty" yaml:"where"`

	When  string `json:"when,omitempty" yaml:"when"`   // raises
	Clear string `json:"clear,omitempty" yaml:"clear"` // ends; default: not when

	// Severity of a rule without levels; default moderate.
	Severity telemetry.Severity `json:"severity,omitempty" yaml:"severity"`

	// Levels are judged each on its own; the warning has the severity of the
	// highest that is latched.
	Levels []Level `json:"levels,omitempty" yaml:"levels"`

	For      telemetry.Duration `json:"for,omitempty" yaml:"for"`             // how long when must hold before it counts
	ClearFor telemetry.Duration `json:"clear_for,omitempty" yaml:"clear_for"` // how long clear must hold before it counts

	// Message may name {level_m}, {device.name}, {severity}, {level} (the title
	// of the level in force), {threshold}, {rule}, and any expression that gives
	// a number or a word.
	Message telemetry.Text `json:"message" yaml:"message"`

	// Cleared is the message of the warning that ends, with the values of then; as
	// Message. Left out, it is Message after "Đã hết: " and "Over: ".
	Cleared telemetry.Text `json:"cleared,omitzero" yaml:"cleared"`

	To []string `json:"to,omitempty" yaml:"to"` // recipients; none means all

	Disabled bool `json:"disabled,omitempty" yaml:"disabled"` // checked, and not evaluated
	Shadow   bool `json:"shadow,omitempty" yaml:"shadow"`     // evaluated and counted, delivered to nobody; see Options.Shadow
	Latch    bool `json:"latch,omitempty" yaml:"latch"`       // stands until somebody has acknowledged it; see telemetry.Board

	Flap        *Flap    `json:"flap,omitempty" yaml:"flap"`                 // nil: as DefaultFlap says
	InhibitedBy []string `json:"inhibited_by,omitempty" yaml:"inhibited_by"` // rules while whose warnings this one is not raised
	Mute        []Mute   `json:"mute,omitempty" yaml:"mute"`                 // when it is not raised
}

// A Flap says from when on changes of a warning are too many: when it rises to
// the same severity for the Raises-th time within Within it flaps, stays at its
// highest severity, and follows its conditions again after Quiet without a change.
type Flap struct {
	Raises int                `json:"raises" yaml:"raises"`                   // to the same severity, 2..100; 0: never
	Within telemetry.Duration `json:"within,omitempty" yaml:"within"`         // default 1h
	Quiet  telemetry.Duration `json:"quiet,omitempty" yaml:"quiet,omitempty"` // default half of within
}

// DefaultFlap is in force where a rule says nothing: five rises within an hour,
// and half an hour of quiet.
func DefaultFlap() Flap {
	return Flap{Raises: 5, Within: telemetry.Duration(time.Hour), Quiet: telemetry.Duration(30 * time.Minute)}
}

// A Mute is a time of the week, at UTC+07:00, in which a rule raises nothing.
type Mute struct {
	Days []string `json:"days,omitempty" yaml:"days"` // on which it begins: mon tue wed thu fri sat sun; default all
	From string   `json:"from,omitempty" yaml:"from"` // 22:00; default 00:00
	To   string   `json:"to,omitempty" yaml:"to"`     // 06:00, of the next day when it is not after from; default 24:00
}

// A Level is one severity of a rule.
type Level struct {
	Severity telemetry.Severity  `json:"severity" yaml:"severity"`     // of the warning while this is the highest level
	When     string              `json:"when" yaml:"when"`             // sets the level
	Clear    string              `json:"clear,omitempty" yaml:"clear"` // default: not when
	For      *telemetry.Duration `json:"for,omitempty" yaml:"for"`     // default: the rule's

	// Title is what people call the level, for {level} in messages; default the
	// severity's word.
	Title telemetry.Text `json:"title,omitzero" yaml:"title"`
}

// A Document is what the engine runs on. Fault paths of Compile begin in it.
type Document struct {
	Kinds   []telemetry.Kind   `json:"kinds" yaml:"kinds"`
	Devices []telemetry.Device `json:"devices" yaml:"devices"`
	Zones   json.RawMessage    `json:"zones,omitempty" yaml:"-"` // GeoJSON FeatureCollection, each feature with a name property
	Rules   []Rule             `json:"rules" yaml:"rules"`
	Limits  []Limit            `json:"limits,omitempty" yaml:"limits"`
}

// Hash returns the SHA-256 of the document's canonical JSON in hexadecimal: the
// same document has the same hash, whatever the layout of its files. It is ""
// for a document that has no JSON, such as one whose zones are broken.
func Hash(doc Document) string {
	text, err := canonical(doc)
	if err != nil {
		return ""
	}
	return hashOf(text)
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// canonical writes the document as JSON without spaces, keys in a fixed order.
func canonical(doc Document) ([]byte, error) {
	var b bytes.Buffer
	w := json.NewEncoder(&b)
	w.SetEscapeHTML(false)
	if err := w.Encode(doc); err != nil {
		return nil, fmt.Errorf("write rules document as JSON: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// condition is the part of a rule that decides: while it is the same, a change
// of the document leaves the rule's warnings as they are.
func (r *Rule) condition() string {
	levels := slices.Clone(r.Levels)
	for i := range levels {
		levels[i].Title = telemetry.Text{}
	}
	text, err := json.Marshal([]any{r.On, r.Where, r.When, r.Clear, r.Severity, levels, r.For, r.ClearFor, r.Shadow, r.Disabled})
	if err != nil {
		return fmt.Sprintf("%+v", r) // no field of a Rule can fail to encode
	}
	return string(text)
}
