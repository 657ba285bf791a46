package sparkplug

import (
	"fmt"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Config says what nodes and devices are called here.
type Config struct {
	// Node and Device are the devices that an edge node and a device of it are,
	// with {group}, {edge} and {device} for the parts of the topic. Characters that
	// no name can have become -.
	Node   string `yaml:"node"`
	Device string `yaml:"device"`
	Kind   string `yaml:"kind"` // of metrics without a folder
	Host   string `yaml:"host"` // this program's name as a host application; empty: it is none
}

// A Message is one to be retained.
type Message struct {
	Topic   string
	Payload []byte
}

// State is what this program says as a host application that comes (online) or
// goes: in the form of Sparkplug 3.0.0 (6.4.22), and in that of 2.2, which nodes of
// that age wait for. It is nothing when it is no host.
func (c *Config) State(online bool, now time.Time) []Message {
	if c.Host == "" {
		return nil
	}
	word := "OFFLINE"
	if online {
		word = "ONLINE"
	}
	topics := c.StateTopics()
	return []Message{
		{topics[0], fmt.Appendf(nil, `{"online":%t,"timestamp":%d}`, online, now.UnixMilli())},
		{topics[1], []byte(word)},
	}
}

// StateTopics are the topics of State.
func (c *Config) StateTopics() []string {
	if c.Host == "" {
		return nil
	}
	return []string{"spBv1.0/STATE/" + c.Host, "STATE/" + c.Host}
}

// DefaultConfig calls a node by its id and its devices {edge}.{device}.
func DefaultConfig() Config {
	return Config{Node: "{edge}", Device: "{edge}.{device}", Kind: "sparkplug"}
}

// RebirthPause is the least time between two requests for a rebirth of a node; it
// doubles up to MaxRebirthPause while none comes.
const (
	RebirthPause    = 10 * time.Second
	MaxRebirthPause = 10 * time.Minute
)

// Bounds.
const (
	maxNodes     = 4096
	maxMetrics   = 10_000 // of a message, and of a node
	maxNameBytes = 512
	maxDevices   = 1024 // of a node
)

// Validate reports what is wrong.
func (c *Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	for _, t := range []struct {
		key, text string
		needs     string
	}{{"node", c.Node, "{edge}"}, {"device", c.Device, "{device}"}} {
		rest := strings.NewReplacer("{group}", "x", "{edge}", "x", "{device}", "x").Replace(t.text)
		switch {
		case !strings.Contains(t.text, t.needs):
			faults = append(faults, telemetry.Faultf(t.key, "%q must have %s in it, or all of them would be one device", t.text, t.needs))
		case t.key == "node" && strings.Contains(t.text, "{device}"), !telemetry.ValidName(rest):
			faults = append(faults, telemetry.Faultf(t.key, "%q is not a name with {group}, {edge} (and, of a device, {device}) in it", t.text))
		}
	}
	if c.Host != "" && !telemetry.ValidName(c.Host) {
		faults = append(faults, telemetry.Faultf("host", "host %q is not a name of letters, digits and ._:-", c.Host))
	}
	if !telemetry.ValidName(c.Kind) || c.Kind == "warning" {
		faults = append(faults, telemetry.Faultf("kind", "kind %q is not a name of letters, digits and ._:-", c.Kind))
	}
	return faults
}

// A Topic is a topic of Sparkplug that carries telemetry.
type Topic struct {
	Group, Type, Edge, Device string
}

// ParseTopic reads a topic that begins with spBv1.0/. It is telemetry when births,
// deaths and data go there; the topic is nil where it then breaks the form.
func ParseTopic(topic string) (parsed *Topic, telemetry bool) {
	levels := strings.Split(topic, "/")
	if len(levels) < 3 || levels[0] != "spBv1.0" {
		return nil, false
	}
	want := 0
	switch levels[2] {
	case "NBIRTH", "NDATA", "NDEATH":
		want = 4
	case "DBIRTH", "DDATA", "DDEATH":
		want = 5
	default:
		return nil, false
	}
	if len(levels) != want || levels[1] == "" || levels[3] == "" || levels[want-1] == "" {
		return nil, true
	}
	t := &Topic{Group: strings.Clone(levels[1]), Type: strings.Clone(levels[2]), Edge: strings.Clone(levels[3])}
	if want == 5 {
		t.Device = strings.Clone(levels[4])
	}
	return t, true
}

// Name is the device of ours that the topic is about, or "" when no name can be
// made of it.
func (c *Config) Name(t *Topic) string { return c.name(t.Group, t.Edge, t.Device) }

func (c *Config) name(group, edge, device string) string {
	text := c.Node
	if device != "" {
		text = c.Device
	}
	name := clean(strings.NewReplacer("{group}", group, "{edge}", edge, "{device}", device).Replace(text), '-')
	if !telemetry.ValidName(name) {
		return ""
	}
	return name
}
