package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/pflag"

	"haidang/gateway/telemetry"
)

func warningsListVerb() verb {
	var at runningGateway
	var state, device, rule, severity string
	var asJSON bool
	return verb{
		name: "list", args: "[--state STATE|all] [--device ID] [--rule NAME] [--severity LEAST]",
		short: "the warnings of a running gateway, the gravest first",
		example: `haidang warnings
haidang warnings list --state all --device kim-long
haidang warnings list --severity severe --json`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&state, "state", "", "only this state, or all; default: those that are not cleared")
			f.StringVar(&device, "device", "", "only of this device")
			f.StringVar(&rule, "rule", "", "only of this rule")
			f.StringVar(&severity, "severity", "", "at least this grave")
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("list takes no arguments, only flags: %q", args)
			}
			query := url.Values{}
			for key, value := range map[string]string{"state": state, "device": device, "rule": rule, "severity": severity} {
				if value != "" {
					query.Set(key, value)
				}
			}
			var answer struct{ Warnings []telemetry.Warning }
			if err := at.ask(ctx, http.MethodGet, "/api/v1/warnings", query, nil, &answer); err != nil {
				return err
			}
			if asJSON {
				return jsonLine(env.stdout, answer.Warnings)
			}
			return tableOfWarnings(env.stdout, answer.Warnings)
		},
	}
}

func tableOfWarnings(out io.Writer, list []telemetry.Warning) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "there is no such warning")
		return err
	}
	table := columns{}
	table.add("ID", "SEVERITY", "STATE", "SINCE", "WITH", "MESSAGE")
	for i := range list {
		w := &list[i]
		with := w.AckedBy
		if w.AssignedTo != "" {
			with = w.AssignedTo
		}
		message := w.Message.VI
		if w.Exercise {
			message = "(DIỄN TẬP) " + message
		}
		if w.FalseAlarm {
			message = "(false alarm) " + message
		}
		table.add(w.ID, w.Severity.String(), string(w.State), clockTime(w.Start), dash(clipped(with, 24)), clipped(message, 90))
	}
	return table.write(out)
}

// A story is all that is known of a warning.
type story struct {
	Warning     telemetry.Warning      `json:"warning"`
	Transitions []telemetry.Transition `json:"transitions"`    // with the values that the rule saw
	Rule        json.RawMessage        `json:"rule,omitempty"` // as it is in force now; each transition has the version of then
	Route       *routing               `json:"route,omitempty"`
	Deliveries  []telemetry.Attempt    `json:"deliveries"`
}

func warningsShowVerb() verb {
	var at runningGateway
	var asJSON bool
	return verb{
		name: "show", args: "ID", short: "the whole story of a warning: what the rule saw, who did what, who was told and what they answered",
		example: "haidang warnings show kim-long-flood-level-3f9a\nhaidang warnings show kim-long-flood-level-3f9a --json > proof.json",
		flags: func(f *pflag.FlagSet) {
			f.BoolVar(&asJSON, "json", false, "print everything, as for a file")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("show takes one id, not %q; haidang warnings list has them", args)
			}
			s, err := storyOf(ctx, &at, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return jsonLine(env.stdout, s)
			}
			return s.tell(env.stdout)
		},
	}
}

// storyOf asks the gateway for all that it knows of a warning.
func storyOf(ctx context.Context, at *runningGateway, id string) (*story, error) {
	s := &story{}
	path := "/api/v1/warnings/" + url.PathEscape(id)
	if err := at.ask(ctx, http.MethodGet, path+"/history", nil, nil, s); err != nil {
		return nil, err
	}
	if n := len(s.Transitions); n > 0 {
		s.Warning = s.Transitions[n-1].Warning
	}
	if err := at.ask(ctx, http.MethodGet, path+"/deliveries", nil, nil, s); err != nil {
		return nil, err
	}
	s.Route = &routing{}
	if err := at.ask(ctx, http.MethodGet, path+"/route", nil, nil, s.Route); err != nil {
		s.Route = nil // it was cleared long ago: the board has forgotten it
	}
	var answer struct {
		Document struct{ Rules []json.RawMessage }
	}
	if err := at.ask(ctx, http.MethodGet, "/api/v1/rules/document", nil, nil, &answer); err != nil {
		return nil, err
	}
	for _, text := range answer.Document.Rules {
		var rule struct{ Name string }
		if json.Unmarshal(text, &rule) == nil && rule.Name == s.Warning.Rule {
			s.Rule = text
		}
	}
	return s, nil
}

