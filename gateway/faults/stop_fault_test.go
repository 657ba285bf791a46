package faults

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestStop stops the gateway under load while InfluxDB and the operations centre
// hang: 11 of the issue. It exits 0 within 5 s and loses nothing.
func TestStop(t *testing.T) {
	cycles := times(t, 2, 20)
	tr, door, _ := elsewhere(t, 4, nil)
	manager := listen(t)
	tr.env = []string{"NOTIFY_SOCKET=" + manager.LocalAddr().String(), "WATCHDOG_USEC=400000"}
	r := row{fault: "11 SIGTERM under load"}
	for range cycles {
		tr.start()
		heard(t, manager, "READY=1")
		tr.load()
		tr.awaitAcks(500, 20*time.Second)
		door.misbehave(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool { <-r.Context().Done(); return true })
		tr.centre.behave(func(_ http.ResponseWriter, r *http.Request, _ telemetry.Warning) bool {
			<-r.Context().Done()
			return false
		})
		tr.awaitAcks(500, 20*time.Second)
		heard(t, manager, "WATCHDOG=1")
		code, took := tr.box.stop()
		heard(t, manager, "STOPPING=1")
		tr.unload()
		if code != 0 || took > 5*time.Second*slowness() {
			t.Errorf("exit code %d after %v, want 0 within 5 s\n%s", code, took, tr.output.tail())
		}
		r.recovery = max(r.recovery, took)
		r.times++
		door.misbehave(nil)
		tr.centre.behave(nil)
	}
	tr.env = nil
	tr.start()
	r.remark = "recovery is the time to stop"
	tr.reconcile(r)

	tr.load()
	tr.awaitAcks(500, 20*time.Second)
	_ = tr.cmd.Process.Signal(syscall.SIGTERM)
	<-time.After(20 * time.Millisecond)
	begin := time.Now()
	_ = tr.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-tr.ended:
	case <-time.After(time.Second * slowness()):
		t.Errorf("still running a second after the second SIGTERM")
	}
	tr.unload()
	results.add(row{fault: "11 second SIGTERM", times: 1, recovery: time.Since(begin)})
}

// listen plays the service manager.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// heard waits for a datagram with the word.
func heard(t *testing.T, manager *net.UnixConn, word string) {
	t.Helper()
	_ = manager.SetReadDeadline(time.Now().Add(5 * time.Second * slowness()))
	var b [4096]byte
	for {
		n, err := manager.Read(b[:])
		if err != nil {
			t.Fatalf("the service manager does not hear %s: %v", word, err)
		}
		if strings.Contains(string(b[:n]), word) {
			return
		}
	}
}

// makeFormat makes a fixture with the program that HAIDANG_BINARY names, which is one
// of a former version: testdata/README.md says which.
const makeFormat = "HAIDANG_MAKE_FORMAT"

// TestFormat1 reads a data folder that the first format's program has written,
// and refuses one of a format to come: 10 of the issue.
func TestFormat1(t *testing.T) {
	times(t, 1, 1)
	const fixture = "testdata/format-1.tar.gz"
	if os.Getenv(makeFormat) != "" {
		makeFixture(t, fixture)
	}
	g := newBox(t, "", map[string]string{"ais": "[]"})
	if out, err := exec.Command("tar", "xzf", fixture, "-C", g.dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	g.start()
	g.settled(20 * time.Second)
	points, err := g.points("SELECT n FROM count WHERE device = 'count-0'")
	if err != nil || len(points) != formatReadings {
		t.Errorf("%d readings of format 1, want %d: %v", len(points), formatReadings, err)
	}
	raised := map[string]bool{}
	for _, w := range g.warnings(t) {
		raised[w.ID] = true
	}
	if want := formatReadings / alarmEvery; len(raised) != want {
		t.Errorf("%d warnings of format 1, want %d", len(raised), want)
	}
	if text := g.output.String(); strings.Contains(text, "level=ERROR") {
		t.Errorf("it says\n%s", text)
	}
	if code, _ := g.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, g.output.tail())
	}
	results.add(row{fault: "10 upgrade from format 1", times: 1, acknowledged: formatReadings, lost: formatReadings - len(points)})
	g.refusesNewer(t)
}

const formatReadings = 300

// refusesNewer starts the gateway on a folder of a newer format.
func (g *box) refusesNewer(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.data, "format"), []byte("2 2\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	before := hashes(t, g.data)
	g.launch()
	select {
	case <-g.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it runs on a folder of a newer format")
	}
	if g.exit == 0 || !strings.Contains(g.output.String(), "has format 2, of a newer haidang") {
		t.Errorf("exit code %d:\n%s", g.exit, g.output)
	}
	if after := hashes(t, g.data); after != before {
		t.Errorf("the folder of a newer format was changed")
	}
	results.add(row{fault: "10 newer format refused", times: 1})
}

func hashes(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	for _, name := range filesOf(t, dir) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(sum, name, len(text))
		sum.Write(text)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// makeFixture writes a small data folder: readings, warnings, a checkpoint.
func makeFixture(t *testing.T, name string) {
	t.Helper()
	tr := newTrial(t, "", 1, map[string]string{"ais": "[]", "modbus": ""})
	tr.counter, tr.vessel = nil, nil
	tr.start()
	p := tr.publishers[0]
	conn, err := dialMQTT(tr.mqtt, p.device, 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := range formatReadings {
		p.make()
		if _, err := conn.Write(appendPublish(nil, "telemetry/count-0/count", p.payload(nil, n), 1, uint16(n+1))); err != nil {
			t.Fatal(err)
		}
	}
	tr.settled(20 * time.Second)
	tr.eventually("all are stored", 20*time.Second, func() bool { return len(tr.query("SELECT n FROM count WHERE device = 'count-0'")) == formatReadings })
	conn.Close()
	tr.box.stop()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(name)
	out, err2 := exec.Command("tar", "czf", path, "--exclude=lock", "--owner=0", "--group=0", "-S", "-C", tr.dir, "data").CombinedOutput()
	if err := errors.Join(err, err2); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
}
