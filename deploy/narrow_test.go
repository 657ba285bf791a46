package deploy_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A listed package is what `go list -json` says of it.
type listed struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
}

// TestThirtyTwoBits type-checks the program for armv7: a number that does not fit
// into 32 bits does not compile there. Without compiling it takes seconds, where
// GOARCH=arm go vet takes minutes on a new machine.
func TestThirtyTwoBits(t *testing.T) {
	if testing.Short() {
		t.Skip("reads the source of every package")
	}
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap", "./gateway")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm", "GOARM=7", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	c := checker{set: token.NewFileSet(), known: map[string]*types.Package{"unsafe": types.Unsafe}}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	own := 0
	for {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath == "unsafe" {
			continue
		}
		ours := strings.HasPrefix(p.ImportPath, "haidang/")
		if ours {
			own++
		}
		c.check(t, &p, ours)
	}
	if own < 20 {
		t.Errorf("only %d packages of ours were checked", own)
	}
}

// A checker type-checks packages in the order of their dependencies.
type checker struct {
	set   *token.FileSet
	known map[string]*types.Package
}

// check checks a package; function bodies only where they are ours, and only faults
// of ours are told.
func (c *checker) check(t *testing.T, p *listed, ours bool) {
	t.Helper()
	var files []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(c.set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	cfg := types.Config{
		Sizes: types.SizesFor(build.Default.Compiler, "arm"), IgnoreFuncBodies: !ours, FakeImportC: true,
		Importer: importing(func(path string) (*types.Package, error) {
			if mapped, ok := p.ImportMap[path]; ok {
				path = mapped
			}
			if known := c.known[path]; known != nil {
				return known, nil
			}
			return nil, errors.New("not checked before: " + path)
		}),
		Error: func(err error) {
			if ours {
				t.Error(err)
			}
		},
	}
	c.known[p.ImportPath], _ = cfg.Check(p.ImportPath, c.set, files, nil) // told by Error
}

type importing func(string) (*types.Package, error)

// Import implements types.Importer.
func (i importing) Import(path string) (*types.Package, error) { return i(path) }
