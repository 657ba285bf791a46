package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/console"
)

func recipientsVerb() verb {
	return verb{
		name: "recipients", args: "list|test",
		short: "who is told of warnings, how they fare, and whether a test message reaches them",
		example: `haidang recipients
haidang recipients test siren --why "kiểm tra hằng tháng"`,
		verbs: []verb{recipientsListVerb(), recipientsTestVerb()},
		usual: "list",
	}
}

func recipientsListVerb() verb {
	var at runningGateway
	var asJSON bool
	return verb{
		name: "list", short: "the recipients in force, what waits for each, and since when one fails", example: "haidang recipients list",
		flags: func(f *pflag.FlagSet) {
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("list takes no arguments: %q", args)
			}
			var answer struct{ Recipients []console.Recipient }
			if err := at.ask(ctx, http.MethodGet, "/api/v1/recipients", nil, nil, &answer); err != nil {
				return err
			}
			if asJSON {
				return jsonLine(env.stdout, answer.Recipients)
			}
			if len(answer.Recipients) == 0 {
				_, err := fmt.Fprintln(env.stdout, "nobody is told of warnings: the configuration has no ioc")
				return err
			}
			table := columns{}
			table.add("RECIPIENT", "VIA", "STATE", "WAITING", "LAST TOLD", "WHAT FAILS")
			for i := range answer.Recipients {
				r := &answer.Recipients[i]
				state, told := "well", "not since the start"
				if r.Since != nil {
					state = "fails since " + clockTime(*r.Since)
				}
				if r.LastSuccess != nil {
					told = clockTime(*r.LastSuccess)
				}
				fault := ""
				if r.Since != nil {
					fault = clipped(r.LastError, 120)
				}
				table.add(r.Recipient, r.Via, state, fmt.Sprint(r.Backlog), told, dash(fault))
			}
			return table.write(env.stdout)
		},
	}
}

func recipientsTestVerb() verb {
	var at runningGateway
	var sign signature
	return verb{
		name: "test", args: "NAME --why TEXT",
		short:   "send a recipient a message that is marked as an exercise; a siren sounds for a second",
		example: `haidang recipients test mail --why "kiểm tra hằng tháng"`,
		flags:   func(f *pflag.FlagSet) { sign.flags(f); at.flags(f) },
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("test takes one recipient, not %q; haidang recipients list has them", args)
			}
			if sign.why == "" {
				return usagef("--why is missing: the reason")
			}
			var answer struct {
				Answer  string
				Seconds float64
			}
			body := map[string]any{"by": sign.who(), "why": sign.why}
			if err := at.ask(ctx, http.MethodPost, "/api/v1/recipients/"+url.PathEscape(args[0])+"/test", nil, body, &answer); err != nil {
				return err
			}
			text := "taken"
			if answer.Answer != "" {
				text = "answered: " + plain(answer.Answer)
			}
			_, err := fmt.Fprintf(env.stdout, "%s: %s after %s; look whether the message is there\n", args[0], text,
				time.Duration(answer.Seconds*float64(time.Second)).Round(time.Millisecond))
			return err
		},
	}
}
