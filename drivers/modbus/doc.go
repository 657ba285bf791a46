// Package modbus polls instruments that speak Modbus and makes Readings of
// their registers.
//
// # Lines, units, profiles
//
// A Line is one medium with one or more units on it, or a port that modems dial
// in to, each with its own units:
//
//	tcp://host:502                        Modbus TCP
//	rtu+tcp://host:port                   RTU frames over TCP, to a serial server
//	serial:///dev/ttyUSB0?baud=9600       RTU frames on a serial line; see package link
//	listen://:9502                        RTU frames of modems that dial in
//
// What a unit's registers mean is no code but a Profile, a YAML file. Some are
// built in (devices/*.yaml); users add their own in a folder, and one of the same
// name replaces the built-in one:
//
//	name: level-probe
//	title: Submersible level transmitter
//	source: where the register map was published
//	unit_ids: [250]            # ids beyond 1..247 that this instrument uses
//	max_words: 125             # longest read of registers, 1..125
//	max_bits: 2000             # longest read of coils and discrete inputs, 1..2000
//	max_gap: 0                 # unlisted registers, or bits, that one read may run over
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
//	status:                    # registers that judge the quality of values
//	  - {name: probe, address: 7, map: {0: good, 1: suspect}, default: bad, values: [river.level_m]}
//	writes:                    # what may be written, on units that name it in their writes
//	  - {name: height_m, address: 5, scale: 0.01, min: 0.1, max: 40}
//
// Types are int16, uint16, int32, uint32, int64, uint64, float32, float64,
// bcd16, bcd32, and string with its number of words. Coils and discrete inputs
// have no type: they are 0 or 1, and scale: -1 with offset: 1 turns a contact
// round. A value whose status could not be read is suspect.
//
// # What is promised
//
// A value is delivered only when the answer belongs to the request: same
// transaction or checksum, unit and function, and exactly as many bytes as were
// asked for. Noise and answers to other requests before it are skipped and
// counted. NaN, infinities, the profile's not-available codes, impossible BCD
// digits and integers beyond 2^53 are left out and counted.
//
// RTU frames have no transaction numbers, so a late answer looks like that to the
// next request of the same unit, table and length. Such a request is not sent
// while a late answer may come (see doubts): the poll leaves those values out, and
// they are counted as uncertain. An answer that comes twice is known by its bytes.
// So no value is wrong as long as answers come in the order of their requests,
// within 10 minutes, or overtake each other within three timeouts and a second.
// What is left:
//
//   - of a unit all of whose requests look alike, an answer later than that;
//   - an exception that comes twice, the second time later than 50 ms on a serial
//     line, 200 ms over TCP;
//   - two answers with equal bytes that both come twice, late;
//   - a value that is as old as its answer was late, when the answer to one try is
//     taken for that to the next try of the same request;
//   - what a line forges with a valid checksum, and over Modbus TCP, which has
//     none, bytes that are changed, or an answer that is cut short and completed by
//     exactly the bytes that are missing.
//
// Before each request the line has been silent for 3.5 characters (1.75 ms or
// more; 5 ms over TCP; pause sets more). After a timeout or a bad answer what
// still comes is read until the line is silent.
//
// # Polling
//
// Units are polled on a fixed schedule, the one first that is due first, one
// request at a time. A unit that does not answer is asked again at once, then told
// as not connected and backed off, up to ten intervals or five minutes. A TCP
// connection is made anew when a unit dies, but not for each try of a unit that is
// known to be down while others answer. An exception is an answer: it is counted
// by its code and the unit stays connected, except codes 10 and 11, with which a
// gateway says that the unit did not answer. A block of several values that is
// refused (exceptions 2 and 3) is read in halves, so that a register that one
// variant of an instrument lacks costs its own value only. The whole block is
// tried again after 10 minutes, and then at pauses that double up to 6 hours. One
// warning lists the values that are refused, and one line says when they are
// answered again.
//
// A line that cannot be connected, or is closed by its peer while no unit
// answers, ends Run with an error; the caller backs off and runs it again. On a
// serial line the error has link's method Wait, and unplugging is noticed between
// polls as well.
//
// # Modems
//
// A modem says first who it is: a text or bytes anywhere in its first packet, or a
// pattern for the whole of it. Where several fit the longest is meant. A modem
// that dials in again takes the place of its old connection. Its registration and
// its heartbeat are skipped between frames and within one. Who is not known within
// 30 s or 256 bytes is disconnected, counted, and told once. Each modem has link
// readings of its own name, and is told as not connected when it has not dialled
// in within 2 minutes. Registrations are no secrets: let the port be reached only
// from the modems' network.
//
// # By hand
//
// Line.Registers, Read and Write go between two polls of a line that runs, and
// open one that does not. A write is what the unit's configuration allows, within
// the bounds of the profile. It is sent once, on a connection that has just
// answered, by function 5, 6, 15 or 16; it is read back, logged and counted.
//
// Source: MODBUS Application Protocol Specification V1.1b3, MODBUS over Serial
// Line V1.02 and MODBUS Messaging on TCP/IP Implementation Guide V1.0b
// (modbus.org).
package modbus
