// Package scenario is the unit test of rule authors: files that say what
// devices send and which warnings are to come of it.
//
// # Contract
//
// A File holds Scenarios. Run makes the readings of one, hands them frame by
// frame to an Engine as the log would, folds its steps and the operators' acts
// on a telemetry.Board, and compares the transitions with what is expected.
// Time is log time that the scenario sets: nothing here asks the clock, and the
// same file gives the same outcome on every run.
//
// The records of the log are those of a gateway: the rules come in as control
// records, a time in which the gateway was down ends with a `_start`, a jump of
// the clock with a `_clock`. As in the gateway, numbers outside the range of
// their kind are bad and a delay of up to a second is none. Records of one
// instant come in the order events, series as listed, single readings.
//
// # Values of a series
//
// Values are written as items between spaces. Each stands for one slot of the
// series or, with a count, for several; all values of a series share the slots.
//
//	3.5  -2        one reading with this value
//	3.5x4          four readings with it
//	+0.1x20        twenty readings, each 0.1 more than the one before; -0.1x20 less
//	..5.05x6       six readings that go evenly to 5.05
//	=  =x3         the value before, again
//	_  _x5         a reading without this value
//	silent 30m     nothing is sent for so many slots
//	'ACTIVE'x2     a word
//	3.5!bad        with this quality
//	12.6x*         until the longest value of the series ends
//
// FORMAT.md describes the files for their authors.
//
// The first reading has no value before it, so that a list cannot begin with a
// step. A value whose list ends early is absent from there on; a slot in which
// no value is left sends nothing.
package scenario
