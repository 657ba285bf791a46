package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"haidang/broker"
	"haidang/gateway/account"
	"haidang/gateway/telemetry"
)

// A listedAccount is an account as list shows it: nothing of its secrets.
type listedAccount struct {
	Name      string            `json:"name"`
	Role      telemetry.Role    `json:"role"`
	Devices   []string          `json:"devices,omitempty"`
	Publish   []string          `json:"publish,omitempty"`
	Subscribe []string          `json:"subscribe,omitempty"`
	Limits    *telemetry.Limits `json:"limits,omitempty"`
	Secret    bool              `json:"secret"`
	Previous  *time.Time        `json:"previous_until,omitempty"`
	Tokens    []listedToken     `json:"tokens,omitempty"`
	Locked    bool              `json:"locked,omitempty"`
	Note      string            `json:"note,omitempty"`
	Created   time.Time         `json:"created"`
	Changed   time.Time         `json:"changed"`

	Backlog *broker.Backlog `json:"backlog,omitempty"` // when the gateway runs: what its clients are owed and have lost
}

type listedToken struct {
	ID      string            `json:"id"`
	Rights  []telemetry.Right `json:"rights,omitempty"`
	Expires *time.Time        `json:"expires,omitempty"`
}

func accountListVerb() verb {
	var p accountPlace
	return verb{
		name: "list", args: "[--json]",
		short:   "the accounts; no secret can be shown",
		example: "haidang account list --json",
		flags:   p.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("list takes no arguments, only flags: %q", args)
			}
			file, err := p.file()
			if err != nil {
				return err
			}
			records, err := account.List(file)
			if err != nil {
				if _, ok := errors.AsType[account.Faults](err); ok {
					return asFaults(file, err)
				}
				return err
			}
			list := make([]listedAccount, len(records))
			for i := range records {
				list[i] = listed(&records[i])
			}
			p.addBacklogs(ctx, list)
			if p.json {
				return p.tell(env, map[string]any{"accounts": list}, "")
			}
			if len(list) == 0 {
				_, err := fmt.Fprintf(env.stdout, "There are no accounts in %s: the gateway stays on loopback, where everybody may do everything.\n", file)
				return err
			}
			return listText(env.stdout, list)
		},
	}
}

// addBacklogs adds what a running gateway knows of the accounts; the list is good
// without.
func (p *accountPlace) addBacklogs(ctx context.Context, list []listedAccount) {
	var h health
	if (&runningGateway{data: p.data, file: p.configuration}).ask(ctx, "GET", "/api/v1/health", nil, nil, &h) != nil {
		return
	}
	for i := range list {
		for j := range h.Subscribers {
			if h.Subscribers[j].Account == list[i].Name {
				list[i].Backlog = &h.Subscribers[j]
			}
		}
	}
}

func listed(r *account.Record) listedAccount {
	l := listedAccount{Name: r.Name, Role: r.Role, Devices: r.Devices, Publish: r.Publish, Subscribe: r.Subscribe,
		Secret: r.Secret != "", Locked: r.Disabled, Note: r.Note, Created: r.Created, Changed: r.Changed}
	if r.Limits != (telemetry.Limits{}) {
		l.Limits = &r.Limits
	}
	if time.Now().Before(r.PreviousUntil) {
		l.Previous = &r.PreviousUntil
	}
	for _, t := range r.Tokens {
		token := listedToken{ID: t.ID, Rights: t.Rights}
		if !t.Expires.IsZero() {
			token.Expires = &t.Expires
		}
		l.Tokens = append(l.Tokens, token)
	}
	return l
}

func listText(out io.Writer, list []listedAccount) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ACCOUNT\tROLE\tSPEAKS FOR\tCHANGED\tREMARKS")
	for _, l := range list {
		var remarks []string
		if l.Locked {
			remarks = append(remarks, "locked")
		}
		if !l.Secret {
			remarks = append(remarks, "no secret")
		}
		if l.Previous != nil {
			remarks = append(remarks, "old secret good until "+l.Previous.Format(time.DateOnly))
		}
		for _, t := range l.Tokens {
			until := "for ever"
			if t.Expires != nil {
				until = "until " + t.Expires.Format(time.DateOnly)
			}
			remarks = append(remarks, fmt.Sprintf("token %s %v %s", t.ID, t.Rights, until))
		}
		if l.Backlog != nil {
			remarks = append(remarks, backlogText(*l.Backlog))
		}
		if l.Note != "" {
			remarks = append(remarks, l.Note)
		}
		devices := strings.Join(l.Devices, " ")
		if l.Role == telemetry.RoleStation || l.Role == telemetry.RoleVessel {
			devices = strings.TrimSpace(l.Name + " " + devices)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Name, l.Role, devices, l.Changed.Format(time.DateOnly), strings.Join(remarks, "; "))
	}
	return w.Flush()
}
