package dashboards

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/influxdata/influxql"
	"go.yaml.in/yaml/v3"

	"haidang/gateway/ioc"
	"haidang/gateway/telemetry"
	"haidang/gateway/vitals"
)

func builtinKinds(t *testing.T) *telemetry.Catalogue {
	t.Helper()
	text, err := os.ReadFile("../gateway/builtin/kinds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Kinds []telemetry.Kind }
	if err := yaml.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	catalogue, faults := telemetry.NewCatalogue(list.Kinds)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return catalogue
}

// names checks a query against the catalogue and remembers the values selected.
type names struct {
	catalogue *telemetry.Catalogue
	values    []*telemetry.Quantity
	faults    []string
}

func (n *names) fault(format string, args ...any) {
	n.faults = append(n.faults, fmt.Sprintf(format, args...))
}

func (n *names) query(text string) {
	query, err := influxql.ParseQuery(text)
	if err != nil {
		n.fault("%v", err)
		return
	}
	for _, s := range query.Statements {
		switch s := s.(type) {
		case *influxql.SelectStatement:
			n.statement(s)
		case *influxql.ShowTagValuesStatement:
			known := n.sources(s.Sources)
			n.refs(s.Condition, known, false)
			if key := strings.Trim(s.TagKeyExpr.String(), `'"`); !slices.Contains(known, key) {
				n.fault("tag %q is not in %v", key, known)
			}
		default:
			n.fault("%T in a dashboard", s)
		}
	}
}

func (n *names) statement(s *influxql.SelectStatement) {
	known := n.sources(s.Sources)
	// The gateway's own measurements have units by the ends of their names.
	own := strings.Contains(s.Sources.String(), vitals.Prefix)
	for _, field := range s.Fields {
		n.refs(field.Expr, known, !own)
	}
	n.refs(s.Condition, known, false)
	for _, d := range s.Dimensions {
		n.refs(d.Expr, known, false)
	}
}

// sources returns the names that can be used with these sources.
func (n *names) sources(list influxql.Sources) []string {
	known := []string{"time", "device", "site"}
	for _, source := range list {
		switch source := source.(type) {
		case *influxql.SubQuery:
			n.statement(source.Statement)
			known = append(known, source.Statement.ColumnNames()...)
			for _, d := range source.Statement.Dimensions {
				known = append(known, d.String())
			}
		case *influxql.Measurement:
			kind := n.catalogue.Kind(source.Name)
			switch {
			case source.Name == ioc.Measurement:
				known = append(known, "rule", "n", "severity", "state", "id", "age_s")
			case strings.HasPrefix(source.Name, vitals.Prefix):
				i := slices.IndexFunc(vitals.Measurements(), func(m vitals.Measurement) bool { return m.Name == source.Name })
				if i < 0 {
					n.fault("measurement %q is none of the gateway's own", source.Name)
					continue
				}
				known = append(append(known, vitals.Measurements()[i].Tags...), vitals.Measurements()[i].Fields...)
			case kind == nil:
				n.fault("measurement %q is not a kind", source.Name)
			default:
				known = append(known, "quality", "delay_s")
				for _, q := range kind.Values {
					known = append(known, column(&q), q.Name+"_quality")
				}
			}
		}
	}
	return known
}

// column is the field of a value: words have one of their own.
func column(q *telemetry.Quantity) string {
	if q.Words {
		return q.Name + "_text"
	}
	return q.Name
}

func (n *names) refs(node influxql.Node, known []string, selected bool) {
	influxql.WalkFunc(node, func(node influxql.Node) {
		ref, ok := node.(*influxql.VarRef)
		if !ok {
			return
		}
		name := strings.Trim(ref.Val, `"`)
		if !slices.Contains(known, name) {
			n.fault("%q is not one of %v", name, known)
		}
		for _, kind := range n.catalogue.Owners(name) {
			if selected {
				n.values = append(n.values, kind.Quantity(name))
			}
		}
	})
}

// scale matches units that only tell the range of a code, as "0-15".
var scale = regexp.MustCompile(`^\d+-\d+$`)

func TestQueriesNameWhatExists(t *testing.T) {
	catalogue := builtinKinds(t)
	for _, d := range load(t) {
		for name, query := range queries(&d) {
			n := names{catalogue: catalogue}
			n.query(replaced(query))
			for _, fault := range n.faults {
				t.Errorf("%s, %s: %s", d.file, name, fault)
			}
			if rest := regexp.MustCompile(`\$[a-z_{]+`).FindString(replaced(query)); rest != "" {
				t.Errorf("%s, %s: %s is no variable of the dashboard", d.file, name, rest)
			}
		}
		for _, p := range d.Panels {
			n := names{catalogue: catalogue}
			for _, target := range p.Targets {
				n.query(replaced(target.Query))
			}
			if p.Type == "row" {
				continue
			}
			if len(p.Targets) == 0 {
				t.Errorf("%s, %s asks nothing", d.file, p.Title)
				continue
			}
			if strings.Contains(p.Targets[0].Query, "count(") || strings.Contains(p.Targets[0].Query, "abs(") {
				continue // a number of rows and the index of air have no unit
			}
			for _, q := range n.values {
				want := "suffix:" + q.Unit
				if strings.Contains(p.Targets[0].Query, "derivative(") {
					want += "/h"
				}
				if q.Unit != "" && !scale.MatchString(q.Unit) && !slices.Contains(p.units(), want) {
					t.Errorf("%s, %s: %s has no unit %q; there are %q", d.file, p.Title, q.Name, want, p.units())
				}
			}
		}
	}
}

// TestWrongNamesAreFound shows that the check above can fail.
func TestWrongNamesAreFound(t *testing.T) {
	catalogue := builtinKinds(t)
	for _, query := range []string{
		`SELECT last("level_cm") FROM "river"`,
		`SELECT last("level_m") FROM "rivers"`,
		`SELECT last("level_m") FROM "river" GROUP BY "station"`,
		`SELECT last("level_m") FROM "river" WHERE "rule" = 'x'`,
		`SELECT last("cause") FROM "link"`,
		`SELECT "level_m" FROM (SELECT last("level_m") AS "l" FROM "river" GROUP BY "device")`,
		`SELECT last("lag") FROM "haidang_follower"`,
		`SELECT last("lag_s") FROM "haidang_followers"`,
		`SHOW TAG VALUES FROM "rivers" WITH KEY = "site"`,
		`SHOW TAG VALUES WITH KEY = "owner"`,
		`SHOW MEASUREMENTS`,
		`SELECT last("level_m" FROM "river"`,
	} {
		n := names{catalogue: catalogue}
		if n.query(query); len(n.faults) == 0 {
			t.Errorf("no fault was found in %s", query)
		}
	}
}
