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
}

// NewDecoder returns a decoder of one stream of lines.
func NewDecoder() *Decoder {
	return &Decoder{parser: newParser(), unpacker: newUnpacker()}
}

// Feed decodes one line without its end and calls emit for each reading that
// it completes. at is when the line was received; it only limits how long a
// part waits for the next, and may be zero (no limit). The time of a reading is
// the line's own, or zero when it says none. Feed returns the reason for which
// the line or a part of it was refused, or None. The line may be reused
// afterwards; the readings belong to the caller.
func (d *Decoder) Feed(line []byte, at time.Time, emit func(telemetry.Reading)) Reason {
	badMMSI := false
	reason := d.parser.feed(line, at, func(m *message) {
		if m.mmsi == 0 || m.mmsi > MaxMMSI {
			badMMSI = true
			d.parser.reject(BadMMSI)
			return
		}
		d.readings(m, func(r telemetry.Reading) {
			d.parser.counts.Readings++
			emit(r)
		})
	})
	if badMMSI && reason == None {
		return BadMMSI
	}
	return reason
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
