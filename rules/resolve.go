package rules

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"

	"haidang/gateway/telemetry"
)

var (
	numberNature  = nature.FromType(reflect.TypeFor[float64]())
	wordNature    = nature.FromType(reflect.TypeFor[string]())
	truthNature   = nature.FromType(reflect.TypeFor[bool]())
	unknownNature = nature.FromType(nil)
)

// windowFunctions are the functions of a value and a window's width, each with
// whether it needs the window's totals.
func windowFunctions(name string) (totals, ok bool) {
	switch name {
	case "avg", "min", "max", "sum", "stddev":
		return true, true
	case "count", "delta", "rate", "first", "last":
		return false, true
	}
	return false, false
}

var functionNames = []string{
	"abs", "age", "avg", "ceil", "count", "crossed", "delta", "distance_m", "dwell", "first", "floor", "heard", "hour",
	"inside", "last", "len", "limit", "lower", "max", "min", "nowcast", "percentile", "prev", "rate", "round", "silent",
	"stddev", "sum", "trim", "upper", "vn_aqi", "weekday",
}

// signature is how a function is called, for who wrote its name alone.
func signature(name string) string {
	if name == "hour" || name == "weekday" {
		return name + "()"
	}
	return name + "(...)"
}

// newConfig returns expr's configuration for rules: an empty strict environment
// and the few builtins that are allowed.
func newConfig() *conf.Config {
	cfg := conf.CreateNew()
	cfg.MaxNodes = MaxNodes
	cfg.Strict = true
	cfg.Env = types.Map{}.Nature()
	for name := range cfg.Builtins {
		switch name {
		case "abs", "ceil", "floor", "round", "len", "lower", "upper", "trim":
			continue
		}
		cfg.Disabled[name] = true
		delete(cfg.Builtins, name)
	}
	for _, name := range functionNames { // so that min, max, sum and count are parsed as calls, not as predicates
		if cfg.Builtins[name] == nil {
			cfg.Env.Fields[name] = unknownNature
		}
	}
	return cfg
}

// A scope knows what the names in the expressions of one kind mean. It is used
// while a Set is compiled and grows its plan by what the expressions use.
type scope struct {
	set      *Set
	plan     *plan
	cfg      *conf.Config
	operands map[string]*operand
	facts    bool // only facts of the device may be named: where

	used    map[string]bool // operands of the expression at hand
	unknown []string        // what it names that no device has
	done    map[ast.Node]bool
}

// resolve checks that the tree has only what rules allow, and replaces every
// name, member and call of ours by an identifier that stands for one operand.
func (s *scope) resolve(node *ast.Node) *file.Error {
	switch n := (*node).(type) {
	case *ast.FloatNode, *ast.BoolNode, *ast.StringNode:
		return nil
	case *ast.IntegerNode:
		ast.Patch(node, &ast.FloatNode{Value: float64(n.Value)}) // all numbers are float64
		return nil
	case *ast.IdentifierNode:
		if s.done[n] { // shared: a < b < c is a < b && b < c with one b
			return nil
		}
		return s.value(node, n)
	case *ast.MemberNode:
		return s.member(node, n)
	case *ast.CallNode:
		return s.call(node, n)
	case *ast.BuiltinNode:
		return s.builtin(n)
	case *ast.UnaryNode:
		return s.resolve(&n.Node)
	case *ast.BinaryNode:
		return s.binary(n)
	case *ast.ConditionalNode:
		return s.all(&n.Cond, &n.Exp1, &n.Exp2)
	case *ast.VariableDeclaratorNode:
		return errorAt(n, "let is not possible in a rule")
	case *ast.PredicateNode, *ast.PointerNode:
		return errorAt(n, "predicates are not possible in a rule")
	case *ast.ArrayNode:
		return errorAt(n, "a list is only possible after in")
	case *ast.NilNode:
		return errorAt(n, "nil is not possible in a rule: a condition is evaluated only when all its values are there")
	}
	return errorAt(*node, "%s is not possible in a rule", strings.TrimSpace((*node).String()))
}

