package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/account"
	"haidang/gateway/telemetry"
)

func accountVerb() verb {
	return verb{
		name: "account", args: "add|list|set|remove|rotate|passwd|lock|unlock|token|untoken",
		short: "who may do what: devices, programs and people; a running gateway follows within a second",
		example: `haidang account add kim-long --role station
haidang account add lan --role operator
haidang account list`,
		verbs: []verb{accountAddVerb(), accountListVerb(), accountSetVerb(), accountRemoveVerb(), accountRotateVerb(), accountPasswdVerb(),
			accountLockVerb("lock", true), accountLockVerb("unlock", false), accountTokenVerb(), accountUntokenVerb()},
	}
}

// An accountPlace is the flags that say which file of accounts is meant.
type accountPlace struct {
	configuration, data string
	json                bool
}

func (p *accountPlace) flags(f *pflag.FlagSet) {
	f.StringVar(&p.configuration, "config", "", "the configuration of the gateway whose accounts these are")
	f.StringVar(&p.data, "data", "", "its data folder (default: that of the configuration, else ./haidang-data)")
	f.BoolVar(&p.json, "json", false, "answer with JSON")
}

// file is the file of accounts. The rest of the configuration may have faults:
// one of them may be that there are no accounts yet.
func (p *accountPlace) file() (string, error) {
	_, file, err := p.settings()
	return file, err
}

// settings is the configuration, as far as it is about accounts, and their file.
func (p *accountPlace) settings() (cfg Configuration, file string, err error) {
	cfg = defaults()
	if p.configuration != "" {
		doc, err := folder{dir: filepath.Dir(p.configuration)}.open(filepath.Base(p.configuration))
		if err != nil {
			return cfg, "", err
		}
		if faults := doc.Decode(&cfg); len(faults) > 0 {
			return cfg, "", faults
		}
	}
	if p.data != "" {
		cfg.Data = p.data
	}
	file = cfg.accountsFile()
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return cfg, "", fmt.Errorf("make the folder of the accounts: %w", err)
	}
	return cfg, file, nil
}

// edit changes the accounts.
func (p *accountPlace) edit(ctx context.Context, change func(*account.Book) error) error {
	cfg, file, err := p.settings()
	if err != nil {
		return err
	}
	if err := cfg.accountsElsewhere(ctx); err != nil {
		return err
	}
	err = notingAccounts(cfg.Data, file, new(signature).who(), func() error { return account.Edit(file, change) })
	if faults, ok := errors.AsType[account.Faults](err); ok {
		return asFaults(file, faults)
	}
	return err
}

// accountsElsewhere refuses a change of accounts on a machine of a centre that takes
// them from another: nobody would share it, and the next change there undoes it. What
// runs knows best; the roles may be told by a flag. Where nothing runs the configuration
// counts.
func (c *Configuration) accountsElsewhere(ctx context.Context) error {
	if c.Accounts.File != "" {
		return nil // it is this machine's own
	}
	var h health
	running := runningGateway{data: c.Data}
	roles, where := c.Roles, "the machine that has the part ioc"
	if err := running.ask(ctx, http.MethodGet, "/api/v1/health", nil, nil, &h); err == nil {
		if roles = h.Roles; slices.ContainsFunc(h.Parts, func(p partHealth) bool { return p.Part == roleIOC && p.Here }) {
			return nil
		}
		if h.Centre != "" {
			where += ", " + h.Centre
		}
	} else if c.has(roleIOC) {
		return nil
	}
	if len(roles) == 0 {
		return nil
	}
	return fmt.Errorf("nothing was changed: accounts are changed on %s; this machine (roles %s) takes them over from it within seconds", where, strings.Join(roles, ", "))
}

// one returns the only argument of a verb.
func one(args []string, what string) (string, error) {
	if len(args) != 1 {
		return "", usagef("want one %s, not %q", what, args)
	}
	return args[0], nil
}

// tell prints an answer for people, or as JSON.
func (p *accountPlace) tell(env environment, answer any, text string, args ...any) error {
	if p.json {
		encoder := json.NewEncoder(env.stdout)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(answer)
	}
	_, err := fmt.Fprintf(env.stdout, text, args...)
	return err
}

// A secretAnswer is what a verb that makes a secret tells.
type secretAnswer struct {
	Account string         `json:"account"`
	Role    telemetry.Role `json:"role,omitempty"`
	Secret  string         `json:"secret,omitempty"`
	Token   string         `json:"token,omitempty"`
	Good    string         `json:"previous_until,omitempty"`
}

