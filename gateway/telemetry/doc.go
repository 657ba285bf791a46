// Package telemetry holds the nouns that every other package of Hải Đăng
// shares: Reading, Value, Quality, Kind, Device, Warning, DeadLetter and Fault.
//
// It imports the standard library only, does no I/O, starts no goroutine and
// never asks the time: whatever happens here is a function of its arguments.
// Every package imports telemetry and no other package of ours; what crosses
// a package border is made of these nouns.
//
// # Values
//
// A value is a float64 or a word. Booleans are 0 or 1. A value that is missing
// is absent, never zero; NaN and infinities are not values. The unit is part of
// a value's name: level_m, pm25_ugm3, speed_kn.
//
// # Reserved kinds
//
// Kinds whose name begins with "_" are the log's own records (start of the
// gateway, clock jump, tick, control). No device can send them, because a valid
// name begins with a letter or a digit. They are not written to InfluxDB.
package telemetry
