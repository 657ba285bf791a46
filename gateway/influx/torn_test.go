package influx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/golang/snappy"
	"github.com/influxdata/influxdb/tsdb/engine/tsm1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestTornTail cuts the write-ahead log in the middle of its last entry, as a
// power cut does, and looks whether what is written afterwards survives the
// next restart.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	session := func(from, to int) {
		t.Helper()
		s, err := Open(dir, quiet(), prometheus.NewRegistry(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for n := from; n < to; n++ {
			write(t, s, fmt.Sprintf("river,device=a,site=a n=%d %d\n", n, n+1))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	session(0, 10)
	segments, err := filepath.Glob(filepath.Join(dir, "wal", Database, policy, "*", "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v %v", segments, err)
	}
	stat, err := os.Stat(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segments[0], stat.Size()-7); err != nil {
		t.Fatal(err)
	}
	session(9, 20)
	session(20, 30)
	s := open(t, dir, quiet(), nil)
	if n := count(t, s, "river", "n"); n != 30 {
		t.Errorf("%d points, want 30", n)
	}
}

// fillDisk puts /dev/full in the place of the open segments of the write-ahead
// log, which then fail with ENOSPC as on a full disk.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here:", err)
	}
	defer full.Close()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here:", err)
	}
	replaced := 0
	for _, fd := range fds {
		path, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || !strings.HasPrefix(path, dir) || filepath.Ext(path) != ".wal" {
			continue
		}
		n, err := strconv.Atoi(fd.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Dup3(int(full.Fd()), n, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		replaced++
	}
	if replaced == 0 {
		t.Fatal("no segment is open")
	}
}

func TestFullDiskIsNotForEver(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quiet(), nil)
	write(t, s, "river,device=a,site=a n=0 1\nriver,device=a,site=a n=1 2\n")
	fillDisk(t, dir)
	next := "river,device=a,site=a n=2 3\n"
	for range 2 {
		err := s.Write(t.Context(), []byte(next))
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Fatalf("write to a full disk: %v", err)
		}
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("ready although it cannot write")
	}
	// While there is no room, opening again is of no use.
	s.space = func(string) (uint64, uint64, error) { return healBytes - 1, 1 << 40, nil }
	s.restart()
	if !s.sick.Load() {
		t.Error("opened again without room")
	}
	s.space = freeSpace
	s.restart()
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
	write(t, s, next)
	if n := count(t, s, "river", "n"); n != 3 {
		t.Errorf("%d points, want 3", n)
	}
	if n := testutil.ToFloat64(s.metrics.restarts); n != 1 {
		t.Errorf("%v restarts counted", n)
	}
}

func TestWordsOfFilesInALineAreNoSickness(t *testing.T) {
	s := open(t, t.TempDir(), quiet(), nil)
	err := s.Write(t.Context(), []byte("river,device=WAL-no\\ space\\ left level_m= 1\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "1 rejected") || s.sick.Load() {
		t.Errorf("got %v, sick %v", err, s.sick.Load())
	}
}

func TestRepairLogs(t *testing.T) {
	dir := t.TempDir()
	if cuts, err := repairLogs(filepath.Join(dir, "none")); err != nil || len(cuts) > 0 {
		t.Errorf("a folder that is not there: %v %v", cuts, err)
	}
	s, err := Open(dir, quiet(), prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, "river,device=a,site=a n=0 1\n")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "wal", Database, policy, "*", "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v %v", segments, err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, tail := range map[string]string{
		"nothing":         "",
		"half a header":   "\x01\x00",
		"half an entry":   string(whole[:len(whole)-1]),
		"a hole":          strings.Repeat("\x00", 100),
		"4 GiB announced": "\x01\xff\xff\xff\xff garbage",
		"no snappy":       "\x01\x00\x00\x00\x05\xff\xff\xff\xff\xff",
		"unknown type":    "\x09" + string(whole[1:]),
	} {
		if err := os.WriteFile(segments[0], append(append([]byte{}, whole...), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		cuts, err := repairLogs(dir)
		if err != nil {
			t.Fatal(err)
		}
		if tail == "" && len(cuts) > 0 || tail != "" && (len(cuts) != 1 || cuts[0].cut != int64(len(tail)) || cuts[0].kept != int64(len(whole))) {
			t.Errorf("%s: %+v", name, cuts)
		}
		if got, err := os.ReadFile(segments[0]); err != nil || string(got) != string(whole) {
			t.Errorf("%s: %d bytes left of %d, %v", name, len(got), len(whole), err)
		}
	}
}

// FuzzWholeEntries feeds segments to the check that stands before the engine:
// whatever it lets through, it lets through again.
func FuzzWholeEntries(f *testing.F) {
	values := map[string][]tsm1.Value{"river,device=a#!~#n": {tsm1.NewValue(1, 2.5), tsm1.NewValue(2, 3.5)}}
	plain, err := (&tsm1.WriteWALEntry{Values: values}).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(tsm1.WriteWALEntryType), plain)
	f.Add(byte(tsm1.DeleteWALEntryType), []byte("river,device=a#!~#n"))
	f.Add(byte(tsm1.DeleteRangeWALEntryType), make([]byte, 16))
	f.Fuzz(func(t *testing.T, kind byte, plain []byte) {
		packed := snappy.Encode(nil, plain)
		segment := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(packed)))
		segment = append(segment, packed...)
		kept, err := wholeEntries(bytes.NewReader(segment), int64(len(segment)))
		if err != nil || kept != 0 && kept != int64(len(segment)) {
			t.Fatalf("kept %d of %d, %v", kept, len(segment), err)
		}
		twice := append(segment, segment...)
		again, err := wholeEntries(bytes.NewReader(twice), int64(len(twice)))
		if err != nil || again != 2*kept {
			t.Fatalf("kept %d of one entry and %d of two, %v", kept, again, err)
		}
	})
}
