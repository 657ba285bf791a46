package sparkplug

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

// A Host reads the messages of many edge nodes. It is safe for concurrent use;
// messages of one node have to come in their order.
type Host struct {
	cfg   Config
	ask   func(topic string, payload []byte) // publishes a command; must not block
	mu    sync.Mutex
	nodes map[nodeID]*node

	definitions atomic.Uint64
}

// Definitions is how many definitions of templates were passed over: they say what
// instances look like, which name their metrics themselves.
func (h *Host) Definitions() uint64 { return h.definitions.Load() }

type nodeID struct{ group, edge string }

// A node is what is known of an edge node.
type node struct {
	born    bool // and nothing was missed since
	alive   bool // its link is up
	bdSeq   uint64
	next    uint64 // the seq that is expected
	aliases map[uint64]definition
	types   map[metricID]uint32
	devices map[string]bool // by id: whether the link is up
	asked   time.Time
	pause   time.Duration
}

type metricID struct{ device, name string }

// A definition is what a birth says of an alias.
type definition struct {
	metricID
	datatype uint32
}

// NewHost makes a host. ask publishes a command to a node.
func NewHost(cfg Config, ask func(topic string, payload []byte)) *Host {
	return &Host{cfg: cfg, ask: ask, nodes: map[nodeID]*node{}}
}

// Take reads a message that was received at now.
func (h *Host) Take(t *Topic, raw []byte, now time.Time) ([]telemetry.Reading, []telemetry.DeadLetter) {
	return h.take(t, raw, now, true)
}

// Again reads a message that was set aside, by the aliases that hold now; it
// changes nothing.
func (h *Host) Again(t *Topic, raw []byte, now time.Time) ([]telemetry.Reading, []telemetry.DeadLetter) {
	return h.take(t, raw, now, false)
}

