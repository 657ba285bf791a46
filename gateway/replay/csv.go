package replay

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A Map says what the columns of a CSV file mean.
type Map struct {
	Device       string            `yaml:"device"`        // whose readings these are
	DeviceColumn string            `yaml:"device_column"` // or the column that says so
	Delimiter    string            `yaml:"delimiter"`     // one character; default a comma
	Missing      []string          `yaml:"missing"`       // words for "no value" besides the empty one
	Time         TimeColumn        `yaml:"time"`
	Columns      map[string]Column `yaml:"columns"` // by the name in the file's first line
}

// A TimeColumn says where the time is and how it is written.
type TimeColumn struct {
	Column string `yaml:"column"`
	// Format is Go's reference time, as in "02/01/2006 15:04"; default RFC 3339,
	// "2006-01-02 15:04:05" or a Unix time.
	Format string `yaml:"format"`
	// Zone is where a time without an offset was written: a name of the IANA
	// time zone database or an offset such as +07:00. Default UTC.
	Zone string `yaml:"zone"`
	// Abbreviation is the column with the zone's abbreviation (EST, EDT), which
	// tells apart the hour that comes twice when summer time ends.
	Abbreviation string `yaml:"abbreviation"`
}

// A Column becomes one value.
type Column struct {
	To     string   `yaml:"to"`     // kind.value
	Factor *float64 `yaml:"factor"` // default 1
	Offset float64  `yaml:"offset"` // added after the factor
	Words  bool     `yaml:"words"`  // the column holds words
}

// Validate returns what is wrong with the map.
func (m *Map) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	switch {
	case m.Device == "" && m.DeviceColumn == "":
		faults = append(faults, telemetry.Faultf("device", "device, or device_column, is missing: whose readings these are"))
	case m.Device != "" && !telemetry.ValidName(m.Device):
		faults = append(faults, telemetry.Faultf("device", "device %q is not a name of letters, digits and ._:- that begins with a letter or digit", m.Device))
	}
	if len([]rune(m.Delimiter)) > 1 {
		faults = append(faults, telemetry.Faultf("delimiter", "delimiter %q is not one character", m.Delimiter))
	}
	if m.Time.Column == "" {
		faults = append(faults, telemetry.Faultf("time.column", "the column with the time is missing"))
	}
	if _, err := zone(m.Time.Zone); err != nil {
		faults = append(faults, telemetry.Faultf("time.zone", "%v", err))
	}
	if len(m.Columns) == 0 {
		faults = append(faults, telemetry.Faultf("columns", "no column is named, as in columns: {stage: {to: river.level_m}}"))
	}
	from := map[string]string{}
	for _, name := range sortedKeys(m.Columns) {
		c := m.Columns[name]
		if first, taken := from[c.To]; taken {
			faults = append(faults, telemetry.Faultf("columns."+name+".to", "%s is that of column %q already", c.To, first))
		}
		from[c.To] = name
		if kind, value, ok := strings.Cut(c.To, "."); !ok || !telemetry.ValidName(kind) || !telemetry.ValidName(value) {
			faults = append(faults, telemetry.Faultf("columns."+name+".to", "%q is not kind.value, as in river.level_m", c.To))
		}
		if c.Factor != nil && (!telemetry.Finite(*c.Factor) || *c.Factor == 0) {
			faults = append(faults, telemetry.Faultf("columns."+name+".factor", "factor %v is not a number other than 0", *c.Factor))
		}
	}
	return faults
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// zone reads an IANA name or an offset.
func zone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if at, err := time.Parse("-07:00", name); err == nil {
		_, seconds := at.Zone()
		return time.FixedZone(name, seconds), nil
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("zone %q is not a name such as Asia/Ho_Chi_Minh or an offset such as +07:00", name)
	}
	return loc, nil
}

// A table decodes CSV by a Map.
type table struct {
	m      Map
	zone   *time.Location
	header []string
	comma  rune
	cells  []cell // of the header's columns that have a meaning
	time   int
	abbr   int
	device int
}

type cell struct {
	index       int
	kind, value string
	factor      float64
	offset      float64
	words       bool
}

// CSV returns a decoder for files with a header line. The map must be valid.
// A quoted field may not contain a line break.
func CSV(m Map) (Decoder, error) {
	loc, err := zone(m.Time.Zone)
	if err != nil {
		return nil, err
	}
	t := &table{m: m, zone: loc, comma: ','}
	if m.Delimiter != "" {
		t.comma = []rune(m.Delimiter)[0]
	}
	return t, nil
}

