package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"haidang/gateway/registry"
	"haidang/gateway/telemetry"
)

// watchEvery is how often --watch asks again.
const watchEvery = 2 * time.Second

func devicesVerb() verb {
	return verb{
		name: "devices", args: "list|show|state|set|changes",
		short: "the devices of a running gateway: what is wrong with them, maintenance, changes of facts",
		example: `haidang devices list
haidang devices list --site hue --watch
haidang devices state kim-long maintenance --for 2h --why "lau đầu đo"`,
		verbs: []verb{devicesListVerb(), devicesShowVerb(), devicesStateVerb(), devicesSetVerb(), devicesChangesVerb()},
		usual: "list",
	}
}

func devicesListVerb() verb {
	var at runningGateway
	var site, owner string
	var wrong, asJSON, watch bool
	return verb{
		name: "list", args: "[--site SITE] [--owner OWNER] [--problems] [--watch]",
		short: "every device, what is wrong first",
		example: `haidang devices
haidang devices --problems --watch
haidang devices list --site hue --json`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&site, "site", "", "only devices of this site")
			f.StringVar(&owner, "owner", "", "only devices of this owner")
			f.BoolVar(&wrong, "problems", false, "only devices with a problem")
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
			f.BoolVar(&watch, "watch", false, "print it again every 2 s, until Ctrl-C")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("list takes no arguments, only flags: %q", args)
			}
			query := url.Values{}
			if site != "" {
				query.Set("site", site)
			}
			if owner != "" {
				query.Set("owner", owner)
			}
			show := func(ctx context.Context, out io.Writer) error {
				var answer struct{ Devices []deviceState }
				if err := at.ask(ctx, http.MethodGet, "/api/v1/devices", query, nil, &answer); err != nil {
					return err
				}
				if asJSON {
					return jsonLine(out, answer.Devices)
				}
				width, _ := terminalSize(env.stdout)
				return tableOfDevices(out, answer.Devices, wrong, width, time.Now())
			}
			if !watch {
				return show(ctx, env.stdout)
			}
			return watchIt(ctx, env.stdout, show)
		},
	}
}

// watchIt shows something again and again until ctx ends. On a terminal it
// replaces what it showed before, and shows what the terminal has room for: what
// is wrong first must not scroll away.
func watchIt(ctx context.Context, out io.Writer, show func(context.Context, io.Writer) error) error {
	file, ok := out.(*os.File)
	clear := ok && term.IsTerminal(int(file.Fd()))
	for {
		var b strings.Builder
		err := show(ctx, &b)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // the gateway may be restarted meanwhile
			fmt.Fprintf(&b, "%s  %v\n", time.Now().In(vietnam).Format("15:04:05"), err)
		}
		text := b.String()
		if clear {
			_, height := terminalSize(out)
			text = "\x1b[H\x1b[2J" + firstLines(text, height-1)
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
		if !clear {
			fmt.Fprintln(out)
		}
		if !wait(ctx, watchEvery) {
			return nil
		}
	}
}

// tableOfDevices writes the devices for a terminal that is so many cells wide, 0
// for none.
func tableOfDevices(out io.Writer, devices []deviceState, onlyWrong bool, width int, now time.Time) error {
	table := columns{}
	table.add("DEVICE", "NAME", "HEARD", "EVERY", "QUALITY", "LINK", "STATE", "PROBLEMS")
	wrong := 0
	for i := range devices {
		d := &devices[i]
		if len(d.Problems) > 0 {
			wrong++
		} else if onlyWrong {
			continue
		}
		heard, link, name := "-", "-", d.Name
		if d.Heard != nil {
			heard = ago(now.Sub(*d.Heard))
		}
		if d.Up != nil {
			link = map[bool]string{true: "up", false: "DOWN"}[*d.Up]
		}
		if d.Name == d.ID {
			name = ""
		}
		if !d.Registered {
			name = "(not registered)"
		}
		table.add(clipped(d.ID, 32), clipped(name, 28), heard, dash(d.Interval), dash(d.Quality), link, d.State, clipped(strings.Join(d.Problems, "; "), 100))
	}
	if len(table.rows) > 1 {
		if err := table.writeWithin(out, width); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%s, %s\n", tally(len(devices), "device", "devices"), tally(wrong, "with a problem", "with problems"))
	return err
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func devicesShowVerb() verb {
	var at runningGateway
	return verb{
		name: "show", args: "DEVICE", short: "all that is known of a device, as JSON",
		example: "haidang devices show kim-long",
		flags:   at.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("show takes one device, not %q", args)
			}
			var answer any
			if err := at.ask(ctx, http.MethodGet, "/api/v1/devices/"+url.PathEscape(args[0]), nil, nil, &answer); err != nil {
				return err
			}
			return jsonLine(env.stdout, answer)
		},
	}
}

// A signature is who changes something, and why.
type signature struct{ by, why string }

func (s *signature) flags(f *pflag.FlagSet) {
	f.StringVar(&s.by, "by", "", "who does it (default: who is logged in)")
	f.StringVar(&s.why, "why", "", "the reason; it is kept")
}

