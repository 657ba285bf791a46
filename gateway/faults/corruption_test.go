package faults

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCorruption damages one file or folder of the data folder at a random place: 4
// of the issue. It starts, says what was lost, and loses nothing else. Three
// folders: one whose log holds what no InfluxDB has had yet, closed and killed, and
// one whose readings are in the embedded InfluxDB, killed. Two harms that were
// found this way are always among them. (gateway/spool's TestSweep does the same to
// each file of a log, some nine hundred times.)
func TestCorruption(t *testing.T) {
	for _, folder := range []struct {
		name           string
		stored, killed bool
		ci, full       int
	}{{"log", false, false, 5, 200}, {"log, killed", false, true, 5, 200}, {"store, killed", true, true, 4, 200}} {
		t.Run(folder.name, func(t *testing.T) {
			n := times(t, folder.ci, folder.full)
			seed := seedOf(t)
			tr, whole := backlog(t, folder.stored, folder.killed)
			harms := harmsOf(t, whole, folder.stored, seed)
			r := row{fault: "4 corruption, " + folder.name}
			for i := range n {
				tr.damaged(whole, harms[i%len(harms)], &r)
			}
			r.acknowledged /= n // the same ones each time
			r.remark = fmt.Sprintf("%d ways of %d; at most %d readings in the damaged part, each time told", min(n, len(harms)), len(harms), tr.worstLoss)
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
		tr.eventually("the list of InfluxDB's files is complete", 20*time.Second, func() bool { return listed(tr.data) })
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

// listed tells whether each file of the embedded InfluxDB that holds readings is in
// its list: one that is some seconds old may be missed when it is gone.
func listed(data string) bool {
	list, _ := os.ReadFile(filepath.Join(data, "influx.files"))
	for _, pattern := range []string{"data/*/*/*/*.tsm", "wal/*/*/*/*.wal"} {
		files, _ := filepath.Glob(filepath.Join(data, "influx", pattern)) // the pattern is good
		for _, name := range files {
			at, err := os.Stat(name)
			if short, _ := filepath.Rel(filepath.Join(data, "influx"), name); err == nil && at.Size() > 0 && !strings.Contains(string(list), short) {
				return false
			}
		}
	}
	return len(list) > 0
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

// damaged tries the folder with one harm.
func (tr *trial) damaged(whole string, h harm, r *row) {
	t := tr.t
	t.Helper()
	if err := os.RemoveAll(tr.data); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(tr.data, os.DirFS(whole)); err != nil {
		t.Fatal(err)
	}
	if err := h.do(filepath.Join(tr.data, h.name)); err != nil {
		t.Fatal(err)
	}
	t.Log(h)
	begin := time.Now()
	tr.start()
	took := time.Since(begin)
	r.recovery = max(r.recovery, took)
	r.times++
	tr.settled(30 * time.Second)
	acked, missing, bytes := tr.present(h, r)
	r.acknowledged += acked
	text := tr.output.String()
	_, letters := tr.try("/api/v1/deadletters?limit=1000")
	t.Logf("%s: ready in %v, %d of %d lost (%d KiB)", h, took.Round(time.Millisecond), missing, acked, bytes>>10)
	if os.Getenv("FAULTS_VERBOSE") != "" {
		t.Log(text, letters)
	}
	told := strings.Contains(letters, `"reason":"damaged"`) || // by sequence and time; of what the store held, by time
		strings.Contains(text, "is damaged and set aside") || strings.Contains(text, "a data file of InfluxDB is missing") || strings.Contains(text, "cut an incomplete entry")
	if missing > 0 && !told {
		t.Errorf("%s: %d readings are lost, and nothing tells it\n%s\n%s", h, missing, text, letters)
	}
	if bytes > h.most {
		t.Errorf("%s: %d KiB of readings are lost, want at most %d KiB\n%s\n%s", h, bytes>>10, h.most>>10, text, letters)
		r.lost += missing
	}
	tr.noneTwice(h)
	tr.worstLoss = max(tr.worstLoss, missing)
	if took > 5*time.Second*slowness() {
		t.Errorf("%s: ready after %v\n%s", h, took, text)
	}
	if code, _ := tr.box.stop(); code != 0 {
		t.Errorf("%s: exit code %d\n%s", h, code, tr.output.tail())
	}
}

// present counts the acknowledged readings that are in InfluxDB and those that are
// missing.
func (tr *trial) present(h harm, r *row) (acked, missing, bytes int) {
	for _, p := range tr.publishers {
		seen := map[int]bool{}
		for _, s := range tr.query(fmt.Sprintf("SELECT n FROM count WHERE device = '%s'", p.device)) {
			if n := int(s.values[0]); seen[n] {
				r.doubled++
				tr.t.Errorf("%s: reading %d of %s is there twice", h, n, p.device)
			} else {
				seen[n] = true
			}
		}
		for n, ok := range p.acked {
			if !ok {
				continue
			}
			acked++
			if !seen[n] {
				missing++
				bytes += len(p.pad) + 60
			}
		}
	}
	return acked, missing, bytes
}

// noneTwice: there are not more warnings of a device than readings that raise one.
func (tr *trial) noneTwice(h harm) {
	raised := map[string]int{}
	for _, w := range tr.warnings(tr.t) {
		raised[w.Device]++
	}
	for _, p := range tr.publishers {
		if most := (len(p.times) + alarmEvery - 1) / alarmEvery; raised[p.device] > most {
			tr.t.Errorf("%s: %d warnings of %s, whose readings raise %d", h, raised[p.device], p.device, most)
		}
	}
}
