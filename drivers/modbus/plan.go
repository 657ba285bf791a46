package modbus

import (
	"slices"
	"strings"
)

// A field is one register of a profile as one unit has it.
type field struct {
	register *Register
	kind     string
	name     string
	reading  int     // which of the unit's readings it goes into
	status   *Status // it is no value but judges values
	verdict  int     // which of the unit's statuses it is
	scale    float64
	places   int // decimal places of a scaled integer; -1: as it comes
}

func (f *field) first() int { return f.register.Address }
func (f *field) end() int   { return f.register.Address + f.register.length() }

// fields returns what is read from the unit, in the order of the profile.
func (u *Unit) fields(p *Profile) []field {
	var fields []field
	var kinds []string
	for i := range p.Registers {
		r := &p.Registers[i]
		if slices.Contains(u.Omit, r.Value) {
			continue
		}
		f := field{register: r, scale: r.Scale.Number}
		if option := p.option(r.Scale.Option); option != nil {
			f.scale = option.Default
			if set, ok := u.Options[option.Name]; ok {
				f.scale = set
			}
		}
		f.places = places(f.scale, r.Offset)
		f.kind, f.name = r.kindValue()
		f.reading = slices.Index(kinds, f.kind)
		if f.reading < 0 {
			f.reading = len(kinds)
			kinds = append(kinds, f.kind)
		}
		fields = append(fields, f)
	}
	for i := range p.Status {
		status := &p.Status[i]
		if !slices.Contains(u.Omit, statusPrefix+status.Name) {
			fields = append(fields, field{register: status.register(), status: status, scale: 1, reading: -1})
		}
	}
	return fields
}

// A block is one read request and the fields that its answer holds.
type block struct {
	table  string
	first  int
	count  int     // words, or bits of coils and discrete inputs
	fields []field // by address; never empty
}

// plan covers the fields with as few reads as the profile allows. A field of
// several words is never torn apart.
func plan(fields []field, p *Profile) []block {
	sorted := slices.Clone(fields)
	slices.SortStableFunc(sorted, func(a, b field) int {
		if c := strings.Compare(a.register.Table, b.register.Table); c != 0 {
			return c
		}
		return a.first() - b.first()
	})
	var blocks []block
	for _, f := range sorted {
		if n := len(blocks); n > 0 && blocks[n-1].takes(&f, p) {
			blocks[n-1].add(f)
			continue
		}
		b := block{table: f.register.Table, first: f.first()}
		b.add(f)
		blocks = append(blocks, b)
	}
	return blocks
}

// takes reports whether the field may be read together with the block.
func (b *block) takes(f *field, p *Profile) bool {
	longest := p.longest(b.table)
	end := b.first + b.count
	if f.register.Table != b.table || f.first()-end > p.MaxGap || max(end, f.end())-b.first > longest {
		return false
	}
	for _, s := range p.Forbidden {
		if s.Table == b.table && s.First < f.first() && s.Last >= end {
			return false // it lies in the gap; fields themselves never overlap it
		}
	}
	return true
}

func (b *block) add(f field) {
	b.fields = append(b.fields, f)
	b.count = max(b.count, f.end()-b.first)
}

// halves splits a block of two or more fields in two.
func (b *block) halves() (block, block) {
	middle := len(b.fields) / 2
	return covering(b.fields[:middle]), covering(b.fields[middle:])
}

func covering(fields []field) block {
	b := block{table: fields[0].register.Table, first: fields[0].first()}
	for _, f := range fields {
		b.add(f)
	}
	return b
}
