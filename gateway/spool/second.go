package spool

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The positions are stored a second time, in a file of their own, so that one
// damaged file never makes a follower begin at the start of a log: a recipient
// would be sent three years of warnings again. It is at most some seconds older
// than the first, and what was accepted since is delivered again.
//
//	<Dir>/positions   a line "<log>.<follower> <sequence>" each, and one with the CRC-32 of them
const (
	positionsFile = "positions"
	secondPause   = 10 * time.Second
)

// secondPositions are written by one goroutine.
type secondPositions struct {
	path   string
	kept   []byte // what the file has
	at     time.Time
	failed bool
}

// read returns the positions of the file by their keys.
func (s *secondPositions) read() (map[string]uint64, error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(bytes.TrimSuffix(text, []byte{'\n'}), '\n') + 1
	if string(text[end:]) != sumLine(text[:end]) {
		return nil, fmt.Errorf("%s is damaged", s.path)
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(text[:end])) {
		key, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not like \"readings.influx 4711\"", s.path, line)
		}
		out[key] = seq
	}
	return out, nil
}

func sumLine(text []byte) string { return fmt.Sprintf("%08x\n", crc32.ChecksumIEEE(text)) }

// restore takes over from the file what the positions have not, or have older.
func (p *positions) restore() {
	second, err := p.second.read()
	if err != nil {
		p.spool.logger.Warn("the second copy of the followers' positions cannot be read", "error", err)
		return // the first is there
	}
	for key, seq := range second {
		follower, c := p.keyOf(key)
		if c == nil || seq == 0 {
			continue
		}
		first := p.at[follower]
		if first != nil && first.seq >= min(seq, c.last.Load()) {
			continue
		}
		stored := uint64(0)
		if first != nil {
			stored = first.stored
		}
		p.spool.logger.Error("the position of a follower was lost and is taken from its second copy", "follower", follower.name, "log", follower.log, "position", seq)
		p.set(follower, c, seq, stored)
		p.again()
	}
}

// keepSecond writes the file when it is older than pause and not the same.
func (p *positions) keepSecond(pause time.Duration) {
	s := p.second
	if s == nil || time.Since(s.at) < pause {
		return
	}
	var lines []string
	for key, at := range p.all() {
		lines = append(lines, fmt.Sprintf("%s.%s %d\n", key.log, encodeKey(key.name), at.stored))
	}
	slices.Sort(lines)
	text := []byte(strings.Join(lines, ""))
	text = append(text, sumLine(text)...)
	if bytes.Equal(text, s.kept) {
		return
	}
	p.spool.writing.RLock()
	err := replace(s.path, text)
	p.spool.writing.RUnlock()
	if err != nil {
		p.spool.metrics.positionErrors.Inc()
		if !s.failed {
			p.spool.logger.Warn("the second copy of the followers' positions cannot be written", "error", err)
		}
	} else {
		s.kept = text
	}
	s.failed, s.at = err != nil, time.Now()
}