func accountAddVerb() verb {
	var p accountPlace
	var r account.Record
	var role, limits string
	var bare bool
	return verb{
		name: "add", args: "NAME --role ROLE",
		short: "make an account; the secret of a device or program is shown once, a person is asked for a password",
		example: `haidang account add kim-long --role station
haidang account add lora --role integrator --device 'lora-*'
haidang account add kim-long-box --role gateway --device '*'
haidang account add tasmota-7 --role station --publish 'tele/{account}/#'
haidang account add lan --role operator < password.txt`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&role, "role", "", "station, vessel, integrator, gateway, reader, viewer, operator, author or administrator")
			rightsFlags(f, &r, &limits)
			f.BoolVar(&bare, "no-secret", false, "none: it comes with a certificate or with tokens")
			p.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) (err error) {
			if r.Name, err = one(args, "name"); err != nil {
				return err
			}
			r.Role = telemetry.Role(role)
			if !slices.Contains(telemetry.Roles(), r.Role) {
				return usagef("--role %q is not one of %v", role, telemetry.Roles())
			}
			if err := parseLimits(&r.Limits, limits); err != nil {
				return err
			}
			password := ""
			if r.Role.Person() && !bare {
				if password, err = readPassword(env, r.Name); err != nil {
					return err
				}
			}
			secret := ""
			if err := p.edit(ctx, func(b *account.Book) error {
				secret, err = b.Add(r, password, !bare)
				return err
			}); err != nil {
				return err
			}
			return p.tell(env, secretAnswer{Account: r.Name, Role: r.Role, Secret: secret}, "%s", added(&r, secret))
		},
	}
}

// rightsFlags are the flags of what an account may do.
func rightsFlags(f *pflag.FlagSet, r *account.Record, limits *string) {
	f.StringArrayVar(&r.Devices, "device", nil, "a device that it may speak for, * for any run of characters; may be repeated (default: the one of its name)")
	f.StringArrayVar(&r.Publish, "publish", nil, "a filter of topics that it may publish on besides those of its role; {account} and {device} are levels")
	f.StringArrayVar(&r.Subscribe, "subscribe", nil, "a filter of topics that it may read besides those of its role")
	f.StringVar(limits, "limits", "", "such as messages_per_s=50,connections=2 (default: those of its role)")
	f.StringVar(&r.Note, "note", "", "for people")
}

func accountSetVerb() verb {
	var p accountPlace
	var r account.Record
	var limits string
	var given *pflag.FlagSet
	return verb{
		name: "set", args: "NAME [--device D] [--publish F] [--subscribe F] [--limits L] [--note T]",
		short: "change what an account may do; what is given replaces what was, and its sessions end",
		example: `haidang account set lora --device 'lora-*' --device 'ttn-*'
haidang account set kim-long --limits messages_per_s=1000`,
		flags: func(f *pflag.FlagSet) {
			given = f
			rightsFlags(f, &r, &limits)
			p.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			name, err := one(args, "name")
			if err != nil {
				return err
			}
			if err := parseLimits(&r.Limits, limits); err != nil {
				return err
			}
			if err := p.edit(ctx, func(b *account.Book) error {
				return b.Set(name, func(old *account.Record) {
					for flag, set := range map[string]func(){
						"device": func() { old.Devices = r.Devices }, "publish": func() { old.Publish = r.Publish },
						"subscribe": func() { old.Subscribe = r.Subscribe }, "limits": func() { old.Limits = r.Limits }, "note": func() { old.Note = r.Note },
					} {
						if given.Changed(flag) {
							set()
						}
					}
				})
			}); err != nil {
				return err
			}
			return p.tell(env, secretAnswer{Account: name}, "Account %s is changed.\n", name)
		},
	}
}

// added tells what became of an account.
func added(r *account.Record, secret string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Account %s (%s) is made.\n", r.Name, r.Role)
	if secret == "" {
		return b.String()
	}
	fmt.Fprintf(&b, "  secret  %s   (shown this once; write it down now)\n", secret)
	if r.Role == telemetry.RoleStation || r.Role == telemetry.RoleVessel {
		fmt.Fprintf(&b, "  try     mosquitto_pub -q 1 -u %s -P %s -t telemetry/%s/river -m '{\"level_m\":3.62}'\n", r.Name, secret, r.Name)
	}
	if r.Role == telemetry.RoleGateway {
		fmt.Fprintf(&b, "  there   uplink: {url: \"https://<this console>\", secret: %s}   in its gateway.yaml\n", secret)
	}
	return b.String()
}

func accountRemoveVerb() verb {
	var p accountPlace
	return verb{
		name: "remove", args: "NAME",
		short:   "take an account away; its sessions end",
		example: "haidang account remove kim-long",
		flags:   p.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			name, err := one(args, "name")
			if err != nil {
				return err
			}
			if err := p.edit(ctx, func(b *account.Book) error { return b.Remove(name) }); err != nil {
				return err
			}
			return p.tell(env, secretAnswer{Account: name}, "Account %s is gone.\n", name)
		},
	}
}

