package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/config"
)

// Exit codes.
const (
	exitWell   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or configuration
)

// An environment is what a verb has of the world besides its arguments.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	reload         <-chan os.Signal
	wall           func() time.Time // the clock of a machine with roles; nil: time.Now
}

// A verb is one of the things haidang does.
type verb struct {
	name, args, short string
	example           string
	flags             func(*pflag.FlagSet)
	run               func(ctx context.Context, env environment, args []string) error
	verbs             []verb // of a verb that is a group: the first argument chooses one
	usual             string // of a group: the one that is meant when none is named
}

// errUsage says that the command line is wrong.
type errUsage struct{ what string }

func (e errUsage) Error() string { return e.what }

func usagef(format string, args ...any) error { return errUsage{fmt.Sprintf(format, args...)} }

// verbs are made anew for each execution: their flags are their own.
func verbs() []verb {
	return []verb{runVerb(), demoVerb(), checkVerb(), replayVerb(), decodeVerb(), mappingVerb(), rulesVerb(), warningsVerb(), routeVerb(), drillVerb(), recipientsVerb(), auditVerb(), devicesVerb(), modbusVerb(), deadLetterVerb(), healthVerb(), doctorVerb(), accountVerb(), certVerb(), backupVerb(), restoreVerb(), verifyVerb(), versionVerb()}
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, env environment, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(env.stderr, overview())
		return exitUsage
	}
	switch args[0] {
	case "help", "--help", "-h":
		if len(args) == 1 || args[0] != "help" {
			fmt.Fprint(env.stdout, overview())
			return exitWell
		}
		args = append(args[1:], "--help")
	case "--version":
		args[0] = "version"
	}
	for _, v := range verbs() {
		if v.name == args[0] {
			return v.execute(ctx, env, args[1:])
		}
	}
	fmt.Fprintf(env.stderr, "haidang: %q is not one of the verbs\n\n%s", args[0], overview())
	return exitUsage
}

func (v verb) execute(ctx context.Context, env environment, args []string) int {
	if v.verbs != nil {
		return v.choose(ctx, env, args)
	}
	flags := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.SortFlags = false
	if v.flags != nil {
		v.flags(flags)
	}
	err := flags.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprint(env.stdout, v.help(flags))
		return exitWell
	}
	if err != nil {
		err = usagef("%v", err)
	} else {
		err = v.run(ctx, env, flags.Args())
	}
	return report(env, v.name, err)
}

// report tells an error and returns the exit code for it.
func report(env environment, name string, err error) int {
	var usage errUsage
	var faults config.Faults
	switch {
	case err == nil:
		return exitWell
	case errors.As(err, &usage):
		fmt.Fprintf(env.stderr, "haidang %s: %s\nSee haidang %s --help\n", name, usage.what, name)
		return exitUsage
	case errors.As(err, &faults):
		fmt.Fprintln(env.stderr, faults.Error())
		if len(faults) == 1 {
			fmt.Fprintln(env.stderr, "1 fault; nothing was started")
		} else {
			fmt.Fprintf(env.stderr, "%d faults; nothing was started\n", len(faults))
		}
		return exitUsage
	}
	fmt.Fprintf(env.stderr, "haidang %s: %v\n", name, err)
	return exitFailed
}

func overview() string {
	var b strings.Builder
	b.WriteString("Hải Đăng takes readings in, keeps them, and warns.\n\n  haidang VERB [--flag value]\n\n")
	for _, v := range verbs() {
		fmt.Fprintf(&b, "  %-11s %s\n", v.name, v.short)
	}
	b.WriteString("\nhaidang VERB --help tells more and gives an example.\n")
	return b.String()
}

func (v verb) help(flags *pflag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n  %s\n", v.short, strings.TrimSpace("haidang "+v.name+" "+v.args))
	if usage := flags.FlagUsages(); usage != "" {
		fmt.Fprintf(&b, "\n%s", usage)
	}
	fmt.Fprintf(&b, "\nFor example:\n%s\n", indent(v.example))
	return b.String()
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

func versionVerb() verb {
	return verb{
		name: "version", short: "print the version", example: "haidang version",
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("version takes no arguments")
			}
			_, err := fmt.Fprintf(env.stdout, "haidang %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
