package broker

import "haidang/gateway/telemetry"

// Again makes readings of a payload that was set aside, as a message on the
// topic would; the error says why it still cannot be used. What the account of a
// client may do is not looked at: whoever takes it in again answers for it.
func (b *Broker) Again(topic string, payload []byte) ([]telemetry.Reading, error) {
	r := b.route(topic)
	r.counts = b.metrics.families[r.family]
	if r.format == "" && r.fault == nil {
		return nil, faultf("bad_topic", "nothing is taken in on topic %q", topic)
	}
	if r.fault != nil {
		return nil, r.fault
	}
	readings, _, faults := b.read(r, b.sparkplug.Again, payload)
	if len(faults) > 0 {
		return nil, faults[0]
	}
	return readings, nil
}
