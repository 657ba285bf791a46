// Package archive keeps records for years, in files that outlive the program:
// JSON lines, a file or more for each month, compressed when the month is over.
//
// # Contract
//
//	<dir>/2026-11-0001.jsonl      the newest file, which grows at its end
//	<dir>/2026-10-0001.jsonl.gz   closed ones (RFC 1952), which never change
//	<dir>/SHA256SUMS              of the closed ones, as sha256sum -c reads it
//	<dir>/lock                    taken (flock) by whoever writes
//
// Months are those of Asia/Ho_Chi_Minh. A record is kept with its own month, or
// with that of the newest file where that is later: files never go back. A file
// is closed when its month is over or it has MaxFile bytes, so a month can have
// several.
//
// Append returns when the records are on disk. A batch that a crash has cut is
// written again by its caller: a record can be there twice, and one line can be
// torn; readers pass over the torn line and know the second record by its key.
//
// What is older than Keep is removed, and the oldest closed files when there are
// more than MaxBytes: haidang_archive_dropped_total counts the files by reason,
// and the second is told in the log.
//
// Several processes may write, as the gateway and a verb beside it.
package archive
