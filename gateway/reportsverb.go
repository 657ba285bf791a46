package main

import (
	"context"
	"net/http"
	"net/url"

	"github.com/spf13/pflag"
)

func warningsReportVerb() verb {
	var at runningGateway
	var from, to, by, format string
	var exercises bool
	return verb{
		name: "report", args: "[--from DAY] [--to DAY] [--by day|month|station|rule] [--format text|csv|json]",
		short: "how warnings were dealt with: raised, acknowledged and how soon, false alarms, what chatters",
		example: `haidang warnings report --from 2025-10-01 --to 2025-10-31 --by station
haidang warnings report --by month --from 2025-01-01 --format csv > 2025.csv`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&from, "from", "", "raised at or after this; default 31 days before --to")
			f.StringVar(&to, "to", "", "raised before this, or on this day; default now")
			f.StringVar(&by, "by", "day", "day, month, station or rule")
			f.StringVar(&format, "format", "text", "text, csv or json")
			f.BoolVar(&exercises, "exercises", false, "those of drills, too")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("report takes no arguments, only flags: %q", args)
			}
			if format != "text" && format != "csv" && format != "json" {
				return usagef("--format %q is not one of text, csv, json", format)
			}
			query := url.Values{"by": {by}}
			for key, value := range map[string]string{"from": from, "to": to} {
				if value != "" {
					query.Set(key, value)
				}
			}
			if exercises {
				query.Set("exercises", "true")
			}
			var answer struct{ Reports summaries }
			if err := at.ask(ctx, http.MethodGet, "/api/v1/reports", query, nil, &answer); err != nil {
				return err
			}
			switch format {
			case "json":
				return jsonLine(env.stdout, answer.Reports)
			case "csv":
				text, err := answer.Reports.CSV()
				if err == nil {
					_, err = env.stdout.Write(text)
				}
				return err
			}
			table := columns{}
			table.add(answer.Reports.header()...)
			for i := range answer.Reports {
				table.add(answer.Reports[i].cells()...)
			}
			return table.write(env.stdout)
		},
	}
}
