package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFormat(t *testing.T) {
	for name, c := range map[string]struct {
		text string // "-": no file
		want string // of the error
	}{
		"new folder": {"-", ""},
		"ours":       {"1 1\n", ""},
		"one bit":    {"3 1\n", ""},
		"damaged":    {"\x00\xff", ""},
		"empty":      {"", ""},
		"newer":      {"2 2\n", "has format 2, of a newer haidang"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, formatFile)
			if c.text != "-" {
				if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := openFormat(dir)
			got, _ := os.ReadFile(file)
			if c.want == "" {
				if err != nil || string(got) != "1 1\n" {
					t.Errorf("%v, the file has %q", err, got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || string(got) != c.text {
				t.Errorf("%v, the file has %q; want %q and the file as it was", err, got, c.want)
			}
		})
	}
}
