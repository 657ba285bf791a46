package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"haidang/gateway/telemetry"
)

// After a kill or a power cut JetStream reads the blocks of its streams and cuts
// a block off at the first message whose checksum is wrong, without a word: what
// lay behind it was acknowledged, and its numbers are given again. So we look at
// the messages of the blocks before the server opens them, by their heads alone,
// and afterwards at how long the blocks are.

// blockHead is the head of a message in a block of JetStream's file store (little
// endian): its length with the head, the highest bit for headers; its sequence;
// its time, Unix ns; the length of its subject.
const blockHead = 22

// A placed is a message in a block.
type placed struct {
	at   int64 // its offset
	seq  uint64
	time int64 // Unix ns
}

// survey returns the whole messages of each block of the three logs.
func survey(dir string) map[string][]placed {
	blocks := map[string][]placed{}
	for _, stream := range []string{streamReadings, streamWarnings, streamLetters} {
		names, _ := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", stream, "msgs", "*.blk")) // the pattern is good
		for _, name := range names {
			if messages, err := messagesOf(name); err == nil { // the server tells of one that cannot be read
				blocks[name] = messages
			}
		}
	}
	return blocks
}

func messagesOf(name string) ([]placed, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var out []placed
	var head [blockHead]byte
	for at := int64(0); ; {
		if _, err := file.ReadAt(head[:], at); err != nil {
			if errors.Is(err, io.EOF) {
				return out, nil
			}
			return nil, err
		}
		length := int64(binary.LittleEndian.Uint32(head[0:]) &^ (1 << 31))
		if length < blockHead || length > stat.Size()-at {
			return out, nil // torn, or damaged just here
		}
		// The highest bits of a sequence mark what is erased.
		if seq := binary.LittleEndian.Uint64(head[4:]); seq > 0 && seq < 1<<62 {
			out = append(out, placed{at: at, seq: seq, time: int64(binary.LittleEndian.Uint64(head[12:]))})
		}
		at += length
	}
}

// cuts returns a dead letter for each block that is shorter than its messages
// were.
func cuts(before map[string][]placed) (letters []telemetry.DeadLetter) {
	for name, messages := range before {
		stat, err := os.Stat(name)
		if err != nil {
			continue // emptied: all of it had been read, or was too old
		}
		var lost []placed
		for _, m := range messages {
			if m.at >= stat.Size() {
				lost = append(lost, m)
			}
		}
		if len(lost) == 0 {
			continue
		}
		first, last := lost[0], lost[len(lost)-1]
		stream := filepath.Base(filepath.Dir(filepath.Dir(name)))
		letters = append(letters, telemetry.DeadLetter{
			Source: "spool", Reason: "damaged",
			Place: fmt.Sprintf("%s %d-%d", logName(stream), first.seq, last.seq),
			Detail: fmt.Sprintf("block %s is damaged: %d frames received from %s to %s are lost, but for those that were read before",
				filepath.Base(name), len(lost), time.Unix(0, first.time).UTC().Format(time.RFC3339), time.Unix(0, last.time).UTC().Format(time.RFC3339)),
		})
	}
	return letters
}

func logName(stream string) string {
	switch stream {
	case streamReadings:
		return "readings"
	case streamWarnings:
		return "warnings"
	}
	return "dead_letters"
}

// tellCuts keeps the dead letters of blocks that were cut, and says so.
func (s *Spool) tellCuts(letters []telemetry.DeadLetter) {
	for i := range letters {
		letters[i].At = s.options.Now()
		s.logger.Error("the log was damaged", "place", letters[i].Place, "detail", letters[i].Detail)
		s.metrics.deadLetter("readings", "spool", "damaged")
	}
	if len(letters) == 0 {
		return
	}
	s.letters.AppendAsync(letters, func(err error) {
		if err != nil {
			s.logger.Error("a dead letter cannot be kept", "place", letters[0].Place, "error", err)
		}
	})
}
