package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/telemetry"
)

// A peer is a program of others that runs on a free port until the test ends.
func peer(t *testing.T, command func(address string) *exec.Cmd) (address string) {
	t.Helper()
	address = freePorts(t, 1)[0]
	cmd := command(address)
	output := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, cmd.Path+" answers", 20*time.Second, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return address
}

// A tcpModem answers AT commands on a TCP port, as a modem behind a serial
// server does, and counts the messages that it takes.
type tcpModem struct {
	mu       sync.Mutex
	messages int
}

func (m *tcpModem) listen(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { m.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

func (m *tcpModem) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\r')
		if err != nil {
			return
		}
		line = strings.Trim(line, "\x1b\r\n")
		answer := "\r\nOK\r\n"
		switch {
		case line == "":
			continue
		case line == "AT+CPIN?":
			answer = "\r\n+CPIN: READY\r\n\r\nOK\r\n"
		case line == "AT+CREG?":
			answer = "\r\n+CREG: 0,1\r\n\r\nOK\r\n"
		case strings.HasPrefix(line, "AT+CMGS="):
			_, _ = io.WriteString(conn, "\r\n> ")
			if _, err := r.ReadString('\x1a'); err != nil {
				return
			}
			m.mu.Lock()
			m.messages++
			answer = fmt.Sprintf("\r\n+CMGS: %d\r\n\r\nOK\r\n", m.messages)
			m.mu.Unlock()
		}
		_, _ = io.WriteString(conn, answer)
	}
}

// A digestive is an operations centre whose webhook takes digests.
type digestive struct {
	mu    sync.Mutex
	first time.Time      // when the first digest came
	count int            // messages
	told  map[string]int // how often each station was told of
	wrong []string
}

func (d *digestive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		telemetry.Warning
		Digest   string
		Region   telemetry.Text
		Warnings []telemetry.Warning
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	switch {
	case err != nil:
		d.wrong = append(d.wrong, err.Error())
	case body.Digest == "":
		d.told[body.Device]++
		return
	case d.first.IsZero():
		d.first = time.Now()
		if body.Warnings[0].Severity != telemetry.Extreme {
			d.wrong = append(d.wrong, "the first digest does not begin with an extreme one")
		}
	}
	if key := r.Header.Get("Idempotency-Key"); key != body.Digest {
		d.wrong = append(d.wrong, "Idempotency-Key "+key+" of "+body.Digest)
	}
	for i := range body.Warnings {
		d.told[body.Warnings[i].Device]++
		if i > 0 && body.Warnings[i].Severity > body.Warnings[i-1].Severity {
			d.wrong = append(d.wrong, body.Digest+": a graver one comes later")
		}
	}
}