func (h *Host) take(t *Topic, raw []byte, now time.Time, live bool) ([]telemetry.Reading, []telemetry.DeadLetter) {
	device := h.cfg.Name(t)
	if device == "" {
		return nil, letter("bad_name", "", "no name can be made of edge %q and device %q", t.Edge, t.Device)
	}
	p, err := parse(raw)
	if err != nil {
		return nil, letter("bad_sparkplug", device, "%v", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[nodeID{t.Group, t.Edge}]
	if n == nil {
		if len(h.nodes) >= maxNodes {
			return nil, letter("too_many_nodes", device, "more than %d edge nodes", maxNodes)
		}
		n = &node{aliases: map[uint64]definition{}, types: map[metricID]uint32{}, devices: map[string]bool{}}
		h.nodes[nodeID{t.Group, t.Edge}] = n
	}
	if live {
		switch t.Type {
		case "NDEATH":
			return h.nodeDies(t, n, &p), nil
		case "DDEATH":
			h.inOrder(t, n, &p, now)
			delete(n.devices, t.Device)
			return []telemetry.Reading{telemetry.Link(device, false, errDied)}, nil
		case "NBIRTH":
			n.birth(&p)
		default:
			h.inOrder(t, n, &p, now)
		}
	} else if strings.HasSuffix(t.Type, "DEATH") {
		return nil, nil
	}
	return h.readings(t, n, &p, now, live)
}

type died string

func (d died) Error() string { return string(d) }

// errDied is the cause of a link that a death takes down.
const errDied = died("the node said that it is gone")

// nodeDies takes the links of a node and of its devices down.
func (h *Host) nodeDies(t *Topic, n *node, p *payload) []telemetry.Reading {
	for i := range p.metrics {
		if m := &p.metrics[i]; m.name == "bdSeq" && n.alive && m.bits != n.bdSeq {
			return nil // the will of a session before the birth that holds
		}
	}
	readings := []telemetry.Reading{telemetry.Link(h.cfg.Name(t), false, errDied)}
	for id := range n.devices {
		if name := h.cfg.name(t.Group, t.Edge, id); name != "" {
			readings = append(readings, telemetry.Link(name, false, errDied))
		}
	}
	n.born, n.alive = false, false
	clear(n.devices)
	return readings
}

// birth begins the node anew.
func (n *node) birth(p *payload) {
	n.born, n.alive, n.pause = true, true, 0
	n.next = (p.seq + 1) % 256
	clear(n.aliases)
	clear(n.types)
	for i := range p.metrics {
		if m := &p.metrics[i]; m.name == "bdSeq" {
			n.bdSeq = m.bits
		}
	}
}

// inOrder checks the sequence of a message (6.4.1) and asks for a rebirth when
// something was missed.
func (h *Host) inOrder(t *Topic, n *node, p *payload, now time.Time) {
	seq := p.seq % 256
	switch {
	case n.born && (!p.hasSeq || seq == n.next):
		n.next = (n.next + 1) % 256
	case n.born && seq == (n.next+255)%256: // the last one again
	default:
		n.born = false
		h.askRebirth(t, n, now)
	}
}

func (h *Host) askRebirth(t *Topic, n *node, now time.Time) {
	if n.pause > 0 && now.Sub(n.asked) < n.pause {
		return
	}
	n.asked, n.pause = now, min(max(2*n.pause, RebirthPause), MaxRebirthPause)
	h.ask("spBv1.0/"+t.Group+"/NCMD/"+t.Edge, rebirth(uint64(now.UnixMilli())))
}

func letter(reason, device, format string, args ...any) []telemetry.DeadLetter {
	return []telemetry.DeadLetter{{Reason: reason, Device: device, Detail: fmt.Sprintf(format, args...)}}
}

// place is the reading that a metric belongs to.
type place struct {
	kind string
	time uint64
}

// A batch is what becomes of a message.
type batch struct {
	device   string
	readings []telemetry.Reading
	at       map[place]int
	letters  []telemetry.DeadLetter
	more     int
}

// maxLetters bounds the letters of one message.
const maxLetters = 16

func (b *batch) aside(reason, format string, args ...any) {
	if len(b.letters) == maxLetters {
		b.more++
		return
	}
	b.letters = append(b.letters, letter(reason, b.device, format, args...)...)
}

// readings makes readings of the metrics of a message.
func (h *Host) readings(t *Topic, n *node, p *payload, now time.Time, live bool) ([]telemetry.Reading, []telemetry.DeadLetter) {
	b := batch{device: h.cfg.Name(t), at: map[place]int{}}
	isBirth := t.Type == "NBIRTH" || t.Type == "DBIRTH"
	if live && isBirth {
		if t.Device != "" && len(n.devices) < maxDevices {
			n.devices[t.Device] = true
		}
		b.readings = append(b.readings, telemetry.Link(b.device, true, nil))
	}
	for i := range p.metrics {
		m := &p.metrics[i]
		if isBirth && live {
			n.define(t.Device, m)
		}
		if !n.resolve(t.Device, m) {
			if live {
				h.askRebirth(t, n, now)
			}
			b.aside("awaits_birth", "alias %d: no birth that holds gives it a name; a rebirth was asked for, retry this afterwards", m.alias)
			continue
		}
		if m.template != nil {
			h.instance(&b, n, p, m, t.Device, isBirth && live)
			continue
		}
		h.metric(&b, p, m)
	}
	if b.more > 0 {
		b.letters[maxLetters-1].Detail += fmt.Sprintf("; %d more of this message", b.more)
	}
	return b.readings, b.letters
}

// instance adds the metrics of an instance of a template, as if they lay in a folder
// of its name; a birth defines their types.
func (h *Host) instance(b *batch, n *node, p *payload, m *metric, device string, birth bool) {
	if m.template.definition {
		h.definitions.Add(1)
		return
	}
	for i := range m.template.metrics {
		part := m.template.metrics[i]
		if part.name == "" {
			b.aside("bad_name", "metric %d of template %.200q has no name", i, m.name)
			continue
		}
		part.name = m.name + "/" + part.name
		if part.timestamp == 0 {
			part.timestamp = m.timestamp
		}
		part.transient = part.transient || m.transient
		if birth {
			n.define(device, &metric{name: part.name, datatype: part.datatype})
		}
		if part.datatype == 0 {
			part.datatype = n.types[metricID{device, part.name}]
		}
		if part.template != nil {
			h.instance(b, n, p, &part, device, birth)
			continue
		}
		h.metric(b, p, &part)
	}
}

// define remembers what a birth says of a metric.
func (n *node) define(device string, m *metric) {
	if len(n.types) >= maxMetrics || len(n.aliases) >= maxMetrics || m.name == "" {
		return
	}
	id := metricID{device, m.name}
	n.types[id] = m.datatype
	if m.hasAlias {
		n.aliases[m.alias] = definition{id, m.datatype}
	}
}

// resolve gives a metric its name and type, and returns false when nobody knows
// them for certain.
func (n *node) resolve(device string, m *metric) bool {
	if m.name == "" {
		d, ok := n.aliases[m.alias]
		if !m.hasAlias || !ok || !n.born || d.device != device {
			return false
		}
		m.name = d.name
		if m.datatype == 0 {
			m.datatype = d.datatype
		}
	}
	if m.datatype == 0 {
		m.datatype = n.types[metricID{device, m.name}]
	}
	return true
}

// metric adds the value of a metric to its reading.
func (h *Host) metric(b *batch, p *payload, m *metric) {
	if m.name == "bdSeq" || strings.HasPrefix(m.name, "Node Control/") || strings.HasPrefix(m.name, "Device Control/") || m.transient || m.null {
		return
	}
	kind, name := h.cfg.Kind, m.name
	if at := strings.LastIndexByte(m.name, '/'); at > 0 {
		kind, name = clean(strings.ReplaceAll(m.name[:at], "/", "."), '_'), m.name[at+1:]
	}
	v := telemetry.Value{Name: clean(name, '_')}
	if !utf8.ValidString(m.name) || !telemetry.ValidName(kind) || kind == "warning" || !telemetry.ValidName(v.Name) || telemetry.Reserved(v.Name) {
		b.aside("bad_name", "no name can be made of metric %.200q", m.name)
		return
	}
	if reason, detail := m.value(&v); reason != "" {
		b.aside(reason, "metric %.200q %s", m.name, detail)
		return
	} else if v.Text == "" && m.field == fieldString {
		return // an empty word
	}
	if m.hasQuality {
		v.Quality = qualityOf(m.quality)
	}
	at := m.timestamp
	if at == 0 {
		at = p.timestamp
	}
	b.add(place{kind, at}, v)
}

// value reads the value of a metric, or says why it is none.
func (m *metric) value(v *telemetry.Value) (reason, detail string) {
	if m.complicated || m.datatype > typeUUID {
		return "complicated", "is a data set, an array, bytes or a file, which are not kept"
	}
	if m.field == fieldString {
		if len(m.text) > telemetry.MaxTextBytes || !utf8.ValidString(m.text) {
			return "text_too_long", fmt.Sprintf("is a word of more than %d bytes, or not UTF-8", telemetry.MaxTextBytes)
		}
		v.Text = m.text
		return "", ""
	}
	n, ok := m.number(m.datatype)
	switch {
	case !ok:
		return "no_values", "has no value and is not null"
	case !telemetry.Finite(n):
		return "not_finite", "is not a finite number"
	case m.field == fieldLong && math.Abs(n) > telemetry.MaxInteger:
		return "integer_too_large", "is an integer beyond 2^53"
	}
	v.Number = n
	return "", ""
}

// qualityOf reads the property Quality: 192 is good, 500 stale, 0 bad (those of
// OPC, which 6.4.13 has for its example).
func qualityOf(q int64) telemetry.Quality {
	switch q {
	case 192:
		return telemetry.Good
	case 0:
		return telemetry.Bad
	}
	return telemetry.Suspect
}

// add puts a value into the reading of its place; the last of a name wins.
func (b *batch) add(p place, v telemetry.Value) {
	i, ok := b.at[p]
	if !ok {
		i = len(b.readings)
		r := telemetry.Reading{Device: b.device, Kind: p.kind}
		if p.time > 0 {
			r.Time = time.UnixMilli(int64(min(p.time, 1<<53))).UTC()
		}
		b.readings = append(b.readings, r)
		b.at[p] = i
	}
	r := &b.readings[i]
	r.Quality = max(r.Quality, v.Quality)
	for j := range r.Values {
		if r.Values[j].Name == v.Name {
			r.Values[j] = v
			return
		}
	}
	if len(r.Values) == telemetry.MaxValues {
		b.aside("too_many_values", "more than %d values of kind %s at one time", telemetry.MaxValues, p.kind)
		return
	}
	r.Values = append(r.Values, v)
}

// clean makes a name of a word: every run of characters that a name cannot have
// becomes one glue, none at the ends.
func clean(s string, glue byte) string {
	var b strings.Builder
	gap := false
	for _, c := range s {
		if unicode.IsLetter(c) || unicode.IsNumber(c) || b.Len() > 0 && (c == '.' || c == '_' || c == ':' || c == '-') {
			if gap && b.Len() > 0 {
				b.WriteByte(glue)
			}
			gap = false
			b.WriteRune(c)
			continue
		}
		gap = true
	}
	return b.String()
}
