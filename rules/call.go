package rules

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/file"

	"haidang/gateway/telemetry"
)

// call resolves a call of one of our functions.
func (s *scope) call(node *ast.Node, n *ast.CallNode) *file.Error {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return errorAt(n, "%s is not possible in a rule", strings.TrimSpace(n.String()))
	}
	name := callee.Value
	totals, window := windowFunctions(name)
	switch name {
	case "silent", "heard", "inside", "distance_m", "crossed", "dwell", "hour", "weekday", "limit", "percentile", "prev", "age", "nowcast", "vn_aqi":
	default:
		if !window {
			return errorAt(n, "%s is not a function of rules%s", name, telemetry.DidYouMean(name, functionNames))
		}
	}
	if s.facts {
		return errorAt(n, "%s(): where knows only facts of the device, such as device.owner", name)
	}
	switch name {
	case "silent":
		return s.silent(node, n)
	case "inside", "distance_m", "crossed", "dwell":
		return s.place(node, n, name)
	case "limit":
		return s.limit(node, n)
	case "percentile":
		return s.percentile(node, n)
	case "prev":
		return s.prev(node, n)
	case "age":
		return s.age(node, n)
	case "nowcast", "vn_aqi":
		return s.air(node, n, name)
	}
	if window {
		return s.overWindow(node, n, name, totals)
	}
	if len(n.Arguments) != 0 {
		return errorAt(n, "%s() takes no argument", name)
	}
	s.put(node, "", name+"()", func() (*operand, nature.Nature) {
		o := newOperand()
		if name == "heard" {
			o.truth = func(f *frame) bool { return f.stream.ever }
			return o, truthNature
		}
		o.number = map[string]numberFn{"hour": hour, "weekday": weekday}[name]
		return o, numberNature
	})
	return nil
}

// vietnam is UTC+07:00: Vietnam has had no other offset since 1975.
const vietnam = int64(7 * time.Hour)

func hour(f *frame) float64 {
	const day = int64(24 * time.Hour)
	return float64(((f.now+vietnam)%day + day) % day / int64(time.Hour))
}

func weekday(f *frame) float64 {
	w := time.Unix(0, f.now+vietnam).UTC().Weekday()
	return float64((w+6)%7 + 1)
}

// width reads a duration in quotes.
func width(n *ast.CallNode, i int, least, most time.Duration) (time.Duration, *file.Error) {
	word, ok := n.Arguments[i].(*ast.StringNode)
	if !ok {
		return 0, errorAt(n.Arguments[i], "a duration in quotes is expected, such as \"1h\"")
	}
	d, err := telemetry.ParseDuration(word.Value)
	if err != nil {
		return 0, errorAt(word, "%v", err)
	}
	if d.Std() < least || d.Std() > most {
		return 0, errorAt(word, "%q is not in %s..%s", word.Value, telemetry.Duration(least), telemetry.Duration(most))
	}
	return d.Std(), nil
}

// ownNumber resolves an argument that must be a number of the reading.
func (s *scope) ownNumber(n *ast.CallNode, i int, name string) (*operand, *file.Error) {
	argument := n.Arguments[i]
	if err := s.resolve(&n.Arguments[i]); err != nil {
		return nil, err
	}
	if id, ok := n.Arguments[i].(*ast.IdentifierNode); ok {
		if o := s.operands[id.Value]; o.number != nil && o.cell >= 0 {
			return o, nil
		}
	}
	return nil, errorAt(argument, "%s takes the name of one value of the reading that is a number", name)
}

func callLabel(name, argument string) string { return name + "(" + argument + ")" }

// ownValue resolves an argument that must be a value, of the reading or of the
// site, which need not be there when the condition is evaluated.
func (s *scope) ownValue(n *ast.CallNode, i int, name string) (*operand, *file.Error) {
	argument := n.Arguments[i]
	before := maps.Clone(s.used)
	if err := s.resolve(&n.Arguments[i]); err != nil {
		return nil, err
	}
	if id, ok := n.Arguments[i].(*ast.IdentifierNode); ok {
		if o := s.operands[id.Value]; o.cell >= 0 || o.mate != nil {
			s.used = before
			return o, nil
		}
	}
	return nil, errorAt(argument, "%s takes the name of one value", name)
}

