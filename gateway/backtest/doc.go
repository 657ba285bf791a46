// Package backtest tells what rules would have raised in the past.
//
// # Contract
//
// Run hands readings in the order of their receipt (time plus delay) to one or
// more Trials, each an engine with its rules, as the log of that time would
// have done, and keeps for each rule and device what came of it: how often it
// raised, when, for how long, how grave, how often it flapped. Compare puts two
// trials over the same readings side by side. The same readings give the same
// report.
//
// The store does not know when the gateway itself was down. With Options.Gap a
// time of that length in which nothing at all was received counts as such a
// time, and pages nobody for silence, as in production.
//
// Times before Options.From are warming up: windows fill, and a warning that is
// still active at From counts from there.
package backtest
