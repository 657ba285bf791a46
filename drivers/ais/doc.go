// Package ais turns AIS sentences into readings of vessels.
//
// It has five layers, each usable alone in tests:
//
//   - sentences (sentence.go, tagblock.go): one line of NMEA 0183 or IEC
//     61162-450 with a tag block, a time before the "!" or a suffix after the
//     checksum. A wrong checksum is counted and the line is dropped.
//   - messages (assembly.go, payload.go): parts are joined in order, bounded in
//     number and time; the payload's length is checked for its type.
//   - packets: types 1, 2, 3 and 18, nine in ten of what is heard, are read
//     straight from the bits; the others by go-ais, with its texts cut at the
//     first "@"; observations (met.go) from a table of their bits.
//   - the fleet (fleet.go), which all receivers share: duplicates (sighting.go),
//     vessels on one MMSI (track.go), thinning (thin.go), facts (facts.go).
//   - readings (reading.go) for the gateway, or gpsd's JSON (gpsd.go) for people.
//
// # Readings
//
// The device is mmsi-<nine digits>, or one of the forms below. A value that says
// "not available" (ITU-R M.1371-5, Annex 8) or is out of range is absent.
//
//	kind position, from types 1 2 3 4 9 11 18 19 21 27
//	  lat -90..90, lon -180..180   degrees, WGS 84; always both or none
//	  speed_kn 0..102.2            102.2 means that or more; type 9: 0..1022
//	  course_deg 0..359.9          over ground
//	  heading_deg 0..359           true
//	  turn_degmin -708.7..708.7    to starboard is positive
//	  nav_status 0..14             code; 15 only from 970, 972 and 974 (under test)
//	  altitude_m 0..4094           SAR aircraft
//	  off_position 0 or 1          aid to navigation
//	  track 1..16                  which vessel, while several use the MMSI
//	  receivers 1..64              how many heard the vessel since its position before,
//	                               where there are several
//	kind vessel, from types 5 19 21 24
//	  name callsign destination eta (as 10-27T13:00Z)     words
//	  imo, ship_type 1..255, length_m 1..1022, beam_m 1..126, draught_m 0.1..25.5
//	  aid_type 1..31               aid to navigation
//	  vessels_on_mmsi 1..16        how many vessels use the MMSI now
//	kind safety, from types 12 and 14
//	  text                         word
//	  to_mmsi                      of type 12: to whom
//	kinds weather and sea, from types 6 and 8 with DAC 1, FI 31 or 11: see met.go
//
// lat and lon are suspect when the station says that its position is entered by
// hand, dead reckoning or not working (second 61, 62, 63). Messages of other
// types and contents make no reading and are counted by type.
//
// # Fleet
//
// The same payload within ten seconds, whoever heard it and however often a
// repeater sent it on, is one message: it makes its reading when it is first
// heard.
//
// Several vessels on one MMSI: a report belongs to the vessel that can have come
// there at 40 knots, or a quarter more than it says it does. A report that fits
// none is stored with all its values bad, so that rules hold their state; a
// second one that fits it shows that another vessel uses the number. The first
// vessel keeps the device mmsi-<number>, the others are mmsi-<number>.2 to .16,
// each with rules, windows and silence of its own; facts, of which nobody knows
// whose they are, stay with the first and are suspect. A vessel is forgotten
// after a day. When the first is not heard since the other appeared, and can
// have come there or is silent for six hours, they were one whose position was
// wrong. Distress devices and aircraft are never told apart or doubted.
//
// Facts are merged from the messages that carry them (24 A and 24 B) and handed
// on whole when one has changed, and every Config.Refresh.
//
// An observation's device is the station. A coast station (00MIDxxxx) speaks for
// many instruments: their places are added, mmsi-005741001.1634n10738e. Its time
// is that of the observation.
//
// # Time
//
// A reading's time is the tag block's c: where the block's checksum is right,
// else a $PGHP sentence before it, a time before the "!" or the receiver's Unix
// time after the checksum; each only within Config.MaxSkew of receipt. Else it is
// zero: the gateway then stamps the time of receipt. The time of a distress
// message is never more than two minutes old, for what is late raises no warning.
package ais
