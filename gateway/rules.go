package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// rulesVerb is the group of verbs for people who write rules.
func rulesVerb() verb {
	return verb{
		name: "rules", args: "test|backtest|check|init|explain|history|export|revert",
		short: "for authors of rules: test them, try them on the past, check, begin, explain a warning",
		example: `haidang rules init station
haidang rules test station/rules`,
		verbs: []verb{rulesTestVerb(), rulesBacktestVerb(), rulesCheckVerb(), rulesInitVerb(), rulesExplainVerb(),
			rulesHistoryVerb(), rulesExportVerb(), rulesRevertVerb()},
	}
}

// choose executes the verb of a group that the first argument names.
func (v verb) choose(ctx context.Context, env environment, args []string) int {
	help := len(args) > 0 && (args[0] == "--help" || args[0] == "-h")
	if !help {
		args = v.verbFirst(args)
	}
	if v.usual != "" && !help && (len(args) == 0 || strings.HasPrefix(args[0], "-")) {
		args = append([]string{v.usual}, args...)
	}
	if len(args) == 0 {
		fmt.Fprint(env.stderr, v.choice())
		return exitUsage
	}
	if args[0] == "help" && len(args) > 1 {
		args = append(args[1:], "--help")
	}
	switch args[0] {
	case "help", "--help", "-h":
		fmt.Fprint(env.stdout, v.choice())
		return exitWell
	}
	for _, one := range v.verbs {
		if one.name == args[0] {
			one.name = v.name + " " + one.name
			return one.execute(ctx, env, args[1:])
		}
	}
	fmt.Fprintf(env.stderr, "haidang %s: %q is not one of the verbs\n\n%s", v.name, args[0], v.choice())
	return exitUsage
}

// verbFirst puts the verb before flags that were typed before it, as in
// haidang warnings --data DIR list: a flag can be what several verbs of the group
// have, and which of them take a value only they know.
func (v verb) verbFirst(args []string) []string {
	if len(args) == 0 || !strings.HasPrefix(args[0], "-") {
		return args
	}
	for i, word := range args {
		if word == "--" {
			return args
		}
		for _, one := range v.verbs {
			if one.name == word && !v.takesValue(args[:i]) {
				return slices.Concat([]string{word}, args[:i], args[i+1:])
			}
		}
	}
	return args
}

// takesValue reports whether the word after these ones is the value of a flag of
// one of the group's verbs.
func (v verb) takesValue(before []string) bool {
	name, isFlag := strings.CutPrefix(before[len(before)-1], "--")
	if !isFlag || strings.Contains(name, "=") {
		return false
	}
	for _, one := range v.verbs {
		flags := pflag.NewFlagSet(one.name, pflag.ContinueOnError)
		if one.flags != nil {
			one.flags(flags)
		}
		if f := flags.Lookup(name); f != nil && f.NoOptDefVal == "" || one.verbs != nil && one.takesValue(before) {
			return true
		}
	}
	return false
}

// choice lists the verbs of a group.
func (v verb) choice() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", v.short)
	for _, one := range v.verbs {
		fmt.Fprintf(&b, "  haidang %s %-9s %s\n", v.name, one.name, one.short)
	}
	fmt.Fprintf(&b, "\nhaidang %s VERB --help tells more.\n\nFor example:\n%s\n", v.name, indent(v.example))
	return b.String()
}
