package modbus

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// Limits of one read: MODBUS Application Protocol V1.1b3, 6.1 to 6.4.
const (
	maxWords = 125
	maxBits  = 2000
)

// The tables of a unit: MODBUS Application Protocol V1.1b3, 4.3.
const (
	Holding  = "holding"  // 16-bit registers, function 3
	Input    = "input"    // 16-bit registers, function 4
	Coil     = "coil"     // single bits, function 1
	Discrete = "discrete" // single bits, function 2
)

// A Profile says what the registers of one model of instrument mean.
type Profile struct {
	Name      string     `yaml:"name"`
	Title     string     `yaml:"title"`
	Source    string     `yaml:"source"`    // where the register map is from
	UnitIDs   []int      `yaml:"unit_ids"`  // ids beyond 0..247 and 255 that it uses
	MaxWords  int        `yaml:"max_words"` // longest read of registers, 1..125; default 125
	MaxBits   int        `yaml:"max_bits"`  // longest read of coils and discrete inputs, 1..2000; default 2000
	MaxGap    int        `yaml:"max_gap"`   // unlisted registers, or bits, that one read may run over, 0..124
	Forbidden []Span     `yaml:"forbidden"` // never read, not even within a gap
	Options   []Option   `yaml:"options"`
	Registers []Register `yaml:"registers"`
	Status    []Status   `yaml:"status"` // registers that judge the values
	Writes    []Write    `yaml:"writes"` // what may be written, where a unit allows it
}

// A Span is a range of addresses, both ends included.
type Span struct {
	Table string `yaml:"table"` // default holding
	First int    `yaml:"first"`
	Last  int    `yaml:"last"`
}

// An Option is a number that differs between variants of an instrument and
// that a unit may set.
type Option struct {
	Name    string    `yaml:"name"`
	Default float64   `yaml:"default"`
	Choices []float64 `yaml:"choices"` // none: any number but 0
}

func (o *Option) allows(number float64) bool {
	if len(o.Choices) > 0 {
		return slices.Contains(o.Choices, number)
	}
	return number != 0 && telemetry.Finite(number)
}

// A Register is one value of the instrument, of one or more words.
type Register struct {
	Value        string    `yaml:"value"`         // kind.value, such as weather.temperature_c
	Address      int       `yaml:"address"`       // of the first word, as on the wire: 0..65535
	Table        string    `yaml:"table"`         // default holding
	Type         string    `yaml:"type"`          // default uint16; none for coils and discrete inputs
	Words        int       `yaml:"words"`         // of a string only: 1..125
	Order        string    `yaml:"order"`         // ABCD (default), BADC, CDAB, DCBA
	Mask         uint64    `yaml:"mask"`          // of unsigned types: these bits, shifted down
	Scale        Factor    `yaml:"scale"`         // value = raw * scale + offset; default 1
	Offset       float64   `yaml:"offset"`        //
	NotAvailable []float64 `yaml:"not_available"` // raw codes, signed or as the bits stand
}

// A Factor is a number, or the name of the option that gives it.
type Factor struct {
	Number float64
	Option string
	set    bool
}

// UnmarshalYAML reads a number or a name.
func (f *Factor) UnmarshalYAML(node *yaml.Node) error {
	f.set = true
	if node.Decode(&f.Number) == nil {
		return nil
	}
	f.Number = 0
	if err := node.Decode(&f.Option); err != nil || f.Option == "" {
		return fmt.Errorf("line %d: scale is not a number or the name of an option", node.Line)
	}
	return nil
}

// typeWords is the number of words of each type; a string brings its own.
func typeWords(name string) (words int, known bool) {
	switch name {
	case "int16", "uint16", "bcd16":
		return 1, true
	case "int32", "uint32", "float32", "bcd32":
		return 2, true
	case "int64", "uint64", "float64":
		return 4, true
	case "string":
		return 0, true
	}
	return 0, false
}

func bits(table string) bool { return table == Coil || table == Discrete }

// length is how many words, or bits, the register takes.
func (r *Register) length() int {
	if bits(r.Table) {
		return 1
	}
	if r.Type == "string" {
		return r.Words
	}
	words, _ := typeWords(r.Type)
	return words
}

// kindValue splits kind.value at the first dot.
func (r *Register) kindValue() (kind, value string) {
	kind, value, _ = strings.Cut(r.Value, ".")
	return kind, value
}

