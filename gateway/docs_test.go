package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// pages returns README.md and the pages of docs/.
func pages(t *testing.T) []string {
	t.Helper()
	names := []string{"../README.md"}
	err := filepath.WalkDir("../docs", func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			names = append(names, path)
		}
		return err
	})
	if err != nil || len(names) < 2 {
		t.Fatal("no pages in docs/", err)
	}
	return names
}

// blocks returns the fenced blocks of a language and the indented ones (""), each
// with the line where it begins.
func blocks(text, language string) map[int]string {
	out := map[int]string{}
	fence, at := "", 0
	var body strings.Builder
	for i, line := range strings.Split(text, "\n") {
		switch {
		case fence == "" && strings.HasPrefix(line, "```"):
			fence, at = strings.TrimPrefix(line, "```")+" ", i+1
			body.Reset()
		case fence != "" && strings.HasPrefix(line, "```"):
			if strings.TrimSpace(fence) == language {
				out[at+1] = body.String()
			}
			fence = ""
		case fence != "":
			body.WriteString(line + "\n")
		case language == "" && strings.HasPrefix(line, "    "):
			out[i+1] = strings.TrimPrefix(line, "    ")
		}
	}
	return out
}

// TestDocumentedConfigurations loads every YAML block of the documentation: as
// gateway.yaml, or as the file that its first line names. A block that shows a
// part of a file begins with a comment that says of which. Comments of a block
// that are commands ("# haidang ...") are executed first.
func TestDocumentedConfigurations(t *testing.T) {
	station := map[string]string{"devices.yaml": read(t, "../deploy/station", "devices.yaml"), "rules/flood.yaml": read(t, "../deploy/station", "rules/flood.yaml")}
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line, block := range blocks(string(text), "yaml") {
			if first, _, _ := strings.Cut(block, "\n"); strings.HasPrefix(strings.TrimSpace(first), "- ") || strings.HasPrefix(first, "# part of") {
				continue
			}
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(page), line), func(t *testing.T) { checkBlock(t, block, station) })
		}
	}
}

// checkBlock checks one configuration in a folder of its own; more are the files
// that lie beside it.
func checkBlock(t *testing.T, block string, more map[string]string) {
	dir := t.TempDir()
	file := "gateway.yaml"
	if m := regexp.MustCompile(`^# ([a-z]+\.yaml)`).FindStringSubmatch(block); m != nil {
		file = m[1]
	}
	files := maps.Clone(more)
	files["gateway.yaml"] = map[string]string{"devices.yaml": "devices: devices.yaml\n", "kinds.yaml": "kinds: kinds.yaml\n", "rules.yaml": "rules: [rules.yaml]\n"}[file]
	files[file] = block
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for line := range strings.Lines(block) {
		if line, ok := strings.CutPrefix(line, "# haidang "); ok {
			if code, _, stderr := command(t, words(line)...); code != exitWell {
				t.Errorf("haidang %s: %s", line, stderr)
			}
		}
	}
	if code, _, stderr := command(t, "check", "--config", "gateway.yaml"); code != exitWell {
		t.Error(stderr)
	}
}

// TestDocumentedCommands parses every command line of haidang in the
// documentation: its verb and its flags are there.
func TestDocumentedCommands(t *testing.T) {
	seen := 0
	for _, page := range pages(t) {
		for at, line := range shown(t, page) {
			_, line, ok := strings.Cut(" "+line, "haidang ")
			if !ok {
				continue
			}
			args := words(line)
			if err := parses(verbs(), args); err != nil {
				t.Errorf("%s:%d: haidang %s: %v", page, at, line, err)
			}
			seen++
		}
	}
	if seen < 10 {
		t.Errorf("only %d commands were found", seen)
	}
}

// shown are the lines of a page that show commands, by their number: those of
// indented blocks, and of fenced ones marked sh.
func shown(t *testing.T, page string) map[int]string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	all := blocks(string(text), "")
	for at, block := range blocks(string(text), "sh") {
		for i, line := range strings.Split(block, "\n") {
			all[at+i] = line
		}
	}
	return all
}

// words splits a command line at spaces outside quotes, up to a comment, pipe or
// the next command.
func words(line string) (out []string) {
	for _, word := range regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`).FindAllString(line, -1) {
		if word == "|" || word == "&&" || word == ">" || word == "<" || strings.HasPrefix(word, "#") {
			break
		}
		out = append(out, strings.Trim(word, `"'`))
	}
	return out
}

func parses(among []verb, args []string) error {
	if len(args) == 0 {
		return usagef("no verb")
	}
	for _, v := range among {
		if v.name != args[0] {
			continue
		}
		if v.verbs != nil && len(args) > 1 && !strings.HasPrefix(args[1], "-") {
			return parses(v.verbs, args[1:])
		}
		flags := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
		flags.SetOutput(io.Discard)
		if v.verbs != nil && v.usual != "" {
			return parses(v.verbs, append([]string{v.usual}, args[1:]...))
		}
		if v.flags != nil {
			v.flags(flags)
		}
		return flags.Parse(args[1:])
	}
	if args[0] == "help" {
		return nil
	}
	return usagef("there is no verb %q", args[0])
}
