package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"
)

func checkVerb() verb {
	var configuration string
	var roles []string
	return verb{
		name: "check", args: "[--config gateway.yaml] [--roles LIST]",
		short:   "validate configuration, devices and rules; nothing is started",
		example: "haidang check --config /etc/haidang/gateway.yaml",
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&configuration, "config", "", "the configuration; without it the built-in one is checked")
			f.StringSliceVar(&roles, "roles", nil, "check it for a machine of a centre with these roles, as haidang run takes them")
		},
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) == 1 && configuration == "" {
				configuration = args[0]
			} else if len(args) > 0 {
				return usagef("check takes one configuration, not %q", args)
			}
			cfg, w, err := readConfiguration(configuration, func(c *Configuration) {
				if len(roles) > 0 {
					c.Roles = roles
				}
			})
			if err != nil {
				return err
			}
			for _, f := range w.doc.Locate(slices.Concat(cfg.inClear(), cfg.oddMappings(), cfg.strays(w))) {
				fmt.Fprintf(env.stderr, "warning: %s\n", f)
			}
			if configuration != "" {
				// Built-in rules wait for devices of their kind: that is no news here.
				// `haidang rules check` tells it.
				tellOdd(env.stderr, slices.DeleteFunc(w.oddities(), func(o oddity) bool { return isPack(o.File) }))
			}
			sources := len(cfg.Modbus) + len(cfg.Serial) + len(cfg.AIS) + 1
			_, err = fmt.Fprintf(env.stdout, "well: %s, %s, %s, %s, %s\n", count(sources, "source"), count(len(w.document.Kinds), "kind"),
				count(len(w.document.Devices), "device"), count(len(w.document.Rules), "rule"), count(len(cfg.IOC), "recipient"))
			return err
		},
	}
}

// readConfiguration loads the configuration of a file on disk, or the built-in
// one.
func readConfiguration(name string, change func(*Configuration)) (Configuration, *world, error) {
	if name == "" {
		return loadConfiguration(folder{}, "", change)
	}
	return loadConfiguration(folder{dir: filepath.Dir(name)}, filepath.Base(name), change)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
