package mapping

import (
	"bytes"
	"embed"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Built-in mappings, a file each: a list as in the configuration. A test compiles
// them all and runs their examples.
//
//go:embed builtin/*.yaml
var builtin embed.FS

// BuiltinNames are the names of the built-in mappings.
func BuiltinNames() []string {
	entries, _ := builtin.ReadDir("builtin") // it is there
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	sort.Strings(names)
	return names
}

// BuiltinText is the YAML of a built-in mapping, as an example to write from.
func BuiltinText(name string) ([]byte, bool) {
	text, err := builtin.ReadFile("builtin/" + name + ".yaml")
	return text, err == nil
}

// Builtin returns the mappings that belong to a name.
func Builtin(name string) ([]Mapping, bool) {
	if strings.ContainsAny(name, "/.") {
		return nil, false
	}
	text, ok := BuiltinText(name)
	if !ok {
		return nil, false
	}
	var file struct {
		Mappings []Mapping `yaml:"mappings"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		return nil, false // a test reads them all
	}
	return file.Mappings, len(file.Mappings) > 0
}
