package modbus

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

//go:embed devices/*.yaml
var devices embed.FS

// MaxProfileBytes bounds a profile's file.
const MaxProfileBytes = 1 << 20

// Profiles is the set of known profiles. It is not changed after it was made.
type Profiles struct {
	byName map[string]*Profile
}

// LoadProfiles reads the built-in profiles and those in the given folders
// (*.yaml and *.yml, one profile per file). A profile of a later folder
// replaces one of the same name of an earlier folder or a built-in one. A
// fault's path is file:line and the place in the profile.
func LoadProfiles(folders ...fs.FS) (*Profiles, []telemetry.Fault) {
	builtIn, err := fs.Sub(devices, "devices")
	if err != nil {
		return nil, []telemetry.Fault{telemetry.Faultf("devices", "%v", err)}
	}
	p := &Profiles{byName: map[string]*Profile{}}
	var faults []telemetry.Fault
	for _, folder := range append([]fs.FS{builtIn}, folders...) {
		faults = append(faults, p.add(folder)...)
	}
	return p, faults
}

// Profile returns the profile called name, or nil when it is not known.
func (p *Profiles) Profile(name string) *Profile {
	if p == nil {
		return nil
	}
	return p.byName[name]
}

// Names returns the names of all profiles, sorted.
func (p *Profiles) Names() []string {
	if p == nil {
		return nil
	}
	names := make([]string, 0, len(p.byName))
	for name := range p.byName {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (p *Profiles) add(folder fs.FS) []telemetry.Fault {
	entries, err := fs.ReadDir(folder, ".")
	if err != nil {
		return []telemetry.Fault{telemetry.Faultf("profiles", "the folder of profiles cannot be read: %v", err)}
	}
	var faults []telemetry.Fault
	from := map[string]string{} // file by profile name
	for _, entry := range entries {
		file := entry.Name()
		if ext := path.Ext(file); entry.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		profile, wrong := readProfile(folder, file)
		if len(wrong) > 0 {
			faults = append(faults, wrong...)
			continue
		}
		if first, taken := from[profile.Name]; taken {
			faults = append(faults, telemetry.Faultf(file, "profile %q is in %s already", profile.Name, first))
			continue
		}
		from[profile.Name] = file
		p.byName[profile.Name] = profile
	}
	return faults
}

func readProfile(folder fs.FS, file string) (*Profile, []telemetry.Fault) {
	f, err := folder.Open(file)
	if err != nil {
		return nil, []telemetry.Fault{telemetry.Faultf(file, "%v", err)}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxProfileBytes+1))
	switch {
	case err != nil:
		return nil, []telemetry.Fault{telemetry.Faultf(file, "%v", err)}
	case len(text) > MaxProfileBytes:
		return nil, []telemetry.Fault{telemetry.Faultf(file, "the file is larger than %d bytes", MaxProfileBytes)}
	}
	return parseProfile(file, text)
}

// parseProfile decodes a profile strictly and checks it.
func parseProfile(file string, text []byte) (*Profile, []telemetry.Fault) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	profile := &Profile{}
	if err := decoder.Decode(profile); err != nil {
		return nil, yamlFaults(file, err)
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, []telemetry.Fault{telemetry.Faultf(file, "more than one document in the file, expected one profile")}
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, yamlFaults(file, err)
	}
	if faults := octals(file, &root); len(faults) > 0 {
		return nil, faults
	}
	profile.fill()
	faults := profile.validate()
	if len(faults) == 0 {
		return profile, nil
	}
	for i := range faults {
		faults[i].Path = fmt.Sprintf("%s:%d: %s", file, lineOf(&root, faults[i].Path), faults[i].Path)
	}
	return nil, faults
}

// yamlFaults makes one fault of each error of the decoder, without the names
// of Go types in it.
func yamlFaults(file string, err error) []telemetry.Fault {
	lines := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	var several *yaml.TypeError
	switch {
	case errors.Is(err, io.EOF):
		lines = []string{"the file is empty, expected a profile"}
	case errors.As(err, &several):
		lines = several.Errors
	}
	faults := make([]telemetry.Fault, len(lines))
	for i, line := range lines {
		at := file
		if rest, ok := strings.CutPrefix(line, "line "); ok {
			if number, sentence, ok := strings.Cut(rest, ": "); ok {
				at, line = file+":"+number, sentence
			}
		}
		faults[i] = telemetry.Fault{Path: at, Want: inYAML(line)}
	}
	return faults
}

// inYAML takes the names of Go's types out of an error of the decoder, and says
// which keys there are where one is unknown.
func inYAML(sentence string) string {
	sentence, kind, typed := strings.Cut(sentence, " in type modbus.")
	key, isField := strings.CutPrefix(sentence, "field ")
	key, missing := strings.CutSuffix(key, " not found")
	if !typed || !isField || !missing {
		return sentence
	}
	for _, known := range []any{Profile{}, Span{}, Option{}, Register{}, Status{}, Write{}} {
		t := reflect.TypeOf(known)
		if t.Name() != kind {
			continue
		}
		var keys []string
		for i := range t.NumField() {
			if key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); key != "" && key != "-" {
				keys = append(keys, key)
			}
		}
		sort.Strings(keys)
		return fmt.Sprintf("unknown key %q; known are %s", key, strings.Join(keys, ", "))
	}
	return fmt.Sprintf("unknown key %q", key)
}

// octals finds numbers that begin with 0. To YAML 0500 is 320: another register,
// and no error.
func octals(file string, node *yaml.Node) (faults []telemetry.Fault) {
	if digits := strings.TrimLeft(node.Value, "+-"); node.Kind == yaml.ScalarNode && node.Tag == "!!int" &&
		len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		faults = append(faults, telemetry.Faultf(fmt.Sprintf("%s:%d", file, node.Line), "%s begins with 0, which YAML reads as octal: write it without, or as 0x and hexadecimal", node.Value))
	}
	for _, child := range node.Content {
		faults = append(faults, octals(file, child)...)
	}
	return faults
}

// lineOf finds the line of a path such as registers[3].type; where a part is
// left out, the line of what it would be in.
func lineOf(root *yaml.Node, at string) int {
	node := root
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	for _, part := range strings.FieldsFunc(at, func(c rune) bool { return c == '.' || c == '[' || c == ']' }) {
		next := child(node, part)
		if next == nil {
			break
		}
		node = next
	}
	return node.Line
}

func child(node *yaml.Node, part string) *yaml.Node {
	switch node.Kind {
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(part); err == nil && i < len(node.Content) {
			return node.Content[i]
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == part {
				return node.Content[i+1]
			}
		}
	}
	return nil
}
