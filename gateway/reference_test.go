package main

import (
	"encoding"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
	"haidang/rules"
)

//go:generate go test -count=1 -run=^TestConfigurationReference$ . -write-reference

var writeReference = flag.Bool("write-reference", false, "write docs/configuration.md")

const referenceFile = "../docs/configuration.md"

// TestConfigurationReference fails when docs/configuration.md is not what the
// code's own types, defaults and comments say, and when a key has no comment.
func TestConfigurationReference(t *testing.T) {
	r := &reference{t: t, sources: map[string]*sourcePackage{}, examples: documentedExamples(t)}
	text := r.write()
	for _, key := range r.silent {
		t.Errorf("%s has no comment in the code", key)
	}
	if *writeReference {
		if err := os.WriteFile(referenceFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != text {
		t.Errorf("%s is stale: run go generate ./gateway", referenceFile)
	}
}

// A reference is docs/configuration.md while it is written.
type reference struct {
	t        *testing.T
	sources  map[string]*sourcePackage
	examples map[string]string // by file and path
	silent   []string          // keys without a comment
	out      strings.Builder
}

const referenceHead = `# Every key of the configuration

Generated from the code: ` + "`go generate ./gateway`" + `. What a key is for is told by
the pages of [each task](../README.md#one-page-per-task); ` + "`haidang check --config FILE`" + `
tells every fault with file and line.

- The files are YAML, read strictly: an unknown key is a fault. A key that is left
  out keeps its default.
- ` + "`${NAME}`" + ` is the environment variable NAME, ` + "`${NAME:-x}`" + ` is x where there is
  none, ` + "`$${`" + ` is ` + "`${`" + ` itself.
- A **duration** is written 10s, 5m, 6h, 1h30m, 60d or 2w; a **size** 512KiB, 64MiB or
  8GiB; a **severity** minor, moderate, severe or extreme; a **text** as ` + "`{vi: ..., en: ...}`" + `.
- Relative names of files are relative to the file that names them.
- ` + "`[]`" + ` is an entry of a list, ` + "`<name>`" + ` a key that you choose. Examples are those of
  deploy/ and of the other pages, which are tested.

`

// write returns the whole page.
func (r *reference) write() string {
	r.out.WriteString(referenceHead)
	cfg := defaults()
	cfg.Gateway = "the machine's name" // where it can name a device
	r.file("gateway.yaml", "`haidang run --config gateway.yaml`. Rules, devices, kinds, zones, recipients (`ioc`), `routes`, `mappings` and the texts of `cap` are taken up again by SIGHUP (`systemctl reload haidang`), everything else at the next start.", reflect.ValueOf(cfg))
	r.file("devices.yaml", "What `devices` names: what is observed.", reflect.ValueOf(struct {
		Devices []telemetry.Device `yaml:"devices"`
	}{}))
	r.file("kinds.yaml", "What `kinds` names: values that the built-in kinds do not have. A kind of the same name replaces the built-in one.", reflect.ValueOf(struct {
		Kinds []telemetry.Kind `yaml:"kinds"`
	}{}))
	r.file("rules/*.yaml", "What `rules` names. How conditions are written: [rules/doc.go](../rules/doc.go).", reflect.ValueOf(rules.File{}))
	return strings.TrimRight(r.out.String(), "\n") + "\n"
}

// file writes the keys of one file: a table for those at the top that hold one
// value, then one for each that holds more.
func (r *reference) file(name, about string, v reflect.Value) {
	fmt.Fprintf(&r.out, "## %s\n\n%s\n\n", name, about)
	var rows, sections []row
	for _, w := range r.rows(name, "", v, 0) {
		top, _, nested := strings.Cut(strings.ReplaceAll(w.path, "[]", "."), ".")
		switch {
		case nested:
			sections = append(sections, w)
		case !r.holdsMore(w.typ):
			rows = append(rows, w)
		default:
			w.path = top // the section's own text
			w.head = true
			sections = append(sections, w)
		}
	}
	if len(rows) > 0 {
		r.table(rows)
	}
	for len(sections) > 0 {
		end := 1
		for end < len(sections) && !sections[end].head {
			end++
		}
		r.section(sections[0], sections[1:end])
		sections = sections[end:]
	}
}

func (r *reference) section(head row, rows []row) {
	many := ""
	if head.typ.Kind() == reflect.Slice {
		many = "[]"
	}
	fmt.Fprintf(&r.out, "### %s%s\n\n", head.path, many)
	if text := r.intro(head); text != "" {
		fmt.Fprintf(&r.out, "%s\n\n", text)
	}
	if head.def != "" && strings.HasPrefix(head.def, "[") {
		fmt.Fprintf(&r.out, "Default: `%s`\n\n", head.def)
	}
	r.table(rows)
}

// intro is the comment of the section's type, with the key for its name.
func (r *reference) intro(head row) string {
	of := elemOf(head.typ)
	if of.Name() == "" {
		return head.text
	}
	doc := sourceOf(r.t, r.sources, of.PkgPath()).docs[of.Name()]
	doc = regexp.MustCompile(`^((An?|The) )?`+of.Name()+`\b`).ReplaceAllString(strings.TrimSpace(doc), "`"+head.path+"`")
	first, _, _ := strings.Cut(doc, "\n\n")
	return oneLine(first)
}

func (r *reference) table(rows []row) {
	r.out.WriteString("| key | type | default | example | |\n|---|---|---|---|---|\n")
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + cell(strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(s)) + "`"
	}
	words := func(s string) string { // a default may be a sentence
		if strings.Contains(s, " ") {
			return cell(angles(s))
		}
		return code(s)
	}
	for _, w := range rows {
		fmt.Fprintf(&r.out, "| %s | %s | %s | %s | %s |\n", code(w.path), w.kind, words(w.def), code(w.example), cell(angles(w.text)))
	}
	r.out.WriteString("\n")
}

// angles keeps <name> from being taken for HTML.
func angles(s string) string { return strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(s) }

// A row is one key.
type row struct {
	path, kind, def, example, text string

	typ  reflect.Type
	head bool
}

var textual = reflect.TypeFor[encoding.TextUnmarshaler]()

// holdsMore reports whether the type has keys of its own.
func (r *reference) holdsMore(of reflect.Type) bool {
	of = elemOf(of)
	return of.Kind() == reflect.Struct && of != reflect.TypeFor[telemetry.Text]() && !reflect.PointerTo(of).Implements(textual)
}

// elemOf is what a pointer, list or map holds.
func elemOf(of reflect.Type) reflect.Type {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
		of = of.Elem()
	}
	return of
}

