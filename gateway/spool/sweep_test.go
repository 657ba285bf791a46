package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// sweepVariable makes TestSweep try every case; without it a slice of them that is
// always the same.
const sweepVariable = "HAIDANG_SWEEP"

const sweepSlice = 96 // one case of so many

// A harbour is a data folder and what it holds: one record a frame, whose number
// is its sequence.
type harbour struct {
	dir      string
	readings []uint64 // sequences
	warnings []uint64
	stored   uint64 // position of the follower "store" of the readings
	told     uint64 // of "ioc" of the warnings
	newest   []byte // checkpoint
	before   []byte
	blocks   map[string][]record // of the logs, by path
}

const (
	harbourReadings = 150
	harbourWarnings = 60
)

// build makes the folder that is damaged afterwards: blocks that are emptied in
// part, three logs, positions, checkpoints.
func build(t *testing.T, killed bool) *harbour {
	t.Helper()
	h := &harbour{stored: 45, told: 50, blocks: map[string][]record{}}
	work := t.TempDir()
	s := open(t, work, sweepOptions)
	for i := range harbourReadings {
		r := river("a", float64(i+1))
		if i%3 > 0 { // so that there are several blocks of 4 MiB
			r.Values = append(r.Values, telemetry.Value{Name: "pad", Text: strings.Repeat("word ", 18_000)})
		}
		put(t, s, r)
	}
	for i := range harbourWarnings {
		w := telemetry.Transition{Warning: telemetry.Warning{ID: "w", N: i + 1, Rule: strings.Repeat("r", 200)}}
		if err := s.Warnings().Append(soon(t), []telemetry.Transition{w}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		h.before, h.newest = h.newest, bytes.Repeat(fmt.Appendf(nil, "checkpoint %d....", i), 20_000)
		if err := s.SaveCheckpoint(soon(t), "rules", h.newest); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			s.Readings().Commit(soon(t), "store", h.stored-uint64(3-i)),
			s.Warnings().Commit(soon(t), "ioc", h.told-uint64(3-i)),
			s.positions.store(soon(t)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.room.empty(soon(t), true); err != nil {
		t.Fatal(err)
	}
	until(t, "the second copy of the positions is there", func() bool {
		_, err := os.Stat(filepath.Join(work, positionsFile))
		return err == nil
	})
	if killed {
		h.dir = copyOf(t, s)
	} else {
		shut(t, s)
		h.dir = work
	}
	for seq := h.stored + 1; seq <= harbourReadings; seq++ {
		h.readings = append(h.readings, seq)
	}
	for seq := range uint64(harbourWarnings) {
		h.warnings = append(h.warnings, seq+1)
	}
	for _, stream := range []string{streamReadings, streamWarnings} {
		for _, path := range blocksOf(t, h.dir, stream) {
			number, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), blockSuffix))
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(h.dir, path)
			newSealer(stream, number).walk(text, func(r record) { h.blocks[name] = append(h.blocks[name], r) }, func(from, to int) {
				t.Fatalf("%s: bytes %d to %d are no record", name, from, to)
			})
		}
	}
	return h
}

func sweepOptions(o *Options) {
	o.Config.MaxBytes = 30 << 20 // blocks of 4 MiB, so that there are several
	o.Followers = []string{"store"}
}

// A harm is done to one file or folder.
type harm struct {
	name string // of the file or folder, in the harbour
	what string
	do   func(path string) error
	from int64 // bytes that it hits, of a file
	to   int64
}

// harms returns what is done to the harbour.
func (h *harbour) harms(t *testing.T) (out []harm) {
	t.Helper()
	random := rand.New(rand.NewPCG(5, 5))
	err := filepath.WalkDir(h.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == h.dir || entry.Name() == "lock" {
			return err
		}
		name, _ := filepath.Rel(h.dir, path)
		if entry.IsDir() {
			out = append(out, harm{name, "folder missing", os.RemoveAll, 0, 1 << 40})
			return nil
		}
		info, err := entry.Info()
		size := info.Size()
		if err != nil || size == 0 {
			return err
		}
		out = append(out, harm{name, "missing", os.Remove, 0, size})
		for _, at := range []int64{0, 1, size / 2, size - 1} {
			out = append(out, harm{name, fmt.Sprintf("cut to %d of %d", at, size), func(p string) error { return os.Truncate(p, at) }, at, size})
		}
		for _, at := range []int64{0, 3, 4, 12, 20, 23, size / 2, size - 9, size - 1, random.Int64N(size), random.Int64N(size), random.Int64N(size)} {
			if at < 0 || at >= size {
				continue
			}
			bit := random.IntN(8)
			out = append(out, harm{name, fmt.Sprintf("bit %d at %d of %d", bit, at, size), func(p string) error { return flipBit(p, at, bit) }, at, at + 1})
		}
		for _, at := range []int64{0, size / 2 &^ 4095, (size - 1) &^ 4095} {
			end := min(at+4096, size)
			out = append(out, harm{name, fmt.Sprintf("zeros from %d of %d", at, size), func(p string) error { return zero(p, at, end-at) }, at, end})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func flipBit(path string, at int64, bit int) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	var b [1]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1 << bit
	_, err = file.WriteAt(b[:], at)
	return err
}

func zero(path string, at, n int64) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteAt(make([]byte, n), at)
	return err
}

// TestSweep damages each file of a data folder in each of many ways, of a log that
// was closed and of one that was killed. Each time it opens, has everything but the
// frames that lay in the damaged bytes, tells which those are by number, goes on,
// and tells nothing twice.
func TestSweep(t *testing.T) {
	all := os.Getenv(sweepVariable) != ""
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%t", killed), func(t *testing.T) {
			h := build(t, killed)
			harms := h.harms(t)
			begin, tried := time.Now(), 0
			for i, one := range harms {
				if !all && (i+61)%sweepSlice != 0 {
					continue
				}
				tried++
				h.try(t, one)
			}
			t.Logf("%d of %d cases in %v", tried, len(harms), time.Since(begin).Round(time.Millisecond))
		})
	}
}

