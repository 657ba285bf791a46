// Package spool is the durable log of Hải Đăng: what sources deliver is on disk
// before it is acknowledged, and each follower reads it at its own pace.
//
// There are three logs: readings, warnings and dead letters. The unit of
// writing, syncing and delivery is the frame: a receipt time and up to 512 KiB
// of lines. Producers hand over records; a committer for each log collects what
// is queued into one frame (group commit), writes it and calls the producers
// back when it is on disk. A follower gets batches of frames in order until it
// accepts them; its position is stored, so that after a crash it goes on from
// there. Delivery is at least once.
//
// # What the logs hold
//
// Readings are InfluxDB line protocol, one reading a line, as AppendReading
// writes them. Warnings and dead letters are JSON, one record a line. A line
// never contains a line break: in a word of a reading it becomes a space.
//
// The readings are emptied up to the slowest of Options.Followers, warnings are
// kept for three years, dead letters for 90 days. Each log is bounded by size
// as well.
//
// # Log time
//
// The receipt time of a frame is taken when the frame is closed, so it is never
// before the arrival of a record in it, and it never decreases: when the clock
// steps back, log time goes on from where it was at the clock's pace until the
// clock has caught up, also across a restart.
//
// # What lies on the disk
//
// The logs are streams of NATS JetStream, embedded in this process (or in a
// cluster, see below):
//
//	<Dir>/lock                                  flock, the process id of the owner
//	<Dir>/ends                                  where each log begins and ends, noted after each frame
//	<Dir>/positions                             the positions once more, some seconds old
//	<Dir>/aside                                 files that were found damaged, as they were; at most 64 and 256 MiB
//	<Dir>/jetstream/$G/streams/READINGS         subject readings.0
//	<Dir>/jetstream/$G/streams/WARNINGS         subject warnings.0
//	<Dir>/jetstream/$G/streams/DEAD_LETTERS     subject dead_letters.0
//	<Dir>/jetstream/$G/streams/KV_POSITIONS     key <log>.<follower>: sequence, decimal
//	<Dir>/jetstream/$G/streams/OBJ_CHECKPOINTS  two objects for each checkpoint: the newest and the one before it
//
// The last part of a subject is the partition, always 0 so far. A message is a
// frame: its payload is the lines and nothing else, so that any NATS tool shows
// it and InfluxDB takes it as it is. What else a frame needs is in one header:
//
//	Haidang-Frame: 1 <receipt time, Unix ns> <lines> <lines of the log's own kinds>
//
// where 1 is the version. It is a header and not a first line because the
// payload then needs no cutting on its way to the store. A second header tells
// which source delivered the readings, in their order, so that a warning can say
// where what it saw came from; the lines, and so the store, have nothing of it:
//
//	Haidang-Sources: broker*12 modbus.line-1*3 #1*4
//
// are 12 readings of the broker, 3 of a line, and 4 of the first name again. The
// header is of at most 8 KiB; of readings beyond it the source is not known, nor
// is it of frames without the header. Every frame is synced
// (SyncAlways): with JetStream's default of two minutes a power cut loses
// acknowledged records.
//
// # What a damaged disk costs
//
// JetStream cuts a block of 8 MiB off at the first record whose checksum is wrong.
// So Open reads all blocks before the server does and mends them: a record in which
// one bit is wrong is put right (up to 32 KiB, for two seconds), other damaged
// records are taken out and nothing else is, and a filler stands for them, so that
// no sequence is ever given twice. What is lost in a log is told by sequence and
// time: as a line in the program's log, as a dead letter with the reason "damaged"
// and in haidang_spool_lost_frames_total; each follower that had not read it gets a
// dead letter "gap" besides. A damaged checkpoint is replaced by the one before it,
// lost positions by their second copy, a damaged description of a stream (meta.inf)
// by a new one. The damaged files are kept in the folder aside. Reading 2 GiB takes
// about as long as the disk needs to deliver them, twice after a kill, when the
// server reads them too. See mend.go and plan.go; TestSweep tries some nine hundred ways.
//
// The size of the blocks is JetStream's own choice: 8 MiB for logs that may be
// larger than 32 MiB, else 4 MiB (nats-server 2.15, stream.go,
// autoTuneFileStorageBlockSize). No setting reaches it; since only damaged records
// go, it no longer matters to what is lost.
//
// # In a cluster
//
// With Config.URL the same streams are in a cluster of NATS servers, and
// <Dir>/cluster.json remembers which (docs/cluster.md is for its operators). The
// contract is the same; a frame is on disk when a majority of the replicas has it.
// What the files of an embedded log are looked at for is the cluster's own matter:
// nothing is repaired and no damage searched for, the free disk is not asked (the
// bounds of the streams reserve it), syncing is a setting of the servers that
// cannot be asked for, and Snapshot hands over nothing. Instead:
//
//   - Open compares each stream with what it must be and changes nothing but the
//     bounds of those that it made; it compares the times at which they were made
//     with those that the folder remembers, and after each loss of the connection
//     again before anything is acknowledged.
//   - A lease in the stream OWNERS keeps a second gateway out (see owner), as the
//     lock of the folder does for an embedded log. Positions and checkpoints are
//     written against their revision, warnings against the sequence they must get;
//     readings and dead letters have message ids, so that a repeated frame is
//     stored once.
//   - What a cursor does not show is asked for from the stream's leader before it
//     is told as gone (see refill).
//   - A cluster that cannot be used is told to Options.Waiting, and waited for.
//
// # On several machines
//
// With Options.Part a Spool is for a part of what there is to do (see Part), which
// it has by a lease of its own; a process opens one for each thing it does. The
// readings may be in several streams then, READINGS_<p> with the subject
// readings.<p>, each for the sites that PartitionOf puts there; the first part that
// is opened sets how many, for good. One stream more, STEPS, with the subjects
// steps.<p>, has what the engines give, until the centre has it, and another, ATTEMPTS, what
// recipients were told. What differs from the above:
//
//   - Many append to the readings at the same time. Log.Last is where the stream
//     ends, at most some seconds old, and not what this process has written.
//     Receipt times are those of several clocks, and may decrease by the difference
//     of them: who needs time that does not must see to it (the engine does). What
//     a part appends to a partition that it follows is never before what it has read
//     there.
//   - Positions are loaded when a part is opened, which is after it has its lease,
//     and only its owner stores them. RoleRules reads those of the other
//     Options.Followers from the cluster, to empty its partition.
//   - Health of a part says whether its own work goes on. A log that others have
//     filled shows there as well, and so does that it has room again, within some
//     seconds.
//   - The folder has no lock; several Spools share it.
package spool
