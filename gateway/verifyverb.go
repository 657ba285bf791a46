package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/influx"
	"haidang/gateway/spool"
)

// verifyPatience bounds a verification.
const verifyPatience = 10 * time.Minute

func verifyVerb() verb {
	var at runningGateway
	var from, to string
	var asJSON bool
	return verb{
		name: "verify", args: "[--from TIME] [--to TIME] [--data DIR]",
		short: "compare the log with InfluxDB: what is missing there, or too much",
		example: `haidang verify
haidang verify --from 2026-11-20T00:00:00+07:00 --to 2026-11-21T00:00:00+07:00`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&from, "from", "", "readings from this time on, by their own time; default: all that the log still has")
			f.StringVar(&to, "to", "", "readings before this time")
			f.BoolVar(&asJSON, "json", false, "print it as JSON")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("verify takes no arguments, only flags: %q", args)
			}
			begin, err1 := readTime(from)
			end, err2 := readTime(to)
			if err := errors.Join(err1, err2); err != nil {
				return usagef("%v", err)
			}
			ctx, cancel := context.WithTimeout(ctx, verifyPatience)
			defer cancel()
			v, err := at.verify(ctx, begin, end)
			if err != nil {
				return err
			}
			if asJSON {
				err = jsonLine(env.stdout, v)
			} else {
				err = v.tell(env.stdout)
			}
			if err == nil && !v.well() {
				err = fmt.Errorf("%d readings and %d transitions of warnings are missing in InfluxDB, %d points are too many", v.Missing, v.WarningsMissing, v.Extra)
			}
			return err
		},
	}
}

// verify asks the gateway that runs, or opens the folder of one that does not.
func (r *runningGateway) verify(ctx context.Context, from, to time.Time) (v *verification, err error) {
	data, err := r.folder()
	if err != nil {
		return nil, err
	}
	client, base, err := r.client(data)
	if err != nil {
		return nil, err
	}
	if client == nil {
		err = r.still(ctx, func(_ *Configuration, log *spool.Spool, store *influx.Store) (err error) {
			v, err = verify(ctx, log, store, from, to)
			return err
		})
		return v, err
	}
	query := url.Values{}
	for name, at := range map[string]time.Time{"from": from, "to": to} {
		if !at.IsZero() {
			query.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+verifyPath+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway to verify: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway to verify: %w", err)
	}
	defer response.Body.Close()
	v = &verification{}
	return v, readAnswer(verifyPath, response, v)
}

// tell prints it for people.
func (v *verification) tell(out io.Writer) error {
	table := columns{}
	if v.Logged > 0 {
		table.add("period", clockTime(v.From)+" to "+clockTime(v.To))
	}
	row := func(name string, n int, what string) {
		table.add(name, fmt.Sprint(n), what)
	}
	row("logged", v.Logged, "readings that the log still has and InfluxDB has accepted")
	row("stored", v.Stored, "of them are in InfluxDB")
	row("missing", v.Missing, "are not")
	row("set aside", v.SetAside, "were refused by InfluxDB: see haidang deadletter list")
	row("extra", v.Extra, "points of these devices and times that the log does not have")
	row("again", v.Again, "readings of a series and time that came before: the last one counts")
	row("pending", v.Pending, "readings that InfluxDB is still to get")
	row("warnings", v.WarningsLogged, fmt.Sprintf("transitions; %d missing in InfluxDB, %d pending", v.WarningsMissing, v.WarningsPending))
	if err := table.write(out); err != nil || len(v.Different) == 0 {
		return err
	}
	table = columns{}
	table.add("DEVICE", "KIND", "LOGGED", "MISSING", "EXTRA", "AT")
	for _, d := range v.Different {
		var times []string
		for _, at := range d.At {
			times = append(times, at.Format(time.RFC3339Nano))
		}
		table.add(clipped(d.Device, 40), clipped(d.Kind, 30), fmt.Sprint(d.Logged), fmt.Sprint(d.Missing), fmt.Sprint(d.Extra), strings.Join(times, " "))
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	return table.write(out)
}
