// Command generate writes the dashboards. It is run by go generate in the
// folder dashboards, and reads the kinds that are built in.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

func main() {
	if err := write("provisioning/dashboards/haidang", "../gateway/builtin"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write puts every dashboard into the folder as <name>.json.
func write(folder, builtin string) error {
	files, err := generate(builtin)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			return fmt.Errorf("write a dashboard: %w", err)
		}
	}
	return nil
}

// generate returns the dashboards as JSON by file name, made of the kinds in the
// folder builtin.
func generate(builtin string) (map[string][]byte, error) {
	var kinds struct{ Kinds []telemetry.Kind }
	if err := read(filepath.Join(builtin, "kinds.yaml"), &kinds); err != nil {
		return nil, err
	}
	catalogue, faults := telemetry.NewCatalogue(kinds.Kinds)
	if len(faults) > 0 {
		return nil, fmt.Errorf("kinds: %v", faults)
	}
	files := map[string][]byte{}
	for name, build := range map[string]func(*builder) dashboard{
		"overview.json": overview, "flood.json": flood, "air.json": air, "fleet.json": fleet, "warnings.json": warnings, "gateway.json": gateway,
	} {
		b := &builder{catalogue: catalogue}
		d := build(b)
		if err := errors.Join(b.faults...); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(d); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = text.Bytes()
	}
	return files, nil
}

func read(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