func (s *scope) all(nodes ...*ast.Node) *file.Error {
	for _, n := range nodes {
		if err := s.resolve(n); err != nil {
			return err
		}
	}
	return nil
}

func errorAt(node ast.Node, format string, args ...any) *file.Error {
	return &file.Error{Location: node.Location(), Message: fmt.Sprintf(format, args...)}
}

func (s *scope) binary(n *ast.BinaryNode) *file.Error {
	switch n.Operator {
	case "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "**", "^", "and", "&&", "or", "||", "contains", "startsWith", "endsWith":
		return s.all(&n.Left, &n.Right)
	case "matches":
		pattern, ok := n.Right.(*ast.StringNode)
		if !ok {
			return errorAt(n.Right, "the pattern after matches must be a word in quotes")
		}
		if _, err := regexp.Compile(pattern.Value); err != nil {
			return errorAt(pattern, "%v", err)
		}
		return s.resolve(&n.Left)
	case "in":
		list, ok := n.Right.(*ast.ArrayNode)
		if !ok {
			return errorAt(n.Right, "after in a list such as [1, 2] is expected")
		}
		for i := range list.Nodes {
			switch list.Nodes[i].(type) {
			case *ast.IntegerNode, *ast.FloatNode, *ast.StringNode:
			default:
				return errorAt(list.Nodes[i], "a list holds numbers or words, no %s", strings.TrimSpace(list.Nodes[i].String()))
			}
			if err := s.resolve(&list.Nodes[i]); err != nil {
				return err
			}
		}
		return s.resolve(&n.Left)
	}
	return errorAt(n, "the operator %s is not possible in a rule", n.Operator)
}

func (s *scope) builtin(n *ast.BuiltinNode) *file.Error {
	switch n.Name {
	case "abs", "ceil", "floor", "round", "len", "lower", "upper", "trim":
	default:
		return errorAt(n, "%s is not a function of rules%s", n.Name, telemetry.DidYouMean(n.Name, functionNames))
	}
	if len(n.Arguments) != 1 {
		return errorAt(n, "%s takes one argument, not %d", n.Name, len(n.Arguments))
	}
	return s.resolve(&n.Arguments[0])
}

// put replaces node by the identifier of an operand, made by build when the
// scope does not have it yet. The operands of the device and of the site have a
// prefix with a space, which no name can have: a value may be called
// device.alarm_m too.
func (s *scope) put(node *ast.Node, prefix, name string, build func() (*operand, nature.Nature)) {
	key := prefix + name
	if s.operands[key] == nil {
		o, kind := build()
		o.label = name
		s.operands[key] = o
		s.cfg.Env.Fields[key] = kind
	}
	s.used[key] = true
	id := &ast.IdentifierNode{Value: key}
	s.done[id] = true
	ast.Patch(node, id)
}

// value resolves a bare name: a value of the kind, quality, or a value of
// another kind.
func (s *scope) value(node *ast.Node, n *ast.IdentifierNode) *file.Error {
	name := n.Value
	if s.facts {
		return errorAt(n, "%s: where knows only facts of the device, such as device.owner", name)
	}
	switch name {
	case "device":
		return errorAt(n, "device needs a fact, such as device.name")
	case "quality":
		s.put(node, "", name, func() (*operand, nature.Nature) {
			o := newOperand()
			o.word = func(f *frame) string { return f.stream.quality.String() }
			return o, wordNature
		})
		return nil
	}
	if s.plan.kind == nil {
		return errorAt(n, "%s: a rule without on: names no values", name)
	}
	if q := s.plan.kind.Quantity(name); q != nil {
		s.own(node, q)
		return nil
	}
	owners := s.set.catalogue.Owners(name)
	switch len(owners) {
	case 0:
		if slices.Contains(functionNames, name) {
			return errorAt(n, "%s is a function: write %s", name, signature(name))
		}
		return errorAt(n, "unknown name %s%s", name, telemetry.DidYouMean(name, s.names()))
	case 1:
		return s.foreign(node, owners[0], owners[0].Quantity(name))
	}
	var forms []string
	for _, k := range owners {
		forms = append(forms, k.Name+"."+name)
	}
	return errorAt(n, "%s is a value of several kinds: write %s", name, strings.Join(forms, " or "))
}

