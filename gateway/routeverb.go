package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/telemetry"
)

func routeVerb() verb {
	return verb{
		name: "route", args: "explain",
		short: "who is told of a warning, and why",
		example: `haidang route explain --device kim-long --severity extreme
haidang route explain kim-long-flood-level-3f9a`,
		verbs: []verb{routeExplainVerb()},
	}
}

func routeExplainVerb() verb {
	var at runningGateway
	var device, rule, kind, severity, when string
	var exercise, asJSON bool
	return verb{
		name: "explain", args: "WARNING-ID | --device ID [--severity S] [--rule NAME] [--kind KIND] [--at TIME]",
		short: "who is told of a warning, and every line of the configuration that says so",
		example: `haidang route explain kim-long-flood-level-3f9a
haidang route explain --device kim-long --rule flood-level --severity extreme --at "2026-10-27 02:30"`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&device, "device", "", "of a warning that might be raised: its device")
			f.StringVar(&severity, "severity", "severe", "its severity")
			f.StringVar(&rule, "rule", "", "its rule")
			f.StringVar(&kind, "kind", "", "its kind, where no rule is named")
			f.StringVar(&when, "at", "", "when it would be raised; default now")
			f.BoolVar(&exercise, "exercise", false, "in a drill")
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			path, query := "/api/v1/route", url.Values{}
			switch {
			case len(args) > 1, len(args) == 1 && device != "", len(args) == 0 && device == "":
				return usagef("explain takes the id of a warning, or --device: not %q", args)
			case len(args) == 1:
				path = "/api/v1/warnings/" + url.PathEscape(args[0]) + "/route"
			default:
				for key, value := range map[string]string{"device": device, "severity": severity, "rule": rule, "kind": kind, "at": when} {
					if value != "" {
						query.Set(key, value)
					}
				}
				if exercise {
					query.Set("exercise", "true")
				}
			}
			var r routing
			if err := at.ask(ctx, http.MethodGet, path, query, nil, &r); err != nil {
				return err
			}
			if asJSON {
				return jsonLine(env.stdout, &r)
			}
			w := &r.Warning
			fmt.Fprintf(env.stdout, "%s of %s%s, %s, at %s\n", dash(w.Rule), w.Device, of(" (", w.Kind, ")"), w.Severity, clockTime(r.At))
			tellLines(env.stdout, &r)
			return nil
		},
	}
}

func of(before, text, after string) string {
	if text == "" {
		return ""
	}
	return before + text + after
}

// tellLines prints who is told, and why.
func tellLines(out io.Writer, r *routing) {
	to := r.To
	if r.Told != nil {
		to = r.Told
	}
	if len(to) == 0 {
		fmt.Fprintln(out, "told: nobody, there is no recipient")
	} else {
		fmt.Fprintf(out, "told: %s\n", strings.Join(to, ", "))
	}
	if r.Warning.Quiet {
		fmt.Fprintln(out, "  but it is out of service: nobody is told")
	}
	for i := range r.Lines {
		l := &r.Lines[i]
		mark, tells := " ", ""
		if l.Matches {
			mark, tells = "*", " -> "+strings.Join(l.To, ", ")
		}
		fmt.Fprintf(out, "%s %s%s\n", mark, l.Route, tells)
		for _, why := range l.Why {
			fmt.Fprintf(out, "      %s\n", plain(why))
		}
		for _, next := range l.Next {
			fmt.Fprintf(out, "      then %s\n", next)
		}
	}
	if c := r.Chase; c != nil {
		fmt.Fprintf(out, "nobody has acknowledged it since %s", clockTime(c.Since))
		if len(c.Done) > 0 {
			fmt.Fprintf(out, "; done: %s", strings.Join(c.Done, ", "))
		}
		if !c.Reminded.IsZero() {
			fmt.Fprintf(out, "; reminded at %s", clockTime(c.Reminded))
		}
		fmt.Fprintln(out)
	}
}

// inFuture is the time that a duration leads to.
func inFuture(text string) (time.Time, error) {
	d, err := telemetry.ParseDuration(text)
	if err != nil || d <= 0 {
		return time.Time{}, usagef("--for %q is not a duration like 30m, 2h or 3d", text)
	}
	return time.Now().Add(d.Std()).UTC().Truncate(time.Second), nil
}
