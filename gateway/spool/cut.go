package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

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
// were, and whose messages are gone. (A block is also rewritten without what was
// emptied.)
func (s *Spool) cuts(ctx context.Context, before map[string][]placed) (letters []telemetry.DeadLetter) {
	for name, messages := range before {
		stat, err := os.Stat(name)
		if err != nil || len(messages) == 0 || messages[len(messages)-1].at < stat.Size() {
			continue // emptied, or as it was
		}
		stream := filepath.Base(filepath.Dir(filepath.Dir(name)))
		lost := s.gone(ctx, stream, messages)
		if len(lost) == 0 {
			continue
		}
		first, last := lost[0], lost[len(lost)-1]
		letters = append(letters, telemetry.DeadLetter{
			Source: "spool", Reason: "damaged",
			Place: fmt.Sprintf("%s %d-%d", logName(stream), first.seq, last.seq),
			Detail: fmt.Sprintf("block %s is damaged: %d frames received from %s to %s are lost, but for what was read before",
				filepath.Base(name), len(lost), time.Unix(0, first.time).UTC().Format(time.RFC3339), time.Unix(0, last.time).UTC().Format(time.RFC3339)),
		})
	}
	return letters
}

// gone returns those of the messages that a stream should have and has not.
func (s *Spool) gone(ctx context.Context, name string, messages []placed) (lost []placed) {
	stream, err := s.link.append.Stream(ctx, name)
	if err != nil {
		return nil // opening the log tells it
	}
	state := stream.CachedInfo().State
	for _, m := range messages {
		if m.seq < state.FirstSeq {
			continue
		}
		if m.seq <= state.LastSeq {
			if _, err := stream.GetMsg(ctx, m.seq); !errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
		}
		lost = append(lost, m)
	}
	return lost
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

// tellCuts keeps the dead letters of blocks that were cut, and says so. The clock
// of log time may not run yet, so they are received when the last frame was.
func (s *Spool) tellCuts(letters []telemetry.DeadLetter) {
	if len(letters) == 0 {
		return
	}
	at := time.Unix(0, max(s.readings.core.lastReceived.Load(), s.letters.core.lastReceived.Load())).UTC()
	for i := range letters {
		letters[i].At = at
		s.logger.Error("the log was damaged", "place", letters[i].Place, "detail", letters[i].Detail)
		s.metrics.deadLetter("readings", "spool", "damaged")
	}
	s.letters.AppendAt(at, letters, func(err error) {
		if err != nil {
			s.logger.Error("a dead letter cannot be kept", "place", letters[0].Place, "error", err)
		}
	})
}
