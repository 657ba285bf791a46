package rules

import (
	"cmp"

	"github.com/expr-lang/expr/ast"
)

// comparison builds == != < <= > >=. The two forms that nearly every rule has,
// a value of the reading against a constant or a fact of the device, have
// closures of their own: they are twice as fast.
func (c *closures) comparison(n *ast.BinaryNode) (truthFn, error) {
	switch kindOf(n.Left) {
	case kindTruth:
		a, b, err := pair(n, c.truth)
		if err != nil {
			return nil, err
		}
		same := n.Operator == "=="
		if !same && n.Operator != "!=" {
			return nil, unsupported(n)
		}
		return func(f *frame) bool { return (a(f) == b(f)) == same }, nil
	case kindWord:
		a, b, err := pair(n, c.word)
		if err != nil {
			return nil, err
		}
		return compare(n, a, b)
	}
	a, b, err := pair(n, c.number)
	if err != nil {
		return nil, err
	}
	if left, ok := n.Left.(*ast.IdentifierNode); ok {
		if o := c.operands[left.Value]; o.cell >= 0 {
			if fn := c.cellComparison(n, o.cell); fn != nil {
				return fn, nil
			}
		}
	}
	return compare(n, a, b)
}

func compare[T cmp.Ordered](n *ast.BinaryNode, a, b func(*frame) T) (truthFn, error) {
	switch n.Operator {
	case "==":
		return func(f *frame) bool { return a(f) == b(f) }, nil
	case "!=":
		return func(f *frame) bool { return a(f) != b(f) }, nil
	case "<":
		return func(f *frame) bool { return a(f) < b(f) }, nil
	case "<=":
		return func(f *frame) bool { return a(f) <= b(f) }, nil
	case ">":
		return func(f *frame) bool { return a(f) > b(f) }, nil
	case ">=":
		return func(f *frame) bool { return a(f) >= b(f) }, nil
	}
	return nil, unsupported(n)
}

func (c *closures) cellComparison(n *ast.BinaryNode, i int) truthFn {
	switch right := n.Right.(type) {
	case *ast.FloatNode:
		v := right.Value
		switch n.Operator {
		case "<":
			return func(f *frame) bool { return f.cells[i].number < v }
		case "<=":
			return func(f *frame) bool { return f.cells[i].number <= v }
		case ">":
			return func(f *frame) bool { return f.cells[i].number > v }
		case ">=":
			return func(f *frame) bool { return f.cells[i].number >= v }
		}
	case *ast.IdentifierNode:
		o := c.operands[right.Value]
		if o.fact < 0 {
			return nil
		}
		k := o.fact
		switch n.Operator {
		case "<":
			return func(f *frame) bool { return f.cells[i].number < f.device.facts[k].number }
		case "<=":
			return func(f *frame) bool { return f.cells[i].number <= f.device.facts[k].number }
		case ">":
			return func(f *frame) bool { return f.cells[i].number > f.device.facts[k].number }
		case ">=":
			return func(f *frame) bool { return f.cells[i].number >= f.device.facts[k].number }
		}
	}
	return nil
}
