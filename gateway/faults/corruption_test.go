package faults

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCorruption damages one file of the data folder at a random place: 4 of the
// issue. It starts, says what was lost, and loses nothing else. Three folders:
// one whose log holds what no InfluxDB has had yet, closed and killed, and one
// whose readings are in the embedded InfluxDB, killed.
func TestCorruption(t *testing.T) {
	for _, folder := range []struct {
		name           string
		stored, killed bool
		ci, full       int
	}{{"log", false, false, 4, 200}, {"log, killed", false, true, 4, 200}, {"store, killed", true, true, 4, 200}} {
		t.Run(folder.name, func(t *testing.T) {
			n := times(t, folder.ci, folder.full)
			tr, whole := backlog(t, folder.stored, folder.killed)
			files := filesOf(t, whole, folder.stored)
			r := row{fault: "4 corruption, " + folder.name}
			for i := range n {
				if i%len(files) == 0 { // each file once before any is damaged twice
					rand.Shuffle(len(files), func(a, b int) { files[a], files[b] = files[b], files[a] })
				}
				tr.damaged(whole, files[i%len(files)], i%2 == 0, &r)
			}
			r.acknowledged /= n // the same ones each time
			r.remark = fmt.Sprintf("at most %d readings in the damaged part, each time told", tr.worstLoss)
			results.add(r)
		})
	}
}

// backlog makes a data folder and returns a copy of it: with readings that are
// in the embedded InfluxDB, or in the log only.
func backlog(t *testing.T, stored, killed bool) (*trial, string) {
	more := map[string]string{}
	if !stored {
		more["influx"] = newStore(t, "").config()
	}
	tr := newTrial(t, "", 4, more)
	for _, p := range tr.publishers {
		p.pad = strings.Repeat("word ", 400)
	}
	tr.start()
	tr.load()
	tr.awaitAcks(10_000, 60*time.Second)
	tr.unload()
	// The rules' checkpoint is among what is to be damaged.
	tr.eventually("a checkpoint is kept", 20*time.Second, func() bool {
		_, err := os.Stat(filepath.Join(tr.data, "spool/jetstream/$G/streams/OBJ_CHECKPOINTS/msgs/1.blk"))
		return err == nil
	})
	if stored {
		tr.settled(20 * time.Second)
	}
	if killed {
		tr.kill()
	} else {
		tr.box.stop()
	}
	noSockets(t, tr.data)
	whole := filepath.Join(t.TempDir(), "whole")
	if err := os.CopyFS(whole, os.DirFS(tr.data)); err != nil {
		t.Fatal(err)
	}
	// From here on the store is within.
	tr.box = newBox(t, tr.data, map[string]string{"ioc": tr.centre.config(), "modbus": "", "ais": "[]"})
	tr.counter, tr.vessel = nil, nil
	return tr, whole
}

// noSockets removes what a killed process leaves and no copy can hold.
func noSockets(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type() == fs.ModeSocket {
			err = os.Remove(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func filesOf(t *testing.T, dir string, stored bool) (files []string) {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || entry.Name() == "lock" {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if stored && !strings.HasPrefix(name, "influx") {
			return err
		}
		files = append(files, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// damaged tries the folder with one damaged file.
func (tr *trial) damaged(whole, name string, flip bool, r *row) {
	t := tr.t
	t.Helper()
	if err := os.RemoveAll(tr.data); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(tr.data, os.DirFS(whole)); err != nil {
		t.Fatal(err)
	}
	what := damage(t, filepath.Join(tr.data, name), flip)
	t.Logf("%s %s", what, name)
	begin := time.Now()
	tr.start()
	took := time.Since(begin)
	r.recovery = max(r.recovery, took)
	r.times++
	tr.settled(20 * time.Second)
	acked, missing, bytes := 0, 0, 0
	var example []int
	for _, p := range tr.publishers {
		seen := map[int]bool{}
		for _, s := range tr.query(fmt.Sprintf("SELECT n FROM count WHERE device = '%s'", p.device)) {
			if n := int(s.values[0]); seen[n] {
				r.doubled++
				t.Errorf("%s %s: reading %d of %s is there twice", what, name, n, p.device)
			} else {
				seen[n] = true
			}
		}
		for n, ok := range p.acked {
			if ok {
				acked++
				if !seen[n] {
					missing++
					bytes += len(p.pad) + 60
					example = append(example, n)
				}
			}
		}
	}
	r.acknowledged += acked
	text := tr.output.String()
	_, letters := tr.try("/api/v1/deadletters?limit=1000")
	t.Logf("%s %s: ready in %v, %d of %d lost (%d KiB)", what, name, took.Round(time.Millisecond), missing, acked, bytes>>10)
	if os.Getenv("FAULTS_VERBOSE") != "" {
		t.Log(text, letters)
	}
	told := strings.Contains(letters, `"gap"`) || strings.Contains(letters, `"reason":"damaged"`) || // by sequence; of what the store held, by time
		strings.Contains(text, "is damaged and set aside") || strings.Contains(text, "cut an incomplete entry")
	if missing > 0 && !told {
		t.Errorf("%s %s: %d readings are lost, %v, and nothing tells it\n%s\n%s", what, name, missing, example[:min(10, len(example))], text, letters)
	}
	if strings.HasPrefix(name, "spool") && bytes > 8<<20 { // a block of JetStream
		t.Errorf("%s %s: %d KiB of readings are lost, want at most a block of 8 MiB", what, name, bytes>>10)
		r.lost += missing
	}
	tr.worstLoss = max(tr.worstLoss, missing)
	if took > 5*time.Second {
		t.Errorf("%s %s: ready after %v\n%s", what, name, took, text)
	}
	if code, _ := tr.box.stop(); code != 0 {
		t.Errorf("%s %s: exit code %d\n%s", what, name, code, tr.output.tail())
	}
}

// damage flips a bit of a file or cuts its end off, at a random place.
func damage(t testing.TB, path string, flip bool) string {
	t.Helper()
	stat, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	at := rand.Int64N(stat.Size())
	if !flip {
		if err := os.Truncate(path, at); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("cut at %d of %d", at, stat.Size())
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var b [1]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << rand.N(8)
	if _, err := file.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("bit at %d of %d", at, stat.Size())
}
