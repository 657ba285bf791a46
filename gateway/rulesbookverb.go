package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"haidang/gateway/rulebook"
)

// A shelf is where a verb finds the rules that were changed on the page: the
// gateway that runs on a data folder, or the folder itself.
type shelf struct{ config, data string }

func (s *shelf) flags(f *pflag.FlagSet) {
	f.StringVar(&s.config, "config", "", "the configuration that the gateway runs with (default: the built-in one)")
	f.StringVar(&s.data, "data", "", "data folder of the gateway (default: that of the configuration)")
}

// open reads the configuration and the book of its data folder. The gateway may
// run meanwhile: versions are only ever added.
func (s *shelf) open() (Configuration, *world, *rulebook.Book, error) {
	cfg, w, err := readConfiguration(s.config, func(c *Configuration) {
		if s.data != "" {
			c.Data = s.data
		}
	})
	if err != nil {
		return cfg, nil, nil, err
	}
	book, err := rulebook.Open(cfg.Data)
	return cfg, w, book, err
}

func rulesHistoryVerb() verb {
	var at shelf
	var file string
	var limit int
	var asJSON bool
	return verb{
		name: "history", args: "[VERSION] [--file NAME] [--config gateway.yaml]",
		short: "who changed rules on the page, when and why; of a version also what",
		example: `haidang rules history --config gateway.yaml
haidang rules history 7 --config gateway.yaml
haidang rules history --file rules/flood.yaml --config gateway.yaml`,
		flags: func(f *pflag.FlagSet) {
			at.flags(f)
			f.StringVar(&file, "file", "", "only changes of this file")
			f.IntVar(&limit, "limit", 100, "at most so many, the newest first")
			f.BoolVar(&asJSON, "json", false, "print it as JSON")
		},
		run: func(_ context.Context, env environment, args []string) error {
			_, w, book, err := at.open()
			if err != nil {
				return err
			}
			if len(args) > 1 {
				return usagef("history takes one version, not %q", args)
			}
			if len(args) == 1 {
				n, err := strconv.Atoi(args[0])
				if err != nil || n < 1 {
					return usagef("%q is not the number of a version", args[0])
				}
				return tellChange(env.stdout, book, w, n)
			}
			versions := book.Versions(file, limit)
			if asJSON {
				return jsonLine(env.stdout, versions)
			}
			return tellVersions(env.stdout, book, w, versions)
		},
	}
}

// tellVersions prints a line for each version, and before them what is not as one
// would think.
func tellVersions(out io.Writer, book *rulebook.Book, w *world, versions []rulebook.Version) error {
	_, merged, err := w.withBook(book, book.Head())
	if err != nil {
		fmt.Fprintf(out, "not in force, because they do not fit the configuration:\n%s\n", indent(err.Error()))
	}
	for _, said := range conflicts(merged) {
		fmt.Fprintf(out, "conflict: %s\n", said)
	}
	if len(versions) == 0 {
		_, err := fmt.Fprintln(out, "nothing was changed on the page: the configuration's files are in force")
		return err
	}
	table := columns{}
	table.add("VERSION", "AT", "BY", "FILES", "WHY")
	for _, v := range versions {
		what := strings.Join(v.Changed, ", ")
		switch v.Do {
		case rulebook.Revert:
			what += fmt.Sprintf(" (as in version %d)", v.To)
		case rulebook.Follow:
			what += " (as the configuration says)"
		}
		table.add(strconv.Itoa(v.N), clockTime(v.At), clipped(v.By, 24), clipped(what, 60), clipped(v.Why, 80))
	}
	width, _ := terminalSize(out)
	return table.writeWithin(out, width)
}

// tellChange prints what a version changed, line by line.
func tellChange(out io.Writer, book *rulebook.Book, w *world, n int) error {
	v, err := book.Version(n)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "version %d, %s, %s: %s\n", v.N, clockTime(v.At), v.By, v.Why)
	for _, name := range v.Changed {
		before, err := textAt(book, w.texts(), name, n-1)
		if err != nil {
			return err
		}
		after, err := textAt(book, w.texts(), name, n)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n%s\n", name)
		for _, line := range rulebook.Around(rulebook.Diff(before, after), contextLines) {
			fmt.Fprintf(out, "%s %s\n", line.Mark, line.Text)
		}
	}
	return nil
}

