package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"haidang/gateway/certificate"
	"haidang/gateway/influx"
)

// TestDoctorOfBrokenInstallations breaks an installation in one way at a time and
// holds what the doctor says of it to what an administrator can act on.
func TestDoctorOfBrokenInstallations(t *testing.T) {
	for name, c := range map[string]struct {
		more  string
		files map[string]string
		about string
		want  []string
		do    string
	}{
		"a rule that is none": {
			more: "rules: [rules.yaml]\n", files: map[string]string{"rules.yaml": "rules:\n  - {name: flood, on: river, when: levl_m > 2, message: {vi: x, en: x}}\n"},
			about: "configuration", want: []string{"rules.yaml:2", "levl_m"}, do: "haidang check",
		},
		"a serial port that is not there": {
			more:  "serial: [{name: wxt, connect: \"serial:///dev/tty-none?baud=9600\", device: tt-hue, format: vaisala-wxt}]\n",
			about: "serial wxt", want: []string{"/dev/tty-none is not there"}, do: "/dev/serial/by-id",
		},
		"a modem that is not there": {
			more:  "ioc: [{name: sms, sms: {connect: \"serial:///dev/tty-none?baud=9600\", to: [\"+84905123456\"]}}]\n",
			about: "recipient sms", want: []string{"/dev/tty-none is not there"}, do: "plug the adapter in",
		},
		"a bridge to nobody": {
			more:  "bridges: [{name: province, connect: \"mqtt://127.0.0.1:1\", subscribe: [\"a/#\"]}]\n",
			about: "bridge province", want: []string{"127.0.0.1:1 cannot be reached", "refused"}, do: "the line to it",
		},
		"a file in the place of the data folder's parent": {
			more: "data: none/of/these\n", about: "data folder", want: []string{"none/of"}, do: "make it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := prepare(t, "")
			text := read(t, g.dir, "gateway.yaml")
			if strings.HasPrefix(c.more, "data:") {
				text = strings.Replace(text, "data: "+filepath.Join(g.dir, "data"), "", 1)
			}
			g.write("gateway.yaml", text+c.more)
			for name, text := range c.files {
				g.write(name, text)
			}
			code, findings := examineAs(t, "--config", filepath.Join(g.dir, "gateway.yaml"))
			expectFinding(t, findings, wrong, c.about, c.want...)
			expectAdvice(t, findings, c.about, c.do)
			if code != exitFailed {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// expectAdvice fails unless something wrong is told to be mended like that.
func expectAdvice(t *testing.T, findings []finding, about, do string) {
	t.Helper()
	for _, f := range findings {
		if f.About == about && f.Verdict == wrong && strings.Contains(f.Do, do) {
			return
		}
	}
	t.Errorf("nobody is told %q about %s: %+v", do, about, findings)
}

// TestDoctorCertificates are one that has expired, one that will soon, and one whose
// key is that of another.
func TestDoctorCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		age, life time.Duration
		verdict   verdict
		want      string
	}{
		"expired": {age: 60 * 24 * time.Hour, life: 30 * 24 * time.Hour, verdict: wrong, want: "expired on"},
		"soon":    {age: time.Hour, life: 10 * 24 * time.Hour, verdict: odd, want: "it expires on"},
		"good":    {age: time.Hour, life: 300 * 24 * time.Hour, verdict: fine, want: "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := certificate.SelfSigned(certificate.Request{Dir: dir, Hosts: []string{"127.0.0.1"}, Life: c.life, Now: time.Now().Add(-c.age)}); err != nil {
				t.Fatal(err)
			}
			g := prepare(t, "")
			own := fmt.Sprintf("tls: {cert: %s, key: %s}", filepath.Join(dir, certificate.ServerCert), filepath.Join(dir, certificate.ServerKey))
			text := read(t, g.dir, "gateway.yaml")
			text = strings.Replace(text, fmt.Sprintf("console: {listen: %q}", g.ports.console), fmt.Sprintf("console: {listen: %q, %s}", g.ports.console, own), 1)
			g.write("gateway.yaml", strings.Replace(text, fmt.Sprintf("influx: {listen: %q}", g.ports.influx), fmt.Sprintf("influx: {listen: %q, %s}", g.ports.influx, own), 1))
			_, findings := examineAs(t, "--config", filepath.Join(g.dir, "gateway.yaml"))
			for _, key := range []string{"console.tls", "influx.tls"} {
				expectFinding(t, findings, c.verdict, "certificate of "+key, c.want)
			}
		})
	}
	x := &examination{cfg: defaults()}
	x.cfg.Console.TLS.Cert, x.cfg.Console.TLS.Key = "none.pem", "none-key.pem"
	x.certificates()
	expectFinding(t, x.findings, wrong, "certificate of console.tls", "none.pem")
}

// TestDoctorClock is a machine that lost its time with its battery.
func TestDoctorClock(t *testing.T) {
	x := &examination{}
	x.clock(time.Unix(100, 0))
	expectFinding(t, x.findings, wrong, "clock", "1970")
	x = &examination{}
	x.clock(time.Now())
	if len(x.findings) != 1 || x.findings[0].Verdict == wrong {
		t.Errorf("the right time: %+v", x.findings)
	}
}

