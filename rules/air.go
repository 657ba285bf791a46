package rules

import (
	"math"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/file"
)

// keptHours are the hourly means that are kept: 12 for NowCast, the hour that is
// not over, and one that late readings may still complete.
const keptHours = 14

// hours are the means of one value by clock hour. An hour is (h-1, h], so that
// the mean that a station sends on the hour belongs to the hour that has ended.
type hours struct {
	row  [keptHours]hourSum
	last sample // the last one added, and what its hour was before it
	undo hourSum
}

type hourSum struct {
	hour int64 // its end, in hours since 1970
	n    int64
	sum  float64
}

// hourOf returns the end of the hour in which t lies, in hours.
func hourOf(t int64) int64 {
	const each = int64(time.Hour)
	h := t / each
	if t%each > 0 {
		h++
	}
	return h
}

func (h *hours) at(hour int64) *hourSum {
	return &h.row[(hour%keptHours+keptHours)%keptHours]
}

// add enters a value of event time t. The same time again is a correction, where
// it is that of the last one.
func (h *hours) add(t int64, v float64) {
	hour := hourOf(t)
	s := h.at(hour)
	if s.n > 0 && s.hour > hour {
		return // too old
	}
	if s.hour != hour {
		*s = hourSum{hour: hour}
	}
	if h.last.t == t && s.n > 0 {
		*s = h.undo
		s.hour = hour
	}
	h.last, h.undo = sample{t, v}, *s
	s.n++
	s.sum += v
}

// mean returns the mean of the hour that ends at hour.
func (h *hours) mean(hour int64) (float64, bool) {
	s := h.at(hour)
	if s.n == 0 || s.hour != hour {
		return 0, false
	}
	return s.sum / float64(s.n), true
}

// nowcast returns the NowCast of the 12 hours that end at hour, c1 being its
// mean (Decision 1459/QD-TCMT): with w = max(cmin/cmax, 1/2), the mean weighted
// by w^(i-1), and at w = 1/2 the sum of ci/2^i. At least two of c1 to c3 must be
// there.
func (h *hours) nowcast(hour int64) (float64, bool) {
	var c [12]float64
	var have [12]bool
	least, most, recent := math.Inf(1), math.Inf(-1), 0
	for i := range c {
		if c[i], have[i] = h.mean(hour - int64(i)); have[i] {
			least, most = min(least, c[i]), max(most, c[i])
			if i < 3 {
				recent++
			}
		}
	}
	if recent < 2 {
		return 0, false
	}
	w := 0.5
	if most > 0 {
		w = max(w, least/most)
	}
	sum, weights, weight := 0.0, 0.0, 1.0
	for i := range c {
		if have[i] {
			sum += weight * c[i]
			weights += weight
		}
		weight *= w
	}
	if w == 0.5 {
		return sum / 2, true
	}
	return sum / weights, true
}

// mean8 returns the mean of the 8 hours that end at hour, of which at least 6
// are there.
func (h *hours) mean8(hour int64) (float64, bool) {
	sum, n := 0.0, 0
	for i := range int64(8) {
		if v, ok := h.mean(hour - i); ok {
			sum += v
			n++
		}
	}
	return sum / float64(max(1, n)), n >= 6
}

// A pollutant is one column of VN_AQI's table.
type pollutant struct {
	value  string
	mean   func(*hours, int64) (float64, bool)
	steps  [8]float64 // concentrations at the index 0 50 100 150 200 300 400 500, µg/m³
	beyond bool       // above the last step there is no index of this column
	dust   bool       // one of these is mandatory
}

// pollutants is the table of Decision 1459/QD-TCMT.
func pollutants() []pollutant {
	none := math.Inf(1)
	return []pollutant{
		{value: "pm25_ugm3", mean: (*hours).nowcast, steps: [8]float64{0, 25, 50, 80, 150, 250, 350, 500}, dust: true},
		{value: "pm10_ugm3", mean: (*hours).nowcast, steps: [8]float64{0, 50, 150, 250, 350, 420, 500, 600}, dust: true},
		{value: "o3_ugm3", mean: (*hours).mean, steps: [8]float64{0, 160, 200, 300, 400, 800, 1000, 1200}},
		{value: "o3_ugm3", mean: (*hours).mean8, steps: [8]float64{0, 100, 120, 170, 210, 400, none, none}, beyond: true},
		{value: "co_ugm3", mean: (*hours).mean, steps: [8]float64{0, 10000, 30000, 45000, 60000, 90000, 120000, 150000}},
		{value: "so2_ugm3", mean: (*hours).mean, steps: [8]float64{0, 125, 350, 550, 800, 1600, 2100, 2630}},
		{value: "no2_ugm3", mean: (*hours).mean, steps: [8]float64{0, 100, 200, 700, 1200, 2350, 3100, 3850}},
	}
}