func (s *scope) silent(node *ast.Node, n *ast.CallNode) *file.Error {
	if len(n.Arguments) < 1 || len(n.Arguments) > 2 {
		return errorAt(n, "silent takes a duration, such as silent(\"6h\"), or a value and a duration, such as silent(level_m, \"1h\")")
	}
	last := len(n.Arguments) - 1
	d, err := width(n, last, time.Second, MaxHold)
	if err != nil {
		return err
	}
	if last == 0 {
		s.put(node, "", fmt.Sprintf("silent(%s)", telemetry.Duration(d)), func() (*operand, nature.Nature) {
			o := newOperand()
			o.running, o.silent = &clock{since: sinceHeard, after: int64(d)}, true
			o.truth = func(f *frame) bool { return f.now-f.stream.heard >= int64(d) }
			return o, truthNature
		})
		return nil
	}
	of, err := s.ownValue(n, 0, "silent")
	if err != nil {
		return err
	}
	if of.cell < 0 {
		return errorAt(n, "silent takes a value of the kind that the rule is on")
	}
	s.put(node, "", fmt.Sprintf("silent(%s,%s)", of.label, telemetry.Duration(d)), func() (*operand, nature.Nature) {
		o := newOperand()
		o.running, o.silent = &clock{since: sinceValue, index: of.cell, after: int64(d)}, true
		o.truth = func(f *frame) bool { return f.stream.lost(of.cell, f.now, int64(d)) }
		return o, truthNature
	})
	return nil
}

// lost reports whether a value that was there has been missing for d while the
// device went on: something came more than one expected interval after it.
func (s *stream) lost(cell int, now, d int64) bool {
	c := &s.cells[cell]
	return c.at != never && now-c.heard >= d && s.heard-c.heard > s.device.interval
}

// age resolves the seconds since the newest usable sample of a value.
func (s *scope) age(node *ast.Node, n *ast.CallNode) *file.Error {
	if len(n.Arguments) != 1 {
		return errorAt(n, "age takes one value, such as age(level_m)")
	}
	of, err := s.ownValue(n, 0, "age")
	if err != nil {
		return err
	}
	s.put(node, of.prefix(), callLabel("age", of.label), func() (*operand, nature.Nature) {
		o := newOperand()
		o.of = of.mate
		if of.mate == nil {
			o.running = &clock{since: sinceValue, index: of.cell}
		}
		o.number = func(f *frame) float64 {
			c, mate := (*cell)(nil), of.mate
			if mate == nil {
				c = &f.cells[of.cell]
			} else if s := mate.stream(f); s != nil {
				c = &s.cells[mate.cell]
			}
			if c == nil || c.at == never {
				f.unknown = true
				return 0
			}
			return elapsed(f.now, c.heard)
		}
		return o, numberNature
	})
	return nil
}

// prev resolves the sample before the one at hand.
func (s *scope) prev(node *ast.Node, n *ast.CallNode) *file.Error {
	if len(n.Arguments) != 1 {
		return errorAt(n, "prev takes one value, such as prev(level_m)")
	}
	of, err := s.ownNumber(n, 0, "prev")
	if err != nil {
		return err
	}
	s.put(node, "", callLabel("prev", of.label), func() (*operand, nature.Nature) {
		i := s.plan.prev(of.cell)
		o := newOperand()
		o.needs = []int{of.cell}
		o.number = func(f *frame) float64 {
			p := &f.stream.prevs[i]
			if !p.has {
				f.unknown = true
			}
			return p.before
		}
		return o, numberNature
	})
	return nil
}

