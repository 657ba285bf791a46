package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/telemetry"
)

// deedVerbs are what an operator does with a warning, from the command line.
func deedVerbs() []verb {
	short := map[telemetry.Deed]string{
		telemetry.Ack:      "acknowledge: you have taken it",
		telemetry.Shelve:   "put aside until a time; nobody is reminded meanwhile",
		telemetry.Unshelve: "end that",
		telemetry.Comment:  "add a comment",
		telemetry.Assign:   "hand over to a person or an agency",
		telemetry.False:    "mark as a false alarm; for the public it is withdrawn",
		telemetry.Genuine:  "take that mark back",
	}
	var out []verb
	for _, deed := range telemetry.Deeds() {
		out = append(out, deedVerb(deed, short[deed]))
	}
	return out
}

func deedVerb(deed telemetry.Deed, short string) verb {
	var at runningGateway
	var by, text, to, lasts string
	var n int
	args, example := "ID [--text TEXT]", fmt.Sprintf("haidang warnings %s kim-long-flood-level-3f9a --text \"đã gọi trực ban\"", deed)
	switch deed {
	case telemetry.Shelve:
		args, example = "ID --for 2h [--text TEXT]", "haidang warnings shelve kim-long-flood-level-3f9a --for 2h --text \"đang sơ tán\""
	case telemetry.Assign:
		args, example = "ID --to NAME [--text TEXT]", "haidang warnings assign kim-long-flood-level-3f9a --to \"BCH PCTT xã Kim Long\""
	}
	return verb{
		name: string(deed), args: args, short: short, example: example,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&text, "text", "", "why, or what is to be known; it is kept")
			f.StringVar(&by, "by", "", "who does it (default: who is logged in)")
			f.IntVar(&n, "n", 0, "the transition that you saw, to be told when it has changed since; default the newest")
			switch deed {
			case telemetry.Shelve:
				f.StringVar(&lasts, "for", "", "how long, as in 2h")
			case telemetry.Assign:
				f.StringVar(&to, "to", "", "the person or agency in charge from now on")
			}
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("%s takes one id, not %q; haidang warnings list has them", deed, args)
			}
			act := map[string]any{"by": (&signature{by: by}).who(), "text": text}
			if to != "" {
				act["to"] = to
			}
			if deed == telemetry.Shelve {
				if lasts == "" {
					return usagef("--for is missing: how long, as in 2h")
				}
				end, err := inFuture(lasts)
				if err != nil {
					return err
				}
				act["until"] = end
			}
			return doDeed(ctx, env, &at, args[0], deed, n, act)
		},
	}
}

// doDeed asks the gateway for what an operator does.
func doDeed(ctx context.Context, env environment, at *runningGateway, id string, deed telemetry.Deed, n int, act map[string]any) error {
	path := "/api/v1/warnings/" + url.PathEscape(id)
	if n == 0 {
		var now telemetry.Warning
		if err := at.ask(ctx, http.MethodGet, path, nil, nil, &now); err != nil {
			return err
		}
		n = now.N
	}
	act["n"] = n
	var done telemetry.Warning
	if err := at.ask(ctx, http.MethodPost, path+"/"+string(deed), nil, act, &done); err != nil {
		return err
	}
	parts := []string{string(done.State), done.Severity.String()}
	if done.AckedBy != "" {
		parts = append(parts, "acknowledged by "+plain(done.AckedBy))
	}
	if done.AssignedTo != "" {
		parts = append(parts, "in charge: "+plain(done.AssignedTo))
	}
	if done.State == telemetry.Shelved && done.Expires != nil {
		parts = append(parts, "until "+done.Expires.In(vietnam).Format(time.DateTime))
	}
	if done.FalseAlarm {
		parts = append(parts, "marked as a false alarm")
	}
	_, err := fmt.Fprintf(env.stdout, "%s: %s\n", done.ID, strings.Join(parts, ", "))
	return err
}
