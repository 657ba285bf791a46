package spool

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// What a block lacks at its end cannot be told from the block. So the sequence of
// the newest frame that is on disk is noted beside the logs, in <Dir>/ends, after
// each frame: a process that is killed leaves it, and a power cut leaves one that
// is at most some seconds old and never ahead of the log. A frame that the log
// has not and that the note has was acknowledged, and is lost.
//
// The file has two places for each log, written in turn, so that one is whole
// whatever happens. A place is a line of 85 bytes:
//
//	readings     00000000000000000001 00000000000000004711 01732249200000000000 1a2b3c4d
//
// the log, the first and the newest sequence, the receipt time of the newest
// (Unix ns) and the CRC-32 of what is before it.
const endsFile = "ends"

const placeBytes = 85

// lives is a note of its own: its last is odd while a process has the logs open.
const lives = "lives"

// An end is where a log begins and ends.
type end struct {
	first, last uint64 // first is what the log had when it was last emptied
	received    int64  // receipt time of the last, Unix ns
}

// isAfter tells which of two notes of a log is the newer: both numbers only grow.
func (e end) isAfter(other end) bool {
	return e.last > other.last || e.last == other.last && e.first >= other.first
}

// ends keeps the notes.
type ends struct {
	file   *os.File
	logger *slog.Logger

	mu     sync.Mutex
	at     map[string]end
	turn   map[string]int
	order  map[string]int
	dirty  bool
	failed bool // told once
}

// openEnds reads what an earlier life has noted. A note that cannot be read is
// none: then the end of a log is where its last whole frame is.
func openEnds(dir string, logger *slog.Logger) (*ends, error) {
	file, err := os.OpenFile(filepath.Join(dir, endsFile), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the note of where the logs end: %w", err)
	}
	e := &ends{file: file, logger: logger, at: map[string]end{}, turn: map[string]int{}, order: map[string]int{}}
	for i, log := range []string{logReadings, logWarnings, logLetters, lives} {
		e.order[log] = i
		for turn := range 2 {
			line := make([]byte, placeBytes)
			if _, err := file.ReadAt(line, int64(2*i+turn)*placeBytes); err != nil {
				continue
			}
			if found, ok := readEnd(line, log); ok && found.isAfter(e.at[log]) {
				e.at[log], e.turn[log] = found, 1-turn
			}
		}
	}
	return e, nil
}

func readEnd(line []byte, log string) (e end, ok bool) {
	var name string
	var sum uint32
	if _, err := fmt.Sscanf(string(line), "%s %d %d %d %x", &name, &e.first, &e.last, &e.received, &sum); err != nil {
		return e, false
	}
	return e, name == log && bytes.Equal(line, writeEnd(log, e))
}

func writeEnd(log string, e end) []byte {
	line := fmt.Appendf(nil, "%-12s %020d %020d %020d", log, e.first, e.last, e.received)
	return fmt.Appendf(line, " %08x\n", crc32.ChecksumIEEE(line))
}

// of returns where a log ended; zero when that is not known.
func (e *ends) of(log string) end {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at[log]
}

// note changes the note of a log.
func (e *ends) note(log string, change func(end) end) {
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.at[log]
	is := change(was)
	if is == was {
		return
	}
	e.at[log], e.dirty = is, true
	turn := e.turn[log]
	e.turn[log] = 1 - turn
	_, err := e.file.WriteAt(writeEnd(log, is), int64(2*e.order[log]+turn)*placeBytes)
	if err != nil && !e.failed {
		e.logger.Error("where the logs end cannot be noted: should a block be cut short, that is not told", "error", err)
	}
	e.failed = err != nil
}

// closed tells whether the last life has closed the logs.
func (e *ends) closed() bool { return e.of(lives).last%2 == 0 && e.of(lives).last > 0 }

// begin and end note a life.
func (e *ends) begin() {
	e.note(lives, func(l end) end { l.last += 1 + l.last%2; return l })
	e.sync()
}

func (e *ends) end() { e.note(lives, func(l end) end { l.last += l.last % 2; return l }) }

// sync brings the notes to the disk.
func (e *ends) sync() {
	e.mu.Lock()
	dirty := e.dirty
	e.dirty = false
	e.mu.Unlock()
	if dirty {
		_ = e.file.Sync() // the next one tries again
	}
}

func (e *ends) close() {
	e.end()
	e.sync()
	_ = e.file.Close()
}
