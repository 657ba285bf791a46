package spool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
			t.Skipf("the log ends at %d: its numbers are given again", s.Readings().Last())
		}
		c := collect(t, s, FollowOptions{Name: "store", From: 1})
		until(t, "the follower is at the end", func() bool { return s.Readings().Lag("store") == 0 })
		letter := lettersOf(t, s, 1)[0]
		if letter.Reason != "gap" || !strings.HasSuffix(letter.Place, "-20") {
			t.Errorf("dead letter %+v, want a gap up to 20", letter)
		}
		put(t, s, river("a", 1000))
		until(t, "what comes next is delivered", func() bool { got := c.got(); return len(got) > 0 && got[len(got)-1] == 1000 })
		c.stop(t)
		shut(t, s)
	}
}

// TestDamagedCheckpoint: it is known at once that a checkpoint cannot be read.
func TestDamagedCheckpoint(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const size = 600 << 10 // three pieces
	if err := s.SaveCheckpoint(soon(t), "rules", []byte(strings.Repeat("0123456789abcdef", size/16))); err != nil {
		t.Fatal(err)
	}
	if blob, err := s.LoadCheckpoint(soon(t), "rules"); err != nil || len(blob) != size {
		t.Fatalf("%d bytes, %v", len(blob), err)
	}
	shut(t, s)
	block := blocksOf(t, dir, "OBJ_"+bucketObjects)[0]
	text, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(block, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	begin := time.Now()
	if blob, err := s.LoadCheckpoint(soon(t), "rules"); err == nil {
		t.Errorf("a damaged checkpoint is read as one of %d bytes", len(blob))
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v to find that the checkpoint is damaged", took)
	}
}

// TestCutIsTold: after a kill, JetStream cuts a block off at a flipped bit. The
// frames behind it are told by number and time.
func TestCutIsTold(t *testing.T) {
	dir, killed := t.TempDir(), t.TempDir()
	s := open(t, dir)
	const frames = 40
	for i := range frames {
		put(t, s, river("a", float64(i)))
	}
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	shut(t, s)
	block := blocksOf(t, killed, streamReadings)[0]
	messages, err := messagesOf(block)
	if err != nil || len(messages) != frames || messages[9].seq != 10 {
		t.Fatalf("%d messages: %v", len(messages), err)
	}
	text, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	text[messages[29].at+100] ^= 4
	if err := os.WriteFile(block, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, killed)
	letter := lettersOf(t, s, 1)[0]
	if letter.Reason != "damaged" || letter.Place != "readings 30-40" || !strings.Contains(letter.Detail, "11 frames") {
		t.Errorf("dead letter %+v, want the 11 frames from 30 on", letter)
	}
	if found := levels(t, s); len(found) != 29 {
		t.Errorf("%d frames are there, want 29", len(found))
	}
}
