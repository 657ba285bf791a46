package modbus

import (
	"encoding/binary"
	"fmt"
	"math"
	mathbits "math/bits"
	"slices"
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// A Write is a setting of the instrument that may be changed by hand, on units
// whose configuration names it in writes.
type Write struct {
	Name      string   `yaml:"name"`
	Address   int      `yaml:"address"`    // as on the wire: 0..65535
	Table     string   `yaml:"table"`      // holding (default) or coil
	Type      string   `yaml:"type"`       // int16, uint16 (default), int32, uint32, float32; none for coils
	Order     string   `yaml:"order"`      // ABCD (default), BADC, CDAB, DCBA
	Scale     float64  `yaml:"scale"`      // value = raw * scale + offset; default 1
	Offset    float64  `yaml:"offset"`     //
	Min       *float64 `yaml:"min"`        // least value; required but for coils
	Max       *float64 `yaml:"max"`        // largest value
	Multiple  bool     `yaml:"multiple"`   // by function 15 or 16 also where 5 or 6 would do
	WriteOnly bool     `yaml:"write_only"` // it cannot be read back
}

// register is the setting as something to read.
func (w *Write) register() *Register {
	r := &Register{Value: w.Name, Address: w.Address, Table: w.Table, Type: w.Type, Order: w.Order, Offset: w.Offset}
	if w.Scale != 0 {
		r.Scale = Factor{Number: w.Scale, set: true}
	}
	r.fill()
	return r
}

func (w *Write) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if !telemetry.ValidName(w.Name) {
		fault("name", "write name %q is not a name of letters, digits and ._:- that begins with a letter or digit", w.Name)
	}
	r := w.register()
	if r.Table != Holding && r.Table != Coil {
		fault("table", "table %q cannot be written; expected holding or coil", r.Table)
		return faults
	}
	faults = append(faults, r.validateType()...)
	if r.Table == Holding && !slices.Contains([]string{"int16", "uint16", "int32", "uint32", "float32"}, r.Type) {
		fault("type", "type %q cannot be written; expected int16, uint16, int32, uint32 or float32", r.Type)
	}
	if last := r.Address + max(r.length(), 1) - 1; r.Address < 0 || last > math.MaxUint16 {
		fault("address", "addresses %d..%d are not in 0..65535", r.Address, last)
	}
	if !telemetry.Finite(w.Scale) || !telemetry.Finite(w.Offset) {
		fault("scale", "scale %v and offset %v are not both finite", w.Scale, w.Offset)
	}
	switch {
	case r.Table == Coil && (w.Min != nil || w.Max != nil || w.Scale != 0 || w.Offset != 0):
		fault("min", "a coil is 0 or 1: it has no min, max, scale or offset")
	case r.Table == Holding && (w.Min == nil || w.Max == nil):
		fault("min", "min and max are missing: a write without bounds is not allowed")
	case r.Table == Holding && !(*w.Min <= *w.Max && telemetry.Finite(*w.Min) && telemetry.Finite(*w.Max)):
		fault("min", "min %v is not below max %v", *w.Min, *w.Max)
	}
	return faults
}

// words makes the registers for a number, or one byte for a coil. Its error says
// why the number cannot be written.
func (w *Write) words(number float64) ([]byte, error) {
	r := w.register()
	if r.Table == Coil {
		if number != 0 && number != 1 {
			return nil, fmt.Errorf("%s is a coil: expected 0 or 1, not %v", w.Name, number)
		}
		return []byte{byte(number)}, nil
	}
	if !(number >= *w.Min && number <= *w.Max) {
		return nil, fmt.Errorf("%s %v is not in %v..%v", w.Name, number, *w.Min, *w.Max)
	}
	raw := (number - w.Offset) / r.Scale.Number
	if r.Type == "float32" {
		if math.Abs(raw) > math.MaxFloat32 {
			return nil, fmt.Errorf("%s %v does not fit into a float32", w.Name, number)
		}
		return disassemble(uint64(math.Float32bits(float32(raw))), 2, r.Order), nil
	}
	whole := math.Round(raw)
	if math.Abs(raw-whole) > 1e-6 {
		step := strconv.FormatFloat(math.Abs(r.Scale.Number), 'g', -1, 64)
		return nil, fmt.Errorf("%s %v is no whole number of steps of %s", w.Name, number, step)
	}
	size := 16 * r.length()
	least, most := 0.0, math.Exp2(float64(size))-1
	if strings.HasPrefix(r.Type, "int") {
		least, most = -math.Exp2(float64(size-1)), math.Exp2(float64(size-1))-1
	}
	if whole < least || whole > most {
		return nil, fmt.Errorf("%s %v is %v in the register, which a %s cannot hold", w.Name, number, whole, r.Type)
	}
	return disassemble(uint64(int64(whole)), r.length(), r.Order), nil
}

// disassemble is the reverse of assemble.
func disassemble(raw uint64, n int, order string) []byte {
	words := make([]byte, 2*n)
	for i := range n {
		word := uint16(raw >> (16 * (n - 1 - i)))
		at := i
		if order == "CDAB" || order == "DCBA" {
			at = n - 1 - i
		}
		if order == "BADC" || order == "DCBA" {
			word = mathbits.ReverseBytes16(word)
		}
		binary.BigEndian.PutUint16(words[2*at:], word)
	}
	return words
}

// write returns the setting called name.
func (p *Profile) write(name string) *Write {
	for i := range p.Writes {
		if p.Writes[i].Name == name {
			return &p.Writes[i]
		}
	}
	return nil
}

// writeNames lists the settings.
func (p *Profile) writeNames() string {
	names := make([]string, len(p.Writes))
	for i := range p.Writes {
		names[i] = p.Writes[i].Name
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
