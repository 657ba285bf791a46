package broker

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"

	"haidang/broker/mapping"
	"haidang/broker/senml"
	"haidang/broker/sparkplug"
	"haidang/gateway/telemetry"
)

// sparkplugRoute is the route of a topic of Sparkplug; commands and STATE are
// ordinary MQTT. Births and deaths say what is connected, not the client.
func sparkplugRoute(topic string) *route {
	parsed, ours := sparkplug.ParseTopic(topic)
	if !ours {
		return &route{family: familyOther}
	}
	r := &route{family: familySparkplug, format: formatSpark, spark: parsed, linked: true}
	if parsed == nil {
		r.fault = faultf("bad_topic", "topic %q is not spBv1.0/{group}/N.../{edge} or spBv1.0/{group}/D.../{edge}/{device}", topic)
	}
	return r
}

// route tells what a topic is, mappings included.
func (b *Broker) route(topic string) *route {
	if slices.Contains(b.cfg.Sparkplug.StateTopics(), topic) {
		return &route{family: familyOther, own: true}
	}
	r := newRoute(topic, b.cfg.Topics)
	if r.spark != nil {
		r.device = b.cfg.Sparkplug.Name(r.spark)
	}
	if r.family != familyOther || r.own {
		return r
	}
	m := b.mappings.Load().Match(topic)
	if m == nil {
		return r
	}
	r = &route{family: familyMapped, format: formatMapped, mapped: m, device: m.Device()}
	if r.device == "" || !telemetry.ValidName(r.device) {
		// Each payload says the device, or why there is none; nobody can say of a
		// connection that it carries it.
		r.device, r.linked = "", true
	}
	return r
}

// tellState says that this program is there as a host of Sparkplug, or goes.
func (b *Broker) tellState(online bool) {
	for _, m := range b.cfg.Sparkplug.State(online, time.Now()) {
		if err := b.Publish(m.Topic, m.Payload, true, 1); err != nil {
			b.logger.Warn("the state of the Sparkplug host is not told", "topic", m.Topic, "error", err)
		}
	}
}

// A sparkplugHost reads messages of Sparkplug: Take or Again of a host.
type sparkplugHost func(*sparkplug.Topic, []byte, time.Time) ([]telemetry.Reading, []telemetry.DeadLetter)

// command publishes a request for a rebirth to the broker's own clients.
func (b *Broker) command(topic string, payload []byte) {
	b.forward(&forward{publication: publicationOf(&packets.Packet{TopicName: topic, Payload: payload}, 0)})
}

// read makes readings of a payload in the format of the route, and returns the
// payload as it was read, inflated.
func (b *Broker) read(r *route, host sparkplugHost, payload []byte) ([]telemetry.Reading, []byte, []*fault) {
	if len(payload) > 1 && payload[0] == 0x1f && payload[1] == 0x8b { // RFC 1952, 2.3.1; no other format begins so
		inflated, f := inflate(payload)
		if f != nil {
			return nil, payload, []*fault{f}
		}
		payload = inflated
	}
	var readings []telemetry.Reading
	var faults []*fault
	switch r.format {
	case formatInflux:
		readings, faults = r.decodeLines(payload)
	case formatSenML:
		readings, faults = lettersAsFaults(senml.Decode(r.device, payload, time.Now()))
	case formatSpark:
		readings, faults = lettersAsFaults(host(r.spark, payload, time.Now()))
	case formatMapped:
		if r.mapped.Influx() {
			readings, faults = r.decodeMappedLines(payload)
			break
		}
		readings, faults = lettersAsFaults(r.mapped.Decode(payload))
	default:
		readings, faults = r.decodeJSON(payload)
	}
	return readings, payload, faults
}

// inflate unpacks gzip (RFC 1952) up to maxPayloadBytes.
func inflate(payload []byte) ([]byte, *fault) {
	z, err := gzip.NewReader(bytes.NewReader(payload))
	if err != nil {
		return nil, faultf("bad_gzip", "the payload begins as gzip and is none: %v", err)
	}
	out := bytes.NewBuffer(make([]byte, 0, min(4*len(payload), maxPayloadBytes)))
	n, err := io.Copy(out, io.LimitReader(z, maxPayloadBytes+1))
	switch {
	case n > maxPayloadBytes:
		return nil, faultf("too_large", "the payload unpacks to more than %d bytes", maxPayloadBytes)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, faultf("bad_gzip", "the gzip payload is cut off after %d bytes", n)
	case err != nil:
		return nil, faultf("bad_gzip", "the gzip payload is broken after %d bytes: %v", n, err)
	}
	return out.Bytes(), nil
}

// lettersAsFaults takes over what a decoder of a package of its own could not use.
// The whole payload is kept with it: a part alone could not be taken in again.
func lettersAsFaults(readings []telemetry.Reading, letters []telemetry.DeadLetter) ([]telemetry.Reading, []*fault) {
	var faults []*fault
	for i := range letters {
		l := &letters[i]
		faults = append(faults, &fault{reason: l.Reason, detail: l.Detail, device: l.Device})
	}
	return readings, faults
}

// decodeMappedLines reads line protocol whose device a mapping makes of topic and
// tags.
func (r *route) decodeMappedLines(payload []byte) ([]telemetry.Reading, []*fault) {
	plain := &route{format: formatInflux}
	readings, faults := plain.decodeLines(payload)
	kept := readings[:0]
	for i := range readings {
		if letter := r.mapped.Fold(&readings[i]); letter != nil {
			faults = append(faults, &fault{reason: letter.Reason, detail: letter.Detail, device: letter.Device})
			continue
		}
		kept = append(kept, readings[i])
	}
	return kept, faults
}

// A Reader makes readings of messages that came another way than from a client,
// as a message on the topic would.
type Reader struct {
	broker *Broker
	host   *sparkplug.Host
}

// NewReader returns a reader without a broker around it, to try what a payload
// becomes.
func NewReader(cfg Config, mappings *mapping.Set) *Reader {
	b := &Broker{cfg: cfg, metrics: newMetrics(prometheus.NewRegistry())}
	b.SetMappings(mappings)
	return b.Reader(func(string, []byte) {})
}

// Reader returns a reader; one belongs to one place that messages come from.
// command publishes there what a Sparkplug node is told, and must not block.
func (b *Broker) Reader(command func(topic string, payload []byte)) *Reader {
	return &Reader{broker: b, host: sparkplug.NewHost(b.cfg.Sparkplug, command)}
}

// Read returns what a message becomes. known is false for a topic that carries
// no telemetry. Letters have place, reason, detail and bytes.
func (r *Reader) Read(topic string, payload []byte) (readings []telemetry.Reading, letters []telemetry.DeadLetter, known bool) {
	route := r.broker.route(topic)
	if route.format == "" {
		return nil, nil, false
	}
	route.counts = r.broker.metrics.families[route.family]
	m := r.broker.decode(route, r.host.Take, topic, payload, false)
	return m.readings, m.letters, true
}
