// Package influx is the store: every reading in InfluxDB, and the way back by
// InfluxQL.
//
// # Two servers, one writer
//
// Without a URL the storage engine of InfluxDB 1.13 runs inside the process, in
// a folder of its own, and answers InfluxDB's HTTP API on Config.Listen. With a
// URL the same writer sends to that server: InfluxDB 1.8 or later, or 2.x with
// token, organisation and bucket. Both are written with influxdb-client-go; in
// the embedded case its HTTP client has a transport that calls the engine's
// handler instead of a socket. The client's own retries and buffers are not
// used: the log is the buffer, and Write returns when InfluxDB has answered.
//
// # What Write promises
//
// Write takes line protocol as it lies in the log and returns nil when InfluxDB
// has accepted every line; in the embedded engine they are then in its
// write-ahead log and synced to the disk. Lines that InfluxDB refuses are named
// in a *telemetry.Rejection, each with the reason, and all others are stored.
// Any other error means that the whole batch is to be sent again, which is
// harmless: the same series and time again overwrites.
//
// A line counts as stored only when a request that held it was answered with
// 204, and as refused only when it was refused alone or in a request that
// InfluxDB says to have dropped entirely. This needs more requests than reading
// the text of the answer, but that text does not name every line: the engine
// answers for the first shard that refuses, and for a type conflict before a
// syntax error.
//
// # The folder
//
//	lock        held with flock(2) while the store is open; contains the pid
//	meta/       meta.db: database, retention policy, shard groups
//	data/       haidang/autogen/<shard>/*.tsm, haidang/_series
//	wal/        haidang/autogen/<shard>/*.wal
//
// There is one database, haidang, with one retention policy, autogen. A policy
// for each kind would hide its measurement from a plain SELECT ... FROM kind;
// so the policy keeps for the longest of the configured times, and what is kept
// shorter is deleted by measurement once an hour.
//
// # Accidents
//
// The engine alone does not survive two accidents that a small box meets, and
// this package mends both. An entry of the write-ahead log that a power cut
// left incomplete makes it lose, at the next start but one, whatever was
// acknowledged after the first: so the logs are repaired before it opens them.
// And an error of a file, a full disk first of all, stays with it for ever: so
// Run opens the engine again as soon as there is room, while the log keeps the
// readings.
//
// # The port
//
// What listens is not the engine's handler but a short list of paths in front
// of it: /query for statements that only read, /ping, /health, and /write and
// /api/v2/write for the handler that main gives (they append to the log and
// never write to the engine directly; a database other than haidang is 404). Everything else, the engine's /metrics,
// /debug and bucket administration among it, is 404.
package influx
