package spool

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// blocksOf returns the block files of a stream.
func blocksOf(t *testing.T, dir, stream string) []string {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream/$G/streams", stream, "msgs/*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("no block files of %s: %v", stream, err)
	}
	return blocks
}

// TestEndGone: frames that a damaged disk has taken off the end of the log are
// told at once, and not when the next frame comes, which may be in a week.
func TestEndGone(t *testing.T) {
	for _, whole := range []bool{false, true} { // whether the follower finds any frame at all
		dir := t.TempDir()
		s := open(t, dir)
		for i := range 20 {
			put(t, s, river("a", float64(i)))
		}
		shut(t, s)
		block := blocksOf(t, dir, streamReadings)[0]
		st, err := os.Stat(block)
		if err != nil {
			t.Fatal(err)
		}
		size := st.Size() / 2
		if whole {
			size = 0
		}
		if err := os.Truncate(block, size); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
		if s.Readings().Last() != 20 {
			t.Fatalf("the log ends at %d", s.Readings().Last())
		}
		c := collect(t, s, FollowOptions{Name: "store", From: 1})
		until(t, "the follower is at the end", func() bool { return s.Readings().Lag("store") == 0 })
		letter := lettersOf(t, s, 2)[1] // the first is of the log itself
		if letter.Reason != "gap" || !strings.HasSuffix(letter.Place, "-20") {
			t.Errorf("dead letter %+v, want a gap up to 20", letter)
		}
		put(t, s, river("a", 1000))
		until(t, "what comes next is delivered", func() bool { got := c.got(); return len(got) > 0 && got[len(got)-1] == 1000 })
		c.stop(t)
		shut(t, s)
	}
}

// TestDamagedCheckpoint: of a checkpoint that is damaged the one before it is
// there; when both are, that is known at once.
func TestDamagedCheckpoint(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	text := func(n int) []byte { return []byte(strings.Repeat(fmt.Sprintf("checkpoint %d....", n), 40_000)) } // three pieces
	for n := range 4 {
		if err := s.SaveCheckpoint(soon(t), "rules", text(n)); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(n int) {
		t.Helper()
		begin := time.Now()
		blob, err := s.LoadCheckpoint(soon(t), "rules")
		switch {
		case n < 0 && err == nil:
			t.Errorf("damaged checkpoints are read as one of %d bytes", len(blob))
		case n >= 0 && (err != nil || !bytes.Equal(blob, text(n))):
			t.Errorf("%d bytes, %v; want checkpoint %d", len(blob), err, n)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("it took %v to read a checkpoint", took)
		}
	}
	wants(3)
	for _, n := range []int{3, 2} {
		shut(t, s)
		damage := fmt.Appendf(nil, "checkpoint %d....", n)
		for _, block := range blocksOf(t, dir, "OBJ_"+bucketObjects) {
			all, err := os.ReadFile(block)
			if err != nil {
				t.Fatal(err)
			}
			if at := bytes.Index(all, damage); at >= 0 {
				copy(all[at:], "xxxx")
				if err := os.WriteFile(block, all, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		s = open(t, dir)
		wants(2 - 3*(3-n)) // 2, then none
		if letters := lettersOf(t, s, 4-n); letters[0].Place != "checkpoints" {
			t.Errorf("dead letter %+v, want one of the checkpoints", letters[0])
		}
	}
}

// TestCutIsTold: of a killed log a block is cut short. The frames behind the cut
// are told by number and time, and their numbers are not given again.
func TestCutIsTold(t *testing.T) {
	s := open(t, t.TempDir())
	const frames = 40
	for i := range frames {
		put(t, s, river("a", float64(i)))
	}
	killed := copyOf(t, s)
	shut(t, s)
	block := blocksOf(t, killed, streamReadings)[0]
	text, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(block, int64(len(text)*3/4-10)); err != nil {
		t.Fatal(err)
	}
	s = open(t, killed)
	letter := lettersOf(t, s, 1)[0]
	if letter.Reason != "damaged" || letter.Place != "readings 30-40" || !strings.Contains(letter.Detail, "11 frames received from 2") {
		t.Errorf("dead letter %+v, want the 11 frames from 30 on", letter)
	}
	if n := testutil.ToFloat64(s.metrics.lost.WithLabelValues("readings")); n != 11 {
		t.Errorf("%v frames are counted as lost, want 11", n)
	}
	put(t, s, river("a", 1000))
	if found := levels(t, s); len(found) != 30 || s.Readings().Last() != frames+1 {
		t.Errorf("%d frames are there up to %d, want 29 and a new one at %d", len(found), s.Readings().Last(), frames+1)
	}
	aside, err := os.ReadFile(strings.TrimSpace(letter.Detail[strings.LastIndex(letter.Detail, ": ")+2:]))
	if err != nil || len(aside) != len(text)*3/4-10 {
		t.Errorf("the block as it was has %d bytes: %v", len(aside), err)
	}
}

// TestBlockFormat: what is said of the records of JetStream's blocks holds for the
// server that is linked in: it writes what we read, and reads what we write.
func TestBlockFormat(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 5 {
		put(t, s, river("a", float64(i)))
	}
	shut(t, s)
	path := blocksOf(t, dir, streamReadings)[0]
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var seqs []uint64
	seal := newSealer(streamReadings, 1)
	seal.walk(text, func(r record) { seqs = append(seqs, r.seq) }, func(from, to int) { t.Errorf("bytes %d to %d are no record", from, to) })
	if !slices.Equal(seqs, []uint64{1, 2, 3, 4, 5}) {
		t.Fatalf("sequences %v", seqs)
	}
	if err := os.WriteFile(path, append(text, seal.filler(9, time.Now().UnixNano())...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(filepath.Dir(path), indexFile), filepath.Join(dir, endsFile)} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	put(t, s, river("a", 5))
	if found := levels(t, s); s.Readings().Last() != 10 || len(found) != 6 || found[5] != 5 {
		t.Errorf("%v up to %d, want 6 records, the newest at 10", found, s.Readings().Last())
	}
}

// FuzzWalk: whatever is in a block, each byte is in one record or in damage, and a
// record among it is found.
func FuzzWalk(f *testing.F) {
	seal := newSealer(streamReadings, 1)
	one := seal.filler(7, 1)
	f.Add([]byte{}, []byte{})
	f.Add(one[:12], one)
	f.Add(bytes.Repeat([]byte{0x1e, 0, 0, 0}, 40), []byte("x"))
	f.Fuzz(func(t *testing.T, before, behind []byte) {
		block := slices.Concat(before, one, behind)
		at, found := 0, false
		seal.walk(block, func(r record) {
			if r.from != at || r.to <= r.from {
				t.Fatalf("record at %d to %d, want from %d", r.from, r.to, at)
			}
			found = found || r.from == len(before) && r.seq == 7
			at = r.to
		}, func(from, to int) {
			if from != at || to <= from {
				t.Fatalf("damage at %d to %d, want from %d", from, to, at)
			}
			at = to
		})
		if at != len(block) || !found {
			t.Errorf("walked %d of %d bytes, record found: %v", at, len(block), found)
		}
		_, _ = guess(block)
	})
}

// TestFolderGone: a folder of the logs that was there and is gone is told; one that
// is new is not.
func TestFolderGone(t *testing.T) {
	for _, used := range []bool{false, true} {
		s := open(t, filepath.Join(t.TempDir(), "spool"), func(o *Options) { o.Used = used })
		put(t, s, river("a", 1))
		letters := lettersUntilNow(t, s)
		if used && (len(letters) != 1 || letters[0].Reason != "damaged" || letters[0].Place != "all logs") || !used && len(letters) > 0 {
			t.Errorf("used %v: dead letters %+v", used, letters)
		}
	}
}

// A sick is a file of which the disk does not give some sectors.
type sick struct {
	bytes []byte
	bad   []int64 // sectors
}

func (s sick) ReadAt(p []byte, off int64) (int, error) {
	for _, n := range s.bad {
		if off < (n+1)*sector && off+int64(len(p)) > n*sector {
			return 0, syscall.EIO
		}
	}
	return bytes.NewReader(s.bytes).ReadAt(p, off)
}

// TestSectorsThatCannotBeRead: what the disk does not give is damage, and the rest
// is read.
func TestSectorsThatCannotBeRead(t *testing.T) {
	whole := bytes.Repeat([]byte{7}, 5*sector+100)
	for _, bad := range [][]int64{nil, {0}, {2, 3}, {5}} {
		want := bytes.Clone(whole)
		for _, n := range bad {
			clear(want[n*sector : min((n+1)*sector, int64(len(want)))])
		}
		got := make([]byte, len(whole))
		if n := readAround(sick{whole, bad}, got); n != len(whole) || !bytes.Equal(got, want) {
			t.Errorf("sectors %v: %d bytes, or others than expected", bad, n)
		}
	}
}

// TestEnds: the newer of the two notes of a log is found, and the other when that is
// damaged.
func TestEnds(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	notes := []end{{1, 5, 50}, {3, 5, 50}, {4, 5, 50}, {4, 6, 60}, {7, 6, 60}}
	for i, note := range notes {
		e, err := openEnds(dir, log)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && e.of(logWarnings) != notes[i-1] {
			t.Errorf("note %d: found %+v, want %+v", i, e.of(logWarnings), notes[i-1])
		}
		if e.closed() != (i > 0) {
			t.Errorf("note %d: closed %v", i, e.closed())
		}
		e.begin()
		e.note(logWarnings, func(end) end { return note })
		e.close()
	}
	path := filepath.Join(dir, endsFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest := bytes.Index(text, writeEnd(logWarnings, notes[4]))
	if newest < 0 {
		t.Fatalf("the newest note is not in %q", text)
	}
	text[newest+40] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := openEnds(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	if e.of(logWarnings) != notes[3] {
		t.Errorf("beside a damaged note %+v is found, want %+v", e.of(logWarnings), notes[3])
	}
}

// TestDroppedIsNotDamaged: what a log drops at its bound just before a kill is no
// damage.
func TestDroppedIsNotDamaged(t *testing.T) {
	s := open(t, t.TempDir())
	block := bytes.Repeat([]byte("x"), 300<<10)
	for range lettersMaxBytes/len(block) + 40 { // a block of the oldest is dropped
		if err := s.DeadLetters().Append(soon(t), []telemetry.DeadLetter{{Source: "broker", Reason: "bad_json", Bytes: block}}); err != nil {
			t.Fatal(err)
		}
	}
	killed := copyOf(t, s)
	shut(t, s)
	var said blackboard
	open(t, killed, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
	if text := said.String(); strings.Contains(text, "ERROR") {
		t.Errorf("it says %s", text)
	}
}

// TestLongTailLost: a log that has lost a million frames at its end is read as one
// that has lost one.
func TestLongTailLost(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 3 {
		if err := s.Warnings().Append(soon(t), []telemetry.Transition{{Warning: telemetry.Warning{ID: "w", N: i + 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	const last = 1_000_000
	s.ends.note(logWarnings, func(e end) end { e.last = last; return e })
	shut(t, s)
	s = open(t, dir)
	if got := s.Warnings().Last(); got != last {
		t.Fatalf("the last is %d: the test shows nothing", got)
	}
	if _, warnings := sequences(t, s); !slices.Equal(warnings, []uint64{1, 2, 3}) {
		t.Errorf("read: %v", warnings)
	}
	if list, err := s.Warnings().Newest(soon(t), 10); err != nil || len(list) != 3 {
		t.Errorf("the newest: %d, %v", len(list), err)
	}
}
