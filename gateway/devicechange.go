package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"haidang/gateway/console"
	"haidang/gateway/registry"
	"haidang/gateway/telemetry"
)

// openRegistry reads what was changed of devices at run time and puts it on top
// of what the files say. Changes that do not fit the files any more are told
// and are not in force.
func (g *instance) openRegistry() (err error) {
	if g.registry, err = registry.Open(g.cfg.Data, g.logger); err != nil {
		return err
	}
	g.files = g.world
	merged, faults := g.files.withChanges(g.registry)
	if len(faults) > 0 {
		g.logger.Error("what was changed of devices at run time does not fit the configuration and is not in force: see haidang devices changes", "fault", faults[0].String(), "faults", len(faults))
		return nil
	}
	g.world = merged
	g.noteRules(nil)
	return nil
}

// withChanges returns the world with what was changed of devices at run time.
func (w *world) withChanges(r *registry.Registry) (*world, []telemetry.Fault) {
	if !r.Changes() {
		return w, nil
	}
	return w.with(r.Apply(w.document.Devices))
}

// with returns the world with other devices.
func (w *world) with(devices []telemetry.Device) (*world, []telemetry.Fault) {
	changed := *w
	changed.document.Devices = devices
	var faults []telemetry.Fault
	if changed.Devices, faults = telemetry.NewRegistry(devices, w.Kinds); len(faults) == 0 {
		faults = changed.compile()
	}
	return &changed, faults
}

// changed is the world that the files describe, with what was changed at run
// time.
func (g *instance) changed(files *world) (*world, error) {
	merged, faults := files.withChanges(g.registry)
	if len(faults) > 0 {
		return nil, fmt.Errorf("with what was changed of devices at run time (haidang devices changes): %s", faults[0])
	}
	return merged, nil
}

// setState puts a device, or one of its values, into maintenance or calibration,
// or ends that.
func (g *instance) setState(_ context.Context, s telemetry.StateChange) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	if !g.knows(s.Device) {
		return telemetry.ErrUnknownDevice
	}
	if s.Value != "" && len(g.world.Kinds.Owners(s.Value)) == 0 && !g.hasSent(s.Device, s.Value) {
		return fmt.Errorf("value: %q is not a value of the catalogue, and %s did not send it", s.Value, s.Device)
	}
	if err := g.registry.SetState(s); err != nil {
		return err
	}
	g.intake.SetPeriods(g.registry.Periods())
	return nil
}

func (g *instance) knows(device string) bool {
	if g.world.Devices.Device(device) != nil {
		return true
	}
	_, heard := g.intake.HeardOf(device)
	_, stranger := g.intake.ContactOf(device)
	_, refused := g.registry.Refused()[device]
	return heard || stranger || refused
}

func (g *instance) hasSent(device, value string) bool {
	h, _ := g.intake.HeardOf(device)
	for _, l := range h.Latest {
		for i := range l.Values {
			if l.Values[i].Name == value {
				return true
			}
		}
	}
	return false
}

// changePatience bounds how long a change of a device waits for the log.
const changePatience = 30 * time.Second

// changeDevice changes what is known of a device, in the log for the rules, on
// disk for the next start, and for what comes in.
func (g *instance) changeDevice(ctx context.Context, d telemetry.DeviceChange) error {
	if err := g.started(ctx); err != nil {
		return fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	if !g.knows(d.Device) {
		return telemetry.ErrUnknownDevice
	}
	isNew := g.files.Devices.Device(d.Device) == nil
	devices, commit, err := g.registry.Prepare(d, isNew, g.files.document.Devices)
	if err != nil {
		return err
	}
	changed, faults := g.files.with(devices)
	if len(faults) > 0 {
		return errors.New(ofDevice(faults[0]))
	}
	// The log first: what cannot be told to the rules is not changed. Should the
	// disk refuse the rest, the rules are told again how it was.
	// Who asked may leave meanwhile: that must not part the two.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changePatience)
	defer cancel()
	if err := g.evaluator.announce(ctx, g.cfg.Gateway, g.now(), changed.set); err != nil {
		return fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	if err := commit(); err != nil {
		again := g.evaluator.announce(ctx, g.cfg.Gateway, g.now(), g.world.set)
		return errors.Join(fmt.Errorf("%w: %w", console.ErrUnavailable, err), again)
	}
	g.world = changed
	g.noteRules(nil)
	g.intake.SetKnown(changed.Known)
	g.refuse()
	return nil
}

// refuse tells the intake whose readings are not taken.
func (g *instance) refuse() {
	out := map[string]bool{}
	for id := range g.registry.Refused() {
		out[id] = true
	}
	g.intake.SetRefused(out)
}

// maxAdmitted bounds the held letters that an approval takes in at once.
const maxAdmitted = 1000

// admit decides about a device that came by itself. Approved, it is registered
// and what was held of it is taken in, the oldest first; the answer counts that.
func (g *instance) admit(ctx context.Context, a console.Admission) (any, error) {
	if a.Do != "approve" {
		g.reloading.Lock()
		defer g.reloading.Unlock()
		switch {
		case g.world.Devices.Device(a.Device) != nil:
			return nil, fmt.Errorf("device: %q is registered: take it out of devices.yaml, or put what was set of it back", a.Device)
		case !g.knows(a.Device):
			return nil, telemetry.ErrUnknownDevice
		}
		if err := g.registry.Refuse(a.Device, a.Do == "refuse", a.By, a.Why, a.At); err != nil {
			return nil, err
		}
		g.refuse()
		return map[string]int{}, nil
	}
	name := a.Name
	if name == "" {
		name = a.Device
	}
	set := map[string]any{"name": name}
	if a.Interval != "" {
		set["interval"] = a.Interval
	}
	if err := g.changeDevice(ctx, telemetry.DeviceChange{Device: a.Device, Set: set, By: a.By, Why: a.Why, At: a.At}); err != nil {
		return nil, err
	}
	letters, err := g.letters.list(ctx, console.LetterQuery{Device: a.Device, Reason: "held", Limit: maxAdmitted})
	if err != nil {
		return nil, err
	}
	held, _ := letters.([]letterState) // as list returns them
	done := map[string]int{"retried": 0, "failed": 0}
	for i := len(held) - 1; i >= 0; i-- {
		if _, err := g.letters.act(ctx, console.LetterAct{ID: held[i].ID, Do: "retry", By: a.By, At: a.At}); err != nil {
			done["failed"]++ // it stays listed, and says why when it is retried by hand
			continue
		}
		done["retried"]++
	}
	return done, nil
}

var devicePath = regexp.MustCompile(`^devices\[\d+\]\.`)

// ofDevice tells a fault of a change: its field first.
func ofDevice(f telemetry.Fault) string {
	f.Path = devicePath.ReplaceAllString(f.Path, "")
	if strings.HasPrefix(f.Path, "rules") || strings.HasPrefix(f.Path, "limits") {
		return "the rules could not be in force then: " + f.String()
	}
	return f.String()
}