// who returns the name; by default of the person behind sudo, or the user.
func (s *signature) who() string {
	if s.by != "" {
		return s.by
	}
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func devicesStateVerb() verb {
	var at runningGateway
	var sign signature
	var value, last string
	return verb{
		name: "state", args: "DEVICE maintenance|calibrating|measuring --why TEXT [--for 2h] [--value NAME]",
		short: "say that a device is in maintenance or being calibrated, or measures again",
		example: `haidang devices state kim-long maintenance --for 2h --why "lau đầu đo"
haidang devices state kim-long calibrating --value level_m --by Lan --why "so với thước nước"
haidang devices state kim-long measuring --why xong`,
		flags: func(f *pflag.FlagSet) {
			sign.flags(f)
			f.StringVar(&last, "for", "", "how long; it ends by itself then (default: until measuring)")
			f.StringVar(&value, "value", "", "one of its values, as level_m (default: all of it)")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 2 {
				return usagef("state takes a device and one of maintenance, calibrating, measuring, not %q", args)
			}
			if sign.why == "" {
				return usagef("--why is missing: the reason")
			}
			body := map[string]any{"state": args[1], "by": sign.who(), "why": sign.why}
			if value != "" {
				body["value"] = value
			}
			if last != "" {
				if _, err := telemetry.ParseDuration(last); err != nil {
					return usagef("--for: %v", err)
				}
				body["for"] = last
			}
			var d deviceState
			if err := at.ask(ctx, http.MethodPost, "/api/v1/devices/"+url.PathEscape(args[0])+"/state", nil, body, &d); err != nil {
				return err
			}
			return tellState(env.stdout, &d)
		},
	}
}

func tellState(out io.Writer, d *deviceState) error {
	text := "measuring"
	if d.Period != nil {
		text = d.Period.tell("").EN
	}
	_, err := fmt.Fprintf(out, "%s: %s\n", d.ID, plain(text))
	for _, value := range slices.Sorted(maps.Keys(d.ValuePeriods)) {
		p := d.ValuePeriods[value]
		fmt.Fprintf(out, "%s of %s: %s\n", value, d.ID, plain(p.tell("").EN))
	}
	return err
}

func devicesSetVerb() verb {
	var at runningGateway
	var sign signature
	return verb{
		name: "set", args: "DEVICE NAME=VALUE... --why TEXT",
		short: "change facts of a device, its name, owner, interval, lat or lon; NAME= puts back what devices.yaml says",
		example: `haidang devices set kim-long alarm2_m=2.10 --why "QĐ 05/2026"
haidang devices set kim-long name="Trạm Kim Long" interval=5m --by Lan --why "lắp máy mới"
haidang devices set kim-long alarm2_m= --why "đã ghi vào devices.yaml"`,
		flags: func(f *pflag.FlagSet) { sign.flags(f); at.flags(f) },
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) < 2 {
				return usagef("set takes a device and at least one NAME=VALUE, not %q", args)
			}
			if sign.why == "" {
				return usagef("--why is missing: the reason")
			}
			body, err := settings(args[1:])
			if err != nil {
				return err
			}
			body["by"], body["why"] = sign.who(), sign.why
			var d deviceState
			if err := at.ask(ctx, http.MethodPatch, "/api/v1/devices/"+url.PathEscape(args[0]), nil, body, &d); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s: %s; in force now and after a restart\n", d.ID, tally(len(d.Changed), "value differs from devices.yaml", "values differ from devices.yaml"))
			return err
		},
	}
}

// settings reads NAME=VALUE; names that are not the device's own are facts.
func settings(args []string) (map[string]any, error) {
	body, facts := map[string]any{}, map[string]any{}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, usagef("%q is not NAME=VALUE", arg)
		}
		into, isFact := facts, true
		switch name {
		case "name", "owner", "interval", "lat", "lon":
			into, isFact = body, false
		case "id", "site", "kinds", "facts", "quality", "calibration":
			return nil, usagef("%s cannot be changed while the gateway runs: change it in devices.yaml and reload; a fact of that name is facts.%s", name, name)
		}
		name = strings.TrimPrefix(name, "facts.")
		number, err := strconv.ParseFloat(text, 64)
		switch {
		case text == "":
			into[name] = nil
		case (isFact || name == "lat" || name == "lon") && err == nil && telemetry.Finite(number):
			into[name] = number
		case isFact && (text == "true" || text == "false"):
			into[name] = text == "true"
		default:
			into[name] = text
		}
	}
	if len(facts) > 0 {
		body["facts"] = facts
	}
	return body, nil
}

func devicesChangesVerb() verb {
	var at runningGateway
	var limit int
	var asJSON bool
	return verb{
		name: "changes", args: "DEVICE", short: "who changed what of a device, when and why",
		example: "haidang devices changes kim-long",
		flags: func(f *pflag.FlagSet) {
			f.IntVar(&limit, "limit", 100, "at most so many, the newest first")
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("changes takes one device, not %q", args)
			}
			var answer struct{ Changes []registry.Audit }
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if err := at.ask(ctx, http.MethodGet, "/api/v1/devices/"+url.PathEscape(args[0])+"/changes", query, nil, &answer); err != nil {
				return err
			}
			if asJSON {
				return jsonLine(env.stdout, answer.Changes)
			}
			if len(answer.Changes) == 0 {
				_, err := fmt.Fprintf(env.stdout, "nothing of %s was changed at run time\n", args[0])
				return err
			}
			table := columns{}
			table.add("AT", "BY", "WHAT", "WHY")
			for i := range answer.Changes {
				a := &answer.Changes[i]
				table.add(clockTime(a.At), clipped(a.By, 24), clipped(whatChanged(a), 60), clipped(a.Why, 80))
			}
			width, _ := terminalSize(env.stdout)
			return table.writeWithin(env.stdout, width)
		},
	}
}

func whatChanged(a *registry.Audit) string {
	if a.State != "" {
		text := a.State
		if a.Value != "" {
			text = a.Value + " " + text
		}
		if a.Until != nil {
			text += " until " + a.Until.In(vietnam).Format("15:04 02/01")
		}
		return text
	}
	var parts []string
	for _, name := range namesIn(a.Set) {
		if a.Set[name] == nil {
			parts = append(parts, name+" as in devices.yaml")
		} else {
			parts = append(parts, fmt.Sprintf("%s=%v", name, a.Set[name]))
		}
	}
	return strings.Join(parts, ", ")
}
