package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/pflag"
)

func drillVerb() verb {
	return verb{
		name: "drill", args: "start|status|end",
		short: "play a scenario as an exercise: its warnings are marked and go to the real recipients",
		example: `haidang drill start rules/flood.test.yaml --name "flood of 27 October" --speed 60 --why "diễn tập 2026"
haidang drill end --why "xong"`,
		verbs: []verb{drillStartVerb(), drillStatusVerb(), drillEndVerb()},
		usual: "status",
	}
}

func drillStartVerb() verb {
	var at runningGateway
	var sign signature
	var name string
	var speed float64
	return verb{
		name: "start", args: "FILE [--name SCENARIO] [--speed 60] --why TEXT",
		short:   "play a scenario of a *" + scenarioSuffix + " file with the rules in force; nothing public is told",
		example: `haidang drill start rules/flood.test.yaml --name "flood of 27 October" --speed 60 --why "diễn tập 2026"`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&name, "name", "", "the scenario; default the only one of the file")
			f.Float64Var(&speed, "speed", 1, "how many times faster than it is written")
			sign.flags(f)
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("start takes one scenario file, not %q", args)
			}
			if sign.why == "" {
				return usagef("--why is missing: the reason")
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			body := map[string]any{"do": "start", "scenario": string(text), "name": name, "speed": speed, "by": sign.who(), "why": sign.why}
			return askDrill(ctx, env.stdout, &at, http.MethodPost, body)
		},
	}
}

func drillStatusVerb() verb {
	var at runningGateway
	return verb{
		name: "status", short: "the exercise that runs", example: "haidang drill status", flags: at.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("status takes no arguments: %q", args)
			}
			return askDrill(ctx, env.stdout, &at, http.MethodGet, nil)
		},
	}
}

func drillEndVerb() verb {
	var at runningGateway
	var sign signature
	return verb{
		name: "end", args: "--why TEXT", short: "end the exercise, and clear the warnings that it has raised",
		example: `haidang drill end --why "xong"`,
		flags:   func(f *pflag.FlagSet) { sign.flags(f); at.flags(f) },
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("end takes no arguments: %q", args)
			}
			if sign.why == "" {
				return usagef("--why is missing: the reason")
			}
			return askDrill(ctx, env.stdout, &at, http.MethodPost, map[string]any{"do": "end", "by": sign.who(), "why": sign.why})
		},
	}
}

func askDrill(ctx context.Context, out io.Writer, at *runningGateway, method string, body any) error {
	var answer struct{ Drill *exercise }
	if err := at.ask(ctx, method, "/api/v1/drill", nil, body, &answer); err != nil {
		return err
	}
	if answer.Drill == nil {
		_, err := fmt.Fprintln(out, "no exercise runs")
		return err
	}
	x := answer.Drill
	_, err := fmt.Fprintf(out, "exercise %q by %s (%s): %d of %s, since %s until %s, %g times as fast as written\n",
		plain(x.Scenario), plain(x.By), plain(x.Why), x.Done, tally(x.Steps, "step", "steps"), clockTime(x.Began), clockTime(x.Ends), x.Speed)
	return err
}
