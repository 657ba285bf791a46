package faults

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// usedAgain is within how long the line is used after it is back (docs/uplink.md).
const usedAgain = 5 * time.Second

// TestUplinkCut cuts the cable between a gateway in the field and its centre, which
// stands in a network namespace: what is sent goes nowhere and nobody is told, as
// when a radio link dies. The field keeps what it takes in; after each cut the line
// is to be used again within 5 s, and in the end the centre has every reading once
// and has told every warning.
func TestUplinkCut(t *testing.T) {
	n := times(t, 1, 1)
	cuts := []time.Duration{6 * time.Second}
	if os.Getenv(variable) == "full" { // longer than the longest wait for an answer, and than TCP's own
		cuts = append(cuts, 700*time.Millisecond, 3*time.Second, 11*time.Second, 31*time.Second, 90*time.Second, 5*time.Minute)
	}
	f := newFar(t)
	r := row{fault: "6e line to the centre cut"}
	for range n {
		for _, length := range cuts {
			f.awaitAcks(300, 30*time.Second)
			f.line.cut(nil)
			<-time.After(length)
			f.line.heal(nil)
			begin, before := time.Now(), f.taken()
			f.eventually(fmt.Sprintf("the line is used again after %v", length), 2*time.Minute, func() bool { return f.taken() > before })
			took := time.Since(begin)
			t.Logf("used again %v after a cut of %v", took.Round(time.Millisecond), length)
			if took > usedAgain*slowness() {
				t.Errorf("used again %v after a cut of %v, want %v at most", took, length, usedAgain)
			}
			r.recovery = max(r.recovery, took)
			r.times++
		}
	}
	f.unload()
	f.reconcile(r)
}

// far is a gateway under load whose centre is another machine.
type far struct {
	*trial
	there *box  // the centre
	line  *spot // its cable to the field; it has another to InfluxDB, recipients and the test
}

// newFar starts both.
func newFar(t *testing.T) *far {
	t.Helper()
	near := newGround(t)
	if near.bridge == "" {
		t.Skip("to cut a cable needs root and network namespaces")
	}
	s := near.join("centre")
	f := &far{line: newGround(t).wire(s)}
	store := net.JoinHostPort(near.own(), portOf(t, freePorts(t, 1)[0]))
	startEngineOn(t, store, t.TempDir())
	told := newCentreAt(t, near.own())

	accounts := filepath.Join(t.TempDir(), "accounts.jsonl")
	f.there = newBox(t, "", map[string]string{
		"gateway": "faults-centre", "ais": "[]", "ioc": told.config(), "uplink": "{accept: true}",
		"accounts": fmt.Sprintf("{file: %q}", accounts),
		"influx":   fmt.Sprintf("{url: \"http://%s\", bucket: haidang, timeout: 5s}", store),
	})
	f.there.write("rules.yaml", "rules: []\n") // those of the field raise; the centre tells
	port := portOf(t, f.there.console)
	f.there.rewrite(f.there.console, "0.0.0.0:"+port)
	f.there.console = net.JoinHostPort(s.ip, port)
	f.there.watcher = [2]string{"watcher", f.there.account("watcher", "reader")}
	secret := f.there.account("faults-box", "gateway", "--device", "*")
	f.there.started = func(cmd *exec.Cmd) (func() int, error) {
		s.inside(cmd)
		return usually(cmd)
	}
	f.there.start()

	field := newBox(t, "", map[string]string{
		"ais": "[]", "ioc": "[]", "uplink": fmt.Sprintf("{url: \"http://%s\", secret: %q}", net.JoinHostPort(f.line.ip, port), secret),
	})
	f.trial = &trial{box: field, centre: told, publishers: publishers(4), store: store, quiet: f.settled}
	for _, p := range f.publishers {
		p.pause = 10 * time.Millisecond
	}
	field.start()
	f.load()
	return f
}

// taken is how many records of the field's readings the centre has on disk.
func (f *far) taken() float64 {
	n, _ := f.there.metric("haidang_uplink_taken_records_total", `log="readings"`)
	return n
}

// settled waits until the field has pushed everything and the centre has done with it.
func (f *far) settled(patience time.Duration) {
	f.t.Helper()
	f.trial.box.settled(patience)
	f.there.settled(patience)
}

func portOf(t testing.TB, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
