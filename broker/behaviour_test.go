package broker

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tests returns the names of the test functions of a folder.
func tests(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files with tests, %v", folder, len(files), err)
	}
	names := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
	}
	return names
}

// TestBehaviourIsTested looks at the tables of BEHAVIOUR.md: the last column of
// each row names a test that there is, in this folder or in the one before the
// colon.
func TestBehaviourIsTested(t *testing.T) {
	text, err := os.ReadFile("BEHAVIOUR.md")
	if err != nil {
		t.Fatal(err)
	}
	here, named := tests(t, "."), regexp.MustCompile("`(?:([a-z/]+):)?((?:Test|Fuzz)\\w+)`")
	rows := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		last := strings.TrimSpace(cells[len(cells)-1])
		if last == "test" {
			continue
		}
		rows++
		found := named.FindAllStringSubmatch(last, -1)
		if len(found) == 0 {
			t.Errorf("no test is named in\n%s", line)
		}
		for _, m := range found {
			have := here
			if m[1] != "" {
				have = tests(t, filepath.Join("..", m[1]))
			}
			if !have[m[2]] {
				t.Errorf("there is no %s, which is named in\n%s", m[0], line)
			}
		}
	}
	if rows < 50 {
		t.Errorf("only %d rows were found", rows)
	}
}
