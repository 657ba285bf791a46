package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/paulmach/orb"
	"golang.org/x/sync/errgroup"

	"haidang/drivers/link"
	"haidang/drivers/modbus"
	"haidang/gateway/console"
	"haidang/gateway/intake"
	"haidang/gateway/ioc"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/proof"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// An outgoing is what takes warnings out of the gateway.
type outgoing struct {
	bulletins  ioc.Bulletins
	feed       http.Handler
	places     *places
	recipients []*ioc.Recipient
}

// openRecipients makes the recipients and the CAP messages that have been sent
// so far, from the warnings log. It is called before anything is written there.
func (g *instance) openRecipients(ctx context.Context) error {
	g.out.places = &places{known: g.intake.Known}
	g.out.places.setZones(g.world.document.Zones)
	chronicle := cap.NewChronicle()
	if err := g.spool.Warnings().Replay(ctx, func(t telemetry.Transition) {
		if isOfWarning(&t) && !t.Quiet { // drills too: mail and short messages of them need their chain, the feed hides them
			chronicle.Apply(t.Warning)
		}
	}); err != nil {
		return fmt.Errorf("read the warnings log for CAP: %w", err)
	}
	g.centre.observe(func(w telemetry.Warning) {
		if !w.Quiet {
			chronicle.Apply(w)
		}
	})
	composer := cap.NewComposer(g.cfg.CAP, g.out.places, g.cfg.Gateway)
	g.out.bulletins = ioc.Bulletins{Chronicle: chronicle, Composer: composer, Now: g.now}
	g.out.feed = cap.NewFeed(chronicle, composer, g.cfg.Gateway, g.now)
	var err error
	if g.proof, err = proof.Open(filepath.Join(g.cfg.Data, "deliveries"), g.reg, g.logger); err != nil {
		return err
	}
	g.onClose(g.proof.Close)
	outside := ioc.Outside{Version: version, Gateway: g.cfg.Gateway, Bulletins: g.out.bulletins, Dial: dialModem, Switch: g.switchSiren}
	for _, c := range g.cfg.IOC {
		g.out.recipients = append(g.out.recipients, ioc.Open(c, outside, ioc.Options{Registerer: g.reg, Logger: g.logger, Told: g.noteDelivery}))
	}
	return nil
}

// followRecipients starts what brings warnings to the recipients.
func (g *instance) followRecipients(ctx context.Context, group *errgroup.Group) {
	warnings := g.spool.Warnings()
	for _, recipient := range g.out.recipients {
		group.Go(func() error { return recipient.Keep(ctx, g.lasting) })
		for _, class := range []ioc.Class{ioc.Grave, ioc.Rest} {
			sender := recipient.Sender(class)
			offer := recipient.Offer(g.lasting())
			group.Go(func() error {
				if g.roll.owes(sender.Name()) {
					err := sender.Accept(ctx, offer)
					if ctx.Err() != nil {
						return nil // it is still owed the offer
					}
					if err != nil {
						g.logger.Error("a new recipient refuses warnings that last", "recipient", sender.Name(), "error", err)
					}
					g.roll.offered(ctx, sender.Name())
				}
				return warnings.Follow(ctx, spool.FollowOptions{Name: sender.Name()}, transitions(isFor(recipient.Name()), sender.Accept))
			})
		}
	}
}

// dialModem opens the line to a modem.
func dialModem(ctx context.Context, connect string) (ioc.ModemLine, error) {
	target, err := link.Parse(connect)
	if err != nil {
		return nil, err
	}
	return link.Dial(ctx, target, link.Options{})
}

// switchSiren writes a siren's setting on its Modbus line.
func (g *instance) switchSiren(ctx context.Context, line, unit, setting string, number float64) error {
	l, err := lineCalled(g.lines, line)
	if err != nil {
		return err
	}
	_, err = l.Write(ctx, unit, setting, number, "siren")
	return err
}

// validateOutside reports recipients that name what the rest of the
// configuration does not have.
func (c *Configuration) validateOutside() []telemetry.Fault {
	var faults []telemetry.Fault
	for i := range c.IOC {
		at := fmt.Sprintf("ioc[%d]", i)
		if sms := c.IOC[i].SMS; sms != nil && sms.Connect != "" {
			target, err := link.Parse(sms.Connect)
			switch {
			case err != nil:
				faults = append(faults, telemetry.Faultf(at+".sms.connect", "%v", err))
			case target.Scheme != link.Serial && target.Scheme != link.TCP:
				faults = append(faults, telemetry.Faultf(at+".sms.connect", "connect %q: a modem is at serial:///dev/name or tcp://host:port", sms.Connect))
			}
		}
		siren := c.IOC[i].Siren
		if siren == nil || siren.Line == "" {
			continue
		}
		if !slices.ContainsFunc(c.Modbus, func(l modbus.Config) bool { return l.Name == siren.Line }) {
			faults = append(faults, telemetry.Faultf(at+".siren.line", "there is no line %q under modbus", siren.Line))
		}
	}
	return faults
}

// lasting returns the warnings that are not cleared and that somebody was told of.
func (g *instance) lasting() []telemetry.Warning {
	return slices.DeleteFunc(g.centre.Warnings(false), func(w telemetry.Warning) bool { return w.Quiet })
}

// healths returns how each recipient fares.
func (o *outgoing) healths() []console.Recipient {
	list := make([]console.Recipient, len(o.recipients))
	for i, r := range o.recipients {
		list[i] = console.Recipient(r.Health())
	}
	return list
}

// places is where devices are and what values are called, as CAP messages need
// it.
type places struct {
	known func() intake.Known
	zones atomic.Pointer[map[string][][][2]float64]
}

// Device returns a registered device, or nil.
func (p *places) Device(id string) *telemetry.Device { return p.known().Devices.Device(id) }

// Zone returns the outer rings of a zone.
func (p *places) Zone(name string) [][][2]float64 { return (*p.zones.Load())[name] }

// Quantity returns what a value of a kind is, or nil.
func (p *places) Quantity(kind, value string) *telemetry.Quantity {
	if k := p.known().Kinds.Kind(kind); k != nil {
		return k.Quantity(value)
	}
	return nil
}

// setZones reads the areas of a GeoJSON document that the rules have accepted.
// Holes are left out: CAP knows none.
func (p *places) setZones(text json.RawMessage) {
	zones := map[string][][][2]float64{}
	var c struct {
		Features []struct {
			Properties struct {
				Name string `json:"name"`
			} `json:"properties"`
			Geometry struct {
				Type        string          `json:"type"`
				Coordinates json.RawMessage `json:"coordinates"`
			} `json:"geometry"`
		} `json:"features"`
	}
	if json.Unmarshal(text, &c) == nil {
		for _, f := range c.Features {
			var one orb.Polygon
			var many orb.MultiPolygon
			switch f.Geometry.Type {
			case "Polygon":
				if json.Unmarshal(f.Geometry.Coordinates, &one) == nil {
					many = orb.MultiPolygon{one}
				}
			case "MultiPolygon":
				_ = json.Unmarshal(f.Geometry.Coordinates, &many) // none then
			}
			for _, polygon := range many {
				ring := make([][2]float64, len(polygon[0]))
				for i, at := range polygon[0] {
					ring[i] = at
				}
				zones[f.Properties.Name] = append(zones[f.Properties.Name], ring)
			}
		}
	}
	p.zones.Store(&zones)
}
