package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/paulmach/orb"

	"haidang/drivers/link"
	"haidang/drivers/modbus"
	"haidang/gateway/intake"
	"haidang/gateway/ioc"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/proof"
	"haidang/gateway/telemetry"
)

// An outgoing is what takes warnings out of the gateway.
type outgoing struct {
	bulletins ioc.Bulletins
	feed      http.Handler
	places    *places
	post      post
}

// chronicle takes what CAP messages are made of from a transition of the log.
// Drills too: mail and short messages of them need their chain, the feed hides them.
func (o *outgoing) chronicle(t *telemetry.Transition) {
	if isTold(t) {
		o.bulletins.Chronicle.Apply(t.Warning)
	}
}

// openRecipients makes the recipients. The chronicle has been filled from the
// warnings log, and nothing has been written there since.
func (g *instance) openRecipients() error {
	g.openWords(g.intake.Known)
	g.out.feed = cap.NewFeed(g.out.bulletins.Chronicle, g.out.bulletins.Composer, g.cfg.Gateway, g.now)
	g.out.post.g = g
	if g.machine != nil {
		g.proof, g.out.post.far = g.machine.proof, g.machine.told
	} else {
		var err error
		if g.proof, err = proof.Open(filepath.Join(g.cfg.Data, deliveriesFolder), g.reg, g.logger); err != nil {
			return err
		}
		g.onClose(g.proof.Close)
	}
	g.out.post.open(g.cfg.IOC)
	return nil
}

// deliveriesFolder, in the data folder, is where it is kept what recipients were told.
const deliveriesFolder = "deliveries"

// openWords makes what messages about warnings are written from.
func (g *instance) openWords(known func() intake.Known) {
	g.out.places = &places{known: known}
	g.out.places.setZones(g.world.document.Zones)
	chronicle := g.out.bulletins.Chronicle
	g.centre.observe(func(w telemetry.Warning) {
		if !w.Quiet {
			chronicle.Apply(w)
		}
	})
	g.out.bulletins.Composer, g.out.bulletins.Now = cap.NewComposer(g.cfg.CAP, g.out.places, g.cfg.Gateway), g.now
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
		line := slices.IndexFunc(c.Modbus, func(l modbus.Config) bool { return l.Name == siren.Line })
		if line < 0 {
			faults = append(faults, telemetry.Faultf(at+".siren.line", "there is no line %q under modbus", siren.Line))
			continue
		}
		faults = append(faults, telemetry.Under(at+".siren", validateSwitch(siren, &c.Modbus[line]))...)
	}
	return faults
}

// validateSwitch reports a unit that is not on the siren's line, or that does not
// let it be switched: at the alarm it would be too late to find out.
func validateSwitch(siren *ioc.SirenConfig, line *modbus.Config) []telemetry.Fault {
	var names []string
	look := func(modem string, units []modbus.Unit) []telemetry.Fault {
		for _, u := range units {
			id := modem + strconv.Itoa(u.ID)
			names = append(names, id)
			switch {
			case siren.Unit != id && siren.Unit != u.Device:
			case slices.Contains(u.Writes, siren.Setting):
				return []telemetry.Fault{}
			default:
				return []telemetry.Fault{telemetry.Faultf("setting", "unit %s does not allow the write %q: name it under writes of that unit, as its profile has it", siren.Unit, siren.Setting)}
			}
		}
		return nil
	}
	faults := look("", line.Units)
	for i := range line.Modems {
		if faults == nil {
			faults = look(line.Modems[i].Name+"/", line.Modems[i].Units)
		}
	}
	if faults == nil && siren.Unit != "" {
		faults = append(faults, telemetry.Faultf("unit", "line %q has no unit %q; it has %s", line.Name, siren.Unit, strings.Join(names, ", ")))
	}
	return faults
}

// lasting returns the warnings that are not cleared and that somebody was told of.
func (g *instance) lasting() []telemetry.Warning {
	return slices.DeleteFunc(g.centre.Warnings(false), func(w telemetry.Warning) bool { return w.Quiet })
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
