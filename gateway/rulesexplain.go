package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/telemetry"
)

func rulesExplainVerb() verb {
	var from explained
	var asJSON bool
	return verb{
		name: "explain", args: "[--data DIR|--config FILE|--address HOST:PORT] [ID]",
		short: "tell the story of a warning of a running gateway; without an id, list the warnings",
		example: `haidang rules explain
haidang rules explain kim-long-flood-level-3f9a
haidang rules explain --address 10.0.0.5:8080 --json kim-long-flood-level-3f9a`,
		flags: func(f *pflag.FlagSet) {
			from.at.flags(f)
			f.StringVar(&from.address, "address", "", "ask a gateway elsewhere, whose console listens here and has no accounts")
			f.BoolVar(&asJSON, "json", false, "print what the gateway answers")
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 1 {
				return usagef("explain takes one id, not %q", args)
			}
			if len(args) == 0 {
				return from.list(ctx, env.stdout)
			}
			var answer struct{ Transitions []telemetry.Transition }
			if err := from.get(ctx, "/api/v1/warnings/"+url.PathEscape(args[0])+"/history", &answer); err != nil {
				return err
			}
			if asJSON {
				return jsonLine(env.stdout, answer.Transitions)
			}
			return tellStory(env.stdout, answer.Transitions)
		},
	}
}

// explained is the gateway whose warnings are explained: the one that runs on a
// data folder, or one at an address.
type explained struct {
	at      runningGateway
	address string
}

// askTime bounds one question to a gateway, maxAnswer its answer.
const (
	askTime   = 30 * time.Second
	maxAnswer = 64 << 20
)

func (e *explained) get(ctx context.Context, path string, into any) error {
	if e.address == "" {
		return e.at.ask(ctx, http.MethodGet, path, nil, nil, into)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	base := "http://" + e.address
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", base, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("no gateway answers at %s (is it running?): %w", base, err)
	}
	defer response.Body.Close()
	if err := readAnswer(path, response, into); err != nil {
		return fmt.Errorf("%s: %w", base, err)
	}
	return nil
}

// list prints the warnings that are not cleared, with their ids.
func (e *explained) list(ctx context.Context, out io.Writer) error {
	var answer struct{ Warnings []telemetry.Warning }
	if err := e.get(ctx, "/api/v1/warnings", &answer); err != nil {
		return err
	}
	for _, w := range answer.Warnings {
		fmt.Fprintf(out, "%s  %s  %-8s  %-12s  %s\n", w.ID, clockTime(w.Start), w.Severity, w.State, w.Message.EN)
	}
	if len(answer.Warnings) == 0 {
		fmt.Fprintln(out, "no warning is active")
	}
	return nil
}

func clockTime(t time.Time) string { return t.In(vietnam).Format("2006-01-02 15:04:05") }

