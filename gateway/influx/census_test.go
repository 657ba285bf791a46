package influx

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCensus: a file that is gone is told, by the times of its readings; one in
// whose place another has come is not, nor one that was told already.
func TestCensus(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "influx")
	write := func(name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	compare := func() string {
		t.Helper()
		var said bytes.Buffer
		if err := (&census{dir: dir}).compare(slog.New(slog.NewTextHandler(&said, nil))); err != nil {
			t.Fatal(err)
		}
		return said.String()
	}
	const first, second, log = "data/haidang/autogen/1/000000001-000000001.tsm", "data/haidang/autogen/1/000000002-000000001.tsm", "wal/haidang/autogen/2/_00001.wal"
	if text := compare(); text != "" {
		t.Errorf("of a new store it says %s", text)
	}
	write(first)
	write(log)
	if text := compare(); text != "" {
		t.Errorf("of new files it says %s", text)
	}
	remove(first)
	write(second)
	if text := compare(); text != "" {
		t.Errorf("of a compaction it says %s", text)
	}
	remove(log)
	if text := compare(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, log) {
		t.Errorf("of a log that is gone it says %q", text)
	}
	if text := compare(); text != "" {
		t.Errorf("it says again %s", text)
	}
	remove(".")
	if text := compare(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, second) {
		t.Errorf("of a folder that is gone it says %q", text)
	}
	if err := os.WriteFile(dir+censusSuffix, []byte("\"x\" 1 2\n00000000\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if text := compare(); strings.Count(text, "level=WARN") != 1 || strings.Contains(text, "ERROR") {
		t.Errorf("of a list that is damaged it says %q", text)
	}
}
