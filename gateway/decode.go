package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/spf13/pflag"

	"haidang/drivers/ais"
)

func decodeVerb() verb {
	var unscaled bool
	return verb{
		name: "decode", args: "ais [--unscaled] FILE...",
		short: "print recorded AIS sentences as JSON, one message per line, with gpsd's field names",
		example: `haidang decode ais recording.nmea.gz
nc 127.0.0.1 10110 | haidang decode ais -`,
		flags: func(f *pflag.FlagSet) {
			f.BoolVar(&unscaled, "unscaled", false, "whole numbers as they are sent, as gpsdecode -u prints them")
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) < 2 || args[0] != "ais" {
				return usagef("want: decode ais FILE..., and - for standard input")
			}
			for _, name := range args[1:] {
				if err := decodeAIS(ctx, env, name, unscaled); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func decodeAIS(ctx context.Context, env environment, name string, unscaled bool) (err error) {
	in := env.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	counts, err := ais.Decode(untilDone{ctx, in}, unscaled, env.stdout)
	fmt.Fprintf(env.stderr, "%s: %d lines, %d messages%s\n", name, counts.Lines, counts.Messages, reasonsOf(counts.Reasons()))
	return ended(ctx, err)
}

// untilDone is a reader that ends with its context.
type untilDone struct {
	ctx context.Context
	in  io.Reader
}

// Read implements io.Reader.
func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.in.Read(p)
}

// reasonsOf writes counts by reason as ", 3 bad_checksum, 1 ...".
func reasonsOf(counts map[string]uint64) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, ", %d %s", counts[name], name)
	}
	return b.String()
}
