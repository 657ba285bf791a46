package rules

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// A frame is what one evaluation sees. The engine keeps one and uses it for
// every evaluation.
type frame struct {
	now    int64 // log time, Unix ns
	stream *stream
	cells  []cell // of stream
	gen    uint64 // cells of this generation are of the reading at hand
	device *device
	timed  bool // evaluated for a timer: the last usable values stand in

	unknown   bool // some part had no value: see Kleene logic in and, or
	notFinite bool // that was because of a division by zero or an overflow
	failures  int  // conditions that stayed unknown for that reason

	vm *fallbackVM
}

type (
	numberFn func(*frame) float64
	wordFn   func(*frame) string
	truthFn  func(*frame) bool
)

// An operand is what a name in an expression stands for. One of number, word
// and truth is set; none is set for a fact that no device has.
type operand struct {
	label  string // as a warning tells it: level_m, rate(level_m,1h)
	number numberFn
	word   wordFn
	truth  truthFn

	cell    int // of the reading, or -1
	fact    int // of the device, or -1
	mate    *mate
	of      *mate  // the value of another kind that a function is about
	needs   []int  // further cells that the reading must have
	facts   []int  // further facts that the device must have
	never   bool   // it needs a fact that no device has
	running *clock // it changes by time alone
	silent  bool   // it is silent(): for registered devices
	zone    *zone
	limit   limit
}

// closures builds closures from a checked and optimised tree.
type closures struct {
	operands map[string]*operand
}

// finite passes v on and notes when it is not a number.
func finite(f *frame, v float64) float64 {
	if v-v != 0 {
		f.unknown, f.notFinite = true, true
	}
	return v
}

func (c *closures) number(node ast.Node) (numberFn, error) {
	switch n := node.(type) {
	case *ast.FloatNode:
		v := n.Value
		return func(*frame) float64 { return v }, nil
	case *ast.IntegerNode:
		v := float64(n.Value)
		return func(*frame) float64 { return v }, nil
	case *ast.IdentifierNode:
		if o := c.operands[n.Value]; o != nil && o.number != nil {
			return o.number, nil
		}
	case *ast.UnaryNode:
		a, err := c.number(n.Node)
		if err != nil || n.Operator == "+" {
			return a, err
		}
		return func(f *frame) float64 { return -a(f) }, nil
	case *ast.BinaryNode:
		return c.arithmetic(n)
	case *ast.ConditionalNode:
		test, yes, no, err := branches(c, n, c.number)
		return func(f *frame) float64 {
			if test(f) {
				return yes(f)
			}
			return no(f)
		}, err
	case *ast.BuiltinNode:
		return c.builtinNumber(n)
	}
	return nil, unsupported(node)
}

func (c *closures) arithmetic(n *ast.BinaryNode) (numberFn, error) {
	a, b, err := pair(n, c.number)
	if err != nil {
		return nil, err
	}
	switch n.Operator {
	case "+":
		return func(f *frame) float64 { return finite(f, a(f)+b(f)) }, nil
	case "-":
		return func(f *frame) float64 { return finite(f, a(f)-b(f)) }, nil
	case "*":
		return func(f *frame) float64 { return finite(f, a(f)*b(f)) }, nil
	case "/":
		return func(f *frame) float64 { return finite(f, a(f)/b(f)) }, nil
	case "**", "^":
		return func(f *frame) float64 { return finite(f, math.Pow(a(f), b(f))) }, nil
	}
	return nil, unsupported(n)
}

func (c *closures) builtinNumber(n *ast.BuiltinNode) (numberFn, error) {
	if n.Name == "len" {
		run, err := c.fallback(n)
		if err != nil {
			return nil, err
		}
		return func(f *frame) float64 { return run.number(f) }, nil
	}
	if len(n.Arguments) != 1 {
		return nil, unsupported(n)
	}
	a, err := c.number(n.Arguments[0])
	if err != nil {
		return nil, err
	}
	switch n.Name {
	case "abs":
		return func(f *frame) float64 { return math.Abs(a(f)) }, nil
	case "ceil":
		return func(f *frame) float64 { return math.Ceil(a(f)) }, nil
	case "floor":
		return func(f *frame) float64 { return math.Floor(a(f)) }, nil
	case "round":
		return func(f *frame) float64 { return math.Round(a(f)) }, nil
	}
	return nil, unsupported(n)
}

func (c *closures) word(node ast.Node) (wordFn, error) {
	switch n := node.(type) {
	case *ast.StringNode:
		v := n.Value
		return func(*frame) string { return v }, nil
	case *ast.IdentifierNode:
		if o := c.operands[n.Value]; o != nil && o.word != nil {
			return o.word, nil
		}
	case *ast.ConditionalNode:
		test, yes, no, err := branches(c, n, c.word)
		return func(f *frame) string {
			if test(f) {
				return yes(f)
			}
			return no(f)
		}, err
	case *ast.BuiltinNode:
		run, err := c.fallback(n)
		if err != nil {
			return nil, err
		}
		return func(f *frame) string { return run.word(f) }, nil
	}
	return nil, unsupported(node)
}

