package faults

import (
	"testing"
	"time"
)

// TestKill kills the process at random moments under load: 1 of the issue.
func TestKill(t *testing.T) {
	cycles := times(t, 10, 1000)
	random := chance(t)
	tr := newTrial(t, "", 6, nil)
	r := row{fault: "1 kill -9"}
	tr.start()
	tr.load()
	for range cycles {
		<-time.After(100*time.Millisecond + time.Duration(random.Int64N(int64(600*time.Millisecond))))
		tr.kill()
		begin := time.Now()
		tr.start()
		tr.awaitAcks(1, 20*time.Second)
		r.recovery = max(r.recovery, time.Since(begin))
		r.times++
	}
	tr.unload()
	r = tr.reconcile(r)
	if r.acknowledged < 100*cycles {
		t.Errorf("%d readings were acknowledged in %d cycles: there was no load", r.acknowledged, cycles)
	}
	if code, _ := tr.box.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, tr.output.tail())
	}
}
