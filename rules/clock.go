package rules

import (
	"math"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// A clock is a part of a condition that changes by time alone: after has passed
// since something happened. The engine then looks at the rule without a reading.
type clock struct {
	since sinceWhat
	index int      // of the cell or the place
	after int64    // ns, when of is nil
	of    numberFn // seconds, from facts of the device
	next  bool     // the first whole second after it, not the one at it
}

type sinceWhat uint8

const (
	sinceHeard   sinceWhat = iota // anything of the kind
	sinceValue                    // a usable value
	sinceEntered                  // the device entered a place
)

// base returns the log time from which the clock counts, or never.
func (c *clock) base(s *stream) int64 {
	switch c.since {
	case sinceValue:
		return s.cells[c.index].heard
	case sinceEntered:
		return s.places[c.index].entered
	}
	return s.heard
}

// length returns how long after its base the clock strikes, or never. f is aimed
// at the device.
func (c *clock) length(f *frame) int64 {
	if c.of == nil {
		return c.after
	}
	seconds := c.of(f)
	if c.next {
		seconds = math.Floor(seconds) + 1
	} else {
		seconds = math.Ceil(seconds)
	}
	if !(seconds > 0 && seconds <= MaxHold.Seconds()) {
		return never
	}
	return int64(seconds) * int64(time.Second)
}

// lengths returns those of all of a rule's clocks.
func (r *rule) lengths(f *frame) []int64 {
	lengths := make([]int64, len(r.clocks))
	for i := range r.clocks {
		lengths[i] = r.clocks[i].length(f)
	}
	return lengths
}

// elapsed returns the whole seconds since a log time; in a grace period after a
// gap none.
func elapsed(now, since int64) float64 {
	return float64(max(0, now-since) / int64(time.Second))
}

// clocksOf finds the comparisons of dwell() and age() in a condition. Such a
// value may stand in a comparison only, against a number or facts of the device:
// else the engine would not know when to look.
func (s *scope) clocksOf(node ast.Node) ([]clock, *file.Error) {
	var clocks []clock
	var err *file.Error
	compared := map[ast.Node]bool{}
	ast.Walk(&node, visitFunc(func(n ast.Node) {
		b, ok := n.(*ast.BinaryNode)
		if !ok {
			return
		}
		switch b.Operator {
		case "<", "<=", ">", ">=", "==", "!=":
		default:
			return
		}
		value, side := b.Left, b.Right
		o := s.running(value)
		if o == nil {
			value, side = b.Right, b.Left
			o = s.running(value)
		}
		if o == nil || !s.factual(side) {
			return
		}
		of, failed := (&closures{operands: s.operands}).number(side)
		if failed != nil {
			return
		}
		compared[value] = true
		for _, next := range []bool{false, true} {
			clocks = append(clocks, clock{since: o.running.since, index: o.running.index, of: of, next: next})
		}
	}))
	ast.Walk(&node, visitFunc(func(n ast.Node) {
		if o := s.running(n); o != nil && !compared[n] && err == nil {
			err = errorAt(n, "%s is compared with a number or a fact of the device, as in %s > 3600: otherwise it is not known when to look", o.label, o.label)
		}
	}))
	return clocks, err
}

// running returns the operand that changes by time alone and stands at a node.
func (s *scope) running(node ast.Node) *operand {
	id, ok := node.(*ast.IdentifierNode)
	if !ok {
		return nil
	}
	if o := s.operands[id.Value]; o != nil && o.running != nil && o.number != nil {
		return o
	}
	return nil
}

// factual reports whether a part of an expression is made of constants and facts
// of the device.
func (s *scope) factual(node ast.Node) bool {
	ok := true
	ast.Walk(&node, visitFunc(func(n ast.Node) {
		if id, is := n.(*ast.IdentifierNode); is && s.operands[id.Value].fact < 0 {
			ok = false
		}
	}))
	return ok
}