// try does one harm to a copy.
func (h *harbour) try(t *testing.T, one harm) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "harmed")
	if err := os.CopyFS(dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := one.do(filepath.Join(dir, one.name)); err != nil {
		t.Fatal(err)
	}
	about := one.what + " " + one.name
	fault := func(format string, args ...any) { t.Errorf(about+": "+format, args...) }

	var said blackboard
	quiet := func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) }
	begin := time.Now()
	s, err := Open(t.Context(), sweepWith(dir, quiet))
	if err != nil {
		fault("%v", err)
		return
	}
	if took := time.Since(begin); took > 5*time.Second {
		fault("opened after %v", took)
	}
	letters := lettersUntilNow(t, s)
	readings, warnings := sequences(t, s)
	h.compare(fault, one, streamReadings, h.readings, readings, letters)
	h.compare(fault, one, streamWarnings, h.warnings, warnings, letters)
	h.comparePositions(fault, s)
	h.compareCheckpoint(t, fault, one, s)
	failed := t.Failed()
	if h.goesOn(t, fault, s); t.Failed() && !failed {
		t.Logf("%s\n%s%+v", about, said.String(), letters)
	}
	if err := s.Close(); err != nil {
		fault("close: %v", err)
		return
	}

	// The second start finds everything in order.
	if s, err = Open(t.Context(), sweepWith(dir, quiet)); err != nil {
		fault("second start: %v", err)
		return
	}
	again := lettersUntilNow(t, s)
	readings2, warnings2 := sequences(t, s)
	for _, l := range again[len(letters):] {
		if l.Reason == "damaged" { // the follower of goesOn has told its gaps
			fault("told again at the second start: %+v", l)
		}
	}
	if !slices.Equal(readings2[:max(0, len(readings2)-1)], readings) || !slices.Equal(warnings2, warnings) {
		fault("the second start has %d readings and %d warnings, the first had %d and %d", len(readings2)-1, len(warnings2), len(readings), len(warnings))
	}
	if err := s.Close(); err != nil {
		fault("close: %v", err)
	}
}

func sweepWith(dir string, change ...func(*Options)) Options {
	o := Options{Dir: dir}
	for _, f := range append(change, sweepOptions) {
		f(&o)
	}
	return o
}

// compare looks for each frame; what is missing lay in the damaged bytes, and a
// letter tells it.
func (h *harbour) compare(fault func(string, ...any), one harm, stream string, want, got []uint64, letters []telemetry.DeadLetter) {
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		fault("%s are not in order: %v", stream, got)
	}
	log, _ := logOf(stream)
	hit := map[uint64]bool{}
	for path, records := range h.blocks {
		if !strings.Contains(path, "/"+stream+"/") || path != one.name && !strings.HasPrefix(path, one.name+"/") {
			continue
		}
		for _, r := range records {
			if path != one.name || int64(r.to) > one.from && int64(r.from) < one.to {
				hit[r.seq] = true
			}
		}
	}
	var lost, untold []uint64
	for _, seq := range want {
		if slices.Contains(got, seq) {
			continue
		}
		lost = append(lost, seq)
		if !isTold(letters, log, seq) {
			untold = append(untold, seq)
		}
		if !hit[seq] {
			fault("%s %d is lost and was not damaged", log, seq)
		}
	}
	for _, seq := range got {
		if !slices.Contains(want, seq) && seq > h.stored {
			fault("%s %d is there and was never written", log, seq)
		}
	}
	if len(untold) > 0 {
		fault("%d of the %s are lost, %d of them are not told: %v; letters %+v", len(lost), log, len(untold), untold, letters)
	}
	for seq := range uint64(harbourReadings + 10) {
		if isTold(letters, log, seq) && slices.Contains(got, seq) {
			fault("%s %d is told as lost and is there", log, seq)
		}
	}
}