// tellStory prints a warning from its raise to where it stands.
func tellStory(out io.Writer, list []telemetry.Transition) error {
	if len(list) == 0 {
		return fmt.Errorf("the gateway knows no transition of this warning")
	}
	first, last := &list[0], &list[len(list)-1]
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s: %s", last.Rule, last.Device, last.State)
	if last.State != telemetry.Cleared {
		fmt.Fprintf(&b, ", %s", last.Severity)
	}
	until := "until now"
	if i := slices.IndexFunc(list, over); i >= 0 {
		until = "for " + list[i].At.Sub(last.Start).Round(time.Second).String()
	}
	fmt.Fprintf(&b, "; raised %s, %s\n", clockTime(last.Start), until)
	fmt.Fprintf(&b, "  %s\n  %s\n\n", last.Message.VI, last.Message.EN)
	line := func(key, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-10s %s\n", key, text)
		}
	}
	line("id", last.ID)
	line("rule", named(last))
	line("condition", last.Expression)
	line("saw", saw(last))
	line("source", sources(last))
	if last.Site != last.Device {
		line("site", last.Site)
	}
	to := "all recipients"
	if len(last.To) > 0 {
		to = strings.Join(last.To, ", ")
	}
	line("goes to", to)
	if last.Latch {
		line("latched", "it stands until somebody has acknowledged it")
	}
	if last.Flapping {
		line("flapping", "it changed too often, and stays as it is until it is quiet")
	}
	if first.N > 1 {
		fmt.Fprintf(&b, "\nthe first %s of this warning are not in the log any more\n", count(first.N-1, "transition"))
	}
	b.WriteString("\n")
	before := ""
	for i := range list {
		t := &list[i]
		fmt.Fprintf(&b, "%3d  %s  %-12s  %-8s  %s\n", t.N, clockTime(t.At), t.State, t.Severity, why(t, &before))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// over reports whether the condition of a warning does not hold any more.
func over(t telemetry.Transition) bool {
	return t.State == telemetry.Cleared || t.State == telemetry.Returned
}

func named(t *telemetry.Transition) string {
	text := t.Rule
	if t.Kind != "" {
		text += " on " + t.Kind
	}
	if t.RuleVersion != "" {
		text += " (version " + t.RuleVersion + ")"
	}
	return text
}

// saw tells the values that the rule saw, their quality and the threshold.
func saw(t *telemetry.Transition) string {
	names := sortedNames(t.Values)
	var words []string
	for _, name := range names {
		word := name + " = " + shortNumber(t.Values[name])
		if q := t.Quality[name]; q != telemetry.Good {
			word += " (" + q.String() + ")"
		}
		words = append(words, word)
	}
	for _, name := range sortedNames(t.Quality) {
		if !slices.Contains(names, name) {
			words = append(words, name+" is "+t.Quality[name].String())
		}
	}
	if t.Threshold != nil {
		words = append(words, "threshold "+shortNumber(*t.Threshold))
	}
	return strings.Join(words, ", ")
}

// sources tells who delivered what the rule saw.
func sources(t *telemetry.Transition) string {
	text := t.Source
	for _, kind := range sortedNames(t.Sources) {
		if text != "" {
			text += ", "
		}
		text += kind + " from " + t.Sources[kind]
	}
	return text
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func shortNumber(f float64) string { return strconv.FormatFloat(f, 'g', 6, 64) }

// why tells what brought a transition about: an operator with his words, or the
// condition (when it is another than before) and what the rule saw.
func why(t *telemetry.Transition, before *string) string {
	if a := t.Act; a != nil {
		text := fmt.Sprintf("%s by %s", a.Do, a.By)
		if a.To != "" {
			text += " to " + a.To
		}
		if a.Until != nil {
			text += " until " + clockTime(*a.Until)
		}
		if a.Text != "" {
			text += ": " + strconv.Quote(a.Text)
		}
		return text
	}
	text := saw(t)
	if t.Expression != "" && t.Expression != *before && t.State != telemetry.Cleared {
		text += "  [" + t.Expression + "]"
		*before = t.Expression
	}
	return text
}

// A historian finds the transitions of a warning.
type historian struct {
	from *annals
	turn chan struct{} // one reads the log at a time
}

// maxHistory bounds the transitions of a warning that are told: the newest.
const maxHistory = 1000

func newHistorian(from *annals) *historian {
	return &historian{from: from, turn: make(chan struct{}, 1)}
}

// of returns the transitions of a warning, the oldest first.
func (h *historian) of(ctx context.Context, id string) ([]telemetry.Transition, error) {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, askTime/2)
	defer cancel()
	mark, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("look for warning %q: %w", id, err)
	}
	var found []telemetry.Transition
	err = h.from.each(ctx, time.Time{}, mark, func(t telemetry.Transition) {
		if t.ID != id || len(found) > 0 && t.N <= found[len(found)-1].N {
			return
		}
		if len(found) == maxHistory {
			found = append(found[:0], found[1:]...)
		}
		found = append(found, t)
	})
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil && (len(found) == 0 || found[0].N != 1) { // else the damage is elsewhere
		return nil, fmt.Errorf("read the history of warning %q: %w", id, err)
	}
	return found, nil
}