func (s *scope) limit(node *ast.Node, n *ast.CallNode) *file.Error {
	if len(n.Arguments) != 1 {
		return errorAt(n, "limit takes the name of one limit, such as limit(\"pm25_24h\")")
	}
	word, ok := n.Arguments[0].(*ast.StringNode)
	if !ok {
		return errorAt(n.Arguments[0], "the name of a limit in quotes is expected")
	}
	l, ok := s.set.limits[word.Value]
	if !ok {
		return errorAt(word, "there is no limit %q under limits%s", word.Value, telemetry.DidYouMean(word.Value, sortedKeys(s.set.limits)))
	}
	s.put(node, "", callLabel("limit", word.Value), func() (*operand, nature.Nature) {
		o := newOperand()
		o.limit = l
		o.number = func(f *frame) float64 {
			v, ok := l.at(f.now)
			if !ok {
				f.unknown = true
			}
			return v
		}
		return o, numberNature
	})
	return nil
}

func (s *scope) percentile(node *ast.Node, n *ast.CallNode) *file.Error {
	if len(n.Arguments) != 3 {
		return errorAt(n, "percentile takes a value, a percentage and a window, such as percentile(level_m, 95, \"24h\")")
	}
	of, err := s.windowed(n, "percentile")
	if err != nil {
		return err
	}
	p, ok := constant(n.Arguments[1])
	if !ok || !(p >= 0 && p <= 100) {
		return errorAt(n.Arguments[1], "percentile takes a percentage in 0..100")
	}
	d, err := width(n, 2, MinWindow, RankedWidth)
	if err != nil {
		return err
	}
	s.put(node, of.prefix(), fmt.Sprintf("percentile(%s,%g,%s)", of.label, p, telemetry.Duration(d)), func() (*operand, nature.Nature) {
		w := s.windowRef(of, windowSpec{width: d, ranked: true})
		o := newOperand()
		o.of = of.mate
		o.number = w.function(func(w *window) (float64, bool) { return w.percentile(p) }, false)
		return o, numberNature
	})
	return nil
}

func constant(node ast.Node) (float64, bool) {
	switch n := node.(type) {
	case *ast.IntegerNode:
		return float64(n.Value), true
	case *ast.FloatNode:
		return n.Value, true
	}
	return 0, false
}

// windowed resolves the value of which a window is kept.
func (s *scope) windowed(n *ast.CallNode, name string) (*operand, *file.Error) {
	if err := s.resolve(&n.Arguments[0]); err != nil {
		return nil, err
	}
	if id, ok := n.Arguments[0].(*ast.IdentifierNode); ok {
		if of := s.operands[id.Value]; of.number != nil && (of.cell >= 0 || of.mate != nil) {
			return of, nil
		}
	}
	return nil, errorAt(n.Arguments[0], "%s takes the name of one value that is a number", name)
}

// windowRef returns the window of a value.
func (s *scope) windowRef(of *operand, spec windowSpec) *windowRef {
	plan, at := s.plan, -1
	spec.cell = of.cell
	if of.mate != nil {
		plan, at = s.set.plans[of.mate.plan], of.mate.plan
		spec.cell = of.mate.cell
	}
	i := plan.window(spec)
	plan.windows[i].answers++
	return &windowRef{mate: at, index: i, answer: plan.windows[i].answers - 1}
}

// prefix sets what is known of the site's values apart from what is known of
// those of the reading.
func (o *operand) prefix() string {
	if o.mate != nil {
		return "site "
	}
	return ""
}

// overWindow resolves a function of a value and a window.
func (s *scope) overWindow(node *ast.Node, n *ast.CallNode, name string, totals bool) *file.Error {
	if len(n.Arguments) != 2 {
		return errorAt(n, "%s takes a value and a window, such as %s(level_m, \"1h\")", name, name)
	}
	of, err := s.windowed(n, name)
	if err != nil {
		return err
	}
	d, err := width(n, 1, MinWindow, MaxWindow)
	if err != nil {
		return err
	}
	s.put(node, of.prefix(), fmt.Sprintf("%s(%s,%s)", name, of.label, telemetry.Duration(d)), func() (*operand, nature.Nature) {
		o := newOperand()
		o.of = of.mate
		o.number = s.windowRef(of, windowSpec{width: d, totals: totals}).function(windowAnswer(name))
		return o, numberNature
	})
	return nil
}
