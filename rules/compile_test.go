package rules

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// TestBad compiles the documents of testdata/bad. Each line "# want: ..." at the
// top must be found in the faults, in order, and lines that begin with a path
// are as many as there are faults.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			set, faults := Compile(readDocument(t, string(text)))
			if set != nil {
				t.Fatal("a set was made in spite of faults")
			}
			var all strings.Builder
			for _, f := range faults {
				all.WriteString(f.String() + "\n")
			}
			got, wanted := all.String(), 0
			for line := range strings.Lines(string(text)) {
				want, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "# want: ")
				if !ok {
					break
				}
				if want[0] != ' ' {
					wanted++
				}
				if !strings.Contains(got, want) {
					t.Errorf("missing: %s", want)
				}
			}
			if wanted != len(faults) {
				t.Errorf("%d faults, wanted %d", len(faults), wanted)
			}
			if t.Failed() {
				t.Log("\n" + got)
			}
		})
	}
}

func TestPacksCompile(t *testing.T) {
	var doc Document
	doc.Kinds = builtinKinds(t)
	doc.Devices = []telemetry.Device{{ID: "kim-long", Kinds: []string{"river"}, Facts: map[string]any{"alarm1_m": 1.0, "alarm2_m": 2, "alarm3_m": 3.5}}}
	err := fs.WalkDir(Packs, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := Packs.ReadFile(path)
		if err != nil {
			return err
		}
		var file File
		decoder := yaml.NewDecoder(strings.NewReader(string(text)))
		decoder.KnownFields(true)
		if err := decoder.Decode(&file); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		doc.Rules = append(doc.Rules, file.Rules...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	set := compile(t, doc)
	if len(set.rules) < 4 || len(set.Warnings()) > 0 {
		t.Errorf("%d rules, warnings %v", len(set.rules), set.Warnings())
	}
	for _, r := range set.rules {
		if r.Message.VI == "" || r.Message.EN == "" {
			t.Errorf("rule %s has no message in both languages", r.Name)
		}
	}
	doc.Devices = nil
	if set = compile(t, doc); len(set.Warnings()) == 0 {
		t.Error("no warning although no device has alarm levels")
	}
}

func TestWarningID(t *testing.T) {
	valid := func(id string) bool {
		return strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && len(id) <= 2*slugBytes+12
	}
	for _, test := range []struct{ rule, device, prefix string }{
		{"flood-level", "kim-long", "kim-long-flood-level-"},
		{"Lũ_Lụt", "Trạm.Đông:Hà", "tram-dong-ha-lu-lut-"},
		{"河", "·", "x-x-"},
		{strings.Repeat("a-", 60), strings.Repeat("b", 120), strings.Repeat("b", 24) + "-a-a-a-a-a-a-a-a-a-a-a-a-"},
	} {
		id := warningID(test.rule, test.device, 1, 0)
		if !valid(id) || !strings.HasPrefix(id, test.prefix) || strings.Contains(id, "--") {
			t.Errorf("%q of %q: id %q", test.rule, test.device, id)
		}
		for _, other := range []string{
			warningID(test.rule+"x", test.device, 1, 0), warningID(test.rule, test.device+"x", 1, 0),
			warningID(test.rule, test.device, 2, 0), warningID(test.rule, test.device, 1, 1),
		} {
			if other == id {
				t.Errorf("two warnings have the id %q", id)
			}
		}
	}
}

func TestBrief(t *testing.T) {
	for v, want := range map[float64]string{3.62: "3.62", 1.2345678: "1.235", 2: "2", -0.0001: "0", 1e21: "1000000000000000000000", 0.1 + 0.2: "0.3", -12.5: "-12.5"} {
		if got := brief(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func TestSuggest(t *testing.T) {
	names := []string{"level_m", "rain_mm", "rain_1h_mm"}
	for written, want := range map[string]string{"level_n": ": did you mean level_m?", "elvel_m": ": did you mean level_m?", "rain_h_mm": ": did you mean rain_1h_mm?", "zzz": "", "x": ""} {
		if got := suggest(written, names); got != want {
			t.Errorf("%s: %q, want %q", written, got, want)
		}
	}
}
