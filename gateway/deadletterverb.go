package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

func deadLetterVerb() verb {
	return verb{
		name: "deadletter", args: "list|show|retry|drop",
		short: "what a running gateway could not use: look at it, take it in again, put it away",
		example: `haidang deadletter list --device kim-long
haidang deadletter show 17-0
haidang deadletter retry --reason unknown_kind`,
		verbs: []verb{letterListVerb(), letterShowVerb(), letterActVerb("retry"), letterActVerb("drop")},
		usual: "list",
	}
}

// A letterFilter chooses dead letters.
type letterFilter struct {
	device, reason string
	limit          int
}

func (l *letterFilter) flags(f *pflag.FlagSet) {
	f.StringVar(&l.device, "device", "", "only of this device")
	f.StringVar(&l.reason, "reason", "", "only with this reason, as bad_json")
	f.IntVar(&l.limit, "limit", 100, "at most so many, the newest first; 1 to 1000")
}

// tell says what is chosen, as the end of a sentence.
func (l *letterFilter) tell() (text string) {
	if l.device != "" {
		text += " of device " + plain(l.device)
	}
	if l.reason != "" {
		text += " with the reason " + plain(l.reason)
	}
	return text
}

func (l *letterFilter) ask(ctx context.Context, at *runningGateway, all bool) ([]letterState, error) {
	query := url.Values{"limit": {strconv.Itoa(l.limit)}}
	if l.device != "" {
		query.Set("device", l.device)
	}
	if l.reason != "" {
		query.Set("reason", l.reason)
	}
	if all {
		query.Set("state", "all")
	}
	var answer struct{ DeadLetters []letterState }
	err := at.ask(ctx, http.MethodGet, "/api/v1/deadletters", query, nil, &answer)
	return answer.DeadLetters, err
}

func letterListVerb() verb {
	var at runningGateway
	var filter letterFilter
	var all, asJSON bool
	return verb{
		name: "list", args: "[--device ID] [--reason WORD] [--all]",
		short: "the newest first",
		example: `haidang deadletter list
haidang deadletter list --device kim-long --reason bad_json`,
		flags: func(f *pflag.FlagSet) {
			filter.flags(f)
			f.BoolVar(&all, "all", false, "those too that were retried or dropped")
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("list takes no arguments, only flags: %q", args)
			}
			letters, err := filter.ask(ctx, &at, all)
			if err != nil {
				return err
			}
			if asJSON {
				return jsonLine(env.stdout, letters)
			}
			if len(letters) == 0 {
				_, err := fmt.Fprintf(env.stdout, "there are no dead letters%s\n", filter.tell())
				return err
			}
			table := columns{}
			table.add("ID", "AT", "FROM", "DEVICE", "REASON", "WHAT")
			for i := range letters {
				l := &letters[i]
				what := l.Detail
				if l.Settled != nil {
					what = fmt.Sprintf("[%s by %s] %s", l.Settled.Did, l.Settled.By, what)
				}
				table.add(l.ID, letterTime(l.At), clipped(l.Source, 20), dash(clipped(l.Device, 24)), clipped(l.Reason, 20), clipped(what, 90))
			}
			width, _ := terminalSize(env.stdout)
			return table.writeWithin(env.stdout, width)
		},
	}
}

func letterShowVerb() verb {
	var at runningGateway
	return verb{
		name: "show", args: "ID", short: "all of one, its bytes as text or in hex",
		example: "haidang deadletter show 17-0",
		flags:   at.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("show takes one id, not %q", args)
			}
			var l letterState
			if err := at.ask(ctx, http.MethodGet, "/api/v1/deadletters/"+url.PathEscape(args[0]), nil, nil, &l); err != nil {
				return err
			}
			return tellLetter(env.stdout, &l)
		},
	}
}

func tellLetter(out io.Writer, l *letterState) error {
	table := columns{}
	table.add("id", l.ID)
	table.add("at", clockTime(l.At))
	table.add("from", plain(l.Source))
	if l.Device != "" {
		table.add("device", plain(l.Device))
	}
	if l.Place != "" {
		table.add("place", plain(l.Place))
	}
	table.add("reason", plain(l.Reason))
	table.add("what", plain(l.Detail))
	if l.Settled != nil {
		table.add("done", fmt.Sprintf("%s by %s at %s", l.Settled.Did, plain(l.Settled.By), clockTime(l.Settled.At)))
	}
	if l.NoRetry != "" {
		table.add("retry", "not possible: "+plain(l.NoRetry))
	}
	table.add("bytes", strconv.Itoa(len(l.Bytes)))
	if err := table.write(out); err != nil {
		return err
	}
	text := hex.Dump(l.Bytes)
	if l.Text != "" {
		text = strings.TrimRight(l.Text, "\r\n") + "\n"
	}
	_, err := fmt.Fprintf(out, "\n%s", text)
	return err
}

func letterActVerb(do string) verb {
	var at runningGateway
	var filter letterFilter
	var sign signature
	var again bool
	short, done := "take the bytes in again, through the parser that refused them", "taken in"
	if do == "drop" {
		short, done = "put it away: it is not listed any more", "dropped"
	}
	return verb{
		name: do, args: "ID... | --device ID | --reason WORD",
		short:   short,
		example: fmt.Sprintf("haidang deadletter %s 17-0 17-1\nhaidang deadletter %s --device kim-long --reason unknown_kind", do, do),
		flags: func(f *pflag.FlagSet) {
			filter.flags(f)
			f.StringVar(&sign.by, "by", "", "who does it (default: who is logged in)")
			if do == "retry" {
				f.BoolVar(&again, "again", false, "also one whose retry was interrupted and may have come through")
			}
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			chosen := filter.device != "" || filter.reason != ""
			if (len(args) == 0) == !chosen {
				return usagef("%s takes ids, or --device or --reason", do)
			}
			if chosen {
				letters, err := filter.ask(ctx, &at, false)
				if err != nil {
					return err
				}
				for i := range letters {
					args = append(args, letters[i].ID)
				}
				if len(args) == 0 {
					_, err := fmt.Fprintf(env.stdout, "there are no dead letters%s\n", filter.tell())
					return err
				}
				slices.Reverse(args) // the oldest first, as they came
			}
			failed := 0
			for _, id := range args {
				body := map[string]any{"by": sign.who(), "again": again}
				if err := at.ask(ctx, http.MethodPost, "/api/v1/deadletters/"+url.PathEscape(id)+"/"+do, nil, body, nil); err != nil {
					failed++
					fmt.Fprintf(env.stderr, "%s: %s\n", id, plain(err.Error()))
					continue
				}
				fmt.Fprintf(env.stdout, "%s: %s\n", id, done)
			}
			if failed > 0 {
				return errors.New(tally(failed, "dead letter stays", "dead letters stay"))
			}
			return nil
		},
	}
}

func namesIn(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
