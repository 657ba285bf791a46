package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"

	"haidang/gateway/account"
	"haidang/gateway/console"
	"haidang/gateway/telemetry"
)

// setStateAudited is setState, on record.
func (g *instance) setStateAudited(ctx context.Context, s telemetry.StateChange) error {
	err := g.setState(ctx, s)
	if err != nil {
		return err
	}
	change := "it is in " + s.State.String()
	if s.State == telemetry.Good {
		change = "it measures"
	}
	if s.Value != "" {
		change = s.Value + ": " + change
	}
	if s.For > 0 {
		change += " for " + s.For.String()
	}
	g.record(auditEntry{By: s.By, Do: "device.state", On: s.Device, Why: s.Why, Changes: []string{change}})
	return nil
}

// changeDeviceAudited is changeDevice, on record.
func (g *instance) changeDeviceAudited(ctx context.Context, d telemetry.DeviceChange) error {
	if err := g.changeDevice(ctx, d); err != nil {
		return err
	}
	var changes []string
	for _, name := range sortedNames(d.Set) {
		if d.Set[name] == nil {
			changes = append(changes, name+" is what the configuration says")
		} else {
			changes = append(changes, fmt.Sprintf("%s is %v", name, d.Set[name]))
		}
	}
	g.record(auditEntry{By: d.By, Do: "device.change", On: d.Device, Why: d.Why, Changes: changes})
	return nil
}

// admitAudited is admit, on record.
func (g *instance) admitAudited(ctx context.Context, a console.Admission) (any, error) {
	answer, err := g.admit(ctx, a)
	if err == nil {
		g.record(auditEntry{By: a.By, Do: "device." + a.Do, On: a.Device, Why: a.Why})
	}
	return answer, err
}

// actOnLetterAudited retries or drops what was set aside, on record.
func (g *instance) actOnLetterAudited(ctx context.Context, act console.LetterAct) (any, error) {
	answer, err := g.letters.act(ctx, act)
	if err == nil {
		g.record(auditEntry{By: act.By, Do: "deadletter." + act.Do, On: act.ID})
	}
	return answer, err
}

// notingAccounts puts on record what a verb changes of the accounts. The record
// is part of the data folder, wherever the accounts are.
func notingAccounts(data, file, by string, edit func() error) error {
	before, err := account.List(file)
	if err != nil {
		return edit() // it says what is wrong with the file
	}
	if err := edit(); err != nil {
		return err
	}
	after, err := account.List(file)
	if err != nil {
		return err
	}
	a, err := openAudit(data, defaults().Archive, nil)
	if err != nil {
		return fmt.Errorf("the accounts are changed, and that is not on record: %w", err)
	}
	for _, e := range accountEntries(before, after) {
		e.By = by
		err = errors.Join(err, a.note(e))
	}
	if err = errors.Join(err, belongsToFolder(data)); err != nil {
		return fmt.Errorf("the accounts are changed, and that is not on record in %s: %w", filepath.Join(data, archiveFolder), err)
	}
	return nil
}

// accountEntries are what differs of the accounts. Secrets are told to have
// changed, never what they are.
func accountEntries(before, after []account.Record) []auditEntry {
	was := map[string]account.Record{}
	for _, r := range before {
		was[r.Name] = r
	}
	var out []auditEntry
	for _, r := range after {
		old, known := was[r.Name]
		delete(was, r.Name)
		switch changes := accountChanges(&old, &r); {
		case !known:
			out = append(out, auditEntry{Do: "account.add", On: r.Name, Changes: []string{"role: " + string(r.Role)}})
		case len(changes) > 0:
			out = append(out, auditEntry{Do: "account.change", On: r.Name, Changes: changes})
		}
	}
	for name := range was {
		out = append(out, auditEntry{Do: "account.remove", On: name})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].On < out[j].On })
	return out
}

func accountChanges(before, after *account.Record) []string {
	var out []string
	say := func(differs bool, format string, args ...any) {
		if differs {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	say(before.Role != after.Role, "role: %s", after.Role)
	say(before.Secret != after.Secret, "it has another secret or password")
	say(before.Disabled != after.Disabled, "%s", map[bool]string{true: "it is locked", false: "it is not locked any more"}[after.Disabled])
	say(!slices.Equal(before.Devices, after.Devices), "devices: %s", strings.Join(after.Devices, ", "))
	say(!slices.Equal(before.Publish, after.Publish), "publishes: %s", strings.Join(after.Publish, ", "))
	say(!slices.Equal(before.Subscribe, after.Subscribe), "subscribes: %s", strings.Join(after.Subscribe, ", "))
	say(!reflect.DeepEqual(before.Limits, after.Limits), "it has other limits")
	say(before.Note != after.Note, "note: %s", after.Note)
	ids := func(list []account.Token) []string {
		return namesOf(list, func(t *account.Token) string { return t.ID })
	}
	return append(out, differences("token", ids(before.Tokens), ids(after.Tokens), func(string) bool { return true })...)
}
