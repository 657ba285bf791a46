package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"haidang/gateway/ioc"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/route"
	"haidang/gateway/telemetry"
	"haidang/rules"
)

// outside is the part of the configuration that a reload puts in force beside rules
// and devices: who is told, and in which words.
type outside struct {
	ioc    []ioc.Config
	routes []route.Config
	cap    cap.Config
}

// repost puts the recipients, routes and words of a configuration in force. They
// have been validated; what can fail is only the log, before anything is changed.
func (g *instance) repost(ctx context.Context, cfg *Configuration, e auditEntry) error {
	before, after := g.outside, outside{cfg.IOC, cfg.Routes, cfg.CAP}
	changes := []string{}
	if !reflect.DeepEqual(before.cap, after.cap) {
		// How others know us, and who may read the feed, is settled at the start:
		// references of a chain name the sender.
		after.cap.Sender, after.cap.Feed.Public = before.cap.Sender, before.cap.Feed.Public
		g.out.bulletins.Composer.Configure(after.cap)
		changes = append(changes, "the words of CAP messages are changed")
	}
	changed, err := g.out.post.change(ctx, after.ioc)
	if err != nil {
		return err
	}
	changes = append(changes, changed...)
	if !reflect.DeepEqual(before.routes, after.routes) || len(changed) > 0 {
		g.setRoutes(after.routes, g.out.post.names(), true)
	}
	if !reflect.DeepEqual(before.routes, after.routes) {
		changes = append(changes, differences("route", namesOf(before.routes, func(r *route.Config) string { return r.Name }), namesOf(after.routes, func(r *route.Config) string { return r.Name }),
			func(name string) bool {
				return reflect.DeepEqual(routeCalled(before.routes, name), routeCalled(after.routes, name))
			})...)
	}
	g.outside = after
	if len(changes) > 0 {
		e.Do, e.Changes = "reload.recipients", changes
		g.record(e)
		g.logger.Info("recipients and routes are changed", "changes", strings.Join(changes, "; "))
	}
	return nil
}

func routeCalled(list []route.Config, name string) *route.Config {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// namesOf returns the names of a list.
func namesOf[T any](list []T, name func(*T) string) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = name(&list[i])
	}
	return out
}

// differences says what was taken out, changed and added of named things.
func differences(what string, before, after []string, same func(name string) bool) []string {
	var out []string
	for _, name := range before {
		switch {
		case !slices.Contains(after, name):
			out = append(out, what+" "+name+" is taken out")
		case !same(name):
			out = append(out, what+" "+name+" is changed")
		}
	}
	for _, name := range after {
		if !slices.Contains(before, name) {
			out = append(out, what+" "+name+" is new")
		}
	}
	return out
}

// reloadEntry says for the audit what a reload changes of rules and devices.
func (g *instance) reloadEntry(ctx context.Context, before, after *world) auditEntry {
	e := auditEntry{At: g.now(), By: actorOf(ctx, ""), Do: "reload"}
	if e.By == "" {
		e.By, e.Why = telemetry.Gateway, "the signal HUP, or a request on this machine"
	}
	a, b := &before.document, &after.document
	e.Changes = append(e.Changes, differences("rule", rulesIn(a), rulesIn(b), func(name string) bool { return reflect.DeepEqual(ruleIn(a, name), ruleIn(b, name)) })...)
	id := func(d *telemetry.Device) string { return d.ID }
	e.Changes = append(e.Changes, differences("device", namesOf(a.Devices, id), namesOf(b.Devices, id), func(name string) bool {
		return reflect.DeepEqual(before.Devices.Device(name), after.Devices.Device(name))
	})...)
	kind := func(k *telemetry.Kind) string { return k.Name }
	e.Changes = append(e.Changes, differences("kind", namesOf(a.Kinds, kind), namesOf(b.Kinds, kind), func(name string) bool {
		return reflect.DeepEqual(before.Kinds.Kind(name), after.Kinds.Kind(name))
	})...)
	if string(a.Zones) != string(b.Zones) {
		e.Changes = append(e.Changes, "zones are changed")
	}
	return e
}

func rulesIn(d *rules.Document) []string {
	return namesOf(d.Rules, func(r *rules.Rule) string { return r.Name })
}

func ruleIn(d *rules.Document, name string) *rules.Rule {
	for i := range d.Rules {
		if d.Rules[i].Name == name {
			return &d.Rules[i]
		}
	}
	return nil
}

// unknownRecipients reports rules that name a recipient which there is not: what
// they raise would go to nobody.
func (c *Configuration) unknownRecipients(w *world) []telemetry.Fault {
	if len(c.IOC) == 0 {
		return nil // nobody is told of anything
	}
	var faults []telemetry.Fault
	known := c.recipientNames()
	for i := range w.document.Rules {
		for j, name := range w.document.Rules[i].To {
			if !slices.Contains(known, name) {
				faults = append(faults, telemetry.Faultf(fmt.Sprintf("rules[%d].to[%d]", i, j), "there is no recipient %q under ioc; expected one of %s", name, strings.Join(known, ", ")))
			}
		}
	}
	return faults
}
