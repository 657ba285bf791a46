// Package ais turns AIS sentences into readings of vessels.
//
// It has four layers, each usable alone in tests:
//
//   - sentences (sentence.go, tagblock.go): one line of NMEA 0183 or IEC
//     61162-450 with a tag block, a time before the "!" or a suffix after the
//     checksum. A wrong checksum is counted and the line is dropped.
//   - messages (assembly.go, payload.go): parts are joined in order, bounded in
//     number and time; the payload's length is checked for its type.
//   - packets: types 1, 2, 3 and 18, nine in ten of what is heard, are read
//     straight from the bits; the others by go-ais, with its texts cut at the
//     first "@".
//   - readings (reading.go) for the gateway, or gpsd's JSON (gpsd.go) for people.
//
// # Readings
//
// The device is mmsi-<nine digits>. A value that says "not available" (ITU-R
// M.1371-5, Annex 8) or is out of range is absent.
//
//	kind position, from types 1 2 3 9 18 19 21 27
//	  lat -90..90, lon -180..180   degrees, WGS 84; always both or none
//	  speed_kn 0..102.2            102.2 means that or more; type 9: 0..1022
//	  course_deg 0..359.9          over ground
//	  heading_deg 0..359           true
//	  turn_degmin -708.7..708.7    to starboard is positive
//	  nav_status 0..14             code; 15 only from 970, 972 and 974 (under test)
//	  altitude_m 0..4094           SAR aircraft
//	  off_position 0 or 1          aid to navigation
//	kind vessel, from types 5 19 21 24
//	  name callsign destination eta (as 10-27T13:00Z)     words
//	  imo, ship_type 1..255, length_m 1..1022, beam_m 1..126, draught_m 0.1..25.5
//	  aid_type 1..31               aid to navigation
//	kind safety, from type 14
//	  text                         word
//
// lat and lon are suspect when the station says that its position is entered by
// hand, dead reckoning or not working (second 61, 62, 63).
//
// # Time
//
// A reading's time is the tag block's c:, else a $PGHP sentence before it, a
// time before the "!" or the receiver's Unix time after the checksum, else zero:
// the gateway then stamps the time of receipt.
package ais
