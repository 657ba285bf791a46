package main

import (
	"fmt"
	"net/url"
	"strings"

	"haidang/drivers/modbus"
)

// A deviceLink is a way by which a device is configured to come: a line and its
// unit, a receiver, or the accounts that may speak for it.
type deviceLink struct {
	Source  string `json:"source"`            // as readings name it: modbus.line-1, broker
	Connect string `json:"connect,omitempty"` // of the line, without secrets
	Unit    *int   `json:"unit,omitempty"`    // Modbus
	Profile string `json:"profile,omitempty"` // Modbus: what its registers mean
	Format  string `json:"format,omitempty"`  // serial
	Modem   string `json:"modem,omitempty"`   // that dials in
	Account string `json:"account,omitempty"` // that may speak for it over MQTT and HTTP
}

// linksOf returns the ways by which the configuration lets a device come.
func (g *instance) linksOf(device string) []deviceLink {
	var out []deviceLink
	for i := range g.cfg.Modbus {
		c := &g.cfg.Modbus[i]
		if c.Name == device {
			out = append(out, deviceLink{Source: "modbus." + c.Name, Connect: redacted(c.Connect)})
		}
		units := func(units []modbus.Unit, modem string) {
			for _, u := range units {
				if u.Device == device {
					out = append(out, deviceLink{Source: "modbus." + c.Name, Connect: redacted(c.Connect), Unit: &u.ID, Profile: u.Profile, Modem: modem})
				}
			}
		}
		units(c.Units, "")
		for j := range c.Modems {
			units(c.Modems[j].Units, c.Modems[j].Name)
		}
	}
	for i := range g.cfg.Serial {
		if c := &g.cfg.Serial[i]; c.Device == device || c.Name == device {
			out = append(out, deviceLink{Source: "serial." + c.Name, Connect: redacted(c.Connect), Format: fmt.Sprint(c.Format)})
		}
	}
	vessel := strings.HasPrefix(device, "mmsi-")
	for i := range g.cfg.AIS {
		if c := &g.cfg.AIS[i]; vessel || c.Name == device {
			out = append(out, deviceLink{Source: "ais." + c.Name, Connect: redacted(c.Connect)})
		}
	}
	for _, name := range g.accounts.Voices(device) {
		out = append(out, deviceLink{Source: "broker", Account: name})
	}
	return out
}

// redacted is an address without the name and secret that it may hold.
func redacted(connect string) string {
	u, err := url.Parse(connect)
	if err != nil || u.User == nil {
		return connect
	}
	u.User = url.User("...")
	return u.String()
}