func accountRotateVerb() verb {
	var p accountPlace
	keep := "0s"
	return verb{
		name: "rotate", args: "NAME [--keep 24h]",
		short:   "give a device or program a new secret, shown once; its sessions end",
		example: "haidang account rotate kim-long --keep 7d",
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&keep, "keep", keep, "for how long the old secret stays good, so that the device can be changed in peace")
			p.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			name, err := one(args, "name")
			if err != nil {
				return err
			}
			good, err := telemetry.ParseDuration(keep)
			if err != nil || good < 0 {
				return usagef("--keep %q is not a duration such as 24h or 7d", keep)
			}
			answer := secretAnswer{Account: name}
			if err := p.edit(ctx, func(b *account.Book) (err error) {
				answer.Secret, err = b.Rotate(name, good.Std())
				return err
			}); err != nil {
				return err
			}
			text := "The old one is good no more."
			if good > 0 {
				answer.Good = time.Now().Add(good.Std()).UTC().Format(time.RFC3339)
				text = "The old one is good until " + answer.Good + "."
			}
			return p.tell(env, answer, "Account %s has a new secret. %s\n  secret  %s   (shown this once; write it down now)\n", name, text, answer.Secret)
		},
	}
}

func accountPasswdVerb() verb {
	var p accountPlace
	return verb{
		name: "passwd", args: "NAME",
		short:   "give a person a new password, asked for or read from standard input; all sessions end",
		example: "haidang account passwd lan",
		flags:   p.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			name, err := one(args, "name")
			if err != nil {
				return err
			}
			password, err := readPassword(env, name)
			if err != nil {
				return err
			}
			if err := p.edit(ctx, func(b *account.Book) error { return b.SetPassword(name, password) }); err != nil {
				return err
			}
			return p.tell(env, secretAnswer{Account: name}, "The password of %s is changed.\n", name)
		},
	}
}

func accountLockVerb(act string, lock bool) verb {
	var p accountPlace
	short := "let an account in again"
	if lock {
		short = "let an account in no more, without taking it away; its sessions end"
	}
	return verb{
		name: act, args: "NAME", short: short, example: "haidang account " + act + " kim-long", flags: p.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			name, err := one(args, "name")
			if err != nil {
				return err
			}
			if err := p.edit(ctx, func(b *account.Book) error { return b.SetDisabled(name, lock) }); err != nil {
				return err
			}
			return p.tell(env, secretAnswer{Account: name}, "Account %s is %sed.\n", name, act)
		},
	}
}

func accountTokenVerb() verb {
	var p accountPlace
	var rights []string
	expires := "90d"
	return verb{
		name: "token", args: "NAME [--right read] [--expires 90d]",
		short: "make a token, with which a program acts for an account over HTTP; shown once",
		example: `haidang account token grafana --right read --expires 365d
curl -H 'Authorization: Bearer hd1_...' http://127.0.0.1:8080/api/v1/warnings`,
		flags: func(f *pflag.FlagSet) {
			f.StringArrayVar(&rights, "right", nil, "read, write, operate, rule or administer; may be repeated (default: all that the account has)")
			f.StringVar(&expires, "expires", expires, "for how long it is good; never is for ever")
			p.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			name, err := one(args, "name")
			if err != nil {
				return err
			}
			life := telemetry.Duration(0)
			if expires != "never" {
				if life, err = telemetry.ParseDuration(expires); err != nil || life <= 0 {
					return usagef("--expires %q is not a duration such as 90d, or never", expires)
				}
			}
			list := make([]telemetry.Right, len(rights))
			for i, right := range rights {
				list[i] = telemetry.Right(right)
			}
			answer := secretAnswer{Account: name}
			if err := p.edit(ctx, func(b *account.Book) (err error) {
				answer.Token, err = b.AddToken(name, list, life.Std())
				return err
			}); err != nil {
				return err
			}
			return p.tell(env, answer, "A token for %s is made.\n  token   %s   (shown this once; write it down now)\n", name, answer.Token)
		},
	}
}

func accountUntokenVerb() verb {
	var p accountPlace
	return verb{
		name: "untoken", args: "NAME ID",
		short:   "take a token away, by the id that list shows",
		example: "haidang account untoken grafana k3cq7zj2mwxa",
		flags:   p.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 2 {
				return usagef("want a name and the id of a token, not %q", args)
			}
			if err := p.edit(ctx, func(b *account.Book) error { return b.RemoveToken(args[0], args[1]) }); err != nil {
				return err
			}
			return p.tell(env, secretAnswer{Account: args[0]}, "Token %s of %s is gone.\n", args[1], args[0])
		},
	}
}
