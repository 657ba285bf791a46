package ioc

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// serve runs a program of others on a free port of this machine until the test
// ends, and waits until it answers there.
func serve(t *testing.T, command func(address string) *exec.Cmd) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	listener.Close()
	cmd := command(address)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v\n%s", cmd.Path, err, out.String())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// A real SMTP server takes a mail whole.
func TestMailThroughAiosmtpd(t *testing.T) {
	if exec.Command("/usr/bin/python3", "-c", "import aiosmtpd").Run() != nil {
		t.Skip("aiosmtpd is not there (Debian: python3-aiosmtpd)")
	}
	box := filepath.Join(t.TempDir(), "mail")
	address := serve(t, func(address string) *exec.Cmd {
		return exec.Command("/usr/bin/python3", "-m", "aiosmtpd", "-n", "-l", address, "-c", "aiosmtpd.handlers.Mailbox", box)
	})
	w := flooded("kim-long", 1, telemetry.Extreme)
	w.Message.VI = "Mực nước sông Hương vượt báo động III\n.\n..chấm"
	if err := NewSMTP(mailer(address), bulletins()).Deliver(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(box, "new", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d mails arrived (%v)", len(files), err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	_, subject, parts := read(t, string(text))
	if !strings.HasPrefix(subject, "[đặc biệt nghiêm trọng] Lũ: Mực nước sông Hương") || len(parts) != 2 || !strings.Contains(strings.ReplaceAll(parts[0], "\r\n", "\n"), "III\n.\n..chấm") {
		t.Errorf("subject %q, parts %q", subject, parts)
	}
}

// A real Alertmanager fires and resolves as the warning does.
func TestAlertsInAlertmanager(t *testing.T) {
	program, err := exec.LookPath("prometheus-alertmanager")
	if err != nil {
		t.Skip("prometheus-alertmanager is not there (Debian: prometheus-alertmanager)")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(config, []byte("route: {receiver: none}\nreceivers: [{name: none}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := serve(t, func(address string) *exec.Cmd {
		return exec.Command(program, "--config.file="+config, "--storage.path="+dir, "--web.listen-address="+address, "--cluster.listen-address=")
	})
	a := NewAlertmanager(AlertmanagerConfig{URL: "http://" + address}, "1")
	firing := func() string {
		resp, err := http.Get("http://" + address + "/api/v2/alerts?active=true")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var list []struct {
			Labels, Annotations map[string]string
		}
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, x := range list {
			out = append(out, fmt.Sprintf("%s %s %s", x.Labels["device"], x.Labels["severity"], x.Annotations["summary"]))
		}
		return strings.Join(out, ";")
	}
	w := warning("kim-long", 1, telemetry.Severe)
	w.Start = time.Now().Add(-time.Minute)
	for _, step := range []struct {
		severity telemetry.Severity
		state    telemetry.State
		want     string
	}{
		{telemetry.Severe, telemetry.Active, "kim-long severe Mực nước Kim Long 3,62 m"},
		{telemetry.Extreme, telemetry.Active, "kim-long extreme Mực nước Kim Long 3,62 m"},
		{telemetry.Extreme, telemetry.Cleared, ""},
	} {
		w.N, w.Severity, w.State, w.At = w.N+1, step.severity, step.state, time.Now()
		if err := a.Deliver(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		got := firing()
		for deadline := time.Now().Add(5 * time.Second); got != step.want && time.Now().Before(deadline); got = firing() {
			<-time.After(20 * time.Millisecond)
		}
		if got != step.want {
			t.Errorf("after %s %s: %q fires, want %q", step.severity, step.state, got, step.want)
		}
	}
}