func (s *story) tell(out io.Writer) error {
	if err := tellStory(out, s.Transitions); err != nil {
		return err
	}
	if s.Warning.AssignedTo != "" {
		fmt.Fprintf(out, "\nin charge: %s\n", plain(s.Warning.AssignedTo))
	}
	if s.Warning.FalseAlarm {
		fmt.Fprintln(out, "\nmarked as a false alarm")
	}
	if s.Route != nil {
		fmt.Fprintln(out)
		tellLines(out, s.Route)
	}
	if len(s.Deliveries) == 0 {
		_, err := fmt.Fprintln(out, "\nno attempt to tell a recipient is on record")
		return err
	}
	fmt.Fprintln(out)
	table := columns{}
	table.add("TOLD AT", "N", "RECIPIENT", "VIA", "TRY", "RESULT", "TOOK", "ANSWER")
	for i := range s.Deliveries {
		d := &s.Deliveries[i]
		result := "failed"
		if d.Accepted {
			result = "accepted"
		}
		answer := d.Answer
		if d.Digest != "" {
			answer = strings.TrimSpace("with others: " + d.Digest + " " + answer)
		}
		table.add(clockTime(d.At), fmt.Sprint(d.N), d.Recipient, d.Via, fmt.Sprint(d.Attempt), result, fmt.Sprintf("%.3fs", d.Seconds), clipped(answer, 100))
	}
	return table.write(out)
}

func warningsServiceVerb() verb {
	return verb{
		name: "service", args: "list|out|in",
		short: "take a device or a rule out of service, or put it back",
		example: `haidang warnings service
haidang warnings service out --device kim-long --for 2h --why "thay đầu đo"
haidang warnings service in --device kim-long --why "xong"`,
		verbs: []verb{serviceListVerb(), serviceVerb("out"), serviceVerb("in")},
		usual: "list",
	}
}

// outOfService is what the gateway answers of what is not told.
type outOfService struct {
	Orders   []telemetry.Order
	Withheld []struct {
		Rule, Device string
		Severity     telemetry.Severity
		Muted        string   `json:"muted_until"`
		By           []string `json:"inhibited_by"`
	}
}

func serviceListVerb() verb {
	var at runningGateway
	return verb{
		name: "list", short: "what is out of service, and what holds and is not raised by design", example: "haidang warnings service list",
		flags: at.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("list takes no arguments: %q", args)
			}
			var a outOfService
			if err := at.ask(ctx, http.MethodGet, "/api/v1/out-of-service", nil, nil, &a); err != nil {
				return err
			}
			table := columns{}
			table.add("DEVICE", "RULE", "STATE", "SINCE", "UNTIL", "BY", "WHY")
			for i := range a.Orders {
				o := &a.Orders[i]
				until := "put back"
				if o.Until != nil {
					until = clockTime(*o.Until)
				}
				table.add(dash(o.Device), dash(o.Rule), "out of service", clockTime(o.At), until, clipped(o.By, 24), clipped(o.Why, 60))
			}
			for _, w := range a.Withheld {
				why, until := "muted", dash(w.Muted)
				if len(w.By) > 0 {
					why = "inhibited by " + strings.Join(w.By, ", ")
				}
				table.add(w.Device, w.Rule, "suppressed "+w.Severity.String(), "-", until, "by design", why)
			}
			if len(table.rows) == 1 {
				_, err := fmt.Fprintln(env.stdout, "everything is in service, and nothing is withheld")
				return err
			}
			return table.write(env.stdout)
		},
	}
}

func serviceVerb(do string) verb {
	var at runningGateway
	var sign signature
	var device, rule, lasts string
	short := "put back what is out of service"
	if do == "out" {
		short = "take out of service: what is raised is kept, and nobody is told"
	}
	return verb{
		name: do, args: "[--device ID] [--rule NAME] --why TEXT", short: short,
		example: "haidang warnings service " + do + ` --device kim-long --why "thay đầu đo"`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&device, "device", "", "everything of this device")
			f.StringVar(&rule, "rule", "", "this rule; with --device, at that device only")
			if do == "out" {
				f.StringVar(&lasts, "for", "", "how long, as in 2h; default: until it is put back")
			}
			sign.flags(f)
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			switch {
			case len(args) > 0:
				return usagef("%s takes no arguments, only flags: %q", do, args)
			case device == "" && rule == "":
				return usagef("--device or --rule is missing")
			case sign.why == "":
				return usagef("--why is missing: the reason")
			}
			order := map[string]any{"out": do == "out", "device": device, "rule": rule, "by": sign.who(), "why": sign.why}
			if lasts != "" {
				end, err := inFuture(lasts)
				if err != nil {
					return err
				}
				order["until"] = end
			}
			var a outOfService
			if err := at.ask(ctx, http.MethodGet, "/api/v1/out-of-service", nil, nil, &a); err != nil {
				return err
			}
			for i := range a.Orders {
				if o := &a.Orders[i]; o.Device == device && o.Rule == rule && do == "in" {
					order["n"] = o.N
				}
			}
			var done telemetry.Order
			if err := at.ask(ctx, http.MethodPost, "/api/v1/out-of-service", nil, order, &done); err != nil {
				return err
			}
			_, err := fmt.Fprintln(env.stdout, map[bool]string{true: "out of service: nobody is told of what is raised there", false: "in service"}[done.Out])
			return err
		},
	}
}