// index returns the sub-index of a concentration, linear between the steps,
// rounded half up, at most 500. ok is false above the last step of a column that
// says nothing there.
func (p *pollutant) index(v float64) (index float64, ok bool) {
	indices := [8]float64{0, 50, 100, 150, 200, 300, 400, 500}
	v = max(0, v)
	for i := 1; i < len(p.steps); i++ {
		if v > p.steps[i] {
			continue
		}
		if math.IsInf(p.steps[i], 1) {
			return 0, false
		}
		k := (v - p.steps[i-1]) / (p.steps[i] - p.steps[i-1])
		return math.Floor(indices[i-1] + k*(indices[i]-indices[i-1]) + 0.5), true
	}
	return 500, !p.beyond
}

// lastHour returns the newest hour that is over for a stream.
func (s *stream) lastHour() int64 {
	if s.newest == never {
		return 0
	}
	h := hourOf(s.newest)
	if s.newest%int64(time.Hour) != 0 {
		h--
	}
	return h
}

// airColumn is a pollutant of a plan's kind.
type airColumn struct {
	pollutant
	hours int
}

// vnAQI returns the index of the last whole hour: the highest sub-index, one of
// dust being there. Both columns of O3 count, that of one hour and that of 8: the
// table does not reserve the second for the index of a day, and an index for
// warnings should rather be the higher one.
func vnAQI(columns []airColumn) numberFn {
	return func(f *frame) float64 {
		hour, highest, dust := f.stream.lastHour(), 0.0, false
		for i := range columns {
			c := &columns[i]
			h := f.stream.hours[c.hours]
			if h == nil {
				continue
			}
			v, ok := c.mean(h, hour)
			if !ok {
				continue
			}
			if index, ok := c.index(v); ok {
				highest, dust = max(highest, index), dust || c.dust
			}
		}
		if !dust {
			f.unknown = true
		}
		return highest
	}
}

// air resolves vn_aqi() and nowcast(value).
func (s *scope) air(node *ast.Node, n *ast.CallNode, name string) *file.Error {
	if name == "nowcast" {
		if len(n.Arguments) != 1 {
			return errorAt(n, "nowcast takes one value, such as nowcast(pm25_ugm3)")
		}
		of, err := s.ownNumber(n, 0, name)
		if err != nil {
			return err
		}
		s.put(node, "", callLabel(name, of.label), func() (*operand, nature.Nature) {
			i := s.plan.hour(of.cell)
			o := newOperand()
			o.number = func(f *frame) float64 {
				if h := f.stream.hours[i]; h != nil {
					if v, ok := h.nowcast(f.stream.lastHour()); ok {
						return finite(f, v)
					}
				}
				f.unknown = true
				return 0
			}
			return o, numberNature
		})
		return nil
	}
	if len(n.Arguments) != 0 {
		return errorAt(n, "vn_aqi() takes no argument")
	}
	if s.plan.kind == nil || s.plan.kind.Quantity("pm25_ugm3") == nil && s.plan.kind.Quantity("pm10_ugm3") == nil {
		return errorAt(n, "vn_aqi() needs a kind with the value pm25_ugm3 or pm10_ugm3, such as air")
	}
	s.put(node, "", "vn_aqi()", func() (*operand, nature.Nature) {
		var columns []airColumn
		for _, p := range pollutants() {
			if q := s.plan.kind.Quantity(p.value); q != nil && !q.Words {
				columns = append(columns, airColumn{p, s.plan.hour(s.plan.cell(p.value))})
			}
		}
		o := newOperand()
		o.number = vnAQI(columns)
		return o, numberNature
	})
	return nil
}
