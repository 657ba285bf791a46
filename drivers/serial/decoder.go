package serial

import (
	"time"

	"haidang/gateway/telemetry"
)

// A verdict says what became of a line.
type verdict uint8

const (
	used        verdict = iota // it gave values, or said that there are none
	unused                     // it is right, and not of use here
	badChecksum                // its checksum is wrong or missing
	malformed                  // it is not what the format wants
	tooLong                    // it is longer than a line may be
	verdicts
)

// verdictNames are the words for counting.
var verdictNames = [verdicts]string{used: "used", unused: "unused", badChecksum: "bad_checksum", malformed: "malformed", tooLong: "too_long"}

// heard reports whether the line shows that the instrument works.
func (v verdict) heard() bool { return v <= unused }

// A sink takes what lines say.
type sink interface {
	// value takes one value of the device's kind.
	value(kind string, v telemetry.Value)
	// at gives the time that the instrument itself has for the kind's values of
	// this line.
	at(kind string, t time.Time)
	// lost counts a field that was there and could not be used.
	lost(reason string)
}

// Reasons for which a field is lost.
const (
	lostInvalid = "invalid"   // the instrument says that it does not trust it
	lostField   = "bad_field" // it is damaged: no number where one was expected
	lostUnit    = "bad_unit"  // its unit is unknown or measures something else
	lostMissing = "no_field"  // the line has no such field
)

// A decoder reads the lines of one format. It keeps no state between lines.
type decoder interface {
	// decode gives what the line says to out. now is the time of receipt.
	decode(line []byte, now time.Time, out sink) verdict
}

// newDecoder returns the decoder for a valid configuration.
func newDecoder(c *Config) decoder {
	switch c.Format {
	case NMEA:
		return newNMEA(c)
	case VaisalaWXT:
		return newWXT(c)
	}
	return newPattern(c)
}