// Values returns what the profile yields, as kind.value, in its own order.
func (p *Profile) Values() []string {
	values := make([]string, len(p.Registers))
	for i := range p.Registers {
		values[i] = p.Registers[i].Value
	}
	return values
}

// names reports whether a unit may omit what is called so.
func (p *Profile) names(value string) bool {
	return p.has(value) || slices.ContainsFunc(p.Status, func(s Status) bool { return statusPrefix+s.Name == value })
}

func (p *Profile) has(value string) bool {
	return slices.ContainsFunc(p.Registers, func(r Register) bool { return r.Value == value })
}

func (p *Profile) option(name string) *Option {
	for i := range p.Options {
		if p.Options[i].Name == name {
			return &p.Options[i]
		}
	}
	return nil
}

func (p *Profile) optionNames() string {
	names := make([]string, len(p.Options))
	for i := range p.Options {
		names[i] = p.Options[i].Name
	}
	return strings.Join(names, ", ")
}

// fill sets what was left out to its default.
func (p *Profile) fill() {
	if p.MaxWords == 0 {
		p.MaxWords = maxWords
	}
	if p.MaxBits == 0 {
		p.MaxBits = maxBits
	}
	for i := range p.Forbidden {
		if p.Forbidden[i].Table == "" {
			p.Forbidden[i].Table = Holding
		}
	}
	for i := range p.Registers {
		p.Registers[i].fill()
	}
	for i := range p.Writes {
		w := &p.Writes[i]
		r := w.register()
		w.Table, w.Type, w.Order = r.Table, r.Type, r.Order
	}
}

func (r *Register) fill() {
	if r.Table == "" {
		r.Table = Holding
	}
	if r.Type == "" && !bits(r.Table) {
		r.Type = "uint16"
	}
	if r.Order == "" {
		r.Order = "ABCD"
	}
	if !r.Scale.set {
		r.Scale.Number = 1
	}
}

func (p *Profile) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if !telemetry.ValidName(p.Name) {
		fault("name", "profile name %q is not a name of letters, digits and ._:- that begins with a letter or digit", p.Name)
	}
	if p.MaxWords < 1 || p.MaxWords > maxWords {
		fault("max_words", "max_words %d is not in 1..%d", p.MaxWords, maxWords)
	}
	if p.MaxBits < 1 || p.MaxBits > maxBits {
		fault("max_bits", "max_bits %d is not in 1..%d", p.MaxBits, maxBits)
	}
	if p.MaxGap < 0 || p.MaxGap >= maxWords {
		fault("max_gap", "max_gap %d is not in 0..%d", p.MaxGap, maxWords-1)
	}
	for i, id := range p.UnitIDs {
		if id < 0 || id > 255 {
			fault(fmt.Sprintf("unit_ids[%d]", i), "unit id %d is not in 0..255", id)
		}
	}
	for i, s := range p.Forbidden {
		if !knownTable(s.Table) {
			fault(fmt.Sprintf("forbidden[%d].table", i), "table %q is not one of holding, input, coil, discrete", s.Table)
		}
		if s.First < 0 || s.Last < s.First || s.Last > math.MaxUint16 {
			fault(fmt.Sprintf("forbidden[%d]", i), "addresses %d..%d are not a range in 0..65535", s.First, s.Last)
		}
	}
	faults = append(faults, p.validateOptions()...)
	if len(p.Registers) == 0 || len(p.Registers) > telemetry.MaxValues {
		fault("registers", "%d registers, expected 1..%d", len(p.Registers), telemetry.MaxValues)
	}
	return append(faults, p.validateEntries()...)
}

func (p *Profile) validateEntries() []telemetry.Fault {
	var faults []telemetry.Fault
	seen := map[string]bool{}
	entry := func(at, key, name string, wrong []telemetry.Fault) {
		faults = append(faults, telemetry.Under(at, wrong)...)
		if seen[name] {
			faults = append(faults, telemetry.Faultf(at+"."+key, "%s %q is there twice", key, name))
		}
		seen[name] = true
	}
	for i := range p.Registers {
		r := &p.Registers[i]
		entry(fmt.Sprintf("registers[%d]", i), "value", r.Value, r.validate(p))
	}
	for i := range p.Status {
		entry(fmt.Sprintf("status[%d]", i), "name", statusPrefix+p.Status[i].Name, p.Status[i].validate(p))
	}
	clear(seen)
	for i := range p.Writes {
		entry(fmt.Sprintf("writes[%d]", i), "name", p.Writes[i].Name, p.Writes[i].validate())
	}
	return faults
}

