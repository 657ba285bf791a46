package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestStar holds the house to its plan: every package imports telemetry and no
// other package of ours; drivers may import drivers/link, a package its own
// subpackages; only the command imports them all. Tests are free.
func TestStar(t *testing.T) {
	const module = "haidang/"
	seen := 0
	eachGoFile(t, func(file string) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		from := filepath.ToSlash(filepath.Dir(file))
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			to, ours := strings.CutPrefix(path, module)
			if from == "gateway/telemetry" && strings.Contains(strings.Split(path, "/")[0], ".") {
				t.Errorf("%s imports %s; telemetry imports the standard library only", file, path)
			}
			if !ours {
				continue
			}
			seen++
			allowed := from == "gateway" || to == "gateway/telemetry" || strings.HasPrefix(to, from+"/") ||
				strings.HasPrefix(from, "drivers/") && to == "drivers/link"
			if !allowed {
				t.Errorf("%s imports %s: a star package imports gateway/telemetry and its own subpackages only", file, path)
			}
		}
	})
	if seen < 10 {
		t.Errorf("only %d imports of our own were seen; the test looks in the wrong place", seen)
	}
}

// TestNoInit finds init functions: wiring is explicit.
func TestNoInit(t *testing.T) {
	eachGoFile(t, func(file string) {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range parsed.Decls {
			if f, ok := declared.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", file)
			}
		}
	})
}

// eachGoFile calls f with each Go file of the module, by its path from the top.
func eachGoFile(t *testing.T, f func(file string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		file := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		if entry.IsDir() && path != ".." {
			// The stand-in for flux is a module of its own.
			if strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || file == "gateway/influx/flux" {
				return fs.SkipDir
			}
		}
		if !entry.IsDir() && strings.HasSuffix(file, ".go") {
			f(file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
