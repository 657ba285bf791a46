package rulebook

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Mark sets a key of a rule (shadow or disabled) to true or false in the text of
// a rule file. Nothing else of the text changes: comments, order and layout stay.
// false takes the key's line away where it has one.
func Mark(text, rule, key string, value bool) (string, error) {
	marked, err := mark(text, rule, key, value)
	if err != nil {
		return "", err
	}
	var doc yaml.Node
	is := false
	if err := yaml.Unmarshal([]byte(marked), &doc); err == nil {
		if node := find(&doc, rule); node != nil {
			for i := 0; i+1 < len(node.Content); i += 2 {
				is = is || node.Content[i].Value == key && node.Content[i+1].Value == "true"
			}
			if is == value {
				return marked, nil
			}
		}
	}
	return "", fmt.Errorf("%s of rule %q cannot be set in a text that is laid out like this: write it by hand", key, rule)
}

func mark(text, rule, key string, value bool) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", fmt.Errorf("the file is not YAML: %w", err)
	}
	node := find(&doc, rule)
	if node == nil {
		return "", fmt.Errorf("there is no rule %q in the file", rule)
	}
	lines := strings.SplitAfter(text, "\n")
	var name *yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		k, v := node.Content[i], node.Content[i+1]
		switch k.Value {
		case "name":
			name = k
		case key:
			return set(lines, node, k, v, value), nil
		}
	}
	if !value {
		return text, nil // as it is when nothing is said
	}
	line := []rune(lines[name.Line-1])
	if node.Style&yaml.FlowStyle != 0 {
		at := name.Column - 1
		lines[name.Line-1] = string(line[:at]) + key + ": true, " + string(line[at:])
		return strings.Join(lines, ""), nil
	}
	// Before the line of the name's value ends nothing can stand; after it, a line
	// of its own as far in as the name.
	if !strings.HasSuffix(lines[name.Line-1], "\n") {
		lines[name.Line-1] += "\n"
	}
	lines[name.Line-1] += strings.Repeat(" ", name.Column-1) + key + ": true\n"
	return strings.Join(lines, ""), nil
}

func set(lines []string, node, k, v *yaml.Node, value bool) string {
	line := []rune(lines[k.Line-1])
	before, after := string(line[:k.Column-1]), string(line[v.Column-1+len([]rune(v.Value)):])
	alone := strings.TrimSpace(before) == "" && strings.TrimSpace(after) == "" && node.Style&yaml.FlowStyle == 0
	if alone && !value && v.Line == k.Line {
		lines[k.Line-1] = ""
		return strings.Join(lines, "")
	}
	if v.Line == k.Line {
		lines[k.Line-1] = string(line[:v.Column-1]) + strconv.FormatBool(value) + after
	}
	return strings.Join(lines, "")
}

// find returns the mapping of a rule.
func find(doc *yaml.Node, rule string) *yaml.Node {
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil
	}
	top := doc.Content[0]
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value != "rules" {
			continue
		}
		for _, r := range top.Content[i+1].Content {
			for k := 0; k+1 < len(r.Content); k += 2 {
				if r.Kind == yaml.MappingNode && r.Content[k].Value == "name" && r.Content[k+1].Value == rule {
					return r
				}
			}
		}
	}
	return nil
}