func (p *Profile) validateOptions() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	for i := range p.Options {
		o := &p.Options[i]
		at := fmt.Sprintf("options[%d]", i)
		switch {
		case !telemetry.ValidName(o.Name):
			fault(at+".name", "option name %q is not a name of letters, digits and ._:- that begins with a letter or digit", o.Name)
		case p.option(o.Name) != o:
			fault(at+".name", "option %q is there twice", o.Name)
		case slices.Contains(o.Choices, 0):
			fault(at+".choices", "option %q offers 0, which would make every value 0", o.Name)
		case !o.allows(o.Default):
			fault(at+".default", "default %v of option %q is not one of its choices (%s), or 0", o.Default, o.Name, numbers(o.Choices))
		}
	}
	return faults
}

// longest is the longest read of a table.
func (p *Profile) longest(table string) int {
	if bits(table) {
		return p.MaxBits
	}
	return p.MaxWords
}

func knownTable(name string) bool {
	return name == Holding || name == Input || bits(name)
}

func (r *Register) validate(p *Profile) []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	kind, value := r.kindValue()
	if !telemetry.ValidName(kind) || !telemetry.ValidName(value) || telemetry.Reserved(value) {
		fault("value", "value %q is not kind.value, such as weather.temperature_c (time, device, site, quality and delay_s are reserved)", r.Value)
	}
	if !knownTable(r.Table) {
		fault("table", "table %q is not one of holding, input, coil, discrete", r.Table)
		return faults
	}
	faults = append(faults, r.validateType()...)
	longest := p.longest(r.Table)
	if n := r.length(); n > longest {
		fault("type", "%s takes %d words, more than the max_words %d of one read", r.Type, n, longest)
	}
	last := r.Address + max(r.length(), 1) - 1
	if r.Address < 0 || last > math.MaxUint16 {
		fault("address", "addresses %d..%d are not in 0..65535", r.Address, last)
	}
	for _, s := range p.Forbidden {
		if s.Table == r.Table && r.Address <= s.Last && last >= s.First {
			fault("address", "addresses %d..%d lie in the forbidden range %d..%d", r.Address, last, s.First, s.Last)
		}
	}
	if !telemetry.Finite(r.Offset) || !telemetry.Finite(r.Scale.Number) {
		fault("scale", "scale %v and offset %v are not both finite", r.Scale.Number, r.Offset)
	}
	switch {
	case r.Scale.Option != "" && p.option(r.Scale.Option) == nil:
		fault("scale", "scale %q is neither a number nor an option of this profile", r.Scale.Option)
	case r.Scale.Option == "" && r.Scale.Number == 0:
		fault("scale", "scale 0 would make every value 0")
	}
	return faults
}

func (r *Register) validateType() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if bits(r.Table) {
		if r.Type != "" || r.Mask != 0 || r.Words != 0 {
			fault("type", "a %s is one bit: it has no type, words or mask", r.Table)
		}
		return faults
	}
	words, known := typeWords(r.Type)
	if !known {
		fault("type", "type %q is not one of int16, uint16, int32, uint32, int64, uint64, float32, float64, bcd16, bcd32, string", r.Type)
		return faults
	}
	switch r.Order {
	case "ABCD", "BADC", "CDAB", "DCBA":
	default:
		fault("order", "order %q is not one of ABCD, BADC, CDAB, DCBA", r.Order)
	}
	switch {
	case r.Type == "string" && (r.Words < 1 || r.Words > maxWords):
		fault("words", "a string of %d words, expected 1..%d", r.Words, maxWords)
	case r.Type == "string" && (r.Scale.set || r.Offset != 0 || len(r.NotAvailable) > 0):
		fault("type", "a string has no scale, offset or not_available codes")
	case r.Type != "string" && r.Words != 0:
		fault("words", "words is for strings; %s has %d", r.Type, words)
	}
	if r.Mask != 0 {
		if !strings.HasPrefix(r.Type, "uint") {
			fault("mask", "a mask needs an unsigned type, not %s", r.Type)
		} else if words < 4 && r.Mask>>(16*words) != 0 {
			fault("mask", "mask %#x is wider than %s", r.Mask, r.Type)
		}
	}
	return faults
}

func numbers(list []float64) string {
	words := make([]string, len(list))
	for i, f := range list {
		words[i] = strconv.FormatFloat(f, 'g', -1, 64)
	}
	return strings.Join(words, ", ")
}
