package intake

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"haidang/gateway/telemetry"
)

// What becomes of readings of devices that are not registered and come by
// themselves, over MQTT, HTTP or a bridge. What a driver polls is registered by its
// configuration, and vessels are never registered.
const (
	UnknownAccept = "accept" // taken like others (default)
	UnknownHold   = "hold"   // dead letters "held", to be retried once the device is registered
	UnknownRefuse = "refuse" // one dead letter for each device; the others are counted
)

// ValidUnknown reports whether a word is one of those, or empty for the default.
func ValidUnknown(word string) bool {
	return word == "" || word == UnknownAccept || word == UnknownHold || word == UnknownRefuse
}

// MaxContacts bounds the unregistered devices that are remembered.
const MaxContacts = 10_000

// A Contact is a device that is not registered and came by itself.
type Contact struct {
	Device string    `json:"device"`
	Source string    `json:"source"`
	First  time.Time `json:"first"` // of receipt
	Held   uint64    `json:"-"`     // readings that were not taken since the start
}

// A contact is a Contact that counts.
type contact struct {
	source string
	first  time.Time
	held   atomic.Uint64
}

// contacts are the devices that came by themselves, by id.
type contacts struct {
	byID  sync.Map // of *contact
	count atomic.Int64
}

// comesByItself reports whether devices of the source need no configuration.
func comesByItself(source string) bool {
	return source == "broker" || source == "influx.write" || strings.HasPrefix(source, "bridge.") || strings.HasPrefix(source, "uplink.")
}

// admit decides about a reading of a device that is not registered, and tells of
// the first. Without letter a reading that is not admitted is counted only.
func (in *Intake) admit(source string, r *telemetry.Reading, at time.Time) (admitted, letter bool) {
	if !comesByItself(source) {
		return true, false
	}
	known, first := in.meet(r.Device, source, at)
	if first {
		in.metrics.contacts.Inc()
		in.opts.Logger.Info("first contact with a device that is not registered", "device", r.Device, "kind", r.Kind, "source", source, "unknown_devices", in.unknownDevices())
	}
	mode, refused := in.unknownDevices(), in.isRefused(r.Device)
	if mode == UnknownAccept && !refused {
		return true, false
	}
	if known != nil {
		known.held.Add(1)
	}
	if r.Kind == telemetry.KindLink {
		return false, false
	}
	return false, first || mode == UnknownHold && !refused
}

// meet remembers a device that came by itself; nil when there are too many.
func (in *Intake) meet(device, source string, at time.Time) (known *contact, first bool) {
	if c, ok := in.contacts.byID.Load(device); ok {
		return c.(*contact), false
	}
	if in.contacts.count.Load() >= MaxContacts {
		return nil, false
	}
	c, ok := in.contacts.byID.LoadOrStore(strings.Clone(device), &contact{source: strings.Clone(source), first: at})
	if !ok {
		in.contacts.count.Add(1)
	}
	return c.(*contact), !ok
}

// SetRefused replaces the devices that somebody has refused: their readings are
// counted and not taken until they are registered or let in again.
func (in *Intake) SetRefused(devices map[string]bool) { in.refused.Store(&devices) }

func (in *Intake) isRefused(device string) bool {
	refused := in.refused.Load()
	return refused != nil && (*refused)[device]
}

func (in *Intake) unknownDevices() string {
	if in.opts.Unknown == "" {
		return UnknownAccept
	}
	return in.opts.Unknown
}

// unadmitted are reason and detail of a reading that is not admitted.
func (in *Intake) unadmitted(device string) (reason, detail string) {
	if in.isRefused(device) {
		return "refused", fmt.Sprintf("device %q is not registered and was refused; what else it sends is counted only", device)
	}
	if in.unknownDevices() == UnknownHold {
		return "held", fmt.Sprintf("device %q is not registered: register it (haidang devices set, or devices.yaml), then retry this", device)
	}
	return "unknown_device", fmt.Sprintf("device %q is not registered, and unknown devices are refused; what else it sends is counted only", device)
}

// ContactOf returns the first contact with a device that is not registered.
func (in *Intake) ContactOf(device string) (Contact, bool) {
	c, ok := in.contacts.byID.Load(device)
	if !ok || in.Known().Devices.Device(device) != nil {
		return Contact{}, false
	}
	return c.(*contact).of(device), true
}

func (c *contact) of(device string) Contact {
	return Contact{Device: device, Source: c.source, First: c.first, Held: c.held.Load()}
}

// Remember makes contacts of an earlier run known, so that nobody is told of them
// again; of more than nine tenths of MaxContacts the newest, so that there is room
// for others. It is called before readings come.
func (in *Intake) Remember(earlier []Contact) {
	earlier = slices.Clone(earlier)
	slices.SortFunc(earlier, func(a, b Contact) int { return b.First.Compare(a.First) })
	for _, c := range earlier[:min(len(earlier), MaxContacts*9/10)] {
		if _, known := in.contacts.byID.LoadOrStore(c.Device, &contact{source: c.Source, first: c.First}); !known {
			in.contacts.count.Add(1)
		}
	}
}

// Contacts returns the devices that are not registered and came by themselves.
func (in *Intake) Contacts() []Contact {
	var out []Contact
	known := in.Known().Devices
	in.contacts.byID.Range(func(id, c any) bool {
		if known.Device(id.(string)) == nil {
			out = append(out, c.(*contact).of(id.(string)))
		}
		return true
	})
	return out
}
