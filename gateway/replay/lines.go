package replay

import (
	"bytes"
	"fmt"
	"time"

	"haidang/gateway/telemetry"
)

// lines decodes line protocol.
type lines struct {
	parse func(line []byte) (telemetry.Reading, error)
}

// LineProtocol returns a decoder for InfluxDB lines that are read by parse.
// Readings without a timestamp get the time of their place in the file.
func LineProtocol(parse func(line []byte) (telemetry.Reading, error)) Decoder {
	return lines{parse}
}

// Line implements Decoder.
func (l lines) Line(line []byte, at time.Time, sink Sink) error {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] == '#' {
		return nil
	}
	reading, err := l.parse(line)
	if err != nil {
		return sink.Reject(telemetry.DeadLetter{Reason: "bad_line_protocol", Detail: fmt.Sprintf("not line protocol: %v", err), Bytes: line})
	}
	if reading.Time.IsZero() {
		reading.Time = at
	}
	return sink.Take([]telemetry.Reading{reading})
}

// End implements Decoder.
func (lines) End(Sink) error { return nil }