// TestDoctorInflux is an InfluxDB elsewhere that is away, refuses the token, has no
// such bucket, is unwell, or takes what is written.
func TestDoctorInflux(t *testing.T) {
	for status, c := range map[int]struct {
		verdict verdict
		want    string
	}{
		http.StatusUnauthorized: {wrong, "refuses the token"}, http.StatusNotFound: {wrong, `no bucket "haidang"`},
		http.StatusServiceUnavailable: {wrong, "not well"}, http.StatusNoContent: {fine, "takes the token"}, http.StatusBadRequest: {fine, "takes the token"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Token secret" || r.ContentLength != 0 {
				t.Errorf("the doctor asked with %q and %d bytes", r.Header.Get("Authorization"), r.ContentLength)
			}
			w.WriteHeader(status)
		}))
		x := &examination{cfg: Configuration{Influx: influx.Config{URL: server.URL, Token: "secret", Org: "hue", Bucket: "haidang"}}}
		x.partners(t.Context())
		expectFinding(t, x.findings, c.verdict, "influx", c.want)
		server.Close()
		x = &examination{cfg: x.cfg}
		x.partners(t.Context())
		expectFinding(t, x.findings, wrong, "influx", "cannot be reached", "refused")
	}
}

// TestDoctorFullDisk is a small disk with hardly any room, which also lies in memory.
func TestDoctorFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	x := &examination{cfg: Configuration{Data: dir}}
	x.dataFolder()
	expectFinding(t, x.findings, wrong, "disk", "nothing more can be kept")
	expectFinding(t, x.findings, wrong, "disk", "lies in memory")
	if err := os.WriteFile(filepath.Join(dir, "all"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	x = &examination{cfg: x.cfg}
	x.dataFolder()
	expectFinding(t, x.findings, wrong, "data folder", "cannot be kept", "no space left")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	x = &examination{cfg: x.cfg}
	x.dataFolder()
	expectFinding(t, x.findings, wrong, "disk", "read-only")
}

// asNobody runs the doctor as a user without rights, which root can become.
func asNobody(t *testing.T, args ...string) []finding {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	// The folder of the test's own program is closed to others.
	dir, err := os.MkdirTemp("", "doctor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "haidang")
	if err := os.Link(os.Args[0], program); err != nil {
		t.Skipf("the program cannot be linked to: %v", err)
	}
	cmd := exec.Command(program, append([]string{"doctor", "--json"}, args...)...)
	cmd.Env = append(os.Environ(), "HAIDANG_TEST_COMMAND=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.Output() // it fails where something is wrong
	var findings []finding
	if err := json.Unmarshal(out, &findings); err != nil {
		t.Fatalf("doctor: %v\n%s", err, out)
	}
	return findings
}

// TestDoctorWithoutRights are a data folder, a certificate's key and a serial port
// that belong to somebody else.
func TestDoctorWithoutRights(t *testing.T) {
	dir, err := os.MkdirTemp("", "doctor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := filepath.Join(dir, "ttyUSB0")
	if err := os.WriteFile(port, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := freePorts(t, 3)
	cfg := filepath.Join(dir, "gateway.yaml")
	text := fmt.Sprintf("data: %s\nbroker: {listen: %q}\nconsole: {listen: %q}\ninflux: {listen: %q}\nais: []\nserial: [{name: wxt, connect: \"serial://%s?baud=9600\", device: tt-hue, format: vaisala-wxt}]\n",
		dir, free[0], free[1], free[2], port)
	if err := os.WriteFile(cfg, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	findings := asNobody(t, "--config", cfg)
	expectFinding(t, findings, wrong, "data folder", "nothing can be written", "permission denied")
	expectFinding(t, findings, wrong, "serial wxt", port, "may not be opened")
	expectAdvice(t, findings, "serial wxt", "dialout")
	if err := os.Chmod(cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	findings = asNobody(t, "--config", cfg)
	expectFinding(t, findings, wrong, "configuration", "permission denied")
}

// TestDoctorOfTwo are two instances: on one data folder, and on the same ports.
func TestDoctorOfTwo(t *testing.T) {
	g := prepare(t, "")
	g.start()
	cfg := filepath.Join(g.dir, "gateway.yaml")
	if code, _, said := typed(t, "", "run", "--config", cfg); code != exitFailed || !strings.Contains(said, filepath.Join(g.dir, "data")) {
		t.Errorf("a second gateway on the data folder: %d %s", code, said)
	}
	other := strings.Replace(read(t, g.dir, "gateway.yaml"), filepath.Join(g.dir, "data"), filepath.Join(g.dir, "other"), 1)
	g.write("other.yaml", other)
	_, findings := examineAs(t, "--config", filepath.Join(g.dir, "other.yaml"))
	expectFinding(t, findings, wrong, "port of broker.listen", "is taken")
	expectFinding(t, findings, odd, "gateway", "none runs")
}