// Line implements Decoder.
func (t *table) Line(line []byte, _ time.Time, sink Sink) error {
	if len(strings.TrimSpace(string(line))) == 0 {
		return nil
	}
	row, err := t.split(line)
	if err != nil {
		return sink.Reject(telemetry.DeadLetter{Reason: "bad_csv", Detail: fmt.Sprintf("not CSV: %v", err), Bytes: line})
	}
	if t.header == nil {
		return t.begin(row)
	}
	readings, reason, err := t.readings(row)
	if err != nil {
		return sink.Reject(telemetry.DeadLetter{Reason: reason, Detail: err.Error(), Bytes: line})
	}
	if len(readings) == 0 {
		return nil // every value is missing
	}
	return sink.Take(readings)
}

// End implements Decoder.
func (t *table) End(Sink) error {
	if t.header == nil {
		return errors.New("the file is empty; want a header line with the names of the columns")
	}
	return nil
}

func (t *table) split(line []byte) ([]string, error) {
	r := csv.NewReader(strings.NewReader(string(line)))
	r.Comma, r.FieldsPerRecord = t.comma, -1
	row, err := r.Read()
	var syntax *csv.ParseError
	if errors.As(err, &syntax) {
		return nil, fmt.Errorf("column %d: %w", syntax.Column, syntax.Err)
	}
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	return row, err
}

// begin reads the header line.
func (t *table) begin(header []string) error {
	if len(header) > 0 {
		header[0] = strings.TrimPrefix(header[0], "\ufeff")
	}
	var missing []string
	find := func(name string) int {
		if name == "" {
			return -1
		}
		i := slices.Index(header, name)
		if i < 0 {
			missing = append(missing, name)
		}
		return i
	}
	t.time, t.abbr, t.device = find(t.m.Time.Column), find(t.m.Time.Abbreviation), find(t.m.DeviceColumn)
	for _, name := range sortedKeys(t.m.Columns) {
		c := t.m.Columns[name]
		kind, value, _ := strings.Cut(c.To, ".")
		made := cell{index: find(name), kind: kind, value: value, factor: 1, offset: c.Offset, words: c.Words}
		if c.Factor != nil {
			made.factor = *c.Factor
		}
		t.cells = append(t.cells, made)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the map names columns that the file does not have: %s; it has %s", strings.Join(missing, ", "), strings.Join(header, ", "))
	}
	t.header = header
	return nil
}

// readings returns a reading for each kind of the row.
func (t *table) readings(row []string) ([]telemetry.Reading, string, error) {
	if len(row) != len(t.header) {
		return nil, "bad_csv", fmt.Errorf("%d columns, the header has %d", len(row), len(t.header))
	}
	at, err := t.at(row)
	if err != nil {
		return nil, "bad_time", err
	}
	device := t.m.Device
	if t.device >= 0 {
		device = row[t.device]
	}
	var out []telemetry.Reading
	for _, c := range t.cells {
		text := strings.TrimSpace(row[c.index])
		if text == "" || slices.Contains(t.m.Missing, text) {
			continue
		}
		v := telemetry.Value{Name: c.value, Text: text}
		if !c.words {
			f, err := strconv.ParseFloat(text, 64)
			if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
				return nil, "bad_number", fmt.Errorf("column %s: want a number, not %q", t.header[c.index], text)
			}
			v = telemetry.Value{Name: c.value, Number: f*c.factor + c.offset}
		}
		i := slices.IndexFunc(out, func(r telemetry.Reading) bool { return r.Kind == c.kind })
		if i < 0 {
			out = append(out, telemetry.Reading{Device: device, Kind: c.kind, Time: at})
			i = len(out) - 1
		}
		out[i].Values = append(out[i].Values, v)
	}
	return out, "", nil
}

func (t *table) at(row []string) (time.Time, error) {
	text := strings.TrimSpace(row[t.time])
	format := t.m.Time.Format
	if format == "" {
		if at, ok := telemetry.ParseTime(text); ok {
			return at, nil
		}
		format = "2006-01-02 15:04:05"
		if strings.Contains(text, "T") {
			format = "2006-01-02T15:04:05"
		}
	}
	if t.abbr >= 0 {
		format, text = format+" MST", text+" "+strings.TrimSpace(row[t.abbr])
	}
	at, err := time.ParseInLocation(format, text, t.zone)
	if err != nil {
		return at, fmt.Errorf("column %s: want a time like %s, not %q", t.m.Time.Column, format, text)
	}
	return at, nil
}
