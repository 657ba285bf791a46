package ais

import "haidang/gateway/telemetry"

// facts are what a station says of itself. The zero value of a field means that
// it does not say.
type facts struct {
	name, callsign, destination, eta string
	imo                              uint32
	length, beam                     uint16 // metres
	shipType, aidType, draught       uint8  // draught in 1/10 metre
}

// A part is one of the messages that carry facts of one station. A part says
// all that it can say each time: what it leaves out is no longer so.
type part uint8

// The parts.
const (
	partShip     part = iota // type 5
	partExtended             // type 19
	partAid                  // type 21
	partName                 // type 24 A
	partClassB               // type 24 B
	partCount    int  = iota
)

// merge returns f with what the part says put in place.
func (f facts) merge(from part, said facts) facts {
	switch from {
	case partShip:
		return said
	case partName:
		f.name = said.name
	case partClassB:
		f.callsign, f.shipType, f.length, f.beam = said.callsign, said.shipType, said.length, said.beam
	case partExtended:
		f.name, f.shipType, f.length, f.beam = said.name, said.shipType, said.length, said.beam
	case partAid:
		f.name, f.aidType, f.length, f.beam = said.name, said.aidType, said.length, said.beam
	}
	return f
}

// values lists the facts that are known.
func (f *facts) values() []telemetry.Value {
	if *f == (facts{}) {
		return nil
	}
	v := make([]telemetry.Value, 0, 10)
	v = appendWord(v, "name", f.name)
	v = appendWord(v, "callsign", f.callsign)
	v = appendWord(v, "destination", f.destination)
	v = appendWord(v, "eta", f.eta)
	v = appendKnown(v, "imo", float64(f.imo))
	v = appendKnown(v, "ship_type", float64(f.shipType))
	v = appendKnown(v, "aid_type", float64(f.aidType))
	v = appendKnown(v, "length_m", float64(f.length))
	v = appendKnown(v, "beam_m", float64(f.beam))
	return appendKnown(v, "draught_m", float64(f.draught)/10)
}

// appendKnown adds a number of which 0 means not available.
func appendKnown(v []telemetry.Value, name string, n float64) []telemetry.Value {
	if n == 0 {
		return v
	}
	return appendNumber(v, name, n)
}

// A memoir is what the fleet remembers of a station's facts.
type memoir struct {
	facts facts
	sums  [partCount]uint64 // of the newest payload of each part
	sent  int64             // when they were last handed on, Unix ms; 0: never
	using uint8             // how many vessels used the number then
}
