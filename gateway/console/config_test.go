package console

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// Each file of testdata/bad begins with one "# want:" line for each fault.
func TestConfigFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		lines := bufio.NewScanner(strings.NewReader(string(text)))
		for lines.Scan() {
			if w, ok := strings.CutPrefix(lines.Text(), "# want: "); ok {
				want = append(want, w)
			}
		}
		var doc struct{ Console Config }
		decoder := yaml.NewDecoder(strings.NewReader(string(text)))
		decoder.KnownFields(true)
		if err := decoder.Decode(&doc); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, f := range telemetry.Under("console", append(doc.Console.Validate(), doc.Console.Exposed()...)) {
			got = append(got, f.String())
		}
		if !slices.Equal(got, want) || strings.Contains(file, "bad") == (len(want) == 0) {
			t.Errorf("%s: faults %q, want %q", file, got, want)
		}
	}
}