func rulesExportVerb() verb {
	var at shelf
	var force bool
	return verb{
		name: "export", args: "FOLDER [--config gateway.yaml]",
		short: "write the rule files that are in force, to be taken into the configuration",
		example: `haidang rules export in-force --config gateway.yaml
diff -ru station/rules in-force/rules`,
		flags: func(f *pflag.FlagSet) {
			at.flags(f)
			f.BoolVar(&force, "force", false, "write over files that are there")
		},
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("export takes the folder to write to, not %q", args)
			}
			_, w, book, err := at.open()
			if err != nil {
				return err
			}
			_, merged, err := w.withBook(book, book.Head())
			if err != nil {
				return err
			}
			for _, m := range merged {
				if err := export(args[0], m, force); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(env.stdout, "%s written to %s\n", count(len(merged), "file"), args[0])
			return err
		},
	}
}

// export writes one file below a folder; a file outside the configuration's folder
// loses the leading part of its path.
func export(dir string, m rulebook.Merged, force bool) error {
	name := filepath.Join(dir, filepath.Clean("/"+filepath.ToSlash(m.Name)))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("export %s: %w", m.Name, err)
	}
	flag := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flag = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	file, err := os.OpenFile(name, flag, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already: name another folder, or --force", name)
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", m.Name, err)
	}
	_, err = file.WriteString(m.Text)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("export %s: %w", m.Name, err)
	}
	return nil
}

func rulesRevertVerb() verb {
	var at runningGateway
	var sign signature
	var to, file string
	return verb{
		name: "revert", args: "--to VERSION|configuration --why REASON [--file NAME]",
		short: "put an earlier version of the rules back in force, in the gateway that runs",
		example: `haidang rules revert --to 6 --why "too many warnings" --config gateway.yaml
haidang rules revert --to configuration --file rules/flood.yaml --why "taken over" --config gateway.yaml`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&to, "to", "", "version, or configuration for what its files say")
			f.StringVar(&file, "file", "", "only this file")
			sign.flags(f)
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			n, err := strconv.Atoi(to)
			if to == "configuration" {
				n, err = 0, nil
			}
			if len(args) > 0 || err != nil || n < 0 || n == 0 && to != "configuration" {
				return usagef("--to %q is not a version, or configuration", to)
			}
			if sign.why == "" {
				return usagef("--why is missing: the reason is kept in the history")
			}
			var now struct{ Version int }
			if err := at.ask(ctx, http.MethodGet, "/api/v1/rules/files", nil, nil, &now); err != nil {
				return err
			}
			body := map[string]any{"to": n, "file": file, "by": sign.who(), "why": sign.why}
			var done toldVersion
			if err := at.askSeen(ctx, strconv.Itoa(now.Version), http.MethodPost, "/api/v1/rules/revert", nil, body, &done); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "version %d is in force: %s\n", done.Version, strings.Join(done.Files, ", "))
			return err
		},
	}
}

// tellEdits says what the page has changed of the configuration's rule files, and
// returns how much of that is odd. An error is of changes that cannot be in force.
func tellEdits(out io.Writer, cfg Configuration, w *world) (int, error) {
	book, err := rulebook.Open(cfg.Data)
	if err != nil {
		return 0, err
	}
	head := book.Head()
	edited, merged, err := w.withBook(book, head)
	if err == nil && edited != w {
		if faults := cfg.outOfReach(edited); len(faults) > 0 {
			err = faults
		}
	}
	if err != nil {
		return 0, fmt.Errorf("the rules that were changed on the page do not fit this configuration: %w", err)
	}
	odd := 0
	for _, m := range merged {
		last := book.Last(head, m.Name)
		switch {
		case m.Conflict:
			odd++
			fmt.Fprintf(out, "warning: %s: changed here and on the page (version %d by %s): the page's text is in force; haidang rules revert decides\n", m.Name, last.N, last.By)
		case m.Origin == rulebook.FromPage:
			fmt.Fprintf(out, "note: %s: the text of the page is in force (version %d by %s: %s); haidang rules export writes it\n", m.Name, last.N, last.By, last.Why)
		}
	}
	return odd, nil
}
