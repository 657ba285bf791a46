package modbus

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Row is one number of an answer, for people.
type Row struct {
	Address int    // of its first register, or of the bit
	Hex     string // as it came
	Text    string // the value, or why there is none
}

// Rows reads an answer to a query as numbers of one type, one after the other;
// without a type as uint16, and bits as 0 or 1. What is left over at the end, and
// is too short for one more, is shown without a value.
func Rows(q Query, answer []byte, kind, order string) ([]Row, error) {
	r := Register{Value: "any.value", Table: q.Table, Type: kind, Order: order}
	r.fill()
	if r.Type == "string" {
		r.Words = q.Count
	}
	p := Profile{Registers: []Register{r}}
	p.fill()
	if faults := r.validate(&p); len(faults) > 0 {
		return nil, fmt.Errorf("%s", faults[0].Want)
	}
	var rows []Row
	step := r.length()
	for at := 0; at < q.Count; at += step {
		r.Address = q.First + at
		size := min(step, q.Count-at)
		row := Row{Address: r.Address, Text: "-"}
		if !bits(q.Table) {
			row.Hex = strings.ToUpper(fmt.Sprintf("%x", answer[2*at:2*(at+size)]))
		}
		if size == step {
			f := field{register: &r, scale: 1}
			v, why := f.value(&block{table: q.Table, first: q.First, count: q.Count}, answer)
			switch {
			case why != none:
				row.Text = absenceNames[why]
			case v.Text != "":
				row.Text = strconv.Quote(v.Text)
			default:
				row.Text = NumberText(v.Number)
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// NumberText writes a number for people: with an exponent only where a row of
// zeros would stand, as in a float that was read in the wrong order of bytes.
func NumberText(number float64) string {
	if size := math.Abs(number); size != 0 && (size < 1e-6 || size >= 1e21) {
		return strconv.FormatFloat(number, 'e', -1, 64)
	}
	return strconv.FormatFloat(number, 'f', -1, 64)
}