// TestE2EStorm lets 500 stations of two rivers cross their alarm level at once,
// before a real mail server, a real Alertmanager, a folder of CAP messages, a modem
// and a webhook that takes digests.
func TestE2EStorm(t *testing.T) {
	needPeers(t, "prometheus-alertmanager", "xmllint")
	if out, err := exec.Command("/usr/bin/python3", "-c", "import aiosmtpd").CombinedOutput(); err != nil {
		t.Fatalf("python3-aiosmtpd is missing (.ci/peers installs it): %s", out)
	}
	dir := t.TempDir()
	box, folder := filepath.Join(dir, "mail"), filepath.Join(dir, "cap")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	mail := peer(t, func(address string) *exec.Cmd {
		return exec.Command("/usr/bin/python3", "-m", "aiosmtpd", "-n", "-l", address, "-c", "aiosmtpd.handlers.Mailbox", box)
	})
	config := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(config, []byte("route: {receiver: none}\nreceivers: [{name: none}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	alerts := peer(t, func(address string) *exec.Cmd {
		return exec.Command("prometheus-alertmanager", "--config.file="+config, "--storage.path="+dir, "--web.listen-address="+address, "--cluster.listen-address=")
	})
	modem := &tcpModem{}
	platform := &digestive{told: map[string]int{}}
	server := httptest.NewServer(platform)
	t.Cleanup(server.Close)
	g := prepare(t, fmt.Sprintf(`
devices: devices.yaml
cap: {sender: haidang@ioc.hue.example}
ioc:
  - {name: mail, smtp: {url: "smtp://%s", insecure: true, from: ioc@hue.example, to: [pctt@hue.example]}, digest: {every: 2s}}
  - {name: am, alertmanager: {url: "http://%s"}}
  - {name: sms, sms: {connect: "tcp://%s", to: ["+84905123456"]}, digest: {more_than: 0, every: 2s}}
  - {name: centre, cap: {folder: %q}}
  - {name: platform, webhook: {url: %q}, digest: {more_than: 0, every: 2s}}
`, mail, alerts, modem.listen(t), folder, server.URL))
	var devices strings.Builder
	devices.WriteString("devices:\n")
	const stations = 500
	for i := range stations {
		fmt.Fprintf(&devices, "  - {id: s%d, name: Trạm %d, kinds: [river], facts: {alarm1_m: 1, alarm2_m: 2, alarm3_m: 3.5, river: %s}}\n", i, i, []string{"Hương", "Bồ"}[i%2])
	}
	g.write("devices.yaml", devices.String())
	g.start()
	c := g.client("stations")
	began := time.Now()
	var sent []paho.Token
	for i := range stations {
		level := 2.2
		if i%10 == 0 {
			level = 3.8
		}
		sent = append(sent, c.Publish(fmt.Sprintf("telemetry/s%d/river", i), 1, false, fmt.Sprintf(`{"level_m":%v}`, level)))
	}
	for _, token := range sent {
		if !token.WaitTimeout(20*time.Second) || token.Error() != nil {
			t.Fatalf("not acknowledged: %v", token.Error())
		}
	}
	mails := func() []string { files, _ := filepath.Glob(filepath.Join(box, "new", "*")); return files }
	eventually(t, "everything is told", 60*time.Second, func() bool {
		_, body := g.try("/api/v1/recipients")
		files, _ := filepath.Glob(filepath.Join(folder, "*.xml"))
		told := g.metric("haidang_ioc_folded_total", `recipient="mail"`) + g.metric("haidang_ioc_delivered_total", `recipient="mail"`, `class=""`)
		return len(files) == stations && g.metric("haidang_ioc_folded_total", `recipient="sms"`) == stations && told > 0 &&
			strings.Count(body, `"backlog":0`) == 5 && g.metric("haidang_ioc_folded_total", `recipient="platform"`) == stations && g.metric("haidang_ioc_delivered_total", `recipient="am"`) == stations
	})
	if n := len(mails()); n < 1 || n > 30 {
		t.Errorf("%d mails for %d stations", n, stations)
	}
	digests := 0
	for _, name := range mails() {
		text, _ := os.ReadFile(name)
		if strings.Contains(string(text), "digest-") {
			digests++
		}
	}
	if digests == 0 {
		t.Error("no digest among the mails")
	}
	platform.mu.Lock()
	defer platform.mu.Unlock()
	took := platform.first.Sub(began)
	if len(platform.wrong) > 0 || len(platform.told) != stations || platform.count > 30 || took > 20*time.Second {
		t.Errorf("the platform: %d of %d stations in %d messages, the first after %s; %v", len(platform.told), stations, platform.count, took, platform.wrong)
	}
	for station, n := range platform.told {
		if n != 1 {
			t.Errorf("%s is told %d times", station, n)
		}
	}
	response, err := http.Get("http://" + alerts + "/api/v2/alerts?active=true")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var firing []json.RawMessage
	if err := json.NewDecoder(response.Body).Decode(&firing); err != nil || len(firing) != stations {
		t.Errorf("%d alerts fire (%v), want %d", len(firing), err, stations)
	}
	files, _ := filepath.Glob(filepath.Join(folder, "*.xml"))
	if chain := chainOf(t, files); len(chain) != stations {
		t.Errorf("%d CAP messages", len(chain))
	}
	modem.mu.Lock()
	defer modem.mu.Unlock()
	if modem.messages < 1 || modem.messages > 40 {
		t.Errorf("%d short messages for %d stations", modem.messages, stations)
	}
	t.Logf("the first digest after %s; %d mails (%d digests), %d short messages, %d posts, %d alerts, %d CAP messages", took.Round(time.Millisecond),
		len(mails()), digests, modem.messages, platform.count, len(firing), len(files))
}