// rows lists the keys of a struct and of all below it. v is zero below lists.
func (r *reference) rows(file, path string, v reflect.Value, depth int) (rows []row) {
	if depth > 8 {
		r.t.Fatalf("%s is nested too deep, or in itself", path)
	}
	of := v.Type()
	for i := range of.NumField() {
		f := of.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if options == "inline" {
			rows = append(rows, r.rows(file, path, v.Field(i), depth+1)...)
			continue
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		w := row{path: at, typ: f.Type, kind: typeName(f.Type), example: r.examples[file+" "+at]}
		w.text = r.text(of, f, at)
		w.def, w.text = defaultOf(v.Field(i), w.text)
		rows = append(rows, w)
		if r.holdsMore(f.Type) {
			rows = append(rows, r.rows(file, at+within(f.Type), zeroOf(v.Field(i)), depth+1)...)
		}
	}
	return rows
}

// within is how a path goes on below a list or map.
func within(of reflect.Type) string {
	switch of.Kind() {
	case reflect.Pointer:
		return within(of.Elem())
	case reflect.Slice:
		return "[]"
	case reflect.Map:
		return ".<name>"
	}
	return ""
}

// zeroOf is what is below v: itself where it is a struct, else one without values.
func zeroOf(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Struct {
		return v
	}
	return reflect.Zero(elemOf(v.Type()))
}

// text is the comment of a field, with the keys instead of the code's names.
func (r *reference) text(of reflect.Type, f reflect.StructField, at string) string {
	if of.Name() == "" { // the top of a file
		return ""
	}
	source := sourceOf(r.t, r.sources, of.PkgPath())
	text := source.resolved(source.comment(of.Name(), f.Name), f.Type)
	nested := elemOf(f.Type)
	if text == "" && r.holdsMore(f.Type) {
		doc := sourceOf(r.t, r.sources, nested.PkgPath()).docs[nested.Name()]
		text = regexp.MustCompile(`^((An?|The) )?`+nested.Name()+`\b`).ReplaceAllString(oneLine(doc), f.Name)
	}
	if text == "" {
		r.silent = append(r.silent, fmt.Sprintf("%s (%s.%s)", at, of, f.Name))
	}
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("yaml"), ",")
		field := regexp.MustCompile(`(^|[a-z,:(] |\w+ (?:and|or) )` + of.Field(i).Name + `\b`)
		if strings.ToUpper(of.Field(i).Name) == of.Field(i).Name {
			field = regexp.MustCompile(`(^|without )` + of.Field(i).Name + `\b( is| says|\.$)?`) // TLS is also a word
			if m := field.FindStringSubmatch(text); m != nil && m[1]+m[2] == "" {
				continue
			}
		}
		text = field.ReplaceAllString(text, "${1}`"+name+"`${2}")
	}
	return text
}

var (
	saidDefault = regexp.MustCompile(`(?:^|[;,.] ?)\b[Dd]efault:? ([^;()]*?)(?:\. |;|\.?$)`)
	lastDefault = regexp.MustCompile(`(?:^|[;,.] ?)\b[Dd]efault:? (?:[^;().]|\.\S)*\.?$`)
	wordDefault = regexp.MustCompile(`"?([\w.]+)"? \(default\b`)
)

