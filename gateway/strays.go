package main

import (
	"fmt"
	"slices"
	"strings"

	"haidang/drivers/serial"
	"haidang/gateway/telemetry"
)

// strays are the names of sources that nothing else knows: a device that
// nobody registered, a value that is not in the catalogue of kinds. Both are
// allowed, since unknown devices are taken and kinds may grow; but a slip of
// the pen makes a series of its own that no rule looks at.
func (c *Configuration) strays(w *world) []telemetry.Fault {
	s := stray{devices: w.Devices, values: map[string]bool{}}
	for i := range w.document.Kinds {
		k := &w.document.Kinds[i]
		for j := range k.Values {
			s.values[k.Name+"."+k.Values[j].Name] = true
		}
	}
	for i := range c.Modbus {
		line := &c.Modbus[i]
		at := fmt.Sprintf("modbus[%d]", i)
		for j := range line.Units {
			s.device(fmt.Sprintf("%s.units[%d].device", at, j), line.Units[j].Device)
		}
		for j := range line.Modems {
			for k := range line.Modems[j].Units {
				s.device(fmt.Sprintf("%s.modems[%d].units[%d].device", at, j, k), line.Modems[j].Units[k].Device)
			}
		}
	}
	for i := range c.Serial {
		line := &c.Serial[i]
		at := fmt.Sprintf("serial[%d]", i)
		if line.Device != "" {
			s.device(at+".device", line.Device)
		}
		s.list(at, line.Values)
		for j := range line.Sensors {
			sensor := &line.Sensors[j]
			under := fmt.Sprintf("%s.sensors[%d]", at, j)
			if sensor.Device != "" {
				s.device(under+".device", sensor.Device)
			}
			s.list(under, sensor.Values)
		}
	}
	return s.faults
}

type stray struct {
	devices *telemetry.Registry
	values  map[string]bool // kind.value of the catalogue
	faults  []telemetry.Fault
	ids     []string // of the devices, once one is looked for
}

func (s *stray) device(at, id string) {
	if s.devices.Device(id) != nil {
		return
	}
	if s.ids == nil {
		for i := range s.devices.Devices() {
			s.ids = append(s.ids, s.devices.Devices()[i].ID)
		}
	}
	s.faults = append(s.faults, telemetry.Faultf(at, "device %q is not registered%s", id, telemetry.DidYouMean(id, s.ids)))
}

func (s *stray) list(at string, values []serial.Value) {
	for i := range values {
		to := values[i].To
		if s.values[to] {
			continue
		}
		known := make([]string, 0, len(s.values))
		for name := range s.values {
			known = append(known, name)
		}
		hint := telemetry.DidYouMean(to, known)
		if kind, _, _ := strings.Cut(to, "."); hint == "" {
			hint = ofKind(kind, known)
		}
		s.faults = append(s.faults, telemetry.Faultf(fmt.Sprintf("%s.values[%d].to", at, i), "value %s is not in the catalogue of kinds%s", to, hint))
	}
}

// ofKind lists the kind's values, where there is such a kind.
func ofKind(kind string, known []string) string {
	var its []string
	for _, name := range known {
		if strings.HasPrefix(name, kind+".") {
			its = append(its, name)
		}
	}
	if len(its) == 0 {
		return ""
	}
	slices.Sort(its)
	return "; kind " + kind + " has " + strings.Join(its, ", ")
}
