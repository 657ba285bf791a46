package rules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
