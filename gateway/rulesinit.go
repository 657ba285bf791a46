package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"haidang/rules"
)

// starter is the folder that `haidang rules init` writes; the packs come to its
// rules.
//
//go:embed starter
var starter embed.FS

func rulesInitVerb() verb {
	return verb{
		name: "init", args: "DIR",
		short: "write a starting folder: configuration, devices, zones, rules and scenarios, each explained",
		example: `haidang rules init my-province
cd my-province
haidang check --config gateway.yaml
haidang rules test rules`,
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("into which folder?")
			}
			names, err := writeStarter(args[0])
			if err != nil {
				return err
			}
			for _, name := range names {
				fmt.Fprintln(env.stdout, name)
			}
			_, err = fmt.Fprintf(env.stdout, "\nwritten; begin with %s\n", filepath.Join(args[0], "README.md"))
			return err
		},
	}
}

// writeStarter writes the folder and returns the files. It writes nothing over
// what is there.
func writeStarter(dir string) ([]string, error) {
	texts := map[string][]byte{}
	gather := func(from fs.FS, root, to string) error {
		return fs.WalkDir(from, root, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			below, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			texts[filepath.Join(dir, to, below)], err = fs.ReadFile(from, path.Clean(name))
			return err
		})
	}
	if err := errors.Join(gather(rules.Packs, "packs", "rules"), gather(starter, "starter", ".")); err != nil {
		return nil, fmt.Errorf("read the starting folder within the program: %w", err)
	}
	var names []string
	for name := range texts {
		if _, err := os.Lstat(name); err == nil {
			return nil, fmt.Errorf("%s is there already; nothing was written", name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, fmt.Errorf("write the starting folder: %w", err)
		}
		if err := os.WriteFile(name, texts[name], 0o644); err != nil {
			return nil, fmt.Errorf("write the starting folder: %w", err)
		}
	}
	return names, nil
}
