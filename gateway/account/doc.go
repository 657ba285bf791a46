// Package account knows who may do what: devices, programs and people, their
// secrets, and their rights.
//
// # The file
//
// Accounts are in one file of JSON lines, accounts.jsonl in the data folder
// unless the configuration names another, mode 0600. The first line says what it
// is, each other line is an account:
//
//	{"format":"haidang-accounts","version":1}
//	{"name":"kim-long","role":"station","secret":"$sha256$...","created":"2026-11-22T01:24:07Z","changed":"..."}
//	{"name":"lan","role":"operator","secret":"$argon2id$v=19$m=19456,t=2,p=1$...","note":"night shift", ...}
//	{"name":"lora","role":"integrator","devices":["lora-*"],"tokens":[{"id":"k3c...","hash":"$sha256$...","rights":["write"],"expires":"..."}], ...}
//
// Members: name, role (station, vessel, integrator, gateway, reader, viewer, operator,
// author, administrator), devices (for whom it speaks besides the device of its
// own name and those named after it, as kim-long.pump; * is any run of characters), publish and subscribe (topic filters
// besides those of the role, with the levels {account} and {device}), limits (as
// telemetry.Limits), secret, previous and previous_until (a secret that a
// rotation left good for a while), tokens, note, disabled, created, changed.
//
// The file is replaced as a whole, under a lock beside it, and a running gateway
// notices within [PollInterval]: what an account began ends when it was removed
// or changed (telemetry.Account.Life). A file with a fault changes nothing and
// is told with its line.
//
// # On or off
//
// Without the file there are no accounts: everybody may do everything, and the
// listeners stay on loopback. From the moment the file exists everybody has to
// say who he is, also when the file holds nobody. It is not switched off again
// while the gateway runs, whatever happens to the file.
//
// # Secrets
//
// Devices and programs get a generated secret of 130 bits, kept as SHA-256 with
// a salt: it cannot be guessed, so checking may be cheap. People choose
// passwords, kept with argon2id (RFC 9106; 19 MiB, two passes), of which at most
// two are computed at a time; a password that was right is remembered in memory,
// as a keyed hash, for ten minutes. Tokens have an id that finds them and a
// secret as devices have; they can have fewer rights than their account, and an
// end.
//
// Wrong passwords are slowed by the address that they come from, not by account:
// nobody can lock a station out by guessing at it. An answer to a wrong one
// comes later with each failure, up to eight seconds. Right secrets of devices
// are never slowed, because thousands of good stations share an address with a
// bad one behind a mobile network; passwords of people are not checked while
// their address has to wait.
package account
