package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"haidang/gateway/archive"
)

func auditVerb() verb {
	return verb{
		name: "audit", args: "list|verify",
		short: "who changed what, when and why: acknowledgements, drills, rules, routes, devices, accounts",
		example: `haidang audit
haidang audit list --from 2025-10-27 --to 2025-10-28 --by lan
haidang audit verify`,
		verbs: []verb{auditListVerb(), auditVerifyVerb()},
		usual: "list",
	}
}

func auditListVerb() verb {
	var at runningGateway
	var from, to, by, do, on string
	var limit int
	var asJSON bool
	return verb{
		name: "list", args: "[--from DAY] [--to DAY] [--by NAME] [--do warning.ack] [--on ID]",
		short: "the changes, the newest last",
		example: `haidang audit list --do drill
haidang audit list --on kim-long-flood-level-3f9a
haidang audit list --from 2025-10-01 --to 2025-10-31 --limit 10000 --json > october.json`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&from, "from", "", "not before: a day, or a time as in \"2025-10-27 15:04\"")
			f.StringVar(&to, "to", "", "before, or until the end of a day")
			f.StringVar(&by, "by", "", "only what this one did")
			f.StringVar(&do, "do", "", "only this, as in drill.start, or the group, as in drill")
			f.StringVar(&on, "on", "", "only of this warning, device, account, recipient")
			f.IntVar(&limit, "limit", usualAuditAnswer, "at most so many, the newest")
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("list takes no arguments, only flags: %q", args)
			}
			query := url.Values{"limit": {fmt.Sprint(limit)}}
			for key, value := range map[string]string{"from": from, "to": to, "by": by, "do": do, "on": on} {
				if value != "" {
					query.Set(key, value)
				}
			}
			var answer struct{ Audit []auditEntry }
			if err := at.ask(ctx, http.MethodGet, "/api/v1/audit", query, nil, &answer); err != nil {
				return err
			}
			if asJSON {
				return jsonLine(env.stdout, answer.Audit)
			}
			return tableOfAudit(env, answer.Audit)
		},
	}
}

func tableOfAudit(env environment, list []auditEntry) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(env.stdout, "nothing of that is on record")
		return err
	}
	table := columns{}
	table.add("AT", "BY", "DID", "ON", "WHY", "WHAT")
	for _, e := range slices.Backward(list) {
		what := append(e.Changes, "")
		table.add(clockTime(e.At), clipped(e.By, 24), e.Do, dash(clipped(e.On, 48)), dash(clipped(e.Why, 60)), clipped(what[0], 100))
		for _, more := range e.Changes[min(1, len(e.Changes)):] {
			table.add("", "", "", "", "", clipped(more, 100))
		}
	}
	return table.write(env.stdout)
}

func auditVerifyVerb() verb {
	var at runningGateway
	return verb{
		name: "verify", short: "compare the closed months of warnings and of the audit with their checksums; no gateway needs to run",
		example: "haidang audit verify",
		flags:   at.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("verify takes no arguments, only flags: %q", args)
			}
			data, err := at.folder()
			if err != nil {
				return err
			}
			for _, name := range []string{archiveWarnings, archiveAudit} {
				dir := filepath.Join(data, archiveFolder, name)
				n, err := archive.Verify(ctx, dir)
				if err != nil {
					return fmt.Errorf("the archive is not what it was:\n%w", err)
				}
				fmt.Fprintf(env.stdout, "%s: %s, each as it was when it was closed\n", dir, tally(n, "closed file", "closed files"))
			}
			return nil
		},
	}
}