// defaultOf is what holds where the key is left out: the actual value where the
// code begins with one, else what the comment says. What a comment ends with is
// not said twice.
func defaultOf(v reflect.Value, text string) (def, rest string) {
	if v.Kind() == reflect.Slice && v.Len() > 0 {
		return flow(v), text
	}
	all := saidDefault.FindAllStringSubmatch(text, -1)
	if len(all) == 1 && len(all[0][1]) <= 60 {
		def = all[0][1]
		text = lastDefault.ReplaceAllString(text, "")
	}
	switch {
	case !v.IsZero() && v.Kind() != reflect.Struct && v.Kind() != reflect.Slice:
		return fmt.Sprint(v.Interface()), text
	case def != "":
		return def, text
	}
	if m := wordDefault.FindStringSubmatch(text); m != nil {
		return m[1], text
	}
	return "", text
}

// flow writes a list of structs as YAML in one line, without empty values.
func flow(v reflect.Value) string {
	var items []string
	for i := range v.Len() {
		var pairs []string
		for j := range v.Index(i).NumField() {
			if f := v.Index(i).Field(j); !f.IsZero() {
				name, _, _ := strings.Cut(v.Index(i).Type().Field(j).Tag.Get("yaml"), ",")
				pairs = append(pairs, fmt.Sprintf("%s: %q", name, f.Interface()))
			}
		}
		items = append(items, "{"+strings.Join(pairs, ", ")+"}")
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// typeName is how people call the type of a value.
func typeName(of reflect.Type) string {
	switch of {
	case reflect.TypeFor[telemetry.Duration]():
		return "duration"
	case reflect.TypeFor[telemetry.Size]():
		return "size"
	case reflect.TypeFor[telemetry.Severity]():
		return "severity"
	case reflect.TypeFor[telemetry.Text]():
		return "text"
	case reflect.TypeFor[telemetry.Instant]():
		return "time"
	}
	switch of.Kind() {
	case reflect.Pointer:
		return typeName(of.Elem())
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Struct {
			return "list"
		}
		return "list of " + typeName(of.Elem()) + "s"
	case reflect.Map:
		return typeName(of.Elem()) + " by name"
	case reflect.Struct:
		return "keys"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64, reflect.Float32:
		return "number"
	case reflect.Interface:
		return "any value"
	case reflect.String:
		return "word"
	}
	return "whole number"
}

// documentedExamples are the values of the configurations in deploy/ and of the
// pages, by file and path: the first one each.
func documentedExamples(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	files, err := filepath.Glob("../deploy/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if base := filepath.Base(name); base == "gateway.yaml" || base == "devices.yaml" {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			exampleValues(t, out, base, string(text))
		}
	}
	rulesText, err := os.ReadFile("../deploy/station/rules/flood.yaml")
	if err != nil {
		t.Fatal(err)
	}
	exampleValues(t, out, "rules/*.yaml", string(rulesText))
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := blocks(string(text), "yaml")
		lines := make([]int, 0, len(found))
		for line := range found {
			lines = append(lines, line)
		}
		slices.Sort(lines)
		for _, line := range lines {
			base := "gateway.yaml"
			if m := regexp.MustCompile(`^# ([a-z]+\.yaml)`).FindStringSubmatch(found[line]); m != nil {
				base = m[1]
			}
			exampleValues(t, out, base, found[line])
		}
	}
	return out
}

func exampleValues(t *testing.T, into map[string]string, file, text string) {
	t.Helper()
	var top yaml.Node
	if err := yaml.Unmarshal([]byte(text), &top); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(top.Content) > 0 {
		exampleNode(into, file+" ", top.Content[0])
	}
}

// exampleNode notes short values by their paths.
func exampleNode(into map[string]string, path string, n *yaml.Node) {
	note := func(value string) {
		if into[path] == "" && value != "" && len(value) <= 64 {
			into[path] = value
		}
	}
	switch n.Kind {
	case yaml.ScalarNode:
		note(n.Value)
	case yaml.SequenceNode:
		var words []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				exampleNode(into, path+"[]", item)
				continue
			}
			words = append(words, item.Value)
		}
		if len(words) == len(n.Content) {
			note("[" + strings.Join(words, ", ") + "]")
		}
	case yaml.MappingNode:
		var pairs []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := path + n.Content[i].Value
			if !strings.HasSuffix(path, " ") {
				at = path + "." + n.Content[i].Value
			}
			exampleNode(into, at, n.Content[i+1])
			if n.Content[i+1].Kind == yaml.ScalarNode {
				pairs = append(pairs, n.Content[i].Value+": "+n.Content[i+1].Value)
			}
		}
		if len(pairs)*2 == len(n.Content) {
			note("{" + strings.Join(pairs, ", ") + "}")
		}
	}
}

// TestReferenceNamesEveryKey finds keys that are in the reference under another
// name than the configuration reads.
func TestReferenceNamesEveryKey(t *testing.T) {
	text, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"broker.limits.packet_bytes", "spool.max_bytes", "influx.retention", "modbus[].units[].profile", "serial[].sensors[].values[].from",
		"ais[].thin.heartbeat", "ioc[].webhook.secret", "ioc[].smtp.from", "mappings[].readings[].values", "routes[].match.hours", "bridges[].forward.keep",
		"devices[].quality.<name>.spike.fail", "kinds[].values[].unit", "rules[].levels[].when",
	} {
		if !strings.Contains(string(text), "| `"+key+"` |") {
			t.Errorf("%s is not in the reference", key)
		}
	}
}
