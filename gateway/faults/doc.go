// Package faults proves from outside what the gateway promises: it starts the
// real binary, loads it over MQTT, AIS and Modbus with numbered readings, does
// it harm, and reconciles.
//
// The tests run when HAIDANG_FAULTS is set: "ci" does each harm a few times
// (about three minutes on two cores), "full" as often as the issue of the
// project asks for (hours). `make faults` and `make faults-ci` set it. At the
// end a table says for each fault how often it was done, how many readings were
// acknowledged, lost and doubled, how many warnings were missed, and how long
// recovery took.
//
// With "ci" chance has a fixed seed, so that a failure is that of a change; "full"
// takes another each time and prints it, and HAIDANG_FAULTS_SEED repeats it. What is
// bounded in time may take six times as long with "ci": the machine is shared and
// may be slow, and a bound that is missed by a neighbour's work tells nothing. What
// must not be lost is held to the same with both.
//
// # What is reconciled
//
// A publisher numbers its readings, gives each a time of its own, keeps them in
// order, and sends those that were not acknowledged again after it has
// connected again, as a data logger does. Then:
//
//   - every acknowledged number is in InfluxDB, and none is there twice;
//   - every hundredth reading raises a warning, whose message tells number and
//     sum of the readings of the last second as the rules know them. Both must be
//     those of InfluxDB: so the rules have had each reading exactly once, over
//     every crash. (Clears are counted by the order of the transitions.);
//   - every such warning has reached the operations centre, each under one key
//     id/n with one meaning, in order within a device.
//
// AIS and Modbus acknowledge nothing: there it is counted what was sent and what
// is stored, and nothing may be there twice.
//
// # Clusters
//
// The trials whose names begin with TestCluster run when HAIDANG_CLUSTER is set ("ci"
// for a short one): three nats-server processes, four haidang processes with different
// roles, and an InfluxDB, each machine in a network namespace of its own where the
// tests run as root. Publishers connect to the machines that take readings in, to the
// next one when a connection ends or says nothing for ten seconds. After each harm it
// is measured how long it takes until a new reading of every device was acknowledged,
// is in InfluxDB and has raised a warning that the centre has; then the load stops and
// everything is reconciled as above. The servers keep their files in memory
// (/dev/shm), so that the trial waits for elections and leases, not for a disk that
// others use; HAIDANG_CLUSTER_DIR names another folder.
//
// # Load
//
// TestLoad, TestLoadBacklog and TestClusterLoad print figures instead (`make load`,
// `make cluster-load`, HAIDANG_LOAD: seconds of each run); load.txt and cluster.txt keep
// some. InfluxDB's engine in a second
// process is this test's own program; a slow disk is strace, which lets each
// fsync return 5 ms later and stops no other call.
package faults
