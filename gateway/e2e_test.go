package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestE2EMosquitto is the README's first station with mosquitto's own clients
// and curl.
func TestE2EMosquitto(t *testing.T) {
	needPeers(t, "mosquitto_pub", "mosquitto_sub", "curl")
	g := prepare(t, "")
	g.start()
	host, port, _ := net.SplitHostPort(g.ports.mqtt)
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("mosquitto_pub", "-h", host, "-p", port, "-q", "1", "-t", "telemetry/kim-long/river", "-m", `{"level_m":3.62}`)
	heard := run("mosquitto_sub", "-h", host, "-p", port, "-t", "warnings/#", "-v", "-C", "1", "-W", "5")
	if !strings.HasPrefix(heard, "warnings/kim-long/flood-level {") || !strings.Contains(heard, `"severity":"extreme"`) {
		t.Errorf("mosquitto_sub: %s", heard)
	}
	eventually(t, "curl gives InfluxDB's JSON", 2*time.Second, func() bool {
		answer := run("curl", "-sS", "http://"+g.ports.influx+"/query", "-d", "db=haidang", "--data-urlencode", "q=SELECT last(level_m) FROM river GROUP BY device", "-G")
		return strings.Contains(answer, `"tags":{"device":"kim-long"}`) && strings.Contains(answer, "3.62")
	})
	for _, q := range []string{"DROP DATABASE haidang", "DELETE FROM river", "SELECT * INTO x FROM river", "CREATE DATABASE y"} {
		for _, method := range []string{"-G", "-XPOST"} {
			answer := run("curl", "-sS", "http://"+g.ports.influx+"/query", "-d", "db=haidang", "--data-urlencode", "q="+q, method)
			if !strings.Contains(answer, `"error"`) {
				t.Errorf("%s %s: %s", method, q, answer)
			}
		}
	}
	if rows := g.rows("SELECT count(level_m) FROM river"); len(rows) != 1 {
		t.Error("the readings are gone")
	}
}

// TestE2EInfluxWrite writes as InfluxDB's clients do.
func TestE2EInfluxWrite(t *testing.T) {
	needPeers(t, "curl")
	g := prepare(t, "")
	g.start()
	for _, path := range []string{"/write?db=haidang&precision=s", "/api/v2/write?bucket=haidang&org=x&precision=s"} {
		out, err := exec.Command("curl", "-sS", "-w", "%{http_code}", "-XPOST", "http://"+g.ports.influx+path, "--data-binary", "river,device=kim-long level_m=2.2 1761570000\nriver level_m=1 1761570000\n").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "400") || !strings.Contains(string(out), "1 lines accepted, 1 refused") {
			t.Errorf("%s: %s %v", path, out, err)
		}
	}
	eventually(t, "the line is stored once", 3*time.Second, func() bool {
		rows := g.rows("SELECT level_m FROM river")
		return len(rows) == 1 && rows[0][0].(json.Number) == "1761570000000000000"
	})
}

// TestE2EDecode compares `haidang decode ais` with gpsdecode on sentences that
// both take.
func TestE2EDecode(t *testing.T) {
	needPeers(t, "gpsdecode")
	sentences := "!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C\n" +
		"!AIVDM,2,1,1,A,55?MbV02;H;s<HtKR20EHE:0@T4@Dn2222222216L961O5Gf0NSQEp6ClRp8,0*1C\n!AIVDM,2,2,1,A,88888888880,2*25\n" +
		"!AIVDM,1,1,,A,B52K>;h00Fc>jpUlNV@ikwpUoP06,0*4C\n"
	file := filepath.Join(t.TempDir(), "sentences")
	if err := os.WriteFile(file, []byte(sentences), 0o600); err != nil {
		t.Fatal(err)
	}
	code, ours, stderr := command(t, "decode", "ais", "--unscaled", file)
	if code != exitWell {
		t.Fatal(stderr)
	}
	peer := exec.Command("gpsdecode", "-j", "-u", "-s")
	peer.Stdin = strings.NewReader(sentences)
	theirs, err := peer.Output()
	if err != nil {
		t.Fatal(err)
	}
	own, peers := objects(t, []byte(ours)), objects(t, theirs)
	if len(own) != 3 || len(peers) != 3 {
		t.Fatalf("%d messages of ours, %d of gpsdecode's; want 3", len(own), len(peers))
	}
	for i := range own {
		for key, want := range peers[i] {
			if key == "device" {
				continue
			}
			if got := own[i][key]; got != want {
				t.Errorf("message %d: %s is %v, gpsdecode says %v", i, key, got, want)
			}
		}
	}
}

func objects(t *testing.T, text []byte) (out []map[string]any) {
	t.Helper()
	for line := range bytes.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, m)
	}
	return out
}

// needPeers skips a test whose peers are not installed; in CI they are.
func needPeers(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("HAIDANG_E2E") != "" {
				t.Fatalf("%s is not installed: run .ci/peers", name)
			}
			t.Skipf("%s is not installed (.ci/peers installs it)", name)
		}
	}
}
