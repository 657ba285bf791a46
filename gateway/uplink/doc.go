// Package uplink brings what a gateway in the field has kept to a centre that runs
// the same program: its readings and its warnings, over HTTP, through outages of
// days.
//
// The field's side is a Sender. It follows both logs by positions of its own, so
// that the log keeps what the centre has not acknowledged, within its bounds. The
// centre's side is a Receiver behind its API. Nothing is lost and nothing doubled,
// whichever side is killed when.
//
// # Three requests
//
// All are POST below Path with the header Haidang-Uplink: 1, the version of what
// follows:
//
//	hello     JSON, a Hello; answered with a Welcome. It is the heartbeat, the
//	          question where to begin, and the test whether the line works.
//	readings  zstd; one line of JSON (a parcel), then frames:
//	            #<seq> <from> <received, Unix ns>
//	          and the lines of that frame of the field's log behind the first <from>, as
//	          they are there, without those of its own kinds ("_...").
//	warnings  zstd; one line of JSON (a parcel), then told warnings, one a line
//
// and an error is JSON with a word (reason) and a sentence (detail).
//
// # Where it is
//
// The field's log has a name, its epoch: made with the log and lost with it. The
// centre remembers for each gateway and epoch how far it has the readings on disk, as
// a record of the kind _uplink in the same frame of its own log as the readings: there
// are both or none of them. A parcel says after which position it comes; one that does
// not fit is refused with 409 and the position, and the sender goes on from there. The
// records are folded into a checkpoint every ten seconds, before the log is emptied of
// them. After a write of which nobody knows whether it reached the disk, the log is
// read again behind a record that did.
//
// # Several partitions
//
// Of a log with several partitions each gets the readings of its sites, a piece of up
// to 448 KiB at a time, in one frame with a record. A piece that goes to one partition
// only is known by its record as ever. If it goes to several, each record also says
// after which position the piece comes: as the pieces of a gateway come one after the
// other, all before that is on disk in every partition. So the greatest position that
// any record says for certain is where the sender has to go on, and what a frame has
// beyond it is known by its devices: all readings of a device up to the end of the
// piece are in that frame. They are passed over when they come again, though the piece
// may be cut otherwise then, and a device may belong to another partition.
//
// # Another machine
//
// A log in a cluster may get another writer at any moment, and something that the one
// before has sent may arrive later. So a frame has an id that is made of its first
// reading, which is the first that is not on disk, whoever writes it: the log takes one
// frame of an id (spool.AppendOnce). Who comes second reads what is there. A Receiver
// of such a log begins in doubt of it, and reads it behind a record of its own before
// it takes anything.
//
// Warnings need no such record: each step is known by its warning and number, and the
// board of the centre takes it once.
//
// # What travels of a warning
//
// The steps of the field's rules. What operators do is of the list that they look at:
// an acknowledgement in the field says nothing in the centre, and the other way round.
// Warnings on trial, of drills, pending ones, and what is out of service in the field
// stay there. In the centre a warning has the gateway's name before its id, is numbered
// anew, names the gateway, and keeps its start; at is when the centre had it, happened
// when it was in the field.
//
// # The line
//
// A hello that is not answered within 2.5 s means that the line is down: what is on
// its way is given up, and a new connection is tried each second. A request that takes
// longer than 2 s asks for a hello at once. So a line that returns is used within
// 5 s, whatever became of the connections before.
//
// Readings wait for the rate (MaxRate), a warning never does: it takes its share in
// advance, and readings wait the longer. Each kind of request has a connection of its
// own.
package uplink