func isTold(letters []telemetry.DeadLetter, log string, seq uint64) bool {
	return slices.ContainsFunc(letters, func(l telemetry.DeadLetter) bool {
		var first, last uint64
		n, _ := fmt.Sscanf(strings.TrimPrefix(l.Place, log+" "), "%d-%d", &first, &last)
		return n == 2 && strings.HasPrefix(l.Place, log+" ") && first <= seq && seq <= last && strings.Contains(l.Detail, "received")
	})
}

// comparePositions: they are as they were, or a little older.
func (h *harbour) comparePositions(fault func(string, ...any), s *Spool) {
	if at := s.Readings().Position("store"); at > h.stored || at < h.stored-3 {
		fault("the position of store is %d, was %d", at, h.stored)
	}
	if at := s.Warnings().Position("ioc"); at > h.told || at < h.told-3 {
		fault("the position of ioc is %d, was %d", at, h.told)
	}
}

// compareCheckpoint: it is the newest or the one before it, and it is the newest
// unless that was damaged.
func (h *harbour) compareCheckpoint(t *testing.T, fault func(string, ...any), one harm, s *Spool) {
	blob, err := s.LoadCheckpoint(soon(t), "rules")
	objects := "jetstream/$G/streams/OBJ_" + bucketObjects
	file := strings.HasPrefix(one.name, objects+"/msgs/") && strings.HasSuffix(one.name, blockSuffix)
	whole := strings.HasPrefix(objects+"/msgs", one.name) || file && one.to-one.from > 4096
	switch {
	case bytes.Equal(blob, h.newest) && err == nil:
	case file && bytes.Equal(blob, h.before) && err == nil:
	case whole: // both may be gone
	default:
		fault("the checkpoint has %d bytes: %v", len(blob), err)
	}
}

// goesOn: a new reading gets a number that was never given, and reaches the
// follower.
func (h *harbour) goesOn(t *testing.T, fault func(string, ...any), s *Spool) {
	put(t, s, river("a", 5000))
	if last := s.Readings().Last(); last <= harbourReadings {
		fault("the number %d is given again", last)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	last := s.Readings().Last()
	if err := s.Readings().Follow(ctx, FollowOptions{Name: "store", Manual: true}, func(_ context.Context, b *Batch[telemetry.Reading]) error {
		if b.Last() == last {
			cancel()
		}
		return nil
	}); err != nil || s.Readings().Lag("store") > 1 {
		fault("the follower is %d behind: %v", s.Readings().Lag("store"), err)
	}
}

// sequences returns those of the records that the two logs hold.
func sequences(t *testing.T, s *Spool) (readings, warnings []uint64) {
	t.Helper()
	if err := s.Readings().Replay(soon(t), func(r telemetry.Reading) {
		level, _ := r.Number("level_m")
		readings = append(readings, uint64(level))
	}); err != nil {
		t.Error(err)
	}
	if err := s.Warnings().Replay(soon(t), func(w telemetry.Transition) { warnings = append(warnings, uint64(w.N)) }); err != nil {
		t.Error(err)
	}
	return readings, warnings
}

func lettersUntilNow(t *testing.T, s *Spool) (letters []telemetry.DeadLetter) {
	t.Helper()
	if err := s.Flush(soon(t)); err != nil {
		t.Error(err)
	}
	if err := s.DeadLetters().Replay(soon(t), func(d telemetry.DeadLetter) { letters = append(letters, d) }); err != nil {
		t.Error(err)
	}
	return letters
}

// TestTornTails: a kill leaves any part of a frame that was never acknowledged at
// the end of a log, or zeros. Nothing is lost, and nothing is said of it.
func TestTornTails(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 10 {
		put(t, s, river("a", float64(i+1)))
	}
	base := copyOf(t, s)
	put(t, s, river("a", 11))
	block, _ := filepath.Rel(dir, blocksOf(t, dir, streamReadings)[0])
	all, err := os.ReadFile(filepath.Join(dir, block))
	if err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	was, err := os.ReadFile(filepath.Join(base, block))
	if err != nil {
		t.Fatal(err)
	}
	tail := all[len(was):]
	bad := bytes.Clone(tail)
	bad[len(bad)/2] ^= 0x55
	for name, torn := range map[string][]byte{
		"a byte": tail[:1], "a head": tail[:recordHead], "half": tail[:len(tail)/2], "all but a byte": tail[:len(tail)-1],
		"zeros": make([]byte, 4096), "length and zeros": append(binary.LittleEndian.AppendUint32(nil, 500), make([]byte, 600)...), "whole and wrong": bad,
	} {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(base)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(copied, block), slices.Concat(was, torn), 0o600); err != nil {
				t.Fatal(err)
			}
			var said blackboard
			s := open(t, copied, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
			if text := said.String(); strings.Contains(text, "ERROR") || len(lettersUntilNow(t, s)) > 0 {
				t.Errorf("it says %s", text)
			}
			put(t, s, river("a", 11))
			if readings, _ := sequences(t, s); len(readings) != 11 || readings[10] != 11 {
				t.Errorf("readings %v", readings)
			}
		})
	}
}
