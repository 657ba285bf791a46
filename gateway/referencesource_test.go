package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// A sourcePackage is what the reference needs of the source of a package: its types
// and constants, with their comments.
type sourcePackage struct {
	types  map[string]*ast.TypeSpec
	docs   map[string]string // of types
	consts map[string]ast.Expr
}

// sourceOf parses the package of a type; packages that were parsed are kept in
// cache.
func sourceOf(t *testing.T, cache map[string]*sourcePackage, path string) *sourcePackage {
	t.Helper()
	if p, ok := cache[path]; ok {
		return p
	}
	dir := filepath.Join("..", strings.TrimPrefix(path, "haidang/"))
	if path == "main" || path == "haidang/gateway" { // the name in tests is the second
		dir = "."
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source of %s in %s: %v", path, dir, err)
	}
	p := &sourcePackage{types: map[string]*ast.TypeSpec{}, docs: map[string]string{}, consts: map[string]ast.Expr{}}
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if d, ok := d.(*ast.GenDecl); ok {
				p.declare(d)
			}
		}
	}
	cache[path] = p
	return p
}

func (p *sourcePackage) declare(d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			p.types[spec.Name.Name] = spec
			doc := spec.Doc
			if doc == nil {
				doc = d.Doc
			}
			p.docs[spec.Name.Name] = doc.Text()
		case *ast.ValueSpec:
			for i, name := range spec.Names {
				if d.Tok == token.CONST && i < len(spec.Values) {
					p.consts[name.Name] = spec.Values[i]
				}
			}
		}
	}
}

// comment is what the source says of a field: the comment above it, behind it, or
// above the field before it, where that one names both ("Cert and Key are ...").
func (p *sourcePackage) comment(structName, field string) string {
	spec, ok := p.types[structName]
	if !ok {
		return ""
	}
	body, ok := spec.Type.(*ast.StructType)
	if !ok {
		return ""
	}
	shared := ""
	for _, f := range body.Fields.List {
		text := strings.TrimSpace(f.Doc.Text())
		if text != "" {
			shared = text
		}
		for _, behind := range []string{strings.TrimSpace(f.Comment.Text())} {
			if behind != "" && text != "" {
				text += " " // both: what it is, then its bounds
			}
			text += behind
		}
		for _, name := range f.Names {
			if name.Name != field {
				continue
			}
			if text == "" && regexp.MustCompile(`^(\w+(, | and ))+`+field+`\b`).MatchString(shared) {
				return oneLine(shared)
			}
			return oneLine(text)
		}
	}
	return ""
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// constantName matches what a comment says in the words of the code.
var constantName = regexp.MustCompile(`\b[A-Za-z]+[a-z][A-Z][A-Za-z]*\b`)

// resolved writes out the constants that a comment names, as "default
// DefaultTimeout", in the form that the field's type is written in.
func (p *sourcePackage) resolved(text string, of reflect.Type) string {
	return constantName.ReplaceAllStringFunc(text, func(name string) string {
		expression, ok := p.consts[name]
		if !ok {
			return name
		}
		value := p.evaluate(expression)
		n, exact := constant.Int64Val(constant.ToInt(value))
		switch {
		case value.Kind() == constant.Unknown:
			return name
		case of == reflect.TypeFor[telemetry.Duration]() && exact:
			return telemetry.Duration(n).String()
		case of == reflect.TypeFor[telemetry.Size]() && exact:
			return telemetry.Size(n).String()
		case value.Kind() == constant.String:
			return constant.StringVal(value)
		}
		return value.ExactString()
	})
}

// evaluate is the value of a constant's expression, as far as bounds and defaults
// are written.
func (p *sourcePackage) evaluate(e ast.Expr) constant.Value {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.ParenExpr:
		return p.evaluate(e.X)
	case *ast.Ident:
		if of, ok := p.consts[e.Name]; ok {
			return p.evaluate(of)
		}
	case *ast.CallExpr: // a conversion
		if len(e.Args) == 1 {
			return p.evaluate(e.Args[0])
		}
	case *ast.SelectorExpr:
		units := map[string]time.Duration{"Nanosecond": 1, "Microsecond": time.Microsecond, "Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}
		if unit, ok := units[e.Sel.Name]; ok {
			return constant.MakeInt64(int64(unit))
		}
	case *ast.BinaryExpr:
		x, y := p.evaluate(e.X), p.evaluate(e.Y)
		if x.Kind() == constant.Unknown || y.Kind() == constant.Unknown {
			break
		}
		if e.Op == token.SHL {
			by, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(by))
		}
		return constant.BinaryOp(x, e.Op, y)
	}
	return constant.MakeUnknown()
}

// TestConstantsOfComments holds the reading of constants to what the compiler says.
func TestConstantsOfComments(t *testing.T) {
	cache := map[string]*sourcePackage{}
	for _, c := range []struct {
		path, text string
		of         reflect.Type
		want       string
	}{
		{"haidang/drivers/modbus", "default DefaultTimeout", reflect.TypeFor[telemetry.Duration](), "default 2s"},
		{"haidang/gateway/influx", "at least MinCache", reflect.TypeFor[telemetry.Size](), "at least 16MiB"},
		{"haidang/gateway/ioc", "default DefaultTopic", reflect.TypeFor[string](), "default warnings/{device}/{rule}"},
		{"haidang/gateway/ioc", "default NoSuchName", reflect.TypeFor[string](), "default NoSuchName"},
	} {
		if got := sourceOf(t, cache, c.path).resolved(c.text, c.of); got != c.want {
			t.Errorf("%s: %q became %q, want %q", c.path, c.text, got, c.want)
		}
	}
	if got := fmt.Sprint(sourceOf(t, cache, "haidang/drivers/modbus").comment("Unit", "Profile")); got == "" {
		t.Error("the comment of modbus.Unit.Profile was not found")
	}
}
