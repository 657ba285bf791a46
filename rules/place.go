package rules

import (
	"fmt"
	"math"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/file"
	"github.com/paulmach/orb"

	"haidang/gateway/telemetry"
)

// A placeRef is a zone that the rules of a plan name: by its own name, or by a
// fact of the device.
type placeRef struct {
	name  string // of the zone, or device.<fact>
	zone  *zone
	fact  int
	dwell bool // some rule asks how long the device is inside
}

func (p *placeRef) of(d *device) *zone {
	if p.zone != nil {
		return p.zone
	}
	return d.facts[p.fact].zone()
}

// A placeState is what is known of a device and a place. What was computed for
// the position at hand is kept for the other rules.
type placeState struct {
	entered int64 // log time since which the device is inside, or never

	gen, farGen uint64 // readings for which inside and far were computed
	inside      bool
	far         float64
}

// neverGen is no reading's generation.
const neverGen = math.MaxUint64

// A position is where a device was, in degrees, and the event time of it.
type position struct {
	at  orb.Point
	t   int64
	was bool
}

func (s *stream) here() orb.Point {
	return orb.Point{s.cells[s.plan.lon].number, s.cells[s.plan.lat].number}
}

func (s *stream) inside(i int) bool {
	p := &s.places[i]
	if p.gen != s.gen {
		z := s.plan.places[i].of(s.device)
		p.gen, p.inside = s.gen, z != nil && z.contains(s.here())
	}
	return p.inside
}

func (s *stream) far(i int) float64 {
	p := &s.places[i]
	if p.farGen != s.gen {
		p.farGen, p.far = s.gen, s.plan.places[i].of(s.device).distance(s.here())
	}
	return p.far
}

// move takes in a new position, at event time t and log time now.
func (s *stream) move(t, now int64) {
	for i := range s.places {
		if !s.plan.places[i].dwell {
			continue
		}
		switch inside := s.inside(i); {
		case !inside:
			s.places[i].entered = never
		case s.places[i].entered == never:
			s.places[i].entered = now
		}
	}
	if !s.plan.track {
		return
	}
	if s.spot.was && s.spot.t != t { // the same time again is a correction
		s.before = s.spot
	}
	s.spot = position{at: s.here(), t: t, was: true}
}

// located reports whether the device's position is known.
func (s *stream) located() bool {
	return s.cells[s.plan.lat].at != never && s.cells[s.plan.lon].at != never
}

// place resolves inside, distance_m, crossed and dwell.
func (s *scope) place(node *ast.Node, n *ast.CallNode, name string) *file.Error {
	if len(n.Arguments) != 1 {
		return errorAt(n, "%s takes the name of one zone, such as %s(\"harbour\")", name, name)
	}
	ref, err := s.placeRef(n.Arguments[0])
	if err != nil {
		return err
	}
	if s.plan.kind == nil || s.plan.kind.Quantity("lat") == nil || s.plan.kind.Quantity("lon") == nil {
		return errorAt(n, "%s needs a kind with the values lat and lon, such as position", name)
	}
	switch z := ref.zone; {
	case z == nil: // by a fact: learnFacts has looked at what it names
	case name == "crossed" && len(z.lines) == 0:
		return errorAt(n.Arguments[0], "crossed needs a line, and %q is an area: its feature is no LineString", z.name)
	case (name == "inside" || name == "dwell") && len(z.area) == 0:
		return errorAt(n.Arguments[0], "%s needs an area, and %q is a line: its feature is no Polygon", name, z.name)
	}
	if ref.zone == nil {
		if fault := s.set.wrongShape(ref.name, name == "crossed", name == "distance_m"); fault != "" {
			return errorAt(n.Arguments[0], "%s", fault)
		}
	}
	s.put(node, "", fmt.Sprintf("%s(%s)", name, ref.name), func() (*operand, nature.Nature) {
		i := s.plan.place(ref)
		s.plan.lat, s.plan.lon = s.plan.cell("lat"), s.plan.cell("lon")
		o := newOperand()
		o.needs = []int{s.plan.lat, s.plan.lon}
		if ref.zone == nil {
			o.facts = []int{ref.fact}
			o.never = !s.set.hasFact(ref.name[len("device."):])
		}
		o.zone = ref.zone
		return o, s.placeOperand(o, name, i)
	})
	return nil
}

func (s *scope) placeOperand(o *operand, name string, i int) nature.Nature {
	switch name {
	case "inside":
		o.truth = func(f *frame) bool { return f.stream.inside(i) }
		return truthNature
	case "crossed":
		s.plan.track = true
		ref := s.plan.places[i]
		o.truth = func(f *frame) bool {
			s := f.stream
			z := ref.of(s.device)
			return !f.timed && s.before.was && z != nil && z.crossed(s.before.at, s.spot.at)
		}
		return truthNature
	case "dwell":
		s.plan.places[i].dwell = true
		o.running = &clock{since: sinceEntered, index: i}
		o.number = func(f *frame) float64 {
			if since := f.stream.places[i].entered; since != never {
				return elapsed(f.now, since)
			}
			return 0
		}
		return numberNature
	}
	o.number = func(f *frame) float64 {
		if !f.stream.located() {
			f.unknown = true
			return 0
		}
		return finite(f, f.stream.far(i))
	}
	return numberNature
}

func (s *scope) placeRef(argument ast.Node) (placeRef, *file.Error) {
	if n, ok := argument.(*ast.MemberNode); ok {
		base, is := n.Node.(*ast.IdentifierNode)
		property, word := n.Property.(*ast.StringNode)
		if is && word && base.Value == "device" {
			if s.set.factKinds[property.Value] == kindNumber {
				return placeRef{}, errorAt(property, "fact %s is a number, expected the name of a zone", property.Value)
			}
			var node ast.Node = &ast.NilNode{}
			if err := s.fact(&node, property); err != nil { // it warns of a fact that no device has
				return placeRef{}, err
			}
			return placeRef{name: "device." + property.Value, fact: s.set.fact(property.Value)}, nil
		}
	}
	word, ok := argument.(*ast.StringNode)
	if !ok {
		return placeRef{}, errorAt(argument, "the name of a zone in quotes is expected, or a fact that names one, such as device.zone")
	}
	z := s.set.zones[word.Value]
	if z == nil {
		return placeRef{}, errorAt(word, "there is no zone %q%s", word.Value, telemetry.DidYouMean(word.Value, sortedKeys(s.set.zones)))
	}
	return placeRef{name: z.name, zone: z, fact: -1}, nil
}
