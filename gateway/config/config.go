// Package config reads the YAML documents of Hải Đăng strictly: gateway.yaml,
// devices.yaml, kinds.yaml and rule files.
//
// Every fault is found in one pass and told with file, line and what was
// expected: unknown keys, keys that are there twice, values of a wrong type,
// and what the packages' own Validate finds (their Fault paths are looked up in
// the document). ${NAME} in a value is replaced by the environment variable
// NAME, after parsing, so that a variable cannot change the structure; ${NAME:-x}
// gives a default, and $${ stands for ${ itself.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// MaxBytes bounds a document.
const MaxBytes = 16 << 20

// A Document is one parsed YAML file.
type Document struct {
	Name string // as people know it: rules/flood.yaml
	root *yaml.Node
	text string
	long *longList // instead of root, of a text that Read has read in pieces
}

// Text returns the document as it was read.
func (d *Document) Text() string { return d.text }

// A Fault is a telemetry.Fault at its place in a file.
type Fault struct {
	telemetry.Fault
	File string
	Line int // from 1; 0 when the place is the whole file

	node *yaml.Node // that is at fault, as far as there is one; see Document.Span
}

// String returns file:line: path: want.
func (f Fault) String() string {
	place := f.File
	if f.Line > 0 {
		place += ":" + strconv.Itoa(f.Line)
	}
	if place == "" {
		return f.Fault.String()
	}
	return place + ": " + f.Fault.String()
}

// Faults is a list of faults as one error, a line each.
type Faults []Fault

// Error returns a line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// Parse reads one YAML document. An error of syntax is a Faults with its line.
func Parse(name string, text []byte) (*Document, error) { return parse(name, text, MaxBytes) }

func parse(name string, text []byte, most int) (*Document, error) {
	if len(text) > most {
		return nil, Faults{{File: name, Fault: telemetry.Faultf("", "%d bytes are more than the %d that a configuration may have", len(text), most)}}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	doc := &Document{Name: name, text: string(text)}
	var node yaml.Node
	switch err := decoder.Decode(&node); {
	case errors.Is(err, io.EOF):
		return doc, nil // an empty file: everything keeps its default
	case err != nil:
		return nil, Faults{syntaxFault(name, err)}
	}
	var more yaml.Node
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, Faults{{File: name, Line: more.Line, Fault: telemetry.Faultf("", "a second document begins here; one file holds one")}}
	}
	doc.root = node.Content[0]
	return doc, nil
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func syntaxFault(name string, err error) Fault {
	f := Fault{File: name, Fault: telemetry.Faultf("", "%v", err)}
	if m := syntaxLine.FindStringSubmatch(err.Error()); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
		if strings.HasPrefix(m[2], "did not find expected") {
			f.Line++ // the library counts the lines of its parser's errors from 0, of its scanner's from 1
		}
		f.Want = "not YAML: " + m[2]
	}
	return f
}

// Locate gives each fault the line of its path in the document: that of the
// deepest part of the path that the document has.
func (d *Document) Locate(faults []telemetry.Fault) Faults {
	out := make(Faults, len(faults))
	for i, f := range faults {
		node, line := d.find(f.Path)
		out[i] = Fault{Fault: f, File: d.Name, Line: line, node: node}
	}
	return out
}

var pathPart = regexp.MustCompile(`[^.\[\]]+|\[\d+\]`)

// find returns the deepest node of the path that the document has, and the line
// that tells its place. Of a value that is not the whole path it is the key.
func (d *Document) find(path string) (at *yaml.Node, line int) {
	parts := pathPart.FindAllString(path, -1)
	at = d.root
	if d.long != nil {
		if at, parts = d.long.find(d.text, parts); at == nil {
			return nil, d.long.line
		}
	}
	if at == nil {
		return nil, 0
	}
	line = at.Line
	last := at
	for i := 0; i < len(parts); i++ {
		key, next := child(at, parts[i])
		if next == nil && i+1 < len(parts) { // a key with a dot in it: river.level_m
			if key, next = child(at, parts[i]+"."+parts[i+1]); next != nil {
				i++
			}
		}
		if next == nil {
			return last, line
		}
		at, last, line = next, key, key.Line
	}
	return resolve(at), line
}

// child returns the node under part, a key or an [index], and the node that
// tells its line.
func child(at *yaml.Node, part string) (key, value *yaml.Node) {
	at = resolve(at)
	if index, err := strconv.Atoi(strings.Trim(part, "[]")); err == nil && at.Kind == yaml.SequenceNode {
		if index < len(at.Content) {
			return at.Content[index], at.Content[index]
		}
		return nil, nil
	}
	if at.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(at.Content); i += 2 {
			if at.Content[i].Value == part {
				return at.Content[i], at.Content[i+1]
			}
		}
	}
	return nil, nil
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

var variable = regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}`)

// expand replaces ${NAME} in text; missing names are returned.
func expand(text string) (string, []string) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	var missing []string
	out := variable.ReplaceAllStringFunc(text, func(ref string) string {
		if strings.HasPrefix(ref, "$$") {
			return ref[1:]
		}
		m := variable.FindStringSubmatch(ref)
		if value, ok := os.LookupEnv(m[1]); ok {
			return value
		}
		if m[2] == "" {
			missing = append(missing, m[1])
		}
		return m[3]
	})
	return out, missing
}

func quoteList(words []string) string {
	sort.Strings(words)
	return strings.Join(words, ", ")
}

func unknownKey(key string, known []string) string {
	if k := telemetry.Nearest(key, known); k != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", key, k)
	}
	return fmt.Sprintf("unknown key %q; known are %s", key, quoteList(known))
}

// Variable returns the name of the first variable of the environment that a text
// refers to, "" when it refers to none.
func Variable(text string) string {
	for _, m := range variable.FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(m[0], "$$") {
			return m[1]
		}
	}
	return ""
}
