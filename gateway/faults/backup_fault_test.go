package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// verb runs a verb of the haidang under test and returns what it prints.
func (g *box) verb(args ...string) (string, error) {
	path, err := haidangPath()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = g.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestBackup copies a gateway that runs under load, restores the copy, and runs
// on it: what was acknowledged before the backup is there once, what was in the
// log is evaluated on, no warning has a second meaning.
func TestBackup(t *testing.T) {
	cycles := times(t, 2, 20)
	tr := newTrial(t, "", 6, nil)
	r := row{fault: "backup under load, restored"}
	tr.start()
	tr.load()
	for cycle := range cycles {
		tr.awaitAcks(2000, 20*time.Second)
		if cycle%2 == 1 {
			tr.settled(20 * time.Second) // with a log that is nearly empty
		}
		acked := make([][]bool, len(tr.publishers))
		for i, p := range tr.publishers {
			p.mu.Lock()
			acked[i] = append(acked[i], p.acked...)
			p.mu.Unlock()
			p.slowest()
		}
		raised := tr.warnings(t) // before the backup
		file := filepath.Join(tr.dir, "backup.tar")
		begin := time.Now()
		if out, err := tr.verb("backup", file, "--config", "gateway.yaml"); err != nil {
			t.Fatalf("backup: %v\n%s", err, out)
		}
		r.recovery = max(r.recovery, time.Since(begin))
		for _, p := range tr.publishers {
			if wait := p.slowest(); wait > 2*time.Second*slowness() {
				t.Errorf("an acknowledgement took %v beside the backup", wait)
			}
		}
		lost := tr.restored(t, file, acked, raised)
		r.lost += lost
		for i := range acked {
			for _, one := range acked[i] {
				if one {
					r.acknowledged++
				}
			}
		}
		r.times++
	}
	tr.unload()
	r.remark = "recovery is the time of a backup"
	if r.lost > 0 {
		t.Errorf("%d readings that were acknowledged before the backup are not in it", r.lost)
	}
	results.add(r)
	tr.settled(60 * time.Second)
	tr.verified(t)
	tr.reconcile(row{fault: "backup, the gateway itself"})
	tr.box.stop()
	tr.verified(t) // and without a gateway
	tr.refusesDamaged(t)
}

// restored runs a gateway of its own on a copy and compares.
func (tr *trial) restored(t *testing.T, file string, acked [][]bool, raised []telemetry.Warning) (lost int) {
	t.Helper()
	second := newBox(t, "", map[string]string{"ioc": tr.centre.config(), "ais": "[]"})
	if out, err := second.verb("restore", file, "--data", second.data); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	if out, err := second.verb("restore", file, "--data", second.data); err == nil || !strings.Contains(out, "is not empty") {
		t.Errorf("a second restore: %v\n%s", err, out)
	}
	second.start()
	second.settled(30 * time.Second)
	for i, p := range tr.publishers {
		points, err := second.points("SELECT n FROM count WHERE device = '" + p.device + "'")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int]int{}
		for _, s := range points {
			if seen[int(s.values[0])]++; seen[int(s.values[0])] > 1 {
				t.Errorf("%s: reading %v is stored twice", p.device, s.values[0])
			}
		}
		for n, was := range acked[i] {
			if was && seen[n] == 0 {
				lost++
			}
		}
	}
	tr.sameWarnings(t, second, raised)
	second.verified(t)
	if code, _ := second.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, second.output.tail())
	}
	return lost
}

// sameWarnings compares the warnings of a copy with those of the gateway itself:
// those that were raised before the backup are there, and all have the ids that the
// gateway itself has given them, though the copy has evaluated the end of its log by
// itself. So none is raised twice.
func (tr *trial) sameWarnings(t *testing.T, second *box, raised []telemetry.Warning) {
	t.Helper()
	here, there := map[string]bool{}, map[string]bool{}
	for _, w := range second.warnings(t) {
		there[w.ID] = true
	}
	for _, w := range tr.warnings(t) { // now, so more than raised
		here[w.ID] = true
	}
	for id := range there {
		if !here[id] {
			t.Errorf("the copy has raised %s, which the gateway itself does not know", id)
		}
	}
	missing := 0
	for i := range raised {
		if !there[raised[i].ID] {
			missing++
		}
	}
	if missing > 0 || len(there) == 0 {
		t.Errorf("%d of %d warnings that were raised before the backup are not in the copy, which has %d", missing, len(raised), len(there))
	}
}

