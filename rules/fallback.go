package rules

import (
	"fmt"
	"strconv"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// A fallback runs one rare function of words in expr's own virtual machine. Its
// arguments are closures, so that nothing else of the expression is left to the
// machine.
type fallback struct {
	program   *vm.Program
	arguments []wordFn
}

// fallbackVM is the machine and the variables that an engine lends to its
// fallbacks.
type fallbackVM struct {
	machine vm.VM
	env     map[string]any
}

func argumentName(i int) string { return "argument" + strconv.Itoa(i) }

// fallback compiles a call of len, lower, upper or trim.
func (c *closures) fallback(n *ast.BuiltinNode) (*fallback, error) {
	run := &fallback{}
	call := &ast.BuiltinNode{Name: n.Name}
	cfg := newConfig()
	for i, argument := range n.Arguments {
		fn, err := c.word(argument)
		if err != nil {
			return nil, err
		}
		run.arguments = append(run.arguments, fn)
		cfg.Env.Fields[argumentName(i)] = wordNature
		call.Arguments = append(call.Arguments, &ast.IdentifierNode{Value: argumentName(i)})
	}
	tree := &parser.Tree{Node: call}
	if _, err := checker.Check(tree, cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name, err)
	}
	program, err := compiler.Compile(tree, cfg)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", n.Name, err)
	}
	run.program = program
	return run, nil
}

func (b *fallback) run(f *frame) any {
	if f.vm == nil {
		f.vm = &fallbackVM{env: map[string]any{}}
	}
	arguments := make([]string, len(b.arguments))
	for i, argument := range b.arguments {
		arguments[i] = argument(f) // may use the machine itself: before the environment is set
	}
	for i, word := range arguments {
		f.vm.env[argumentName(i)] = word
	}
	v, err := f.vm.machine.Run(b.program, f.vm.env)
	if err != nil {
		f.unknown, f.notFinite = true, true
		return nil
	}
	return v
}

func (b *fallback) number(f *frame) float64 {
	switch v := b.run(f).(type) {
	case int:
		return float64(v)
	case float64:
		return finite(f, v)
	}
	f.unknown = true
	return 0
}

func (b *fallback) word(f *frame) string {
	v, ok := b.run(f).(string)
	if !ok {
		f.unknown = true
	}
	return v
}
