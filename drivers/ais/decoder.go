package ais

import (
	"time"

	"haidang/gateway/telemetry"
)

// MaxMMSI is the highest number of nine digits.
const MaxMMSI = 999_999_999

// A Decoder turns lines into readings. It keeps the parts of incomplete
// messages, so each stream of lines (a connection, a file) has one of its own.
// It is not safe for concurrent use, does no I/O and never asks the time.
type Decoder struct {
	parser   *parser
	unpacker *unpacker
	position position // reused

	fleet    *Fleet // nil: every message for itself
	policy   Policy
	limits   limits
	receiver uint64 // a hash of its name
	station  uint64 // of the message before
	bit      uint64 // of receiver and station in the fleet; 0: not asked

	// Of the message in hand.
	at   time.Time // when it was sent, as far as is known
	emit func(telemetry.Reading)
}

// NewDecoder returns a decoder of one stream of lines that knows of no other:
// every message makes its readings, whatever was heard before. A gateway and a
// replay use Fleet.Decoder.
func NewDecoder() *Decoder {
	return &Decoder{parser: newParser(), unpacker: newUnpacker()}
}

// Feed decodes one line without its end and calls emit for each reading that
// it completes. at is when the line was received; it limits how long a part
// waits for the next, and is the time of a line that says none where that
// matters (merging, thinning). It may be zero. The time of a reading is the
// line's own, or zero when it says none or a wrong one. Feed returns the reason
// for which the line or a part of it was refused, or None. The line may be
// reused afterwards; the readings belong to the caller.
func (d *Decoder) Feed(line []byte, at time.Time, emit func(telemetry.Reading)) Reason {
	badMMSI := false
	d.emit = emit
	reason := d.parser.feed(line, at, func(m *message) {
		if m.mmsi == 0 || m.mmsi > MaxMMSI {
			badMMSI = true
			d.parser.reject(BadMMSI)
			return
		}
		d.take(m, at)
	})
	d.emit = nil
	if badMMSI && reason == None {
		return BadMMSI
	}
	return reason
}

// take makes the readings of a message.
func (d *Decoder) take(m *message, at time.Time) {
	d.judgeClock(m, at)
	if d.at = m.time; d.at.IsZero() {
		d.at = at
	}
	if d.fleet != nil && d.fleet.sighted(m, d.by(m), d.at) {
		d.parser.counts.Duplicates++
		return
	}
	d.readings(m)
}

// by is the bit of who heard the message.
func (d *Decoder) by(m *message) uint64 {
	if d.bit == 0 || m.station != d.station {
		d.station, d.bit = m.station, d.fleet.receiver(d.receiver, m.station)
	}
	return d.bit
}

// judgeClock drops the line's own time where the policy does not believe it.
// The time of a distress message has to be near that of receipt whatever the
// policy says: what is late raises no warning.
func (d *Decoder) judgeClock(m *message, at time.Time) {
	if m.time.IsZero() || d.policy.MaxSkew == 0 || at.IsZero() {
		return
	}
	most := d.policy.MaxSkew
	if distress(m.mmsi) {
		most = min(most, DefaultMaxSkew)
	}
	if skew := m.time.Sub(at); skew > most || skew < -most {
		m.time = time.Time{}
		if most > 0 {
			d.parser.counts.WrongClock++
		}
	}
}

// send hands a reading over when it has a value.
func (d *Decoder) send(device, kind string, at time.Time, values []telemetry.Value) {
	if len(values) == 0 {
		return
	}
	r := telemetry.Reading{Device: device, Kind: kind, Time: at, Values: values}
	for i := range values {
		r.Quality = max(r.Quality, values[i].Quality)
	}
	d.parser.counts.Readings++
	d.emit(r)
}

// place asks the fleet what becomes of a position.
func (d *Decoder) place(m *message, r report, l limits) verdict {
	if d.fleet == nil {
		return verdict{device: deviceName(m.mmsi)}
	}
	v := d.fleet.place(m, r, l, d.at)
	if v.thinned {
		d.parser.counts.Thinned++
	}
	if v.bad {
		d.parser.counts.Implausible++
	}
	return v
}

// sendPosition hands a position over as the fleet has judged it.
func (d *Decoder) sendPosition(m *message, v verdict, values []telemetry.Value) {
	if v.track > 0 {
		values = appendNumber(values, "track", float64(v.track))
	}
	if v.receivers > 0 && len(values) > 0 {
		values = appendNumber(values, "receivers", float64(v.receivers))
	}
	if v.bad {
		for i := range values {
			values[i].Quality = telemetry.Bad
		}
	}
	d.send(v.device, telemetry.KindPosition, m.time, values)
	if v.vessels > 0 { // others use the number now, or no longer
		known := d.fleet.known(m, d.at)
		d.sendFacts(m, deviceName(m.mmsi), known, v.vessels)
	}
}

// learn hands facts over when they are news.
func (d *Decoder) learn(m *message, from part, said facts) {
	if d.fleet == nil {
		d.send(deviceName(m.mmsi), telemetry.KindVessel, m.time, said.values())
		return
	}
	known, vessels, device, due := d.fleet.learn(m, from, said, d.policy.Refresh, d.at)
	if !due {
		d.parser.counts.Unchanged++
		return
	}
	d.sendFacts(m, device, known, vessels)
}

// sendFacts hands facts over. Of a number that several vessels use they are
// suspect: which of them says so is not known.
func (d *Decoder) sendFacts(m *message, device string, known facts, vessels uint8) {
	values := known.values()
	if vessels > 1 {
		for i := range values {
			values[i].Quality = telemetry.Suspect
		}
	}
	values = appendNumber(values, "vessels_on_mmsi", float64(vessels))
	d.send(device, telemetry.KindVessel, m.time, values)
}

// unchanged reports whether the message says the facts that are known.
func (d *Decoder) unchanged(m *message, from part) bool {
	if d.fleet == nil || !d.fleet.unchanged(m, from, d.policy.Refresh, d.at) {
		return false
	}
	d.parser.counts.Unchanged++
	return true
}

// TooLong counts a line that was over the bound and did not reach Feed.
func (d *Decoder) TooLong() {
	d.parser.counts.Lines++
	d.parser.reject(LineTooLong)
}

// End says that the stream has ended: messages that still wait for parts are
// counted as incomplete.
func (d *Decoder) End() { d.parser.end() }

// Counts returns what the decoder has seen so far.
func (d *Decoder) Counts() Counts { return d.parser.counts }
