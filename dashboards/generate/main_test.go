package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestCommittedDashboards fails when the definitions, or the kinds were
// changed and go generate was not run.
func TestCommittedDashboards(t *testing.T) {
	const folder = "../provisioning/dashboards/haidang"
	files, err := generate("../../gateway/builtin")
	if err != nil {
		t.Fatal(err)
	}
	committed, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(committed) != len(files) {
		t.Errorf("there are %d files in %s (%v), want the %d that are generated", len(committed), folder, err, len(files))
	}
	again, err := generate("../../gateway/builtin")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate ./dashboards", name)
		}
		if !bytes.Equal(again[name], want) {
			t.Errorf("%s differs from run to run", name)
		}
	}
}

func TestUnknownValueIsAnError(t *testing.T) {
	folder := t.TempDir()
	kinds := "kinds: [{name: river, values: [{name: level_cm, unit: cm}]}]"
	if err := os.WriteFile(filepath.Join(folder, "kinds.yaml"), []byte(kinds), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := generate(folder); err == nil {
		t.Error("dashboards were generated of kinds that have no river.level_m")
	}
}
