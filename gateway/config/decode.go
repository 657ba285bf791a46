package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// Decode fills target, a pointer to a struct with yaml tags, and returns every
// fault. A key that the document leaves out keeps what target had.
func (d *Document) Decode(target any) Faults {
	if d.long != nil {
		if faults, ok := d.decodeList(target); ok {
			return faults
		}
	}
	if d.root == nil {
		return nil
	}
	dec := decoder{file: d.Name}
	dec.value(d.root, reflect.ValueOf(target).Elem(), "")
	return dec.faults
}

// A decoder exists because the YAML library's own strict decoding stops at the
// first text that an UnmarshalText refuses, tells Go types instead of what was
// expected, and cannot be strict after variables were replaced.
type decoder struct {
	file   string
	faults Faults
	depth  int
	values int
	fields map[reflect.Type]map[string][]int // of the structs so far; see fieldsOf
}

// An alias can point to what contains it, and a few lines of aliases can stand
// for billions of values: both are bounded.
const (
	maxDepth  = 64
	maxValues = 2_000_000
)

func (d *decoder) fault(n *yaml.Node, path, format string, args ...any) {
	d.faults = append(d.faults, Fault{File: d.file, Line: n.Line, node: n, Fault: telemetry.Faultf(path, format, args...)})
}

var textUnmarshaler = reflect.TypeOf((*encoding.TextUnmarshaler)(nil)).Elem()

func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	d.depth++
	defer func() { d.depth-- }()
	if d.depth > maxDepth {
		d.fault(n, path, "nested deeper than %d", maxDepth)
		return
	}
	if d.values++; d.values >= maxValues {
		if d.values == maxValues {
			d.fault(n, path, "more than %d values", maxValues)
		}
		return
	}
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a key without a value keeps its default
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, v.Elem(), path)
		return
	}
	if v.CanAddr() && v.Addr().Type().Implements(textUnmarshaler) {
		d.text(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Interface:
		if got := d.any(n, path); got != nil {
			v.Set(reflect.ValueOf(got))
		}
	default:
		d.scalar(n, v, path)
	}
}

func (d *decoder) word(n *yaml.Node, path, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, path, "want %s, not %s", want, shape(n))
		return "", false
	}
	text, missing := expand(n.Value)
	for _, name := range missing {
		d.fault(n, path, "environment variable %s is not set (${%s:-...} gives a default)", name, name)
	}
	return text, len(missing) == 0
}

func (d *decoder) text(n *yaml.Node, v reflect.Value, path string) {
	text, ok := d.word(n, path, "a word")
	if !ok {
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		d.fault(n, path, "%v", err)
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, path, "want keys and values (%s), not %s", quoteList(keysOf(v.Type())), shape(n))
		return
	}
	fields := d.fields[v.Type()]
	if fields == nil { // once for each type: a list may have a hundred thousand of it
		if d.fields == nil {
			d.fields = map[reflect.Type]map[string][]int{}
		}
		fields = fieldsOf(v.Type())
		d.fields[v.Type()] = fields
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		if line, ok := seen[key.Value]; ok {
			d.fault(key, at, "key %q is there already in line %d", key.Value, line)
			continue
		}
		seen[key.Value] = key.Line
		field, ok := fields[key.Value]
		if !ok {
			d.fault(key, at, "%s", unknownKey(key.Value, keysOf(v.Type())))
			continue
		}
		d.value(value, v.FieldByIndex(field), at)
	}
}

// fieldsOf lists the fields of a struct, as reflect's FieldByIndex has them, by their
// yaml name; those of an inline struct count as its own.
func fieldsOf(t reflect.Type) map[string][]int {
	into := map[string][]int{}
	for i := range t.NumField() {
		name, inline := fieldName(t.Field(i))
		switch {
		case inline:
			for name, at := range fieldsOf(t.Field(i).Type) {
				into[name] = append([]int{i}, at...)
			}
		case name != "":
			into[name] = []int{i}
		}
	}
	return into
}

func fieldName(f reflect.StructField) (name string, inline bool) {
	if !f.IsExported() {
		return "", false
	}
	name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	switch {
	case name == "-":
		return "", false
	case options == "inline":
		return "", true
	case name == "":
		return strings.ToLower(f.Name), false
	}
	return name, false
}

func keysOf(t reflect.Type) []string {
	into := fieldsOf(t)
	keys := make([]string, 0, len(into))
	for k := range into {
		keys = append(keys, k)
	}
	return keys
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.fault(n, path, "want a list, not %s", shape(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(list)
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, path, "want keys and values, not %s", shape(n))
		return
	}
	made := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, at := n.Content[i], join(path, n.Content[i].Value)
		k := reflect.ValueOf(key.Value).Convert(v.Type().Key())
		if made.MapIndex(k).IsValid() {
			d.fault(key, at, "key %q is there twice", key.Value)
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], item, at)
		made.SetMapIndex(k, item)
	}
	v.Set(made)
}

// any decodes what may be of any type: a word, float64, bool, list or map.
func (d *decoder) any(n *yaml.Node, path string) any {
	switch n.Kind {
	case yaml.SequenceNode:
		list := []any{}
		d.value(n, reflect.ValueOf(&list).Elem(), path)
		return list
	case yaml.MappingNode:
		keys := map[string]any{}
		d.value(n, reflect.ValueOf(&keys).Elem(), path)
		return keys
	}
	text, ok := d.word(n, path, "a value")
	if !ok {
		return nil
	}
	switch n.Tag {
	case "!!int", "!!float":
		if f, err := number(text); err == nil {
			return f
		}
	case "!!bool":
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	}
	return text
}

// number reads what YAML calls an int or a float.
func number(text string) (float64, error) {
	plain := strings.ReplaceAll(text, "_", "")
	if i, err := strconv.ParseInt(plain, 0, 64); err == nil {
		return float64(i), nil
	}
	f, err := strconv.ParseFloat(plain, 64)
	if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return 0, fmt.Errorf("%q is not a finite number", text)
	}
	return f, err
}

// octal is a number that means another one than it seems to.
var octal = regexp.MustCompile(`^[-+]?0[0-9_]+$`)

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	want := map[reflect.Kind]string{reflect.String: "a word", reflect.Bool: "true or false", reflect.Float64: "a number"}[v.Kind()]
	if want == "" {
		want = "a whole number"
	}
	text, ok := d.word(n, path, want)
	if !ok {
		return
	}
	if v.Kind() != reflect.String && octal.MatchString(text) {
		d.fault(n, path, "%s begins with 0, which YAML reads as octal: write it without, or as 0x and hexadecimal", text)
		return
	}
	var err error
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		var b bool
		b, err = strconv.ParseBool(text)
		v.SetBool(b)
	case reflect.Float64:
		var f float64
		f, err = number(text)
		v.SetFloat(f)
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Int16, reflect.Int8:
		var i int64
		i, err = strconv.ParseInt(text, 0, v.Type().Bits())
		v.SetInt(i)
	case reflect.Uint, reflect.Uint64, reflect.Uint32, reflect.Uint16, reflect.Uint8:
		var u uint64
		u, err = strconv.ParseUint(text, 0, v.Type().Bits())
		v.SetUint(u)
	default:
		err = fmt.Errorf("no configuration has a %s", v.Type())
	}
	if err != nil {
		d.fault(n, path, "want %s, not %q", want, text)
	}
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