func (c *closures) truth(node ast.Node) (truthFn, error) {
	switch n := node.(type) {
	case *ast.BoolNode:
		v := n.Value
		return func(*frame) bool { return v }, nil
	case *ast.IdentifierNode:
		if o := c.operands[n.Value]; o != nil && o.truth != nil {
			return o.truth, nil
		}
	case *ast.UnaryNode:
		a, err := c.truth(n.Node)
		return func(f *frame) bool { return !a(f) }, err
	case *ast.ConditionalNode:
		test, yes, no, err := branches(c, n, c.truth)
		return func(f *frame) bool {
			if test(f) {
				return yes(f)
			}
			return no(f)
		}, err
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			return c.logic(n, and)
		case "or", "||":
			return c.logic(n, or)
		case "in":
			return c.in(n)
		case "matches":
			return c.matches(n)
		case "contains", "startsWith", "endsWith":
			return c.within(n)
		}
		return c.comparison(n)
	}
	return nil, unsupported(node)
}

func (c *closures) logic(n *ast.BinaryNode, join func(a, b truthFn) truthFn) (truthFn, error) {
	a, b, err := pair(n, c.truth)
	if err != nil {
		return nil, err
	}
	return join(a, b), nil
}

// and and or follow Kleene: a part that is unknown does not count where the
// other one decides.
func and(a, b truthFn) truthFn {
	return func(f *frame) bool {
		outer := f.unknown
		x := a(f)
		if !f.unknown {
			return x && b(f)
		}
		return decide(f, a, b, outer, false)
	}
}

func or(a, b truthFn) truthFn {
	return func(f *frame) bool {
		outer := f.unknown
		x := a(f)
		if !f.unknown {
			return x || b(f)
		}
		return decide(f, a, b, outer, true)
	}
}

// decide evaluates a and b, each on its own, where something is unknown:
// either of them decides by being known and equal to by. outer says whether a
// part outside of both was unknown before.
func decide(f *frame, a, b truthFn, outer, by bool) bool {
	f.unknown = false
	x := a(f)
	left := f.unknown
	if !left && x == by {
		f.unknown = outer
		return by
	}
	f.unknown = false
	y := b(f)
	if !f.unknown && y == by {
		f.unknown = outer
		return by
	}
	f.unknown = f.unknown || left || outer
	return !by
}

// A nodeKind is the type of an expression or a part of it.
type nodeKind uint8

const (
	kindOther nodeKind = iota
	kindNumber
	kindWord
	kindTruth
	kindMixed // of a fact: a number at one device and a word at another
)

func (k nodeKind) String() string {
	return [...]string{"something else", "a number", "a word", "true or false", "mixed"}[k]
}

func kindOf(node ast.Node) nodeKind {
	switch node.Type().Kind() {
	case reflect.Float64, reflect.Int:
		return kindNumber
	case reflect.String:
		return kindWord
	case reflect.Bool:
		return kindTruth
	}
	return kindOther
}

func pair[F any](n *ast.BinaryNode, build func(ast.Node) (F, error)) (a, b F, err error) {
	if a, err = build(n.Left); err != nil {
		return a, b, err
	}
	b, err = build(n.Right)
	return a, b, err
}

func branches[F any](c *closures, n *ast.ConditionalNode, build func(ast.Node) (F, error)) (test truthFn, yes, no F, err error) {
	if test, err = c.truth(n.Cond); err != nil {
		return test, yes, no, err
	}
	if yes, err = build(n.Exp1); err != nil {
		return test, yes, no, err
	}
	no, err = build(n.Exp2)
	return test, yes, no, err
}

func unsupported(node ast.Node) error {
	return fmt.Errorf("%s is not possible in a rule", strings.TrimSpace(node.String()))
}

func (c *closures) in(n *ast.BinaryNode) (truthFn, error) {
	words, numbers, err := members(n.Right)
	if err != nil {
		return nil, err
	}
	if kindOf(n.Left) == kindNumber {
		a, err := c.number(n.Left)
		return func(f *frame) bool {
			v := a(f)
			for _, m := range numbers {
				if v == m {
					return true
				}
			}
			return false
		}, err
	}
	a, err := c.word(n.Left)
	return func(f *frame) bool { return words[a(f)] }, err
}

// members reads the list on the right of in; the optimiser gives it in several
// forms.
func members(node ast.Node) (words map[string]bool, numbers []float64, err error) {
	words = map[string]bool{}
	take := func(v any) bool {
		switch v := v.(type) {
		case float64:
			numbers = append(numbers, v)
		case int:
			numbers = append(numbers, float64(v))
		case string:
			words[v] = true
		default:
			return false
		}
		return true
	}
	ok := true
	switch n := node.(type) {
	case *ast.ConstantNode:
		switch list := n.Value.(type) {
		case []any:
			for _, v := range list {
				ok = take(v) && ok
			}
		case map[string]struct{}:
			for v := range list {
				words[v] = true
			}
		default:
			ok = false
		}
	case *ast.ArrayNode:
		ok = len(n.Nodes) == 0
	default:
		ok = false
	}
	if !ok {
		return nil, nil, unsupported(node)
	}
	return words, numbers, nil
}

func (c *closures) matches(n *ast.BinaryNode) (truthFn, error) {
	pattern, ok := n.Right.(*ast.StringNode)
	if !ok {
		return nil, unsupported(n)
	}
	re, err := regexp.Compile(pattern.Value)
	if err != nil {
		return nil, err
	}
	a, err := c.word(n.Left)
	return func(f *frame) bool { return re.MatchString(a(f)) }, err
}

func (c *closures) within(n *ast.BinaryNode) (truthFn, error) {
	a, b, err := pair(n, c.word)
	if err != nil {
		return nil, err
	}
	test := map[string]func(s, part string) bool{
		"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix,
	}[n.Operator]
	return func(f *frame) bool { return test(a(f), b(f)) }, nil
}
