package rules

import (
	"errors"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/optimizer"
	"github.com/expr-lang/expr/parser"

	"haidang/gateway/telemetry"
)

// A program is one compiled expression.
type program struct {
	truth  truthFn // of a condition
	number numberFn
	word   wordFn

	cells []int32 // of the reading, that must be there
	mates []*mate
	facts []int // of the device, that must be there
	never bool  // names a fact that no device has

	silent    bool       // has silent(): for registered devices
	clocks    []clock    // when it changes by time alone
	named     []*operand // all it names
	threshold *program   // what a value is compared with, where it is a constant or made of facts
	shown     []*operand // the numbers it names
	tree      *ast.Node  // checked and optimised
}

// verdict is the outcome of a condition.
type verdict uint8

const (
	unknown verdict = iota
	no
	yes
)

// judge evaluates a condition. It is unknown when a value is missing or not
// usable, a window does not answer yet, or a result is not finite.
func (p *program) judge(f *frame) verdict {
	f.unknown, f.notFinite = false, false
	if !p.present(f) {
		return unknown
	}
	v := p.truth(f)
	switch {
	case f.unknown:
		return unknown
	case v:
		return yes
	}
	return no
}

func (p *program) present(f *frame) bool {
	for _, i := range p.cells {
		if c := &f.cells[i]; c.gen != f.gen && (!f.timed || c.at == never) {
			return false
		}
	}
	for _, m := range p.mates {
		if !m.fresh(f) {
			return false
		}
	}
	return true
}

// applies reports whether the device has every fact that the expression names.
func (p *program) applies(d *device) bool {
	if p.never {
		return false
	}
	for _, i := range p.facts {
		if !d.facts[i].known {
			return false
		}
	}
	return true
}

// friendly writes expr's errors in the words of rule authors.
var friendly = strings.NewReplacer("float64", "number", "string", "word", "bool", "truth")

// compile makes a program of an expression. want is what it must give;
// kindOther takes a number or a word.
func (s *scope) compile(source string, want nodeKind) (*program, error) {
	s.used, s.unknown, s.done = map[string]bool{}, nil, map[ast.Node]bool{}
	if len(source) > MaxExpressionBytes {
		return nil, &file.Error{Message: "the expression is longer than 4096 bytes"}
	}
	tree, err := parser.ParseWithConfig(source, s.cfg)
	if err != nil {
		return nil, explainSyntax(err)
	}
	if err := s.resolve(&tree.Node); err != nil {
		return nil, err.Bind(tree.Source)
	}
	if _, err := new(checker.Checker).Check(tree, s.cfg); err != nil {
		if located, ok := err.(*file.Error); ok {
			located.Message = friendly.Replace(located.Message)
		}
		return nil, err
	}
	if err := vet(tree.Node); err != nil {
		return nil, err.Bind(tree.Source)
	}
	p := s.program()
	kind := kindOf(tree.Node)
	if p.never {
		return p, nil
	}
	if kind != want && (want != kindOther || kind != kindNumber && kind != kindWord) {
		if want == kindOther {
			want = kindNumber
		}
		return nil, errorAt(tree.Node, "the expression gives %s, expected %s", kind, want).Bind(tree.Source)
	}
	if err := optimizer.Optimize(&tree.Node, s.cfg); err != nil {
		return nil, err
	}
	if err := vet(tree.Node); err != nil {
		return nil, err.Bind(tree.Source)
	}
	if want == kindTruth {
		clocks, err := s.clocksOf(tree.Node)
		if err != nil {
			return nil, err.Bind(tree.Source)
		}
		p.clocks = append(p.clocks, clocks...)
	}
	p.tree = &tree.Node
	return p, s.build(p, tree.Node, kind)
}

// explainSyntax tells what was meant where expr's parser stumbles: over a
// duration without quotes, which it reads as a number with a wrong end, and over
// what authors write who know other languages.
func explainSyntax(err error) error {
	var located *file.Error
	if !errors.As(err, &located) {
		return err
	}
	if word, ok := strings.CutPrefix(located.Message, "bad number syntax: "); ok {
		if text, wrong := strconv.Unquote(word); wrong == nil {
			if _, wrong := telemetry.ParseDuration(text); wrong == nil {
				located.Message = "a duration stands in quotes: " + word
			}
		}
		return located
	}
	m := unexpected.FindStringSubmatch(located.Message)
	switch {
	case m == nil:
	case m[1] == "EOF":
		located.Message = "the expression ends where something more was expected"
	default:
		located.Message = "unexpected " + m[2] + meant[strings.ToLower(m[2])]
	}
	return located
}