// verified lets haidang verify its own data.
func (g *box) verified(t *testing.T) {
	t.Helper()
	out, err := g.verb("verify", "--json", "--config", "gateway.yaml")
	var v struct{ Logged, Stored, Missing, Extra int }
	if err2 := json.Unmarshal([]byte(out), &v); err != nil || err2 != nil || v.Logged != v.Stored {
		t.Errorf("verify: %v %v\n%s", err, err2, out)
	}
}

// refusesDamaged restores a copy that is cut short and one with a flipped bit.
func (tr *trial) refusesDamaged(t *testing.T) {
	t.Helper()
	whole, err := os.ReadFile(filepath.Join(tr.dir, "backup.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)*2/3] },
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
	} {
		file, dir := filepath.Join(tr.dir, name), filepath.Join(tr.dir, "from-"+name)
		if err := os.WriteFile(file, change(append([]byte(nil), whole...)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := tr.verb("restore", file, "--data", dir); err == nil || !strings.Contains(out, "backup") {
			t.Errorf("a backup that is %s is restored: %v\n%s", name, err, out)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("a backup that is %s has left %s", name, dir)
		}
	}
}

// TestVerify lets InfluxDB lose points that it has accepted, and gives it one
// that no log has: verify tells which.
func TestVerify(t *testing.T) {
	times(t, 1, 1)
	address := freePorts(t, 1)[0]
	startEngine(t, address)
	door := newStore(t, address)
	door.misbehave(func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method != http.MethodPost {
			return false
		}
		kept := losing.ReplaceAll(body, nil)
		response, err := http.Post("http://"+address+r.URL.RequestURI(), "text/plain", bytes.NewReader(kept))
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		response.Body.Close()
		w.WriteHeader(response.StatusCode)
		return true
	})
	tr := newTrial(t, "", 1, map[string]string{"influx": door.config(), "ais": "[]", "modbus": ""})
	tr.counter, tr.vessel = nil, nil
	tr.publishers[0].pause = 5 * time.Millisecond
	tr.start()
	tr.load()
	tr.awaitAcks(100, 20*time.Second)
	tr.unload()
	tr.settled(20 * time.Second)
	at := tr.publishers[0].times[50]*int64(time.Millisecond) + 1
	foreign := fmt.Sprintf("count,device=count-0,site=count-0 n=7,quality=\"good\" %d\n", at)
	response, err := http.Post("http://"+address+"/api/v2/write?bucket=haidang", "text/plain", strings.NewReader(foreign))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	out, err := tr.verb("verify", "--config", "gateway.yaml")
	if err == nil || !strings.Contains(out, "2 readings and 0 transitions of warnings are missing in InfluxDB, 1 points are too many") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	for _, n := range []int{13, 14} {
		if want := time.UnixMilli(tr.publishers[0].times[n]).UTC().Format(time.RFC3339Nano); !strings.Contains(out, want) {
			t.Errorf("verify does not name %s:\n%s", want, out)
		}
	}
	out, err = tr.verb("verify", "--config", "gateway.yaml", "--from", time.UnixMilli(tr.publishers[0].times[60]).Format(time.RFC3339Nano))
	if err != nil {
		t.Errorf("verify of a period in which nothing is missing: %v\n%s", err, out)
	}
	results.add(row{fault: "verify finds what InfluxDB lost", times: 1, acknowledged: tr.acknowledged()})
}

// losing are the points that InfluxDB loses.
var losing = regexp.MustCompile(`(?m)^count,device=count-0,.* n=1[34],.*\n`)
