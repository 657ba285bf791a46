// Package modbus polls instruments that speak Modbus and makes Readings of
// their registers.
//
// # Lines, units, profiles
//
// A Line is one medium (in this release a Modbus TCP connection) with one or
// more units on it. What a unit's registers mean is no code but a Profile, a
// YAML file. Some are built in (devices/*.yaml); users add their own in a
// folder, and one of the same name replaces the built-in one:
//
//	name: level-probe
//	title: Submersible level transmitter
//	source: where the register map was published
//	unit_ids: [250]            # ids beyond 1..247 that this instrument uses
//	max_words: 125             # longest read of registers, 1..125
//	max_gap: 0                 # unlisted registers that one read may run over
//	forbidden: [{first: 0x10, last: 0x1F}]      # never read; table: holding
//	options: [{name: tank_scale, default: 0.01, choices: [0.01, 0.1]}]
//	registers:
//	  - value: river.level_m   # kind.value; one poll makes one Reading per kind
//	    address: 0x0004        # as on the wire, from 0
//	    table: holding         # holding (default), input, coil, discrete
//	    type: int16            # see below; default uint16
//	    order: ABCD            # order of the bytes as sent: ABCD BADC CDAB DCBA
//	    mask: 0x00FF           # these bits only, shifted down; unsigned types
//	    scale: 0.01            # value = raw * scale + offset; or an option's name
//	    offset: 0
//	    not_available: [0x7FFF]     # raw codes that are no values
//
// Types are int16, uint16, int32, uint32, int64, uint64, float32, float64,
// bcd16, bcd32, and string with its number of words. Coils and discrete inputs
// have no type: they are 0 or 1.
//
// # What is promised
//
// A value is delivered only when the answer belongs to the request: same
// transaction, unit and function, and exactly as many bytes as were asked for.
// Anything else closes the connection, so that a late answer cannot be taken
// for the next one. NaN, infinities, the profile's not-available codes,
// impossible BCD digits and integers beyond 2^53 are left out and counted.
//
// Units are polled on a fixed schedule, one request at a time. A unit that does
// not answer is asked again at once on a fresh connection, then told as not
// connected and backed off, up to ten intervals or five minutes. An exception
// is an answer: it is counted by its code and the unit stays connected, except
// codes 10 and 11, with which a gateway says that the unit did not answer. A
// block of several values that is refused (exceptions 2 and 3) is read in
// halves, so that a register that one variant of an instrument lacks costs its
// own value only. The whole block is tried again after 10 minutes, and then at
// pauses that double up to 6 hours. One warning lists the values that are
// refused, and one line says when they are answered again.
//
// A line that cannot be connected, or is closed by its peer while no unit
// answers, ends Run with an error; the caller backs off and runs it again.
//
// Source: MODBUS Application Protocol Specification V1.1b3 and MODBUS Messaging
// on TCP/IP Implementation Guide V1.0b (modbus.org).
package modbus