// unexpected is how expr's parser tells a token that it cannot use.
var unexpected = regexp.MustCompile(`^unexpected token (\w+)(?:\("(.*)"\))?$`)

// meant is what authors most often had in mind with what expr cannot read.
var meant = map[string]string{
	"=":    ": to compare write ==",
	"&":    ": write && or and",
	"and":  ": write and in small letters, or &&",
	"or":   ": write or in small letters, or ||",
	"not":  ": write not in small letters, or !",
	"và":   ": write and",
	"hoặc": ": write or",
	",":    ": a decimal number has a point, as 3.5",
}

func (s *scope) build(p *program, node ast.Node, kind nodeKind) (err error) {
	c := closures{operands: s.operands}
	switch kind {
	case kindTruth:
		if p.truth, err = c.truth(node); err != nil {
			return err
		}
		p.threshold, err = s.thresholdOf(node)
	case kindNumber:
		p.number, err = c.number(node)
	default:
		p.word, err = c.word(node)
	}
	return err
}

// program returns what the expression at hand needs, from the operands that it
// used.
func (s *scope) program() *program {
	p := &program{}
	for _, name := range sortedKeys(s.used) {
		o := s.operands[name]
		for _, i := range append([]int{o.cell}, o.needs...) {
			if i >= 0 {
				p.cells = append(p.cells, int32(i))
			}
		}
		for _, i := range append([]int{o.fact}, o.facts...) {
			if i >= 0 {
				p.facts = append(p.facts, i)
			}
		}
		p.never = p.never || o.never || o.fact >= 0 && o.word == nil && o.number == nil
		if o.mate != nil {
			p.mates = append(p.mates, o.mate)
		}
		p.silent = p.silent || o.silent
		if o.running != nil && o.truth != nil {
			p.clocks = append(p.clocks, *o.running)
		}
		if o.number != nil && o.fact < 0 && o.limit == nil {
			p.shown = append(p.shown, o)
		}
		p.named = append(p.named, o)
	}
	slices.Sort(p.cells)
	p.cells = slices.Compact(p.cells)
	return p
}

// vet refuses what the type checker lets through.
func vet(node ast.Node) (err *file.Error) {
	fail := func(n ast.Node, message string) {
		if err == nil {
			err = &file.Error{Location: n.Location(), Message: message}
		}
	}
	ast.Walk(&node, visitFunc(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.FloatNode:
			if math.IsInf(n.Value, 0) || math.IsNaN(n.Value) {
				fail(n, "the result is not a finite number")
			}
		case *ast.BinaryNode:
			if n.Operator == "+" && (kindOf(n.Left) == kindWord || kindOf(n.Right) == kindWord) {
				fail(n, "words cannot be added")
			}
		}
	}))
	return err
}

type visitFunc func(ast.Node)

func (v visitFunc) Visit(node *ast.Node) { v(*node) }

// thresholdOf finds the first comparison of a value with a constant or with
// facts of the device, and compiles its other side.
func (s *scope) thresholdOf(node ast.Node) (*program, error) {
	n, ok := node.(*ast.BinaryNode)
	if !ok {
		return nil, nil
	}
	switch n.Operator {
	case "and", "&&", "or", "||":
		p, err := s.thresholdOf(n.Left)
		if p != nil || err != nil {
			return p, err
		}
		return s.thresholdOf(n.Right)
	case "<", "<=", ">", ">=", "==", "!=":
	default:
		return nil, nil
	}
	if kindOf(n.Left) != kindNumber || kindOf(n.Right) != kindNumber {
		return nil, nil
	}
	side := n.Right
	switch left, right := s.steady(n.Left), s.steady(n.Right); {
	case left == right:
		return nil, nil
	case left:
		side = n.Left
	}
	number, err := (&closures{operands: s.operands}).number(side)
	return &program{number: number}, err
}

// steady reports whether a part of an expression names nothing but facts and
// limits.
func (s *scope) steady(node ast.Node) bool {
	steady := true
	ast.Walk(&node, visitFunc(func(n ast.Node) {
		if id, ok := n.(*ast.IdentifierNode); ok {
			o := s.operands[id.Value]
			steady = steady && (o.fact >= 0 || o.limit != nil)
		}
	}))
	return steady
}

func newScope(set *Set, p *plan, facts bool) *scope {
	return &scope{set: set, plan: p, facts: facts, cfg: newConfig(), operands: map[string]*operand{}}
}