func (s *scope) names() []string {
	names := []string{"quality", "device"}
	for _, k := range s.set.catalogue.Kinds() {
		names = append(names, k.Name)
		for _, q := range k.Values {
			names = append(names, q.Name)
		}
	}
	return append(names, functionNames...)
}

func (s *scope) member(node *ast.Node, n *ast.MemberNode) *file.Error {
	base, ok := n.Node.(*ast.IdentifierNode)
	property, word := n.Property.(*ast.StringNode)
	if !ok || !word || n.Optional || n.Method {
		return errorAt(n, "%s is not possible in a rule: expected device.fact or kind.value", strings.TrimSpace(n.String()))
	}
	if base.Value == "device" {
		return s.fact(node, property)
	}
	if s.facts {
		return errorAt(n, "%s: where knows only facts of the device, such as device.owner", strings.TrimSpace(n.String()))
	}
	kind := s.set.catalogue.Kind(base.Value)
	if kind == nil || s.plan.kind == nil {
		return errorAt(n, "unknown name %s%s", base.Value, telemetry.DidYouMean(base.Value, s.names()))
	}
	q := kind.Quantity(property.Value)
	if q == nil {
		var names []string
		for _, q := range kind.Values {
			names = append(names, q.Name)
		}
		return errorAt(property, "kind %s has no value %s%s", kind.Name, property.Value, telemetry.DidYouMean(property.Value, names))
	}
	if kind.Name == s.plan.kind.Name {
		s.own(node, q)
		return nil
	}
	return s.foreign(node, kind, q)
}

func newOperand() *operand { return &operand{cell: -1, fact: -1} }

func (s *scope) own(node *ast.Node, q *telemetry.Quantity) {
	s.put(node, "", q.Name, func() (*operand, nature.Nature) {
		o := newOperand()
		i := s.plan.cell(q.Name)
		o.cell = i
		if q.Words {
			o.word = func(f *frame) string { return f.cells[i].word }
			return o, wordNature
		}
		o.number = func(f *frame) float64 { return f.cells[i].number }
		return o, numberNature
	})
}

// foreign resolves a value of another kind at the same site.
func (s *scope) foreign(node *ast.Node, kind *telemetry.Kind, q *telemetry.Quantity) *file.Error {
	if fault := s.set.ambiguousSite(s.plan.kind.Name, kind.Name); fault != "" {
		return errorAt(*node, "%s", fault)
	}
	name := q.Name
	if len(s.set.catalogue.Owners(name)) > 1 {
		name = kind.Name + "." + name
	}
	s.put(node, "site ", name, func() (*operand, nature.Nature) {
		o := newOperand()
		plan := s.set.planOf(kind)
		m := &mate{plan: plan.index, cell: plan.cell(q.Name)}
		s.set.mates = true
		o.mate = m
		if q.Words {
			o.word = func(f *frame) string { return m.read(f).word }
			return o, wordNature
		}
		o.number = func(f *frame) float64 { return m.read(f).number }
		return o, numberNature
	})
	return nil
}

func (s *scope) fact(node *ast.Node, property *ast.StringNode) *file.Error {
	name := property.Value
	kind := s.set.factKinds[name]
	switch kind {
	case kindMixed:
		return errorAt(property, "fact %s is a number at some devices and a word at others", name)
	case kindOther:
		s.unknown = append(s.unknown, fmt.Sprintf("no device has the fact %s%s", name, telemetry.DidYouMean(name, s.set.factNames())))
	}
	s.put(node, "device ", name, func() (*operand, nature.Nature) {
		o := newOperand()
		i := s.set.fact(name)
		o.fact = i
		switch kind {
		case kindWord:
			o.word = func(f *frame) string { return f.device.facts[i].text() }
			return o, wordNature
		case kindNumber:
			o.number = func(f *frame) float64 { return f.device.facts[i].number }
			return o, numberNature
		}
		return o, unknownNature // no device has it: no condition with it is ever evaluated
	})
	return nil
}
