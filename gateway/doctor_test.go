package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// examineAs runs the doctor over a configuration and returns its exit code and
// findings.
func examineAs(t *testing.T, args ...string) (int, []finding) {
	t.Helper()
	code, stdout, stderr := command(t, append([]string{"doctor", "--json"}, args...)...)
	var findings []finding
	if err := json.Unmarshal([]byte(stdout), &findings); err != nil {
		t.Fatalf("doctor: %v\n%s%s", err, stdout, stderr)
	}
	return code, findings
}

// expectFinding fails unless a finding of this verdict says all of it.
func expectFinding(t *testing.T, findings []finding, v verdict, about string, says ...string) {
	t.Helper()
	var seen []string
	for _, f := range findings {
		if f.About != about {
			continue
		}
		seen = append(seen, fmt.Sprintf("%s %s", f.Verdict, f.Says))
		all := f.Verdict == v
		for _, s := range says {
			all = all && strings.Contains(f.Says, s)
		}
		if all {
			if v == wrong && f.Do == "" {
				t.Errorf("%s: %q does not say what to do", about, f.Says)
			}
			return
		}
	}
	t.Errorf("no finding %s about %q that says %q; there is %q", v, about, says, seen)
}

func TestDoctor(t *testing.T) {
	t.Run("broken configuration", func(t *testing.T) {
		g := prepare(t, "spool: {max_bites: 1GiB}\n")
		code, findings := examineAs(t, "--config", filepath.Join(g.dir, "gateway.yaml"))
		expectFinding(t, findings, wrong, "configuration", "gateway.yaml:8", "max_bites")
		expectFinding(t, findings, fine, "data folder", filepath.Join(g.dir, "data"))
		if code != exitFailed {
			t.Errorf("exit code %d", code)
		}
	})

	t.Run("nothing reachable", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		gone := freePorts(t, 2)
		g := prepare(t, fmt.Sprintf(`modbus: [{name: mast, connect: "tcp://%s", units: [{id: 1, device: mast-1, profile: weather-485}]}]
ioc: [{name: centre, webhook: {url: "http://%s/", secret: long-enough-for-a-test-of-it}}]
`, gone[0], gone[1]))
		text := read(t, g.dir, "gateway.yaml")
		g.write("gateway.yaml", strings.Replace(text, g.ports.mqtt, taken.Addr().String(), 1))
		_, findings := examineAs(t, "--config", filepath.Join(g.dir, "gateway.yaml"))
		expectFinding(t, findings, wrong, "port of broker.listen", "is taken")
		expectFinding(t, findings, fine, "port of console.listen", "is free")
		expectFinding(t, findings, wrong, "modbus mast", gone[0], "refused")
		expectFinding(t, findings, wrong, "recipient centre", gone[1], "refused")
		expectFinding(t, findings, odd, "gateway", "none runs")
	})

	t.Run("data folder is a file", func(t *testing.T) {
		g := prepare(t, "")
		g.write("data", "")
		code, findings := examineAs(t, "--config", filepath.Join(g.dir, "gateway.yaml"))
		expectFinding(t, findings, wrong, "data folder", "is a file")
		if code != exitFailed {
			t.Errorf("exit code %d", code)
		}
	})

	t.Run("running", func(t *testing.T) {
		g := prepare(t, "")
		g.start()
		code, findings := examineAs(t, "--config", filepath.Join(g.dir, "gateway.yaml"))
		expectFinding(t, findings, fine, "gateway", "test-box is ready")
		expectFinding(t, findings, odd, "recipients", "nobody is told")
		if code != exitWell {
			t.Errorf("exit code %d: %v", code, findings)
		}
		code, stdout, _ := command(t, "health", "--data", filepath.Join(g.dir, "data"))
		if code != exitWell || !strings.Contains(stdout, "test-box  ready") || !strings.Contains(stdout, "rules of readings") {
			t.Errorf("health: %d\n%s", code, stdout)
		}
		g.stop()
		if code, _, stderr := command(t, "health", "--data", filepath.Join(g.dir, "data")); code != exitFailed || !strings.Contains(stderr, "no gateway runs") {
			t.Errorf("health of a stopped gateway: %d %s", code, stderr)
		}
	})
}

// TestDoctorJudges is what it says of a gateway in trouble.
func TestDoctorJudges(t *testing.T) {
	x := &examination{}
	x.judge(&health{
		Gateway: "box", Version: version, Started: time.Now(), NotReady: map[string]string{"store": "disk full"},
		Sources:    []sourceHealth{{Name: "modbus.line-1", Restarts: 7}, {Name: "broker", Running: true}},
		Followers:  []followerHealth{{Log: "readings", Name: "influx", LagSeconds: 4000, LagFrames: 900}, {Log: "readings", Name: "rules", Dropped: 3}},
		Recipients: []recipientHealth{{Name: "ioc", WaitingFor: 900, Failed: 12}, {Name: "committee"}},
		SetAside:   map[string]float64{"checksum": 4},
	})
	expectFinding(t, x.findings, wrong, "gateway", "store is not ready: disk full")
	expectFinding(t, x.findings, wrong, "source modbus.line-1", "7 tries")
	expectFinding(t, x.findings, wrong, "influx of the readings log", "1h6m40s behind")
	expectFinding(t, x.findings, wrong, "rules of the readings log", "3 frames were gone")
	expectFinding(t, x.findings, wrong, "recipient ioc", "15m")
	expectFinding(t, x.findings, odd, "set aside", "4 for checksum")
	if n := x.count(wrong); n != 5 {
		t.Errorf("%d findings are wrong, want 5: %v", n, x.findings)
	}
}

// TestDoctorRights is a data folder that cannot be written.
func TestDoctorRights(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	x := &examination{cfg: Configuration{Data: dir}}
	x.dataFolder()
	expectFinding(t, x.findings, wrong, "data folder", "permission denied")
}
