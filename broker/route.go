package broker

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"haidang/broker/mapping"
	"haidang/broker/sparkplug"
	"haidang/gateway/telemetry"
)

// The first levels of topics with a meaning.
const (
	familyTelemetry = "telemetry"
	familyInflux    = "influx"
	familySenML     = "senml"
	familySparkplug = "sparkplug"
	familyMapped    = "mapped"
	familyOther     = "other"
	warningsLevel   = "warnings"
	levelSparkplug  = "spBv1.0"
)

const (
	formatJSON   = "json"
	formatInflux = "influx"
	formatSenML  = "senml"
	formatSpark  = "sparkplug"
	formatMapped = "mapped"  // as a mapping of the package mapping says
	kindWarning  = "warning" // the measurement of warnings
)

// A route is what the broker knows of a topic. It belongs to one connection.
type route struct {
	topic  string
	family string
	format string         // of the payload; empty for ordinary MQTT
	device string         // empty: the line itself says it
	kind   string         // empty in line protocol
	unit   time.Duration  // of timestamps in line protocol; 0: seen from their size
	mapped *mapping.Route // of a mapped topic
	spark  *sparkplug.Topic
	fault  *fault // why nothing on this topic can be taken in
	own    bool   // clients may not write here
	denied bool   // the account may not write here
	deep   bool   // the topic has too many levels
	quick  bool   // none of this: messages need not go through mochi

	counts *familyCounts
	linked bool     // the device's link is reported
	names  []string // names of the values of the last reading, to use again
	asked  uint64   // generation of subscriptions that heard was found in; 0: none
	heard  bool     // somebody subscribes
}

// A fault is why a payload or a part of it cannot be taken in.
type fault struct {
	reason string // one word for counting
	detail string // the sentence for people
	bytes  []byte // the part; nil: the whole payload
	line   int64  // number of the line, from 1; 0: not known
	device string // when it is known and not that of the topic
}

func (f *fault) Error() string { return f.reason + ": " + f.detail }

func faultf(reason, format string, args ...any) *fault {
	return &fault{reason: reason, detail: fmt.Sprintf(format, args...)}
}

// newRoute tells what a topic is.
func newRoute(topic string, mappings []Mapping) *route {
	first, rest, _ := strings.Cut(topic, "/")
	switch first {
	case familyTelemetry:
		r := &route{family: familyTelemetry, format: formatJSON}
		device, kind, ok := strings.Cut(rest, "/")
		if !ok || strings.Contains(kind, "/") {
			r.fault = faultf("bad_topic", "topic %q is not telemetry/{device}/{kind}", topic)
			return r
		}
		r.name(device, kind)
		return r
	case familyInflux:
		r := &route{family: familyInflux, format: formatInflux}
		if rest == "" || strings.Contains(rest, "/") {
			r.fault = faultf("bad_topic", "topic %q is not influx/{device}", topic)
			return r
		}
		r.name(rest, "")
		return r
	case familySenML:
		r := &route{family: familySenML, format: formatSenML}
		if rest == "" || strings.Contains(rest, "/") {
			r.fault = faultf("bad_topic", "topic %q is not senml/{device}", topic)
			return r
		}
		r.name(rest, "")
		return r
	case levelSparkplug:
		return sparkplugRoute(topic)
	case warningsLevel:
		return &route{family: familyOther, own: true}
	}
	for i := range mappings {
		if r := mappings[i].route(topic); r != nil {
			return r
		}
	}
	return &route{family: familyOther}
}

// name sets device and kind, or the fault when one cannot be a name.
func (r *route) name(device, kind string) {
	// The topic is a view of its packet: whoever keeps a name would keep it all.
	r.device, r.kind = strings.Clone(device), strings.Clone(kind)
	switch {
	case !telemetry.ValidName(device):
		r.fault = faultf("bad_name", "device %q is not a name of at most %d letters, digits and ._:- that begins with a letter or digit", device, telemetry.MaxNameRunes)
		r.device = ""
	case r.format == formatJSON:
		r.fault = checkKind(kind)
	}
}

func checkKind(kind string) *fault {
	if !telemetry.ValidName(kind) || kind == kindWarning {
		return faultf("bad_name", "kind %q is not a name of at most %d letters, digits and ._:- that begins with a letter or digit (and not %q)", kind, telemetry.MaxNameRunes, kindWarning)
	}
	return nil
}

// route returns nil when the mapping is not for this topic.
func (m *Mapping) route(topic string) *route {
	levels := strings.Split(topic, "/")
	filter := strings.Split(m.Topic, "/")
	for i, f := range filter {
		if f == "#" {
			break
		}
		if i >= len(levels) || f != "+" && f != levels[i] {
			return nil
		}
		if i == len(filter)-1 && len(levels) > len(filter) {
			return nil
		}
	}
	r := &route{family: familyMapped, format: formatJSON}
	if m.Format == formatInflux {
		r.format = formatInflux
	}
	r.name(pick(m.Device, levels), pick(m.Kind, levels))
	return r
}

// pick returns the level that spec numbers, or spec.
func pick(spec string, levels []string) string {
	n, err := strconv.Atoi(spec)
	if err != nil {
		return spec
	}
	if n < 1 || n > len(levels) {
		return ""
	}
	return levels[n-1]
}
