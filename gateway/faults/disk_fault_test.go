//go:build linux

package faults

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPowerCut cuts the power of the disk under load: 2 of the issue.
func TestPowerCut(t *testing.T) {
	cycles := times(t, 2, 100)
	d := newDisk(t, 1<<30)
	tr := newTrial(t, filepath.Join(d.dir, "data"), 6, nil)
	r := row{fault: "2 power cut"}
	tr.start()
	tr.load()
	for range cycles {
		<-time.After(200*time.Millisecond + rand.N(1500*time.Millisecond))
		d.cut()
		tr.kill()
		d.remount()
		begin := time.Now()
		tr.start()
		tr.awaitAcks(1, 20*time.Second)
		r.recovery = max(r.recovery, time.Since(begin))
		r.times++
	}
	<-time.After(300 * time.Millisecond)
	tr.unload()
	tr.reconcile(r)
	tr.kill() // before the disk is taken away
}

// TestDiskFull fills the disk to the last byte under load and frees it again: 3
// of the issue. Publishing stops visibly, and goes on within 10 s.
func TestDiskFull(t *testing.T) {
	cycles := times(t, 2, 20)
	d := newDisk(t, 256<<20)
	tr := newTrial(t, filepath.Join(d.dir, "data"), 6, map[string]string{"spool": "{max_bytes: 64MiB}"})
	r := row{fault: "3 disk full, refuse"}
	tr.start()
	tr.load()
	for cycle := range cycles {
		tr.awaitAcks(500, 20*time.Second)
		leave := int64(0) // at once, so that writes fail
		if cycle%2 == 1 {
			leave = 20 << 20 // below the headroom, so that readings are refused before
		}
		d.fill(leave)
		tr.eventually("readings are refused", 10*time.Second, func() bool {
			refused, _ := tr.metric("haidang_spool_refused_total", `log="readings"`)
			status, _ := tr.try("/readyz")
			return refused > 0 && status != 200
		})
		<-time.After(3 * time.Second)
		before := tr.acknowledged()
		<-time.After(time.Second)
		if n := tr.acknowledged() - before; n > 0 {
			t.Errorf("%d readings were acknowledged on a full disk", n)
		}
		d.empty()
		begin := time.Now()
		tr.awaitAcks(1, 30*time.Second)
		tr.awaitReady(30 * time.Second)
		r.recovery = max(r.recovery, time.Since(begin))
		r.times++
	}
	tr.unload()
	if r.recovery > 10*time.Second {
		t.Errorf("it took %v to recover, want 10 s", r.recovery)
	}
	if !strings.Contains(tr.output.String(), "the disk is nearly full") {
		t.Errorf("the log does not tell that the disk was full\n%s", tr.output.tail())
	}
	tr.reconcile(r)
	tr.kill()
}
